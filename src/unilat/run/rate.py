"""What encodes a set of pictures and measures the bits of its latents, batch by batch, whatever the batches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unilat.maths.levels import Table
from unilat.maths.noise import diffuse
from unilat.maths.rate import RateTerms, drawn_rate_terms, normal_kl, rate_terms
from unilat.maths.seeds import Draws, key, seeded
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.models.posterior import Posterior
from unilat.nets.condition import Condition
from unilat.signals import kind_of
from unilat.training.parallel import ALONE, World
from unilat.types import Denoiser

BATCH = 250
"""Pictures through a network at once outside training."""
NEAR = 16
"""Estimates of neighbouring noise levels that tell what their level alone makes."""


@torch.no_grad()
def encode_images(
    model: Autoencoder,
    images: Tensor,
    *,
    device: torch.device,
    seed: int = 0,
    start: int = 0,
    world: World = ALONE,
) -> tuple[Tensor, Posterior | None]:
    """Clean latents of uint8 ``[N, C, H, W]`` on the CPU, and what they were drawn from.

    A latent is ``E(x)``, or a draw where the encoder learned a variance; only then there is a posterior. Picture i is
    number ``start + i`` of its set: its draw is a function of (seed, number). The processes of ``world`` share the
    pictures.
    """
    kind = kind_of(images.shape)

    def some(first: int, last: int) -> list[Tensor]:
        posterior = model.posterior(kind.to_unit(images[first:last]).to(device))
        makers = generators(seed, "posterior", start + first, len(posterior.mean))
        z = posterior.draw(lambda mean: noise_of(makers, mean.shape[1:]).to(mean))
        spread = posterior.log_variance
        return [z.cpu()] if spread is None else [z.cpu(), posterior.mean.cpu(), spread.cpu()]

    z, *moments = world.by_rows(len(images), lambda first, last: in_batches(first, last, some))
    return z, Posterior(*moments) if moments else None


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
    posterior: Posterior | None = None,
    world: World = ALONE,
) -> list[RateTerms]:
    """``levels`` independent estimates of the rate of all of ``z [N, ...]`` under ``denoise``, batch by batch.

    Noise levels fall as ``table`` says, spread evenly over the set; everything random is a function of ``seed``.
    ``cond``: N rows, what the denoiser is conditioned on; None for nothing. ``posterior``: what ``z`` was drawn from;
    the draws' entropy is then taken off. The processes of ``world`` share the rows.
    """
    found = []
    for index in range(levels):
        draws = Draws.keyed(key(seed, "rate"), index, 0, len(z))
        strata, noise = draws.strata(len(z)), draws.normal(z)

        def some(first: int, last: int, strata: Tensor = strata, noise: Tensor = noise) -> list[Tensor]:
            rows = slice(first, last)
            here, at = z[rows].to(device), table.sample(strata[rows].to(device))
            told = None if cond is None else cond[rows].to(device)
            z_t = diffuse(here, noise[rows].to(device), at.lambda_t)
            z_hat = denoise(z_t, at.lambda_t, told)
            if posterior is None or posterior.log_variance is None:
                terms = rate_terms(here, z_hat, at, lambda_min)
            else:
                mean, spread = (one[rows].to(device) for one in (posterior.mean, posterior.log_variance))
                terms = drawn_rate_terms(z_t, z_hat, mean, spread, at, lambda_min)
            return [part.cpu() for part in (terms.diffusion, terms.terminal, terms.lambda_t)]

        made = world.by_rows(len(z), lambda first, last, some=some: in_batches(first, last, some))
        found.append(RateTerms(*made))
    return found


def latent_nats(
    config: AutoencoderConfig, z: Tensor, estimates: Sequence[RateTerms], posterior: Posterior | None
) -> Tensor:
    """Nats of each latent ``[N]``: the mean of its ``estimates``, of a normal price ``KL[q(z_0 | x) || N(0, I)]``.

    That is in closed form what a VAE's KL term counts. ``posterior``: as :func:`encode_images` returns it.
    """
    if config.price == "normal":
        mean, spread = (z, None) if posterior is None else (posterior.mean, posterior.log_variance)
        return normal_kl(mean, config.lambda_0, torch.zeros(()), torch.ones(()), spread).flatten(1).sum(1)
    return torch.stack([terms.nats() for terms in estimates]).mean(0)


def nats_of(estimates: Sequence[RateTerms], posterior: Posterior | None) -> Tensor:
    """Nats of each latent ``[N]``, the mean of its estimates; of drawn ones without what differs between levels alone.

    Latents with a learned variance cost far more at some levels than at others. But levels lie evenly over the set, so
    that is no error of its mean: each estimate tells how far it lies from its :data:`NEAR` neighbours in level, above
    the mean of all. The mean stays, and its standard error over pictures becomes that of what is left to chance.
    """
    nats = torch.stack([terms.nats() for terms in estimates])
    if posterior is None:
        return nats.mean(0)
    order, flat = torch.stack([terms.lambda_t for terms in estimates]).flatten().argsort(), nats.flatten()
    left = torch.empty_like(flat)
    for near in order.tensor_split(max(1, len(order) // NEAR)):
        left[near] = flat[near] - flat[near].mean()
    return (left + flat.mean()).view_as(nats).mean(0)


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
