"""The step against a plain one written out here, and the steps that must not happen."""

import copy
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unilat.maths.seeds import Draws, key
from unilat.training import checkpoint, engine
from unilat.training.machine import manifest, pick_device
from unilat.training.order import batch_indices
from unilat.training.parallel import World
from unilat.training.plan import Schedule
from unilat.training.records import Step
from unilat.types import UserError

from .toy import Toy, fit, schedule, written

SEED = 7


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_equals_the_same_run_written_plainly(tmp_path: Path) -> None:
    """Kills: sum for mean, a clip by value, decay of biases, a learning rate one step late, an EMA before the step.

    Also means told for sums, and a stage that hears of its batch after the average has moved.
    """
    stage, plan = Toy(dropout=0.0), schedule(ema_halflife=2)  # both the ramp and the half-life hold in turn
    result = fit(stage, plan, tmp_path, SEED, noise="cpu")

    twin = Toy(dropout=0.0)
    model = twin.model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = [torch.zeros_like(p) for p in trained]
    second = [torch.zeros_like(p) for p in trained]
    for step in range(10):
        seen = 6 * (step + 1)
        batch = twin.batch(batch_indices(23, 6, SEED, step))
        loss, metrics = twin.losses(batch, Draws.keyed(SEED, step, 0, 6))
        model.zero_grad()
        loss.mean().backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        norm = torch.cat([g.flatten() for g in grads]).norm()
        rate = 0.01 * min(1.0, seen / 12) * min(1.0, (66 - seen) / 30)
        with torch.no_grad():
            for p, g, m, v in zip(trained, grads, first, second, strict=True):
                g = g * min(1.0, 2.0 / float(norm))
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.99).add_(0.01 * g * g)
                p.mul_(1 - rate * (0.1 if p.ndim > 1 else 0.0))
                p.sub_(rate * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8))
            twin.observe({"profile": metrics["profile"].sum(0)})
            share = 0.5 ** (6 / min(2, 0.05 * seen))
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    average[name] = share * average[name] + (1 - share) * tensor
                else:
                    average[name] = tensor.clone()
        twin.after_step({"error": float(metrics["error"].mean())}, seen)

    for name, tensor in model.state_dict().items():
        assert torch.allclose(stage.model.state_dict()[name].cpu(), tensor, atol=2e-6), name
        assert torch.allclose(result.ema[name].cpu(), average[name], atol=2e-6), name
    assert result.metrics["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert result.metrics["learning_rate"] == pytest.approx(rate)
    assert result.metrics["loss"] == pytest.approx(float(loss.detach().mean()), rel=1e-5)
    assert result.ema["seen"] == 10


@pytest.mark.parametrize(
    ("samples", "linear", "cosine"),
    [
        (10, 0.1, 0.1),
        (50, 0.5, 0.5),
        (100, 1.0, 1.0),
        (810, 1.0, 1.0),
        (910, 0.5, 0.5),
        (960, 0.25, 0.5 - 0.5 * math.cos(0.25 * math.pi)),
        (1000, 0.05, 0.5 - 0.5 * math.cos(0.05 * math.pi)),
    ],
)
def test_learning_rate_rises_stays_and_falls(samples: int, linear: float, cosine: float) -> None:
    """Kills: lengths in steps, a decay over the wrong end, a last step of rate 0."""
    plan = Schedule(batch=10, samples=1000, learning_rate=2.0, warmup=100, decay=0.2)
    assert plan.rate(samples) == pytest.approx(2 * linear)
    bent = Schedule(batch=10, samples=1000, learning_rate=2.0, warmup=100, decay=0.2, decay_shape="cosine")
    assert bent.rate(samples) == pytest.approx(2 * cosine)
    flat = Schedule(batch=10, samples=1001, learning_rate=2.0)
    assert [flat.rate(n) for n in (10, 500, 1010)] == [2.0] * 3
    assert flat.steps == 101


class Broken(Toy):
    """A toy whose loss is spoiled by ``spoil(loss, rows, model)`` at step 4, where ``rows`` are the indices."""

    def __init__(self, spoil: Callable[[Tensor, Tensor, nn.Module], Tensor]):
        super().__init__()
        self.spoil = spoil

    def losses(self, batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().losses(batch, draws)
        if set(batch[1].tolist()) <= set(ROWS):
            loss = self.spoil(loss, batch[1], self.model)
        return loss, metrics


ROWS = batch_indices(23, 6, SEED, 3).tolist()


def spoiled(value: float) -> Callable[[Tensor, Tensor, nn.Module], Tensor]:
    """Rows 1 and 4 of step 4 become ``value``."""
    return lambda loss, rows, model: torch.where((rows == ROWS[1]) | (rows == ROWS[4]), value * loss, loss)


def steep(loss: Tensor, rows: Tensor, model: nn.Module) -> Tensor:
    """A finite loss whose gradient at row 2 is not: the square root of 0."""
    weight = next(model.parameters()).flatten()[0]
    return loss + ((rows != ROWS[2]) + 0.0 * weight).sqrt() * (rows == ROWS[2])


def huge(loss: Tensor, rows: Tensor, model: nn.Module) -> Tensor:
    """Finite losses and gradients whose norm overflows."""
    return loss * 1e25


TWO = f"{ROWS[1]}, {ROWS[4]}"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoiled(math.nan), f"samples {TWO}: their loss is not finite \\(mean nan\\)"),
        (spoiled(math.inf), f"samples {TWO}: their loss is not finite \\(mean inf\\)"),
        (spoiled(-math.inf), f"samples {TWO}: their loss is not finite \\(mean -inf\\)"),
        (steep, f"samples {ROWS[2]}: their gradients are not finite"),
        (huge, f"samples {', '.join(map(str, ROWS))}: the gradient's norm over the batch is inf"),
    ],
)
def test_a_step_that_is_not_finite_does_not_happen(
    tmp_path: Path, spoil: Callable[[Tensor, Tensor, nn.Module], Tensor], said: str
) -> None:
    """Kills: a check after the step, a check of the loss alone, NaN told as step 0 or as another sample."""
    stage, good, lines = Broken(spoil), Toy(), list[str]()
    fit(good, schedule(), tmp_path / "good", SEED, stop_at=3)
    fit(stage, schedule(), tmp_path / "bad", SEED, stop_at=4, warn=lines.append)
    assert len(lines) == 1 and "\n" not in lines[0]
    assert re.fullmatch(rf"toy, step 4: {said}; this step changed nothing", lines[0])
    for name, parameter in stage.model.named_parameters():
        assert torch.equal(parameter, dict(good.model.named_parameters())[name])
    assert stage.state() == good.state() | {"calibrated": []}


def test_a_bad_pixel_is_named_by_its_picture(tmp_path: Path) -> None:
    """Kills: all rows blamed for one because the model mixes them (here by its running mean)."""
    stage, lines = Toy(), list[str]()
    stage.data[ROWS[3], 1] = math.nan
    first = next(step for step in range(4) if ROWS[3] in batch_indices(23, 6, SEED, step))
    with pytest.raises(UserError, match=r"too many steps were refused .* nothing was saved yet"):
        fit(stage, schedule(), tmp_path, SEED, warn=lines.append)
    assert lines[0].startswith(f"toy, step {first + 1}: samples {ROWS[3]}: their data are not finite")
    assert checkpoint.load(tmp_path) is None
    stage, lines = Toy(), []
    stage.data[ROWS[3], 1] = math.nan
    named = replace(stage.stage(), names=lambda some: [f"{one}.png" for one in some.tolist()])
    with pytest.raises(UserError, match="too many steps were refused"):
        engine.fit(named, schedule(), tmp_path / "named", SEED, warn=lines.append)
    assert lines[0].startswith(f"toy, step {first + 1}: samples {ROWS[3]}.png: their data are not finite")


def test_calibration_sees_the_average_without_gradients_and_in_evaluation(tmp_path: Path) -> None:
    """Kills: live weights for averaged ones, dropout left on, a random state that depends on the past."""
    seen: list[tuple[Any, ...]] = []
    stage = Toy()

    def calibrate(ema: dict[str, Tensor], step: int) -> dict[str, float]:
        seen.append((step, copy.deepcopy(ema), torch.is_grad_enabled(), stage.model.training, float(torch.rand(()))))
        return {"seen": float(step)}

    stage.calibrate = calibrate  # type: ignore[method-assign]
    shown: list[Step] = []
    result = fit(stage, schedule(samples=48), tmp_path, SEED, progress=shown.append)
    assert [entry[0] for entry in seen] == [4, 8]
    assert [entry[2:4] for entry in seen] == [(False, False)] * 2
    for entry in seen:  # the same in every process, whatever each has drawn in its step
        torch.manual_seed(key(SEED, entry[0], "calibrate"))
        assert entry[4] == float(torch.rand(()))
    assert same(seen[1][1], result.ema)
    assert not same(seen[0][1], result.ema)
    assert stage.model.training
    assert [told.metrics.get("seen") for told in shown] == [None] * 3 + [4.0] + [None] * 3 + [8.0]


def test_progress_is_told_everything_once_a_step(tmp_path: Path) -> None:
    """Kills: steps told from 0, seconds left that grow, samples counted before the step."""
    shown: list[Step] = []
    fit(Toy(), schedule(), tmp_path, SEED, progress=shown.append, stop_at=4)
    fit(Toy(), schedule(), tmp_path, SEED, progress=shown.append)
    assert [told.step for told in shown] == list(range(1, 11))
    for told in shown:
        assert (told.stage, told.steps, told.samples) == ("toy", 10, 6 * told.step)
        assert told.metrics.keys() >= {"loss", "error", "weight", "gradient_norm", "learning_rate"}
        assert told.samples_per_second > 0
    assert shown[-1].seconds_left == 0
    seconds = [told.seconds for told in shown]
    assert seconds == sorted(seconds)  # over the resume as well


def test_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    """Kills: a fit that reseeds whatever the caller draws next."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    stage = Toy()
    torch.manual_seed(5)
    fit(stage, schedule(), tmp_path, SEED)
    assert torch.equal(torch.rand(3), expected)


def test_a_mean_for_a_loss_is_refused(tmp_path: Path) -> None:
    """Kills: a stage that returns a mean and trains with a gradient that is a batch too small."""
    stage = Toy()
    stage.losses = lambda batch, draws: (stage.model(batch[0]).mean(), {})  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"losses are \[6\], one per example, not \[\]"):
        fit(stage, schedule(), tmp_path, SEED)


@pytest.mark.parametrize(
    "changed",
    [{"batch": 0}, {"samples": 0}, {"learning_rate": math.nan}, {"learning_rate": 0.0}, {"decay": 1.5}, {"clip": 0.0}],
)
def test_numbers_no_run_can_have_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Kills: a division by zero, or an endless run, in place of one line."""
    with pytest.raises(UserError, match=f"toy: .*{next(iter(changed))}"):
        fit(Toy(), schedule(**changed), tmp_path, SEED)
    assert written(tmp_path) == []


def test_rows_share_the_batch_and_keys_differ() -> None:
    """Kills: rows lost where the batch does not divide; equal seeds for different purposes."""
    for total in (1, 7, 64):
        for size in (1, 2, 3, 5):
            rows = [World(rank, size).rows(total) for rank in range(size)]
            assert [row for first, last in rows for row in range(first, last)] == list(range(total))
    keys = {key(seed, step, rank, what) for seed in (1, 2) for step in (0, 1) for rank in (0, 1) for what in ("a", "b")}
    assert len(keys) == 16
    assert all(0 <= value < 2**63 for value in keys)
    assert key(1, 2, "modules") == 3553196314342474412  # stable: old runs must resume


def test_the_device_is_the_one_that_was_named() -> None:
    """Kills: a silent fall back to the CPU where a GPU was asked for."""
    assert pick_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert pick_device("auto") == torch.device("cpu")
        with pytest.raises(UserError, match="give device="):
            pick_device("cuda")


def test_manifest_says_what_decides_the_bits() -> None:
    """Kills: a field left out, or one that changes between two calls on one machine (the date aside)."""
    told = manifest()
    assert asdict(told).keys() == {
        *("unilat", "torch", "python", "threads", "waiting", "cpu", "flags", "capability", "device", "date", "commit"),
    }
    assert told.torch == torch.__version__
    assert told.threads == torch.get_num_threads()
    assert len(told.flags) == 16
    assert replace(manifest(), date=told.date) == told
