import math

import pytest
import torch

from unilat.maths import noise
from unilat.maths.oracle import Gaussian
from unilat.maths.samplers import ancestral, ddim, dpmpp_2m, noise_like, uniform_grid
from unilat.types import UserError

from .sources import F64, correlated, covariance, noise_of, seeded

SAMPLERS = [ddim, ancestral, dpmpp_2m]


def start(rows=3):
    return torch.randn(rows, 3, generator=seeded(1), dtype=F64)


def generators(count=3, first=0):
    return [seeded(seed) for seed in range(first, first + count)]


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpmpp_2m, 2)])
def test_order_of_convergence(sampler, order):
    """Error against the exact flow falls as steps^-order. Kills: the second order's term left out or of wrong sign."""
    source, x = correlated(), start()
    exact = source.probability_flow(x, -6.0, 4.0)
    errors = []
    for steps in (64, 128, 256):
        result = sampler(source.denoise, x, uniform_grid(-6.0, 4.0, steps), generator=seeded(0))
        errors.append(float((result - exact).norm()))
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert abs(math.log2(coarse / fine) - order) < 0.15


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_order_holds_on_uneven_grids(sampler):
    """Steps of changing length keep the order. Kills: the ratio of two steps' lengths turned round."""
    source, x = correlated(), start()
    exact = source.probability_flow(x, -6.0, 4.0)
    errors = []
    for steps in (64, 128, 256):
        grid = -6.0 + 10.0 * torch.linspace(0, 1, steps + 1, dtype=F64) ** 2
        grid[1::2] += 0.4 * grid.diff()[1::2]
        errors.append(float((sampler(source.denoise, x, grid, generator=seeded(0)) - exact).norm()))
    order = 1 if sampler is ddim else 2
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert abs(math.log2(coarse / fine) - order) < 0.2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("end", [0.0, 5.0])
def test_result_keeps_the_noise_of_the_last_level(sampler, end):
    """Covariance alpha² C + sigma² at grid[-1], which the decoder was trained on. Kills: x_hat returned at the end."""
    rows = 4000
    scale = torch.tensor([1.0, 0.3, 0.03], dtype=F64)
    source = Gaussian.correlated(covariance() * scale[:, None] * scale, torch.tensor([0.5, -1.5, 2.0], dtype=F64))
    generator = seeded(2)
    x = noise.diffuse(
        source.sample(rows, generator), torch.randn(rows, 3, generator=generator, dtype=F64), torch.full((rows,), -8.0)
    )
    result = sampler(source.denoise, x, uniform_grid(-8.0, end, 200), generator=seeded(3))
    alpha_squared, sigma_squared = 1 / (1 + math.exp(-end)), 1 / (1 + math.exp(end))
    expected = alpha_squared * covariance() * scale[:, None] * scale + sigma_squared * torch.eye(3, dtype=F64)
    allowed = 4 / math.sqrt(rows) + 0.02
    deviation = expected.diagonal().sqrt()
    assert ((torch.cov(result.T) - expected).abs() < 1.5 * allowed * deviation[:, None] * deviation).all()
    assert ((result.mean(0) - math.sqrt(alpha_squared) * source.mean).abs() < allowed * deviation).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_float32_batches_with_axes_agree_with_float64(sampler):
    """Pictures [B, C, H, W] in float32 stay float32. Kills: logsnr of a fixed float64."""
    x = torch.randn(3, 2, 4, 5, generator=seeded(4))
    seen = []

    def denoise(x_t, logsnr, cond):
        seen.append((logsnr.dtype, logsnr.shape))
        return torch.tanh(x_t) * noise.expand(logsnr.sigmoid(), x_t)

    result = sampler(denoise, x, uniform_grid(-4.0, 4.0, 7), generator=generators())
    assert result.dtype == torch.float32
    assert set(seen) == {(torch.float32, (3,))}
    if sampler is not ancestral:
        double = sampler(denoise, x.double(), uniform_grid(-4.0, 4.0, 7), generator=generators())
        assert torch.allclose(result.double(), double, atol=1e-5)


def test_ddim_keeps_the_predicted_noise():
    """One step is x_hat diffused with eps_hat, by the noise maps. Kills: the new level's alpha on the old noise."""
    x, now, then = start(), torch.full((3,), -1.0, dtype=F64), torch.full((3,), 1.5, dtype=F64)
    x_hat = 0.2 + x.square()
    expected = noise.diffuse(x_hat, noise_of(x, x_hat, now), then)
    result = ddim(lambda x_t, logsnr, cond: x_hat, x, torch.tensor([-1.0, 1.5], dtype=F64), generator=seeded(0))
    assert torch.allclose(result, expected, rtol=1e-12)


def test_second_order_starts_as_first_order():
    """Without a prediction before, one step is DDIM's. Kills: e^h for e^-h in the integrator."""
    x, grid = start(), torch.tensor([-2.0, 1.0], dtype=F64)
    source = correlated()
    first = ddim(source.denoise, x, grid, generator=seeded(0))
    assert torch.allclose(dpmpp_2m(source.denoise, x, grid, generator=seeded(0)), first, rtol=1e-12)


@pytest.mark.parametrize(("now", "then"), [(-6.0, -1.0), (-1.0, 0.5), (3.0, 9.0)])
def test_ancestral_step_is_bayes_posterior(now, then):
    """q(x_s | x_t, x) from prior times likelihood. Kills: c = 1 - e^(lambda_t - lambda_s) with its sign turned."""
    x, x_hat = start(), 0.2 - start().square()
    alpha_t, alpha_s = 1 / math.sqrt(1 + math.exp(-now)), 1 / math.sqrt(1 + math.exp(-then))
    sigma_t2, sigma_s2 = 1 / (1 + math.exp(now)), 1 / (1 + math.exp(then))
    ratio = alpha_t / alpha_s
    likelihood = sigma_t2 - ratio**2 * sigma_s2  # variance of x_t given x_s
    precision = 1 / sigma_s2 + ratio**2 / likelihood
    mean = (alpha_s * x_hat / sigma_s2 + ratio * x / likelihood) / precision
    expected = mean + noise_like(x, seeded(5)) / math.sqrt(precision)
    grid = torch.tensor([now, then], dtype=F64)
    result = ancestral(lambda x_t, logsnr, cond: x_hat, x, grid, generator=seeded(5))
    assert torch.allclose(result, expected, rtol=1e-9)


def test_ancestral_noise_is_fresh_at_each_step():
    """With x known the chain has x's marginals after any steps. Kills: the fresh noise's standard deviation squared."""
    x, rows = torch.tensor([0.7, -2.0, 0.1], dtype=F64), 8000
    generator = seeded(6)
    x_t = noise.diffuse(
        x.repeat(rows, 1), torch.randn(rows, 3, generator=generator, dtype=F64), torch.full((rows,), -5.0)
    )
    for end in (-1.0, 2.0):
        result = ancestral(
            lambda x_t, logsnr, cond: x.repeat(rows, 1), x_t, uniform_grid(-5.0, end, 4), generator=generator
        )
        assert ((result.var(0) * (1 + math.exp(end)) - 1).abs() < 4 * math.sqrt(2 / rows)).all()
        sigma_s = 1 / math.sqrt(1 + math.exp(end))
        assert ((result.mean(0) - x / math.sqrt(1 + math.exp(-end))).abs() < 4 * sigma_s / math.sqrt(rows)).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_grid_that_ends_clean_returns_the_prediction(sampler):
    """To +inf: the state at the last finite level, denoised. Kills: second order taken into an infinite step."""
    source, x, grid = correlated(), start(), uniform_grid(-6.0, 3.0, 6, to_clean=True)
    before = sampler(source.denoise, x, grid[:-1], generator=generators())
    clean = sampler(source.denoise, x, grid, generator=generators())
    assert torch.allclose(clean, source.denoise(before, torch.full((3,), 3.0, dtype=F64)), rtol=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_network_is_called_once_a_step_at_the_noisy_end(sampler):
    """n calls at grid[:-1], with the condition. Kills: the network asked about the step's clean end."""
    calls = []

    def denoise(x_t, logsnr, cond):
        assert cond == "condition"
        calls.append(logsnr.tolist())
        return 0.5 * x_t

    grid = torch.tensor([-4.0, -1.5, 0.0, 2.5], dtype=F64)
    sampler(denoise, start(), grid, generator=seeded(0), cond="condition")
    assert calls == [[-4.0] * 3, [-1.5] * 3, [0.0] * 3]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_example_depends_on_its_own_seed_only(sampler):
    """Row 1 of three is the same alone and beside other seeds. Kills: every row from the first generator."""
    source, x, grid = correlated(), start(), uniform_grid(-6.0, 3.0, 9)
    together = sampler(source.denoise, x, grid, generator=generators())
    alone = sampler(source.denoise, x[1:2], grid, generator=generators(1, first=1))
    others = sampler(source.denoise, x, grid, generator=[seeded(50), seeded(1), seeded(51)])
    assert torch.allclose(together[1:2], alone, rtol=1e-12)
    assert torch.allclose(together[1], others[1], rtol=1e-12)
    if sampler is ancestral:
        assert not torch.allclose(together[0], others[0], rtol=1e-2)


def test_noise_of_one_generator_differs_between_rows():
    """One generator, a batch of independent rows. Kills: one row repeated."""
    rows = noise_like(torch.zeros(3, 400, dtype=F64), seeded(7))
    assert (torch.corrcoef(rows) - torch.eye(3)).abs().max() < 0.2
    assert torch.equal(rows, noise_like(rows, seeded(7)))


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_deterministic_samplers_leave_the_generator_alone(sampler):
    """Same state before and after. Kills: noise drawn and thrown away."""
    generator = seeded(8)
    state = generator.get_state()
    sampler(correlated().denoise, start(), uniform_grid(-3.0, 3.0, 4), generator=generator)
    assert torch.equal(generator.get_state(), state)


def test_grids():
    """Ends, count and spacing; to_clean calls at lambda_max. Kills: one step too few."""
    grid = uniform_grid(-10.0, 5.0, 6)
    assert grid.tolist() == [-10.0, -7.5, -5.0, -2.5, 0.0, 2.5, 5.0]
    assert uniform_grid(-10.0, 5.0, 4, to_clean=True).tolist() == [-10.0, -5.0, 0.0, 5.0, math.inf]
    assert uniform_grid(-10.0, 5.0, 1, to_clean=True).tolist() == [-10.0, math.inf]


@pytest.mark.parametrize("points", [[5.0, -5.0], [0.0], [-math.inf, 0.0], [0.0, 0.0, 1.0], [0.0, math.nan]])
def test_broken_grids_are_told(points):
    """Decreasing, too short, infinite inside, standing still. Kills: the check that log-SNR increases removed."""
    with pytest.raises(UserError, match="grid"):
        ddim(correlated().denoise, start(), torch.tensor(points, dtype=F64), generator=seeded(0))


def test_mistaken_arguments_are_told():
    """Generators that do not match the batch; grids without steps. Kills: the count of generators unchecked."""
    with pytest.raises(UserError, match="generators"):
        noise_like(start(), generators(2))
    for arguments in [(-10.0, 5.0, 0), (5.0, -10.0, 4)]:
        with pytest.raises(UserError, match="grid"):
            uniform_grid(*arguments)
