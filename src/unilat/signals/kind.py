"""What a kind of signal is: its shape, its unit, its range, how good a copy of it is, how it is written.

All that differs between a picture, a sound and a clip stands in one class a kind; nothing else asks which it is.
``Image`` is the one kind so far; a second one has the same fields and methods.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeGuard

import torch
from torch import Tensor

from unilat.files import whole
from unilat.types import UserError

SOFTWARE = "unilat"
"""What the PNG files of commands say that they were written with, so that they are known as such."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """Pictures of ``height`` × ``width`` pixels in ``channels`` channels: 1 is grey, 3 is RGB."""

    height: int
    width: int
    channels: int

    name: ClassVar[str] = "image"
    unit: ClassVar[str] = "pixel"
    """What bits are counted per: a pixel, whatever its channels."""
    dtype: ClassVar[torch.dtype] = torch.uint8
    """Of the rows of a source."""
    quality: ClassVar[tuple[str, ...]] = ("psnr", "ssim")
    """The measures of a reconstruction beside its original, by their names in ``metrics.quality``."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or self.channels not in (1, 3):
            raise ValueError(f"an image is H x W of 1 or 3 channels, not {self.height} x {self.width}, {self.channels}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one row: ``(C, H, W)``."""
        return (self.channels, self.height, self.width)

    @property
    def units(self) -> int:
        """Pixels of one picture, H · W: bits per pixel = nats / (ln 2 · units)."""
        return self.height * self.width

    def to_unit(self, rows: Tensor) -> Tensor:
        """Rows uint8 ``[B, C, H, W]`` -> the networks' range, float32 in [-1, 1], same shape."""
        return to_unit(rows)

    def from_unit(self, x: Tensor) -> Tensor:
        """The networks' range -> rows uint8, rounded and clamped, same shape; the inverse of :meth:`to_unit`."""
        return to_bytes(x)

    @staticmethod
    def are_rows(value: object) -> TypeGuard[Tensor]:
        """Whether this is what a source or a run has as pictures: uint8 ``[N, 1 or 3, H, W]`` that is not empty."""
        return (
            isinstance(value, Tensor)
            and value.dtype == Image.dtype
            and value.ndim == 4
            and value.shape[1] in (1, 3)
            and 0 not in value.shape
        )

    @staticmethod
    def png(image_u8: Tensor, software: str = "") -> bytes:
        """One picture uint8 ``[C, H, W]`` with 1 (grey), 3 (RGB) or 4 (RGBA) channels -> the bytes of a PNG file.

        ``software``: what the file says that it was written with.
        """
        from PIL import Image as Pillow
        from PIL.PngImagePlugin import PngInfo

        if image_u8.dtype != torch.uint8 or image_u8.ndim != 3 or image_u8.shape[0] not in (1, 3, 4):
            raise ValueError(f"a PNG is made of uint8 [1, 3 or 4, H, W], not {image_u8.dtype} {list(image_u8.shape)}")
        pixels = image_u8.detach().cpu().permute(1, 2, 0).contiguous().numpy()
        out, said = io.BytesIO(), PngInfo()
        if software:
            said.add_text("Software", software)
        picture = Pillow.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        picture.save(out, format="PNG", optimize=True, pnginfo=said)
        return out.getvalue()

    @staticmethod
    def save(image_u8: Tensor, path: Path) -> None:
        """Write uint8 ``[1 or 3, H, W]`` as a PNG of ours, whole or not at all; :class:`UserError` where it cannot."""
        try:
            with whole(path) as part:
                part.write_bytes(Image.png(image_u8, software=SOFTWARE))
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def kind_of(shape: Sequence[int]) -> Image:
    """The kind of signal that rows of ``shape``, ``[N, C, H, W]``, are of."""
    _, channels, height, width = (int(number) for number in shape)
    return Image(height=height, width=width, channels=channels)


def to_unit(images_u8: Tensor) -> Tensor:
    """Bytes -> the networks' range: ``x = bytes / 127.5 - 1``, float32 in [-1, 1], same shape."""
    return images_u8.to(torch.float32) / 127.5 - 1.0


def to_bytes(x: Tensor) -> Tensor:
    """The networks' range -> bytes: ``round((x + 1) 127.5)`` clamped to 0..255. Inverse of :func:`to_unit` on bytes."""
    return ((x.to(torch.float32) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
