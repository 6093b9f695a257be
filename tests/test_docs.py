"""What the documents say is true: their commands parse, their names exist, their examples run."""

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import unilat
from unilat.cli.parse import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
EQUATIONS = (ROOT / "docs" / "rate.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\|.*\| `((?:maths|nets|models|training)\.[\w.]+)` \| `(tests/[\w/.]+)::(\w+)` \|$", EQUATIONS, flags=re.M
)


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path):
    """Kills a command in a document that the parser would refuse, and a make target that is not there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for line in "\n".join(_blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["unilat"]:
            parse(words[1:])
        elif words[:1] == ["make"]:
            assert set(words[1:]) <= targets, line


def test_readme_has_commands_to_test():
    """Kills the test above passing because the pattern finds nothing."""
    commands = [line.split()[1] for block in _blocks(ROOT / "README.md", "sh") for line in block.splitlines() if line]
    assert {"run", "test", "train", "sample", "encode", "decode", "reconstruct", "evaluate", "report"} <= set(commands)


@pytest.mark.parametrize(("function", "file", "test"), ROWS)
def test_equations_have_their_functions_and_tests(function: str, file: str, test: str):
    """Kills a row of the table whose function or test has been renamed."""
    module, name = f"unilat.{function}".rsplit(".", 1)
    assert hasattr(importlib.import_module(module), name)
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_table_is_read():
    """Kills a table whose rows the pattern above misses: the first column's rule and head are the only others."""
    table = EQUATIONS.split("| what | equation | function | test |\n|---|---|---|---|\n")[1].split("\n\n")[0]
    assert len(ROWS) == len(table.splitlines()) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    """Kills a link to a file that is not in the repository; pages of the reference are on the site (test_site.py)."""
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    links = [link for link in links if not link.startswith("reference/")]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_the_readme_begins_with_one_screen():
    """What, why, a picture and how to call it; the figures are elsewhere. Kills: a first page that grows into a report
    again."""
    first = README.splitlines()[:40]
    assert first[0] == "# unilat" and "## Why" in first and "## Use" in first
    assert any(line.startswith("![") for line in first) and any(".venv/bin/unilat" in line for line in first)
    assert "benchmarks/results" not in README.split("## How to read the bits")[0]


def test_every_measured_claim_has_its_file():
    """Each row of docs/results.md is a claim, a figure and a link to a file of results, and no file is left out. Kills:
    a claim without its file, results that nobody is told of."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = text.split("| claim | figure | file |\n|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    rows = [
        re.fullmatch(r"\| (.+) \| (.+) \| \[(\w+)\]\(\.\./benchmarks/results/(\w+)\.md\) \|", line) for line in table
    ]
    assert len(rows) > 15 and all(one and one[3] == one[4] for one in rows)
    known = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md")}
    assert {one[3] for one in rows if one} == known


def test_the_log_has_dated_entries_with_a_text_newest_first():
    """Kills: what a merge by union leaves, headings twice or without their text, an old entry above a new one."""
    text = (ROOT / "LOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\d{4}-\d\d-\d\d): (.+)$", text, flags=re.MULTILINE)
    dates = [date for date, _ in headings]
    assert dates == sorted(dates, reverse=True)
    assert len(set(headings)) == len(headings)
    assert not re.findall(r"^## .*\n+(?=## |\Z)", text, flags=re.MULTILINE)


def test_contributing_has_a_map_of_all_rooms():
    """Every room that the map names is there, and every room that is there stands on it. Kills: a map of the house that
    was."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = re.search(r"```\nsrc/unilat/\n(.*?)```", text, flags=re.DOTALL)
    assert drawn is not None
    named = set(re.findall(r"^  ([\w.]+/?)", drawn[1], flags=re.MULTILINE))
    source = ROOT / "src" / "unilat"
    rooms = {f"{path.name}/" for path in source.iterdir() if (path / "__init__.py").is_file()}
    alone = {path.name for path in source.glob("*.py") if not path.name.startswith("__")}
    assert named == rooms | alone


def test_the_log_is_read_on_any_screen():
    """It begins with what we believe, in ten sentences with dates, and no line is longer than 120. Kills: a belief
    without a date, a line that runs out of the window."""
    lines = (ROOT / "LOG.md").read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 120
    beliefs = "\n".join(lines).split("## What we believe now")[1].split("\n## ")[0]
    points = re.split(r"^\d+\. ", beliefs, flags=re.MULTILINE)[1:]
    assert len(points) == 10 and all(re.search(r"20\d\d-\d\d-\d\d", point) for point in points)


def test_the_readmes_python_runs(tiny_run: Path, tiny_source: Path, capsys: pytest.CaptureFixture[str]):
    """The README's five lines on the small run. Kills: a name that the library does not have, bits that are not the
    latents' over the pixels, samples that no seed fixes."""
    ((page, block),) = [(ROOT / "README.md", block) for block in _blocks(ROOT / "README.md", "python")]
    places = {'"runs/glyphs"': repr(str(tiny_run)), '"glyphs"': repr(str(tiny_source))}
    assert page.name == "README.md" and [block.count(place) for place in places] == [1, 1]
    for place, here in places.items():
        block = block.replace(place, here)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    run, latents = names["run"], names["latents"]
    value, unit = capsys.readouterr().out.split(") ")
    printed = float(value.removeprefix("tensor("))
    assert unit == "bits per pixel\n" and names["unilat"] is unilat
    assert len(latents.bits) == 96 and printed == pytest.approx(float(latents.bits.sum()) / (96 * 16 * 16), abs=6e-5)
    made = names["pictures"].images
    assert made.shape == (96, 1, 16, 16) and made.float().std() > 1
    assert torch.equal(made, run.decode(latents, steps=8).images)
    assert not torch.equal(made, run.decode(latents, steps=1).images)
    assert names["new"].images.dtype == torch.uint8 and names["new"].images.shape == (16, 1, 16, 16)
    assert torch.equal(names["new"].images, run.sample(16, seed=7).images)
    assert names["new"].labels.tolist() == [0, 1] * 8


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "python")], ids=lambda page: page.name)
def test_python_in_pages_names_what_there_is(page: Path):
    """Of README.md and docs/python.md, which are run below, and of pages that are not. Kills: a block that is no
    Python, a name that ``unilat`` does not have."""
    for block in _blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "unilat":
                assert node.attr in unilat.__all__


def test_the_python_page_runs(
    tiny_run: Path,
    tiny_source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """All blocks of docs/python.md in their order, on the small run instead of one of photographs. Kills: a name that
    the library does not have, latents that do not come back from their file, the dearest that are the cheapest."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "run")
    code = "\n".join(_blocks(ROOT / "docs" / "python.md", "python"))
    here, small = repr(str(tiny_source)), "stage1__samples=256, stage2__samples=128"
    for written, done in (
        ("target_bpp=0.2, size=64", f'target_bpp=0.4, preset="tiny", {small}'),
        ('"photos/"', here),
        ('"runs/photos"', '"run"'),
    ):
        assert written in code
        code = code.replace(written, done)
    names: dict[str, Any] = {}
    exec(compile(code, "python.md", "exec"), names)
    bits, dearest, again = names["latents"].bits, names["dearest"], names["again"]
    assert len(dearest) == 8 and float(dearest.bits.min()) >= float(bits.sort(descending=True).values[7])
    assert torch.equal(again.z, dearest.z) and again.names == dearest.names
    assert names["back"].images.shape == (8, 1, 16, 16) and names["new"].images.shape == (16, 1, 16, 16)
    found = names["run"].results.bits
    assert f"measured {found.value:.3f} ± {found.stderr:.3f} bits per pixel on {found.n} " in capsys.readouterr().out


def test_the_gaussian_example_tells_the_truth():
    """The example runs, and its estimates are within three of the standard errors that it prints."""
    script = ROOT / "examples" / "bits_of_a_gaussian.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    lines = {line[:20].strip(): line[20:].split() for line in done.stdout.splitlines()}
    truth = float(lines["rate, closed form"][0])
    for way in ("independent levels", "ours"):
        value, _, error, *_ = lines[way]
        assert abs(float(value) - truth) < 3 * float(error)
    assert float(lines["ours"][2]) < float(lines["independent levels"][2])
    assert abs(sum(map(float, lines["by dimension"])) - truth) < 0.5
