"""Fields and arguments as the options that set them: messages name what Python has, people type the option.

A field of the configuration stands in a message as it is, ``stage1.samples``; what a function takes stands in
backticks, since a word such as `out` may also be just a word.
"""

import dataclasses
import re
from typing import Any

SHORT = {
    "data.size": "--size",
    "target_bpp": "--target-bpp",
    "loss_factor": "--loss-factor",
    "micro_batch": "--micro-batch",
    "save_every": "--save-every",
    "stage1.start": "--from",
    "autoencoder.tune": "--tune",
}
"""Fields that an option of `unilat train` sets by a shorter name."""

_SAME = (
    "base",
    "channels",
    "features",
    "fit",
    "flops",
    "format",
    "grid",
    "guidance",
    "host",
    "labels",
    "licence",
    "limit",
    "out",
    "pictures",
    "pixels",
    "port",
    "preset",
)
_SAME += (
    "push",
    "rows",
    "samples",
    "seeds",
    "size",
    "steps",
    "teacher_steps",
    "to",
    "track",
    "truth",
    "tune",
    "keep_decoder",
    "workers",
)
ARGUMENTS = {
    **{name: "--" + name.replace("_", "-") for name in _SAME},
    "count": "-n",
    "start": "--from",
    "label": "--class",
    "compile='on'": "--compile",
    "compile='off'": "--no-compile",
    "json()": "--json",
}
"""What functions take, as messages have it in backticks, with the options of the commands that call them."""


def arguments_named(text: str) -> str:
    """``text`` with what stands alone in backticks as its option, where it has one: `out` is --out, commands stay."""

    def option(match: re.Match[str]) -> str:
        named = ARGUMENTS.get(match[1]) or options_named(match[1])
        return match[0] if named == match[1] else named

    return re.sub(r"`([^\s`]+)`", option, text) if "`" in text else text


def options_named(text: str) -> str:
    """``text`` with each field of a run's configuration as its option: ``stage1.samples`` is ``--stage1.samples``."""
    from unilat.recipe.config import RunConfig

    names = {path: "--" + path.replace("_", "-") for path in _paths(RunConfig()) if "." in path} | SHORT
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({longest_first})(?!\w)", lambda match: names[match[1]], text)


def _paths(node: Any, place: str = "") -> list[str]:
    """The names of all fields below a dataclass, of its parts too."""
    found = []
    for field in dataclasses.fields(node):
        value, path = getattr(node, field.name), f"{place}{field.name}"
        found += [path, *(_paths(value, f"{path}.") if dataclasses.is_dataclass(value) else ())]
    return found
