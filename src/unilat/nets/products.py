"""float32 matrix products on a CPU, by the faster of the two libraries that torch carries.

torch gives them to MKL, which on a processor that is not Intel's leaves AVX-512 alone; its convolutions go to oneDNN,
which does not: on an AMD EPYC 110 and 250 GFLOP/s for the products of a small ViT. Where that is so, and nowhere else,
the linear layers of our networks and Muon's products go to oneDNN too. Results differ in their last bits.
"""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@functools.cache
def onednn_is_faster() -> bool:
    """Whether this is a processor with AVX-512 that is not Intel's, and this torch has oneDNN's linear map."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    try:
        intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        intel = True  # unknown: as torch does it
    return not intel and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _plain(*tensors: Tensor | None) -> bool:
    """Whether all are float32 on a CPU and meant to stay it."""
    fit = all(one is None or (one.device.type == "cpu" and one.dtype == torch.float32) for one in tensors)
    return fit and not torch.is_autocast_enabled("cpu")


def _onednn(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.compiler.is_compiling():
        return _opaque(left, right, bias)
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


@torch.library.custom_op("unilat::linear", mutates_args=())
def _opaque(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """The same for compiled code, which takes oneDNN's own map for one of constant weights."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


@_opaque.register_fake
def _(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    return left.new_empty(*left.shape[:-1], len(right))


def times_transposed(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.mT`` of ``[N, I, K]`` and ``[N, J, K]``, without gradients: ``[N, I, J]``."""
    if not (onednn_is_faster() and _plain(left, right)):
        return left @ right.mT
    return torch.stack([_onednn(one, other) for one, other in zip(left, right, strict=True)])


class _Linear(torch.autograd.Function):
    """``y = x Wᵀ + b``; ``∂x = g W``, ``∂W = gᵀ x``, ``∂b = Σ g``: three products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].reshape(-1, len(weight))
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            _onednn(rows, weight.mT).view_as(x) if to_x else None,
            _onednn(rows.mT, x.reshape(len(rows), -1).mT) if to_weight else None,
            rows.sum(0) if to_bias else None,
        )


class Linear(nn.Linear):
    """A linear map ``[..., in] -> [..., out]`` by the faster library; weights and names are ``nn.Linear``'s."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        self.by_onednn = onednn_is_faster()

    def forward(self, input: Tensor) -> Tensor:
        if self.by_onednn and _plain(input, self.weight, self.bias):
            return _Linear.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return F.linear(input, self.weight, self.bias)
