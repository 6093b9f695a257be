"""``make bench-gpu`` where there is no GPU: rehearsed whole, and what it makes of its measures by hand."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmark_samples import Opener, found, opener, says
from unilat.training.fast import Choices
from unilat.types import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Opener:
    """Scripts on the test's own folder."""
    return opener(monkeypatch, tmp_path)


@pytest.fixture
def gpu(script: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``benchmarks/gpu.py``."""
    monkeypatch.delitem(sys.modules, "gpu_steps", raising=False)
    made = script("gpu")
    made.WORK = tmp_path / "work"
    made.WORK.mkdir()
    return made


def test_rehearsed_on_a_cpu_every_row_is_there_and_none_is_measured(gpu: ModuleType) -> None:
    """Kills: a call that the engine no longer takes, a goal without its row, a rehearsal's figure told as a GPU's."""
    rows = gpu.rehearse()
    names = [row["what"] for row in rows]
    assert len(names) == len(set(names)) and all(": not measured" in name for name in names)
    assert {row["value"] for row in rows} == {row["n"] for row in rows} == {row["holds"] for row in rows} == {None}
    assert {name.removesuffix(": not measured") for name in names} >= gpu.GOALS.keys()
    for preset in ("small", "photo-64", "photo-128", "photo-256", "imagenet-512"):
        for stage in gpu.STAGES:
            for what in ("a step", "share of the bf16 product's rate", "rate", "batch of it", "peak memory"):
                assert {f"{preset}, {stage}: {what}, {side}: not measured" for side in ("plain", "chosen")} <= {*names}
    assert {f"`unilat train glyphs`: {name}: not measured" for name in ("stage 1", "stage 2", "evaluate")} <= {*names}


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    """Kills: a CPU's figures in the file, a traceback."""
    before = sorted((ROOT / "benchmarks" / "results").iterdir())
    words = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "", "CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path)}
    run = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120, check=True)
    assert run.stdout.startswith("there is no GPU here") and run.stdout.count("\n") == 1
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == before


def test_rows_of_a_stage_by_hand(gpu: ModuleType) -> None:
    """Plain 60 ms for 8 examples, chosen 12 ms for 16: 10 times; 2e11 FLOPs an example and 1.6e12 a step of
    Muon, at 1e15 a second.

    Kills: a ratio of steps where batches differ, chosen over plain, FLOPs of one example for those of a batch, seconds
    told as milliseconds, one side's memory for the other's.
    """
    sides = {
        "plain": {"batch": 8, "step": 0.060, "first": 2.0, "gib": 30.0},
        "chosen": {"batch": 16, "step": 0.012, "first": 41.0, "gib": 20.0},
    }
    work = lambda examples, batch: 2e11 * examples + 1.6e12 * examples / batch  # noqa: E731
    rows = gpu.preset_rows("imagenet-512, stage 1", sides, work, 1e15)
    assert says(found(rows, "imagenet-512, stage 1: an example, plain / chosen"), 10.0, None, None, None)
    assert says(found(rows, "imagenet-512, stage 1: a step, chosen"), 12.0, None, None, None)
    assert says(found(rows, "imagenet-512, stage 1: rate, chosen"), 400.0, None, None, None)
    assert says(found(rows, "imagenet-512, stage 1: share of the bf16 product's rate, chosen"), 0.4, None, None, None)
    assert says(
        found(rows, "imagenet-512, stage 1: share of the bf16 product's rate, plain"), 0.16 / 3, None, None, None
    )
    assert says(found(rows, "imagenet-512, stage 1: peak memory, plain"), 30.0, None, None, None)
    assert says(found(rows, "imagenet-512, stage 1: until the first step is done"), 41.0, None, None, None)
    rows = gpu.preset_rows("small, stage 1", sides, work, 1e15)
    assert says(found(rows, "small, stage 1: a step, chosen"), 12.0, None, None, False)


def test_a_step_at_its_own_batch_follows_from_one_and_two(gpu: ModuleType) -> None:
    """A micro-batch of 16 costs 12 ms, what comes once a step 8: 64 of them 0.776 s, for 1,024 examples of 3e11 FLOPs.

    Kills: what comes once counted with each, micro-batches off by one, a rate of another batch.
    """
    work = lambda examples, batch: 3e11 * examples  # noqa: E731
    step, share = gpu.own_rows("imagenet-512, stage 1", {"batch": 16, "step": 0.020}, 0.032, 1024, work, 1e15)
    assert says(step, 0.776, None, None, None) and says(share, 0.3072 / 0.776, None, None, False)


def test_what_is_compiled_ahead_fits_into_its_time(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: processes for parts that nobody asked for, a wait without end, a stage that imagenet-512 has not."""
    begun, killed, waits = list[list[str]](), list[str](), list[float]()

    class Process:
        def __init__(self, words: list[str], env: dict[str, str]):
            begun.append(words[words.index("--ahead") + 1 :])

        def wait(self, timeout: float | None = None) -> None:
            if timeout is not None:
                waits.append(timeout)
                raise subprocess.TimeoutExpired("ahead", timeout)

        def kill(self) -> None:
            killed.append("one")

    monkeypatch.setattr(gpu.subprocess, "Popen", Process)
    gpu.ended(gpu.compile_ahead(["photo-64", "imagenet-512"]), 30.0)
    assert begun == [["0", "photo-64", "imagenet-512"], ["1", "photo-64", "imagenet-512"]]
    assert killed == ["one", "one"] and all(1.0 <= wait <= 30.0 for wait in waits)

    asked = list[tuple[str, str]]()
    monkeypatch.setattr(gpu, "ahead", lambda name, stage, place: asked.append((name, stage)) or 7.0)
    for group in range(len(gpu.AHEAD)):
        gpu.compile_group(group, ["imagenet-512", "photo-256"], gpu.Place("cpu", tiny=True, work=gpu.WORK))
    assert asked == [
        ("imagenet-512", "stage 1"), ("imagenet-512", "stage 2"), *(("photo-256", stage) for stage in gpu.STAGES),
    ]  # fmt: skip
    assert json.loads((gpu.WORK / "first-imagenet-512.json").read_text()) == {
        "imagenet-512, stage 1": 7.0, "imagenet-512, stage 2": 7.0,
    }  # fmt: skip


def test_goals_hold_on_their_side(gpu: ModuleType) -> None:
    """Kills: a goal read the other way round, bits off by a factor, float32 over bf16, a ratio for a difference."""
    assert says(gpu.told("small, stage 2: an example, plain / chosen", 7.9, "ratio"), 7.9, None, None, False)
    low, full = gpu.bits_rows(0.2012, 0.2)[1:], gpu.bits_rows(0.2012, 0.2)[0]
    assert full["value"] == 0.2 and says(low[1], 0.006, None, None, False)
    assert says(gpu.bits_rows(0.1992, 0.2)[2], -0.004, None, None, True)
    same, loss = gpu.resume_rows(0.0, 5e-4)
    assert same["holds"] and loss["holds"] and not gpu.resume_rows(1e-9, -2e-3)[0]["holds"]
    assert not gpu.resume_rows(0.0, -2e-3)[1]["holds"]
    rows = gpu.glyphs_rows({"stage 1": 20.0, "evaluate": 4.0}, {"prior": 11.0}, 44.0)
    assert says(found(rows, "`unilat train glyphs`: all"), 44.0, None, None, True)
    assert says(found(rows, "`unilat train glyphs`: loop of prior"), 11.0, None, None, None)


def test_steps_are_timed_after_the_warm_ones_and_end_in_time(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm steps of 1 s, then steps of 0.5 s: four until 2 s are over. Kills: warm steps timed, a mean over one step
    too many, a wait between steps, an end that never comes."""
    now, waits = [100.0], list[int]()
    steps: Any = sys.modules["gpu_steps"]
    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    place = SimpleNamespace(wait=lambda: waits.append(1))
    clock = steps.Clock(place, 100)
    with pytest.raises(steps.Done):
        for index in range(99):
            now[0] += 1.0 if index < steps.WARM else 0.5
            clock(None)
    assert (clock.first, clock.step, clock.count, len(waits)) == (1.0, 0.5, steps.WARM + 5, 3)
    few = steps.Clock(place, 3)
    with pytest.raises(steps.Done):
        for _ in range(99):
            few(None)
    assert few.count == steps.WARM + 3


def test_half_the_batch_is_tried_where_memory_ends(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a row of a batch that did not fit, a preset lost for one stage."""
    tried: list[int] = []

    def fit(stage: Any, plan: Any, folder: Path, seed: int, *, progress: Any, **named: Any) -> None:
        tried.append(plan.batch)
        if plan.batch > 8:
            raise UserError("memory")
        progress.step, progress.first = 0.5, 1.0
        raise sys.modules["gpu_steps"].Done

    monkeypatch.setattr("unilat.training.engine.fit", fit)
    place = gpu.Place("cpu", tiny=True, work=gpu.WORK)
    _, stage, plan, _, whole = next(gpu.stages(place.config("small"), place))
    one = gpu.steps(stage, plan, whole, Choices(), place)
    assert tried == [32, 16, 8] and (one["batch"], one["step"]) == (8, 0.5)


def test_a_part_that_hangs_or_fails_is_told_with_its_goals(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: eight minutes that become an hour, a goal that is passed over in silence where its part failed."""

    def hangs(command: list[str], *, timeout: float, **named: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gpu.subprocess, "run", hangs)
    rows = gpu.run_part("imagenet-512", 33.0)
    assert all(row["value"] is None and row["holds"] is False for row in rows)
    assert [row["what"].split(": ")[-1] for row in rows] == ["not measured (not done in 33 s)"] * len(rows)
    assert len(rows) == sum(name.startswith("imagenet-512") for name in gpu.GOALS)
    monkeypatch.setattr(gpu.subprocess, "run", lambda *given, **named: SimpleNamespace(returncode=1))
    (row,) = gpu.run_part("photo-64", 9.0)
    assert row["what"] == "photo-64: all its rows: not measured (its process ended with 1)"
    assert json.loads((gpu.WORK / "photo-64.json").read_text()) == [row]

    def ends_half_way(command: list[str], *, timeout: float, **named: Any) -> None:
        made = [gpu.told("imagenet-512, stage 1 at its own batch: share of the bf16 product's rate", 0.41, "of it")]
        (gpu.WORK / "imagenet-512.json").write_text(json.dumps(made))
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gpu.subprocess, "run", ends_half_way)
    half = gpu.run_part("imagenet-512", 33.0)
    assert len(half) == len(rows) and half[0]["holds"] is True and [row["holds"] for row in half[1:]] == [False] * 2


def test_all_parts_end_within_eight_minutes(gpu: ModuleType) -> None:
    """Kills: a budget beyond what a borrowed machine is lent for."""
    assert gpu.BUDGET <= 470
