"""What an encoder that is kept makes of the training pictures, made once: it never changes, they come again and again.

Held is ``E(x)`` without the scale, which moves between steps (``nets/foreign.py``): a step then computes prior and
decoder alone. To rounding its latents are those that it would have made of its own batch.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unilat.run.stages import AutoencoderStage
from unilat.training.parallel import World
from unilat.training.plan import Stage

HELD = 2**30
"""Most bytes of latents that a process holds."""
ROWS = 32
"""Pictures through the encoder at once: always these together, so that a resumed run has the same last bits."""


def bytes_held(of: AutoencoderStage) -> int:
    """Bytes of the latents of all training pictures; 0 where they are not held.

    That is where the encoder learns, pictures look another way each time (mirrored, cut at random) or are read as they
    are needed, latents take more than :data:`HELD`, and where training ends before it has seen each picture once.
    """
    config, pictures = of.model.config, of.pictures
    if not (config.frozen and isinstance(pictures, Tensor)) or of.flip or of.config.samples <= of.count:
        return 0
    places = math.prod(pictures.shape[2:]) // math.prod(config.encoder.factor)
    taken = 4 * of.count * config.latent_channels * places
    return taken if taken <= HELD else 0


def encoded_once(stage: Stage, of: AutoencoderStage, world: World, tell: Callable[[str], object]) -> Stage:
    """``stage``, stage 1 of ``of``, whose encoder is asked once for a picture, where :func:`bytes_held` allows it."""
    encoder, pictures, taken = of.model.encoder, of.pictures, bytes_held(of)
    tell(f"the encoder is kept: its latents of {of.count:,} pictures are made once and held, {taken / 2**20:,.1f} MiB")
    found: list[Tensor] = []

    @torch.no_grad()
    def some(first: int, last: int) -> list[Tensor]:
        device = next(encoder.parameters()).device
        parts = pictures[first:last].split(ROWS)
        return [torch.cat([encoder.unscaled(of.kind.to_unit(part).to(device)).float().cpu() for part in parts])]

    def prepare() -> None:
        if not found:
            found.extend(world.by_rows(of.count, some))

    return replace(stage, prepare=prepare, batch=lambda indices: (pictures[indices], found[0][indices]))
