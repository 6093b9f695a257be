"""The weighted denoising loss: the decoder's and the base model's objective, in nats per example."""

from jaxtyping import Float
from torch import Tensor

from unilat.maths.levels import Levels
from unilat.types import UserError


def denoising_loss(
    x: Float[Tensor, "b *dims"], x_hat: Float[Tensor, "b *dims"], levels: Levels, weight: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """``½ w e^lambda ||x - x_hat||² / p``, ``[B]``: estimates ``½ ∫ w(lambda) ||eps - eps_hat||² dlambda`` (UL eq. 4).

    ``weight`` is w at the examples' levels, on the eps-MSE; ``e^lambda ||x - x_hat||² = ||eps - eps_hat||²`` brings it
    to x. With w = 1 the loss is a bound on a likelihood. Squares add up over dimensions.
    """
    if x.shape != x_hat.shape:
        raise UserError(f"the denoiser returned {tuple(x_hat.shape)} for a signal of {tuple(x.shape)}")
    squares = (x - x_hat).square().flatten(1).sum(1)
    return 0.5 * weight * levels.lambda_t.exp() * squares / levels.density
