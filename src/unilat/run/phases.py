"""The phases of a run: how long each took, how much memory, and what is said where memory ends in one."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from unilat.fields import FieldError
from unilat.files import write_json
from unilat.results import Phase, read_phases
from unilat.run.folder import RunFolder
from unilat.run.seal import sealed
from unilat.training.machine import peak_memory
from unilat.training.micro import out_of_memory
from unilat.types import UserError

ENDED = (
    "what was finished before is kept. Make room, or lower stage1.batch, stage2.batch or micro_batch, turn on "
    "checkpointing, or take smaller pictures (data.size) or fewer (evaluation.pictures, evaluation.samples)"
)
"""What to do where memory ends between the steps."""


@contextlib.contextmanager
def phase(folder: Path, name: str, rank: int) -> Iterator[None]:
    """Add this phase's seconds and the process's peak memory to ``phases.json``; interrupted phases count too.

    Memory that ends in it is told in one line.
    """
    start = time.perf_counter()
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise FieldError(f"{name}: out of memory; {ENDED}") from error
    finally:
        if rank == 0:
            _add_phase(RunFolder(folder).phases, name, time.perf_counter() - start)


def _add_phase(path: Path, name: str, took: float) -> None:
    """Add its seconds to what ``path`` has of the phase."""
    rows = {row.name: row for row in read_phases(path)}
    row = rows.get(name, Phase(name=name, seconds=0.0, peak_memory_mib=0))
    seconds, memory = row.seconds + took, max(row.peak_memory_mib, round(peak_memory()))
    rows[name] = replace(row, seconds=round(seconds, 2), peak_memory_mib=memory)
    with contextlib.suppress(UserError):  # a full disk is told by what failed on it, not by this
        write_json(path, [dataclasses.asdict(row) for row in rows.values()], sealed)
