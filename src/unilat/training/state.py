"""Everything that moves during a fit, to a checkpoint and back."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unilat.training import checkpoint
from unilat.training.ema import EMA
from unilat.training.plan import Schedule, Stage
from unilat.types import UserError

_MOMENTS = ("exp_avg", "exp_avg_sq")
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
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        module = self.stage.model.to(self.device).train()
        kept = module.state_dict().keys()
        self.model = {name: t for name, t in (*module.named_parameters(), *module.named_buffers()) if name in kept}
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError(f"{self.stage.name}: the model has no parameters to train")
        self.names, self.trained = list(trained), list(trained.values())
        self.ema = EMA(self.model, self.schedule.ema_halflife)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.trained if p.ndim > 1], "weight_decay": self.schedule.weight_decay},
                {"params": [p for p in self.trained if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=self.schedule.betas,
            eps=self.schedule.epsilon,
            fused=True,
        )

    @property
    def samples(self) -> int:
        """Samples seen."""
        return self.step * self.schedule.batch

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors by group. Adam's step count is not among them: it is the run's own."""
        moments = {}
        for name, parameter in zip(self.names, self.trained, strict=True):
            held = self.optimizer.state.get(parameter, {})
            for moment in _MOMENTS:
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
        return {"torch": version, "threads": threads, "processes": self.processes, "device": self.device.type}

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
        for name, parameter in zip(self.names, self.trained, strict=True):
            held = found.tensors["optimizer"]
            moments = {m: torch.zeros_like(parameter).copy_(held[f"{name}.{m}"]) for m in _MOMENTS}
            self.optimizer.state[parameter] = {"step": torch.tensor(float(found.step), device=self.device), **moments}
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
