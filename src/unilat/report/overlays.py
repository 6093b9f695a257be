"""Curves of several runs in one chart, one chart for each protocol, and their pictures side by side."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unilat.report import figures, sheets
from unilat.report.comparison import Shared
from unilat.report.folder import Contents
from unilat.report.text import entry, esc, figure, finite, gone, how, plural
from unilat.report.training import series
from unilat.signals.kind import Image

WORDS = {
    "rate": "Bits per pixel of training batches, means of neighbouring steps; dashed is what was asked for.",
    "decoder": "Nats per picture of the decoder alone, before the loss factor.",
    "base": "Nats per latent number. The latents are each run's own, so a lower curve is not a better run: look at "
    "where the curves flatten, and judge by the distances.",
    "curve": "Bits that become visible as a latent is lifted out of noise; the area below a curve is its bits. Left is "
    "coarse, right is fine.",
    "scatter": "Held-out bits and PSNR of each run with two standard errors: up is closer to the originals, left is "
    "cheaper.",
}


def chart(key: str, shared: Shared, runs: Sequence[Contents], names: Sequence[str]) -> str:
    """All charts of one kind: runs of one protocol share a chart, others get their own, and the reason is told."""
    draw = {"rate": _rate, "decoder": _decoder, "base": _base, "curve": _information, "scatter": _scatter}[key]
    if not shared.groups:
        return gone("None of the runs holds this curve.")
    parts = [how(esc(WORDS[key]))]
    if shared.why:
        parts.append(how(f"<strong>Kept apart:</strong> {esc(shared.why)}"))
    for group in shared.groups:
        told = _guarded(draw, [(index, runs[index], names[index]) for index in group])
        title = f"<h3>{esc(', '.join(names[index] for index in group))}</h3>" if len(shared.groups) > 1 else ""
        parts.append(title + told)
    return "".join(parts)


Rows = list[tuple[int, Contents, str]]


def _guarded(draw: Callable[[Rows], str], rows: Rows) -> str:
    """``draw(rows)``; files that hold something unforeseen cost this chart only."""
    try:
        return draw(rows)
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, RuntimeError) as problem:
        return gone(f"This chart could not be drawn ({type(problem).__name__}: {problem}).".splitlines()[0])


def _curve(index: int, name: str, points: figures.Points, kind: str = "line", legend: bool = True) -> figures.Curve:
    return figures.Curve(name, points, f"run{index}", kind, legend=legend)


def _logged(rows: Rows, stage: str, key: str) -> list[tuple[int, str, figures.Points]]:
    """Thinned means of one logged number, run by run."""
    found = []
    for index, run, name in rows:
        points = series(run.stage(stage), key)
        if len(points) > 1:
            mean, _, _ = figures.thin(points, min(160, max(40, len(points) // 3)))
            found.append((index, name, mean))
    return found


def _framed(curves: list[figures.Curve], lines: list[tuple[int, str, figures.Points]], y: str, x: str) -> str:
    """Curves over samples seen; logarithmic where they span much, cut above what a run settles at."""
    points = [point for _, _, mean in lines for point in mean]
    values = sorted(value for _, value in points)
    log = values[0] > 0 and values[-1] / values[0] > 8
    up = figures.axis(values[0] / 1.1 if log else min(0.0, values[0]), values[-1] * 1.05 or 1.0, log=log, most=5)
    across = figures.axis(0.0, max(x for x, _ in points), most=5)
    alt = "; ".join(f"{name}: from {mean[0][1]:.3g} to {mean[-1][1]:.3g}" for _, name, mean in lines)
    drawn = figures.chart(curves, across, up, x_label=x, y_label=y + (", logarithmic" if log else ""), alt=alt)
    return figure(drawn)


def _rate(rows: Rows) -> str:
    lines = _logged(rows, "stage1", "bpp")
    curves = [_curve(*line) for line in lines]
    for index, run, _ in rows:
        wanted = finite(entry(run.config, "stage1", "target_bpp"))
        end = max((x for own, _, mean in lines if own == index for x, _ in mean), default=0.0)
        if wanted and end:
            curves.append(_curve(index, "asked for", [(0.0, wanted), (end, wanted)], "dashes", legend=False))
    return _framed(curves, lines, "bits per pixel", "pictures seen in stage 1")


def _decoder(rows: Rows) -> str:
    lines = _logged(rows, "stage1", "decoder")
    return _framed([_curve(*line) for line in lines], lines, "nats per picture", "pictures seen in stage 1")


def _base(rows: Rows) -> str:
    lines = _logged(rows, "stage2", "loss")
    return _framed([_curve(*line) for line in lines], lines, "nats per latent number", "latents seen in stage 2")


def _information(rows: Rows) -> str:
    curves = []
    for index, run, name in rows:
        edges, bits = run.arrays["curve_edges"].double(), run.arrays["curve_bits"].double()
        density = (bits / edges.diff()).tolist()
        steps = zip(edges[:-1].tolist(), edges[1:].tolist(), density, strict=True)
        curves.append(_curve(index, name, [(x, y) for low, high, y in steps for x in (low, high)]))
    points = [point for curve in curves for point in curve.points]
    across = figures.axis(min(x for x, _ in points), max(x for x, _ in points), most=6)
    up = figures.axis(0.0, 1.08 * max(y for _, y in points), most=4)
    alt = "; ".join(f"{curve.name}: at most {max(y for _, y in curve.points):.3g} bits a unit" for curve in curves)
    x_label, y_label = "log signal-to-noise ratio λ of the latent", "bits per unit of λ, one picture"
    return figure(figures.chart(curves, across, up, x_label=x_label, y_label=y_label, alt=alt))


def _scatter(rows: Rows) -> str:
    if len(rows) < 2:
        return gone("One run alone makes no scatter.")
    curves, spots = [], []
    for index, run, name in rows:
        if run.results is None:
            continue
        bits, psnr = run.results.bits, run.results.reconstruction.psnr
        x, y = finite(bits.value), finite(psnr.value)
        if x is None or y is None:
            continue
        dx, dy = 2 * (finite(bits.stderr) or 0.0), 2 * (finite(psnr.stderr) or 0.0)
        spots.append((x, y, dx, dy, name))
        curves.append(_curve(index, name, [(x, y)], "dots"))
        curves.append(_curve(index, name, [(x - dx, y), (x + dx, y)], legend=False))
        curves.append(_curve(index, name, [(x, y - dy), (x, y + dy)], legend=False))
    low_x, high_x = min(x - dx for x, _, dx, _, _ in spots), max(x + dx for x, _, dx, _, _ in spots)
    low_y, high_y = min(y - dy for _, y, _, dy, _ in spots), max(y + dy for _, y, _, dy, _ in spots)
    wide, tall = 0.12 * (high_x - low_x) or 0.1 * high_x or 1.0, 0.15 * (high_y - low_y) or 1.0
    across, up = figures.axis(low_x - wide, high_x + wide, most=5), figures.axis(low_y - tall, high_y + tall, most=5)
    alt = "; ".join(f"{name}: {x:.4g} bits per pixel, {y:.4g} dB" for x, y, _, _, name in spots)
    return figure(figures.chart(curves, across, up, x_label="bits per pixel", y_label="PSNR, dB", alt=alt))


def pictures(runs: Sequence[Contents], names: Sequence[str]) -> str:
    """Originals, and below them each run's reconstructions; runs that held out other pictures come in another block."""
    own = [run.arrays.get("originals") for run in runs]
    known = [index for index, value in enumerate(own) if Image.are_rows(value)]
    if not known:
        return gone("None of the runs holds pictures.")
    blocks: list[list[int]] = []
    for index in known:
        same = next((block for block in blocks if _equal(own[block[0]], own[index])), None)
        blocks.append([index]) if same is None else same.append(index)
    parts = [how("Held-out originals, and each run's reconstructions with the decoder calls it was evaluated with.")]
    if len(blocks) > 1:
        sets = plural(len(blocks), "set")
        parts.append(how(f"<strong>Kept apart:</strong> the runs held out {sets} of pictures that differ."))
    for block in blocks:
        parts.append(_block(own[block[0]], [(runs[index], names[index]) for index in block]))
    return "".join(parts)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and torch.equal(a, b)


def _block(originals: Tensor | None, rows: list[tuple[Contents, str]]) -> str:
    assert originals is not None
    strips = [_strip("Originals", "held out", originals[:8], f"{len(originals[:8])} held-out originals")]
    for run, name in rows:
        made = _reconstructions(run)
        evaluated = run.results.reconstruction if run.results else None
        calls = evaluated.steps if evaluated else None
        steps = calls if calls in made else min(made, default=None)
        if steps is None:
            strips.append(gone(f"{name} holds no reconstructions."))
            continue
        psnr = finite(evaluated.psnr.value) if evaluated and steps == calls else None
        words = plural(steps, "decoder call") + (f", {psnr:.1f} dB" if psnr is not None else "")
        strips.append(_strip(name, words, made[steps][:8], f"reconstructions of {name}, {words}"))
    return figure("".join(strips))


def _reconstructions(run: Contents) -> dict[int, Tensor]:
    """By the number of decoder calls."""
    return {
        int(steps): value
        for key, value in run.arrays.items()
        if (steps := key.removeprefix("reconstructions_")) != key and steps.isdecimal() and Image.are_rows(value)
    }


def _strip(title: str, below: str, shown: Tensor, alt: str) -> str:
    picture = sheets.png(sheets.sheet(sheets.shrunk(shown), len(shown)), alt)
    return f'<div class="strip"><p>{esc(title)}<small>{esc(below)}</small></p><div>{picture}</div></div>'
