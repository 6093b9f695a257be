"""What encodes a set of pictures and measures the bits of its latents, batch by batch, whatever the batches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unilat.maths.levels import Table
from unilat.maths.noise import diffuse
from unilat.maths.rate import RateTerms, rate_terms
from unilat.maths.seeds import Draws, key, seeded
from unilat.models.autoencoder import Autoencoder
from unilat.nets.condition import Condition
from unilat.signals import kind_of
from unilat.training.parallel import ALONE, World
from unilat.types import Denoiser

BATCH = 250
"""Pictures through a network at once outside training."""


@torch.no_grad()
def encode_images(
    model: Autoencoder,
    images: Tensor,
    lambda_0: float,
    *,
    device: torch.device,
    seed: int = 0,
    start: int = 0,
    world: World = ALONE,
) -> tuple[Tensor, Tensor | None]:
    """Clean latents of uint8 ``[N, C, H, W]`` on the CPU, and the entropy in nats of each of their numbers.

    A latent is ``E(x)``, or a draw where the encoder learned a variance; only then there is an entropy. Picture i is
    number ``start + i`` of its set: its draw is a function of (seed, number). The processes of ``world`` share the
    pictures.
    """
    kind = kind_of(images.shape)

    def some(first: int, last: int) -> list[Tensor]:
        posterior = model.posterior(kind.to_unit(images[first:last]).to(device))
        makers = generators(seed, "posterior", start + first, len(posterior.mean))
        z = posterior.draw(lambda mean: noise_of(makers, mean.shape[1:]).to(mean))
        entropy = posterior.entropy(lambda_0)
        return [z.cpu()] if entropy is None else [z.cpu(), entropy.cpu()]

    z, *entropy = world.by_rows(len(images), lambda first, last: in_batches(first, last, some))
    return z, entropy[0] if entropy else None


@torch.no_grad()
def measure_rate(
    z: Tensor,
    denoise: Denoiser,
    table: Table,
    lambda_min: float,
    *,
    levels: int,
    seed: int,
    device: torch.device,
    cond: Condition | None = None,
    world: World = ALONE,
) -> list[RateTerms]:
    """``levels`` independent estimates of the rate of all of ``z [N, ...]`` under ``denoise``, batch by batch.

    Noise levels fall as ``table`` says, spread evenly over the set; everything random is a function of ``seed``.
    ``cond``: N rows, what the denoiser is conditioned on; None for nothing. The processes of ``world`` share the rows.
    """
    found = []
    for index in range(levels):
        draws = Draws.keyed(key(seed, "rate"), index, 0, len(z))
        strata, noise = draws.strata(len(z)), draws.normal(z)

        def some(first: int, last: int, strata: Tensor = strata, noise: Tensor = noise) -> list[Tensor]:
            rows = slice(first, last)
            here, at = z[rows].to(device), table.sample(strata[rows].to(device))
            told = None if cond is None else cond[rows].to(device)
            z_hat = denoise(diffuse(here, noise[rows].to(device), at.lambda_t), at.lambda_t, told)
            terms = rate_terms(here, z_hat, at, lambda_min)
            return [part.cpu() for part in (terms.diffusion, terms.terminal, terms.lambda_t)]

        made = world.by_rows(len(z), lambda first, last, some=some: in_batches(first, last, some))
        found.append(RateTerms(*made))
    return found


def in_batches(first: int, last: int, make: Callable[[int, int], Sequence[Tensor]]) -> list[Tensor]:
    """``make(first, last)``, rows of one tensor or more, made :data:`BATCH` rows at a time."""
    parts = [make(begin, min(begin + BATCH, last)) for begin in range(first, last, BATCH)]
    return [torch.cat(each) for each in zip(*parts, strict=True)]


def generators(seed: int, purpose: str, first: int, count: int) -> list[torch.Generator]:
    """One CPU generator for each of ``count`` samples from number ``first`` on: sample i depends on (seed, i) only."""
    return [seeded(seed, purpose, first + index) for index in range(count)]


def noise_of(makers: list[torch.Generator], shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Standard normal noise, row i from generator i."""
    return torch.stack([torch.randn(tuple(shape), generator=maker) for maker in makers])
