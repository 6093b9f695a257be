"""The help texts are files under docs/help/, so that a change of the command line is seen in review.

``make help-texts`` (this file, run as a program) writes them again.
"""

import re
import sys
from pathlib import Path

import pytest

from unilat.cli import main
from unilat.cli.commands import COMMANDS

FOLDER = Path(__file__).parents[1] / "docs" / "help"
PAGES = {"unilat": [], **{name: name.split() for name in COMMANDS}}


def _file(page: str) -> Path:
    return FOLDER / f"{page.replace(' ', '-')}.txt"


@pytest.mark.parametrize("page", PAGES)
def test_help_is_the_committed_text(page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Kills any change of an option, a default or a sentence that docs/help/ does not show."""
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*PAGES[page], "--help"]) == 0
    assert capsys.readouterr().out == _file(page).read_text(encoding="utf-8"), "if it is meant: make help-texts"


def test_no_help_text_is_left_over():
    """Kills a file of a command that is gone."""
    assert sorted(FOLDER.iterdir()) == sorted(_file(page) for page in PAGES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_that_parses(name: str):
    """Kills examples in help texts that the parser would refuse."""
    from unilat.cli.parse import parse

    text = _file(name).read_text(encoding="utf-8")
    examples = re.findall(rf"^    unilat {name} (.*)$", text, flags=re.MULTILINE)
    assert examples
    for example in examples:
        parse([*name.split(), *example.split()])


def test_pages_are_narrow():
    """A help text fits a terminal of 100 columns."""
    for page in PAGES:
        assert max(map(len, _file(page).read_text(encoding="utf-8").splitlines())) <= 100, page


def _write() -> None:
    """Write all pages as they are now."""
    import contextlib
    import io
    import os

    os.environ["COLUMNS"] = "100"
    FOLDER.mkdir(parents=True, exist_ok=True)
    for page, words in PAGES.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            main([*words, "--help"])
        _file(page).write_text(printed.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(_write())
