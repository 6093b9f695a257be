"""Everything that moves during a fit, to a checkpoint and back."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unilat.training import checkpoint
from unilat.training.ema import EMA
from unilat.training.fast import told
from unilat.training.muon import Muon, is_inner
from unilat.training.plan import Schedule, Stage
from unilat.types import UserError

_MOMENTS = {Muon: ("momentum_buffer",), torch.optim.AdamW: ("exp_avg", "exp_avg_sq")}
_FREE = ("log_every", "save_every", "keep")


@dataclass
class State:
    """Weights, optimiser, average, stage and step. What is here between two steps is all there is."""

    stage: Stage
    schedule: Schedule
    seed: int
    device: torch.device
    processes: int
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time in the loop, over all parts of the run."""
    saved: int = -1
    """Step of the newest checkpoint on disk."""
    model: dict[str, Tensor] = field(init=False)
    """Parameters and persistent buffers, each once (tied ones under their first name)."""
    names: list[str] = field(init=False)
    trained: list[Tensor] = field(init=False)
    ema: EMA = field(init=False)
    optimizers: list[torch.optim.Optimizer] = field(init=False)

    def __post_init__(self) -> None:
        module = self.stage.model.to(self.device).train()
        kept = module.state_dict().keys()
        self.model = {name: t for name, t in (*module.named_parameters(), *module.named_buffers()) if name in kept}
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError(f"{self.stage.name}: the model has no parameters to train")
        self.names, self.trained = list(trained), list(trained.values())
        self.ema = EMA(self.model, self.schedule.ema_halflife)
        plan = self.schedule
        inner = [p for p in self.trained if plan.optimizer == "muon" and is_inner(p)]
        rest = set(self.trained).difference(inner)
        groups = [
            {"params": [p for p in self.trained if p in rest and p.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": [p for p in self.trained if p in rest and p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizers = [torch.optim.AdamW(groups, lr=0.0, betas=plan.betas, eps=plan.epsilon, fused=True)]
        if inner:
            self.optimizers.append(Muon(inner, lr=0.0, weight_decay=plan.weight_decay))

    @property
    def samples(self) -> int:
        """Samples seen."""
        return self.step * self.schedule.batch

    def move(self, rate: float) -> None:
        """One step of the weights along their gradients, at the learning rate ``rate``."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def forget_gradients(self) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _moments(self) -> Iterator[tuple[str, Tensor, torch.optim.Optimizer, tuple[str, ...]]]:
        """Each trained parameter, its optimiser, and the names of what that one keeps of it."""
        owner = {p: each for each in self.optimizers for group in each.param_groups for p in group["params"]}
        for name, parameter in zip(self.names, self.trained, strict=True):
            yield name, parameter, owner[parameter], _MOMENTS[type(owner[parameter])]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors by group. Adam's step count is not among them: it is the run's own."""
        moments = {}
        for name, parameter, optimizer, kinds in self._moments():
            held = optimizer.state.get(parameter, {})
            for moment in kinds:
                moments[f"{name}.{moment}"] = held[moment] if held else torch.zeros_like(parameter)
        return {"model": self.model, "optimizer": moments, "ema": self.ema.tensors}

    def settings(self) -> dict[str, Any]:
        """What a resumed run must share with its first part to be the same run, as JSON."""
        fields = {k: v for k, v in dataclasses.asdict(self.schedule).items() if k not in _FREE}
        fields |= {"betas": list(self.schedule.betas), "clip": str(self.schedule.clip)}
        return {"stage": self.stage.name, "count": self.stage.count, "seed": self.seed, **fields}

    def machine(self) -> dict[str, Any]:
        """What changes the last bits without being anybody's setting."""
        version, threads = torch.__version__, torch.get_num_threads()
        facts = {"torch": version, "threads": threads, "processes": self.processes, "device": self.device.type}
        return facts | {"networks": told(self.stage.model)}

    def save(self, folder: Path, warn: checkpoint.Warn) -> None:
        """Write a checkpoint of this step."""
        state = {
            "settings": self.settings(),
            "stage": self.stage.state(),
            "clock": {"seconds": self.seconds, "machine": self.machine()},
        }
        checkpoint.save(folder, self.step, self.tensors(), state, keep=self.schedule.keep, warn=warn)
        self.saved = self.step

    def restore(self, found: checkpoint.Checkpoint, warn: Callable[[str], None]) -> None:
        """Become ``found``; ``UserError`` before anything has changed when it belongs to another run."""
        _refuse(found.path, "settings", found.state["settings"], self.settings())
        mine = self.tensors()
        for group in ("model", "optimizer", "ema"):
            _refuse(found.path, group, _shapes(found.tensors.get(group, {})), _shapes(mine[group]))
        with torch.no_grad():
            for group in ("model", "ema"):
                for name, tensor in mine[group].items():
                    tensor.copy_(found.tensors[group][name])
        held = found.tensors["optimizer"]
        for name, parameter, optimizer, kinds in self._moments():
            moments = {kind: torch.zeros_like(parameter).copy_(held[f"{name}.{kind}"]) for kind in kinds}
            if isinstance(optimizer, torch.optim.AdamW):
                moments["step"] = torch.tensor(float(found.step), device=self.device)
            optimizer.state[parameter] = moments
        self.stage.load_state(found.state["stage"])
        self.step = self.saved = found.step
        self.seconds = float(found.state["clock"]["seconds"])
        before = found.state["clock"]["machine"]
        changed = _differences(before, self.machine())
        if changed:
            warn(f"{found.path} was made with {changed}: the run goes on, its last bits may differ")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{list(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in tensors.items()}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """``name old → new``, every one that differs."""
    names = [name for name in {**before, **now} if before.get(name, "none") != now.get(name, "none")]
    return ", ".join(f"{name} {before.get(name, 'none')} → {now.get(name, 'none')}" for name in names)


def _refuse(path: Path, what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = _differences(before, now)
    if changed:
        raise UserError(f"{path} belongs to another run, its {what} differ ({changed}); choose another folder")
