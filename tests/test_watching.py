"""A run seen from its folder: whether it is trained, how far, how fast, and what the terminal shows of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unilat.cli import main, watching
from unilat.cli.watching import BLOCKS, brief, lines, spark
from unilat.recipe import presets
from unilat.recipe.config import to_dict
from unilat.run.folder import RunFolder
from unilat.run.watching import planned, watch
from unilat.types import UserError

Row = dict[str, Any]


@pytest.fixture
def begun(tmp_path: Path) -> Callable[[list[Row]], Path]:
    """Makes a folder of an unsealed ``tiny`` run with these lines in its log."""

    def make(rows: list[Row]) -> Path:
        files = RunFolder(tmp_path / "run")
        files.path.mkdir(exist_ok=True)
        files.config.write_text(json.dumps(to_dict(presets.get("tiny"))))
        files.log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return files.path

    return make


def _rows(stage: str, steps: list[int], seconds: float = 2.0, **numbers: list[float]) -> list[Row]:
    return [
        {"stage": stage, "step": step, "samples": 32 * step, "seconds": seconds * step, "loss": 0.5}
        | {name: values[index] for name, values in numbers.items()}
        for index, step in enumerate(steps)
    ]


def test_steps_speed_and_time_left_are_the_logs(begun: Any) -> None:
    """Forty steps of 32 pictures, two seconds each. Kills: speed in steps, time left of steps made, a speed over all of
    the run where the last lines differ, numbers of another stage, the last measured value lost between two lines."""
    bpp, now_and_then = [0.9, 0.5, 0.4], {"calibration_bpp": 0.45}
    rows = _rows("stage1", [1, 10, 16], bpp=bpp, target=[0.4, 0.4, 0.4])
    rows[1] |= now_and_then
    seen = watch(begun([*rows, {"stage": "stage1", "step": 17, "samples": 512, "skipped": "nan", "seconds": 99.0}]))
    (stage,) = seen.stages
    assert (stage.name, stage.step, stage.steps, stage.samples) == ("stage1", 16, 40, 512)
    assert stage.samples_per_second == pytest.approx(16.0) and stage.seconds_left == pytest.approx(48.0)
    assert stage.latest == {"loss": 0.5, "bpp": 0.4, "target": 0.4, "calibration_bpp": 0.45}
    assert list(stage.curves["bpp"]) == [(32.0, 0.9), (320.0, 0.5), (512.0, 0.4)]
    assert "calibration_bpp" not in stage.curves  # one point is no curve
    late = _rows("stage1", list(range(1, 31))) + [
        {"stage": "stage1", "step": step, "samples": 32 * step, "seconds": 60.0 + 4.0 * (step - 30)}
        for step in range(31, 51)
    ]
    assert watch(begun(late)).stages[0].samples_per_second == pytest.approx(8.0)


def test_stages_are_the_configurations() -> None:
    """Kills: a stage that is not trained told as to come, the prior's steps counted in stage 1's batches."""
    tiny = presets.get("tiny")
    assert planned(tiny) == {"stage1": 40, "stage2": 20}
    small = planned(presets.get("small"))
    assert list(small) == ["stage1", "prior", "stage2"]
    assert small["prior"] == -(-160_000 // presets.get("small").stage1.settle_batch)
    vae = presets.get("kl-vae")
    assert list(planned(replace(vae, stage1=replace(vae.stage1, settle=64)))) == ["stage1", "stage2"]


def test_who_trains_it_is_told_by_the_lock(begun: Any) -> None:
    """A process that lives trains it; one that was killed left its lock behind. Kills: a dead trainer waited for, a
    live one told as stopped, results of before shown while it trains."""
    folder = begun(_rows("stage1", [1, 2]))
    assert watch(folder).state == "stopped"
    assert "go on with `unilat train photos` and `out`" in watch(folder).way_out.replace("glyphs", "photos")
    (folder / ".lock").write_text(f"{os.getpid()}\n")
    seen = watch(folder)
    assert (seen.state, seen.process, seen.way_out, seen.results) == ("training", os.getpid(), "", None)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / ".lock").write_text(f"{dead.pid}\n")
    assert watch(folder).state == "stopped"
    (folder / ".lock").write_text("")  # it does not tell who
    assert (watch(folder).state, watch(folder).process) == ("training", None)


def test_a_torn_line_is_left_out(begun: Any) -> None:
    """The trainer may be writing. Kills: half a line read as a whole one, or as the end of watching."""
    folder = begun(_rows("stage1", [1, 2]))
    with RunFolder(folder).log.open("a") as log:
        log.write('{"stage": "stage1", "step": 30, "samples": 960, "seconds": 60')
        log.flush()
        assert watch(folder).stages[0].step == 2
        log.write("}")  # its newline is still to come, and with it perhaps another digit
    assert watch(folder).stages[0].step == 2
    assert watch(begun([])).stages == ()


def test_a_finished_run_shows_what_it_was_measured_at(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command, once and as JSON. Kills: other bits than metrics.json's, a command that waits for what is
    done, a progress bar that is not full."""
    import unilat

    results = unilat.load(tiny_run).results
    assert main(["watch", str(tiny_run)]) == 0
    said = capsys.readouterr().out
    assert f"{tiny_run}: finished" in said and "stage 2, base model   ████████████████████ 100%  step 4/4" in said
    assert "0.4 wanted" in said and f"PSNR {results.reconstruction.psnr.value:.2f} dB" in said
    assert str(RunFolder(tiny_run).report) in said
    assert main(["watch", str(tiny_run), "--once", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["results"] == {"bits": results.bits.value, "stderr": results.bits.stderr}
    assert [(stage["name"], stage["step"]) for stage in tree["stages"]] == [("stage1", 8), ("stage2", 4)]


def test_what_is_shown_of_a_stage(begun: Any) -> None:
    """Kills: bits against the wrong aim, a share of other steps, a stage to come left out, minutes for seconds."""
    folder = begun(_rows("stage1", [1, 10, 20], bpp=[0.9, 0.6, 0.3125], target=[0.25] * 3, calibration_bpp=[1, 1, 0.5]))
    (folder / ".lock").write_text(f"{os.getpid()}\n")
    seen = watch(folder)
    said = lines(seen)
    assert said[0] == f"{folder}: training by process {os.getpid()}"
    assert said[2] == "stage 1, autoencoder  ██████████░░░░░░░░░░  50%  step 20/40, 16 samples/s, 0:40 left"
    assert "0.3125 of 0.2500 held" in said[3]
    assert "█▄▁" in said[3] and "0.5000 of 0.3 wanted" in said[4]
    assert said[-1] == "then: stage 2, base model; then it is measured"
    assert brief(seen) == f"{said[2]}, bits 0.312, loss 0.5"


def test_sparks_rise_with_the_values() -> None:
    """Kills: a curve upside down, values beyond the last block, more columns than there is room for."""
    assert spark([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == BLOCKS
    assert spark([7.0, 0.0]) == "█▁" and spark([1.0]) == "" and spark([2.0, 2.0]) == "▁▁"
    assert len(spark([float(value) for value in range(1000)])) <= watching.WIDE


def test_following_ends_with_the_training(begun: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Another process trains and ends: a line while it does, all of it at the end. Kills: following for ever, an end
    that shows the state of the beginning."""
    folder = begun(_rows("stage1", [1, 2]))
    code = "import sys, time, pathlib\ntime.sleep(1.0)\npathlib.Path(sys.argv[1]).unlink()"
    trainer = subprocess.Popen([sys.executable, "-c", code, str(folder / ".lock")])
    (folder / ".lock").write_text(f"{trainer.pid}\n")
    assert main(["watch", str(folder), "--every", "0.2"]) == 0
    told = capsys.readouterr()
    trainer.wait()
    assert "step 2/40" in told.err and f"{folder}: stopped" in told.out


def test_bad_input_is_one_line(tmp_path: Path, begun: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: a traceback for a folder that is no run, an interval of none."""
    assert main(["watch", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} is not a run folder")
    assert main(["watch", str(begun([])), "--every", "0"]) == 2
    assert "a number of seconds" in capsys.readouterr().err
    with pytest.raises(UserError):
        watch(tmp_path / "nowhere")
