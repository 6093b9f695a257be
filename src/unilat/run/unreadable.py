"""Pictures of a run that could not be read while it trained: told, and remembered."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from unilat.files import write_json
from unilat.run.facts import read as read_facts
from unilat.run.folder import RunFolder
from unilat.run.records import Note, Tell
from unilat.run.seal import sealed
from unilat.signals import Pictures
from unilat.signals.stream import Streamed


@contextlib.contextmanager
def unreadable_told(folder: Path, pictures: Pictures | Streamed, tell: Tell, rank: int) -> Iterator[None]:
    """However the run ends: pictures that could not be read meanwhile are counted, told and named in ``data.json``."""
    try:
        yield
    finally:
        lost = dict(pictures.lost) if isinstance(pictures, Streamed) and rank == 0 else {}
        if lost:
            first = "; ".join(f"{name}: {reason}" for name, reason in list(lost.items())[:5])
            more = "; …" if len(lost) > 5 else ""
            count = f"{len(lost)} of {len(pictures)} pictures could not be read"
            tell(Note(f"{count}, others took their place: {first}{more}"))
            known = read_facts(RunFolder(folder).data)
            found = replace(known, unreadable={**known.unreadable, **lost})
            write_json(RunFolder(folder).data, found.to_json(), sealed)
