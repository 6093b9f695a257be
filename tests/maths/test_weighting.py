import torch

from unilat.maths.weighting import sigmoid_weight, unweighted

from .sources import F64

LAMBDA = torch.linspace(-12, 12, 49, dtype=F64)


def test_weight_falls_as_noise_falls():
    """w is 1 at high noise, ½ at the bias, falling. Kills: sigmoid(lambda - b) on the eps-MSE."""
    weight = sigmoid_weight(LAMBDA, 1.5)
    assert bool((weight.diff() < 0).all())
    assert float(sigmoid_weight(torch.tensor([1.5], dtype=F64), 1.5)) == 0.5
    assert float(sigmoid_weight(torch.tensor([-40.0], dtype=F64), 1.5)) == 1.0


def test_both_parametrisations_agree():
    """e^lambda sigmoid(b - lambda) = e^b sigmoid(lambda - b). Kills: the bias' sign flipped."""
    for bias in (-2.0, 0.7):
        left = LAMBDA.exp() * sigmoid_weight(LAMBDA, bias)
        assert torch.allclose(left, torch.exp(torch.tensor(bias)) * torch.sigmoid(LAMBDA - bias), rtol=1e-6)


def test_no_weight_is_one():
    """w = 1 in lambda's shape and dtype. Kills: a weight of 0."""
    assert torch.equal(unweighted(LAMBDA), torch.ones(49, dtype=F64))
