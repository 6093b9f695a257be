"""The prior on frozen latents: what it starts as, what it is fitted by, and how its rate is measured."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unilat.maths.oracle import Gaussian
from unilat.maths.rate import RateTerms
from unilat.nets.vit import ViTConfig
from unilat.studies.prior import PriorPlan, fit_prior, measure, new_prior, prior_stage, uniform_table
from unilat.training.engine import fit
from unilat.training.records import Fitted
from unilat.types import UserError

PLAN = PriorPlan(
    vit=ViTConfig(channels=(16,), blocks=(1,)), samples=320, batch=32, warmup=64, ema_halflife=64, learning_rate=3e-3
)
RANGE = {"lambda_0": 5.0, "lambda_min": -10.0}
GRIDS = [(4,), (2, 3), (2, 1, 2)]
MEAN, STD = torch.tensor([0.5, -2.0, 0.0]), torch.tensor([0.3, 1.0, 2.0])


def gaussian(grid: tuple[int, ...], count: int = 4000) -> tuple[torch.Tensor, Gaussian]:
    """Latents [count, 3, *grid], each channel with a mean and a spread of its own, and what they are drawn from."""
    places = math.prod(grid)
    source = Gaussian(STD.square().repeat_interleave(places), MEAN.repeat_interleave(places))
    return source.sample(count, torch.Generator().manual_seed(1)).view(count, 3, *grid), source


def mean_nats(found: list[RateTerms]) -> tuple[float, float]:
    """Mean rate and its standard error over examples."""
    nats = torch.stack([terms.nats() for terms in found]).double().mean(0)
    return float(nats.mean()), float(nats.std() / math.sqrt(len(nats)))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("uniform", [False, True])
def test_an_untrained_prior_is_exact_on_its_own_gaussian(grid: tuple[int, ...], uniform: bool):
    """Kills a mean or spread that is not each channel's own, a density that is left out, and a mean for the sum."""
    z, source = gaussian(grid)
    table = uniform_table(-10.0, 5.0) if uniform else None
    found, error = mean_nats(measure(z, new_prior(z, PLAN), **RANGE, table=table, levels=4))
    assert found == pytest.approx(source.rate_nats(-10.0, 5.0), abs=4 * error, rel=1e-3)


def test_a_prior_on_the_covariance_is_exact_untrained_on_correlated_latents():
    """Kills a plan whose covariance is not followed, a limit that is one number short, and one that is not kept."""
    z, truth = correlated(4096), Gaussian.correlated(torch.ones(4, 4) + 0.09 * torch.eye(4), torch.zeros(4))
    found = {
        most: mean_nats(measure(z, new_prior(z, replace(PLAN, covariance_up_to=most)), **RANGE, levels=8))
        for most in (3, 4)
    }
    exact = truth.rate_nats(-10.0, 5.0)
    assert found[4][0] == pytest.approx(exact, abs=4 * found[4][1])
    assert found[3][0] > 1.2 * exact


@pytest.mark.parametrize("grid", GRIDS)
def test_a_larger_prior_begins_exactly_at_its_start(grid: tuple[int, ...]):
    """Kills a correction that is not zero at first, and preconditioning other than the start's."""
    z, _ = gaussian(grid, 64)
    start = new_prior(0.7 * z + 0.2, PLAN)
    torch.nn.init.normal_(start.net.head.weight, std=0.1)  # pyright: ignore[reportAttributeAccessIssue]
    larger = new_prior(z, replace(PLAN, vit=ViTConfig(channels=(32,), blocks=(2,))), start)
    level = torch.linspace(-10, 5, 64)
    assert torch.equal(larger(z, level), start(z, level))
    assert sum(p.numel() for p in larger.parameters()) > 4 * sum(p.numel() for p in start.parameters())


def correlated(count: int) -> torch.Tensor:
    """Latents [count, 1, 4] of which neighbours are nearly equal: a prior without training pays for each anew."""
    shared = torch.randn(count, 1, 1, generator=torch.Generator().manual_seed(2))
    return shared + 0.3 * torch.randn(count, 1, 4, generator=torch.Generator().manual_seed(3))


def test_fitting_lowers_the_rate_and_refitting_lowers_it_again(tmp_path: Path):
    """Kills a fit that returns the untrained weights, one that moves ``start`` itself, and one that forgets it."""
    z = correlated(1024)
    plan = replace(PLAN, samples=16_000)
    before, _ = mean_nats(measure(z, new_prior(z, plan), **RANGE))
    first = fit_prior(z, plan, tmp_path / "first", **RANGE)
    kept = {name: value.clone() for name, value in first.state_dict().items()}
    fitted, _ = mean_nats(measure(z, first, **RANGE))
    second = fit_prior(z, plan, tmp_path / "second", start=first, **RANGE)
    refitted, _ = mean_nats(measure(z, second, **RANGE))
    truth = Gaussian.correlated(torch.ones(4, 4) + 0.09 * torch.eye(4), torch.zeros(4)).rate_nats(-10.0, 5.0)
    assert 0.97 * truth < refitted < fitted < before
    assert fitted - truth < 0.3 * (before - truth)
    assert all(torch.equal(value, kept[name]) for name, value in first.state_dict().items())
    assert not second.training


def test_a_stopped_fit_goes_on_as_if_it_had_not(tmp_path: Path):
    """Kills a fit that starts anew, one whose weights depend on where it was stopped, and the last for the averaged."""
    z = correlated(128)
    whole = fit_prior(z, PLAN, tmp_path / "whole", **RANGE).state_dict()

    def told(stop_at: int | None) -> Fitted:
        stage = prior_stage(new_prior(z, PLAN), z, **RANGE)
        return fit(stage, PLAN.schedule, tmp_path / "parts", PLAN.seed, stop_at=stop_at)

    assert told(4).step == 4
    steps = []
    resumed = fit_prior(z, PLAN, tmp_path / "parts", progress=lambda told: steps.append(told.step), **RANGE)
    assert steps == list(range(5, 11))
    assert all(torch.equal(value, whole[name]) for name, value in resumed.state_dict().items())
    assert all(torch.equal(value, whole[name]) for name, value in told(None).ema.items())


def test_a_plan_is_fitted_as_it_says():
    """Kills: a plan's number that the engine never hears, or hears at another's place."""
    plan = PriorPlan(samples=11, batch=5, learning_rate=0.3, optimizer="muon", warmup=7, decay=0.4, ema_halflife=9)
    found = plan.schedule
    assert (found.samples, found.batch, found.learning_rate, found.optimizer) == (11, 5, 0.3, "muon")
    assert (found.warmup, found.decay, found.ema_halflife, found.clip) == (7, 0.4, 9, 1.0)


def test_estimates_are_as_many_as_were_asked_and_cover_the_range():
    """Kills: one estimate more or less, levels outside of the range, equal levels in every estimate, and a placing that
    is not uniform where it was asked to be (mean −2.5, standard deviation 15/√12)."""
    z = correlated(4000)
    found = measure(z, new_prior(z, PLAN), **RANGE, table=uniform_table(-10.0, 5.0), levels=3)
    levels = torch.stack([terms.lambda_t for terms in found]).double()
    assert tuple(levels.shape) == (3, 4000) and not torch.equal(levels[0], levels[1])
    assert float(levels.min()) >= -10 and float(levels.max()) <= 5
    assert float(levels.mean()) == pytest.approx(-2.5, abs=0.01)
    assert float(levels.std()) == pytest.approx(15 / math.sqrt(12), rel=2e-3)


def test_measuring_pairs_equal_seeds():
    """Kills noise that differs between two denoisers, and seeds that change nothing."""
    z = correlated(300)
    prior = new_prior(z, PLAN)
    one, same, other = (measure(z, prior, **RANGE, levels=2, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(one.diffusion, same.diffusion)
    assert not torch.equal(one.lambda_t, other.lambda_t)


def test_refusals(tmp_path: Path):
    """Kills a traceback for latents of a wrong shape, NaN, a grid that does not fold, and other latents' checkpoint."""
    z = correlated(64)
    for bad, word in ((z[:, 0], "axes"), (z.long(), "float"), (z / 0, "finite")):
        with pytest.raises(UserError, match=word):
            fit_prior(bad, PLAN, tmp_path / "bad", **RANGE)
    with pytest.raises(UserError, match="lower patch"):
        fit_prior(z, replace(PLAN, vit=replace(PLAN.vit, patch=3)), tmp_path / "bad", **RANGE)
    assert not (tmp_path / "bad").exists()
    fit_prior(z, PLAN, tmp_path / "fit", **RANGE)
    with pytest.raises(UserError, match="latents differ"):
        fit_prior(z + 1, PLAN, tmp_path / "fit", **RANGE)
