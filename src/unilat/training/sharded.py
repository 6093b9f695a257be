"""A model that no process holds alone: of each weight process r of n has the rows from ``r ⌈rows / n⌉`` on (FSDP2).

A block's weights are whole while it computes, those outside of the blocks during the whole forward and backward pass.
The model is changed in place, and is whole and plain again after :meth:`Sharded.release`. What stands beside the
weights, gradients, moments and averages, lies as they do (:class:`Pieces`). Checkpoints are written by torch's own
writer of safetensors (DCP), each process its rows; ``training/checkpoint.py`` seals and reads them.
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_together
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from unilat.maths.seeds import Draws
from unilat.nets.layers import ResidualBlock, TransformerBlock
from unilat.training import checkpoint
from unilat.training.muon import RowMuon
from unilat.training.parallel import World, cuts
from unilat.training.plan import Batch, Losses, Stage
from unilat.types import UserError


class Pieces:
    """This process's rows of named tensors: what :class:`~unilat.training.flat.Flat` is to whole ones."""

    def __init__(self, parts: Mapping[str, Tensor], world: World):
        self.parts, self._world = dict(parts), world

    def some(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` of which there is anything here."""
        return [name for name in names if self.parts[name].numel()]

    def runs(self, names: Sequence[str]) -> list[Tensor]:
        """What there is of ``names``."""
        return [self.parts[name] for name in self.some(names)]

    def norm(self) -> Tensor:
        """The square root of the sum of all squares on all processes, ``[]``."""
        norms = torch._foreach_norm([*self.parts.values()])  # pyright: ignore[reportPrivateImportUsage]
        return self._world.sum(torch.stack(norms).square().sum()).sqrt()

    def scale(self, factor: float | Tensor) -> None:
        """Multiply all by ``factor``, in place."""
        torch._foreach_mul_([*self.parts.values()], factor)  # pyright: ignore[reportPrivateImportUsage]

    def zeros(self, names: Iterable[str]) -> "Pieces":
        """Zeros in the shapes of ``names``."""
        return Pieces({name: torch.zeros_like(self.parts[name]) for name in names}, self._world)


class _Block(nn.Module):
    """Stands in a block's place: what FSDP hangs on it goes with it, and a compiled block stays what it is."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, *inputs: Any) -> Any:
        return self.block(*inputs)


class _Root(nn.Module):
    """Calls whatever calls the model, while the weights outside of the blocks are whole."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Any, *inputs: Any) -> Any:
        return function(*inputs)


class Sharded:
    """The parameters of ``stage.model`` as rows; ``parts[name]`` is this process's, and moves with the model."""

    def __init__(self, stage: Stage, order: Sequence[str], device: torch.device, world: World):
        model = self._model = stage.model
        self._world, self._losses, self._blocks = world, stage.losses, dict[str, nn.Module]()
        self._plain = dict(model.named_parameters())
        first = {id(parameter): name for name, parameter in self._plain.items()}
        self._places = [
            (first[id(parameter)], *_place(model, name))
            for name, parameter in model.named_parameters(remove_duplicate=False)
        ]
        self._hooks = [(hooks, {*hooks}) for part in model.modules() for hooks in _hooks(part)]
        self.shapes = {name: parameter.shape for name, parameter in self._plain.items()}
        self._mesh = init_device_mesh(device.type, (world.size,))
        for name, block in [*model.named_modules()]:
            if isinstance(block, ResidualBlock | TransformerBlock):
                self._blocks[name] = block
                setattr(*_place(model, name), fully_shard(_Block(block), mesh=self._mesh))
        self._root: Any = fully_shard(_Root(model), mesh=self._mesh)
        self._rows: dict[str, Any] = {name: getattr(owner, last) for name, owner, last in self._places}
        for parameter in self._plain.values():
            parameter.data = parameter.data.new_empty(0)
        self.parts: dict[str, Tensor] = {name: rows.detach().to_local() for name, rows in self._rows.items()}
        self.weights = Pieces({name: self.parts[name] for name in order}, world)
        self.gradients = self.weights.zeros(order)
        self._leaves: list[tuple[str, Tensor]] = []

    def part_losses(self, batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """The stage's, after whose backward pass the gradients are the mean over the processes: also of a micro-batch,
        since nobody has room for all of them."""
        return self._root(self._losses, batch, draws)

    def exchanged(self, in_parts: bool) -> Losses:
        """The same."""
        return self.part_losses

    @torch.no_grad()
    def call(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """``function(*inputs)``, which calls the model."""
        try:
            return self._root(function, *inputs)
        finally:
            self._root.reshard()  # no backward pass comes that would

    @torch.no_grad()
    def gradient(self) -> Pieces:
        """The gradients as they stand; of weights without any, zeros."""
        for name in self.gradients.parts:
            found = self._rows[name].grad
            here = torch.zeros_like(self.parts[name]) if found is None else found.to_local()
            self.gradients.parts[name] = here
        for name, leaf in self._leaves:
            leaf.grad = self.gradients.parts[name].view_as(leaf)
        return self.gradients

    def forget_gradients(self) -> None:
        """Free all gradients."""
        for rows in self._rows.values():
            rows.grad = None

    def run(self, names: Sequence[str]) -> list[Tensor]:
        """The weights ``names`` as an optimiser wants them: those of which there is anything here, each by itself."""
        return [self._leaf(name, self.parts[name]) for name in self.weights.some(names)]

    def muon(self, stacks: Sequence[Sequence[str]], decay: float) -> tuple[RowMuon, Pieces]:
        """Muon for the weights named in ``stacks``, and its momenta."""
        names = [name for stack in stacks for name in stack]
        kept = self.weights.zeros(names)
        leaves = [self._leaf(name, self.parts[name].flatten(1)) for name in names]
        muon = RowMuon(leaves, [self.shapes[name][0] for name in names], 0.0, decay, self._world)
        for name, leaf in zip(names, leaves, strict=True):
            muon.state[leaf]["momentum_buffer"] = kept.parts[name].view_as(leaf)
        return muon, kept

    def _leaf(self, name: str, rows: Tensor) -> Tensor:
        leaf = rows.detach().requires_grad_()
        self._leaves.append((name, leaf))
        return leaf

    def whole(self, name: str, part: Tensor) -> Tensor:
        """All rows of what lies as the weight ``name`` does, of which ``part`` is here."""
        rows, *rest = self.shapes[name]
        padded = part.new_zeros(-(-rows // self._world.size), *rest)
        padded[: len(part)] = part.detach()
        return self._world.gather(padded).flatten(0, 1)[:rows]

    def _weight(self, key: str) -> str | None:
        """The weight that ``key`` of a checkpoint lies as; None where every process has it whole."""
        return next((name for name in (key, key.rpartition(".")[0]) if name in self.shapes), None)

    def mine(self, key: str, whole: Tensor) -> Tensor:
        """What is here of ``whole``, which a checkpoint has under ``key``."""
        if self._weight(key) is None:
            return whole
        return whole[slice(*cuts(len(whole), self._world.size)[self._world.rank :][:2])]

    def outline(self, key: str, part: Tensor) -> Tensor:
        """Something of the shape that a checkpoint has of ``part``."""
        name = self._weight(key)
        return part if name is None else part.new_empty(self.shapes[name], device="meta")

    def _laid(self, key: str, part: Tensor) -> Tensor:
        """``part`` as torch's own tools know it."""
        if (name := self._weight(key)) is None:
            return part.detach()
        shape, stride = self.shapes[name], torch.empty(self.shapes[name], device="meta").stride()
        return DTensor.from_local(part.detach(), self._mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)

    def save(
        self,
        folder: Path,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        keep: int,
        warn: checkpoint.Warn,
    ) -> None:
        """Write a checkpoint, each process its rows, and process 0 what seals it."""
        laid = {f"{group}/{key}": self._laid(key, part) for group in tensors for key, part in tensors[group].items()}
        if self._world.rank == 0:
            rows = functools.partial(write_rows, folder, step, laid, self._world)
            checkpoint.save(folder, step, {}, state, keep=keep, warn=warn, rows=rows)
            return
        try:
            write_rows(folder, step, laid, self._world)
        except OSError as error:
            raise UserError(checkpoint.trouble(folder, step, error)) from error

    def release(self) -> None:
        """Give every process the whole model again, without anything of FSDP's."""
        self._root.reshard()
        whole = {name: self.whole(name, part) for name, part in self.parts.items()}
        for name, block in self._blocks.items():
            setattr(*_place(self._model, name), block)
        for name, owner, last in self._places:
            self._plain[name].data = whole[name]
            setattr(owner, last, self._plain[name])
        for hooks, before in self._hooks:
            for number in hooks.keys() - before:
                del hooks[number]


def write_rows(folder: Path, step: int, tensors: Mapping[str, Tensor], world: World) -> dict[str, dict[str, int | str]]:
    """Write ``tensors``, those that lie in rows as :class:`Sharded` lays them, from all processes together, into
    the checkpoint that process 0 has begun. Returns each file's entry of the manifest."""
    sealing = int(world.sum(torch.tensor(os.getpid() if world.rank == 0 else 0)))
    place = checkpoint.temporary(folder, step, sealing)
    try:
        save_together(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(place), save_distributed=True))
    except CheckpointException as error:  # of any process, and no Exception
        for failure, _ in error.failures.values():
            if isinstance(failure, OSError):
                raise failure from error
        raise RuntimeError(f"torch could not write {place}: {error}") from error
    names = [checkpoint.ROWS.format(f"{rank + 1:05}") for rank in range(world.size)]
    mine = checkpoint.entry(place / names[world.rank])
    told = int(mine["bytes"]).to_bytes(8, "big") + bytes.fromhex(str(mine["sha256"]))
    every = [bytes(row.tolist()) for row in world.gather(torch.tensor([*told], dtype=torch.uint8))]
    return {
        name: {"bytes": int.from_bytes(row[:8], "big"), "sha256": row[8:].hex()}
        for name, row in zip(names, every, strict=True)
    }


def _hooks(part: nn.Module) -> list[dict[int, Any]]:
    """All that is called when a module is called, saved or loaded, by kind."""
    return [held for name, held in vars(part).items() if name.endswith("_hooks") and isinstance(held, dict)]


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that has the part ``name``, and what it calls it."""
    above, _, last = name.rpartition(".")
    return model.get_submodule(above), last
