"""Rate and error beside Shannon's: units that agree, and a bound that nothing beats."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from measured import fitted
from unilat.maths.rate import RateTerms
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder, Stage1Losses
from unilat.studies import source
from unilat.studies.oracle import correlated_gaussian
from unilat.studies.source import NETWORKS, rate_distortion, reached, source_stage
from unilat.training.plan import Stage
from unilat.training.records import Fitted

VARIANCES = torch.tensor([4.0, 1.0, 1.0, 0.25, 0.25, 0.1])
SHANNON = 2.5 / 6
"""Bits per dimension at a water level of ½ by hand: ½ log2(4 / ½) + 2 · ½ log2(1 / ½) over 6 dimensions."""
FLOODED = 3 * 0.5 + 0.25 + 0.25 + 0.1
"""The squared error there: ½ of each dimension above the water, all of each below."""


class Known:
    """Losses that are known: example i of call k costs i + 10 k nats, and has the squared error ``FLOODED`` on average.

    What is charged and the noise levels are other numbers, so that none can stand for another.
    """

    def __init__(self) -> None:
        self.calls, self.seen = 0, []

    def losses(self, x: Tensor, draws: Draws) -> Stage1Losses:
        nats = torch.arange(len(x)) + 10.0 * self.calls
        self.calls += 1
        self.seen.append(draws.uniform(1))
        each = nats[:, None, None] * torch.tensor([[0.5, 0.25]])
        terms = RateTerms(each, nats[:, None, None].expand_as(each) / 8, nats)
        errors = FLOODED * torch.linspace(0.5, 1.5, len(x))
        return Stage1Losses(terms, 100 + nats, errors / 2, nats)


def test_a_point_by_hand() -> None:
    """4 examples, 3 estimates, 2 × 3 numbers. Kills: half a squared error, nats, what is charged for the rate, bits of
    another count of dimensions, errors over estimates, and R(D) at the error of one dimension."""
    model = Known()
    found = reached(model, torch.zeros(4, 2, 3), VARIANCES, 0, estimates=3)  # type: ignore[arg-type]
    unit = math.log(2) * 6
    assert found.rate == pytest.approx((1.5 + 10) / unit, rel=1e-6)
    assert found.stderr == pytest.approx(math.sqrt(5 / 3) / math.sqrt(4) / unit, rel=1e-6)
    assert found.distortion == pytest.approx(FLOODED / 6, rel=1e-6)
    assert found.shannon == pytest.approx(SHANNON, rel=1e-5)
    assert found.ratio == pytest.approx(found.rate / SHANNON, rel=1e-5)
    assert found.n == 4 and len({float(one) for one in model.seen}) == 3


@pytest.mark.parametrize("factor", [3.0, 0.25])
def test_the_stage_minimises_rate_and_error(factor: float) -> None:
    """``(charge + c ½‖x − x̂‖²) / max(1, c)`` a dimension, of the pictures asked for. Kills: a factor on the wrong
    term, one that is left out, and a sum that grows with the signal."""
    x = torch.arange(30.0).view(5, 2, 3)
    stage = source_stage(Known(), x, factor)  # type: ignore[arg-type]
    assert torch.equal(stage.batch(torch.tensor([4, 1]))[0], x[[4, 1]]) and stage.count == 5
    loss, _ = stage.losses((x[:3],), Draws.keyed(0, 0, 0, 3))
    errors = FLOODED * torch.tensor([0.5, 1.0, 1.5])
    expected = (100 + torch.arange(3) + factor * errors / 2) / max(1.0, factor) / 6
    assert torch.allclose(loss, expected)


def test_what_is_reached_is_measured_in_the_sources_units() -> None:
    """The untrained decoder answers with its mean 0, so its error is the draws' own mean square, and R(D) there is near
    0.

    Kills: a decoder without a squared error, and latents that do not start at unit variance (3.611582 bits a number).
    """
    draws = correlated_gaussian().sample(8192, torch.Generator().manual_seed(0)).view(-1, 4, 4)
    torch.manual_seed(0)
    model = Autoencoder(NETWORKS, 4, 0.0, 1.0).eval()
    model.start_at_unit_scale(draws)
    found = reached(model, draws, correlated_gaussian().variances, 0, estimates=4)
    assert found.distortion == pytest.approx(float(draws.square().mean()), rel=1e-5)
    assert found.shannon == pytest.approx(0, abs=0.02)
    assert found.rate == pytest.approx(3.611582, rel=0.03)


def test_training_draws_are_not_those_that_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a point measured on what was trained on, the last weights for the averaged ones, a network still training,
    another count, factor or length, and a data mean that is not each channel's own."""
    told: dict[str, Any] = {}

    def fit(stage: Stage, plan: Any, *rest: Any, **options: Any) -> Fitted:
        told.update(stage=stage, plan=plan)
        return fitted({name: value + 1 for name, value in stage.model.state_dict().items()})

    def measured(model: Autoencoder, x: Tensor, variances: Tensor, seed: int) -> str:
        told.update(model=model, x=x, variances=variances, seed=seed)
        return "a point"

    monkeypatch.setattr(source, "TRAINED_ON", 2000)

    def stage_of(model: Autoencoder, x: Tensor, factor: float) -> Stage:
        told.update(train=x, factor=factor)
        return source_stage(model, x, factor)

    monkeypatch.setattr(source, "source_stage", stage_of)
    monkeypatch.setattr(source, "fit", fit)
    monkeypatch.setattr(source, "reached", measured)
    assert rate_distortion(7.0, samples=640, seed=5, measured=300) == "a point"
    train, test = told["train"], told["x"]
    assert tuple(train.shape) == (2000, 4, 4) and tuple(test.shape) == (300, 4, 4)
    assert not {*map(tuple, test.flatten(1).tolist())} & {*map(tuple, train.flatten(1).tolist())}
    covariance, law = torch.cov(test.flatten(1).T), correlated_gaussian()
    truth = law.basis @ law.variances.diag() @ law.basis.T  # type: ignore[union-attr, operator]
    assert float((covariance - truth).abs().max()) < 0.4 < float(truth.abs().max())
    assert torch.equal(told["variances"], law.variances) and told["seed"] == 5
    assert told["factor"] == 7.0 and told["plan"].samples == 640
    mean = told["model"].decoder.mean.flatten() - 1  # every averaged weight stands one above
    assert torch.allclose(mean, train.transpose(0, 1).flatten(1).mean(1), atol=1e-5)
    assert not told["model"].training


def test_training_comes_near_shannon_and_never_below() -> None:
    """After 25,600 draws the code pays 1.46 times Shannon's bits, 200,000 bring it to 1.02. Kills: a rate without one
    of its terms (it would fall below R(D)), a decoder that does not hear the latent, and twice the bits."""
    found = rate_distortion(3.0, samples=25_600, measured=4096)
    assert 1.35 < found.ratio < 1.6 and found.rate == pytest.approx(0.96, abs=0.08)
