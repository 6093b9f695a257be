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

FEW = 32
"""Rows up to which torch's own product is as fast as oneDNN's for the gradient of a weight."""


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


def one_by_one(matrices: Tensor) -> bool:
    """Whether large ``matrices [N, I, K]`` are multiplied faster one after the other by :func:`product`."""
    return onednn_is_faster() and _plain(matrices)


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.mT`` of ``[I, K]`` and ``[J, K]`` by oneDNN, without gradients: ``[I, J]``."""
    return _onednn(left, right)


def _as_rows(x: Tensor) -> Tensor:
    """``[..., K] -> [N, K]`` by as few operators as can be: each takes as long as a small product."""
    if x.dim() == 2:
        return x
    return x.view(-1, x.shape[-1]) if x.is_contiguous() else x.reshape(-1, x.shape[-1])


def _products_of_columns(left: Tensor, right: Tensor) -> Tensor:
    """``leftᵀ @ right`` of ``[N, I]`` and ``[N, J]``: ``[I, J]``. Of few rows either library is as fast, and
    oneDNN, which copies what is transposed, takes twice the operators."""
    if len(left) <= FEW:
        return torch.mm(left.transpose(0, 1), right)
    return _onednn(left.transpose(0, 1), right.transpose(0, 1))


class _Linear(torch.autograd.Function):
    """``y = x Wᵀ + b``; ``∂x = g W``, ``∂W = gᵀ x``, ``∂b = Σ g``: three products, by oneDNN where it is faster."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if x.dim() == 2:
            return _onednn(x, weight, bias)
        return _onednn(_as_rows(x), weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, (to_x, to_weight, to_bias) = _as_rows(gradients[0]), ctx.needs_input_grad
        grad_x = grad_weight = None
        if to_x:
            grad_x = _onednn(rows, weight.transpose(0, 1))
            grad_x = grad_x if x.dim() == 2 else grad_x.view(x.shape)
        if to_weight:
            grad_weight = _products_of_columns(rows, _as_rows(x))
        return grad_x, grad_weight, rows.sum(0) if to_bias else None


class Linear(nn.Linear):
    """A linear map ``[..., in] -> [..., out]`` by the faster library; weights and names are ``nn.Linear``'s."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        self.by_onednn = onednn_is_faster()

    def forward(self, input: Tensor) -> Tensor:
        if self.by_onednn and _plain(input, self.weight, self.bias):
            return _Linear.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return F.linear(input, self.weight, self.bias)
