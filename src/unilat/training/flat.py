"""Tensors in one storage: what an optimiser, an average or a norm does to two hundred weights is then one call."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from unilat.training.muon import Muon
from unilat.training.parallel import World, replicas
from unilat.training.plan import Losses, Stage

LINE = 16
"""Each tensor begins at a multiple of so many numbers: where a processor's cache line of float32 begins."""
ROW = 1024
"""The whole is as many numbers as some rows of this length."""


class Flat:
    """Named tensors laid one after the other in ``whole [n]``; the gaps between them are zero, and stay it."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies of ``tensors``, all of one dtype and device, in their order."""
        kinds = {(tensor.dtype, tensor.device) for tensor in tensors.values()}
        if len(kinds) > 1:
            raise ValueError(f"weights that are trained together have one dtype and device, not {kinds}")
        self._places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, tensor in tensors.items():
            self._places[name] = (end, end + -(-tensor.numel() // LINE) * LINE)
            end = self._places[name][1]
        like = next(iter(tensors.values()), torch.zeros(0))
        self.whole = torch.zeros(-(-end // ROW) * ROW, dtype=like.dtype, device=like.device)
        self.parts = {
            name: self.whole[first : first + tensors[name].numel()].view(tensors[name].shape)
            for name, (first, _) in self._places.items()
        }
        for name, part in self.parts.items():
            part.copy_(tensors[name].detach())

    def run(self, names: Sequence[str]) -> Tensor:
        """The numbers of ``names``, which follow each other, with the gaps between them: ``[m]``."""
        return self.whole[self._places[names[0]][0] : self._places[names[-1]][1]]

    def stack(self, names: Sequence[str]) -> Tensor:
        """``names``, which follow each other and have one shape, as matrices ``[N, rows, columns]``."""
        shape, (first, end) = self.parts[names[0]].shape, self._places[names[0]]
        columns = math.prod(shape[1:])
        return self.whole.as_strided((len(names), shape[0], columns), (end - first, columns, 1), first)

    def runs(self, names: Sequence[str]) -> list[Tensor]:
        """:meth:`run`, as the one of its kind."""
        return [self.run(names)]

    def norm(self) -> Tensor:
        """The square root of the sum of all squares, ``[]``; row by row, so that few are added one after the other."""
        return torch.linalg.vector_norm(torch.linalg.vector_norm(self.whole.view(-1, ROW), dim=1))

    def scale(self, factor: float | Tensor) -> None:
        """Multiply all by ``factor``, in place."""
        self.whole.mul_(factor.to(self.whole) if isinstance(factor, Tensor) else factor)

    def zeros(self, names: Iterable[str]) -> "Flat":
        """Zeros in the shapes of ``names``."""
        return Flat({name: torch.zeros_like(self.parts[name]) for name in names})


class Whole:
    """The parameters of ``stage.model``, all of which this process has: the trained ones are views of ``weights`` while
    the run lasts, their gradients of ``gradients``. ``order``: names of the trained ones, as they shall lie."""

    def __init__(self, stage: Stage, order: Sequence[str], device: torch.device, world: World):
        module, self._world = stage.model.to(device), world
        self.parts: dict[str, Tensor] = dict(module.named_parameters())
        self._trained = {name: parameter for name, parameter in self.parts.items() if parameter.requires_grad}
        self.weights = Flat({name: self.parts[name] for name in order})
        self.gradients = self.weights.zeros(order)
        for name, parameter in self._trained.items():
            parameter.data, parameter.grad = self.weights.parts[name], self.gradients.parts[name]
        self.part_losses = stage.losses
        """For all micro-batches but the last, after whose backward pass the gradients are exchanged."""
        self._stage = stage
        self._exchanged: Losses | None = None

    def exchanged(self, in_parts: bool) -> Losses:
        """The stage's losses, after whose backward pass the gradients are the mean over the processes; ``in_parts``:
        the same all the run, whether such a pass may be the last of several."""
        if self._exchanged is None:
            self._exchanged = replicas(self._stage, self._world, in_parts)
        return self._exchanged

    def gradient(self) -> Flat:
        """The gradients as they stand, also those that were laid elsewhere; of weights without any, zeros."""
        laid = {name: (self.gradients.parts[name], one.grad) for name, one in self._trained.items()}
        others = {name: pair for name, pair in laid.items() if pair[0] is not pair[1]}
        if nothing := [mine for mine, grad in others.values() if grad is None]:
            torch._foreach_zero_(nothing)  # pyright: ignore[reportPrivateImportUsage]
        if elsewhere := [(mine, grad) for mine, grad in others.values() if grad is not None]:
            into, grads = zip(*elsewhere, strict=True)
            torch._foreach_copy_(into, grads)  # pyright: ignore[reportPrivateImportUsage]
        for name, (mine, _) in others.items():
            self._trained[name].grad = mine
        return self.gradients

    def forget_gradients(self) -> None:
        """Zero in all gradients."""
        self.gradient().whole.zero_()

    def run(self, names: Sequence[str]) -> list[Tensor]:
        """The weights ``names``, which follow each other, as an optimiser wants them: here as one."""
        return [_leaf(self.weights.run(names), self.gradients.run(names))]

    def muon(self, stacks: Sequence[Sequence[str]], decay: float) -> tuple[Muon, Flat]:
        """Muon for the weights named in ``stacks``, each of one shape, and its momenta."""
        kept = self.weights.zeros(name for names in stacks for name in names)
        leaves = [_leaf(self.weights.stack(names), self.gradients.stack(names)) for names in stacks]
        muon = Muon(leaves, lr=0.0, weight_decay=decay, world=self._world)
        for leaf, names in zip(leaves, stacks, strict=True):
            muon.state[leaf]["momentum_buffer"] = kept.stack(names)
        return muon, kept

    def whole(self, name: str, part: Tensor) -> Tensor:
        """All of what lies as the weight ``name`` does, of which ``part`` is here."""
        return part

    def mine(self, key: str, whole: Tensor) -> Tensor:
        """What is here of ``whole``, which a checkpoint has under ``key``."""
        return whole

    def outline(self, key: str, part: Tensor) -> Tensor:
        """Something of the shape that a checkpoint has of ``part``."""
        return part

    def release(self) -> None:
        """Give every weight memory of its own again, and drop the gradients."""
        for parameter in self._trained.values():
            parameter.data, parameter.grad = parameter.data.clone(), None


def _leaf(weights: Tensor, gradients: Tensor) -> Tensor:
    """A view of some weights as an optimiser wants it, with the same view of their gradients."""
    leaf = weights.detach().requires_grad_()
    leaf.grad = gradients
    return leaf
