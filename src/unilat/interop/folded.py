"""A run whose weights do what a scale beside its encoder does: whoever takes an export is told of no scale."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from unilat.nets.decoder import readers
from unilat.nets.encoder import Encoder
from unilat.nets.foreign import ForeignDecoder
from unilat.run.trained import Run


@torch.no_grad()
def folded(run: Run) -> Run:
    """``run`` with encoder and decoders that agree on z_0 as it is; the run itself where it has no such scale.

    The encoder of one that was kept is scaled by its last layer, or goes on doing it (``nets/foreign.py``), and what
    reads ``z_0 / s`` reads z_0.
    """
    scale = run.autoencoder.encoder.scale
    if scale is None:
        return run
    found = copy.copy(run)
    found.autoencoder, found.few_decoder = copy.deepcopy((run.autoencoder, run.few_decoder))
    encoder = found.autoencoder.encoder
    if isinstance(encoder, Encoder):
        encoder.scale = None
        encoder.rescale(float(scale))
    for weight in _reading(found):
        weight.div_(scale)
    return found


def _reading(run: Run) -> Iterator[Tensor]:
    """What the latent is multiplied by first, in the decoder and in the one that was distilled of it."""
    channels = run.config.autoencoder.latent_channels
    for decoder in (run.autoencoder.decoder, *([run.few_decoder.denoise] if run.few_decoder else [])):
        if isinstance(decoder, ForeignDecoder):
            yield decoder.std
        else:
            yield from (layer.weight[:, :channels] for layer in readers(decoder))
