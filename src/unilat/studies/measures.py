"""The measurements of an audit, one by one: bits under both priors, and what the model's own decoder makes of them."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from unilat.maths.noise import alpha
from unilat.maths.rate import LN2, RateTerms, terminal_kl
from unilat.metrics import PSNR_PROTOCOL, compare, feature_network, psnr
from unilat.metrics.quality import average
from unilat.nets.vit import ViTConfig
from unilat.results import Number
from unilat.run.records import OnStep
from unilat.studies.channels import Channels, posterior_kl, standardised
from unilat.studies.prior import PriorPlan, fit_prior, measure, new_prior
from unilat.studies.subject import BATCH, Say, Subject
from unilat.training.machine import pick_device
from unilat.types import Denoiser as Denoise
from unilat.types import UserError

CURVE_BINS = 30
SHOWN = 8
TOKENS = 256
"""Tokens of the prior at most; finer latents are folded into patches."""
TOKEN_NUMBERS = 16
"""Numbers of the latent in a token at least, where the grid allows it. With 4 (16 tokens of 4) a prior stood 15 % above
the closed form of correlated Gaussian latents, with 16 by 1.9 %, with all 64 in one by 0.6 %; width did not help."""
RECONSTRUCTED = 500
UNTRAINED = {"normal": "N(0, I)", "Gaussian": "their plain Gaussian"}
"""Names of priors that need no training."""
LOOSE = 0.05
"""Share by which held-out bits may lie above those of the prior's own latents before the audit says so."""


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """How an audit measures."""

    lambda_0: float = 5.0
    """Log-SNR of the noise that is added to the standardised latents."""
    lambda_min: float = -10.0
    """Log-SNR of the prior's highest noise."""
    levels: int = 8
    """Noise levels a held-out latent is measured at."""
    seed: int = 0
    """Seed of the split, the prior and the noise."""
    prior: PriorPlan = field(
        default_factory=lambda: PriorPlan(
            vit=ViTConfig(channels=(128,), blocks=(3,)), samples=60_000, learning_rate=1.5e-3, optimizer="muon"
        )
    )
    """The prior and how it is fitted; of patch 1, :func:`patch` chooses the side of its patches."""
    gaussian_up_to: int = 1024
    """Most numbers a latent may have for their Gaussian, which needs no training, to be tried beside the network."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a measurement works with."""

    plan: AuditPlan
    folder: Path
    """Where the prior's checkpoints lie."""
    features: str
    device: str
    say: Say
    progress: OnStep | None


@dataclass(eq=False)
class Beside:
    """What measurements leave beside their numbers."""

    arrays: dict[str, Tensor] = field(default_factory=dict)
    """For audit.safetensors."""
    unknown: list[str] = field(default_factory=list)
    """What could not be known, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class LatentBits:
    """Bits of held-out latents, in as many units as are known."""

    per_latent: Number
    per_dimension: Number
    """Of a number of the latent."""
    per_pixel: Number | None = None
    seen_per_latent: float | None = None
    """Bits of as many latents that the prior was trained on; None where none was."""


@dataclass(frozen=True, kw_only=True)
class NormalBits:
    """Bits of held-out latents under N(0, 1)."""

    posterior: LatentBits | None
    """Of the model's own posterior, where it has one."""
    noisy: LatentBits
    """Of the standardised latents with the audit's noise."""


PriorName = Literal["network", "normal", "Gaussian"]
"""The network that was trained; N(0, I); the Gaussian of the latents that the network was trained on."""


@dataclass(frozen=True, kw_only=True)
class DiffusionBits:
    """Bits of held-out latents under a prior of the others."""

    bits: LatentBits
    prior: PriorName | None
    """Whose bound is the lowest one; None where every channel is dead and none was fitted."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the model's own decoder makes of held-out latents."""

    psnr: Number
    above_mean: float
    """Decibels by which they beat the one mean picture."""
    kernel: Number | None
    """Kernel distance to the originals; None where no feature network was at hand."""


def _per(nats: Tensor, subject: Subject, seen: float | None = None) -> LatentBits:
    """Nats of each latent ``[N, ...]`` as bits for a latent, a number of it and, where they are known, a pixel."""
    bits, dimensions = nats.double().flatten(1).sum(1) / LN2, math.prod(subject.z.shape[1:])
    return LatentBits(
        per_latent=average(bits, "bits per latent", ""),
        per_dimension=average(bits / dimensions, "bits per number", ""),
        per_pixel=average(bits / subject.pixels, "bits per pixel", "") if subject.pixels else None,
        seen_per_latent=seen,
    )


def normal_bits(subject: Subject, channels: Channels, plan: AuditPlan, beside: Beside) -> NormalBits:
    """Bits under N(0, 1), held out: of the model's posterior, and of the standardised latents with our noise."""
    test, posterior = subject.test, None
    if subject.logvar is not None and channels.kl is not None:
        posterior = _per(posterior_kl(subject.z[test], subject.logvar[test]), subject)
        beside.arrays["channel_kl_bits"] = (channels.kl / LN2).float()
    z = standardised(subject.z[test], channels)
    return NormalBits(posterior=posterior, noisy=_per(terminal_kl(z, plan.lambda_0), subject))


def diffusion_bits(subject: Subject, channels: Channels, means: Means, beside: Beside) -> DiffusionBits:
    """Bits of held-out latents under a diffusion prior trained on the others, with their map and curve.

    Or under N(0, I) or the Gaussian of the others, where that needs fewer: all are upper bounds.
    """
    plan, train, test = means.plan, subject.train, subject.test
    if bool(channels.dead.all()):
        beside.arrays["channel_bits"] = torch.zeros(len(channels.mean))
        return DiffusionBits(bits=_per(torch.zeros(len(test), 1), subject), prior=None)
    z = standardised(subject.z, channels)
    vit = dataclasses.replace(plan.prior.vit, patch=patch(plan, z.shape[1:]))
    prior = dataclasses.replace(plan.prior, seed=plan.seed, vit=vit)
    means.say(f"training a prior on {len(train):,} latents of {' × '.join(map(str, z.shape[1:]))}")
    network = fit_prior(
        z[train],
        prior,
        means.folder / "prior",
        lambda_0=plan.lambda_0,
        lambda_min=plan.lambda_min,
        progress=means.progress,
        device=means.device,
    )

    def estimates(of: Tensor, levels: int, denoise: Denoise) -> list[RateTerms]:
        return measure(of, denoise, lambda_0=plan.lambda_0, lambda_min=plan.lambda_min, levels=levels, seed=plan.seed)

    priors: dict[PriorName, Denoise] = {"network": network, "normal": unit_normal}
    numbers = math.prod(z.shape[1:])
    if numbers <= plan.gaussian_up_to and len(train) >= 2 * numbers:
        priors["Gaussian"] = new_prior(z[train], dataclasses.replace(prior, covariance_up_to=numbers)).eval()
    means.say(f"measuring {len(test):,} held-out latents")
    found: dict[PriorName, list[RateTerms]] = {
        name: estimates(z[test], plan.levels, one) for name, one in priors.items()
    }
    name, held_out = min(found.items(), key=lambda one: _nats(one[1]))
    denoise = priors[name]
    lost = _nats(found["network"]) / _nats(held_out) - 1
    if lost > LOOSE:
        beside.unknown.append(
            f"The network spends {100 * lost:.0f} % more bits on held-out latents than {UNTRAINED[name]}: "
            f"{len(train):,} latents are too few for it, or `samples` for them. With more the bound may be lower."
        )
    seen = _nats(estimates(z[train[: len(test)]], plan.levels, denoise)) / LN2
    bits = _per(torch.stack([terms.nats() for terms in held_out]).mean(0)[:, None], subject, seen)
    above = bits.per_latent.value / max(seen, 1e-9) - 1
    if above > LOOSE:
        beside.unknown.append(
            f"The prior saw {len(train):,} latents and spends {100 * above:.0f} % more bits on held-out ones than on "
            "those: with more data the bound would be lower; how much is not known."
        )
    _spread(held_out, channels, plan, beside.arrays)
    if subject.pictures is not None:
        each = estimates(z[test[:SHOWN]].repeat_interleave(64, 0), 1, denoise)[0]
        beside.arrays["bit_maps"] = _grid((each.diffusion + each.terminal).unflatten(0, (-1, 64)).mean(1).sum(1) / LN2)
        beside.arrays["bits_each"] = beside.arrays["bit_maps"].flatten(1).sum(1)
    return DiffusionBits(bits=bits, prior=name)


def unit_normal(x_t: Tensor, logsnr: Tensor, cond: None = None) -> Tensor:
    """The exact denoiser of N(0, I), ``E[z | z_t] = α z_t``."""
    return alpha(logsnr).view(-1, *[1] * (x_t.dim() - 1)) * x_t


def _nats(estimates: list[RateTerms]) -> float:
    return float(torch.stack([terms.nats().double() for terms in estimates]).mean())


def _spread(estimates: list[RateTerms], channels: Channels, plan: AuditPlan, arrays: dict[str, Tensor]) -> None:
    """The same bits by channel, by place and by noise level."""
    edges = torch.linspace(plan.lambda_min, plan.lambda_0, CURVE_BINS + 1)
    dimensions = torch.stack([terms.dimension_map() for terms in estimates]).mean(0) / LN2
    terminal = torch.stack([terms.terminal.flatten(1).sum(1).mean() for terms in estimates]).mean()[None] / LN2
    by_channel = torch.zeros(len(channels.mean))
    by_channel[~channels.dead] = dimensions.flatten(1).sum(1)
    arrays["channel_bits"], arrays["bit_map"] = by_channel, _grid(dimensions.sum(0)[None])[0]
    arrays["curve_edges"], arrays["terminal_bits"] = edges, terminal
    arrays["curve_bits"] = torch.stack([terms.curve(edges) for terms in estimates]).mean(0) / LN2


def _grid(maps: Tensor) -> Tensor:
    """Maps ``[N, *grid]`` as ``[N, h, w]``: one row for one axis, frames summed for three."""
    return maps[:, None] if maps.ndim == 2 else maps.sum(1) if maps.ndim == 4 else maps


def patch(plan: AuditPlan, latent: Sequence[int]) -> int:
    """Side of the prior's patches for latents ``(C, *grid)``: the plan's own, or if that is 1 the smallest that fits.

    It divides every side of the grid and leaves at most ``TOKENS`` tokens of at least ``TOKEN_NUMBERS`` numbers; where
    none does both, the largest that divides.
    """
    channels, grid = latent[0], latent[1:]
    if plan.prior.vit.patch != 1:
        return plan.prior.vit.patch
    fits = [side for side in range(1, min(grid) + 1) if all(length % side == 0 for length in grid)]
    folded = [(side, side ** len(grid)) for side in fits]
    good = [side for side, n in folded if math.prod(grid) <= TOKENS * n and channels * n >= TOKEN_NUMBERS]
    return good[0] if good else fits[-1]


@torch.no_grad()
def reconstructions(subject: Subject, means: Means, beside: Beside) -> Kept | None:
    """PSNR and kernel distance of what the model's own decoder makes of held-out latents, without our noise.

    None where there are no pictures or there is no decoder.
    """
    if subject.pictures is None:
        return None
    test = subject.test[:RECONSTRUCTED]
    original = subject.pictures.images[test]
    beside.arrays["originals"] = original[:SHOWN]
    if subject.model is None:
        return None
    place, made = pick_device(means.device), []
    for part in subject.z[test].split(BATCH):
        x = subject.model.decode(part.to(place))
        if x is None:
            beside.unknown.append("There is no decoder at hand: what the latents keep of a picture is not known.")
            return None
        made.append(subject.pictures.kind.from_unit(x.float().cpu().nan_to_num(0.0)))
    pictures = torch.cat(made)
    if pictures.shape != original.shape:
        raise UserError(f"the decoder returned {list(pictures.shape[1:])} for pictures of {list(original.shape[1:])}")
    beside.arrays["reconstructions"] = pictures[:SHOWN]
    mean = subject.pictures.images[subject.train].float().mean(0).round().to(torch.uint8)
    decibels = psnr(original, pictures)
    above = float((decibels - psnr(original, mean.expand_as(original).contiguous())).mean())
    network, kernel = feature_network(means.features), None
    if network is None:
        beside.unknown.append(
            "No feature network was used, so the reconstructions have no distance: 'unilat[metrics]'."
        )
    else:
        means.say(f"features of {len(original)} pictures")
        kernel = compare(network(original), network(pictures), protocol=network.protocol).kernel
    return Kept(psnr=average(decibels, "dB", PSNR_PROTOCOL), above_mean=above, kernel=kernel)
