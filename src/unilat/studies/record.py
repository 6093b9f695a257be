"""An audit in records and words: what was audited, channel by channel, by which protocol, and what stays unknown."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from unilat.interop.model import Declared
from unilat.metrics import PSNR_PROTOCOL
from unilat.results import Number
from unilat.studies.channels import DEAD_CAPACITY, FAINT, ROUNDING, Channels, Scaling, own_level
from unilat.studies.faults import Fault, named
from unilat.studies.measures import UNTRAINED, AuditPlan, DiffusionBits, Kept, LatentBits, NormalBits, PriorName
from unilat.studies.subject import Subject
from unilat.training.machine import Manifest


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The pictures that were encoded."""

    source: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class About:
    """What was audited."""

    name: str
    kind: str
    """Class of a model of diffusers, ``a function`` or ``an array``."""
    declared: Declared
    sha256: str | None
    """Of the model's weights, where they are known."""
    latent: tuple[int, ...]
    """``(C, *grid)``."""
    dimensions: int
    """Numbers of a latent."""
    pixels: int | None
    """Of the picture behind a latent, where that is known."""
    latents: int
    """That were given."""
    copies: int
    """Of these, equal to one before them, bit for bit; they are left out of everything."""
    trained_on: int
    held_out: int
    posterior: bool
    """Whether the model tells a variance of its own."""
    pictures: Shown | None


@dataclass(frozen=True, kw_only=True)
class ChannelRow:
    """One channel of the latents."""

    channel: int
    mean: float
    """Of the raw latents, over latents and places."""
    std: float
    spread: float
    """Standard deviation over latents at one place, root mean square over places."""
    scaled_mean: float
    """As a diffusion model sees it."""
    scaled_std: float
    bits: float
    """Of a latent, in this channel."""
    posterior_kl_bits: float | None
    own_level: float | None
    """Log-SNR at which the model's own posterior stands."""
    capacity_bits_per_number: float | None
    """Most that the model's own noise lets through."""
    dead: bool


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that an audit has found; ``audit.json`` is its JSON."""

    subject: About
    normal: NormalBits
    diffusion: DiffusionBits
    kept: Kept | None
    faults: tuple[Fault, ...]
    sentence: str
    """What is wrong and what to change."""
    unknown: tuple[str, ...]
    """What could not be known, a sentence each."""
    channels: tuple[ChannelRow, ...]
    protocol: Mapping[str, str]
    """How the numbers of audit.json were measured, by their keys."""
    plan: AuditPlan
    manifest: Manifest

    def to_json(self) -> dict[str, object]:
        """As audit.json has it: numbers without the protocols that stand once for all of them."""
        posterior, kept = self.normal.posterior, self.kept
        noisy = _bits(self.normal.noisy)
        tree: dict[str, object] = {
            "subject": dataclasses.asdict(self.subject),
            "normal": {"posterior": None if posterior is None else _bits(posterior), "noisy": noisy},
            "prior": self.diffusion.prior,
            "bits": _bits(self.diffusion.bits),
            "psnr": None if kept is None else _row(kept.psnr) | {"above_mean": kept.above_mean},
            "kernel": None if kept is None or kept.kernel is None else dataclasses.asdict(kept.kernel),
        }
        rest = ("faults", "sentence", "unknown", "channels", "protocol", "plan", "manifest")
        whole = dataclasses.asdict(self)
        return {name: value for name, value in tree.items() if value is not None} | {name: whole[name] for name in rest}


def _bits(bits: LatentBits) -> dict[str, object]:
    numbers = {"per_latent": bits.per_latent, "per_dimension": bits.per_dimension, "per_pixel": bits.per_pixel}
    rows: dict[str, object] = {name: _row(number) for name, number in numbers.items() if number is not None}
    return rows | ({} if bits.seen_per_latent is None else {"seen_per_latent": bits.seen_per_latent})


def _row(number: Number) -> dict[str, object]:
    return {"value": number.value, "stderr": number.stderr, "n": number.n, "unit": number.unit}


def measured_by(bits: LatentBits, line: str) -> LatentBits:
    """The same bits, each number with the protocol ``line``."""
    return dataclasses.replace(
        bits,
        per_latent=dataclasses.replace(bits.per_latent, protocol=line),
        per_dimension=dataclasses.replace(bits.per_dimension, protocol=line),
        per_pixel=None if bits.per_pixel is None else dataclasses.replace(bits.per_pixel, protocol=line),
    )


def about(subject: Subject) -> About:
    """What was audited."""
    model, pictures = subject.model, subject.pictures
    return About(
        name=subject.name,
        kind="an array" if model is None else getattr(model, "kind", "a function"),
        declared=subject.declared,
        sha256=None if model is None else model.sha256,
        latent=tuple(subject.z.shape[1:]),
        dimensions=math.prod(subject.z.shape[1:]),
        pixels=subject.pixels,
        latents=len(subject.z),
        copies=subject.copies,
        trained_on=len(subject.train),
        held_out=len(subject.test),
        posterior=subject.logvar is not None,
        pictures=None if pictures is None else Shown(source=pictures.source, sha256=pictures.sha256),
    )


def unknown(subject: Subject, channels: Channels) -> list[str]:
    """What an audit of this subject cannot know, a sentence each."""
    found = [
        "The bits are an upper bound under the prior that was fitted here. One that sees more latents (`samples`) "
        "brings them down; how far is not known."
    ]
    if subject.model is not None:
        found.append(
            "Whether the model was trained on these pictures is not known. If it was, its reconstructions look better "
            "than they would on others; only the prior's bits are of pictures outside the prior's own training."
        )
    else:
        found.append("The encoder and the decoder are not known: reconstructions and the posterior were not looked at.")
        shape = " × ".join(["N", *map(str, subject.z.shape[1:])])
        found.append(f"The array was read as {shape}: latents, channels, grid.")
        if subject.copies:
            found.append(
                f"{subject.copies:,} latents equal another and were left out. Where latents are codes of few values, "
                "equal ones are no copies, and the bits are too high; how far is not known."
            )
    if faint := channels.faint.nonzero().flatten().tolist():
        verb = "varies" if len(faint) == 1 else "vary"
        found.append(
            f"{named(faint)} {verb} by less than {FAINT:g} of the widest channel. Whether a decoder reads so little is "
            "not known; the bits count it in full, at its own scale."
        )
    if subject.pixels is None:
        found.append("The pictures are not known, so there are no bits per pixel: name them, or their `size`.")
    if subject.model is not None and subject.logvar is None:
        found.append(
            "This model has no posterior, so its own noise is not known, nor how finely its decoder reads the latents."
        )
    return found


def table(channels: Channels, scaling: Scaling, bits: Tensor) -> tuple[ChannelRow, ...]:
    """One row a channel: raw mean and standard deviation, both as a diffusion model sees them, bits, own noise."""
    levels, capacity = own_level(channels), channels.capacity
    return tuple(
        ChannelRow(
            channel=index,
            mean=float(channels.mean[index]),
            std=float(channels.std[index]),
            spread=float(channels.spread[index]),
            scaled_mean=float(((channels.mean - scaling.shift) * scaling.factor)[index]),
            scaled_std=float((channels.std * scaling.factor)[index]),
            bits=float(bits[index]),
            posterior_kl_bits=None if channels.kl is None else float(channels.kl[index] / math.log(2.0)),
            own_level=levels[index],
            capacity_bits_per_number=None if capacity is None else float(capacity[index]),
            dead=bool(channels.dead[index]),
        )
        for index in range(len(channels.mean))
    )


def protocol(plan: AuditPlan, subject: Subject, patch: int, prior: PriorName | None) -> dict[str, str]:
    """How each number was measured; ``prior``: whose bits are told."""
    vit = plan.prior.vit
    fewest = UNTRAINED.get(prior or "")
    rule = (
        f"its own noise lets less than {DEAD_CAPACITY:g} bits through a number"
        if subject.logvar is not None
        else f"it varies by less than {ROUNDING:g} of its own size"
    )
    lines = {
        "bits": (
            f"rate (UL eq. 3) of the latents{' (mode of the posterior)' if subject.logvar is not None else ''}, "
            f"standardised by channel over all {len(subject.used):,}{' that differ' if subject.copies else ''}, with "
            f"noise of log-SNR {plan.lambda_0:g} added; a "
            f"ViT of width {', '.join(map(str, vit.channels))} and {', '.join(map(str, vit.blocks))} blocks, patch "
            f"{patch}, that saw {plan.prior.samples:,} latents of {len(subject.train):,}"
            f"{f', but these bits are under {fewest}, which needs fewer' if fewest else ''}; measured on "
            f"{len(subject.test):,} others at {plan.levels} noise levels each, down to log-SNR {plan.lambda_min:g}; "
            f"seed {plan.seed}"
        ),
        "normal.noisy": (
            "KL[N(α z, σ²) ‖ N(0, 1)] of the same standardised latents at the same noise: what the normal prior "
            "that a KL term assumes would charge"
        ),
        "channels": f"a channel is dead where {rule}; dead channels count 0 bits and are kept from the prior",
    }
    if subject.logvar is not None:
        lines["normal.posterior"] = (
            "the model's own KL[posterior ‖ N(0, 1)], raw latents, own noise: not the same noise"
        )
    if subject.model is not None:
        lines["psnr"] = f"mode of the latent through the model's own decoder, no noise added; {PSNR_PROTOCOL}"
    return lines
