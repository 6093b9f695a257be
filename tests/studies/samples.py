"""Latents and pictures that the tests of an audit know beforehand: colour, not square, channels that differ."""

from typing import Any

import torch
from torch import Tensor

from unilat.interop.model import Encoded
from unilat.signals.pictures import Pictures
from unilat.studies.subject import Subject

LATENT = (3, 2, 4)
"""Three channels on two rows of four; the middle channel is dead."""
TRAIN, TEST = torch.arange(0, 60), torch.arange(60, 85)
"""Unequal numbers of latents that a prior is trained on and measured on."""
PIXELS = 6 * 10


def latents(count: int = 85, seed: int = 0) -> Tensor:
    """``[count, 3, 2, 4]``: means 5, 7, −1, standard deviations 2, 0, 0.5; from number 60 on three times as wide."""
    z = torch.randn(count, *LATENT, generator=torch.Generator().manual_seed(seed))
    z[60:] *= 3
    return torch.tensor([5.0, 7.0, -1.0]).view(1, 3, 1, 1) + torch.tensor([2.0, 0.0, 0.5]).view(1, 3, 1, 1) * z


def pictures(count: int = 85) -> Pictures:
    """Colour pictures of 6 × 10; those that are held out are lighter than the others."""
    images = torch.randint(0, 100, (count, 3, 6, 10), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    images[60:] += 120
    numbers = torch.arange(count)
    return Pictures(images, numbers * 0, (), numbers, None, None, "made up", sha256="feed")


class Model:
    """A model whose decoder finds the pictures by the latents, and is one grey level wrong at every third number."""

    name, channels, sha256, kind = "a model", 3, "beef", "AutoencoderMadeUp"

    def __init__(self, z: Tensor, images: Tensor):
        self.z, self.images = z, images
        self.declared: dict[str, Any] = {"scaling_factor": 0.5, "shift_factor": 2.0}

    def encode(self, x: Tensor) -> Encoded:
        """Never asked."""
        raise AssertionError

    def answer(self, numbers: Tensor) -> Tensor:
        """The bytes that it makes of these latents, ``[B, 3, 6, 10]``."""
        wrong = self.images[numbers].int()
        wrong.view(len(numbers), -1)[:, ::3] += 1 + numbers[:, None].int() % 4
        return wrong.to(torch.uint8)

    def decode(self, z: Tensor) -> Tensor:
        """In the range of networks."""
        numbers = torch.stack([(self.z == one).flatten(1).all(1).nonzero()[0, 0] for one in z])
        return self.answer(numbers).float() / 127.5 - 1


def subject(known: bool = True, logvar: Tensor | None = None) -> Subject:
    """A model's latents with their pictures, or an array's of which nothing else is known but 60 pixels."""
    z = latents()
    if not known:
        return Subject("an array", z, None, TRAIN, TEST, PIXELS)
    shown = pictures()
    return Subject("a model", z, logvar, TRAIN, TEST, PIXELS, Model(z, shown.images), shown)
