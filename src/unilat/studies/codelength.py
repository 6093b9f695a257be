"""The whole codelength of pictures: what the latent carries, and what the decoder still has to say, in bits.

    latent bits R + decoder integral L with weight 1 + terminal KL + the discretised last step  >=  -log2 p(x)

A run's own decoder is trained with a weight that forgives the detail, and is a poor likelihood model. So the decoder is
trained on with weight 1 (:func:`train_pixels`), the encoder and the prior stay as they are. Without a latent the same
network is a diffusion model of the pixels, to compare with.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unilat.fields import FieldError
from unilat.maths.codelength import CodelengthTerms, codelength_terms
from unilat.maths.levels import rate_table
from unilat.maths.noise import diffuse
from unilat.maths.rate import LN2
from unilat.maths.seeds import Draws, key
from unilat.metrics.quality import average
from unilat.nets.decoder import Decoder
from unilat.results import Number
from unilat.run.folder import RunFolder
from unilat.run.rate import BATCH
from unilat.run.trained import Run
from unilat.signals import kind_of
from unilat.signals.pictures import distinct
from unilat.studies.pixels import PixelDenoiser, noisy_latents, pixel_stage
from unilat.training.engine import fit
from unilat.training.plan import Schedule
from unilat.types import UserError

LAMBDA_MAX = 13.0
"""Where the last step begins: noise of a fifth of a grey level. It costs 0.04 bits a number there, 0.4 at 12."""


@dataclass(frozen=True, kw_only=True)
class Codelength:
    """What pictures cost in all, bits per number of a picture."""

    latent: Number
    """What the latent carries."""
    decoder: Number
    """What the decoder still has to say, down to the last step."""
    terminal: Number
    """Of the highest noise."""
    reconstruction: Number
    """The discretised last step."""
    total: Number


def train_pixels(
    run: Run,
    pictures: Tensor,
    folder: Path,
    schedule: Schedule,
    *,
    latent: bool = True,
    lambda_max: float = LAMBDA_MAX,
    seed: int = 0,
) -> PixelDenoiser:
    """The run's decoder trained on with weight 1 on uint8 ``pictures``, up to ``lambda_max``; the encoder is frozen.

    ``latent`` False: a network of the same size from fresh weights that sees no latent. Checkpoints and the log lie in
    ``folder``; the same call goes on where it stopped.
    """
    _check(run, pictures, lambda_max)
    ae = run.config.autoencoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "pixels"))
        old = run.autoencoder.decoder
        assert isinstance(old, Decoder)
        model = PixelDenoiser(ae, pictures.shape[1], old.mean.flatten().cpu(), old.std.flatten().cpu())
    if latent:
        model.continue_from(old)
    z = run.latents(pictures) if latent else _zeros(run, len(pictures))
    name, noise = ("pixels-given-latent", ae.lambda_0) if latent else ("pixels", None)
    stage = pixel_stage(name, model, pictures, z, (ae.lambda_min, lambda_max), noise)
    done = fit(stage, schedule, folder / name, seed, log=RunFolder(folder).log, device=str(run.device))
    model.load_state_dict(done.ema)
    return model.eval().requires_grad_(False).to(run.device)


def codelength(
    run: Run,
    pictures: Tensor,
    model: PixelDenoiser,
    *,
    latent: bool = True,
    lambda_max: float = LAMBDA_MAX,
    levels: int = 8,
    seed: int = 0,
) -> Codelength:
    """Bits per number of the uint8 ``pictures``, means over those that differ: :func:`bits_each` and their total."""
    pictures = pictures[distinct(pictures)] if len(pictures) else pictures
    each = bits_each(run, pictures, model, latent=latent, lambda_max=lambda_max, levels=levels, seed=seed)
    line = f"codelength, last step at log-SNR {lambda_max:g}, {levels} noise levels a picture, seed {seed}"
    return Codelength(**{name: average(bits, "bits per dimension", line) for name, bits in each.items()})


@torch.no_grad()
def bits_each(
    run: Run,
    pictures: Tensor,
    model: PixelDenoiser,
    *,
    latent: bool = True,
    lambda_max: float = LAMBDA_MAX,
    levels: int = 8,
    seed: int = 0,
) -> dict[str, Tensor]:
    """``latent``, ``decoder``, ``terminal``, ``reconstruction`` and ``total`` of each picture ``[N]``, bits per number.

    ``levels`` noise levels a picture, spread evenly over the set. ``latent`` False: a model without one, whose latent
    bits are 0.
    """
    _check(run, pictures, lambda_max)
    if levels < 1:
        raise UserError(f"levels must be 1 or more, not {levels}")
    z = run.latents(pictures) if latent else _zeros(run, len(pictures))
    rate = torch.zeros(len(pictures))
    if latent:
        rate = torch.stack([terms.nats() for terms in run.rate(z, levels, seed)]).mean(0)
    lambda_0 = run.config.autoencoder.lambda_0 if latent else None
    span = (run.config.autoencoder.lambda_min, lambda_max)
    found = [
        _terms(model, pictures, z, span, lambda_0, Draws.keyed(key(seed, "codelength"), index, 0, len(pictures)))
        for index in range(levels)
    ]
    parts = {
        "latent": rate,
        "decoder": torch.stack([terms.diffusion for terms in found]).mean(0),
        "terminal": torch.stack([terms.terminal for terms in found]).mean(0),
        "reconstruction": torch.stack([terms.reconstruction for terms in found]).mean(0),
    }
    parts["total"] = torch.stack(list(parts.values())).sum(0)
    dimensions = math.prod(pictures.shape[1:])
    return {name: nats.double() / (LN2 * dimensions) for name, nats in parts.items()}


def _terms(
    model: PixelDenoiser,
    pictures: Tensor,
    z: Tensor,
    span: tuple[float, float],
    lambda_0: float | None,
    draws: Draws,
) -> CodelengthTerms:
    """One noise level a picture, spread evenly over all of them; on the CPU."""
    device = next(model.parameters()).device
    x = kind_of(pictures.shape).to_unit(pictures)
    levels = rate_table(*span).sample(draws.strata(len(pictures)))
    x_t = diffuse(x, draws.normal(x), levels.lambda_t)
    x_max = diffuse(x, draws.normal(x), torch.full((len(x),), span[1]))
    z_0 = noisy_latents(z, lambda_0, draws)
    x_hat = torch.cat(
        [
            model(*(part[first : first + BATCH].to(device) for part in (x_t, levels.lambda_t, z_0))).cpu()
            for first in range(0, len(x), BATCH)
        ]
    )
    return codelength_terms(pictures, x_hat, levels, x_max, *span)


def _zeros(run: Run, count: int) -> Tensor:
    return torch.zeros(1, *run.latent_shape).expand(count, *run.latent_shape)


def _check(run: Run, pictures: Tensor, lambda_max: float) -> None:
    ae = run.config.autoencoder
    if ae.learned_variance or ae.random_end is not None:
        raise UserError(f"{run.folder}: a codelength is told for latents whose noise is fixed at λ₀")
    if ae.decoder_start != "latent":
        raise FieldError(
            f"{run.folder}: a codelength is told for decoders trained with autoencoder.decoder_start latent"
        )
    if run.read(pictures).images is not pictures:
        size, channels = run.config.data.size, run.data.channels
        raise UserError(f"a codelength is of pictures uint8 [N, {channels}, {size}, {size}] as they are")
    if not len(pictures):
        raise UserError("there are no pictures to measure")
    if not ae.lambda_min < lambda_max < math.inf:
        raise UserError(f"lambda_max {lambda_max} must lie above lambda_min {ae.lambda_min}")
