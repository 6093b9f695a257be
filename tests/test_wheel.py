"""What `pip install unilat` gives: the wheel of this checkout, in an environment that has nothing else."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_installs_and_trains_in_an_empty_environment(tmp_path: Path):
    """`make wheel`, minutes and a package index. Kills: a module or file that the wheel leaves out, a dependency that
    pyproject.toml does not name, a command that works in a checkout alone."""
    done = subprocess.run([sys.executable, ROOT / "tests" / "wheel.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "installed into an empty environment, trained and sampled" in done.stdout


def test_the_pages_name_every_extra():
    """docs/install.md has a row for each extra of pyproject.toml and no other. Kills: an extra that nobody is told of,
    a row of one that is gone."""
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    table = text.split("| extra | what it brings | MB |\n|---|---|---:|\n")[1].split("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, flags=re.MULTILINE) == list(PROJECT["optional-dependencies"])


def test_the_versions_of_python_are_told():
    """Kills: a classifier below what is asked for, a package whose types nobody reads."""
    told = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert told == ["3.11", "3.12", "3.13"] and PROJECT["requires-python"] == ">=3.11"
    assert (ROOT / "src" / "unilat" / "py.typed").is_file()
