"""How many bits are in somebody else's latents, where they sit, and what is wrong with the latents.

::

    pictures ──► their encoder ──► z ──► standardised by channel ──► + noise at λ₀ ──► a prior, trained here alone
                     │                        │                                         bits, held out
                     └─ posterior, scale      └─ dead channels, mean, correlation

The bits are the rate (UL eq. 3) of the standardised latents with this library's fixed noise: an upper bound on what
they tell of the picture at that noise, and so comparable between models. A dead channel counts as 0 bits.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unilat.fields import Size, as_size, at_least
from unilat.files import write_json, write_safetensors
from unilat.report import audit as page
from unilat.run.records import OnStep
from unilat.studies import record, subject
from unilat.studies.channels import channels_of, scaling_of
from unilat.studies.faults import Fault, Given, find, sentence
from unilat.studies.measures import (
    AuditPlan,
    Beside,
    Means,
    NormalBits,
    diffusion_bits,
    normal_bits,
    patch,
    reconstructions,
)
from unilat.studies.record import Findings, measured_by
from unilat.studies.subject import Say, Subject
from unilat.training.machine import manifest, pick_device
from unilat.types import UserError

__all__ = ["Audit", "AuditPlan", "Fault", "audit"]


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit came to."""

    findings: Findings
    """What stands in audit.json."""
    arrays: dict[str, Tensor]
    """What stands in audit.safetensors."""
    folder: Path | None
    """Where the files and the page stand, or None."""

    @property
    def bits(self) -> float:
        """Bits of a latent under the diffusion prior, held out."""
        return self.findings.diffusion.bits.per_latent.value

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong, one by one."""
        return self.findings.faults

    @property
    def sentence(self) -> str:
        """What is wrong and what to change."""
        return self.findings.sentence


def audit(
    model_or_latents: Any,
    pictures: Any = None,
    *,
    decode: Callable[[Tensor], Tensor] | None = None,
    out: str | Path | None = None,
    size: int | str | Size | None = None,
    limit: int | None = 10_000,
    samples: int | None = None,
    seed: int = 0,
    features: str = "auto",
    plan: AuditPlan | None = None,
    device: str = "auto",
    say: Say = lambda line: None,
    progress: OnStep | None = None,
) -> Audit:
    """Measure a folder of diffusers, a function ``encode(x) -> z`` or ``-> (mean, logvar)``, or an array of latents.

    ``x`` is float32 ``[B, C, H, W]`` in [-1, 1]; ``decode(z) -> x``. ``pictures``: whatever ``unilat train`` takes, or
    uint8 ``[N, C, H, W]``; for an array they may be left out. ``size``: theirs, a number or ``(height, width)``.
    ``limit``: pictures encoded at most. ``samples``: latents that the prior sees in training. ``out``: a folder that is
    gone on with; without one nothing is kept.

    Raises :class:`UserError` with one line for what cannot be read or measured.
    """
    at_least(1, 1 if samples is None else samples, "samples")
    at_least(subject.FEWEST, subject.FEWEST if limit is None else limit, "limit")
    plan, sides = AuditPlan(seed=seed) if plan is None else plan, None if size is None else as_size(size)
    at_least(1, min(sides or (1,)), "size")
    if samples is not None:
        plan = dataclasses.replace(plan, prior=dataclasses.replace(plan.prior, samples=samples))
    with tempfile.TemporaryDirectory(prefix="unilat-audit-") as temporary:
        folder = Path(temporary if out is None else out)
        identity, place = dataclasses.asdict(plan), pick_device(device)
        model = subject.model_of(model_or_latents, decode, place)
        if model is None:
            audited = subject.of_array(model_or_latents, folder, identity, plan.seed, sides, pictures)
        elif pictures is None:
            raise UserError(f"{model.name} is a model: an audit needs pictures to encode, name them after it")
        else:
            shown = subject.pictures_of(pictures, sides, model.channels, limit)
            audited = subject.of_model(model, shown, folder, identity, plan.seed, place, say)
        means = Means(plan=plan, folder=folder, features=features, device=device, say=say, progress=progress)
        findings, arrays = _measured(audited, means)
        if out is None:
            return Audit(findings, arrays, None)
        write_safetensors(folder / "audit.safetensors", arrays, {})
        write_json(folder / "audit.json", findings.to_json())
        page.write(folder)
        return Audit(findings, arrays, folder)


def _measured(audited: Subject, means: Means) -> tuple[Findings, dict[str, Tensor]]:
    """Everything that is measured, in the order of the record."""
    used = audited.used
    channels = channels_of(audited.z[used], None if audited.logvar is None else audited.logvar[used])
    scaling = scaling_of(audited.declared, audited.z.shape[1])
    beside = Beside({"correlation": channels.correlation.float()}, record.unknown(audited, channels))
    normal = normal_bits(audited, channels, means.plan, beside)
    diffusion = diffusion_bits(audited, channels, means, beside)
    kept = reconstructions(audited, means, beside)
    above = None if kept is None else kept.above_mean
    given = Given(len(audited.z), audited.copies, "latents" if audited.model is None else "pictures")
    faults = find(channels, scaling, diffusion.bits.per_dimension.value, above, given)
    live = (int((~channels.dead).sum()), *audited.z.shape[2:])
    lines = record.protocol(means.plan, audited, patch(means.plan, live), diffusion.prior)
    posterior = normal.posterior and measured_by(normal.posterior, lines["normal.posterior"])
    return Findings(
        subject=record.about(audited),
        normal=NormalBits(posterior=posterior, noisy=measured_by(normal.noisy, lines["normal.noisy"])),
        diffusion=dataclasses.replace(diffusion, bits=measured_by(diffusion.bits, lines["bits"])),
        kept=kept and dataclasses.replace(kept, psnr=dataclasses.replace(kept.psnr, protocol=lines["psnr"])),
        faults=tuple(faults),
        sentence=sentence(faults),
        unknown=tuple(beside.unknown),
        channels=record.table(channels, scaling, beside.arrays["channel_bits"]),
        protocol=lines,
        plan=means.plan,
        manifest=manifest(),
    ), beside.arrays
