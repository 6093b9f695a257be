"""Everything that moves during a fit, to a checkpoint and back."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unilat.nets.inner import is_inner
from unilat.training import checkpoint
from unilat.training.ema import EMA
from unilat.training.fast import told
from unilat.training.flat import Flat, Whole
from unilat.training.guard import Guard
from unilat.training.longer import lengthened
from unilat.training.parallel import ALONE, World
from unilat.training.plan import Schedule, Stage
from unilat.types import UserError

if TYPE_CHECKING:
    from unilat.training.sharded import Pieces, Sharded

_FREE = ("log_every", "save_every", "save_seconds", "keep", "may_grow")
Later = Callable[[Callable[[], object]], None]
"""Does what it is given beside what follows."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What changes the last bits of a run without being anybody's setting."""

    torch: str
    """Its version."""
    threads: int
    processes: int
    device: str
    """``cpu`` or ``cuda``."""
    networks: str
    """How they are computed (``training/fast.py``)."""


@dataclass
class State:
    """Weights, optimiser, average, stage and step. What is here between two steps is all there is."""

    stage: Stage
    schedule: Schedule
    seed: int
    device: torch.device
    world: World = ALONE
    shard: bool = False
    """Whether several processes have one copy of all that follows between them (``training/sharded.py``)."""
    noise: str = "cpu"
    """Device on which noise is drawn."""
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time in the loop, over all parts of the run."""
    saved: int = -1
    """Step of the newest checkpoint on disk."""
    guard: Guard = field(default_factory=Guard)
    """What refuses steps."""
    model: dict[str, Tensor] = field(init=False)
    """Parameters and persistent buffers, each once (tied ones under their first name)."""
    trained: list[Tensor] = field(init=False)
    names: list[str] = field(init=False)
    laid: "Whole | Sharded" = field(init=False)
    """Where the parameters and their gradients lie while the run lasts."""
    ema: EMA = field(init=False)
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    moments: "dict[str, Flat | Pieces]" = field(init=False)
    """What the optimisers keep of each weight, by kind."""

    def __post_init__(self) -> None:
        module = self.stage.model.train()
        kept = module.state_dict().keys()
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError(f"{self.stage.name}: the model has no parameters to train")
        self.names, self.trained = list(trained), list(trained.values())
        decaying, others, stacks = _groups(trained, self.schedule.optimizer)
        order = [*decaying, *others, *(name for names in stacks for name in names)]
        if self.shard and self.world.size > 1:
            from unilat.training.sharded import Sharded  # takes a second to import

            self.laid = Sharded(self.stage, order, self.device, self.world)
        else:
            self.laid = Whole(self.stage, order, self.device, self.world)
        self.model = {name: t for name, t in (*self.laid.parts.items(), *module.named_buffers()) if name in kept}
        flat = self.laid.weights if isinstance(self.laid, Whole) else None
        self.ema = EMA(self.model, self.schedule.ema_halflife, flat)
        self._make_optimizers(decaying, others, stacks)

    @property
    def weights(self) -> "Flat | Pieces":
        """The trained parameters, which are views of it while the run lasts."""
        return self.laid.weights

    @property
    def gradients(self) -> "Flat | Pieces":
        """As they stood when they were last asked for."""
        return self.laid.gradients

    def _make_optimizers(self, decaying: list[str], others: list[str], stacks: list[list[str]]) -> None:
        """AdamW for the weights that decay and those that do not, Muon for stacks of matrices; none for nothing."""
        plan = self.schedule
        self.optimizers, self.moments = [], {}
        if decaying or others:
            first, second = (self.weights.zeros([*decaying, *others]) for _ in range(2))
            self.moments |= {"exp_avg": first, "exp_avg_sq": second}
            parts = [(names, decay) for names, decay in ((decaying, plan.weight_decay), (others, 0.0)) if names]
            groups = [{"params": self.laid.run(names), "weight_decay": decay} for names, decay in parts]
            on_gpu = self.device.type == "cuda"
            settings = {"betas": plan.betas, "eps": plan.epsilon, "fused": True, "capturable": on_gpu}
            adam = torch.optim.AdamW(groups, lr=0.0, **settings)
            for group, (names, _) in zip(groups, parts, strict=True):
                for leaf, one, two in zip(group["params"], first.runs(names), second.runs(names), strict=True):
                    count = torch.zeros((), device=self.device)
                    adam.state[leaf] = {"step": count, "exp_avg": one, "exp_avg_sq": two}
            self.optimizers.append(adam)
        if stacks:
            muon, self.moments["momentum_buffer"] = self.laid.muon(stacks, plan.weight_decay)
            self.optimizers.append(muon)

    @property
    def samples(self) -> int:
        """Samples seen."""
        return self.step * self.schedule.batch

    def gradient(self) -> "Flat | Pieces":
        """The gradients as they stand; of weights without any, zeros."""
        return self.laid.gradient()

    def move(self, rate: float | Tensor) -> None:
        """One step of the weights along their gradients, at the learning rate ``rate``: a number, or a tensor ``[]``
        that a captured step reads anew."""
        self.gradient()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def forget_gradients(self) -> None:
        """No gradients."""
        self.laid.forget_gradients()

    def drop_gradients(self) -> None:
        """No gradients, nor memory for them: a pass lays them where it likes, :meth:`gradient` brings them together.

        Half of the calls of adding each to a zero; a copy of all of them more. For small networks on one process.
        """
        for weight in self.trained:
            weight.grad = None

    def release(self, whole: bool = True) -> None:
        """Give every weight memory of its own again, and drop the gradients; ``whole``: all processes have come so far
        as to give each other their rows of a shared model."""
        if whole or isinstance(self.laid, Whole):
            self.laid.release()

    def between(self, function: Callable[..., dict[str, float]], *inputs: object) -> dict[str, float]:
        """``function(*inputs)`` of the stage, which may read the model between two steps."""
        if isinstance(self.laid, Whole) or not self.stage.reads_model:
            return function(*inputs)
        return self.laid.call(function, *inputs)

    def average(self) -> dict[str, Tensor]:
        """The averaged tensors of the whole model."""
        parts = self.laid.parts
        return {name: self.laid.whole(name, t) if name in parts else t for name, t in self.ema.tensors.items()}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors by group. Adam's step count is not among them: it is the run's own."""
        moments = {
            f"{name}.{kind}": flat.parts[name]
            for name in self.names
            for kind, flat in self.moments.items()
            if name in flat.parts
        }
        return {"model": self.model, "optimizer": moments, "ema": self.ema.tensors}

    def settings(self) -> dict[str, object]:
        """What a resumed run must share with its first part to be the same run, as JSON."""
        fields = {k: v for k, v in dataclasses.asdict(self.schedule).items() if k not in _FREE}
        fields |= {"betas": list(self.schedule.betas), "clip": str(self.schedule.clip)}
        if not self.schedule.again:
            del fields["again"]  # which checkpoints of before do not know
        return {"stage": self.stage.name, "count": self.stage.count, "seed": self.seed, **fields}

    def machine(self) -> Machine:
        """What this part of the run is made on."""
        return Machine(
            torch=str(torch.__version__),
            threads=torch.get_num_threads(),
            processes=self.world.size,
            device=self.device.type,
            networks=told(self.stage.model),
        )

    def save(self, folder: Path, warn: checkpoint.Warn, later: Later | None = None) -> None:
        """Write a checkpoint of this step; all processes call it. ``later`` is given what writes a copy of the state,
        where that is one process's work."""
        state = {
            "settings": self.settings(),
            "stage": self.stage.state(),
            "guard": self.guard.state(),
            "clock": {"seconds": self.seconds, "machine": dataclasses.asdict(self.machine())},
        }
        if not isinstance(self.laid, Whole):
            self.laid.save(folder, self.step, self.tensors(), state, self.schedule.keep, warn)
        elif self.world.rank == 0:
            tensors: Mapping[str, Mapping[str, Tensor]] = self.tensors()
            if later:
                state = copy.deepcopy(state)
                tensors = {
                    group: {name: tensor.detach().to("cpu", copy=True) for name, tensor in inner.items()}
                    for group, inner in tensors.items()
                }
            keep = self.schedule.keep
            write = functools.partial(checkpoint.save, folder, self.step, tensors, state, keep=keep, warn=warn)
            later(write) if later else write()
        self.saved = self.step

    def restore(self, found: checkpoint.Checkpoint, warn: Callable[[str], None]) -> None:
        """Become ``found``; ``UserError`` before anything has changed when it belongs to another run."""
        stage, clock = found.part("stage"), found.part("clock")
        seen = found.step * self.schedule.batch
        self.schedule, settings, longer = lengthened(self.schedule, found.part("settings"), seen)
        _refuse(found.path, "settings", settings, self.settings())
        mine = self.tensors()
        for group in ("model", "optimizer", "ema"):
            whole = {name: self.laid.outline(name, tensor) for name, tensor in mine[group].items()}
            _refuse(found.path, group, _shapes(found.tensors.get(group, {})), _shapes(whole))
        self.guard.load_state(found.part("guard") if "guard" in found.state else {})
        with torch.no_grad():
            for group in ("model", "optimizer", "ema"):
                for name, tensor in mine[group].items():
                    tensor.copy_(self.laid.mine(name, found.tensors[group][name]))
            for optimizer in self.optimizers:
                for kept in optimizer.state.values():
                    if "step" in kept:
                        kept["step"].fill_(float(found.step - self.guard.skipped))
        try:
            self.stage.load_state(dict(stage))
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise UserError(
                f"{found.path} holds a state that no {self.stage.name} has ({error}): bring it back, or delete it"
            ) from None
        if longer:
            warn(f"{self.stage.name} was {longer}")
        self.step = self.saved = found.step
        seconds, before = clock.get("seconds"), clock.get("machine")
        self.seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
        changed = _differences(before if isinstance(before, dict) else {}, dataclasses.asdict(self.machine()))
        if changed:
            warn(f"{found.path} was made with {changed}: the run goes on, its last bits may differ")


def _groups(trained: Mapping[str, Tensor], optimizer: str) -> tuple[list[str], list[str], list[list[str]]]:
    """Names of AdamW's weights that decay, of its others, and of Muon's in stacks of one shape."""
    decaying, others, stacks = [], [], {}
    for name, weight in trained.items():
        if optimizer == "muon" and is_inner(weight):
            stacks.setdefault((weight.shape[0], weight[0].numel()), []).append(name)
        else:
            (decaying if weight.ndim > 1 else others).append(name)
    return decaying, others, list(stacks.values())


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{list(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in tensors.items()}


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """``name old → new``, every one that differs."""
    names = [name for name in {**before, **now} if before.get(name, "none") != now.get(name, "none")]
    return ", ".join(f"{name} {before.get(name, 'none')} → {now.get(name, 'none')}" for name in names)


def _refuse(path: Path, what: str, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    changed = _differences(before, now)
    if changed:
        raise UserError(f"{path} belongs to another run, its {what} differ ({changed}); choose another folder")
