"""Micro-batches: a step in parts is the step at once, and what does not fit is found out without harm."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unilat.cli.configure import parse_train
from unilat.cli.naming import options_named
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.models.base import Base, BaseConfig
from unilat.nets.encoder import EncoderConfig
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViTConfig
from unilat.recipe import presets
from unilat.recipe.config import Stage1Config
from unilat.run import train as run
from unilat.run.records import Note
from unilat.run.stages import AutoencoderStage, base_stage, prior_stage
from unilat.training import checkpoint, engine
from unilat.training.fast import Choices
from unilat.training.flat import Whole
from unilat.training.micro import MicroBatch, out_of_memory
from unilat.training.order import batch_indices
from unilat.training.parallel import World
from unilat.training.plan import Schedule, Stage
from unilat.training.records import Fitted
from unilat.training.state import State
from unilat.types import UserError

from .toy import Toy, fit, schedule

SEED, ROWS = 7, 40
ALONE = World(0, 1)


def moved(model: torch.nn.Module) -> None:
    """Every weight away from the zeros that hide what stands behind them."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def stage1() -> Stage:
    """Everything that draws: mirrored pictures, a learned variance, random ends, learned levels."""
    torch.manual_seed(0)
    networks = AutoencoderConfig(
        latent_channels=4,
        learned_variance=True,
        random_end=(0.0, 1.0),
        encoder=EncoderConfig(channels=(16, 16), blocks=(1, 1)),
        prior=ViTConfig(channels=(32,), blocks=(1,), head_width=16),
        decoder=UViTConfig(channels=(16,), blocks=(1,), width=32, depth=1, head_width=16),
    )
    model = Autoencoder(networks, 3, grid=(4, 4))
    moved(model)
    pictures = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8)
    return AutoencoderStage(model, pictures, pictures[:0], Stage1Config(batch=ROWS), flip=True).stage()


def settling() -> Stage:
    """The prior alone."""
    torch.manual_seed(0)
    prior = Autoencoder(AutoencoderConfig(prior=ViTConfig(channels=(32,), blocks=(2,))), 1).prior
    moved(prior)
    return prior_stage(prior, torch.randn(60, 8, 4, 4), lambda_0=5.0, lambda_min=-10.0)


def stage2() -> Stage:
    """A base model that drops labels and tokens and learns its levels."""
    torch.manual_seed(0)
    config = BaseConfig(vit=ViTConfig(channels=(32,), blocks=(3,)), token_dropping=0.5)
    base = Base(config, 8, 2, 5, -10.0, 5.0)
    moved(base)
    return base_stage(base, torch.randn(60, 8, 4, 4), torch.arange(60) % 5, "learned")


def one_step(
    make: Callable[[], Stage], micro: MicroBatch
) -> tuple[dict[str, float], Tensor, Tensor, dict[str, Tensor]]:
    """A step's numbers, its gradient, the weights after it, and what was observed."""
    stage, seen = make(), dict[str, Tensor]()
    observe = stage.observe
    stage = replace(stage, observe=lambda sums: (seen.update(sums), observe(sums))[1])
    plan = Schedule(batch=ROWS, samples=400, learning_rate=1e-3, optimizer="adamw", clip=math.inf)
    state = State(stage, plan, SEED, torch.device("cpu"))
    rows = stage.batch(batch_indices(stage.count, ROWS, SEED, 0))
    told, _ = engine._step(state, ALONE, 0, rows, micro)
    return told, state.gradients.whole.clone(), state.weights.whole.clone(), seen


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("make", [stage1, settling, stage2])
def test_a_step_in_parts_is_the_step(make: Callable[[], Stage], parts: int) -> None:
    """Parts of 20, of 13 and 14, and of 10 rows, which end within a block of noise.

    Kills: a part's mean for the batch's, the first rows' noise for all, a gradient of the last part alone, numbers
    told of one part, observations that forget or repeat a part.
    """
    told, gradient, weights, seen = one_step(make, MicroBatch())
    found = one_step(make, MicroBatch(-(-ROWS // parts)))
    assert found[0].keys() == told.keys() and len(told) >= 3
    for name, value in told.items():
        assert found[0][name] == pytest.approx(value, rel=1e-6), name
    assert float(gradient.norm()) > 1e-2
    assert float((found[1] - gradient).norm()) < 1e-6 * float(gradient.norm())
    assert float((found[2] - weights).norm()) < 1e-5 * float(weights.norm())
    assert found[3].keys() == seen.keys() and bool(seen) == (make is not settling)
    for name, sums in seen.items():
        torch.testing.assert_close(found[3][name], sums, rtol=1e-5, atol=1e-6)


def test_gradients_are_exchanged_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: an exchange for each micro-batch, which finds the same gradients for as many times the traffic."""
    asked, exchanged = list[bool](), Whole.exchanged

    def heard(laid: Whole, in_parts: bool) -> Any:
        asked.append(in_parts)
        return exchanged(laid, in_parts)

    monkeypatch.setattr(Whole, "exchanged", heard)
    plan = schedule(samples=24, batch=8)
    fit(Toy(), plan, tmp_path, SEED, micro=MicroBatch(3))
    assert asked == [True] * 3


def test_whole_batches_take_the_old_path_to_the_last_bit(tmp_path: Path) -> None:
    """Kills: another rounding where nothing is split, be it that as many or more rows than there are were asked."""
    runs = [fit(Toy(), schedule(), tmp_path / str(size), SEED, micro=MicroBatch(size)) for size in (0, 6, 99)]
    for other in runs[1:]:
        assert all(torch.equal(other.ema[name], tensor) for name, tensor in runs[0].ema.items())


def test_parts_cover_the_rows_once() -> None:
    """Kills: a last part left out or too long, rows counted from 0 in another process, an empty batch cut by 0, fewer
    parts than the process makes that has a row more, a part of no rows."""
    assert list(MicroBatch(4).parts(6, 16)) == [(6, 9), (9, 12), (12, 16)]
    assert list(MicroBatch(0).parts(6, 16)) == list(MicroBatch(10).parts(6, 16)) == [(6, 16)]
    assert list(MicroBatch(0).parts(3, 3)) == []
    assert list(MicroBatch(4).parts(8, 16, 9)) == [(8, 10), (10, 13), (13, 16)]
    assert list(MicroBatch(1).parts(4, 6, 3)) == [(4, 5), (5, 6)]
    for rows in range(1, 40):
        for size in range(1, 12):
            found = list(MicroBatch(size).parts(0, rows))
            assert [row for begin, end in found for row in range(begin, end)] == list(range(rows))
            assert max(end - begin for begin, end in found) <= size and len(found) == -(-rows // size)
    with pytest.raises(UserError, match="micro_batch -1"):
        MicroBatch(-1)


def test_each_part_draws_dropout_of_its_own() -> None:
    """Kills: one mask for all micro-batches of a step, or another one for the first than without them."""
    masks: list[Tensor] = []
    toy = Toy(width=40, dropout=0.5)
    toy.model.dropout.register_forward_hook(lambda module, inputs, output: masks.append(output.detach() == 0))
    for size in (3, 0):
        state = State(toy.stage(), schedule(), SEED, torch.device("cpu"))
        engine._step(state, ALONE, 0, None, MicroBatch(size))
    assert [len(mask) for mask in masks] == [3, 3, 6]
    assert not torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2][:3])


class Narrow(Toy):
    """A toy on a device with room for so many rows; ``memory`` raises as that device would."""

    def __init__(self, room: int, memory: Callable[[], object] | None = None):
        super().__init__(dropout=0.0, mixing=False)
        self.room, self.sizes = room, list[int]()
        self.memory = memory or (lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")))

    def losses(self, batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        self.sizes.append(len(batch[0]))
        if len(batch[0]) > self.room:
            self.memory()
        return super().losses(batch, draws)


def test_what_fits_is_found_and_told_and_does_no_harm(tmp_path: Path) -> None:
    """13 rows do not fit, 6 and 7 do not, 4 do, in every step from then on. Kills: a part of the gradient of a try that
    failed, a search anew in each step, a size that nobody hears of, one that is told where nothing was searched."""
    plan, heard = schedule(batch=13, samples=78), list[int]()
    toy = Narrow(4)
    found = fit(toy, plan, tmp_path / "narrow", SEED, micro=MicroBatch(search=True, found=heard.append))
    assert heard == [4] and toy.sizes == [13, 6] + 6 * [3, 3, 3, 4]
    wide = fit(Narrow(99), plan, tmp_path / "wide", SEED, micro=MicroBatch(4, search=True, found=heard.append))
    assert heard == [4]
    assert all(torch.equal(found.ema[name], tensor) for name, tensor in wide.ema.items() if name != "seen")


def test_memory_that_ends_in_a_later_part_leaves_nothing_behind() -> None:
    """The fourth part of 10 rows, then 5 at a time. Kills: the gradient of the parts before it, added once more."""
    passes: list[int] = []

    def narrow() -> Stage:
        stage = settling()

        def losses(batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
            passes.append(len(batch[0]))
            if len(passes) == 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return stage.losses(batch, draws)

        return replace(stage, losses=losses)

    search = MicroBatch(10, search=True)
    found, wanted = (one_step(make, micro) for make, micro in ((narrow, search), (settling, MicroBatch(5))))
    assert passes == 4 * [10] + 8 * [5]
    assert found[0] == wanted[0] and torch.equal(found[1], wanted[1])


def test_a_micro_batch_that_does_not_fit_is_told_with_one_that_does(tmp_path: Path) -> None:
    """Kills: a stack of frames, a size that does not fit either, a run that goes on with another size than asked."""
    for size in (0, 9, 6):
        with pytest.raises(UserError) as error:
            fit(Narrow(3), schedule(batch=12), tmp_path / str(size), SEED, micro=MicroBatch(size))
        assert str(error.value) == (
            f"toy: a batch of 12 in micro-batches of {size or 12} does not fit into memory; micro-batches of 3 do: "
            "set micro_batch to 3, or turn on checkpointing"
        )
        assert checkpoint.load(tmp_path / str(size)) is None
    least = MicroBatch(search=True)
    fit(Narrow(1), schedule(batch=12), tmp_path / "one", SEED, micro=least)
    assert least.size == 1
    with pytest.raises(UserError, match=r"^toy: not even a micro-batch of 1 of a batch of 12 fits into memory: "):
        fit(Narrow(0), schedule(batch=12), tmp_path / "none", SEED, micro=MicroBatch(search=True))
    assert "--micro-batch to 3" in options_named("set micro_batch to 3")


@pytest.mark.parametrize("memory", [lambda: torch.empty(1 << 60), lambda: bytearray(1 << 60)])
def test_the_processors_memory_ends_in_one_line_too(tmp_path: Path, memory: Callable[[], object]) -> None:
    """The allocator's own words. Kills: a traceback where a GPU would be told in one line."""
    with pytest.raises(UserError, match="micro-batches of 6 does not fit into memory; micro-batches of 3 do"):
        fit(Narrow(5, memory), schedule(), tmp_path, SEED, device="cpu")


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("no")])
def test_other_errors_are_not_taken_for_memory(tmp_path: Path, error: Exception) -> None:
    """Kills: every failure of a step tried again with half of its rows."""
    toy = Narrow(5, lambda: (_ for _ in ()).throw(error))
    with pytest.raises(type(error), match=str(error)):
        fit(toy, schedule(), tmp_path, SEED, micro=MicroBatch(search=True))
    assert toy.sizes == [6] and not out_of_memory(error)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_memory_that_ends_elsewhere_is_told(
    tmp_path: Path, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the optimiser's step, when weights have moved. Kills: the same step tried again on half of the weights."""

    def move(state: State, rate: float) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(State, "move", move)
    monkeypatch.setattr("unilat.training.fast.told", lambda model: "bf16, checkpointing" if checkpointing else "plain")
    state, way = ("on", "") if checkpointing else ("off", ", or with checkpointing")
    with pytest.raises(UserError) as error:
        fit(Toy(), schedule(), tmp_path, SEED, micro=MicroBatch(4, search=True))
    assert str(error.value) == (
        f"toy: out of memory with batch 6, micro-batch 4 and checkpointing {state}; the last checkpoint is intact: "
        f"run again with a smaller micro-batch{way}"
    )


INDICES = batch_indices(23, 6, SEED, 0).tolist()


@pytest.mark.parametrize(("what", "said"), [("data", "data are"), ("loss", "loss is"), ("gradient", "gradients are")])
def test_bad_samples_are_named_in_whichever_part_they_are(tmp_path: Path, what: str, said: str) -> None:
    """Row 4 of 6 is the last part's second. Kills: the place in a micro-batch told as the place in the batch."""
    toy = Toy(dropout=0.0, mixing=False)
    losses, bad = toy.losses, INDICES[4]
    if what == "data":
        toy.data[bad] = math.nan

    def spoiled(batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = losses(batch, draws)
        here = batch[1] == bad
        if what == "loss":
            loss = torch.where(here, math.nan, loss)
        if what == "gradient":
            loss = loss + (~here + 0.0 * next(toy.model.parameters()).flatten()[0]).sqrt() * here
        return loss, metrics

    toy.losses = spoiled  # type: ignore[method-assign]
    lines = list[str]()
    fit(toy, schedule(), tmp_path, SEED, micro=MicroBatch(4), stop_at=1, warn=lines.append)
    assert len(lines) == 1 and lines[0].startswith(f"toy, step 1: samples {bad}: their {said} not finite")


def test_a_run_remembers_what_fits(tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1 has room for 12 rows, what comes after it for 32. Kills: a resume that searches anew, one stage's size
    for the other's, a size found that wins over the one that is asked."""
    config = presets.get("tiny")
    config = replace(
        config,
        data=replace(config.data, source=str(tiny_source)),
        stage1=replace(config.stage1, samples=64),
        stage2=replace(config.stage2, samples=64),
    )
    seen: list[tuple[str, MicroBatch]] = []
    fit = run.fit

    def watched(stage: Stage, *arguments: Any, micro: MicroBatch, **named: Any) -> Fitted:
        seen.append((stage.name, replace(micro)))
        micro.search = micro.search or not seen[0][1].size  # as on a GPU, in the first run

        def losses(batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
            if stage.name == "stage1" and len(batch[0]) > 12:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return stage.losses(batch, draws)

        return fit(replace(stage, losses=losses), *arguments, micro=micro, **named)

    monkeypatch.setattr(run, "fit", watched)
    said: list[Any] = []
    run.train(config, tmp_path / "run", said.append)
    manifest = tmp_path / "run" / "manifest.json"
    assert json.loads(manifest.read_text())["micro_batches"] == {"stage1": 8}
    assert Note("stage1: in micro-batches of 8, which fit into memory") in said
    assert [(name, micro.size) for name, micro in seen] == [("stage1", 0), ("stage2", 0)]

    how = run._How(lambda told: None, "cpu", Choices())
    again = run._micro_batch("stage1", tmp_path / "run", how, True)
    assert (again.size, again.search) == (8, True)
    assert run._micro_batch("stage2", tmp_path / "run", how, True).size == 0
    how = replace(how, choices=Choices(micro_batch=5))
    asked = run._micro_batch("stage1", tmp_path / "run", how, True)
    assert (asked.size, asked.search) == (5, False)
    again.found(4)
    assert json.loads(manifest.read_text())["micro_batches"] == {"stage1": 4}
    monkeypatch.setenv("RANK", "1")
    again.found(2)
    assert json.loads(manifest.read_text())["micro_batches"] == {"stage1": 4}


def test_the_command_line_has_it(tmp_path: Path) -> None:
    """Kills: an option that goes nowhere, or into the configuration, which decides results."""
    plain, named = parse_train(["glyphs"]), parse_train(["glyphs", "--micro-batch", "16"])
    assert (plain.choices().micro_batch, named.choices().micro_batch) == (0, 16)
    assert named.settings == plain.settings
    assert re.search(r"--micro-batch N", (Path(__file__).parents[2] / "docs/help/train.txt").read_text())


def test_what_fits_is_sought_by_plain_blocks(tmp_path: Path) -> None:
    """Kills: every size that is tried compiled anew, a run that goes on uncompiled, one that knows what fits and
    begins uncompiled."""
    for search, size, seen in ((True, 0, [False, True]), (False, 0, [True]), (True, 6, [True])):
        toy, calls = Toy(), list[bool]()
        losses, block = toy.losses, next(part for part in toy.model.modules() if not [*part.children()])
        block._compiled_call_impl = block.forward

        def watched(batch: tuple[Tensor, ...], draws: Draws, said=calls, block=block, losses=losses) -> Any:
            said.append(block._compiled_call_impl is not None)
            return losses(batch, draws)

        toy.losses = watched  # type: ignore[method-assign]
        fit(toy, schedule(), tmp_path / f"{search}{size}", SEED, stop_at=2, micro=MicroBatch(size, search))
        assert [*dict.fromkeys(calls)] == seen and block._compiled_call_impl is not None


def test_what_is_found_leaves_a_tenth_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 bytes a row takes 11: 8 rows take 88, 9 would fit and leave too little. What was asked for may take all.

    Kills: a GPU that is filled to the last byte, one that is filled half, a peak that an earlier try has left.
    """
    toy = Narrow(9)

    def peak() -> int:
        return 11 * max(toy.sizes, default=0)

    for name, call in {
        "is_available": lambda: True,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": toy.sizes.clear,
        "max_memory_allocated": peak,
        "mem_get_info": lambda: (1, 100),
    }.items():
        monkeypatch.setattr(torch.cuda, name, call)
    for batch, search, size in ((9, True, 5), (8, True, 0), (9, False, 0)):
        micro = MicroBatch(search=search)
        plan = schedule(batch=batch, samples=2 * batch)
        fit(toy, plan, tmp_path / f"{batch}{search}", SEED, micro=micro, device="cpu")
        assert micro.size == size
