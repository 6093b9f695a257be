"""A shift-tolerant perceptual distance (ST-LPIPS, Ghildyal and Liu 2022) from the weights of a pip package.

Features of AlexNet with blurred strides, normalised over channels; the squared differences are weighted by learned
positive weights, averaged over places and summed over five layers. The package's own modules import torchvision and are
never imported: only its weights are read.
"""

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unilat.fields import FieldError

ALEX_SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"
LEAST_SIDE = 24
"""Pixels: of smaller pictures too little is left for the last layers."""
_ENDS = (3, 7, 11, 13, 15)
"""Where the five compared layers end among the network's layers."""


class Blur(nn.Module):
    """A 3×3 binomial blur with stride 2, borders reflected."""

    filt: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("filt", torch.zeros(channels, 1, 3, 3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.conv2d(F.pad(x_BCHW, (2, 2, 2, 2), "reflect"), self.filt, stride=2, groups=x_BCHW.shape[1])


class PerceptualDistance(nn.Module):
    """``(a, b) -> [B]``: pictures in [-1, 1], ``[B, 1 or 3, H, W]`` of :data:`LEAST_SIDE` or more a side."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 11, 1, 2), Blur(64), nn.ReLU(), nn.MaxPool2d(3, 1), Blur(64),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 1), Blur(192),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        ]  # fmt: skip
        starts = (0, *_ENDS[:-1])
        self.slices = nn.ModuleList(nn.Sequential(*layers[low:high]) for low, high in zip(starts, _ENDS, strict=True))
        widths = (64, 192, 384, 256, 256)
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(1, width, 1, 1)) for width in widths)
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """The five layers' features, each normalised over its channels."""
        h_BCHW, found = (x_BCHW.expand(-1, 3, -1, -1) - self.shift) / self.scale, []
        for part in self.slices:
            h_BCHW = part(h_BCHW)
            found.append(h_BCHW / (h_BCHW.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        pairs = zip(self.features(a_BCHW), self.features(b_BCHW), self.weights, strict=True)
        return torch.stack([F.conv2d((a - b).square(), weight).mean((1, 2, 3)) for a, b, weight in pairs]).sum(0)


def load() -> PerceptualDistance:
    """The network with the packaged weights; raises :class:`FieldError` where the package is missing or another."""
    spec = find_spec("stlpips_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise FieldError(
            "the perceptual distance and the features alexnet-st need weights: pip install --no-deps "
            "stlpips-pytorch==0.0.2 (with its dependencies it would bring torchvision), or leave out "
            "autoencoder.perceptual and these features"
        )
    path = Path(spec.submodule_search_locations[0]) / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != ALEX_SHA256:
        raise FieldError(
            f"{path} is not the recorded file: pip install --force-reinstall --no-deps stlpips-pytorch==0.0.2"
        )
    return fill(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def fill(state: dict[str, Tensor]) -> PerceptualDistance:
    """A network with the package's names of weights, all of them."""
    network = PerceptualDistance()
    renamed = {"shift": state["scaling_layer.shift"], "scale": state["scaling_layer.scale"]}
    for index, (low, high) in enumerate(zip((0, *_ENDS[:-1]), _ENDS, strict=True)):
        renamed[f"weights.{index}"] = state[f"lin{index}.model.1.weight"]
        for layer in range(low, high):
            for name in ("weight", "bias", "filt"):
                if (found := state.get(f"net.slice{index + 1}.{layer}.{name}")) is not None:
                    renamed[f"slices.{index}.{layer - low}.{name}"] = found
    network.load_state_dict(renamed, strict=True)
    return network.eval().requires_grad_(False)
