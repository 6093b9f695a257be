"""``load``: from the name of a data set, a folder or a file to :class:`Pictures`."""

import os
from pathlib import Path

from unilat.data import catalogue
from unilat.data.pictures import Pictures, Progress
from unilat.types import UserError

NATURAL_SIZE = {"glyphs": 32, "fashion-mnist": 32, "emoji": 32}


def load(
    source: str,
    *,
    size: int | None,
    channels: int | None = None,
    progress: Progress | None = None,
    limit: int | None = None,
) -> Pictures:
    if source == "glyphs":
        from unilat.data.glyphs import load_glyphs

        return load_glyphs(size or 32, progress)
    if source == "fashion-mnist":
        from unilat.data.named import load_fashion

        return load_fashion(Path("/usr/share/datasets/fashion-mnist"), size or 32)
    if source == "emoji":
        from unilat.data.named import load_fluent

        return load_fluent(catalogue.get("emoji", progress), "emoji", size or 32, progress)
    raise UserError(f"{source}: not yet")
