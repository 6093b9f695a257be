"""What ``--help`` prints: usage, the command's docstring as it is written, and tyro's list of the options."""

import contextlib
import inspect
import io
import re
from collections.abc import Sequence
from typing import Any

import tyro

MARKERS = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)


def help_text(name: str, options: Any, *, args: Sequence[str] = (), registry: Any = None) -> str:
    """The help of ``unilat NAME``, whose options are the dataclass ``options``; ``args`` may come before ``--help``."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(
            options, prog=f"unilat {name}", description="", args=[*args, "--help"], config=MARKERS, registry=registry
        )
    usage, _, boxes = printed.getvalue().partition("\n\n")
    return f"{usage}\n\n{_prose(options)}\n\n{_tidy(boxes)}"


def _tidy(boxes: str) -> str:
    """The list of options without defaults that say nothing, and without trailing spaces."""
    boxes = re.sub(r"\s*\(default:\s*(None|False)?\)", "", boxes)
    return "\n".join(line.rstrip() for line in boxes.splitlines()).rstrip()


def _prose(options: type) -> str:
    """The docstring, its examples set in (``cleandoc`` sets them out where nothing else follows the first line)."""
    return re.sub(r"(?m)^unilat ", "    unilat ", inspect.getdoc(options) or "")
