"""Autoencoders that diffusers' ``save_pretrained`` wrote, as an audit sees them; ``nets/pretrained.py`` reads them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unilat.interop.model import Declared, Encoded
from unilat.nets.foreign import CLASSES, UNFIT, encoded, one_line
from unilat.nets.pretrained import WEIGHTS, Pretrained, is_folder, read
from unilat.types import UserError

__all__ = ["CLASSES", "WEIGHTS", "DiffusersModel", "is_folder", "load"]

DECLARED = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


class DiffusersModel:
    """One of the three classes with its weights, frozen and in float32."""

    def __init__(self, found: Pretrained):
        self.module, self.name, self.sha256, self.kind = found.module, str(found.folder), found.sha256, found.kind
        known = {key: _number_or_list(found.values.get(key), key, self.name) for key in DECLARED}
        self.declared: Declared = {key: value for key, value in known.items() if value is not None}
        self.channels, self.factor = found.config.channels, found.config.factor

    def check_size(self, height: int, width: int) -> None:
        """Refuse pictures that the encoder's strides do not divide; raises :class:`UserError`."""
        if height % self.factor or width % self.factor:
            fits = max(1, round(height / self.factor)) * self.factor
            raise UserError(
                f"{self.name} shrinks pictures {self.factor} times and {height} × {width} does not fit: `size` {fits}"
            )

    @torch.no_grad()
    def encode(self, x: Tensor) -> Encoded:
        """The posterior's mode and log-variance (AutoencoderKL), or the latents."""
        self.check_size(*x.shape[2:])
        try:
            return Encoded(*encoded(self.module, self.kind, x))
        except UNFIT as error:
            raise UserError(f"{self.name} cannot encode pictures of {list(x.shape[1:])} ({one_line(error)})") from None

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor | None:
        """Pictures in [-1, 1], not clipped."""
        return self.module.decode(z).sample.float()


def load(folder: Path, device: torch.device | str = "cpu") -> DiffusersModel:
    """The model of a folder; raises :class:`UserError` for what is no whole model of the three classes."""
    found = read(folder)
    found.module.to(device)
    return DiffusersModel(found)


def _number_or_list(value: Any, key: str, name: str) -> float | list[float] | None:
    """A finite number or a list of them, as the configuration may state it."""
    numbers = value if isinstance(value, list | tuple) else [value]
    if value is None:
        return None
    for one in numbers:
        if isinstance(one, bool) or not isinstance(one, int | float) or not abs(one) < 1e30:
            raise UserError(f"{name}/config.json: {key} must be a number or a list of numbers, not {str(value)[:60]}")
    return [float(one) for one in numbers] if isinstance(value, list | tuple) else float(value)
