"""Steps through buffers are the plain ones; on a GPU, where graphs replay them, to rounding."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unilat.maths.levels import rate_table
from unilat.maths.moments import learned, learned_mass
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.models.base import Base, BaseConfig
from unilat.nets.encoder import EncoderConfig
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViTConfig
from unilat.recipe.config import Stage1Config
from unilat.run.stages import AutoencoderStage, base_stage, prior_stage, schedule
from unilat.training import capture, checkpoint
from unilat.training.capture import LAUNCH_BOUND, Script, captures
from unilat.training.engine import fit
from unilat.training.fast import Choices
from unilat.training.micro import MicroBatch
from unilat.training.plan import Schedule, Stage
from unilat.training.records import Fitted

from .test_engine import ROWS, SEED, Broken, spoiled
from .test_resume import lines
from .toy import schedule as toy_schedule

CPU, GPU = torch.device("cpu"), torch.device("cuda")
DEVICES = [pytest.param(CPU, id="cpu")]
if torch.cuda.is_available():
    DEVICES.append(pytest.param(GPU, id="cuda"))
CONFIG = Stage1Config(
    target_bpp=0.3,
    samples=112,
    batch=8,
    learning_rate=1e-3,
    optimizer="muon",
    warmup=16,
    decay=0.5,
    ema_halflife=16,
    clip=1.0,
    follow_every=64,
    calibrate_every=64,
    levels="learned",
)
Made = Callable[[], tuple[Stage, Schedule]]


def first(**changed: Any) -> tuple[Stage, Schedule]:
    """Stage 1 with all that moves in it: Muon's matrices, learned levels, a controller, calibrations, mirror images."""
    networks = AutoencoderConfig(
        latent_channels=4,
        encoder=EncoderConfig(channels=(64,), blocks=(1,), strides=(), patch=(4, 4)),
        prior=ViTConfig(channels=(64,), blocks=(1,), head_width=16),
        decoder=UViTConfig(channels=(16,), blocks=(1,), strides=((2, 2),), width=32, depth=1, head_width=16),
    )
    config = replace(CONFIG, **changed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Autoencoder(networks, 1, torch.zeros(1), torch.full((1,), 0.5))
        pictures = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8)
    model.start_at_unit_scale(pictures[:16].float() / 127.5 - 1)
    return AutoencoderStage(model, pictures[:20], pictures[20:], config, flip=True).stage(), schedule(config)


def prior() -> tuple[Stage, Schedule]:
    """The prior alone."""
    (stage, _), plan = first(), replace(schedule(CONFIG), optimizer="muon")
    assert isinstance(stage.model, Autoencoder)
    z = torch.randn(30, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    return prior_stage(stage.model.prior, z, lambda_0=6.0, lambda_min=-10.0), plan


def second() -> tuple[Stage, Schedule]:
    """Stage 2 with classes, dropout and learned levels."""
    vit = ViTConfig(channels=(16, 32), blocks=(2, 1), head_width=16, dropout=0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Base(BaseConfig(vit=vit), 3, 2, 4, -10.0, 5.0)
        return base_stage(model, torch.randn(24, 3, 2, 4), torch.arange(24) % 4, "learned"), schedule(CONFIG)


def run(made: Made, folder: Path, stops: list[int | None], **machine: Any) -> Fitted:
    """The last of some fits, one after the other on one folder."""
    for stop in stops:
        stage, plan = made()
        done = fit(stage, plan, folder / "run", SEED, log=folder / "log.jsonl", stop_at=stop, **machine)
    return done


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("made", [first, prior, second])
def test_a_captured_run_is_the_plain_one(made: Made, device: torch.device, tmp_path: Path) -> None:
    """Fourteen steps, stopped after five and gone on with: on a CPU the same bits, on a GPU the same to rounding.

    Kills: a loss factor, a table of levels, a rate or a share of the average as it was at the capture; noise
    or dropout of another step; a clip, a norm or a mean of another kind; moments that a captured step leaves behind.
    """
    plain = run(made, tmp_path / "plain", [None], device=device.type)
    found = run(made, tmp_path / "captured", [5, None], device=device.type, capture=True)
    marks = [checkpoint.load(tmp_path / name / "run") for name in ("plain", "captured")]
    assert marks[0] and marks[1] and found.finished and found.resumed == 5
    logs = [lines(tmp_path / name / "log.jsonl") for name in ("plain", "captured")]
    if device == CPU:
        assert marks[0].fingerprint() == marks[1].fingerprint() and logs[0] == logs[1]
        assert all(torch.equal(found.ema[name], value) for name, value in plain.ema.items())
    assert found.metrics == pytest.approx(plain.metrics, rel=0 if device == CPU else 1e-3, nan_ok=True)


def test_everything_is_as_before_after_a_captured_run(tmp_path: Path) -> None:
    """Kills: a table of levels that stays held, so that the averaged weights are measured at the levels of others."""
    (stage, plan), model = first(), None
    done = fit(stage, plan, tmp_path, SEED, device="cpu", capture=True)
    model = stage.model
    assert isinstance(model, Autoencoder)
    last = model.rate_levels.table
    model.load_state_dict(done.ema)
    assert not torch.equal(model.rate_levels.table.mass, last.mass)
    owner: Any = stage.losses
    assert owner.__self__._factor is None


def test_what_levels_have_shown_places_them_without_asking() -> None:
    """``learned_mass`` is ``learned``'s mass, bit by bit, and the guess's where nothing was seen.

    Kills: a formula of its own, zeros over zeros let through.
    """
    guess = rate_table(-10.0, 5.0)
    moments = torch.rand(2, 32, generator=torch.Generator().manual_seed(0)) * 20
    assert torch.equal(learned_mass(guess.mass, moments), learned(guess, moments).mass)
    assert torch.equal(learned_mass(guess.mass, torch.zeros(2, 32)), guess.mass)


class Held(Broken):
    """A toy that is spoiled at step 4, as captured steps see it."""

    def stage(self) -> Stage:
        @contextlib.contextmanager
        def hold(device: torch.device) -> Iterator[Callable[[], object]]:
            yield lambda: None

        return replace(super().stage(), hold=hold)


def test_a_step_that_is_not_finite_does_not_happen_in_captured_form_either(tmp_path: Path) -> None:
    """Kills: weights that have moved before the flag is read, a line that names no samples."""
    stage, lines = Held(spoiled(math.nan)), list[str]()
    fit(stage.stage(), toy_schedule(), tmp_path, SEED, stop_at=3, device="cpu", capture=True)
    before = {name: tensor.clone() for name, tensor in stage.model.named_parameters()}
    fit(stage.stage(), toy_schedule(), tmp_path, SEED, stop_at=4, device="cpu", capture=True, warn=lines.append)
    assert lines == [
        f"toy, step 4: samples {ROWS[1]}, {ROWS[4]}: their loss is not finite (mean nan); this step changed nothing"
    ]
    assert all(torch.equal(before[name], tensor) for name, tensor in stage.model.named_parameters())


def test_a_captured_step_that_does_not_fit_goes_on_in_parts(tmp_path: Path) -> None:
    """Memory ends in the first steps. Kills: a run that stops, a loss factor that stays as it was at the capture."""
    stage, plan = first()
    losses = stage.losses

    def narrow(batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        if len(batch[0]) > plan.batch // 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return losses(batch, draws)

    told: list[str] = []
    micro = MicroBatch(search=True)
    found = fit(
        replace(stage, losses=narrow), plan, tmp_path / "one", SEED, device="cpu", capture=True, micro=micro,
        warn=told.append,
    )  # fmt: skip
    assert told == [f"stage1: a batch of {plan.batch} does not fit into memory at once, so that steps are not captured"]
    assert micro.size == plan.batch // 2
    plain = fit(first()[0], plan, tmp_path / "two", SEED, device="cpu")
    assert found.metrics == pytest.approx(plain.metrics, rel=1e-3, nan_ok=True)
    owner: Any = stage.losses
    assert owner.__self__._factor is None


def test_a_script_draws_what_the_step_would(tmp_path: Path) -> None:
    """Kills: buffers of another step, another order, buffers that move, a step that draws more or less unseen."""
    script, like = Script(6, CPU), torch.zeros(6, 2)

    def drawn(draws: Draws) -> list[Tensor]:
        return [draws.strata(6), draws.normal(like), draws.uniform(6), draws.normal(like[:, :1])]

    places = []
    for step in range(3):
        script.begin(Draws.keyed(5, step, 0, 6))
        found = drawn(script)
        places.append([tensor.data_ptr() for tensor in found])
        assert all(torch.equal(a, b) for a, b in zip(found, drawn(Draws.keyed(5, step, 0, 6)), strict=True))
    assert places[0] == places[1] == places[2]
    script.begin(Draws.keyed(5, 3, 0, 6))
    script.strata(6)
    with pytest.raises(ValueError, match="drew 1 times and the first one 4"):
        script.end()
    script.begin(Draws.keyed(5, 4, 0, 6))  # a graph that is replayed asks for nothing
    script.begin(Draws.keyed(5, 5, 0, 6))
    assert all(torch.equal(a, b) for a, b in zip(drawn(script), drawn(Draws.keyed(5, 5, 0, 6)), strict=True))
    script.end()


def test_what_is_captured_and_why_not() -> None:
    """Kills: a capture on a CPU, of a step that other processes are in, of a large one, or one that nobody knows."""
    stage, plan = first()
    small = 0.9 * LAUNCH_BOUND * plan.steps
    assert captures(Choices(), stage, plan, small, CPU) == (False, "")
    assert captures(Choices(), stage, plan, small, GPU) == (True, "steps captured")
    reasons = {
        "as asked": captures(Choices(capture="off"), stage, plan, small, GPU),
        "computes for longer": captures(Choices(), stage, plan, 1.3 * small, GPU),
        "2 processes": captures(Choices(), stage, plan, small, GPU, 2),
        "part by part": captures(Choices(micro_batch=4), stage, plan, small, GPU),
        "seeds its dropout anew": captures(Choices(checkpointing=True), stage, plan, small, GPU),
        "deterministic": captures(Choices(deterministic=True), stage, plan, small, GPU),
        "prior warms up": captures(Choices(), first(prior_warmup=5)[0], plan, small, GPU),
        "not known": captures(Choices(), replace(stage, hold=None), plan, small, GPU),
    }
    for words, (chosen, said) in reasons.items():
        assert not chosen and words in said and said.startswith("not captured")
    assert captures(Choices(capture="on"), stage, plan, 1.3 * small, GPU)[0]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured steps as they are on a GPU that is warm; ``graphed`` is the test's."""
    init = capture.Captured.__init__

    def warm(self: Any, *given: Any) -> None:
        init(self, *given)
        self._graphed = True

    monkeypatch.setattr(capture.Captured, "__init__", warm)


def same_as_plain(folder: Path) -> bool:
    """Whether the captured run in a folder is the plain one, bit by bit."""
    run(second, folder / "plain", [None], device="cpu")
    marks = [checkpoint.load(folder / name / "run") for name in ("plain", "captured")]
    return bool(marks[0] and marks[1] and marks[0].fingerprint() == marks[1].fingerprint())


def test_a_capture_that_fails_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_on_a_gpu: None
) -> None:
    """Kills: a step lost or made twice where the driver refuses a graph, a refusal in silence or at each step."""
    told: list[str] = []

    def refuses(*given: Any) -> Any:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(capture, "graphed", refuses)
    run(second, tmp_path / "captured", [None], device="cpu", capture=True, warn=told.append)
    assert same_as_plain(tmp_path)
    why = "(operation not permitted when stream is capturing)"
    assert told == [f"stage2: steps cannot be captured here {why}, they go on one by one"]


def test_two_graphs_are_made_once_and_replayed_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_on_a_gpu: None
) -> None:
    """Kills: a step beside its graph, a capture a step, warm steps captured, weights that move before the flag."""
    order: list[str] = []

    def graphed(call: Callable[[], None], graphs: list[Any], stream: Any) -> Callable[[], None]:
        name = call.__name__
        order.append(f"capture {name}")
        return lambda: order.append(name) or call()

    monkeypatch.setattr(capture, "graphed", graphed)
    run(second, tmp_path / "captured", [None], device="cpu", capture=True)
    assert same_as_plain(tmp_path)
    assert order == ["capture _losses", "_losses", "capture _move", "_move"] + ["_losses", "_move"] * 10
