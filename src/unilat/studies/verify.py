"""Is the number of a run true? Its held-out bits again: other seeds, other noise levels, a larger refitted prior.

    noise     one seed against others, importance against uniform placing: all estimate one number, so they must agree
    slack     bits / bits under a larger prior refitted on the same latents − 1: what the run's prior pays too much

Bits are an upper bound on what a latent tells of its picture; the slack says how far a better prior lowers it.
It is what one refit found: a longer one may find more, none can go below the information itself.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unilat.fields import at_least
from unilat.files import writable, write_json
from unilat.maths.levels import Table
from unilat.maths.rate import LN2
from unilat.maths.seeds import key
from unilat.models.latents import LatentSet
from unilat.models.shards import open_shards
from unilat.nets.vit import ViTConfig
from unilat.run.evaluate import bound, chosen, own_pictures
from unilat.run.folder import RunFolder
from unilat.run.parts import rows_of
from unilat.run.records import Note, OnStep, ignore
from unilat.run.seal import sealed
from unilat.run.trained import Run
from unilat.signals import Pictures
from unilat.signals.pictures import distinct
from unilat.signals.stream import Streamed
from unilat.studies.prior import PriorPlan, fit_prior, measure, uniform_table
from unilat.studies.verification import Agreement, Repeated, Sizes, Slack, Verification
from unilat.types import Denoiser, UserError

SEEDS, LEVELS = 4, 8
"""Other seeds, and noise levels of each picture per seed."""
AGREE = 3.0
"""Standard errors that two estimates of one number may lie apart."""
SLACK_LIMIT = 0.02
"""Largest slack that passes."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Latents of held-out pictures ``[N, C, *grid]``, and the entropy of a learned variance where there is one."""

    z: Tensor
    entropy: Tensor | None


def verify_run(run: Run, samples: int = 48_000, seed: int = 0, tell: OnStep = ignore) -> Verification:
    """Measure ``run`` again and write ``RUN/verify.json``; the refit goes on from ``RUN/verify/``.

    ``samples``: latents seen by the refitted prior. Raises :class:`UserError` where the run's pictures or latents are
    gone or are no longer what they were.
    """
    at_least(1, samples, "samples")
    writable(run.folder)
    pictures = own_pictures(run)
    train_indices, _, test_indices = run.split(pictures)
    images = rows_of(pictures, test_indices, test_indices)
    z, posterior = run.encoded(images[chosen(distinct(images), run.config.evaluation.pictures)])
    held = HeldOut(z, None if posterior is None else posterior.entropy(run.config.autoencoder.lambda_0))
    tell(Note(f"measuring {len(held.z)} held-out pictures with {SEEDS} other seeds"))
    others, reported, placing = _noise(run, held, seed)
    latents = _training_latents(run, pictures, train_indices)
    tell(Note(f"refitting a larger prior on {len(latents):,} training latents, {samples:,} seen"))
    found = Verification(
        run=str(run.folder),
        seed=seed,
        unit="bits per pixel",
        other_seeds=others,
        reported=reported,
        placing=placing,
        slack=_slack(run, latents, held, samples, seed, tell),
    )
    write_json(RunFolder(run.folder).verified, found.to_json(), sealed)
    return found


def _slack(run: Run, latents: Tensor, held: HeldOut, samples: int, seed: int, tell: OnStep) -> Slack:
    """Refit on the training ``latents``, and compare on the held-out ``z``."""
    ae, start = run.config.autoencoder, run.autoencoder.prior
    prior = fit_prior(
        latents,
        refit_plan(ae.prior, samples, seed),
        RunFolder(run.folder).refits / f"{samples}-{seed}",
        lambda_0=ae.lambda_0,
        lambda_min=ae.lambda_min,
        start=start,
        progress=tell,
        device=str(run.device),
    )
    table, again = run.autoencoder.rate_levels.table, key(seed, "slack")
    own, refitted = (_bits(run, held, each, again, table).mean(0) for each in (start, prior))
    sizes = [sum(parameter.numel() for parameter in each.parameters()) for each in (start, prior)]
    return paired_slack(own, refitted, Sizes(run=sizes[0], refitted=sizes[1]), samples)


def refit_plan(vit: ViTConfig, samples: int, seed: int) -> PriorPlan:
    """Beside the run's own prior, a second one of twice its width: about five times its parameters together."""
    wider = replace(vit, channels=tuple(2 * width for width in vit.channels))
    return PriorPlan(
        vit=wider,
        samples=samples,
        batch=min(64, samples),
        learning_rate=1.5e-3,
        optimizer="muon",
        warmup=min(5_000, samples // 8),
        decay=0.8,
        ema_halflife=min(5_000, samples / 8),
        seed=seed,
    )


def estimates(run: Run, held: HeldOut, table: Table, seeds: list[int]) -> Tensor:
    """Bits per pixel of every estimate, ``[seeds, LEVELS]``: equal pictures, so they differ by noise alone."""
    return torch.stack([_bits(run, held, run.autoencoder.prior, seed, table).mean(1) for seed in seeds])


def agreement(one: float, one_error: float, other: float, other_error: float) -> Agreement:
    """Whether two estimates of one number lie within ``AGREE`` standard errors of their difference."""
    apart, error = one - other, math.hypot(one_error, other_error)
    return Agreement(value=one, noise=one_error, difference=apart, stderr=error, holds=abs(apart) <= AGREE * error)


def paired_slack(run_bits: Tensor, refitted_bits: Tensor, parameters: Sizes, samples: int) -> Slack:
    """``mean(a) / mean(b) − 1``, both ``[N]`` of the same pictures and noise; s.e. by residuals a − (1 + slack) b."""
    a, b = run_bits.double(), refitted_bits.double()
    ratio = float(a.mean() / b.mean())
    stderr = float((a - ratio * b).std() / math.sqrt(len(a)) / b.mean()) if len(a) > 1 else None
    return Slack(
        value=ratio - 1.0,
        stderr=stderr,
        n=len(a),
        run=float(a.mean()),
        refitted=float(b.mean()),
        parameters=parameters,
        samples=samples,
        limit=SLACK_LIMIT,
        holds=ratio - 1.0 <= SLACK_LIMIT,
    )


def _noise(run: Run, held: HeldOut, seed: int) -> tuple[Repeated, Agreement, Agreement]:
    """The reported bits, and those under another placing, against the mean over other seeds; bits per pixel."""
    ae, importance = run.config.autoencoder, run.autoencoder.rate_levels.table
    uniform = uniform_table(ae.lambda_min, ae.lambda_0)
    others = estimates(run, held, importance, [key(seed, "verify", index) for index in range(SEEDS)])
    flat = estimates(run, held, uniform, [key(seed, "uniform", index) for index in range(SEEDS)])
    spread, mean, error = float(others.std()), float(others.mean()), float(others.std()) / math.sqrt(others.numel())
    count = run.config.evaluation.rate_levels
    told = _reported(run, held)
    return (
        Repeated(value=mean, noise=error, each=tuple(others.mean(1).tolist()), n=len(held.z)),
        agreement(told, spread / math.sqrt(count), mean, error),
        agreement(float(flat.mean()), float(flat.std()) / math.sqrt(flat.numel()), mean, error),
    )


def _reported(run: Run, held: HeldOut) -> float:
    """Bits per pixel in ``metrics.json``; measured as ``evaluate`` does where there is none or by another protocol."""
    if RunFolder(run.folder).metrics.is_file():
        told = run.results.bits
        if told.n == len(held.z) and told.protocol in ("", bound(run)):  # "": of before November 2026
            return told.value
    found = [terms.less(held.entropy) for terms in run.rate(held.z, run.config.evaluation.rate_levels)]
    return float(torch.stack([terms.nats().double().mean() for terms in found]).mean()) / (LN2 * run.pixels)


def _bits(run: Run, held: HeldOut, prior: Denoiser, seed: int, table: Table) -> Tensor:
    """Bits per pixel of each estimate and picture ``[LEVELS, N]``; equal seeds see equal noise."""
    ae = run.config.autoencoder
    found = measure(
        held.z, prior, lambda_0=ae.lambda_0, lambda_min=ae.lambda_min, table=table, levels=LEVELS, seed=seed
    )
    return torch.stack([terms.less(held.entropy).nats().double() for terms in found]) / (LN2 * run.pixels)


def _training_latents(run: Run, pictures: Pictures | Streamed, indices: Tensor) -> Tensor:
    """From the run folder, or encoded anew where stage 2 was not trained."""
    folder = RunFolder(Path(run.folder)).latents
    if (shards := open_shards(folder)) is not None:
        if (shards.encoder_sha256, shards.seal.lambda_0) != (run.encoder_sha256, run.config.autoencoder.lambda_0):
            raise UserError(f"{folder} holds latents of another encoder: delete it and train stage 2 again")
        return shards.z.whole()
    path = folder / "train.safetensors"  # of a run of before December 2026
    if not path.is_file():
        return run.latents(rows_of(pictures, indices))
    latents = LatentSet.load(path)
    latents.refuse_other(run.encoder_sha256, run.config.autoencoder.lambda_0)
    return latents.z
