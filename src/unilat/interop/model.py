"""Somebody else's autoencoder as the library sees it: the one contract that an audit needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from unilat.types import UserError

Declared = Mapping[str, float | list[float]]
"""``scaling_factor``, ``shift_factor``, ``latents_mean``, ``latents_std``, as far as a configuration states them."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder says about a batch of pictures."""

    z: Tensor
    """Latents ``[B, C, *grid]``, the model's own scale; of a model with a posterior its mode."""
    logvar: Tensor | None = None
    """Log-variance of the posterior, same shape, where there is one."""


class ForeignModel(Protocol):
    """A model with latents. Pictures are float32 ``[B, C, H, W]`` in [-1, 1]."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    @property
    def channels(self) -> int | None:
        """Picture channels that it takes, or None where that is not known."""
        ...

    @property
    def declared(self) -> Declared:
        """Scale and shift of its latents."""
        ...

    @property
    def sha256(self) -> str | None:
        """Of its weights, or None where they are not known."""
        ...

    def encode(self, x: Tensor) -> Encoded:
        """Latents of pictures."""
        ...

    def decode(self, z: Tensor) -> Tensor | None:
        """Pictures of latents at the model's own scale, or None where there is no decoder."""
        ...


@dataclass(frozen=True, eq=False)
class CallableModel:
    """A Python function ``encode(x) -> z`` or ``-> (mean, logvar)``, and ``decode(z) -> x`` where there is one."""

    function: Callable[[Tensor], Any]
    decoder: Callable[[Tensor], Tensor] | None = None
    name: str = "a function"
    channels: int | None = None
    sha256: str | None = None
    declared: Declared = field(default_factory=dict)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Encoded:
        """What the function returns, checked."""
        found = self.function(x)
        if isinstance(found, tuple) and len(found) == 2:
            return _checked(found[0], found[1], len(x), self.name)
        return _checked(found, None, len(x), self.name)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor | None:
        """What the decoder returns, or None without one."""
        return None if self.decoder is None else self.decoder(z)


def _checked(z: Any, logvar: Any, count: int, name: str) -> Encoded:
    """Refuse what is no batch of latents."""
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.ndim < 2 or len(z) != count or 0 in z.shape:
        shown = f"{z.dtype} {list(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise UserError(f"{name} must return float latents [{count}, C, ...] for {count} pictures, not {shown}")
    if logvar is not None and (not isinstance(logvar, Tensor) or logvar.shape != z.shape):
        raise UserError(f"{name} must return (mean, logvar) of one shape")
    return Encoded(z.detach().float(), None if logvar is None else logvar.detach().float())
