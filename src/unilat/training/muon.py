"""Muon: the inner matrices of a network move by orthogonal steps (K. Jordan 2024; scaled as in arXiv 2502.16982).

    M ← M + (1 − μ) (G − M),    W ← (1 − η d) W − η · ρ √max(rows, columns) · orthogonal( G + μ (M − G) )

``orthogonal(A)`` has A's singular vectors and singular values near 1, so that no direction of a matrix has to wait for
its gradient to grow. ρ √max(rows, columns) gives each step the root mean square ρ: with ρ = 0.2 one learning rate would
serve Adam's weights too; networks trained for minutes like more (LOG.md). A convolution is the matrix
``[out, in × kernel]``. float32 throughout, all matrices of one shape in one product.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from unilat.nets.products import times_transposed

QUINTICS = (
    (8.0934, -23.6206, 17.4463),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""Odd polynomials a σ + b σ³ + c σ⁵, each the best towards 1 on the range where the last one leaves singular values
that began in [0.01, 1] (Polar Express, arXiv 2505.16932): together they end in 1 ± 0.27."""
RMS = 0.8
"""ρ: root mean square of a step over the learning rate."""
LEAST = 64
"""Smaller side that makes a weight an inner matrix; first, last and embedding layers of narrow signals stay Adam's."""


def is_inner(weight: Tensor) -> bool:
    """Whether ``weight`` is for Muon: two or more axes, and as a matrix ``LEAST`` or more rows and columns."""
    return weight.dim() > 1 and min(weight.shape[0], weight[0].numel()) >= LEAST


def orthogonal(matrices: Tensor) -> Tensor:
    """``U V^T`` up to singular values of 1 ± 0.27, of each ``U S V^T`` in ``[N, rows, columns]``; zero stays zero."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)  # largest singular value at most 1
    for a, b, c in QUINTICS:
        square = times_transposed(x, x)
        polynomial = times_transposed(square, square.mT).mul_(c).add_(square, alpha=b)
        x = times_transposed(polynomial, x.mT).add_(x, alpha=a)
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Muon for ``parameters`` of two or more axes; its state is one ``momentum_buffer`` each."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step with the gradients as they stand."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault((weight.shape[0], weight[0].numel()), []).append(weight)
            for shape, weights in shapes.items():
                self._move(weights, shape, group["lr"], group["momentum"], group["weight_decay"])

    def _move(self, weights: list[Tensor], shape: tuple[int, int], lr: float, momentum: float, decay: float) -> None:
        gradients = torch.stack([weight.grad.reshape(shape) for weight in weights if weight.grad is not None])
        kept = [self.state[weight] for weight in weights]
        for state, weight in zip(kept, weights, strict=True):
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
        before = torch.stack([state["momentum_buffer"].reshape(shape) for state in kept])
        after = before.lerp(gradients, 1 - momentum)
        steps = orthogonal(gradients.lerp(after, momentum)).mul_(lr * RMS * math.sqrt(max(shape)))
        for index, (state, weight) in enumerate(zip(kept, weights, strict=True)):
            state["momentum_buffer"].copy_(after[index].view_as(weight))
            weight.mul_(1 - lr * decay).sub_(steps[index].view_as(weight))
