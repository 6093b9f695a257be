import math

import pytest
import torch
from jaxtyping import TypeCheckError

from unilat.maths import noise
from unilat.maths.denoising import denoising_loss
from unilat.maths.levels import Levels, Table, uniform
from unilat.maths.oracle import Gaussian
from unilat.maths.rate import rate_terms
from unilat.maths.seeds import Draws
from unilat.maths.weighting import sigmoid_weight
from unilat.types import UserError

from .sources import F64, noise_of, seeded


def example():
    generator = seeded(0)
    x, x_hat, eps = (torch.randn(3, 2, 4, generator=generator, dtype=F64) for _ in range(3))
    levels = Levels(torch.tensor([-3.0, 0.5, 4.0], dtype=F64), torch.tensor([0.1, 0.7, 2.0], dtype=F64))
    return 0.5 + x, x_hat, eps, levels


def test_loss_is_the_weighted_error_of_the_noise():
    """½ w ||eps - eps_hat||² / p through the noise maps. Kills: e^lambda left out."""
    x, x_hat, eps, levels = example()
    weight = torch.tensor([1.3, 0.2, 5.0], dtype=F64)
    eps_hat = noise_of(noise.diffuse(x, eps, levels.lambda_t), x_hat, levels.lambda_t)
    for row in range(3):
        expected = 0.5 * weight[row] * (eps - eps_hat)[row].square().sum() / levels.density[row]
        assert torch.allclose(denoising_loss(x, x_hat, levels, weight)[row], expected, rtol=1e-9)


def test_unweighted_loss_is_the_rates_integral():
    """w = 1 gives the rate's diffusion term. Kills: a mean over dimensions instead of a sum."""
    x, x_hat, _, levels = example()
    loss = denoising_loss(x, x_hat, levels, torch.ones(3, dtype=F64))
    assert torch.allclose(loss, rate_terms(x, x_hat, levels, -3.0).diffusion.flatten(1).sum(1), rtol=1e-12)


@pytest.mark.parametrize("table", [None, Table.proportional(torch.sigmoid, -8.0, 6.0)], ids=["uniform", "importance"])
def test_weighted_integral_of_a_gaussian(table):
    """½ ∫ sigmoid(b - lambda) sigmoid(lambda) dlambda in closed form. Kills: the density ignored."""
    source, bias, low, high = Gaussian(torch.ones(200), torch.zeros(200)), 1.5, -8.0, 6.0
    means = []
    for step in range(60):
        draws = Draws.keyed(3, step, 0, 32)
        x = source.sample(32, draws.generator)
        strata = draws.strata(32)
        levels = uniform(strata, low, high) if table is None else table.sample(strata)
        x_hat = source.denoise(noise.diffuse(x, draws.normal(x), levels.lambda_t), levels.lambda_t)
        means.append(denoising_loss(x, x_hat, levels, sigmoid_weight(levels.lambda_t, bias)).mean())
    means = torch.stack(means).double()

    def primitive(at):  # of sigmoid(b - t) sigmoid(t) = [sigmoid(t) - sigmoid(t - b)] / (1 - e^-b)
        return (math.log1p(math.exp(at)) - math.log1p(math.exp(at - bias))) / (1 - math.exp(-bias))

    expected = 200 * 0.5 * (primitive(high) - primitive(low))
    assert abs(float(means.mean()) - expected) < 3 * float(means.std()) / math.sqrt(60)


def test_shapes_must_agree():
    """No broadcasting, with or without the hook of shapes. Kills: the check of shapes turned round."""
    x, _, _, levels = example()
    with pytest.raises((UserError, TypeCheckError), match=r"denoiser returned|x_hat"):
        denoising_loss(x, x[:, :1], levels, torch.ones(3, dtype=F64))
