"""Several runs side by side, as plain records: what `unilat compare` finds, its page draws and ``--json`` prints."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

Parts = dict[str, str | None]
"""Parts of a protocol by name; None where the run folder does not tell, which equals nothing."""
GLANCE = ("parameters_encoder", "parameters_decoder", "training_flops_encoder", "training_flops_decoder")
GLANCE += ("bits_target", "bits", "psnr", "reconstruction_kernel", "generation_kernel")
"""What stands beside the kinds of encoder and decoder, where runs differ in them."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of the comparison."""

    name: str
    folder: str
    source: str | None
    """Of its pictures."""
    missing: str
    """What is unfinished or damaged, in one line; empty for a whole run."""
    encoder: str | None = None
    """Its kind, ``conv``, ``vit`` or ``uvit``; None where its configuration cannot be read."""
    decoder: str | None = None
    """Its kind, by the same names."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run's number in a column."""

    value: float
    stderr: float | None
    n: int | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One quantity by one protocol. ``group``: the table it stands in, ``bits``, ``quality`` or ``cost``."""

    key: str
    title: str
    unit: str
    group: str
    protocol: Parts
    values: tuple[Cell | None, ...]
    """One for each run, None where it has no number of this protocol."""


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Quantities that stand in several columns, the names of the runs in each, and why."""

    keys: tuple[str, ...]
    titles: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    why: str


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Which runs, by index and by name, share a chart, and what keeps others apart."""

    groups: tuple[tuple[int, ...], ...]
    names: tuple[tuple[str, ...], ...]
    why: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole table."""

    runs: tuple[Member, ...]
    columns: tuple[Column, ...]
    apart: tuple[Apart, ...]
    charts: Mapping[str, Shared]
    differences: Mapping[str, tuple[object, ...]]
    """Fields of the configuration in which any two runs differ, with the value of each."""
    page: str | None = None
    """Where the page was written."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the runs."""
        return tuple(run.name for run in self.runs)

    @property
    def glance(self) -> tuple[Column, ...]:
        """The columns of :data:`GLANCE`, in its order; none where all runs have one architecture."""
        if len({(run.encoder, run.decoder) for run in self.runs}) == 1:
            return ()
        return tuple(column for key in GLANCE for column in self.columns if column.key == key)

    def to_json(self) -> dict[str, object]:
        """The tree that ``--json`` prints; ``page`` only where one was written."""
        tree = dataclasses.asdict(self)
        return tree if self.page is not None else {name: value for name, value in tree.items() if name != "page"}
