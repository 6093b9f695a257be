"""Charts as inline SVG and HTML, without scripts.

Curves live in an SVG of 100 × 100 that is stretched over the plot, with strokes that keep their width; all words are
HTML placed in per cent. So text has the page's own size on a telephone and on a wide screen, and colours follow the
style sheet, light or dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unilat.report.text import esc, short

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One thing to draw. ``kind``: line, dashes, dots, area (down to the x axis) or band (``points`` to ``lower``)."""

    name: str
    points: Points
    colour: str = "measured"
    """A class of the style sheet: measured, wanted, second or quiet."""
    kind: str = "line"
    lower: Points = ()
    legend: bool = True


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, linear or logarithmic, with the places of its labels."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Per cent from the low end; not clipped."""
        if self.log:
            value = max(value, 1e-300)
            return 100 * math.log(value / self.low) / math.log(self.high / self.low)
        return 100 * (value - self.low) / (self.high - self.low)


def axis(low: float, high: float, *, log: bool = False, most: int = 5) -> Axis:
    """An axis that holds ``low`` … ``high`` with at most about ``most`` labels at 1, 2 or 5 times powers of ten."""
    if not high > low:
        spread = abs(low) * 0.1 or 1.0
        low, high = (low / 1.5, low * 1.5) if log else (low - spread, low + spread)
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            ticks = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
            if len(ticks) <= most + 1:
                break
        if len(ticks) > most + 1:
            ticks = ticks[:: math.ceil(len(ticks) / most)]
        return Axis(low, high, tuple(ticks), True)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    ticks = [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]
    return Axis(low, high, tuple(ticks))


def thin(points: Points, most: int = 300) -> tuple[Points, Points, Points]:
    """``(means, highest, lowest)`` of at most ``most`` equal groups of consecutive points."""
    size = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    centre = [sum(x for x, _ in group) / len(group) for group in groups]
    mean = [(x, sum(y for _, y in group) / len(group)) for x, group in zip(centre, groups, strict=True)]
    high = [(x, max(y for _, y in group)) for x, group in zip(centre, groups, strict=True)]
    low = [(x, min(y for _, y in group)) for x, group in zip(centre, groups, strict=True)]
    return mean, high, low


def _path(points: Points, across: Axis, up: Axis) -> str:
    """SVG path through the points; far outside the plot the coordinates are held, so that numbers stay short."""
    steps = (f"{across.place(x):.2f} {min(400.0, max(-300.0, 100 - up.place(y))):.2f}" for x, y in points)
    return "M" + "L".join(steps)


def _drawn(curve: Curve, across: Axis, up: Axis) -> str:
    path = _path(curve.points, across, up)
    if curve.kind == "dots":
        dots = "".join(f"M{piece}h0" for piece in path[1:].split("L"))
        return f'<path class="dots {curve.colour}" d="{dots}"/>'
    if curve.kind == "band":
        back = _path(list(reversed(curve.lower)), across, up)[1:]
        return f'<path class="fill {curve.colour}" d="{path}L{back}Z"/>'
    if curve.kind == "area":
        ends = f"L{across.place(curve.points[-1][0]):.2f} 100L{across.place(curve.points[0][0]):.2f} 100Z"
        return f'<path class="fill {curve.colour}" d="{path}{ends}"/><path class="line {curve.colour}" d="{path}"/>'
    return f'<path class="{curve.kind} {curve.colour}" d="{path}"/>'


def chart(
    curves: Sequence[Curve],
    across: Axis,
    up: Axis,
    *,
    x_label: str,
    y_label: str,
    alt: str,
    x_text: Callable[[float], str] = short,
    y_text: Callable[[float], str] = short,
    small: bool = False,
) -> str:
    """A chart as HTML. ``alt`` says in a sentence what a reader sees; labels and alt are escaped here."""
    grid = "".join(f'<path class="grid" d="M0 {100 - up.place(tick):.2f}H100"/>' for tick in up.ticks)
    drawn = "".join(_drawn(curve, across, up) for curve in curves if curve.points)
    rows = "".join(
        f'<span class="y" style="top:{100 - up.place(tick):.2f}%">{esc(y_text(tick))}</span>' for tick in up.ticks
    )
    columns = "".join(
        f'<span class="x" style="left:{across.place(tick):.2f}%">{esc(x_text(tick))}</span>' for tick in across.ticks
    )
    keys = "".join(
        f'<li><i class="{curve.kind} {curve.colour}"></i>{esc(curve.name)}</li>'
        for curve in curves
        if curve.legend and curve.points
    )
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    return (
        f'<div class="chart{" small" if small else ""}">{legend}<p class="y-label">{esc(y_label)}</p>'
        f'<div class="plot" role="img" aria-label="{esc(alt)}"><svg viewBox="0 0 100 100" preserveAspectRatio="none" '
        f'aria-hidden="true">{grid}{drawn}</svg>{rows}{columns}</div><p class="x-label">{esc(x_label)}</p></div>'
    )


def gauge(wanted: float, measured: float, stderr: float | None, unit: str) -> str:
    """Wanted bits as a mark, measured bits as a dot with two standard errors, the band of ±3 % behind them."""
    error = stderr or 0.0
    reach = max(0.06 * wanted, 1.25 * (abs(measured - wanted) + 2 * error))
    line = Axis(wanted - reach, wanted + reach, ())
    left, right = line.place(0.97 * wanted), line.place(1.03 * wanted)
    low, high = line.place(measured - 2 * error), line.place(measured + 2 * error)
    alt = f"{measured:.4g} {unit} measured against {wanted:.4g} wanted; the band is ±3 % of the wanted bits"
    ends = "".join(
        f'<span class="end" style="left:{line.place(share * wanted):.2f}%">{text}</span>'
        for share, text in ((0.97, "−3 %"), (1.0, "asked"), (1.03, "+3 %"))
    )
    return (
        f'<div class="gauge" role="img" aria-label="{esc(alt)}"><div class="track">'
        f'<i class="goal" style="left:{left:.2f}%;width:{right - left:.2f}%"></i><i class="mark"></i>'
        f'<i class="error" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        f'<i class="dot" style="left:{line.place(measured):.2f}%"></i></div>{ends}</div>'
    )


def bars(rows: Sequence[tuple[str, float, str]], *, alt: str) -> str:
    """Horizontal bars: ``(name, value, text beside the bar)``; the longest is full width."""
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    lines = "".join(
        f'<li><span class="name">{esc(name)}</span><span class="bar"><i style="width:{100 * value / longest:.2f}%"></i>'
        f'</span><span class="value">{esc(text)}</span></li>'
        for name, value, text in rows
    )
    return f'<ul class="bars" aria-label="{esc(alt)}">{lines}</ul>'
