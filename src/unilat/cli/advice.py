"""`unilat advise`: which bits, grid and base model to take for a budget, and how it is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import DisallowNone, Positional, arg

if TYPE_CHECKING:
    from unilat.studies.advice import Advice, Change
    from unilat.studies.scaling import Interval

Json = Annotated[bool, arg(help="Print one JSON object on standard output instead of text.")]


@dataclass(frozen=True, kw_only=True)
class Advise:
    """Tell bits, latent grid and base model for a budget, from the runs of a sweep.

    RUNS are run folders, or folders of them; what `unilat sweep` made, or runs by hand.

        unilat advise runs/sweep --flops 1e15
        unilat advise runs/a runs/b runs/c --flops 2e14 --json

    A law is fitted to the runs of each grid: more bits leave less to the decoder and more for the base
    model to learn, and FLOPs help it learn. It needs runs of three bits or more, and of two budgets for
    any other than theirs; docs/advise.md has the formula. All intervals hold 90 %: they stand on the
    errors of the runs' distances, and on the noise between seeds where some runs differ in it alone."""

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUNS")]]
    """Run folders, or folders of runs."""
    flops: float
    """Budget: FLOPs of training the base model, as `unilat train --dry-run` counts them."""
    pixels: Annotated[DisallowNone[str | None], arg(metavar="PIXELS")] = None
    """Side of the pictures that the advice is for, 64, or height x width, 96x128. By default the runs' own; of
    others nothing is known, and as many bits a pixel and FLOPs a pixel are taken."""
    json: Json = False

    def execute(self) -> None:
        """Fit, advise, print."""
        from unilat.cli.output import Output
        from unilat.studies.advise import advise

        with Output(self.json) as output:
            found = advise(self.runs, self.flops, self.pixels)
            output.result(found.to_json(), advice_text(found))


def advice_text(found: "Advice") -> str:
    """What to take, what a tenth of the bits changes, a table of the grids, the notes, and the command."""
    from unilat.cli.naming import options_named
    from unilat.cli.tables import align
    from unilat.fields import spelled as sized
    from unilat.studies.scaling import spelled

    first, base, data = found.chosen, found.base, found.data.rsplit(" ", 1)[0]
    lines = [
        f"for {found.flops:.3g} FLOPs of training the base model on {data} of {sized(found.size)} pixels:",
        f"take {first.bits:.3g} bits per pixel, latents of {spelled(first.grid)} and base {base.base} of "
        f"{base.parameters:,} parameters, trained on {found.samples:,} latents",
        f"expect a generation distance of {_span(first.distance)}",
        f"a tenth more bits {_changed(found.more)}; a tenth fewer {_changed(found.fewer)}",
    ]
    if len(first.budgets) > 1:
        lines.append(f"ten times the FLOPs take {_span(first.growth, power=True)} times the bits")
    rows = [("grid", "best bits per pixel", "distance there", "runs", "bits seen", "budgets seen")]
    for one in found.grids:
        seen = (f"{one.runs}", _seen(one.levels_of_bits), _seen(one.budgets))
        rows.append((spelled(one.grid), _span(one.best_bits), _span(one.distance), *seen))
    notes = [f"note: {line}" for line in found.notes] + list(found.left_out)
    parts = ["\n".join(lines), align(rows), options_named("\n".join(notes)), found.command]
    return "\n\n".join(part for part in parts if part)


def _span(number: "Interval", power: bool = False) -> str:
    """``0.21 (0.15 to 0.3)``; of ten to the power of each with ``power``."""
    value, low, high = (10.0**one if power else one for one in (number.value, number.low, number.high))
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def _seen(levels: tuple[float, ...]) -> str:
    return " to ".join(f"{one:.3g}" for one in dict.fromkeys((levels[0], levels[-1])))


def _changed(change: "Change") -> str:
    """``(0.22): +0.003 (-0.001 to +0.007)``."""
    one = change.distance
    return f"({change.bits:.3g}) change it by {one.value:+.2g} ({one.low:+.2g} to {one.high:+.2g})"
