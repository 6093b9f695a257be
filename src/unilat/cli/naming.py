"""Fields of the configuration as the options that set them: messages name the field, people type the option."""

import dataclasses
import re
from typing import Any

SHORT = {"data.size": "--size", "target_bpp": "--target-bpp", "loss_factor": "--loss-factor"}
"""Fields that an option of `unilat train` sets by a shorter name."""


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
