"""What is wrong with latents, in a sentence each, and what to change: rules on numbers that an audit has measured."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unilat.studies.channels import Channels, Scaling

MEAN_LIMIT = 0.5
"""Standard deviations that a channel's mean may lie from 0."""
SCALE_LIMIT = 2.0
"""Factor by which a standard deviation may lie from 1."""
CORRELATION_LIMIT = 0.95
COLLAPSED_CAPACITY = 0.02
"""Bits a number, mean over channels, that the model's own noise lets through at most."""
COLLAPSED_BITS = 0.02
"""Bits a number under the diffusion prior; independent numbers of unit variance carry 3.61 at log-SNR 5."""
BLIND_DECIBELS = 0.5
"""PSNR by which reconstructions must beat the one mean picture."""


@dataclass(frozen=True)
class Fault:
    """``kind``: collapsed, dead, scale, mean, correlated or blind."""

    kind: str
    says: str
    """What is wrong, a sentence."""
    change: str
    """What to change, a sentence."""
    channels: tuple[int, ...] = ()


def find(
    channels: Channels,
    scaling: Scaling,
    bits_per_dimension: float | None = None,
    psnr_above_mean: float | None = None,
) -> list[Fault]:
    """All faults, worst first. ``psnr_above_mean``: dB by which reconstructions beat the mean picture, if known."""
    collapsed = _collapsed(channels, bits_per_dimension)
    found = [*collapsed, *([] if collapsed else _dead(channels)), *_blind(psnr_above_mean)]
    if not bool(channels.dead.all()):
        found += [*_scale(channels, scaling), *_mean(channels, scaling), *_correlated(channels)]
    return found


def sentence(faults: list[Fault]) -> str:
    """What is wrong and what to change, in as many sentences as it takes."""
    return " ".join(f"{fault.says} {fault.change}" for fault in faults) or "Nothing wrong found."


def _named(indices: list[int]) -> str:
    """``Channel 3``, ``Channels 1, 2 and 5``, ``Channels 0, 1, 2 and 9 more``."""
    if len(indices) == 1:
        return f"Channel {indices[0]}"
    if len(indices) > 6:
        return f"Channels {', '.join(map(str, indices[:4]))} and {len(indices) - 4} more"
    return f"Channels {', '.join(map(str, indices[:-1]))} and {indices[-1]}"


def _where(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def _collapsed(channels: Channels, bits: float | None) -> list[Fault]:
    capacity = channels.capacity
    if capacity is not None and float(capacity.mean()) < COLLAPSED_CAPACITY:
        says = (
            f"The latent has collapsed: its own noise lets at most {float(capacity.mean()):.2g} bits through a number, "
            "whatever the picture."
        )
        return [Fault("collapsed", says, "Lower the KL weight, or raise it slowly from 0, and train again.")]
    if bool(channels.dead.all()):
        return [
            Fault(
                "collapsed", "The latent has collapsed: it is the same for every example.", "Train the encoder again."
            )
        ]
    if bits is not None and bits < COLLAPSED_BITS:
        says = f"The latent has collapsed: a number of it carries {bits:.2g} bits under the diffusion prior."
        return [Fault("collapsed", says, "Weaken what regularises it, or make the latent smaller, and train again.")]
    return []


def _dead(channels: Channels) -> list[Fault]:
    dead = _where(channels.dead)
    if not dead:
        return []
    many = len(dead) > 1
    says = f"{_named(dead)} of {len(channels.mean)} {'are' if many else 'is'} dead: the same for every example."
    count = f"{len(dead)} channels" if many else "one channel"
    change = f"Train with {count} fewer, or weaken the KL weight: diffusion models pay for every dead number."
    return [Fault("dead", says, change, tuple(dead))]


def _blind(above: float | None) -> list[Fault]:
    if above is None or above >= BLIND_DECIBELS:
        return []
    says = f"Reconstructions are no better than one mean picture for all ({above:+.1f} dB)."
    return [Fault("blind", says, "Check that encoder and decoder belong together and how pictures are scaled.")]


def _seen(channels: Channels, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """(mean in standard deviations, standard deviation) by channel, as a diffusion model would see them."""
    std = channels.std * scaling.factor
    mean = (channels.mean - scaling.shift) * scaling.factor
    return mean / std.clamp_min(1e-300), std


def _scale(channels: Channels, scaling: Scaling) -> list[Fault]:
    live = ~channels.dead
    _, std = _seen(channels, scaling)
    overall = float(std[live].square().mean().sqrt())
    after = f"after the model's {' and '.join(scaling.names)}" if scaling.names else "as they are"
    if not 1 / SCALE_LIMIT <= overall <= SCALE_LIMIT:
        factor = float(1.0 / channels.std[live].square().mean().sqrt())
        ready = "latents_std" not in scaling.names
        what = (
            f"Set scaling_factor to {factor:.4g}"
            if scaling.names and ready
            else f"Multiply raw latents by {factor:.4g}"
        )
        if scaling.names and not ready:
            what = "Set latents_std to the standard deviations measured here and scaling_factor to 1"
        says = f"The scale is off: {after} the latents have standard deviation {overall:.3g} instead of 1."
        return [Fault("scale", says, f"{what}, or noise levels made for unit variance miss it.")]
    off = _where(live & ((std > SCALE_LIMIT) | (std < 1 / SCALE_LIMIT)))
    if not off:
        return []
    shown = ", ".join(f"{value:.2g}" for value in std[off[:6]].tolist())
    says = f"{_named(off)} {'have' if len(off) > 1 else 'has'} standard deviation {shown} instead of 1 {after}."
    return [Fault("scale", says, "Scale each channel by itself: set latents_mean and latents_std.", tuple(off))]


def _mean(channels: Channels, scaling: Scaling) -> list[Fault]:
    mean, _ = _seen(channels, scaling)
    off = _where(~channels.dead & (mean.abs() > MEAN_LIMIT))
    if not off:
        return []
    shown = ", ".join(f"{value:+.2g}" for value in mean[off[:6]].tolist())
    many = len(off) > 1
    says = f"{_named(off)} {'have' if many else 'has'} a mean of {shown} standard deviations instead of 0."
    raw = ", ".join(f"{value:.3g}" for value in channels.mean[off[:6]].tolist())
    change = (
        f"Subtract {'their' if many else 'its'} mean ({raw} in raw latents): shift_factor, or latents_mean by channel."
    )
    return [Fault("mean", says, change, tuple(off))]


def _correlated(channels: Channels) -> list[Fault]:
    strong = torch.triu(channels.correlation.abs(), 1) >= CORRELATION_LIMIT
    strong &= ~channels.dead[:, None] & ~channels.dead[None]
    pairs = strong.nonzero().tolist()
    if not pairs:
        return []
    first, second = pairs[0]
    value = float(channels.correlation[first, second])
    more = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
    says = f"Channels {first} and {second} say almost the same: their correlation is {value:+.3f}{more}."
    return [Fault("correlated", says, "Train with fewer channels.", tuple(sorted({i for pair in pairs for i in pair})))]
