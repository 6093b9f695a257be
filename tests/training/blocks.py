"""A small network of all that sharding meets: blocks of both kinds, Muon's matrices, rows that no two processes can
share evenly, a frozen parameter, one that takes no part, and buffers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unilat.maths.seeds import Draws
from unilat.nets.layers import ResidualBlock, Stack, Transformer
from unilat.training import engine
from unilat.training.plan import Schedule, Stage
from unilat.training.records import Fitted

CHANNELS, PICTURES, STEPS, BATCH, SEED = 64, 40, 50, 7, 5


class Net(nn.Module):
    """Pictures ``[B, 3, 4, 4]`` to as many numbers."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.stack = Stack(2, CHANNELS, 2)
        self.embed = nn.Linear(1, 5)
        self.transformer = Transformer(CHANNELS, 2, 5, 32)
        self.out = nn.Conv2d(CHANNELS, 3, 1)
        self.scale = nn.Parameter(torch.full((1,), 0.5))
        self.unused = nn.Parameter(torch.ones(3, 2))
        self.out.bias.requires_grad_(False)  # pyright: ignore[reportOptionalMemberAccess]
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stack(self.into(x))
        return self.scale * self.out(self.transformer(h, self.embed(x.mean((1, 2, 3))[:, None])))


def stage() -> Stage:
    """Learns to undo noise; a buffer of the model, which the noise depends on, follows the errors."""
    torch.manual_seed(3)
    model = Net()
    data = torch.randn(PICTURES, 3, 4, 4)

    def losses(batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        noise = draws.normal(batch[0]) * (1.0 + 0.1 * model.seen)
        error = (model(batch[0] + noise) - batch[0]).square().mean((1, 2, 3))
        return error, {"errors": torch.stack([error, error], 1).detach()}

    def observe(sums: dict[str, Tensor]) -> None:
        model.seen.lerp_(sums["errors"][0].float() / BATCH, 0.1)

    def after_step(metrics: dict[str, float], samples: int) -> dict[str, float]:
        with torch.no_grad():
            seen = data[:2].to(model.seen.device)
            return {"looked": float(model(seen).square().mean())} if samples % (10 * BATCH) == 0 else {}

    def calibrate(ema: dict[str, Tensor], step: int) -> dict[str, float]:
        return {"calibration": float(sum(tensor.double().square().sum() for tensor in ema.values()))}

    return Stage(
        name="blocks",
        model=model,
        count=PICTURES,
        batch=lambda indices: (data[indices],),
        losses=losses,
        observe=observe,
        after_step=after_step,
        reads_model=True,
        calibrate=calibrate,
        eval_every=20,
    )


def plan(**changed: Any) -> Schedule:
    """Fifty steps of seven, with Muon."""
    usual: dict[str, Any] = {
        "batch": BATCH,
        "samples": STEPS * BATCH,
        "learning_rate": 1e-3,
        "optimizer": "muon",
        "weight_decay": 0.1,
        "ema_halflife": 50,
        "clip": 0.5,
        "log_every": 1,
        "save_every": 20,
        "keep": 9,
    }
    return Schedule(**usual | changed)


def fit(
    folder: Path, made: Stage | None = None, schedule: Schedule | None = None, **named: Any
) -> tuple[Fitted, dict[str, Tensor]]:
    """The stage trained in ``folder``: what ``engine.fit`` returns, and the model's tensors afterwards."""
    made = made or stage()
    machine = {"device": "cpu"} | named
    result = engine.fit(made, schedule or plan(), folder / "run", SEED, log=folder / "log.jsonl", **machine)
    assert not any(type(part).__name__.startswith("FSDP") for part in made.model.modules())
    assert sum(isinstance(part, ResidualBlock) for part in made.model.stack) == 2
    tensors = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made.model.load_state_dict(result.ema)
    return result, tensors
