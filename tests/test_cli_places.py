"""Where commands may write: one rule for every ``--out``, and nothing of the user's or of a run is lost by it."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from PIL import Image

from unilat.cli import main, places
from unilat.cli.commands import COMMANDS
from unilat.models.latents import LatentSet
from unilat.report.compare import TITLE
from unilat.run.folder import RunFolder, _Inside
from unilat.signals import Image as Kind
from unilat.signals.kind import SOFTWARE
from unilat.types import UserError


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    """A latent data set as `encode` writes it."""
    z = torch.zeros(3, 1, 2, 2)
    return LatentSet(z, torch.zeros(3), torch.zeros(3).long(), 5.0, "f" * 64, 4).save(tmp_path / "mine.safetensors")


@pytest.fixture
def mine(tmp_path: Path, latents: Path) -> dict[str, Path]:
    """One file of each kind of output, as unilat writes it, and a text of the user's."""
    (tmp_path / "mine.png").write_bytes(Kind.png(torch.zeros(1, 2, 2, dtype=torch.uint8), software=SOFTWARE))
    (tmp_path / "mine.html").write_text(f"<title>2 {TITLE}</title>")
    (tmp_path / "notes.txt").write_text("my notes")
    names = ("mine.png", "mine.html", "notes.txt")
    return {"latents": latents, **{Path(name).suffix[1:]: tmp_path / name for name in names}}


@pytest.mark.parametrize(
    ("ask", "own"), [(places.for_sheet, "png"), (places.for_latents, "latents"), (places.for_page, "html")]
)
def test_a_file_is_replaced_by_its_own_kind_alone(
    ask: Callable[[Path], Path], own: str, mine: dict[str, Path], tmp_path: Path
) -> None:
    """Kills: a file of the user's or of another command written over, an output that cannot be made again."""
    for kind, path in mine.items():
        if kind == own:
            assert ask(path) == path
        else:
            with pytest.raises(UserError, match=r"is there and not a .* that unilat wrote: choose another `out`"):
                ask(path)
    (tmp_path / "empty").touch()  # what mktemp makes
    assert ask(tmp_path / "empty") == tmp_path / "empty" and ask(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    for wrong, words in (
        (tmp_path, "is a folder: name a file"),
        (Path(os.devnull), "is no file"),
        (mine["txt"] / "new" / "x", "notes.txt is a file"),
    ):
        with pytest.raises(UserError, match=words):
            ask(wrong)


def test_a_picture_of_another_program_is_the_users(tmp_path: Path) -> None:
    """Kills: any PNG taken for ours, any safetensors file for latents."""
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="not a picture that unilat wrote"):
        places.for_sheet(tmp_path / "a.png")
    (tmp_path / "w.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="not a set of latents that unilat wrote"):
        places.for_latents(tmp_path / "w.safetensors")


def test_what_a_run_keeps_is_no_place(tmp_path: Path) -> None:
    """Kills: a file of a run that is not known as its own, a folder of checkpoints, another way there, names that are
    guarded where there is no run, and a name of the user's own that is refused beside a run."""
    run = tmp_path / "run"
    own = [one.name for one in vars(RunFolder).values() if isinstance(one, _Inside)]
    own += ["fast-decoder.safetensors", "fast-base.safetensors", "stage1/x", "stage2/x", "prior/x", "latents/x/y"]
    own += ["distill-base-4/x", "verify/48000-0/x", ".lock"]
    for name in own:
        assert places.for_latents(run / name) == run / name
    run.mkdir()
    (run / "config.json").write_text("{}")
    for name in own:
        for ask in (places.for_sheet, places.for_latents, places.for_page, places.for_pictures, places.for_audit):
            with pytest.raises(UserError, match="belongs to the run"):
                ask(run / name)
    (tmp_path / "link").symlink_to(run)
    for way in (tmp_path / "link" / "metrics.json", run / "decoded" / ".." / "metrics.json"):
        with pytest.raises(UserError, match="belongs to the run"):
            places.for_page(way)
    assert places.for_page(run / "compare.html") == run / "compare.html"
    for ask in (places.for_pictures, places.for_audit):
        assert ask(run / "decoded") == run / "decoded"
        with pytest.raises(UserError, match="is a run folder"):
            ask(run)


def test_a_folder_of_an_audit_is_gone_on_with_and_no_other(tmp_path: Path, mine: dict[str, Path]) -> None:
    """Kills: an audit among the user's files, or one that is refused where it stopped."""
    with pytest.raises(UserError, match="is not empty and no folder of an audit"):
        places.for_audit(tmp_path)
    with pytest.raises(UserError, match=r"notes\.txt is a file"):
        places.for_audit(mine["txt"])
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".lock").touch()
    places.for_audit(tmp_path / "new")
    (tmp_path / "identity.json").write_text("{}")
    places.for_audit(tmp_path)


def test_the_command_line_loses_nothing(
    tiny_run: Path, tiny_source: Path, mine: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every command that has --out, at what it may not write. Kills: a command that asks nobody."""
    run, text = str(tiny_run), str(mine["txt"])
    latents = tmp_path / "z.safetensors"
    assert main(["encode", run, str(tiny_source), "--out", str(latents)]) == 0
    before = everything(tiny_run) | everything(tmp_path) | everything(tiny_source)
    commands = {
        "encode": ["encode", run, str(tiny_source)],
        "decode": ["decode", run, str(latents)],
        "reconstruct": ["reconstruct", run, str(tiny_source)],
        "sample": ["sample", run, "-n", "1"],
        "compare": ["compare", run, run],
        "audit": ["audit", str(latents)],
        "data look": ["data", "look", str(tiny_source), "--size", "16"],
        "export": ["export", run, "--to", "latents"],
        "stats": ["stats", str(tiny_source), "--size", "16"],
        "train": ["train", str(tiny_source), "--preset", "tiny", "--bpp", "0.3"],
        "sweep": ["sweep", str(tiny_source), "--preset", "tiny", "--bpp", "0.3"],
    }
    for words in commands.values():
        for out in (text, str(tiny_run / "autoencoder.safetensors"), str(tiny_run / "stage1"), str(tmp_path), ""):
            capsys.readouterr()
            assert main([*words, "--out", out]) == 2, (words, out)
            said, noted = capsys.readouterr()
            assert not said and noted.count("\n") == 1 and noted.startswith("error: ") and "--out" in noted, noted
    assert everything(tiny_run) | everything(tmp_path) | everything(tiny_source) == before
    having = {
        name for name, kind in COMMANDS.items() if dataclasses.is_dataclass(kind) and "out" in get_type_hints(kind)
    }
    assert having == {*commands, "ui"}, "runs that are begun on the page ask as `train` does"


def test_what_is_empty_is_no_path(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a shell's unset variable taken for the current folder, or for nothing given."""
    monkeypatch.chdir(tmp_path)
    for words, named in (
        (["sample", str(tiny_run), "--out="], "--out"),
        (["sample", str(tiny_run), "--out", " "], "--out"),
        (["evaluate", str(tiny_run), ""], "an argument"),
        (["train", ""], "an argument"),
    ):
        assert main(words) == 2
        assert f"error: {named} is empty: name something" in capsys.readouterr().err
