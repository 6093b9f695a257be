"""One picture's bits, and what fewer of them would keep.

A latent costs what it takes to lift it out of noise, level by level (``maths/rate.py``). Whoever stops at log-SNR λ
below λ₀ has paid only for the levels up to there,

    R(λ) = ½ ∫_{λ_min}^{λ} e^l E||z − ẑ||² dl + KL at λ_min,

and holds ``z_λ = α(λ) z + σ(λ) ε``. The prior that the bits were counted under goes on from there to λ₀, the decoder
decodes: that is the picture that R(λ) bits keep.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unilat.maths.noise import diffuse
from unilat.maths.rate import LN2, RateTerms
from unilat.maths.samplers import dpmpp_2m, uniform_grid
from unilat.metrics.quality import qualities
from unilat.models.latents import LatentSet
from unilat.results import Number
from unilat.run.evaluate import bound
from unilat.run.rate import generators, latent_nats, noise_of
from unilat.run.trained import Run
from unilat.types import UserError

LEVELS = 64
"""Noise levels at which the bits of one picture are measured, spread evenly."""
RUNGS = 24
"""Most levels of the ladder from few bits to all of them."""
ERROR = "± is the standard error of this estimate, over noise levels and their noise"
CALLS = 8
"""Calls of the prior from a lower level up to λ₀."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spent:
    """Where the bits of one picture go."""

    image: Tensor
    """uint8 ``[1, C, H, W]``."""
    z: Tensor
    """Its clean latent ``[1, C, *grid]``."""
    bits: Number
    """All of them, bits of the whole picture; its error is that of the estimate, over noise levels and their noise."""
    map: Tensor
    """Bits by latent position ``[*grid]``."""
    levels: Tensor
    """Log-SNR of the ladder's rungs, float64 ``[K]``, at most :data:`RUNGS`, the last one λ₀."""
    up_to: Tensor
    """Bits of the whole picture that each rung has cost ``[K]``: R(λ) / ln 2."""
    errors: Tensor
    """Standard error of each of them ``[K]``, as that of ``bits``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """What is kept of a picture by fewer bits."""

    image: Tensor
    """uint8 ``[1, C, H, W]``."""
    psnr: Number
    ssim: Number


def spent(run: Run, image: Tensor, seed: int = 0) -> Spent:
    """The bits of one picture uint8 ``[1, C, H, W]`` in the run's shape, as `evaluate` measures those that it shows."""
    config = run.config.autoencoder
    z, posterior = run.encoded(image, seed)

    def repeated(rows: Tensor) -> Tensor:
        return rows.repeat_interleave(LEVELS, 0)

    terms = run.rate(repeated(z), 1, seed, posterior and posterior.each(repeated))[0]
    levels, up_to, errors = _ladder(terms, config.lambda_0)
    closed = config.price == "normal"
    nats = latent_nats(config, z, [terms], posterior) if closed else terms.nats()
    protocol = f"{bound(run, levels=LEVELS)}; of this picture alone, seed {seed}" + f"; {ERROR}" * (not closed)
    stderr = None if closed else float(errors[-1]) / LN2
    return Spent(
        image=image,
        z=z,
        bits=Number(value=float(nats.mean()) / LN2, stderr=stderr, n=1, unit="bits", protocol=protocol),
        map=terms.dimension_map().sum(0) / LN2,
        levels=levels,
        up_to=up_to / LN2,
        errors=errors / LN2,
    )


def _ladder(terms: RateTerms, lambda_0: float) -> tuple[Tensor, Tensor, Tensor]:
    """Levels at which the nats grow as evenly as the estimates' own levels let them, the nats up to each, their errors.

    Those of R(λ) at the estimate's level λ are the mean of :meth:`~unilat.maths.rate.RateTerms.up_to` that level.
    """
    order = terms.lambda_t.argsort()
    each = terms.diffusion.flatten(1).sum(1)[order].double()
    inside = each.cumsum(0) / len(each)
    wanted = inside[-1] * torch.arange(1, RUNGS + 1) / RUNGS
    rungs = torch.searchsorted(inside, wanted).clamp(max=len(each) - 1).unique()
    every = terms.lambda_t[order].double()
    levels = every[rungs]
    levels[-1] = lambda_0  # above the last estimate nothing is known to be paid
    errors = by_chance(every, each).cumsum(0).sqrt() / len(each)
    return levels, inside[rungs] + terms.terminal.flatten(1).sum(1).mean().double(), errors[rungs]


def by_chance(levels: Tensor, values: Tensor) -> Tensor:
    """Variance of each of ``values [n]`` at rising ``levels [n]``, n ≥ 3, but for what they change with the level.

        s_i² = (x_i − a x_{i−1} − (1 − a) x_{i+1})² / (1 + a² + (1 − a)²),   a = (λ_{i+1} − λ_i) / (λ_{i+1} − λ_{i−1})

    That is how far each lies from the line through its neighbours (Gasser, Sroka and Jennen-Steinmetz 1986, eq. 2.3).
    Levels lie evenly over the whole integral, so what differs between them is no error of it. The ends have none of
    their own: they get their neighbours'.
    """
    below = (levels[2:] - levels[1:-1]) / (levels[2:] - levels[:-2])
    off = values[1:-1] - below * values[:-2] - (1 - below) * values[2:]
    inner = off.square() / (1 + below.square() + (1 - below).square())
    return torch.cat([inner[:1], inner, inner[-1:]])


def kept(run: Run, of: Spent, lambda_end: float, calls: int | None = None, seed: int = 0) -> Kept:
    """The picture that the bits up to ``lambda_end`` keep, decoded with ``calls``; at λ₀ what `reconstruct` makes."""
    made = run.decode(lifted(run, of.z, lambda_end, seed), calls, seed).images
    return Kept(image=made, **qualities(run.kind, of.image, made))


@torch.no_grad()
def lifted(run: Run, z: Tensor, lambda_end: float, seed: int = 0) -> LatentSet:
    """Latents ``z [N, C, *grid]`` known up to ``lambda_end``, lifted by the prior to z_0; row i depends on (seed, i).

    At λ₀ or above they are clean, and :meth:`~unilat.run.trained.Run.decode` adds the same noise to them. Raises
    :class:`UserError` below λ_min, where nothing is known of them.
    """
    config, noisy = run.config.autoencoder, lambda_end < run.config.autoencoder.lambda_0
    if not lambda_end > config.lambda_min:
        raise UserError(f"the noise level is a log-SNR above {config.lambda_min:g}, not {lambda_end:g}")
    if noisy:
        noise = noise_of(generators(seed, "decode", 0, len(z)), z.shape[1:])
        z_t = diffuse(z, noise, torch.full((len(z),), lambda_end)).to(run.device)
        grid = uniform_grid(lambda_end, config.lambda_0, CALLS).to(run.device)
        z = dpmpp_2m(run.autoencoder.prior, z_t, grid, generator=(), cond=None).cpu()
    return LatentSet(
        z=z,
        bits=torch.full((len(z),), torch.nan),
        labels=torch.full((len(z),), -1 if run.classes else 0),
        lambda_0=config.lambda_0,
        encoder_sha256=run.encoder_sha256,
        pixels=run.pixels,
        classes=tuple(run.classes),
        noisy=noisy,
    )
