"""Rows of the oracle suite whose every number is known by hand, or by a second closed form."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unilat.maths.oracle import Gaussian
from unilat.maths.rate import LN2
from unilat.studies import oracle

LAW = Gaussian(torch.tensor([0.5, 3.0, 1.0, 0.2, 2.0]), torch.tensor([1.0, 0.0, -2.0, 0.0, 0.5]))
TRUTH = LAW.rate_nats(-10.0, 5.0)


def by_hand(off: float, spread: float, monkeypatch: pytest.MonkeyPatch) -> oracle.Row:
    """An exact row whose 4 estimates lie ``off`` nats above the truth, with a standard deviation of ``spread``."""
    shape = torch.tensor([-1.5, -0.5, 0.5, 1.5], dtype=torch.float64) / math.sqrt(5 / 3)
    monkeypatch.setattr(oracle, "rate_estimates", lambda *rest, **options: TRUTH + off + spread * shape)
    return oracle.exact("by hand", LAW, 5, batch=7, repeats=4, seed=0)


def test_an_exact_row_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: nats told as bits, a sum for bits per dimension, the spread for its error, a limit of another count of
    standard errors, and draws that are not counted."""
    row = by_hand(0.01, 0.02, monkeypatch)
    assert row.closed_form == pytest.approx(TRUTH / LN2 / 5)
    assert row.measured == pytest.approx((TRUTH + 0.01) / LN2 / 5)
    assert row.stderr == pytest.approx(0.01 / LN2 / 5)
    assert row.limit == pytest.approx(0.03 / TRUTH) and row.n == 28
    assert row.off == pytest.approx(0.01 / TRUTH)


@pytest.mark.parametrize(("apart", "share", "holds"), [
    (2.9, 0.5, True), (-2.9, 0.5, True), (3.1, 0.5, False), (-3.1, 0.5, False), (0.0, 0.95, True), (0.0, 1.05, False),
])  # fmt: skip
def test_what_an_exact_row_allows(apart: float, share: float, holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """``apart`` in standard errors, each ``share`` of a thousandth of the bits. Kills: 2 or 4 standard errors, a bias
    that passes on one side, and an error that is allowed to be large."""
    error = share * 0.001 * TRUTH
    assert by_hand(apart * error, 2 * error, monkeypatch).holds is holds


def divergence(variance: Tensor, other: Tensor, lambda_t: float) -> float:
    """``KL[N(0, α² s² + σ²) ‖ N(0, α² t² + σ²)]`` of all dimensions, nats."""
    alpha = 1 / (1 + math.exp(-lambda_t))
    one, two = (alpha * each.double() + 1 - alpha for each in (variance, other))
    return float(0.5 * (one / two - 1 - (one / two).log()).sum())


def test_a_prior_of_another_spread_pays_the_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact denoiser of variances t² costs KL(s²‖t²) at λ₀ less that at λ_min more. Kills: a control variate of the
    wrong sign, blocks that are summed, training draws that are measured, and a limit that is not the one asked for."""
    fitted: list[Tensor] = []
    measured: list[Tensor] = []
    wrong = replace(LAW, variances=LAW.variances * torch.tensor([1.3, 0.7, 1.6, 0.6, 1.0]))
    real = oracle.measure

    def fit_prior(z: Tensor, plan: Any, folder: Any, **span: Any) -> Any:
        fitted.append(z)
        assert (span["lambda_0"], span["lambda_min"]) == (5.0, -10.0)
        return lambda x_t, logsnr, cond=None: wrong.denoise(x_t.flatten(1), logsnr).view_as(x_t)

    def measure(z: Tensor, *rest: Any, **options: Any) -> Any:
        measured.append(z)
        return real(z, *rest, **options)

    monkeypatch.setattr(oracle, "TRAINED_ON", 500)
    monkeypatch.setattr(oracle, "fit_prior", fit_prior)
    monkeypatch.setattr(oracle, "measure", measure)
    extra = divergence(LAW.variances, wrong.variances, 5.0) - divergence(LAW.variances, wrong.variances, -10.0)
    share = extra / TRUTH
    row = oracle.trained("t", LAW, (1, 5), oracle.mixture_plan(0), 1.2 * share, blocks=3, seed=0)
    assert row.off == pytest.approx(share, abs=4 * row.stderr / row.closed_form) and row.off > 6 * row.stderr
    assert row.closed_form == pytest.approx(TRUTH / LN2 / 5) and row.n == 3 * 16_384
    assert row.holds and row.limit == 1.2 * share
    (train,) = fitted
    assert len(train) == 500 and not {*map(tuple, train[:, 0].tolist())} & {*map(tuple, measured[0][:, 0].tolist())}
    assert len(measured) == 6 and torch.equal(measured[0], measured[1]) and not torch.equal(measured[1], measured[2])


def test_a_trained_rows_error_is_that_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that are 0.1, 0.2 and 0.6 nats above: mean 0.3, standard error 0.1528. Kills: the spread for its error, an
    error of examples, and a verdict on the closed form alone."""
    above = iter((0.1, 0.0, 0.2, 0.0, 0.6, 0.0))

    class Nats:
        def __init__(self, value: float) -> None:
            self.value = value

        def nats(self) -> Tensor:
            return torch.tensor([self.value - 1, self.value + 1])

    monkeypatch.setattr(oracle, "TRAINED_ON", 10)
    monkeypatch.setattr(oracle, "fit_prior", lambda *rest, **options: None)
    monkeypatch.setattr(oracle, "measure", lambda *rest, **options: [Nats(next(above))])
    row = oracle.trained("t", LAW, (5, 1), oracle.mixture_plan(0), 0.9 * 0.3 / TRUTH, blocks=3, seed=0)
    assert row.measured == pytest.approx((TRUTH + 0.3) / LN2 / 5, rel=1e-6)
    assert row.stderr == pytest.approx(math.sqrt(0.07 / 3) / LN2 / 5, rel=1e-5)
    assert not row.holds


def test_the_suite_is_five_rows_and_their_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row that fails is enough. Kills: a verdict of the last row or of any, a limit that belongs to the other
    source, and rows without how far they are off."""
    asked: dict[str, tuple[int, float]] = {}
    bad = {""}

    def row(what: str, source: Any, dimensions: Any, *rest: Any, seed: int, **options: Any) -> oracle.Row:
        asked[what] = (dimensions if isinstance(dimensions, int) else math.prod(dimensions), rest[1] if rest else 0.0)
        assert len(source.sample(2, torch.Generator().manual_seed(0))[0]) == asked[what][0] and seed == 3
        return oracle.Row(what, 1.1, 1.0, 0.1, 5, 0.2, what not in bad, 0.0)

    monkeypatch.setattr(oracle, "exact", row)
    monkeypatch.setattr(oracle, "trained", row)
    found = oracle.suite(seed=3)
    assert found.holds and len(found.rows) == 5 and found.unit == "bits per dimension"
    tree = found.to_json()
    assert tree.keys() == {"unit", "rows", "holds", "seconds"} and tree["holds"] is True
    assert all(one["off"] == pytest.approx(0.1) for one in tree["rows"])  # type: ignore[attr-defined]
    assert [limit for _, limit in asked.values()] == [0, 0, 0, 0.005, 0.01]
    assert [dimensions for dimensions, _ in asked.values()] == [1024, 16, 16, 16, 16]
    for name in list(asked):
        bad = {name}
        assert not oracle.suite(seed=3).holds
