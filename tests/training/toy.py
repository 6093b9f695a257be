"""A stage that trains in milliseconds, with all a stage can have: dropout, buffers, state, calibration."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unilat.maths.seeds import Draws
from unilat.training import engine
from unilat.training.plan import Schedule, Stage
from unilat.training.records import Fitted


class Net(nn.Module):
    """Two layers with dropout, an unused parameter and buffers that each training pass or step moves."""

    profile: Tensor

    def __init__(self, width: int, dropout: float, mixing: bool):
        super().__init__()
        self.into, self.out = nn.Linear(3, width), nn.Linear(width, 2)
        self.out.bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(4, 2))
        self.dropout, self.mixing = nn.Dropout(dropout), mixing
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("profile", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
            self.mean.lerp_(x.detach().mean(0) if self.mixing else torch.ones_like(self.mean), 0.1)
        return self.out(self.dropout(torch.tanh(self.into(x - self.mean))))


class Toy:
    """Learns to undo noise; a controller moves a weight of the loss. ``mixing``: rows see each other's mean.

    A buffer of the model follows the errors of the global batch; the noise depends on it, as levels do.
    """

    def __init__(self, width: int = 5, dropout: float = 0.2, count: int = 23, mixing: bool = True):
        torch.manual_seed(3)
        self.model = Net(width, dropout, mixing)
        self.data, self.count = torch.randn(count, 3), count
        self.weight = 1.0
        self.calibrated: list[float] = []
        self.batches: list[list[int]] = []

    def stage(self) -> Stage:
        return Stage(
            name="toy",
            model=self.model,
            count=self.count,
            batch=self.batch,
            losses=self.losses,
            after_step=self.after_step,
            observe=self.observe,
            state=self.state,
            load_state=self.load_state,
            calibrate=self.calibrate,
            eval_every=4,
        )

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        self.batches.append(indices.tolist())
        return self.data[indices], indices

    def losses(self, batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch[0]
        noise = draws.normal(x) * draws.strata(len(x)).to(x.device)[:, None] * (1.0 + self.model.profile[1])
        error = (self.model(x + noise) - x[:, :2]).square().sum(1)
        profile = torch.stack([torch.ones_like(error), error], 1).detach()
        return self.weight * error, {"profile": profile, "error": error.detach()}

    def observe(self, sums: dict[str, Tensor]) -> None:
        assert sums.keys() == {"profile"}
        with torch.no_grad():
            self.model.profile.lerp_(sums["profile"].float(), 0.02)

    def after_step(self, metrics: dict[str, float], samples: int) -> dict[str, float]:
        self.weight *= 1.0 + 0.01 * (metrics["error"] > 1.0)
        return {"weight": self.weight}

    def calibrate(self, ema: dict[str, Tensor], step: int) -> dict[str, float]:
        value = float(sum(tensor.double().sum() for tensor in ema.values()) + torch.rand(()))
        self.calibrated.append(value)
        return {"calibration": value}

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight, "calibrated": self.calibrated}

    def load_state(self, state: dict[str, Any]) -> None:
        self.weight, self.calibrated = state["weight"], list(state["calibrated"])


def schedule(**changed: Any) -> Schedule:
    """Ten steps of six; batches cross the border of an epoch (23 examples)."""
    usual: dict[str, Any] = {
        "batch": 6,
        "samples": 60,
        "learning_rate": 1e-2,
        "warmup": 12,
        "decay": 0.5,
        "weight_decay": 0.1,
        "ema_halflife": 20,
        "clip": 2.0,
        "log_every": 3,
        "save_every": 4,
    }
    return Schedule(**usual | changed)


def fit(toy: Toy, plan: Schedule, folder: Path, seed: int, **named: Any) -> Fitted:
    """``engine.fit`` of the toy as it is now."""
    return engine.fit(toy.stage(), plan, folder, seed, **named)


def written(folder: Path) -> list[str]:
    """Names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())
