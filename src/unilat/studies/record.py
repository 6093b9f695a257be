"""An audit in plain data and words: what was audited, channel by channel, by which protocol, and what stays unknown."""

import math
from typing import Any

from torch import Tensor

from unilat.metrics import PSNR_PROTOCOL
from unilat.studies.channels import DEAD_CAPACITY, DEAD_SPREAD, Channels, Scaling, own_level
from unilat.studies.subject import Subject


def about(subject: Subject) -> dict[str, object]:
    """What was audited."""
    model, pictures = subject.model, subject.pictures
    return {
        "name": subject.name,
        "kind": "an array" if model is None else getattr(model, "kind", "a function"),
        "declared": subject.declared,
        "sha256": None if model is None else model.sha256,
        "latent": list(subject.z.shape[1:]),
        "dimensions": math.prod(subject.z.shape[1:]),
        "pixels": subject.pixels,
        "latents": len(subject.z),
        "trained_on": len(subject.train),
        "held_out": len(subject.test),
        "posterior": subject.logvar is not None,
        "pictures": None if pictures is None else {"source": pictures.source, "sha256": pictures.sha256},
    }


def unknown(subject: Subject) -> list[str]:
    """What an audit of this subject cannot know, a sentence each."""
    found = [
        "The bits are an upper bound under the prior that was fitted here. One that sees more latents (--samples) "
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
        copies = len(subject.z) - len(subject.train) - len(subject.test)
        if copies:
            found.append(
                f"{copies:,} latents equal a held-out one and were left out, so that the prior knows none of those by "
                "heart. Where latents are codes of few values, equal ones are no copies, and the bits are too high; "
                "how far is not known."
            )
    if subject.pixels is None:
        found.append("The pictures are not known, so there are no bits per pixel: name them, or their --size.")
    if subject.model is not None and subject.logvar is None:
        found.append(
            "This model has no posterior, so its own noise is not known, nor how finely its decoder reads the latents."
        )
    return found


def table(channels: Channels, scaling: Scaling, bits: Tensor) -> list[dict[str, object]]:
    """One row a channel: raw mean and standard deviation, both as a diffusion model sees them, bits, own noise."""
    levels, capacity = own_level(channels), channels.capacity
    return [
        {
            "channel": index,
            "mean": float(channels.mean[index]),
            "std": float(channels.std[index]),
            "spread": float(channels.spread[index]),
            "scaled_mean": float(((channels.mean - scaling.shift) * scaling.factor)[index]),
            "scaled_std": float((channels.std * scaling.factor)[index]),
            "bits": float(bits[index]),
            "posterior_kl_bits": None if channels.kl is None else float(channels.kl[index] / math.log(2.0)),
            "own_level": levels[index],
            "capacity_bits_per_number": None if capacity is None else float(capacity[index]),
            "dead": bool(channels.dead[index]),
        }
        for index in range(len(channels.mean))
    ]


def protocol(plan: Any, subject: Subject, patch: int, gaussian: bool) -> dict[str, str]:
    """How each number was measured; ``gaussian``: the latents' Gaussian needed fewer bits than the network."""
    vit = plan.prior.vit
    rule = (
        f"its own noise lets less than {DEAD_CAPACITY:g} bits through a number"
        if subject.logvar is not None
        else f"it varies by less than {DEAD_SPREAD:g} of the widest channel"
    )
    lines = {
        "bits": (
            f"rate (UL eq. 3) of the latents{' (mode of the posterior)' if subject.logvar is not None else ''}, "
            f"standardised by channel over all {len(subject.z):,}, with noise of log-SNR {plan.lambda_0:g} added; a "
            f"ViT of width {', '.join(map(str, vit.channels))} and {', '.join(map(str, vit.blocks))} blocks, patch "
            f"{patch}, that saw {plan.prior.samples:,} latents of {len(subject.train):,}"
            f"{', but these bits are under their plain Gaussian, which needs fewer' if gaussian else ''}; measured on "
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
