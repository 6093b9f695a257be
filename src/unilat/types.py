"""Axes, units and the one noise convention of the library.

Axes (shape suffixes of variable names)
    B batch, C channels, T time or samples of a signal, H height, W width, L tokens, D features of a token
    x  pictures and signals, float32 in [-1, 1]: ``[B, C, T]``, ``[B, C, H, W]`` or ``[B, C, T, H, W]``
    z  latents, same axes on the coarser grid
    On disk and in memory pictures are uint8 ``[N, C, H, W]``; ``x = bytes / 127.5 - 1``.
    A size is ``(height, width)``, in this order everywhere: in messages, in files and on the command line.

Noise
    ``lambda_t`` is the log signal-to-noise ratio, ``[B]``, large = clean. Variance preserving:
    ``alpha² = sigmoid(lambda)``, ``sigma² = sigmoid(-lambda)``, ``x_lambda = alpha x + sigma eps``.
    A network is reached only as a denoiser ``x_hat = denoise(x_t, logsnr, cond)``.

Units
    Losses and rates are in nats per example, ``[B]``, sums over dimensions and never means.
    bits per pixel = nats / (ln 2 · H · W): pixels, not channels.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from torch import Tensor

Cond = TypeVar("Cond")
"""What a denoiser is conditioned on, passed on unread by samplers and guidance: a ``nets.condition.Condition`` for
latents, the latent itself for the decoder, None for nothing."""
Denoiser = Callable[[Tensor, Tensor, Cond], Tensor]
"""``(x_t [B, ...], logsnr [B], cond) -> x_hat [B, ...]``: the expected clean signal."""


class UserError(Exception):
    """A mistake of the user's or of their data. The text is one line: what is wrong, and the way out."""


class FieldError(UserError):
    """A field of a configuration that cannot be what it is, named as Python has it: ``stage1.samples``.

    The command line tells the option in its place, ``--stage1.samples`` (``cli/naming.py``).
    """


def check_fields(
    config: object,
    name: str,
    *,
    least: Mapping[str, int] | None = None,
    positive: Sequence[str] = (),
    shares: Sequence[str] = (),
    finite: Sequence[str] = (),
) -> None:
    """Numbers of a dataclass that stands under ``name``: each count's least, what is above 0, in 0..1, or no infinity.

    What is None is left out. Raises :class:`FieldError` that names the first field.
    """
    rules: list[tuple[str, Callable[[float], bool], str]] = [
        *((field, lambda value, low=low: value >= low, f"{low} or more") for field, low in (least or {}).items()),
        *((field, lambda value: 0 < value < math.inf, "a positive number") for field in positive),
        *((field, lambda value: 0 <= value <= 1, "") for field in shares),
        *((field, math.isfinite, "a number") for field in finite),
    ]
    for field, holds, what in rules:
        value = getattr(config, field)
        if value is not None and not holds(value):
            must = f"must be {what}" if what else "must lie between 0 and 1"
            raise FieldError(f"{name}.{field} {must}, not {value}")


Size = tuple[int, int]
"""``(height, width)`` of a picture in pixels."""
Fit = Literal["crop", "pad", "random-crop"]
"""What is done to pictures of another shape: cut out the centre, fit and pad, or cut out another part each epoch."""


def as_size(value: int | str | Sequence[int]) -> Size:
    """``64`` and ``"64"`` are a square, ``(96, 128)`` and ``"96x128"`` height × width; raises :class:`UserError`."""
    if isinstance(value, str):
        sides = [int(side) for side in value.split("x")] if re.fullmatch(r"\d{1,9}(x\d{1,9})?", value) else []
    else:
        sides = list(value) if isinstance(value, Sequence) else [value]
    if len(sides) not in (1, 2) or not all(type(side) is int for side in sides):
        raise UserError(f"a size is 64, or 96x128 for height x width, not {value!r}")
    return sides[0], sides[-1]


def spelled(size: Size) -> str:
    """A size as :func:`as_size` reads it: ``64``, ``96x128``."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
