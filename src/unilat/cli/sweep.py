"""`unilat sweep`: its own options, those of its runs, and the tables.

The line is read by two parsers: what :class:`unilat.cli.studies.Sweep` knows is the sweep's, all the rest is read as
`unilat train` would, and goes for every run.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from unilat.cli.configure import ConfiguredTrain, parse_train
from unilat.cli.helptext import MARKERS
from unilat.cli.studies import Sweep
from unilat.cli.tables import align
from unilat.report.swept import Mean
from unilat.report.text import plus_minus
from unilat.studies.cells import Estimate, axes_of, estimates, planned
from unilat.studies.sweep import Sweep as Result
from unilat.types import UserError

_FLAGS = ("--dry-run", "--json")
_TAKING = ("--target-bpp", "--bpp", "--base", "--grid", "--seeds", "--out")
"""The sweep's own options; the latter take a value."""


@dataclass(frozen=True, kw_only=True)
class ConfiguredSweep:
    """A parsed ``unilat sweep``: its options, and those of its runs."""

    options: Sweep
    runs: ConfiguredTrain

    def execute(self) -> None:
        """Sweep, or say what would be trained."""
        import unilat
        from unilat.cli import places
        from unilat.cli.output import Output
        from unilat.cli.progress import TrainingProgress

        options, start = self.options, self.runs.settings
        if options.out is None:
            raise UserError("a sweep has no folder of its own accord: name one with `out`")
        out = places.for_sweep(options.out, options.data)
        bits, bases, grids = _numbers(options.target_bpp), _words(options.base), _words(options.grid)
        with Output(options.json) as output:
            if options.dry_run:
                plan = planned(start, axes_of(start, bits, bases, grids, options.seeds), out)
                if start.data.channels is None:
                    output.say("counted for colour, unread; --data.channels 1 counts for grey")
                rows = estimates(plan, output.say)
                output.result({"runs": [dataclasses.asdict(row) for row in rows]}, estimates_table(rows))
                return
            with TrainingProgress(output.console) as progress:
                swept = unilat.sweep(
                    start,
                    out=out,
                    target_bpp=bits,
                    base=bases,
                    grid=grids,
                    seeds=options.seeds,
                    on_step=progress,
                    choices=self.runs.choices(),
                    features=self.runs.options.features,
                )
            output.result(swept.to_json() | {"page": str(swept.page)}, _told(swept))
        if lost := [row.name for row in swept.rows if row.state == "diverged"]:
            raise UserError(f"{len(lost)} of {len(swept.rows)} runs diverged ({', '.join(lost)}): {swept.page} has why")


def parse_sweep(words: Sequence[str]) -> ConfiguredSweep:
    """Read the words after ``unilat sweep``; mistakes end in SystemExit or :class:`UserError`."""
    own, rest = _split(words)
    runs = parse_train(rest)
    if runs.options.track:
        raise UserError("--track is an option of `unilat train`: leave it out, a sweep has a page of its own")
    options = tyro.cli(Sweep, prog="unilat sweep", args=[runs.options.data, *own], config=MARKERS)
    return ConfiguredSweep(options=options, runs=runs)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that are the sweep's options with their values, and the others."""
    own, rest, left = list[str](), list[str](), list(words)
    while left:
        word = left.pop(0)
        name = word.partition("=")[0].replace("_", "-")
        if name in _FLAGS or name in _TAKING:
            own.append(word)
            own += [left.pop(0)] if name in _TAKING and "=" not in word and left else []
        else:
            rest.append(word)
    return own, rest


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError:
        raise UserError(f"--target-bpp {text}: give numbers separated by commas, 0.05,0.1,0.2 for example") from None


def estimates_table(rows: Sequence[Estimate]) -> str:
    """One line a run: latent, parameters and training FLOPs of base model and autoencoder, minutes; and all minutes."""
    table: list[Sequence[str]] = [
        ("run", "latent", "carries", "base", "FLOPs", "autoencoder", "FLOPs", "minutes"),
        *(
            (
                row.name,
                "×".join(map(str, row.latent)),
                f"{row.capacity_bpp:.3g}",
                f"{row.base_parameters:,}",
                f"{row.base_flops:.3g}",
                f"{row.autoencoder_parameters:,}",
                f"{row.autoencoder_flops:.3g}" if row.autoencoder_flops else "shared",
                f"{row.minutes:.1f}",
            )
            for row in rows
        ),
    ]
    total = sum(row.minutes for row in rows)
    return f"{align(table)}\n\n{len(rows)} runs, about {total:.0f} minutes here, reading pictures not counted"


def _told(swept: Result) -> str:
    """Every cell in a line, and where the page lies."""
    table: list[Sequence[str]] = [("bits", "latent", "base", "measured", "PSNR", "distance", "base FLOPs", "front")]
    for cell in swept.cells:
        numbers = [_mean(one) for one in (cell.bits, cell.psnr, cell.generation)]
        flops = "–" if cell.base_flops is None else f"{cell.base_flops:.3g}"
        table.append((f"{cell.target_bpp:g}", cell.grid, cell.base, *numbers, flops, "yes" if cell.front else ""))
    return f"{align(table)}\n\npage: {swept.page}"


def _mean(number: Mean | None) -> str:
    return "–" if number is None else plus_minus(number.value, number.stderr)
