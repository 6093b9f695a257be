"""Weights of the eps-MSE as functions of log-SNR. A loss factor multiplies outside.

    ½ ∫ w(lambda) E||eps - eps_hat||² dlambda,   and   e^lambda sigmoid(b - lambda) = e^b sigmoid(lambda - b)

turns the same weight into one on the x-MSE. Weights fall as lambda rises: details of low noise are discounted.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def sigmoid_weight(lambda_t: Float[Tensor, " b"], bias: float) -> Float[Tensor, " b"]:
    """``w = sigmoid(bias - lambda)``: 1 at high noise, ½ at lambda = bias, falling like e^-lambda (UL Fig. 3)."""
    return torch.sigmoid(bias - lambda_t)


def unweighted(lambda_t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """``w = 1``: the denoising loss is then a bound on a likelihood."""
    return torch.ones_like(lambda_t)
