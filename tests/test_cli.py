"""The command line against stand-ins for what ``unilat`` offers: what reaches it, what comes back, how mistakes end."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import unilat
from measured import cost_of, described
from unilat.cli import main
from unilat.recipe import presets
from unilat.recipe.build import Description
from unilat.results import Bits, Costs, Distance, Number, Reconstruction, Results
from unilat.run.facts import Facts
from unilat.run.given import PictureSet
from unilat.run.records import Note
from unilat.training.records import Step
from unilat.types import UserError

RESULTS = Results(
    pictures="others",
    features=None,
    bits=Bits(target=0.3, measured=Number(value=0.297, stderr=0.002, n=32, unit="bits per pixel")),
    reconstruction=Reconstruction(
        steps=8, psnr=Number(value=24.25, stderr=0.1, n=32), ssim=Number(value=math.nan, n=32)
    ),
    generation=Distance(kernel=Number(value=0.012, stderr=0.003, n=32), frechet64=Number(value=math.nan, n=32)),
    costs=Costs(parameters={"encoder": 1234, "base": 56789}, training_flops={"encoder": 2.5e12, "base": 1e13}),
)


class FakeRun:
    """Six grey classes; pictures of 3 × 5 grey values that say what was asked for."""

    def __init__(self) -> None:
        self.config = presets.get("tiny")
        self.classes = ("a", "b", "7")
        self.data = Facts(source="elsewhere", channels=1, classes=(), sha256="")
        self.results = RESULTS
        self.asked: dict[str, Any] = {}
        self.base = self.few_base = self.few_decoder = None

    def sample(self, n: int, **options: Any) -> PictureSet:
        self.asked = {"n": n, **options}
        images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 16, 16)
        return PictureSet(images=images, labels=torch.arange(n) % 3, classes=self.classes)

    def evaluate(self, source: str | None) -> Results:
        """What ``unilat.evaluate`` is given comes here."""
        self.asked = {"source": source}
        print("a library chatters")
        return RESULTS


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A run that every folder holds, and a training that notes its configuration."""
    fake = FakeRun()

    def train(config: Any, out: Path, on_step: Any, choices: Any, features: Any, track: Any) -> FakeRun:
        fake.asked = {"config": config, "folder": out, "choices": choices}
        on_step(Note("reading glyphs"))
        for step in (1, 2):
            speed = {"samples": 32 * step, "samples_per_second": 99.0, "seconds_left": 61.0, "seconds": 1.0}
            numbers = {"loss": 0.5, "metrics": {"bpp": 0.25, "target": 0.3}}
            on_step(Step(stage="stage1", step=step, steps=2, **speed, **numbers))
        return fake

    def describe(config: Any) -> Description:
        return described({"encoder": cost_of(1234567, 3 * 10**9)})

    def load(folder: Path, decoder: str = "full", base: str = "full") -> FakeRun:
        if not folder.exists():
            raise UserError(f"{folder} is no run folder:\nit has no config.json")
        fake.asked = {"decoder": decoder, "base": base}
        return fake

    stand_ins = {"train": train, "describe": describe, "load": load}
    stand_ins["evaluate"] = lambda run, source, say, features, reference: run.evaluate(source)
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(unilat, name, stand_in, raising=False)
    return fake


def test_train_hands_over_the_configuration(run: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Kills options that are parsed and then forgotten."""
    words = ["train", "glyphs", "--bpp", "0.2", "--preset", "tiny", "--out", str(tmp_path / "r"), "--seed", "5"]
    assert main([*words, "--stage1.batch", "48"]) == 0
    config = run.asked["config"]
    assert (config.stage1.target_bpp, config.stage1.batch, config.seed, config.data.source) == (0.2, 48, 5, "glyphs")
    assert run.asked["folder"] == tmp_path / "r"
    out, err = capsys.readouterr()
    assert "0.297 ± 0.002" in out
    assert "report.html" in out
    assert err.startswith("reading glyphs\n")
    assert "stage 1, autoencoder, 100%: step 2/2, 99 samples/s, 1:01 left, bits 0.250 of 0.3 wanted, loss 0.5" in err


def test_json_is_one_object_alone(run: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Kills chatter on standard output, and NaN, which JSON has not."""
    assert main(["evaluate", str(tmp_path), "--json"]) == 0
    out, err = capsys.readouterr()
    expected = RESULTS.to_json()
    assert json.loads(out, parse_constant=pytest.fail) == expected
    assert json.loads(out)["reconstruction"]["ssim"]["value"] is None
    assert "a library chatters" in err
    assert main(["train", "glyphs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected | {"report": str(Path("runs") / "glyphs" / "report.html")}
    assert main(["train", "glyphs", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["data"]["source"] == "glyphs"


def test_child_processes_stay_off_standard_output():
    """Kills a redirection of ``sys.stdout`` alone: pip, npm and apt-get write to descriptor 1."""
    code = (
        "import os, subprocess, sys\nfrom unilat.cli.output import Output\n"
        "with Output(True) as output:\n"
        "    print('python'); subprocess.run(['echo', 'child'])\n"
        "    output.result({'a': 1}, '')\nprint('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == '{\n  "a": 1\n}\nafter\n'
    assert sorted(done.stderr.split()) == ["child", "python"]


def test_dry_run_prints_and_stops(run: FakeRun, capsys: pytest.CaptureFixture[str]):
    """Kills a dry run that trains."""
    assert main(["train", "glyphs", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert run.asked == {}
    for part in ('"latent_channels"', "1,234,567", "3.00e+09", "latent 4×7×8"):
        assert part in out


def test_sample_makes_a_sheet(run: FakeRun, tmp_path: Path):
    """Kills options of ``sample`` that go nowhere, and pictures out of place on the sheet."""
    out = tmp_path / "new" / "sheet.png"
    words = ["sample", str(tmp_path), "-n", "5", "--class", "b", "--guidance", "2", "--seed", "7", "--out", str(out)]
    assert main(words) == 0
    assert run.asked == {"n": 5, "label": "b", "guidance": 2.0, "steps": None, "seed": 7}
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 18 - 2, 2 * 18 - 2)
        assert [sheet.getpixel((0, 0)), sheet.getpixel((18, 0)), sheet.getpixel((0, 18))] == [0, 1, 3]
        assert sheet.getpixel((17, 0)) == 255


def test_sample_into_a_folder(run: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Kills pictures out of order."""
    assert main(["sample", str(tmp_path), "-n", "3", "--out", str(tmp_path / "each"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == [0, 1, 2]
    files = sorted((tmp_path / "each").iterdir())
    assert [file.name for file in files] == ["00000-a.png", "00001-b.png", "00002-7.png"]
    assert [Image.open(file).getpixel((3, 3)) for file in files] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train"], 2, "DATA"),
        (["train", "glyphs", "--bppp", "0.3"], 2, "--bpp"),
        (["train", "glyphs", "--stage1.bach", "64"], 2, "--stage1.batch"),
        (["train", "glyphs", "--bpp", "many"], 2, "--bpp"),
        (["train", "glyphs", "--bpp", "-1"], 2, "bits per pixel"),
        (["train", "glyphs", "--bpp", "nan"], 2, "bits per pixel"),
        (["train", "glyphs", "--bpp", "0.3", "--loss-factor", "1.5"], 2, "one of them"),
        (["train", "glyphs", "--preset", "tny"], 2, "tiny"),
        (["train", "glyphs", "--config", "nowhere.json"], 2, "nowhere.json"),
        (["trian", "glyphs"], 2, "perhaps you meant `unilat train`"),
        (["data", "lok"], 2, "perhaps you meant `unilat data look`"),
        (["sample", "nowhere", "--stpes", "3"], 2, "--steps"),
        (["sample", "nowhere"], 2, "error: nowhere is no run folder: it has no config.json\n"),
    ],
)
def test_mistakes_are_told(run: FakeRun, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str):
    """Kills mistakes that pass silently, end in a traceback, or print on standard output."""
    assert main(words) == code
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert run.asked == {}


def test_unexpected_errors_say_how_to_see_more(
    run: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Kills a traceback for everybody, and its absence for those who ask for it."""
    monkeypatch.delenv("UNILAT_TRACEBACK", raising=False)
    monkeypatch.setattr(run, "evaluate", lambda source: 1 // 0)
    assert main(["evaluate", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ZeroDivisionError")
    assert err.count("\n") == 1
    assert "UNILAT_TRACEBACK=1" in err
    monkeypatch.setenv("UNILAT_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", str(tmp_path)])


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_interruptions_have_their_codes(
    run: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int
):
    """Kills a code that a supervisor would take for success."""

    def stopped(source: str | None) -> None:
        raise stop

    monkeypatch.setattr(run, "evaluate", stopped)
    before = sys.stdout
    assert main(["evaluate", str(tmp_path)]) == code
    assert sys.stdout is before


def test_look_counts_what_a_folder_holds(run: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The real reader behind ``data look``: kills a count that is not told, a sheet that is not written."""
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for shade in range(3):
            Image.new("L", (20, 16), 60 * shade + len(name)).save(tmp_path / "in" / name / f"{shade}.png")
    (tmp_path / "in" / "a" / "broken.png").write_bytes(b"no picture")
    words = ["data", "look", str(tmp_path / "in"), "--size", "16", "--out", str(tmp_path / "sheet.png")]
    assert main([*words, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["read"], seen["skipped_count"]) == (6, 1)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "6 pictures of 16 x 16" in out
    assert "broken.png" in out
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_get_refuses_unknown_names(capsys: pytest.CaptureFixture[str]):
    """Kills a download of whatever is typed."""
    assert main(["data", "get", "imagenet"]) == 2
    assert "fashion-mnist" in capsys.readouterr().err


def test_the_module_runs_as_the_program(capsys: pytest.CaptureFixture[str]):
    """``python -m unilat`` is ``unilat``, and ``--version`` names the installed package's."""
    done = subprocess.run([sys.executable, "-m", "unilat", "--version"], capture_output=True, text=True, timeout=60)
    assert main(["--version"]) == 0
    assert done.returncode == 0
    assert done.stdout == capsys.readouterr().out
    assert done.stdout.startswith("unilat 0.")
    assert main([]) == 2


@pytest.mark.parametrize(("rank", "said"), [("0", "the others of 3 have nothing to do"), ("1", ""), ("2", "")])
def test_under_torchrun_one_process_does_what_takes_one(
    run: FakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: str,
    said: str,
):
    """Kills: several processes that write one file, a first one that waits for the others, training held to one."""
    for name, value in {"WORLD_SIZE": "3", "RANK": rank, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "sheet.png"
    assert main(["sample", str(tmp_path), "-n", "4", "--out", str(out)]) == 0
    assert out.is_file() is (rank == "0")
    assert (os.environ["WORLD_SIZE"] == "1") is (rank == "0")
    heard = capsys.readouterr().err
    assert said in heard and (heard == "") is (rank != "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main(["train", "glyphs", "--out", str(tmp_path / "run")]) == 0 and os.environ["WORLD_SIZE"] == "3"


def test_settings_are_frozen_copies():
    """Kills a command line that changes the presets for whoever comes next."""
    before = dataclasses.asdict(presets.get("small"))
    from unilat.cli.configure import parse_train

    parse_train(["glyphs", "--stage1.batch", "3", "--bpp", "0.1"])
    assert dataclasses.asdict(presets.get("small")) == before
