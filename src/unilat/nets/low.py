"""The weights of a network in low precision, rounded together instead of one by one.

Autocast rounds each weight of a linear layer or convolution by a call of its own, and each gradient on its way back: in
a small network half of the launches. Here a pass rounds them all by a few, to the same numbers.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The layers whose weights autocast rounds; those of norms and embeddings it leaves."""


class _Rounded(torch.autograd.Function):
    """``weights`` in ``dtype``; gradients come back in float32."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_copies(weights, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        full = iter(_copies([one for one in gradients if one is not None], torch.float32))
        return (None, *(None if one is None else next(full) for one in gradients))


def _copies(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    made = [torch.empty(one.shape, dtype=dtype, device=one.device) for one in tensors]
    if made:
        torch._foreach_copy_(made, list(tensors))  # pyright: ignore[reportPrivateImportUsage]
    return made


@contextlib.contextmanager
def rounded(net: Callable[..., Any], dtype: torch.dtype) -> Iterator[None]:
    """``net``, a module or a method of one, with the weights that autocast would round in ``dtype``, while it lasts.

    Not where blocks are compiled, which round as they go, nor where processes have rows of the weights.
    """
    module = net if isinstance(net, nn.Module) else getattr(net, "__self__", None)
    places = _places(module) if isinstance(module, nn.Module) else []
    weights = [owner._parameters[name] for owner, name in places]
    try:
        low = _Rounded.apply(dtype, *weights) if weights else ()
        for (owner, name), weight in zip(places, low, strict=True):
            owner._parameters[name] = weight  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for (owner, name), weight in zip(places, weights, strict=True):
            owner._parameters[name] = weight


def _places(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where the weights are that can be rounded together, each once."""
    parts = list(module.modules())
    if any(part._compiled_call_impl is not None for part in parts):
        return []
    found = {
        id(weight): (part, name, weight)
        for part in parts
        if isinstance(part, ROUNDED)
        for name, weight in part._parameters.items()
        if weight is not None and weight.dtype == torch.float32
    }
    whole = all(type(weight) is nn.Parameter for _, _, weight in found.values())
    return [(part, name) for part, name, _ in found.values()] if whole else []
