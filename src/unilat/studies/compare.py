"""Several runs side by side: one table, one page, and no column that holds numbers of different protocols.

The rule: every number comes with the parts of its protocol (pictures, split, count, steps, networks, …). Numbers
share a column only where all parts are equal, word by word; a quantity that was measured in two ways stands in two
columns, and a note names what differs. What is not known equals nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unilat.recipe import config as configuration
from unilat.report import compare as page
from unilat.report.comparison import Apart, Cell, Column, Comparison, Member, Parts, Shared
from unilat.report.folder import Contents, Tree, read
from unilat.report.text import entry, finite
from unilat.studies.protocols import CHARTS, Compared, quantities
from unilat.types import UserError

MOST = 8
"""Runs on one page: as many colours as can be told apart."""


def compare(folders: Sequence[Path], out: Path | None = None) -> Comparison:
    """The runs in ``folders`` side by side; with ``out`` the page is written there too.

    UserError for fewer than two runs, more than eight, or where fewer than two hold anything to compare.
    """
    if not 2 <= len(folders) <= MOST:
        raise UserError(f"name two to {MOST} runs to compare, not {len(folders)}")
    runs = [read(Path(folder)) for folder in folders]
    notes = [_missing(run) for run in runs]
    if sum(bool(run.results or run.log) for run in runs) < 2:
        told = "; ".join(f"{run.name}: {note or 'complete'}" for run, note in zip(runs, notes, strict=True))
        raise UserError(f"fewer than two of these runs hold anything to compare ({told}): finish them first")
    names = _names([run.name for run in runs])
    known = [_known(run) for run in runs]
    sources = {str(entry(run.data, "sha256")): str(entry(run.data, "source")) for run in runs}
    columns, apart = _columns(runs, names, sources)
    table = Comparison(
        runs=tuple(
            Member(
                name=name,
                folder=str(folder),
                source=_text(entry(run.data, "source")),
                missing=note,
                encoder=config.autoencoder.encoder.kind if config else None,
                decoder=config.autoencoder.decoder.kind if config else None,
            )
            for name, folder, run, note, config in zip(names, folders, runs, notes, known, strict=True)
        ),
        columns=tuple(columns),
        apart=tuple(apart),
        charts={key: _chart([parts(run) for run in runs], names, sources) for key, parts in CHARTS.items()},
        differences=_differences(runs, known),
    )
    return table if out is None else replace(table, page=str(page.write(out, table, runs)))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _missing(run: Contents) -> str:
    """In one line what is unfinished or damaged; empty for a whole run."""
    told = [] if run.finished[0] else ["stage 1 is not finished"]
    if not run.finished[1] and finite(entry(run.config, "stage2", "samples")) != 0.0:
        told.append("stage 2 is not finished")
    if run.results is not None and run.results.making is None:
        told.append("it was measured before unilat kept what pictures were made with: evaluate it again")
    return "; ".join([*told, *(" ".join(note.rstrip(".").split()) for note in run.notes)])


def _names(names: list[str]) -> list[str]:
    """Names that can be told apart: ``run``, ``run (2)``, …"""
    told: list[str] = []
    for name in names:
        number, one = 2, name
        while one in told:
            one, number = f"{name} ({number})", number + 1
        told.append(one)
    return told


def groups(parts: Sequence[Parts | None]) -> list[list[int]]:
    """Indices whose protocols are equal in every part; None is left out, a part that is None equals nothing."""
    found: list[list[int]] = []
    for index, own in enumerate(parts):
        if own is None:
            continue
        same = next((group for group in found if parts[group[0]] == own and None not in own.values()), None)
        if same is None:
            found.append([index])
        else:
            same.append(index)
    return found


def _columns(runs: list[Contents], names: list[str], sources: dict[str, str]) -> tuple[list[Column], list[Apart]]:
    columns: list[Column] = []
    apart: dict[str, Apart] = {}
    for quantity in quantities(runs):
        numbers: list[Compared | None] = [quantity.read(run) for run in runs]
        parts = [None if number is None else number.protocol for number in numbers]
        found = groups(parts)
        for place, group in enumerate(found):
            letter = f" ({chr(97 + place)})" if len(found) > 1 else ""
            cells = (
                Cell(value=number.value, stderr=number.stderr, n=number.n)
                if index in group and number is not None
                else None
                for index, number in enumerate(numbers)
            )
            column = Column(
                key=quantity.key,
                title=quantity.title + letter,
                unit=quantity.unit,
                group=quantity.group,
                protocol=parts[group[0]] or {},
                values=tuple(cells),
            )
            columns.append(column)
        if len(found) > 1:
            why = _why([parts[group[0]] or {} for group in found], sources)
            same = apart.get(why, Apart(keys=(), titles=(), columns=_named(found, names), why=why))
            apart[why] = replace(same, keys=(*same.keys, quantity.key), titles=(*same.titles, quantity.title))
    return columns, list(apart.values())


def _chart(parts: list[Parts | None], names: list[str], sources: dict[str, str]) -> Shared:
    found = groups(parts)
    why = _why([parts[group[0]] or {} for group in found], sources) if len(found) > 1 else ""
    return Shared(groups=tuple(map(tuple, found)), names=_named(found, names), why=why)


def _named(found: list[list[int]], names: list[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(names[index] for index in group) for group in found)


def _why(parts: list[Parts], sources: dict[str, str]) -> str:
    """The parts that differ, each with its values, ``decoder calls: 2 | 4``; of long lines the differing clauses."""
    told = []
    for name in dict.fromkeys(key for one in parts for key in one):
        values = [one.get(name) for one in parts]
        if len(set(values)) > 1 or (len(values) > 1 and None in values):
            told.append(f"{name}: {' | '.join(_clauses(values, sources))}")
    return "; ".join(told)


def _clauses(values: list[str | None], sources: dict[str, str]) -> list[str]:
    pieces = [[] if value is None else value.split("; ") for value in values]
    common = set(pieces[0]).intersection(*pieces[1:])
    told: list[str] = []
    for value, own in zip(values, pieces, strict=True):
        if value in sources:
            words = f"{sources[value]} ({value[:12]}…)"
        else:
            words = "not known" if value is None else "; ".join(piece for piece in own if piece not in common) or "–"
        told += [] if words in told else [words]
    return told


def _known(run: Contents) -> configuration.RunConfig | None:
    """A run's configuration, with today's defaults for fields that are younger than the run; None if unreadable."""
    try:
        return configuration.from_json(json.dumps(dict(run.config))) if run.config else None
    except UserError:  # of another version of unilat: its fields still have names
        return None


def _differences(
    runs: list[Contents], configs: Sequence[configuration.RunConfig | None]
) -> dict[str, tuple[object, ...]]:
    """Fields of the configuration in which any two runs differ, with every run's value; unreadable ones have None."""
    trees: list[Tree] = [
        configuration.to_dict(one) if one else run.config for run, one in zip(runs, configs, strict=True)
    ]
    known = [one for one in configs if one]
    lines = [line for other in known[1:] for line in configuration.differences(known[0], other)]
    fields = dict.fromkeys(line.split(": ", 1)[0] for line in lines)
    return {name: tuple(entry(tree, *name.split(".")) for tree in trees) for name in fields}
