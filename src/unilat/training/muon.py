"""Muon: the inner matrices of a network move by orthogonal steps (K. Jordan 2024; scaled as in arXiv 2502.16982).

    M ← M + (1 − μ) (G − M),    W ← (1 − η d) W − η · ρ √max(rows, columns) · orthogonal( G + μ (M − G) )

``orthogonal(A)`` has A's singular vectors and singular values near 1, so that no direction of a matrix has to wait for
its gradient to grow. ρ √max(rows, columns) gives each step the root mean square ρ: with ρ = 0.2 one learning rate would
serve Adam's weights too; networks trained for minutes like more (LOG.md). A convolution is the matrix
``[out, in × kernel]``. float32 throughout, all matrices of one shape in one product. Of several processes each makes
the orthogonal steps of its share of the matrices, and all take the steps of all.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from unilat.nets.inner import LEAST, flops
from unilat.nets.products import one_by_one, product
from unilat.training.parallel import ALONE, World, cuts

QUINTICS = (
    (8.0934, -23.6206, 17.4463),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""Odd polynomials a σ + b σ³ + c σ⁵, each the best towards 1 on the range where the last one leaves singular values
that began in [0.01, 1] (Polar Express, arXiv 2505.16932): together they end in 1 ± 0.27."""
RMS = 0.8
"""ρ: root mean square of a step over the learning rate."""
MOMENTUM = 0.95
"""μ."""
SMALL = 2**14
"""Numbers of a matrix up to which a product of all of a stack is as fast as one by one, and many calls less."""


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


def shares(stacks: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Which matrices of ``stacks``, each ``[N, rows, columns]``, are whose: process r has those from ``bounds[r]`` up
    to ``bounds[r + 1]`` of each stack.

    The costliest first, each to the process that has least to do so far.
    """
    load, counts = [0.0] * size, [[0] * size for _ in stacks]
    for index in sorted(range(len(stacks)), key=lambda index: -flops(*stacks[index][1:])):
        for _ in range(stacks[index][0]):
            least = min(range(size), key=load.__getitem__)
            counts[index][least] += 1
            load[least] += flops(*stacks[index][1:])
    return [[0, *accumulate(each)] for each in counts]


class Muon(torch.optim.Optimizer):
    """Muon for ``stacks``, each ``[N, rows, columns]``; its state is one ``momentum_buffer`` each."""

    def __init__(
        self,
        stacks: Iterable[Tensor],
        lr: float,
        momentum: float = MOMENTUM,
        weight_decay: float = 0.0,
        world: World = ALONE,
    ):
        super().__init__(stacks, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._world = world
        self._bounds = shares([stack.shape for stack in self.param_groups[0]["params"]], world.size)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step with the gradients as they stand."""
        group = self.param_groups[0]
        stacks, lr, rank = group["params"], group["lr"], self._world.rank
        mine = [slice(*bounds[rank : rank + 2]) for bounds in self._bounds]
        own = (self._direction(stack, some, group["momentum"]) for stack, some in zip(stacks, mine, strict=True))
        for stack, steps in zip(stacks, own if self._world.size == 1 else self._exchanged([*own]), strict=True):
            if group["weight_decay"]:
                stack.mul_(1 - lr * group["weight_decay"])
            rate = lr * RMS * math.sqrt(max(stack.shape[1:]))
            if isinstance(rate, Tensor):  # a captured step reads it anew
                stack.addcmul_(steps, rate.to(stack), value=-1)
            else:
                stack.sub_(steps, alpha=rate)

    def _direction(self, stack: Tensor, mine: slice, momentum: float) -> Tensor:
        """The orthogonal steps of this process's matrices of a stack; the momentum of all of them moves."""
        gradients, kept = stack.grad, self.state[stack]
        assert gradients is not None
        if not kept:
            kept["momentum_buffer"] = torch.zeros_like(stack)
        after = kept["momentum_buffer"].lerp_(gradients, 1 - momentum)
        ahead = gradients[mine].lerp(after[mine], momentum)
        return orthogonal(ahead) if len(ahead) else ahead

    def _exchanged(self, own: list[Tensor]) -> Iterator[Tensor]:
        """Of each stack the steps of all matrices, given those of this process's."""
        stacks = self.param_groups[0]["params"]
        counts = [[b - a for a, b in pairwise(bounds)] for bounds in self._bounds]
        lengths = [
            [n * one[0].numel() for n, one in zip(each, stacks, strict=True)] for each in zip(*counts, strict=True)
        ]
        flat, longest = torch.cat([steps.flatten() for steps in own]), max(map(sum, lengths))
        every = self._world.gather(F.pad(flat, (0, longest - len(flat))))
        parts = [row[: sum(each)].split(each) for row, each in zip(every, lengths, strict=True)]
        for stack, pieces in zip(stacks, zip(*parts, strict=True), strict=True):
            yield torch.cat(pieces).view(stack.shape)


class RowMuon(torch.optim.Optimizer):
    """Muon for ``matrices`` of which each process has some rows (``training/sharded.py``), of ``rows`` in all.

    A process gets the rows of its share of the matrices from the others, and gives each its rows of their steps.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        rows: Sequence[int],
        lr: float,
        weight_decay: float,
        world: World,
        momentum: float = MOMENTUM,
    ):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._world, mine = world, self.param_groups[0]["params"]
        self._cuts = [cuts(count, world.size) for count in rows]
        bounds = shares([(1, count, one.shape[1]) for count, one in zip(rows, mine, strict=True)], world.size)
        self._whose = [[i for i, b in enumerate(bounds) if b[r] < b[r + 1]] for r in range(world.size)]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step with the gradients as they stand."""
        group = self.param_groups[0]
        matrices, lr = group["params"], group["lr"]
        gradients, kept = [one.grad for one in matrices], [self.state[one]["momentum_buffer"] for one in matrices]
        torch._foreach_lerp_(kept, gradients, 1 - group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
        ahead = torch._foreach_lerp(gradients, kept, group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
        steps = self._steps([*ahead])
        torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(matrices, steps, alpha=-lr)  # pyright: ignore[reportPrivateImportUsage]

    def _steps(self, rows: list[Tensor]) -> list[Tensor]:
        """The own rows of each matrix's step at the learning rate 1, given its own rows."""
        world, own = self._world, self._whose[self._world.rank]
        given = [[(self._cuts[i][r + 1] - self._cuts[i][r]) * rows[i].shape[1] for i in own] for r in range(world.size)]
        got = world.swap(
            [torch.cat([rows[0].new_empty(0), *(rows[i].flatten() for i in whose)]) for whose in self._whose],
            [sum(each) for each in given],
        )
        parts = zip(*(one.split(each) for one, each in zip(got, given, strict=True)), strict=True)
        whole = {i: torch.cat(each).view(-1, rows[i].shape[1]) for i, each in zip(own, parts, strict=True)}
        for shape in {one.shape for one in whole.values()}:
            same = [i for i in own if whole[i].shape == shape]
            made = orthogonal(torch.stack([whole[i] for i in same])).mul_(RMS * math.sqrt(max(shape)))
            whole |= dict(zip(same, made, strict=True))
        returned = [
            torch.cat([rows[0].new_empty(0), *(whole[i][slice(*self._cuts[i][r : r + 2])].flatten() for i in own)])
            for r in range(world.size)
        ]
        lengths = [[rows[i].numel() for i in whose] for whose in self._whose]
        back = world.swap(returned, [sum(each) for each in lengths])
        steps = dict[int, Tensor]()
        for whose, one, each in zip(self._whose, back, lengths, strict=True):
            steps |= {i: part.view_as(rows[i]) for i, part in zip(whose, one.split(each), strict=True)}
        return [steps[i] for i in range(len(rows))]
