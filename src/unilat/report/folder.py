"""What stands in a run folder, read once. What is missing or damaged is told in words and never stops the report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from unilat.files import read_bytes
from unilat.report.text import finite
from unilat.results import Results
from unilat.run import seal
from unilat.run.folder import RunFolder
from unilat.types import UserError

Tree = Mapping[str, object]
"""A JSON file as it stands."""


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """One logged step: its stage, and every finite number of it by name, ``samples`` seen among them."""

    stage: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Contents:
    """The files of a run folder as they are. A missing file is an empty dictionary or list and a line in ``notes``."""

    name: str
    config: Tree = field(default_factory=dict)
    manifest: Tree = field(default_factory=dict)
    data: Tree = field(default_factory=dict)
    results: Results | None = None
    """What metrics.json holds, or None where it is missing or damaged."""
    log: list[LogRow] = field(default_factory=list)
    arrays: dict[str, Tensor] = field(default_factory=dict)
    finished: tuple[bool, bool] = (False, False)
    """Whether autoencoder.safetensors and base.safetensors stand in the folder."""
    notes: tuple[str, ...] = ()
    remark: str = ""
    """What the reader should know of files that nothing checks; empty for a sealed run."""

    def stage(self, name: str) -> list[LogRow]:
        """The logged steps of ``stage1`` or ``stage2``."""
        return [row for row in self.log if row.stage == name]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as text; empty where the pictures have none."""
        names = self.data.get("classes")
        return [str(name) for name in names] if isinstance(names, list) else []


LONGEST = 2**34
"""Bytes of the longest file that is read."""
_NAMES = RunFolder(Path())
_MISSING = {
    _NAMES.config.name: "the configuration is not known",
    _NAMES.manifest.name: "machine, versions and date are not known",
    _NAMES.data.name: "what was read of the pictures is not known",
    _NAMES.log.name: "there are no training curves",
    _NAMES.metrics.name: "there are no measured numbers yet: run `unilat evaluate`",
    _NAMES.evaluation.name: "there are no pictures, bit maps or information curve: run `unilat evaluate`",
}


def read(folder: Path) -> Contents:
    """Read a run folder. UserError only if it does not exist, holds none of a run's files, or its seal is damaged."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the folder of a run")
    if not any((folder / name).is_file() for name in _MISSING):
        raise UserError(f"{folder} is no run folder: none of {', '.join(_MISSING)} is in it")
    notes: list[str] = []
    files = RunFolder(folder)
    trees = {name: _json(getattr(files, name), notes) for name in ("config", "manifest", "data")}
    for path in (files.autoencoder, files.base):
        if wrong := seal.problem(path):
            notes.append(f"{path.name} {wrong}: {seal.way_out(path)}.")
    return Contents(
        name=folder.resolve().name,
        results=_results(files.metrics, notes),
        log=_lines(files.log, notes),
        arrays=_arrays(files.evaluation, notes),
        finished=(files.autoencoder.is_file(), files.base.is_file()),
        notes=tuple(notes),
        remark=seal.remark(folder),
        **trees,
    )


def _bytes(path: Path, notes: list[str]) -> bytes | None:
    """The content of a file that is what the run wrote; None with a note where it is not."""
    if wrong := seal.problem(path):
        notes.append(f"{path.name} {wrong}: {seal.way_out(path)}.")
        return None
    try:
        return read_bytes(path, LONGEST)
    except FileNotFoundError:
        notes.append(f"{path.name} is missing: {_MISSING[path.name]}.")
    except OSError as problem:
        notes.append(f"{path.name} cannot be read ({problem.strerror}): {_MISSING[path.name]}.")
    return None


def _json(path: Path, notes: list[str]) -> Tree:
    content = _bytes(path, notes)
    if content is None:
        return {}
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        notes.append(f"{path.name} is damaged: {_MISSING[path.name]}.")
        return {}
    return tree


def _results(path: Path, notes: list[str]) -> Results | None:
    content = _bytes(path, notes)
    try:
        return None if content is None else Results.from_json(json.loads(content), path.name)
    except (ValueError, RecursionError):
        notes.append(f"{path.name} is damaged: {_MISSING[path.name]}.")
    except UserError as problem:
        notes.append(f"{problem}.")
    return None


def logged(row: Tree) -> LogRow:
    """A line of log.jsonl; what is no finite number is left out."""
    numbers = {name: number for name, value in row.items() if (number := finite(value)) is not None}
    return LogRow(stage=str(row.get("stage")), numbers=numbers)


def _lines(path: Path, notes: list[str]) -> list[LogRow]:
    content = _bytes(path, notes)
    rows: list[LogRow] = []
    broken = 0
    lines = (content or b"").splitlines()
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(logged(row))
        else:
            broken += bool(line.strip())
    if broken:
        notes.append(f"{path.name}: {broken} of {len(lines)} lines are damaged and left out.")
    return rows


def _arrays(path: Path, notes: list[str]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = _bytes(path, notes)
    if content is None:
        return {}
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError):
        notes.append(f"{path.name} is damaged: {_MISSING[path.name]}.")
        return {}
