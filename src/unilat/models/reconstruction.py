"""What stage 1 asks of the decoder: the weighted denoising loss, or a squared error as VAEs have it.

Both use the same network and the same contract, so that they compare at equal parameters.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from unilat.maths.denoising import denoising_loss
from unilat.maths.noise import diffuse
from unilat.maths.samplers import ddim, uniform_grid
from unilat.maths.seeds import Draws
from unilat.maths.weighting import sigmoid_weight
from unilat.models.placing import Placing
from unilat.nets.decoder import hear

Kind = Literal["diffusion", "mse"]


class Weighting(Protocol):
    """What a configuration says of the decoder's noise levels."""

    @property
    def bias(self) -> float: ...
    @property
    def lambda_min(self) -> float: ...


class Decoding(Protocol):
    """What a reconstruction needs of the model whose decoder it trains or asks."""

    @property
    def config(self) -> Weighting: ...
    @property
    def decoder(self) -> nn.Module: ...
    @property
    def decoder_levels(self) -> Placing: ...


class Reconstruction(Protocol):
    """How a decoder is trained and asked. ``cond`` is what it hears of the latent."""

    def loss(self, model: Decoding, x: Tensor, cond: Tensor, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """``L(x | z_0)`` without the loss factor, nats per example ``[B]``, and its noise levels if it has any."""
        ...

    def decode(self, model: Decoding, cond: Tensor, x_1: Tensor, steps: int, span: tuple[float, float]) -> Tensor:
        """x from the latent and ``x_1 ~ N(0, I)``."""
        ...


class DiffusionDecoder:
    """``½ ∫ sigmoid(b − λ) E‖ε − ε̂‖² dλ`` (UL eq. 4), decoded by DDIM."""

    def loss(self, model: Decoding, x: Tensor, cond: Tensor, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """One noise level an example."""
        levels = model.decoder_levels.sample(draws.strata(len(x)).to(x.device))
        x_t = diffuse(x, draws.normal(x), levels.lambda_t)
        weight = sigmoid_weight(levels.lambda_t, model.config.bias)
        loss = denoising_loss(x, model.decoder(x_t, levels.lambda_t, cond), levels, weight)
        return loss, levels.lambda_t

    def decode(self, model: Decoding, cond: Tensor, x_1: Tensor, steps: int, span: tuple[float, float]) -> Tensor:
        """``steps`` calls over ``span``, the last one's answer clean."""
        grid = uniform_grid(*span, steps, to_clean=True).to(cond.device)
        return ddim(model.decoder, x_1, grid, generator=(), cond=hear(model.decoder, cond))


@dataclass(frozen=True, eq=False)
class SquaredError:
    """``½ ‖x − D(z_0)‖² + perceptual · LPIPS``: a Gaussian likelihood of unit variance, whose scale the factor carries.

    ``D`` is the decoder's network at the noisiest level on an empty picture, so it is called once.
    """

    perceptual: float = 0.0
    """Weight of the perceptual distance (ST-LPIPS), nats per unit of it."""
    network: list[nn.Module] = field(default_factory=list)
    """The perceptual network, loaded when it is first needed; a list, so that it is no part of the model."""

    def loss(self, model: Decoding, x: Tensor, cond: Tensor, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """One call, no noise."""
        made = self.decode(model, cond, x, 1, (0.0, 0.0))
        loss = 0.5 * (x - made).square().flatten(1).sum(1)
        if not self.perceptual:
            return loss, None
        if not self.network:
            from unilat.nets.perceptual import load

            self.network.append(load())
        return loss + self.perceptual * self.network[0].to(x.device)(made, x), None

    def decode(self, model: Decoding, cond: Tensor, x_1: Tensor, steps: int, span: tuple[float, float]) -> Tensor:
        """The answer to an empty picture; ``steps`` and ``span`` change nothing, of ``x_1`` only the shape is used."""
        level = torch.full((len(x_1),), model.config.lambda_min, device=x_1.device)
        return model.decoder(torch.zeros_like(x_1), level, cond)


def reconstruction(kind: Kind, perceptual: float) -> Reconstruction:
    """What a configuration names."""
    return SquaredError(perceptual) if kind == "mse" else DiffusionDecoder()
