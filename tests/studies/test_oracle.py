"""The oracle suite: rows that must hold, rows that must not, and the exit code that says so."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from unilat.cli import main
from unilat.maths.oracle import Gaussian
from unilat.studies import oracle
from unilat.studies.prior import PriorPlan

PLAN = replace(oracle.mixture_plan(0), samples=64, batch=64)
CHANNELS = Gaussian(torch.tensor([0.04, 0.04, 4.0, 4.0]), torch.tensor([1.0, 1.0, -0.5, -0.5]))


class Lying(Gaussian):
    """A source that says two per cent more than it has."""

    def rate_nats(self, lambda_min: float, lambda_0: float) -> float:
        return 1.02 * super().rate_nats(lambda_min, lambda_0)


def test_the_unit_gaussian_has_the_known_bits():
    """Kills bits in another unit, and a row whose closed form is measured itself."""
    row = oracle.exact("", oracle.unit_gaussian(), 1024, batch=64, repeats=40, seed=0)
    assert row.closed_form == pytest.approx(3.611582, abs=1e-6)
    assert row.measured == pytest.approx(3.611582, rel=5e-3)
    assert row.off == row.measured / row.closed_form - 1


@pytest.mark.parametrize(("dimensions", "source"), [(16, oracle.correlated_gaussian()), (16, oracle.mixture())])
def test_exact_rows_hold(dimensions: int, source: Any):
    """Kills a mixture or covariance whose denoiser is not its own, and sums over the wrong count."""
    assert oracle.exact("", source, dimensions, batch=2048, repeats=300, seed=1).holds


def test_rows_can_fail():
    """Kills a verdict that is always yes: a lying source, and too few draws to tell anything."""
    lying, honest = Lying(torch.ones(256), torch.zeros(256)), Gaussian(torch.ones(256), torch.zeros(256))
    assert oracle.exact("", honest, 256, batch=64, repeats=400, seed=0).holds
    assert not oracle.exact("", lying, 256, batch=64, repeats=400, seed=0).holds
    few = oracle.exact("", honest, 256, batch=8, repeats=5, seed=0)
    assert few.stderr > oracle.STDERR_LIMIT * few.closed_form
    assert not few.holds


def _trained(source: Any, shape: tuple[int, ...], plan: PriorPlan, limit: float = 0.005) -> oracle.Row:
    return oracle.trained("test", source, shape, plan, limit, blocks=2, seed=0)


def test_a_prior_that_knows_its_source_holds_and_an_untrained_one_does_not(monkeypatch: pytest.MonkeyPatch):
    """Kills latents laid out in another order than their source's, draws that differ, and a limit that is not used.

    Gaussian channels are what a prior's preconditioning knows without training; the mixture's peaks it must learn.
    """
    monkeypatch.setattr(oracle, "TRAINED_ON", 20_000)
    known = _trained(CHANNELS, (2, 2), PLAN)
    assert known.holds
    assert known.off == pytest.approx(0.0, abs=5e-4)
    assert known.stderr < 1e-3 * known.closed_form
    ignorant = _trained(oracle.mixture(), (4, 2, 2), PLAN)
    assert ignorant.off > 0.03
    assert not ignorant.holds


def _suite(holds: bool) -> oracle.Suite:
    row = oracle.Row("a", measured=1.0, closed_form=1.1, stderr=0.1, n=5, limit=0.2, holds=holds, seconds=1.0)
    return oracle.Suite(rows=(row,), seconds=1.0)


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_the_command_ends_with_the_verdict(
    holds: bool, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Kills an exit code that forgets the verdict, a failure that hides the table, JSON that does not stand alone."""
    monkeypatch.setattr(oracle, "suite", lambda seed, say: _suite(holds))
    assert main(["verify"]) == code
    assert ("FAILS" in capsys.readouterr().out) is not holds
    assert main(["verify", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["holds"] is holds


@pytest.mark.slow
def test_the_whole_suite_holds():
    """What `unilat verify` promises, in full: five rows, each within its limit."""
    found = oracle.suite()
    assert [row.what for row in found.rows if not row.holds] == []
    assert len(found.rows) == 5
