"""What is whole of a run folder or of a set of pictures, what is not, and what to do. Changes nothing.

seal → configuration, pictures, numbers → weights and latents → checkpoints → what killed processes left behind
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unilat import __version__, results, signals
from unilat.fields import Size
from unilat.files import Damaged, read_bytes, read_json, read_safetensors
from unilat.models.shards import open_shards
from unilat.recipe import config as configuration
from unilat.recipe.config import RunConfig
from unilat.run import facts, seal
from unilat.run.folder import RunFolder
from unilat.run.trained import read_config_file
from unilat.training import checkpoint
from unilat.types import UserError

MOST = 20
"""Pictures that could not be read, told by name."""
LONGEST = 2**34
"""Bytes of the longest log that is read."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """File, folder or part."""
    state: Literal["whole", "note", "wrong"]
    """note: nothing is broken, but you may want to know."""
    said: str
    """What was found."""
    todo: str = ""
    """What to do, where there is something."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All that was found."""

    source: str
    kind: Literal["run", "data"]
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return all(one.state != "wrong" for one in self.findings)

    def to_json(self) -> dict[str, object]:
        """As ``--json`` prints it."""
        return {**dataclasses.asdict(self), "whole": self.whole}


def examine(source: str, size: int | str | Size | None = None, progress: signals.Progress | None = None) -> Diagnosis:
    """Look at a run folder, or at pictures as `unilat train` takes them, in that ``size``."""
    folder = Path(source)
    if source not in signals.CATALOGUE and _is_run(folder):
        parts = (_sealed, _configured, _told, _weights, _encoded, _checkpoints, _left, _unfinished)
        found = [one for part in parts for one in part(folder)]
        return Diagnosis(source=source, kind="run", findings=tuple(found))
    return Diagnosis(source=source, kind="data", findings=tuple(_pictures(source, size, progress)))


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in (*seal.WAYS_OUT, RunFolder(folder).seal.name))


def _read(path: Path, read: Callable[[Path], object], todo: str) -> Iterator[Finding]:
    """That a file can be read, if it is there; one that the seal knows to be another is told already."""
    try:
        if path.exists() and not _changed(path):
            read(path)
    except Damaged:  # by the seal, which has told it
        return
    except UserError as error:
        said = str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
        yield Finding(what=path.name, state="wrong", said=said, todo=todo)


def _changed(path: Path) -> str:
    """What the seal says against a file; nothing where the seal itself is damaged, which is told by itself."""
    try:
        return seal.problem(path)
    except Damaged:
        return ""


def _sealed(folder: Path) -> Iterator[Finding]:
    path = RunFolder(folder).seal
    try:
        known = seal.read(folder)
        wrong = seal.wrong(folder)
    except UserError as error:
        yield Finding(what=path.name, state="wrong", said=str(error))
        return
    if known is None:
        yield Finding(what=path.name, state="note", said=seal.remark(folder).removeprefix(f"{folder} "))
        return
    right = sorted({name for name in known if (folder / name).exists()} - {one.name for one in wrong})
    if right:
        yield Finding(what=path.name, state="whole", said=f"as they were written: {', '.join(right)}")
    for one in wrong:
        yield Finding(what=one.name, state="wrong", said=seal.problem(one), todo=seal.way_out(one))


def _configured(folder: Path) -> Iterator[Finding]:
    def checked(path: Path) -> RunConfig:
        config = read_config_file(path)
        configuration.check(config)
        return config

    files = RunFolder(folder)
    again = "bring it back, or begin the run anew in another folder"
    if not files.config.exists() and not _changed(files.config):
        yield Finding(what=files.config.name, state="wrong", said="is gone", todo=again)
    yield from _read(files.config, checked, again)
    yield from _read(files.data, facts.read, again)
    if not files.data.exists() and files.autoencoder.exists() and not _changed(files.data):
        yield Finding(
            what=files.data.name, state="wrong", said="is gone, and the weights are of its pictures", todo=again
        )


def _told(folder: Path) -> Iterator[Finding]:
    """Numbers, times, machine and log."""

    def version(path: Path) -> None:
        tree = read_json(path)
        if not isinstance(tree, dict):
            raise UserError("it is no object of named values")
        versions.append(str(tree.get("unilat")))

    def logged(path: Path) -> None:
        lines = read_bytes(path, LONGEST).splitlines()
        torn.append(sum(not _is_object(line) for line in lines))

    files, versions, torn = RunFolder(folder), list[str](), list[int]()
    again, lost = f"measure again with `unilat evaluate {folder}`", "delete it and go on without what it held"
    for path in (files.metrics, files.metrics_fast):
        yield from _read(path, results.read, again)
    yield from _read(files.phases, results.read_phases, lost)
    yield from _read(files.manifest, version, lost)
    try:
        yield from _read(files.log, logged, lost)
    except OSError as error:
        yield Finding(what=files.log.name, state="wrong", said=f"cannot be read ({error.strerror or error})", todo=lost)
    if torn and torn[0]:
        said = f"{torn[0]} of its lines are torn or damaged, and are left out of curves"
        yield Finding(what=files.log.name, state="note", said=said)
    if versions and versions[0] not in (__version__, "source"):
        said = f"the run was begun with unilat {versions[0]}, this is {__version__}"
        yield Finding(what=files.manifest.name, state="note", said=said)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _weights(folder: Path) -> Iterator[Finding]:
    files, made = RunFolder(folder), "delete it and go on with `unilat train`, which makes it again"
    headers: dict[str, dict[str, str]] = {}

    def header(path: Path) -> None:
        headers[path.name] = read_safetensors(path)[1]

    yield from _read(files.autoencoder, header, made)
    yield from _read(files.base, header, made)
    yield from _read(files.evaluation, header, f"measure again with `unilat evaluate {folder}`")
    for part in ("decoder", "base"):
        yield from _read(files.few_steps(part), header, f"make it again with `unilat distill {folder}`")
    encoder, base = (headers.get(path.name, {}).get("encoder_sha256") for path in (files.autoencoder, files.base))
    if encoder and base and encoder != base:
        said = f"was trained on the latents of another encoder than that in {files.autoencoder.name}"
        yield Finding(what=files.base.name, state="wrong", said=said, todo=made)


def _encoded(folder: Path) -> Iterator[Finding]:
    files = RunFolder(folder)
    place = files.latents
    try:
        there = open_shards(place)
        encoder = read_safetensors(files.autoencoder)[1].get("encoder_sha256") if files.autoencoder.is_file() else None
    except UserError as error:
        yield Finding(
            what=place.name, state="wrong", said=str(error), todo=f"delete {place} and go on with `unilat train`"
        )
        return
    if there is not None and encoder is not None and there.encoder_sha256 != encoder:
        todo = f"delete {place} and go on with `unilat train`, which encodes again"
        yield Finding(what=place.name, state="wrong", said="are of another encoder than the run's", todo=todo)
    elif there is not None:
        yield Finding(what=place.name, state="whole", said=f"{len(there):,} latents, every shard as it was written")


def _checkpoints(folder: Path) -> Iterator[Finding]:
    refits = RunFolder(folder).refits
    inside = [*folder.iterdir(), *(refits.iterdir() if refits.is_dir() else ())]
    for stage in sorted(path for path in inside if path.is_dir()):
        found = checkpoint.looked_at(stage)
        whole = [path.name for path, wrong in found if not wrong]
        name = stage.relative_to(folder).as_posix()
        if whole:
            yield Finding(what=name, state="whole", said=f"checkpoints {', '.join(whole)}")
        for path, wrong in found:
            if wrong:
                other = f"training goes on from {whole[0]}" if whole else "the stage begins anew then"
                todo = f"bring it back, or delete {path}: {other}"
                yield Finding(what=f"{name}/{path.name}", state="wrong", said=wrong, todo=todo)


def _left(folder: Path) -> Iterator[Finding]:
    """Locks and temporary files of processes that were killed."""
    if checkpoint.held(folder):
        said = "a process trains here at this moment: look again when it is done"
        yield Finding(what=".lock", state="note", said=said)
        return
    names = (".*.part", ".tmp-*", ".lock", ".seal.lock", "*/.*.part", "*/.tmp-*", "*/.lock")
    for path in sorted(path for name in names for path in folder.glob(name)):
        said = "was left by a process that was killed"
        todo = f"nothing, or delete {path}: no file of the run is missing for it"
        yield Finding(what=path.relative_to(folder).as_posix(), state="note", said=said, todo=todo)


def _unfinished(folder: Path) -> Iterator[Finding]:
    files = RunFolder(folder)
    try:
        stage2 = read_config_file(files.config).stage2.samples > 0
    except UserError:
        return
    wanted = [(files.autoencoder, "stage 1 is not finished", "`unilat train`")]
    wanted += [(files.base, "stage 2 is not finished", "`unilat train`")] * stage2
    wanted += [(files.metrics, "the run is not measured", f"`unilat evaluate {folder}`")]
    for path, said, command in wanted:
        if not path.exists() and not _changed(path):
            yield Finding(what=path.name, state="note", said=said, todo=f"go on with {command}")
            return
    if not files.report.exists():
        todo = f"write it with `unilat report {folder}`"
        yield Finding(what=files.report.name, state="note", said="there is no report", todo=todo)


def _pictures(source: str, size: int | str | Size | None, progress: signals.Progress | None) -> Iterator[Finding]:
    try:
        seen = signals.look(source, size=size, progress=progress)
    except UserError as error:
        yield Finding(what=source, state="wrong", said=str(error))
        return
    skipped = seen.pictures.skipped
    for name, reason in skipped[:MOST]:
        yield Finding(what=name, state="wrong", said=reason, todo="mend it or take it out: training leaves it out")
    if len(skipped) > MOST:
        said = f"{len(skipped) - MOST} more cannot be read"
        yield Finding(what=source, state="wrong", said=said, todo="`unilat data look` counts them by reason")
    for line in seen.lines():
        if not line.startswith(("skipped ", "... and ")):
            yield Finding(what=source, state="whole", said=line)
