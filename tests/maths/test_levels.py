import math

import pytest
import torch

from unilat.maths.levels import Table, rate_table, truncated_logistic, uniform, weighted_table
from unilat.maths.seeds import Draws
from unilat.types import UserError

from .sources import F64, kolmogorov_smirnov, seeded

LOW, HIGH = -7.0, 3.5


def growing(lambda_t):
    return torch.exp(0.6 * lambda_t)


SAMPLERS = {
    "uniform": lambda strata: uniform(strata, LOW, HIGH),
    "table": Table.proportional(growing, LOW, HIGH, bins=300, floor=0.25).sample,
    "rate": rate_table(LOW, HIGH).sample,
}


def cdf(name, lambda_t):
    """Closed forms, written apart from the library."""
    flat = (lambda_t - LOW) / (HIGH - LOW)
    if name == "uniform":
        return flat
    if name == "table":
        share = (torch.exp(0.6 * lambda_t) - math.exp(0.6 * LOW)) / (math.exp(0.6 * HIGH) - math.exp(0.6 * LOW))
        return 0.75 * share + 0.25 * flat
    softplus = torch.nn.functional.softplus
    ends = softplus(torch.tensor([LOW, HIGH], dtype=F64))
    return 0.9 * (softplus(lambda_t) - ends[0]) / (ends[1] - ends[0]) + 0.1 * flat


def midpoints(count):
    return (torch.arange(count, dtype=F64) + 0.5) / count


@pytest.mark.parametrize("name", SAMPLERS)
def test_levels_follow_their_distribution(name):
    """KS test against the closed-form distribution. Kills: levels counted down from lambda_max."""
    levels = SAMPLERS[name](Draws.single(seeded(3), 5000).uniform(5000).double())
    assert kolmogorov_smirnov(cdf(name, levels.lambda_t)) < 1.63


@pytest.mark.parametrize("name", SAMPLERS)
def test_density_is_that_of_the_distribution(name):
    """Density = derivative of the distribution, by jvp. Kills: a bin's mass taken for its density."""
    levels = SAMPLERS[name](midpoints(997))
    _, slope = torch.func.jvp(lambda at: cdf(name, at), (levels.lambda_t,), (torch.ones(997, dtype=F64),))
    assert torch.allclose(levels.density, slope, rtol=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_density_is_the_reciprocal_of_the_quantile_functions_slope(name):
    """p = 1 / (d lambda / d u), by jvp through the sampler. Kills: a level's place within its bin ignored."""
    sampler, strata = SAMPLERS[name], midpoints(997)
    _, slope = torch.func.jvp(lambda u: sampler(u).lambda_t, (strata,), (torch.ones_like(strata),))
    assert torch.allclose(sampler(strata).density * slope, torch.ones_like(strata), rtol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_density_integrates_to_one(name):
    """∫ p dlambda = 1 and E[1/p] = range. Kills: uniform density 1 whatever the range."""
    levels = SAMPLERS[name](midpoints(20_000))
    assert abs(float((1 / levels.density).mean()) / (HIGH - LOW) - 1) < 1e-3
    assert abs(float(torch.trapezoid(levels.density, levels.lambda_t)) - 1) < 1e-3


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", ["uniform", "strata"])
def test_estimates_are_unbiased(name, kind):
    """E[f(lambda)/p] = ∫ f within 3 s.e., independent and low-discrepancy. Kills: the lowest bins never drawn."""
    expected = math.exp(-0.3 * LOW) / 0.3 - math.exp(-0.3 * HIGH) / 0.3  # ∫ exp(-0.3 lambda)
    estimates = []
    for step in range(400):
        levels = SAMPLERS[name](getattr(Draws.keyed(1, step, 0, 16), kind)(16))
        estimates.append(float(((-0.3 * levels.lambda_t).exp() / levels.density).mean()))
    estimates = torch.tensor(estimates)
    assert abs(float(estimates.mean()) - expected) < 3 * float(estimates.std()) / 20


def test_floor_bounds_the_weights():
    """1/p <= range / floor, and levels fall where the function is 0 too. Kills: the floor left out."""
    table = Table.proportional(lambda at: (at > 1.0).to(at), LOW, HIGH, bins=21, floor=0.2)
    levels = table.sample(midpoints(500))
    assert float((1 / levels.density).max()) <= (HIGH - LOW) / 0.2 * (1 + 1e-9)
    assert float((levels.lambda_t < 1.0).double().mean()) == pytest.approx(0.2 * 16 / 21, abs=0.01)


def test_bins_without_mass_are_never_drawn():
    """Quantiles on a border fall into the bin that has mass; 0 and 1 stay inside. Kills: borders closed above."""
    table = Table(torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0], dtype=F64), torch.tensor([0.0, 0.5, 0.5, 0.0], dtype=F64))
    levels = table.sample(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=F64))
    assert torch.allclose(levels.lambda_t, torch.tensor([1.0, 1.5, 2.0, 3.0, 4.0], dtype=F64), atol=1e-6)
    assert levels.density.tolist() == [0.5, 0.5, 0.25, 0.25, 0.25]


def test_levels_keep_the_dtype_of_their_strata():
    """float32 in, float32 out, inside the range. Kills: the cast back removed."""
    for sampler in SAMPLERS.values():
        levels = sampler(torch.linspace(0, 1 - 2**-24, 50))
        assert levels.lambda_t.dtype == levels.density.dtype == torch.float32
        assert float(levels.lambda_t.min()) >= LOW and float(levels.lambda_t.max()) <= HIGH


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: uniform(torch.zeros(3), 5.0, -5.0),
        lambda: rate_table(2.0, 2.0),
        lambda: Table(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.5, 0.5])),
        lambda: Table(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 0.6])),
        lambda: Table(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5])),
    ],
)
def test_mistakes_are_told(mistake):
    """Reversed ranges, rows outside the batch, broken tables. Kills: the check of the range removed."""
    with pytest.raises(UserError):
        mistake()


def test_truncated_logistic_has_its_distribution():
    """Its quantiles, through the closed distribution function. Kills: a cut forgotten, the scale inverted."""
    strata = torch.rand(20_000, generator=seeded(5), dtype=F64)
    ends = truncated_logistic(strata, 1.5, 0.7, LOW, HIGH)
    assert bool((ends >= LOW).all()) and bool((ends <= HIGH).all())
    low, high = (torch.sigmoid(torch.tensor((end - 1.5) / 0.7, dtype=F64)) for end in (LOW, HIGH))
    back = (torch.sigmoid((ends - 1.5) / 0.7) - low) / (high - low)
    torch.testing.assert_close(back, strata, rtol=0, atol=1e-9)
    assert truncated_logistic(strata.float(), 1.5, 0.7, LOW, HIGH).dtype == torch.float32


@pytest.mark.parametrize("bias", [-2.0, 1.5])
def test_tables_follow_their_integrands(bias):
    """Bin by bin in closed form: sigmoid(b - lambda) sigmoid(lambda) and sigmoid(lambda), a tenth spread evenly.
    Kills: the weight turned, the data's error left out or turned, points at a bin's low end, its largest value."""
    softplus = torch.nn.functional.softplus
    table = weighted_table(bias, -10.0, 10.0)
    parts = (softplus(table.edges) - softplus(table.edges - bias)).diff() / (1 - math.exp(-bias))
    torch.testing.assert_close(table.mass, 0.9 * parts / parts.sum() + 0.1 / 64, rtol=1e-3, atol=0)
    table = rate_table(LOW, HIGH)
    parts = softplus(table.edges).diff()
    assert len(parts) == 256
    torch.testing.assert_close(table.mass, 0.9 * parts / parts.sum() + 0.1 / 256, rtol=1e-4, atol=0)


def test_a_table_s_density_is_the_one_it_draws_from() -> None:
    """Kills: mass for density, the neighbour's bin, a level at the end of the range left out."""
    table = Table(torch.tensor([-2.0, 0.0, 1.0, 5.0], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64))
    drawn = table.sample((torch.arange(100) + 0.5) / 100)
    assert torch.equal(table.density(drawn.lambda_t), drawn.density)
    assert table.density(torch.tensor([-2.0, 0.0, 0.5, 5.0])).tolist() == pytest.approx([0.1, 0.5, 0.5, 0.075])
