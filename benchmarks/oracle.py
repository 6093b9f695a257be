"""Bits against closed forms: an exact denoiser, a prior trained by our own networks, and the estimate's variance."""

import math
from dataclasses import replace
from typing import Any

from common import row

from unilat.maths.levels import Levels, rate_table, uniform
from unilat.maths.oracle import rate_estimates
from unilat.maths.seeds import Draws
from unilat.studies import oracle

Rows = list[dict[str, Any]]


def exact_denoiser() -> Rows:
    """A unit Gaussian of 1,024 dimensions under its own posterior mean: 3.611582 bits per dimension (derivation.md)."""
    one = oracle.exact("", oracle.unit_gaussian(), 1024, batch=64, repeats=400, seed=0)
    what = "unit Gaussian, exact denoiser, λ₀ = 5 (3.611582 within 3 s.e.)"
    limits = (3.611582 - 3 * one.stderr, 3.611582 + 3 * one.stderr)
    return [
        row(what, one.measured, "bits per dimension", goal=limits, stderr=one.stderr, n=one.n),
        row("its relative standard error", one.stderr / one.measured, "", goal=oracle.STDERR_LIMIT),
    ]


def correlated_gaussian(steps: int = 3000) -> Rows:
    """A prior trained on 16 correlated dimensions (4 positions of 4 channels), held against the closed form."""
    plan = replace(oracle.gaussian_plan(0), samples=steps * 256)
    source, limit = oracle.correlated_gaussian(), oracle.GAUSSIAN_LIMIT
    one = oracle.trained("correlated", source, (4, 4), plan, limit, blocks=12, seed=0)
    what = (
        f"prior trained {steps:,} steps on a correlated Gaussian, 16 dimensions: above {one.closed_form:.4f} bits a "
        "dimension by"
    )
    return [row(what, one.off, "of it", goal=(-limit, limit), stderr=one.stderr / one.closed_form, n=one.n)]


def variance_ratio(batches: int = 400) -> Rows:
    """Independent uniform levels against ours at equal calls: unit Gaussian, 1,024 dimensions, batches of 64."""
    source, table = oracle.unit_gaussian(), rate_table(oracle.LAMBDA_MIN, oracle.LAMBDA_0)

    def independent(draws: Draws, count: int) -> Levels:
        return uniform(draws.uniform(count), oracle.LAMBDA_MIN, oracle.LAMBDA_0)

    def ours(draws: Draws, count: int) -> Levels:
        return table.sample(draws.strata(count))

    found = [
        rate_estimates(source, pick, oracle.LAMBDA_MIN, batch=64, repeats=batches, seed=4).double()
        for pick in (independent, ours)
    ]
    ratio = float(found[0].var() / found[1].var())
    shares = [float(values.std() / values.mean()) for values in found]
    return [
        row("relative standard error of one batch, independent uniform levels", shares[0], "", n=batches),
        row("relative standard error of one batch, low-discrepancy importance levels (ours)", shares[1], "", n=batches),
        row(
            "variance of the rate estimate, independent / ours",
            ratio,
            "ratio",
            goal=80.0,
            at_least=True,
            stderr=ratio * math.sqrt(4 / batches),
            n=batches,
        ),
    ]
