"""What is wrong with latents, in a sentence each, and what to change: rules on numbers that an audit has measured."""

import math
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
COPIES_LIMIT = 0.01
"""Share of what was given that may equal something before it; a few copies are in every collection."""


@dataclass(frozen=True)
class Fault:
    """``kind``: collapsed, dead, blind, copies, scale, mean or correlated."""

    kind: str
    says: str
    """What is wrong, a sentence."""
    change: str
    """What to change, a sentence."""
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Given:
    """What was given: ``count`` latents, or pictures, of which ``copies`` equal one before them bit for bit."""

    count: int
    copies: int
    what: str = "latents"


def find(
    channels: Channels,
    scaling: Scaling,
    bits_per_dimension: float | None = None,
    psnr_above_mean: float | None = None,
    given: Given | None = None,
) -> list[Fault]:
    """All faults, worst first. ``psnr_above_mean``: dB by which reconstructions beat the mean picture, if known."""
    collapsed = _collapsed(channels, bits_per_dimension)
    found = [*collapsed, *([] if collapsed else _dead(channels)), *_blind(psnr_above_mean)]
    if not bool(channels.dead.all()):
        found += [*_copied(given), *_scale(channels, scaling), *_mean(channels, scaling), *_correlated(channels)]
    return found


def sentence(faults: list[Fault]) -> str:
    """What is wrong and what to change, in as many sentences as it takes."""
    return " ".join(f"{fault.says} {fault.change}" for fault in faults) or "Nothing wrong found."


def named(indices: list[int]) -> str:
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
    says = f"{named(dead)} of {len(channels.mean)} {'are' if many else 'is'} dead: the same for every example."
    count = f"{len(dead)} channels" if many else "one channel"
    change = f"Train with {count} fewer, or weaken the KL weight: diffusion models pay for every dead number."
    return [Fault("dead", says, change, tuple(dead))]


def _blind(above: float | None) -> list[Fault]:
    if above is None or above >= BLIND_DECIBELS:
        return []
    says = f"Reconstructions are no better than one mean picture for all ({above:+.1f} dB)."
    return [Fault("blind", says, "Check that encoder and decoder belong together and how pictures are scaled.")]


def _copied(given: Given | None) -> list[Fault]:
    if given is None or given.copies < COPIES_LIMIT * given.count:
        return []
    says = (
        f"{given.copies:,} of {given.count:,} {given.what} are exact copies of others: these bits are of the "
        f"{given.count - given.copies:,} that differ."
    )
    return [Fault("copies", says, "Leave copies out: a diffusion model learns by heart what it is shown often.")]


def _seen(channels: Channels, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """(mean in standard deviations, standard deviation) by channel, as a diffusion model would see them."""
    std = channels.std * scaling.factor
    mean = (channels.mean - scaling.shift) * scaling.factor
    return mean / std.clamp_min(1e-300), std


def _scale(channels: Channels, scaling: Scaling) -> list[Fault]:
    """One factor where it mends all live channels, else each channel by itself."""
    live = ~channels.dead
    _, std = _seen(channels, scaling)
    overall = float(std[live].square().mean().sqrt())
    after = f"after the model's {' and '.join(scaling.names)}" if scaling.names else "as they are"
    alike = bool(((std[live] / overall).log().abs() <= math.log(SCALE_LIMIT)).all())
    if alike and not 1 / SCALE_LIMIT <= overall <= SCALE_LIMIT:
        return [_scale_of_all(channels, scaling, overall, after)]
    off = _where(live & ((std > SCALE_LIMIT) | (std < 1 / SCALE_LIMIT)))
    if not off:
        return []
    shown = ", ".join(f"{value:.2g}" for value in std[off[:6]].tolist())
    says = f"{named(off)} {'have' if len(off) > 1 else 'has'} standard deviation {shown} instead of 1 {after}."
    if not alike:
        narrow, *_, wide = sorted(_where(live), key=std.tolist().__getitem__)
        says += f" Channel {wide} varies {float(std[wide] / std[narrow]):,.4g} times as much as channel {narrow}."
    return [Fault("scale", says, "Scale each channel by itself: set latents_mean and latents_std.", tuple(off))]


def _scale_of_all(channels: Channels, scaling: Scaling, overall: float, after: str) -> Fault:
    """The factor that brings all channels together to standard deviation 1, where the model keeps it."""
    factor = float(1.0 / channels.std[~channels.dead].square().mean().sqrt())
    if "latents_std" in scaling.names:
        what = "Set latents_std to the standard deviations measured here and scaling_factor to 1"
    else:
        what = f"Set scaling_factor to {factor:.4g}" if scaling.names else f"Multiply raw latents by {factor:.4g}"
    says = f"The scale is off: {after} the latents have standard deviation {overall:.3g} instead of 1."
    return Fault("scale", says, f"{what}, or noise levels made for unit variance miss it.")


def _mean(channels: Channels, scaling: Scaling) -> list[Fault]:
    mean, _ = _seen(channels, scaling)
    off = _where(~channels.dead & (mean.abs() > MEAN_LIMIT))
    if not off:
        return []
    shown = ", ".join(f"{value:+.2g}" for value in mean[off[:6]].tolist())
    many = len(off) > 1
    says = f"{named(off)} {'have' if many else 'has'} a mean of {shown} standard deviations instead of 0."
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
