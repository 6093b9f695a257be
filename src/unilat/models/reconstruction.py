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


@dataclass(frozen=True, eq=False)
class Perceptual:
    """``weight · d(x̂, x)``: a perceptual distance (ST-LPIPS) beside another loss, nats per example ``[B]``."""

    weight: float = 0.0
    network: list[nn.Module] = field(default_factory=list)
    """Loaded when it is first needed; a list, so that it is no part of the model."""

    def __call__(self, made: Tensor, x: Tensor) -> Tensor | float:
        """Of each pair; 0 where the weight is, and nothing is loaded."""
        if not self.weight:
            return 0.0
        if not self.network:
            from unilat.nets.perceptual import load

            self.network.append(load())
        return self.weight * self.network[0].to(x.device)(made, x)


@dataclass(frozen=True, eq=False)
class DiffusionDecoder:
    """``½ ∫ sigmoid(b − λ) E‖ε − ε̂‖² dλ`` (UL eq. 4), decoded by DDIM.

    A perceptual term adds its mean over the levels where training begins, ``∫ p₀(λ) E d(x̂, x) dλ`` with p₀ along
    ``sigmoid(b − λ) sigmoid(λ)``.
    """

    perceptual: Perceptual = field(default_factory=Perceptual)

    def loss(self, model: Decoding, x: Tensor, cond: Tensor, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """One noise level an example."""
        levels = model.decoder_levels.sample(draws.strata(len(x)).to(x.device))
        x_t = diffuse(x, draws.normal(x), levels.lambda_t)
        weight = sigmoid_weight(levels.lambda_t, model.config.bias)
        made = model.decoder(x_t, levels.lambda_t, cond)
        loss = denoising_loss(x, made, levels, weight)
        if self.perceptual.weight:
            first = model.decoder_levels.guess.density(levels.lambda_t)
            loss = loss + first / levels.density * self.perceptual(made, x)
        return loss, levels.lambda_t

    def decode(self, model: Decoding, cond: Tensor, x_1: Tensor, steps: int, span: tuple[float, float]) -> Tensor:
        """``steps`` calls over ``span``, the last one's answer clean."""
        grid = uniform_grid(*span, steps, to_clean=True).to(cond.device)
        return ddim(model.decoder, x_1, grid, generator=(), cond=hear(model.decoder, cond))


@dataclass(frozen=True, eq=False)
class SquaredError:
    """``½ ‖x − D(z_0)‖²`` and a perceptual term: a Gaussian likelihood of variance 1, whose scale the factor carries.

    ``D`` is the decoder's network at the noisiest level on an empty picture, so it is called once.
    """

    perceptual: Perceptual = field(default_factory=Perceptual)

    def loss(self, model: Decoding, x: Tensor, cond: Tensor, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """One call, no noise."""
        made = self.decode(model, cond, x, 1, (0.0, 0.0))
        return 0.5 * (x - made).square().flatten(1).sum(1) + self.perceptual(made, x), None

    def decode(self, model: Decoding, cond: Tensor, x_1: Tensor, steps: int, span: tuple[float, float]) -> Tensor:
        """The answer to an empty picture; ``steps`` and ``span`` change nothing, of ``x_1`` only the shape is used."""
        level = torch.full((len(x_1),), model.config.lambda_min, device=x_1.device)
        return model.decoder(torch.zeros_like(x_1), level, cond)


def reconstruction(kind: Kind, perceptual: float) -> Reconstruction:
    """What a configuration names."""
    return (SquaredError if kind == "mse" else DiffusionDecoder)(Perceptual(perceptual))
