"""Bits that are true: the oracle suite, the slack of a trained run, and Shannon's bound on a Gaussian source.

    make bench-verify                    everything; goes on where it stopped
    python benchmarks/verify.py suite    one part alone, anew: suite, source, slack; or report

Each part leaves its rows in runs/bench-verify/PART.json; the last step gathers them in results/verify.{json,md}.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from common import ROOT, Rows, gather, row, train_two_at_a_time, unilat

WORK = ROOT / "runs" / "bench-verify"


def suite() -> Rows:
    """What `unilat verify` prints: exact denoisers within 3 s.e., trained priors within 0.5 % and 1 %."""
    from unilat.studies import oracle

    found = oracle.suite(say=lambda line: print(f"{time.strftime('%H:%M')} {line}", flush=True))
    rows: Rows = []
    for one in found.rows:
        error = one.stderr / one.closed_form
        what = f"{one.what}: {one.measured:.5f} bits per dimension against {one.closed_form:.5f}, off by"
        rows.append(row(what, one.off, "of it", goal=(-one.limit, one.limit), stderr=error, n=one.n))
        if "exact" in one.what:
            rows.append(row(f"{one.what}: relative standard error", error, "", goal=oracle.STDERR_LIMIT))
    rows.append(row("`unilat verify`: time of the whole suite (load: see the machine)", found.seconds, "s"))
    return rows


RUNS = {f"glyphs by default, seed {seed}": ("--seed", f"{seed}", "--stage2.samples", "0") for seed in (0, 1)}


def slack() -> Rows:
    """`unilat verify RUN`: other seeds, another placing, and a larger refitted prior."""
    folders = {what: WORK / f"run-{index}" for index, what in enumerate(RUNS)}
    train_two_at_a_time(WORK, {folders[what].name: ("glyphs", *words) for what, words in RUNS.items()})
    checks = [unilat("verify", str(folder), threads=1, log=folder.with_suffix(".log")) for folder in folders.values()]
    if any(check.wait() not in (0, 1) for check in checks):
        raise SystemExit(f"unilat verify failed: see the logs in {WORK}")
    return [one for what, folder in folders.items() for one in _slack_rows(what, folder)]


def _slack_rows(name: str, folder: Path) -> Rows:
    found = json.loads((folder / "verify.json").read_text("utf-8"))
    one, sizes = found["slack"], found["slack"]["parameters"]
    rows = [
        row(
            f"{name}, {told} against other seeds: {found[kind]['value']:.5f} bits per pixel, apart by",
            abs(found[kind]["difference"]) / found[kind]["stderr"],
            "standard errors",
            goal=3.0,
            n=found["other_seeds"]["n"],
        )
        for kind, told in (("reported", "reported bits"), ("placing", "levels placed uniformly"))
    ]
    what = (
        f"{name}, slack: held-out bits {one['run']:.4f} over those of a refitted prior of {sizes['refitted']:,} "
        f"parameters instead of {sizes['run']:,} that saw {one['samples']:,} latents, {one['refitted']:.4f}, − 1"
    )
    return [*rows, row(what, one["value"], "of refitted bits", goal=0.02, stderr=one["stderr"], n=one["n"])]


def source() -> Rows:
    """A trained autoencoder on a Gaussian source, at three slopes of its rate-distortion curve."""
    from unilat.studies.source import rate_distortion

    rows: Rows = []
    for factor in (3.0, 10.0, 50.0):
        print(f"{time.strftime('%H:%M')} Gaussian source, loss factor {factor:g}", flush=True)
        found = rate_distortion(factor)
        what = (
            f"Gaussian source, 16 dimensions, loss factor {factor:g}: rate {found.rate:.4f} bits per dimension "
            f"at error {found.distortion:.4f}, over Shannon's R(D) = {found.shannon:.4f}"
        )
        rows.append(row(what, found.ratio, "ratio", goal=1.10, stderr=found.stderr / found.shannon, n=found.n))
    return rows


PARTS: dict[str, Callable[[], Rows]] = {part.__name__: part for part in (suite, source, slack)}
PROTOCOL = (
    "Suite: closed forms in bits per dimension, λ from −10 to 5; trained priors by our own networks on 131,072 draws, "
    "measured on fresh ones with the exact denoiser as control variate. Slack: held-out pictures never trained on, 8 "
    "low-discrepancy noise levels each, equal noise for both priors, error paired over pictures; the larger prior "
    "begins as the run's own plus a second network of twice its width, and is fitted on the training latents, by Muon."
)


if __name__ == "__main__":
    gather("verify", PROTOCOL, WORK, PARTS)
