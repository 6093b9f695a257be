"""What stage 1 charges for a latent: the rate itself, or what others charge in its place.

``rate`` is what a price measures in bits, ``charge`` what stage 1 minimises. They are one and the same in Unified
Latents; the others are the paper's ablations (UL Tables 5 and 6) and the baseline of latent diffusion. A charge of your
own is any function ``(model, x, z, rate) -> [B]`` in nats per example, given to ``unilat.train`` or to ``Autoencoder``;
``examples/charge_of_your_own.py`` has one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from unilat.maths.levels import Levels
from unilat.maths.noise import diffuse
from unilat.maths.rate import RateTerms, normal_kl, rate_terms, terminal_kl
from unilat.nets.denoiser import Denoiser
from unilat.nets.gaussian import LatentDenoiser

Kind = Literal["diffusion", "normal", "stopped"]
Charge = Callable[..., Tensor]
"""``(model, x, z, rate) -> [B]``: nats per example to be minimised where Unified Latents minimise ``rate.nats()``; the
model is the :class:`~unilat.models.autoencoder.Autoencoder`."""


class Ends(Protocol):
    """The ends of the prior's noise levels, as a configuration names them."""

    @property
    def lambda_min(self) -> float: ...
    @property
    def lambda_0(self) -> float: ...


class Priced(Protocol):
    """What a price needs of the model whose latents it charges."""

    @property
    def config(self) -> Ends: ...
    @property
    def prior(self) -> LatentDenoiser: ...


class Price(Protocol):
    """How latents are priced while they are trained."""

    @property
    def gradient(self) -> float:
        """Share of the rate's gradient that reaches the encoder."""
        ...

    def rate(self, model: Priced, z: Tensor, levels: Levels, noise: Tensor) -> RateTerms:
        """Bits of ``z`` as this price counts them, one noise level an example, nats per dimension."""
        ...

    def charge(self, model: Priced, x: Tensor, z: Tensor, rate: RateTerms) -> Tensor:
        """What is minimised, nats per example ``[B]``."""
        ...


@dataclass(frozen=True)
class DiffusionPrice:
    """The rate under the diffusion prior, with its gradient (UL eq. 3)."""

    gradient: float = 1.0

    def rate(self, model: Priced, z: Tensor, levels: Levels, noise: Tensor) -> RateTerms:
        """UL eq. 3."""
        z_t = diffuse(z, noise, levels.lambda_t)
        return rate_terms(z, model.prior(z_t, levels.lambda_t, None), levels, model.config.lambda_min)

    def charge(self, model: Priced, x: Tensor, z: Tensor, rate: RateTerms) -> Tensor:
        """The rate."""
        return rate.nats()


@dataclass(frozen=True)
class NormalPrice:
    """KL[q(z_0 | x) || N(0, I)] in closed form, as a VAE charges it (UL Table 5, third row)."""

    gradient: float = 1.0

    def rate(self, model: Priced, z: Tensor, levels: Levels, noise: Tensor) -> RateTerms:
        """``KL[z_0 | z || the prior]``; levels and noise are not needed."""
        prior = model.prior
        assert isinstance(prior, Denoiser), "a normal prior has no covariance"
        kl = normal_kl(z, model.config.lambda_0, prior.mean, prior.std)
        return RateTerms(torch.zeros_like(z), kl, levels.lambda_t)

    def charge(self, model: Priced, x: Tensor, z: Tensor, rate: RateTerms) -> Tensor:
        """The same KL."""
        return rate.nats()


@dataclass(frozen=True)
class StoppedPrice:
    """The prior learns behind a stopped gradient; the encoder pays a small KL to N(0, I) (UL Table 6, A)."""

    kl_weight: float
    gradient: float = 0.0

    def rate(self, model: Priced, z: Tensor, levels: Levels, noise: Tensor) -> RateTerms:
        """UL eq. 3."""
        return DiffusionPrice().rate(model, z, levels, noise)

    def charge(self, model: Priced, x: Tensor, z: Tensor, rate: RateTerms) -> Tensor:
        """``R(stopped z) + kl_weight KL[z_0 || N(0, I)]``."""
        return rate.nats() + self.kl_weight * terminal_kl(z, model.config.lambda_0).flatten(1).sum(1)


def price(kind: Kind, kl_weight: float) -> Price:
    """The price that a configuration names."""
    prices: dict[Kind, Price] = {
        "diffusion": DiffusionPrice(),
        "normal": NormalPrice(),
        "stopped": StoppedPrice(kl_weight),
    }
    return prices[kind]
