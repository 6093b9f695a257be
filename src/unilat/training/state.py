"""Everything that moves during a fit, to a checkpoint and back."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unilat.training import checkpoint
from unilat.training.ema import EMA
from unilat.training.fast import told
from unilat.training.flat import Flat, zeros
from unilat.training.muon import Muon, is_inner
from unilat.training.plan import Schedule, Stage
from unilat.types import UserError

_FREE = ("log_every", "save_every", "keep")


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
    processes: int
    noise: str = "cpu"
    """Device on which noise is drawn."""
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time in the loop, over all parts of the run."""
    saved: int = -1
    """Step of the newest checkpoint on disk."""
    model: dict[str, Tensor] = field(init=False)
    """Parameters and persistent buffers, each once (tied ones under their first name)."""
    trained: list[Tensor] = field(init=False)
    names: list[str] = field(init=False)
    weights: Flat = field(init=False)
    """The trained parameters, which are views of it while the run lasts."""
    gradients: Flat = field(init=False)
    ema: EMA = field(init=False)
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    moments: dict[str, Flat] = field(init=False)
    """What the optimisers keep of each weight, by kind."""

    def __post_init__(self) -> None:
        module = self.stage.model.to(self.device).train()
        kept = module.state_dict().keys()
        self.model = {name: t for name, t in (*module.named_parameters(), *module.named_buffers()) if name in kept}
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError(f"{self.stage.name}: the model has no parameters to train")
        self.names, self.trained = list(trained), list(trained.values())
        decaying, others, stacks = _groups(trained, self.schedule.optimizer)
        order = [*decaying, *others, *(name for names in stacks for name in names)]
        self.weights = Flat({name: trained[name] for name in order})
        self.gradients = zeros(self.weights, order)
        for name, parameter in trained.items():
            parameter.data, parameter.grad = self.weights.parts[name], self.gradients.parts[name]
        self.ema = EMA(self.model, self.schedule.ema_halflife, self.weights)
        self._make_optimizers(decaying, others, stacks)

    def _make_optimizers(self, decaying: list[str], others: list[str], stacks: list[list[str]]) -> None:
        """AdamW for two runs of weights, Muon for stacks of matrices, each with its moments; none for nothing."""
        plan, inner = self.schedule, [name for names in stacks for name in names]
        self.optimizers, self.moments = [], {}
        if decaying or others:
            first, second = (zeros(self.weights, [*decaying, *others]) for _ in range(2))
            self.moments |= {"exp_avg": first, "exp_avg_sq": second}
            groups = []
            for names, decay in ((decaying, plan.weight_decay), (others, 0.0)):
                if names:
                    groups.append({"params": [self._leaf(Flat.run, names)], "weight_decay": decay})
            on_gpu = self.device.type == "cuda"
            settings = {"betas": plan.betas, "eps": plan.epsilon, "fused": True, "capturable": on_gpu}
            adam = torch.optim.AdamW(groups, lr=0.0, **settings)
            for group, names in zip(groups, [names for names in (decaying, others) if names], strict=True):
                count = torch.zeros((), device=self.device)
                adam.state[group["params"][0]] = {
                    "step": count, "exp_avg": first.run(names), "exp_avg_sq": second.run(names)
                }  # fmt: skip
            self.optimizers.append(adam)
        if inner:
            self.moments["momentum_buffer"] = kept = zeros(self.weights, inner)
            leaves = [self._leaf(Flat.stack, names) for names in stacks]
            muon = Muon(leaves, lr=0.0, weight_decay=plan.weight_decay)
            for leaf, names in zip(leaves, stacks, strict=True):
                muon.state[leaf]["momentum_buffer"] = kept.stack(names)
            self.optimizers.append(muon)

    def _leaf(self, view: Callable[[Flat, list[str]], Tensor], names: list[str]) -> Tensor:
        """A view of some weights as an optimiser wants it, with the same view of their gradients."""
        leaf = view(self.weights, names).detach().requires_grad_()
        leaf.grad = view(self.gradients, names)
        return leaf

    @property
    def samples(self) -> int:
        """Samples seen."""
        return self.step * self.schedule.batch

    def gradient(self) -> Flat:
        """The gradients as they stand, also those that were laid elsewhere; of weights without any, zeros."""
        for name, parameter in zip(self.names, self.trained, strict=True):
            mine = self.gradients.parts[name]
            if parameter.grad is not mine:
                mine.zero_() if parameter.grad is None else mine.copy_(parameter.grad)
                parameter.grad = mine
        return self.gradients

    def move(self, rate: float | Tensor) -> None:
        """One step of the weights along their gradients, at the learning rate ``rate``: a number, or a tensor ``[]``
        that a captured step reads anew."""
        self.gradient()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def forget_gradients(self) -> None:
        """Zero in all gradients."""
        self.gradient().whole.zero_()

    def release(self) -> None:
        """Give every weight memory of its own again, and drop the gradients."""
        for parameter in self.trained:
            parameter.data, parameter.grad = parameter.data.clone(), None

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
        return {"stage": self.stage.name, "count": self.stage.count, "seed": self.seed, **fields}

    def machine(self) -> Machine:
        """What this part of the run is made on."""
        return Machine(
            torch=str(torch.__version__),
            threads=torch.get_num_threads(),
            processes=self.processes,
            device=self.device.type,
            networks=told(self.stage.model),
        )

    def save(self, folder: Path, warn: checkpoint.Warn) -> None:
        """Write a checkpoint of this step."""
        state = {
            "settings": self.settings(),
            "stage": self.stage.state(),
            "clock": {"seconds": self.seconds, "machine": dataclasses.asdict(self.machine())},
        }
        checkpoint.save(folder, self.step, self.tensors(), state, keep=self.schedule.keep, warn=warn)
        self.saved = self.step

    def restore(self, found: checkpoint.Checkpoint, warn: Callable[[str], None]) -> None:
        """Become ``found``; ``UserError`` before anything has changed when it belongs to another run."""
        stage, clock = found.part("stage"), found.part("clock")
        _refuse(found.path, "settings", found.part("settings"), self.settings())
        mine = self.tensors()
        for group in ("model", "optimizer", "ema"):
            _refuse(found.path, group, _shapes(found.tensors.get(group, {})), _shapes(mine[group]))
        with torch.no_grad():
            for group in ("model", "optimizer", "ema"):
                for name, tensor in mine[group].items():
                    tensor.copy_(found.tensors[group][name])
            for optimizer in self.optimizers:
                for kept in optimizer.state.values():
                    if "step" in kept:
                        kept["step"].fill_(float(found.step))
        self.stage.load_state(dict(stage))
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
