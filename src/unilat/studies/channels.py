"""What the channels of somebody's latents look like before any prior is trained: scale, mean, spread, own noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unilat.interop.model import Declared
from unilat.maths.rate import LN2
from unilat.types import UserError

DEAD_CAPACITY = 0.01
"""Bits a number: a channel whose own noise lets less through is dead."""
FAINT = 1e-3
"""Of the widest channel's spread: whether a channel without a known noise that varies less is read at all is open."""
ROUNDING = 1e-6
"""Of a channel's own size: one that varies less is the same for every example but for the rounding of float32."""


@dataclass(frozen=True, eq=False)
class Channels:
    """Statistics of raw latents ``[N, C, *grid]`` by channel, over all of them, float64 ``[C]``."""

    mean: Tensor
    """Over latents and places."""
    std: Tensor
    """Over latents and places."""
    spread: Tensor
    """Standard deviation over latents at one place, root mean square over places: 0 where all latents are alike."""
    noise: Tensor | None
    """Mean variance of the posterior, where there is one."""
    kl: Tensor | None
    """KL[posterior ‖ N(0, 1)] in nats an example, summed over places, where there is a posterior."""
    correlation: Tensor
    """Between channels over latents and places, ``[C, C]``; 0 with a channel that does not vary."""

    @property
    def capacity(self) -> Tensor | None:
        """``½ log2(1 + spread² / noise)``, bits a number: the most that the model's own noise lets through."""
        if self.noise is None:
            return None
        return 0.5 * torch.log1p(self.spread.square() / self.noise.clamp_min(1e-300)) / LN2

    @property
    def faint(self) -> Tensor:
        """bool ``[C]``: alive, and so narrow beside the widest that its scale may be all that is left of it."""
        return ~self.dead & (self.spread < FAINT * self.spread.max()) & (self.noise is None)

    @property
    def dead(self) -> Tensor:
        """bool ``[C]``: tells nothing about the example.

        The same for all, or below its own noise where that is known. Other channels' scale says nothing of this one's.
        """
        still = self.spread <= ROUNDING * (self.mean.square() + self.std.square()).sqrt()
        return still if self.capacity is None else still | (self.capacity < DEAD_CAPACITY)


def channels_of(z: Tensor, logvar: Tensor | None = None) -> Channels:
    """Statistics of latents ``z [N, C, *grid]`` and, where there is one, of their posterior's ``logvar``."""
    if len(z) < 2:
        raise UserError(f"statistics of latents need two at least, not {len(z)}")
    flat = z.transpose(0, 1).flatten(1).double()
    centred = flat - flat.mean(1, keepdim=True)
    std = centred.square().mean(1).sqrt()
    covariance = centred @ centred.T / centred.shape[1]
    scale = torch.outer(std, std)
    correlation = torch.where(scale > 0, covariance / scale.clamp_min(1e-300), torch.zeros_like(scale))
    spread = z.double().var(0, unbiased=False).flatten(1).mean(1).sqrt()
    noise = kl = None
    if logvar is not None:
        noise = logvar.double().exp().transpose(0, 1).flatten(1).mean(1)
        kl = posterior_kl(z, logvar).double().mean(0).flatten(1).sum(1)
    return Channels(flat.mean(1), std, spread, noise, kl, correlation)


def posterior_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """``KL[N(mean, e^logvar) ‖ N(0, 1)] = ½ (mean² + e^logvar − 1 − logvar)`` a number, nats: a VAE's own term."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)


def standardised(z: Tensor, channels: Channels) -> Tensor:
    """The live channels of ``z`` with mean 0 and variance 1 over all the data, float32 ``[N, live, *grid]``."""
    live = ~channels.dead
    shape = (1, -1, *[1] * (z.ndim - 2))
    mean, std = channels.mean[live].reshape(shape), channels.std[live].reshape(shape)
    return ((z[:, live].double() - mean) / std).float()


@dataclass(frozen=True, eq=False)
class Scaling:
    """How a diffusion model is told to bring latents to unit scale: ``(z − shift) · factor``, by channel ``[C]``."""

    shift: Tensor
    factor: Tensor
    names: tuple[str, ...]
    """The entries of the model's configuration that say so; empty where nothing does."""


def scaling_of(declared: Declared, count: int) -> Scaling:
    """From ``scaling_factor``, ``shift_factor``, ``latents_mean``, ``latents_std``, as diffusers' pipelines use them.

    ``(z − shift_factor) · scaling_factor``, or ``(z − latents_mean) · scaling_factor / latents_std`` where both stand.
    """
    shift, factor = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    names = []
    for name, value in declared.items():
        vector = torch.tensor(value, dtype=torch.float64).flatten()
        if len(vector) not in (1, count):
            raise UserError(f"the model's {name} has {len(vector)} entries and its latents {count} channels")
        if name in ("scaling_factor", "latents_std") and not bool((vector > 0).all()):
            raise UserError(f"the model's {name} must be above 0, not {value}")
        names.append(name)
    both = "latents_mean" in declared and "latents_std" in declared
    factor = factor * torch.tensor(declared.get("scaling_factor", 1.0), dtype=torch.float64)
    if both:
        factor = factor / torch.tensor(declared["latents_std"], dtype=torch.float64)
        shift = shift + torch.tensor(declared["latents_mean"], dtype=torch.float64)
    else:
        shift = shift + torch.tensor(declared.get("shift_factor", 0.0), dtype=torch.float64)
    return Scaling(shift, factor, tuple(names))


def own_level(channels: Channels) -> list[float | None]:
    """Log-SNR ``ln(std² / noise)`` at which each channel's own posterior stands; None without one."""
    if channels.noise is None:
        return [None] * len(channels.mean)
    pairs = zip(channels.std.tolist(), channels.noise.tolist(), strict=True)
    return [2 * math.log(std) - math.log(noise) if std > 0 and noise > 0 else None for std, noise in pairs]
