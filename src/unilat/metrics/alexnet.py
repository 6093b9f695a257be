"""A second feature network, so that no verdict hangs on one: AlexNet, of the weights of the perceptual distance."""

import torch
from torch import Tensor
from torch.nn import functional

from unilat.metrics.batches import in_parts
from unilat.nets.perceptual import ALEX_SHA256, load

SIZE = 64
"""Side that pictures are resized to."""


class AlexNetFeatures:
    """The 1,152 pooled features of the AlexNet behind ST-LPIPS (Ghildyal and Liu 2022), trained on ImageNet.

    Its five layers, each normalised over its channels at every place, averaged over places and multiplied by the root
    of their number: entries of mean square up to 1, no layer above another. The weights are those of the pip package
    stlpips-pytorch (BSD-2), by ``nets/perceptual.py``. An autoencoder that was trained with ``autoencoder.perceptual``
    has seen this very network: its distances look better here than they are.
    """

    name, published = "alexnet-st", False

    def __init__(self, size: int = SIZE, device: torch.device | str = "cpu"):
        self.size, self.device, self.sha256 = size, torch.device(device), ALEX_SHA256
        with torch.random.fork_rng(devices=[]):  # a random start is drawn and replaced
            self._network = load().to(self.device)
        self.label = f"alexnet-st, sha256 {self.sha256[:12]}, uint8, bicubic {size}"
        self.protocol = (
            f"features: 1,152 of the AlexNet behind ST-LPIPS (ImageNet; weights sha256 {self.sha256[:12]}…), uint8 "
            f"pictures, bicubic resize to {size}×{size} (antialiased, not rounded), grey repeated to 3 channels"
        )

    def __call__(self, pictures: Tensor) -> Tensor:
        return in_parts(self._features, pictures, self.device)

    def _features(self, pictures: Tensor) -> Tensor:
        size = (self.size, self.size)
        x = functional.interpolate(pictures / 255.0, size=size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        layers = self._network.features(2.0 * x - 1.0)
        return torch.cat([h.mean((2, 3)) * h.shape[1] ** 0.5 for h in layers], 1)
