"""The notebooks under examples/ are whole, and their code runs from the first cell to the last."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def _cells(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]


def _run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All names after the last cell of code; the working folder is ``folder``."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    for index, cell in enumerate(_cells(name)):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}, cell {index}", "exec"), names)
    pyplot.close("all")
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole_and_has_no_outputs(path: Path):
    """nbformat 4.5: an id for each cell, none twice; a heading first; nothing of whoever ran it last. Kills: a notebook
    that no viewer opens, outputs that nobody reviews, a page of the site without its title."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    assert (tree["nbformat"], tree["nbformat_minor"]) == (4, 5) and tree["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in tree["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in ids)
    for cell in tree["cells"]:
        code = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
        assert cell == code | {key: cell[key] for key in ("id", "cell_type", "source", "metadata")}
        assert all(line.endswith("\n") for line in cell["source"][:-1])
    assert tree["cells"][0]["source"][0].startswith("# ")


def test_quick_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Kills: a cell that fails, a bit map that does not add up to the bits of a picture, in nats or over one axis."""
    names = _run("quick_start.ipynb", tmp_path, monkeypatch)
    assert float(names["bit_map"].sum()) == pytest.approx(float(names["latents"].bits.mean()), rel=0.05)
    assert names["new"].images.shape == (8, 1, 16, 16)
    assert "wanted 0.4 bits per pixel, measured 0." in capsys.readouterr().out


def test_audit_a_vae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Kills: a cell that fails, an audit that does not name the channel that was cut off."""
    names = _run("audit_a_vae.ipynb", tmp_path, monkeypatch)
    assert ("dead", (3,)) in [(fault.kind, fault.channels) for fault in names["found"].faults]
    assert "dead (3,): " in capsys.readouterr().out


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Kills: a cell that fails, a stop that is not heard, a loop whose rate is no number of bits."""
    names = _run("from_python.ipynb", tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert len(names["rates"]) == 10 and "stopped in stage1, step 10 of" in said
    assert "there is no field stage1__sample in the configuration: perhaps you meant" in said
    assert 0.05 < names["rate"] < 1.5 and names["controller"].factor != names["config"].stage1.control.start
