"""Picture by picture: PSNR in decibels and the structural similarity of Wang et al. (2004). uint8 in, ``[B]`` out.

Both compare a picture with the one it should have been. Neither knows what a picture is of; the distances do.
"""

import math

import torch
from torch import Tensor

from unilat.results import Number
from unilat.signals.kind import Image
from unilat.types import UserError

PSNR_CAP = 10.0 * math.log10(255.0**2 * 12.0)
"""58.92 dB: the PSNR of 8-bit rounding alone, whose error is uniform on ±½ and so has the variance 1/12."""

PSNR_PROTOCOL = (
    f"per picture over all channels of uint8 pictures, peak 255, capped at {PSNR_CAP:.2f} dB; mean of decibels"
)
SSIM_PROTOCOL = (
    "Wang et al. 2004 per channel of uint8 pictures, Gaussian window of 11×11 (σ 1.5; the largest odd size that fits "
    "smaller pictures), whole windows only, K 0.01 and 0.03, no shrinking beforehand; mean over windows and channels"
)


def average(values: Tensor, unit: str, protocol: str) -> Number:
    """Mean of ``[N]`` numbers, one a picture, with its standard error ``std / √N`` where there are two or more."""
    values = values.double()
    stderr = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
    return Number(value=float(values.mean()), stderr=stderr, n=len(values), unit=unit, protocol=protocol)


def _checked(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64, refused unless they are uint8 and equal in shape."""
    if first.dtype != torch.uint8 or second.dtype != torch.uint8:
        raise UserError(f"pictures to compare must be uint8, not {first.dtype} and {second.dtype}")
    if first.shape != second.shape:
        raise UserError(f"pictures to compare differ in shape: {tuple(first.shape)} and {tuple(second.shape)}")
    return first.double(), second.double()


def psnr(a_u8: Tensor, b_u8: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, ``[B]`` float32, of uint8 ``[B, C, ...]`` with any number of axes.

    ``10 log10(255² / max(MSE, 1/12))``, the MSE over all channels and places of one picture. Identical pictures have no
    error and would be infinite, which spoils every mean; below 1/12 the error is smaller than rounding to bytes makes
    it, so the value is capped there, at ``PSNR_CAP`` = 58.92 dB.
    """
    first, second = _checked(a_u8, b_u8)
    error = (first - second).square().flatten(1).mean(1)
    return (10.0 * torch.log10(255.0**2 / error.clamp(min=1.0 / 12.0))).float()


def _blur(size: int, sigma: float = 1.5, widest: int = 11) -> Tensor:
    """Gaussian window as a banded matrix ``[size - width + 1, size]`` float64: row i weighs places i … i + width - 1.

    ``width`` is ``widest``, or the largest odd number that fits into ``size``; every row sums to 1.
    """
    width = min(widest, size if size % 2 else size - 1)
    place = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    window = torch.exp(-0.5 * (place / sigma).square())
    rows = size - width + 1
    banded = torch.zeros(rows, size, dtype=torch.float64)
    index = torch.arange(rows)[:, None] + torch.arange(width)
    return banded.scatter(1, index, (window / window.sum()).expand(rows, width))


def ssim(a_u8: Tensor, b_u8: Tensor) -> Tensor:
    """Structural similarity, at most 1 (equal pictures), ``[B]`` float32, of uint8 ``[B, C, H, W]``.

    ``(2 μa μb + C1)(2 σab + C2) / ((μa² + μb² + C1)(σa² + σb² + C2))`` at every place where the whole 11 × 11 Gaussian
    window (σ = 1.5) fits, ``C1 = (0.01·255)²``, ``C2 = (0.03·255)²``, then the mean (Wang, Bovik, Sheikh, Simoncelli
    2004, eq. 13). Channels are taken one by one and averaged. A picture narrower than 11 is seen through the largest
    odd window that fits (8×8 through 7×7; 1×1 through itself, where only the brightness term is left). The authors'
    script shrinks pictures above 256 first; here nothing is shrunk.
    """
    if a_u8.ndim != 4 or 0 in a_u8.shape[2:]:
        raise UserError(f"SSIM is for pictures [B, C, H, W], not for shape {tuple(a_u8.shape)}")
    first, second = _checked(a_u8, b_u8)
    down, across = _blur(a_u8.shape[2]).to(a_u8.device), _blur(a_u8.shape[3]).to(a_u8.device)

    def mean(values: Tensor) -> Tensor:
        return down @ values @ across.T

    mu_a, mu_b = mean(first), mean(second)
    variance_a, variance_b = mean(first * first) - mu_a * mu_a, mean(second * second) - mu_b * mu_b
    covariance = mean(first * second) - mu_a * mu_b
    c_1, c_2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    brightness = (2.0 * mu_a * mu_b + c_1) / (mu_a * mu_a + mu_b * mu_b + c_1)
    structure = (2.0 * covariance + c_2) / (variance_a + variance_b + c_2)
    return (brightness * structure).flatten(1).mean(1).float()


def qualities(kind: Image, originals: Tensor, made: Tensor) -> dict[str, Number]:
    """The measures that a kind of signal is judged by, by their names, averaged over the pairs."""
    known = {"psnr": (psnr, "dB", PSNR_PROTOCOL), "ssim": (ssim, "", SSIM_PROTOCOL)}
    measures = {name: known[name] for name in kind.quality}
    return {name: average(of(originals, made), unit, how) for name, (of, unit, how) in measures.items()}
