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

from unilat.nets.products import one_by_one, product

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

SMALL = 2**14
"""Numbers of a matrix up to which a product of all of a stack is as fast as one by one, and many calls less."""


def is_inner(weight: Tensor) -> bool:
    """Whether ``weight`` is for Muon: two or more axes, and as a matrix ``LEAST`` or more rows and columns."""
    return weight.dim() > 1 and min(weight.shape[0], weight[0].numel()) >= LEAST


def orthogonal(matrices: Tensor) -> Tensor:
    """``U V^T`` up to singular values of 1 ± 0.27, of each ``U S V^T`` in ``[N, rows, columns]``; zero stays zero."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.transpose(1, 2)
    norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    laid = None if wide else x.new_empty(x.shape)  # a quotient of what is transposed would be transposed
    x = torch.div(x, norms.clamp_min(1e-30), out=laid)  # largest singular value at most 1
    large = x.shape[1] > LEAST and x.shape[1] * x.shape[2] > SMALL
    x = _each(x) if (large or len(x) == 1) and one_by_one(x) else _together(x)
    return x if wide else x.transpose(1, 2)


def _together(x: Tensor) -> Tensor:
    """The quintics of all of ``[N, rows, columns]`` in three products each."""
    for a, b, c in QUINTICS:
        square = torch.bmm(x, x.transpose(1, 2))
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _each(x: Tensor) -> Tensor:
    """The same matrix by matrix. They are taken up to a factor, ``x = k y``, so that each sum is one call:

    a x + (b S + c S²) x = k' lerp(y, lerp(G, G², c k⁴ / s) y, s / t),  S = x xᵀ, G = y yᵀ, s = b k² + c k⁴, t = a + s,
    and k' = k t.
    """
    matrices, scale = x.unbind(), 1.0
    for a, b, c in QUINTICS:
        fourth = c * scale**4
        both = b * scale**2 + fourth
        moved = []
        for one in matrices:
            square = product(one, one)
            inner = torch.lerp(square, product(square, square), fourth / both)
            moved.append(torch.lerp(one, product(inner, one.transpose(0, 1)), both / (a + both)))
        matrices, scale = moved, scale * (a + both)
    return torch.cat(list(matrices)).mul_(scale).view(x.shape)


class Muon(torch.optim.Optimizer):
    """Muon for ``stacks``, each ``[N, rows, columns]``; its state is one ``momentum_buffer`` each."""

    def __init__(self, stacks: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(stacks, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step with the gradients as they stand."""
        for group in self.param_groups:
            for stack in group["params"]:
                self._move(stack, group["lr"], group["momentum"], group["weight_decay"])

    def _move(self, stack: Tensor, lr: float | Tensor, momentum: float, decay: float) -> None:
        gradients, kept = stack.grad, self.state[stack]
        assert gradients is not None
        if not kept:
            kept["momentum_buffer"] = torch.zeros_like(stack)
        after = kept["momentum_buffer"].lerp_(gradients, 1 - momentum)
        steps = orthogonal(gradients.lerp(after, momentum))
        if decay:
            stack.mul_(1 - lr * decay)
        rate = lr * RMS * math.sqrt(max(stack.shape[1:]))
        if isinstance(rate, Tensor):  # a captured step reads it anew
            stack.addcmul_(steps, rate.to(stack), value=-1)
        else:
            stack.sub_(steps, alpha=rate)
