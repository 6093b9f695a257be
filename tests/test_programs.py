"""Programs are named by the person at the command line, or not run at all: a run folder may be anybody's."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

import unilat
from unilat.cli import main
from unilat.metrics.features import refuse_program
from unilat.recipe.config import RunConfig
from unilat.run.reference import network_of
from unilat.types import UserError

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Canary(torch.nn.Module):
    """Features that leave a file behind when they are computed."""

    def __init__(self, place: str):
        super().__init__()
        self.place: str = place

    def forward(self, x: Tensor) -> Tensor:
        written = torch.from_file(self.place, True, 4)
        return x.float().mean((2, 3)) + 0 * written.sum()


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path, canary: Path) -> Path:
    """A foreign run, unsealed, that holds a program and names it as its feature network."""
    copied = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (copied / "seal.json").unlink()
    torch.jit.script(Canary(str(canary))).save(str(copied / "network.pt"))
    shutil.copy(copied / "network.pt", copied / "auto")
    return copied


def name(folder: Path, program: str) -> None:
    tree = json.loads((folder / "config.json").read_bytes())
    tree["evaluation"]["features"] = program
    (folder / "config.json").write_text(json.dumps(tree))


def test_no_command_runs_what_a_configuration_names(
    folder: Path, tiny_source: Path, canary: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a whole path, by one inside the folder and by one like a name. Kills: any of them run, by any command."""
    monkeypatch.chdir(folder)
    for program in (
        str(folder / "network.pt"),
        "network.pt",
        "./auto",
        "auto@1",
        "efficientnet-lite0@64/../network.pt",
    ):
        name(folder, program)
        before = sorted(path.name for path in folder.iterdir())
        for words in (
            ["evaluate", "."],
            ["evaluate", ".", str(tiny_source)],
            ["train", str(tiny_source), "--config", "config.json", "--out", "new"],
            ["train", str(tiny_source), "--config", "config.json", "--out", "."],
            ["train", str(tiny_source), "--preset", "tiny", "--out", "new", "--evaluation.features", program],
            ["bench", "."],
        ):
            capsys.readouterr()
            assert main(words) == 2, words
            line = capsys.readouterr().err.splitlines()[-1]
            assert "a file is a program, and is run only if you name it yourself, with --features" in line, line
        assert main(["report", "."]) == 0 and main(["doctor", "."]) in (0, 1)
        assert main(["sample", ".", "-n", "1", "--out", "s.png"]) == 0
        with pytest.raises(UserError, match="with `features`"):
            unilat.evaluate(unilat.load("."))
        assert not canary.exists()
        (folder / "s.png").unlink()
        assert sorted(path.name for path in folder.iterdir()) == before


def test_what_is_named_on_the_command_line_is_run(
    folder: Path, canary: Path, tiny_source: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Kills: a canary that could not sing, and a network that is named and not asked, by either command."""
    network = str(folder / "network.pt")
    assert main(["evaluate", str(folder), "--features", network, "--json"]) == 0
    assert "network (TorchScript file" in json.loads(capsys.readouterr().out)["features"] and canary.exists()
    canary.unlink()
    words = ["train", str(tiny_source), "--preset", "tiny", "--bpp", "0.4", "--out", str(tmp_path / "new")]
    words += ["--stage1.samples", "64", "--stage1.settle", "0", "--stage2.samples", "0", "--features", network]
    assert main([*words, "--json"]) == 0
    assert "TorchScript" in json.loads(capsys.readouterr().out)["features"] and canary.exists()
    assert json.loads((tmp_path / "new" / "config.json").read_bytes())["evaluation"]["features"] == "none"


def test_names_of_networks_are_no_programs() -> None:
    """Kills: a name refused, and what is named beside the configuration refused by its rule."""
    for one in ("auto", "none", "efficientnet-lite0", "efficientnet-lite0@224"):
        refuse_program(one)
    for one in ("", "Auto", "auto ", "auto\n", "none.pt", "efficientnet-lite0@", "efficientnet-lite0@64.pt", "../auto"):
        with pytest.raises(UserError, match="a file is a program"):
            refuse_program(one)
    assert network_of(RunConfig(), "none", None) == (None, None)


def test_every_field_that_may_be_a_path_is_known() -> None:
    """Texts of a configuration that are no choice of words: each is read as data or refused as a program.

    ``data.source`` is read as pictures; ``stage1.autoencoder`` and ``stage1.start`` as a folder of a run or a model,
    JSON and safetensors, whose own configuration is not followed; ``evaluation.features`` is a name, ``data.labels``
    are names of columns. Kills: a sixth that nobody thought of.
    """
    known = ["data.labels", "data.source", "evaluation.features", "stage1.autoencoder", "stage1.start"]
    assert sorted(_texts(RunConfig, "")) == known


def _texts(kind: type, place: str) -> list[str]:
    found = []
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found += _texts(hint, f"{place}{name}.")  # type: ignore[arg-type]
        elif str in (hint, *get_args(hint)) and get_origin(hint) is not Literal:
            found.append(place + name)
    return found
