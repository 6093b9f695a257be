"""Randomness that a test holds in its hands, and small models on two axes."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nets.samples import encoder, shaken, uvit, vit
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig


@dataclass
class Fixed:
    """Stands for ``Draws``: the levels' quantiles and the noise are given."""

    quantiles: Tensor
    noise: list[Tensor]
    asked: list[str] = field(default_factory=list)

    def strata(self, batch: int) -> Tensor:
        self.asked.append("strata")
        return self.quantiles[:batch]

    def normal(self, like: Tensor) -> Tensor:
        self.asked.append("normal")
        return self.noise.pop(0).expand_as(like)


def autoencoder(axes: int = 2, channels: int = 3, fresh: bool = False, **changed: object) -> Autoencoder:
    """A small autoencoder; ``fresh`` keeps the weights it starts with (zero heads)."""
    networks = {"encoder": encoder(axes), "prior": vit(), "decoder": uvit(axes)}
    config = AutoencoderConfig(latent_channels=5, **networks | changed)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = Autoencoder(config, channels)
    if not fresh:
        shaken(model, scale=0.1)
    return model.eval()
