"""The Inception network that published distances stand on: FID, sFID, the inception score, precision and recall.

It is Inception v3 (Szegedy et al. 2015, "Rethinking the Inception architecture for computer vision") as TensorFlow's
file inception-2015-12-05 has it, which differs from the usual one in five places: average pools leave the border out of
their mean, the last block takes a maximum instead, 1,008 classes, pictures as (x − 128) / 128, and a resize that does
not care where a pixel's centre lies (:func:`resize_tf1`). Names are those of the weights' file.
"""

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilat.files import digest, read_bytes, read_safetensors
from unilat.metrics.batches import in_parts
from unilat.types import UserError

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of pt_inception-2015-12-05-6726825d.pth, the file of pytorch-fid, torch-fidelity and torchmetrics."""
TORCHSCRIPT_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""Of inception-2015-12-05.pt, the same network as StyleGAN's and EDM's authors scripted it, its resize inside."""
LABEL = "inception, uint8, bilinear-tf1 299"
"""What stands in the name of a number of the published network."""
SIDE, POOL, CLASSES = 299, 2048, 1008
SPATIAL = 7 * 17 * 17
"""Numbers of the first 7 channels of ``mixed_6/conv``."""
CONVERT = (
    'python -c "import torch, sys; from safetensors.torch import save_file; save_file({name: one.contiguous() for '
    'name, one in torch.load(sys.argv[1], weights_only=True).items()}, sys.argv[2])" WEIGHTS.pth WEIGHTS.safetensors'
)


def _line(length: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``side`` places along an axis of ``length``: the pixel before, the one after, and how far on, in [0, 1)."""
    place = torch.arange(side, device=device, dtype=torch.float32) * (length / side)
    before = place.floor().long().clamp(max=length - 1)
    return before, (before + 1).clamp(max=length - 1), place - before


def resize_tf1(x: Tensor, size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    """Bilinear resize as TensorFlow 1 does it, float32 ``[B, C, H, W]`` to ``[B, C, *size]``; nothing is rounded.

    ``y_i = (1 − w) x_⌊s⌋ + w x_min(⌊s⌋ + 1, H − 1)`` with ``s = i H / H'``, ``w = s − ⌊s⌋`` along either axis
    (``align_corners`` and ``half_pixel_centers`` false): pixels' corners are matched, not their centres, and a smaller
    picture is picked, not averaged. Every published FID has this in it.
    """
    before, after, share = _line(x.shape[2], size[0], x.device)
    x = torch.lerp(x[:, :, before], x[:, :, after], share[:, None])
    before, after, share = _line(x.shape[3], size[1], x.device)
    return torch.lerp(x[..., before], x[..., after], share)


class _Conv(nn.Module):
    """Convolution without a bias, batch norm as it was trained, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, padded: bool = True
    ):
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        border = (sides[0] // 2, sides[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, border, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


def _average(x: Tensor) -> Tensor:
    """Mean over 3 × 3 pixels, those beyond the border left out of sum and count."""
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _halved(x: Tensor) -> Tensor:
    """Maximum over 3 × 3 pixels at every other place, without a border."""
    return functional.max_pool2d(x, 3, 2)


class _MixedA(nn.Module):
    """1 × 1, 5 × 5 and two 3 × 3, side by side; at 35²."""

    def __init__(self, inputs: int, pooled: int):
        super().__init__()
        self.branch1x1 = _Conv(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = _Conv(inputs, 48, 1), _Conv(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 64, 1), _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3)
        self.branch_pool = _Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class _MixedB(nn.Module):
    """From 35² to 17²."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = _Conv(inputs, 384, 3, stride=2, padded=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 64, 1), _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, _halved(x)], 1)


class _MixedC(nn.Module):
    """7 × 7 as 1 × 7 after 7 × 1, once and twice; at 17², ``inner`` channels within."""

    def __init__(self, inner: int):
        super().__init__()
        self.branch1x1 = _Conv(768, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = _Conv(768, inner, 1), _Conv(inner, inner, (1, 7))
        self.branch7x7_3 = _Conv(inner, 192, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = _Conv(768, inner, 1), _Conv(inner, inner, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _Conv(inner, inner, (1, 7)), _Conv(inner, inner, (7, 1))
        self.branch7x7dbl_5 = _Conv(inner, 192, (1, 7))
        self.branch_pool = _Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(_average(x))], 1)


class _MixedD(nn.Module):
    """From 17² to 8²."""

    def __init__(self):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = _Conv(768, 192, 1), _Conv(192, 320, 3, stride=2, padded=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = _Conv(768, 192, 1), _Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, _halved(x)], 1)


class _MixedE(nn.Module):
    """3 × 3 as 1 × 3 beside 3 × 1; at 8². ``largest``: the pool is a maximum, in the last block."""

    def __init__(self, inputs: int, largest: bool):
        super().__init__()
        self.largest = largest
        self.branch1x1 = _Conv(inputs, 320, 1)
        self.branch3x3_1 = _Conv(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 448, 1), _Conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.branch_pool = _Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, 1, 1) if self.largest else _average(x)
        once = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        twice = [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *once, *twice, self.branch_pool(pooled)], 1)


class InceptionV3(nn.Module):
    """uint8 ``[B, 3, H, W]`` to the 2,048 features of ``pool_3`` and the 2,023 of ``mixed_6/conv``, ``[B, 4071]``."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _MixedA(192, 32), _MixedA(256, 64), _MixedA(288, 64)
        self.Mixed_6a = _MixedB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (_MixedC(c) for c in (128, 160, 160, 192))
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = _MixedD(), _MixedE(1280, False), _MixedE(2048, True)
        self.fc = nn.Linear(POOL, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        x = (resize_tf1(pictures.float()) - 128.0) / 128.0
        x = _halved(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        spatial = x[:, :7].movedim(1, 3).flatten(1)  # the first branch stands first; TensorFlow's axes end in channels
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))
        return torch.cat([x.mean((2, 3)), spatial], 1)


class InceptionFeatures:
    """Feature network (``metrics/features.py``) with weights of the user's: 2,048 pooled features, 2,023 spatial ones.

    ``published``: the file is the published one byte for byte; only then a number is called FID.
    """

    name = "inception"

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.sha256, weights, self.published = _weights(path)
        self._network = _built(weights, path).to(self.device)
        self.label = (
            LABEL if self.published else LABEL.replace("inception", f"inception-shaped, sha256 {self.sha256[:12]}")
        )
        whose = "inception-2015-12-05" if self.published else "an Inception v3, NOT known to be the published one"
        self.protocol = (
            f"features: 2,048 of {whose} (weights sha256 {self.sha256[:12]}…), uint8 pictures, bilinear resize of "
            f"TensorFlow 1 to {SIDE}×{SIDE} (not antialiased, not rounded), grey repeated to 3 channels"
        )

    def __call__(self, pictures: Tensor) -> Tensor:
        return self.with_spatial(pictures)[0]

    def with_spatial(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """float32 ``[B, 2048]`` and ``[B, 2023]``, of one pass."""
        found = in_parts(self._network, pictures, self.device)
        return found[:, :POOL].clone(), found[:, POOL:].clone()

    def logits(self, features: Tensor) -> Tensor:
        """Of the 1,008 classes, without their bias as inception scores have it, ``[B, 2048] -> [B, 1008]`` float32."""
        return features.float() @ self._network.fc.weight.T.cpu()


def _weights(path: Path) -> tuple[str, dict[str, Tensor], bool]:
    """SHA-256, tensors, and whether they are the published ones: a pickle is opened only where its bytes are known."""
    if path.suffix == ".safetensors":
        tensors = _uncounted(read_safetensors(path)[0])
        return digest(tensors), tensors, False
    content = read_bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise UserError(f"{path} is not the published file (sha256 {found[:12]}…): {CONVERT}")
    loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return found, _uncounted(loaded), True


def _uncounted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the counts of batches that some files have: no feature depends on them."""
    return {name: one for name, one in tensors.items() if not name.endswith(".num_batches_tracked")}


def _built(weights: dict[str, Tensor], path: Path) -> InceptionV3:
    """The network with exactly these weights, float32; :class:`UserError` names the first that does not fit."""
    with torch.device("meta"):  # no random start: the global generator is left alone
        network = InceptionV3()
    wanted = _uncounted(network.state_dict())
    for name in (*wanted, *weights):
        if name not in weights or name not in wanted:
            raise UserError(
                f"{path} does not hold the weights of FID's Inception: {name} is "
                f"{'missing' if name in wanted else 'not known'}"
            )
        shapes = tuple(weights[name].shape), tuple(wanted[name].shape)
        if shapes[0] != shapes[1] or not weights[name].is_floating_point():
            raise UserError(
                f"{path} does not hold the weights of FID's Inception: {name} is {weights[name].dtype} {shapes[0]}, "
                f"not float32 {shapes[1]}"
            )
    network.load_state_dict({name: one.float() for name, one in weights.items()}, strict=True, assign=True)
    return network.eval().requires_grad_(False)
