"""The page of a sweep: what bits buy for each base model, which runs are efficient, and every number behind it.

Made of plain records (``report/swept.py``) and a few samples; no scripts, no outside links.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from unilat.report import figures, sheets
from unilat.report.compare import css, swatch
from unilat.report.page import save, shell
from unilat.report.pictures import strip
from unilat.report.swept import Cell, Mean, Row, Swept
from unilat.report.text import esc, figure, flops, gone, how, plural, plus_minus, pretty
from unilat.results import Number
from unilat.signals.kind import Image

TITLE = "a unilat sweep"
"""What the titles of these pages end with."""
SHOWN = 16
"""Samples of a cell."""
COLOURS = 8
BITS = "bits per pixel, measured; marked where they were wanted"
Read = Callable[[Cell], Mean | None]
QUALITY: tuple[tuple[str, Read, str], ...] = (
    ("PSNR, dB", lambda cell: cell.psnr, "of reconstructions; more is better"),
    ("reconstruction distance", lambda cell: cell.reconstruction, "kernel distance; less is better"),
)


def write(path: Path, swept: Swept, samples: Mapping[str, Tensor | None]) -> Path:
    """Write the page, whole or not at all; ``samples`` are by run name. UserError where it cannot be written."""
    return save(path, page(swept, samples))


def page(swept: Swept, samples: Mapping[str, Tensor | None]) -> str:
    """The whole page as text."""
    parts = {
        "best": ("The best bits for each base model", "Best bits", _best(swept)),
        "generation": ("New pictures", "New pictures", _generation(swept)),
        "front": ("The efficient front", "Front", _fronts(swept)),
        "quality": ("What the latents keep", "Reconstructions", _quality(swept)),
        "samples": ("Samples", "Samples", _samples(swept, samples)),
        "runs": ("Every run", "Every run", _table(swept)),
        "protocol": ("How the numbers were measured", "Protocol", _protocol(swept)),
    }
    links = [(name, short) for name, (_, short, _) in parts.items()]
    body = "".join(
        f'<section id="{name}"><h2>{esc(title)}</h2>{inner}</section>' for name, (title, _, inner) in parts.items()
    )
    return shell(f"{swept.name}: {TITLE}", _head(swept), links, body, "", css())


def _unique(cells: Sequence[Cell], name: str) -> list[str]:
    return list(dict.fromkeys(getattr(cell, name) for cell in cells))


def _head(swept: Swept) -> str:
    """What is swept, how far it has come, and what diverged."""
    bits = sorted({cell.target_bpp for cell in swept.cells})
    bases, grids = _unique(swept.cells, "base"), _unique(swept.cells, "grid")
    seeds = len({row.seed for row in swept.rows})
    done = [row for row in swept.rows if row.state in ("done", "missed")]
    lead = (
        f"{plural(len(swept.rows), 'run')} of {esc(swept.data)}: {esc(', '.join(f'{one:g}' for one in bits))} bits per "
        f"pixel, latents of {esc(', '.join(grids))}, base models {esc(', '.join(bases))}, {plural(seeds, 'seed')}. "
    )
    lead += "All are finished." if len(done) == len(swept.rows) else f"{len(done)} are finished."
    lines = [
        f"<li><strong>{esc(row.name)}</strong> {esc(_STATES[row.state])}<small>{esc(row.reason)}</small></li>"
        for row in swept.rows
        if row.state in ("missed", "diverged")
    ]
    told = f'<ul class="runs">{"".join(lines)}</ul>' if lines else ""
    return f'<p class="eyebrow">unilat sweep</p><h1>{esc(swept.name)}</h1><p class="lead">{lead}</p>{told}'


_STATES = {"waiting": "not finished", "done": "", "missed": "missed its bits", "diverged": "diverged"}


def best(swept: Swept) -> list[tuple[Cell, list[Cell]]]:
    """For each base size and grid, in their order, the cell of the nearest samples, and the other cells of that size
    and grid whose distance lies within two standard errors of the difference."""
    found = []
    for base in _unique(swept.cells, "base"):
        for grid in _unique(swept.cells, "grid"):
            own = [cell for cell in swept.cells if (cell.base, cell.grid) == (base, grid) and cell.generation]
            if own:
                first = min(own, key=_distance)
                found.append((first, [cell for cell in own if cell is not first and _near(cell, first)]))
    return found


def _distance(cell: Cell) -> float:
    return cell.generation.value if cell.generation else math.inf


def _near(cell: Cell, first: Cell) -> bool:
    """Whether two distances differ by no more than two standard errors of their difference."""
    one, other = cell.generation, first.generation
    return one is not None and other is not None and one.value - other.value <= 2 * math.hypot(one.stderr, other.stderr)


def _best(swept: Swept) -> str:
    found = best(swept)
    if not found:
        return gone("No run has samples with a distance yet.")
    bases = _unique(swept.cells, "base")
    levels = {row.base: row.levels for row in swept.rows}
    rows = "".join(
        f'<tr><th scope="row">{swatch(bases.index(cell.base))}{esc(cell.base)}'
        f"<small> {esc(levels[cell.base])}</small></th>"
        f'<td>{esc(cell.grid)}</td><td class="n">{esc(flops(cell.base_flops))}</td>'
        f'<td class="n"><strong>{cell.target_bpp:g}</strong></td><td class="n">{_shown(cell.generation)}</td>'
        f"<td>{esc(', '.join(f'{one.target_bpp:g}' for one in near) or '–')}</td></tr>"
        for cell, near in found
    )
    heads = ("base model", "latent", "base training FLOPs", "best bits", "distance of samples", "within its error")
    return how(
        "Wanted bits per pixel whose samples come nearest to held-out pictures, and other bits that cannot be told "
        "from them (two standard errors of the difference)."
    ) + _wide(heads, rows, (2, 3, 4))


def _wide(heads: Sequence[str], rows: str, right: Sequence[int]) -> str:
    """A table that scrolls sideways; columns ``right`` hold numbers."""
    cells = "".join(
        f'<th scope="col"{" class=n" if place in right else ""}>{esc(head)}</th>' for place, head in enumerate(heads)
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'


def _shown(number: Mean | Number | None) -> str:
    return "–" if number is None else esc(plus_minus(number.value, number.stderr))


def _generation(swept: Swept) -> str:
    """Bits against the distance of samples: a chart for each grid, a curve for each base size, on equal axes."""
    known = [cell for cell in swept.cells if cell.generation and cell.bits]
    if not known:
        return gone("No run has samples with a distance yet.")
    bases, grids = _unique(swept.cells, "base"), _unique(known, "grid")
    across, up = _axes(known, lambda cell: cell.generation)
    charts = []
    for grid in grids:
        curves = [
            curve
            for base in bases
            for curve in _curves(
                [cell for cell in known if (cell.base, cell.grid) == (base, grid)],
                lambda cell: cell.generation,
                base,
                f"run{bases.index(base) % COLOURS}",
            )
        ]
        title = f"<h3>latents of {esc(grid)}</h3>" if len(grids) > 1 else ""
        alt = "; ".join(
            f"{cell.base} at {cell.target_bpp:g} bits per pixel: {_distance(cell):.3g}"
            for cell in known
            if cell.grid == grid
        )
        drawn = figures.chart(curves, across, up, x_label=BITS, y_label="kernel distance of samples", alt=alt)
        charts.append(f"<div>{title}{drawn}</div>")
    inner = "".join(charts)
    return how(
        "Kernel distance between samples and held-out pictures; less is better. A dot is a run, lines join means over "
        "seeds, and bars are two standard errors of the mean. Bits are measured on held-out pictures."
    ) + figure(f'<div class="pair">{inner}</div>' if len(grids) > 1 else inner)


def _axes(cells: Sequence[Cell], read: Read) -> tuple[figures.Axis, figures.Axis]:
    """Axes that hold bits, marked where they were wanted, and a number of all these cells with their errors."""
    numbers = [number for cell in cells if (number := read(cell))]
    bits = [one for cell in cells if cell.bits for one in cell.bits.each]
    low = min(min(number.value - 2 * number.stderr, *number.each) for number in numbers)
    high = max(max(number.value + 2 * number.stderr, *number.each) for number in numbers)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    log, wanted = max(bits) > 3 * min(bits) > 0, sorted({cell.target_bpp for cell in cells})
    ends = min(*bits, *wanted) / 1.1, max(*bits, *wanted) * 1.1
    across = figures.Axis(*ends, tuple(wanted[:: math.ceil(len(wanted) / 8)]), log)
    return across, figures.axis(low - room, high + room, most=5)


def _curves(cells: Sequence[Cell], read: Read, name: str, colour: str) -> list[figures.Curve]:
    """A line through the means, a bar of two standard errors at each, and a dot for each seed."""
    found = sorted(
        ((cell.bits, number) for cell in cells if cell.bits and (number := read(cell))), key=lambda one: one[0].value
    )
    curves = [figures.Curve(name, [(bits.value, number.value) for bits, number in found], colour)]
    dots = [point for bits, number in found for point in zip(bits.each, number.each, strict=False)]
    curves.append(figures.Curve(name, dots, colour, "dots", legend=False))
    for bits, number in found:
        ends = [(bits.value, number.value + side * 2 * number.stderr) for side in (-1, 1)]
        curves.append(figures.Curve(name, ends, colour, legend=False))
    return curves


def _quality(swept: Swept) -> str:
    """Bits against PSNR and the distance of reconstructions: the same for all base sizes, which share autoencoders."""
    charts = []
    for title, read_of, words in QUALITY:
        known: dict[tuple[str, float], Cell] = {}
        for cell in swept.cells:
            if cell.bits and read_of(cell):
                known.setdefault((cell.grid, cell.target_bpp), cell)
        if not known:
            continue
        grids = _unique(list(known.values()), "grid")
        across, up = _axes(list(known.values()), read_of)
        curves = [
            curve
            for grid in grids
            for curve in _curves(
                [cell for cell in known.values() if cell.grid == grid],
                read_of,
                f"latents of {grid}",
                f"run{(COLOURS - 1 - grids.index(grid)) % COLOURS}",
            )
        ]
        alt = "; ".join(
            f"{grid} at {bits:g} bits per pixel: {number.value:.3g}"
            for (grid, bits), cell in known.items()
            if (number := read_of(cell))
        )
        y_label = f"{title}; {words}"
        drawn = figures.chart(curves, across, up, x_label=BITS, y_label=y_label, alt=alt)
        charts.append(f"<div>{drawn}</div>")
    if not charts:
        return gone("No run is finished yet.")
    return how(
        "One curve for each grid: base models of all sizes share one autoencoder at equal bits, grid and seed."
    ) + figure(f'<div class="pair">{"".join(charts)}</div>')


def _fronts(swept: Swept) -> str:
    """Training FLOPs against the distance of samples, of the base model alone and with the autoencoder's."""
    known = [cell for cell in swept.cells if cell.generation and cell.whole_flops]
    if not known:
        return gone("No run has samples with a distance yet.")
    bases = _unique(swept.cells, "base")
    charts = []
    for x_label, cost, on in (
        ("training FLOPs of the base model", lambda cell: cell.base_flops, lambda cell: cell.front),
        ("training FLOPs with the autoencoder's", lambda cell: cell.whole_flops, lambda cell: cell.front_whole),
    ):
        costs = [cost(cell) or 0.0 for cell in known]
        across = figures.axis(min(costs) / 1.5, max(costs) * 1.5, log=True, most=4)
        _, up = _axes(known, lambda cell: cell.generation)
        line = sorted((cost(cell) or 0.0, _distance(cell)) for cell in known if on(cell))
        curves = [figures.Curve("the front", line, "quiet", "dashes")]
        for base in bases:
            own = [(cost(cell) or 0.0, _distance(cell)) for cell in known if cell.base == base]
            curves.append(figures.Curve(base, own, f"run{bases.index(base) % COLOURS}", "dots"))
        alt = "; ".join(f"{_named(cell)}: {flops(cost(cell))} FLOPs, {_distance(cell):.3g}" for cell in known)
        drawn = figures.chart(
            curves, across, up, x_label=x_label, y_label="kernel distance of samples", alt=alt, x_text=flops
        )
        told = "".join(
            f"<li>{esc(_named(cell))}: {_shown(cell.generation)} for {esc(flops(cost(cell)))} FLOPs</li>"
            for cell in sorted(known, key=lambda cell: cost(cell) or 0.0)
            if on(cell)
        )
        charts.append(f"<div>{drawn}<ul>{told}</ul></div>")
    return how(
        "A cell is on the front where no other is at least as near for no more FLOPs; what lies within the errors of "
        "it may be there by chance. The autoencoder counts whole for each cell, as if it served that one alone."
    ) + figure(f'<div class="pair">{"".join(charts)}</div>')


def _named(cell: Cell) -> str:
    return f"{cell.base} at {cell.target_bpp:g} bits, {cell.grid}"


def _samples(swept: Swept, samples: Mapping[str, Tensor | None]) -> str:
    """The first samples of each cell's first finished run."""
    strips = []
    for cell in swept.cells:
        made = samples.get(cell.runs[0]) if cell.runs else None
        if not Image.are_rows(made):
            continue
        some = sheets.shrunk(made[:SHOWN], 64)
        picture = sheets.png(sheets.sheet(some, SHOWN), f"samples of {_named(cell)}")
        far = f"distance {pretty(_distance(cell), 3)}" if cell.generation else ""
        strips.append(
            strip(f"{cell.target_bpp:g} bits, {cell.base}", [one for one in (cell.grid, far) if one], picture)
        )
    if not strips:
        return gone("No run has samples yet.")
    return how("The first samples of each cell's first run, none of them chosen.") + figure("".join(strips))


def _table(swept: Swept) -> str:
    """Every run with all its numbers."""
    fronts = {name: cell for cell in swept.cells for name in cell.runs}

    def line(row: Row) -> str:
        cell = fronts.get(row.name)
        numbers = (row.bits, row.psnr, row.reconstruction, row.generation)
        marks = ", ".join(
            word for word, on in (("base", cell and cell.front), ("whole", cell and cell.front_whole)) if on
        )
        counts = "".join(f'<td class="n">{esc(flops(one))}</td>' for one in (row.base_flops, row.autoencoder_flops))
        return (
            f'<tr><th scope="row">{esc(row.name)}</th><td>{esc(_STATES[row.state] or "finished")}</td>'
            + "".join(f'<td class="n">{_shown(number)}</td>' for number in numbers)
            + f"{counts}<td>{esc(marks or '–')}</td></tr>"
        )

    heads = (
        "run",
        "state",
        "bits per pixel",
        "PSNR, dB",
        "reconstructions",
        "samples",
        "base FLOPs",
        "autoencoder FLOPs",
        "on the front",
    )
    return how(
        "± is one standard error over pictures. Distances are kernel distances. FLOPs are those of training. On the "
        "front: of base FLOPs, or of the whole."
    ) + _wide(heads, "".join(map(line, swept.rows)), range(2, 8))


def _protocol(swept: Swept) -> str:
    """By what the numbers were measured; of more than one protocol they do not compare."""
    lines = list(dict.fromkeys(row.protocol for row in swept.rows if row.protocol))
    if not lines:
        return gone("No run is finished yet.")
    mind = (
        ""
        if len(lines) == 1
        else (
            f'<p class="plain"><strong>Mind.</strong> {len(lines)} protocols: numbers of one do not compare with those '
            "of another. Start the sweep again to measure all runs by one.</p>"
        )
    )
    return (
        mind
        + "".join(f"<p>{esc(line)}</p>" for line in lines)
        + how(
            "The bits are an upper bound on what a latent tells of its picture. A mean's error joins the errors of its "
            "runs over pictures, which more seeds do not lower, and the spread between seeds, which they do: "
            "√(mean of squared errors + variance between seeds / seeds)."
        )
    )
