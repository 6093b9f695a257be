"""Numbers and words as a reader wants them, safe inside HTML. What came from a file passes through ``esc``."""

import html
import math
from collections.abc import Mapping

from unilat.results import Number, Start


def esc(value: object) -> str:
    """Any value as text that HTML cannot mistake for markup, also inside quoted attributes."""
    return html.escape(str(value), quote=True)


def finite(value: object) -> float | None:
    """``value`` as a float, or None where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        return None
    return number if math.isfinite(number) else None


def entry(tree: object, *path: str) -> object:
    """``tree[path[0]][path[1]]…``, or None where a step is missing or is no dictionary."""
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def branch(tree: object, *path: str) -> Mapping[str, object]:
    """:func:`entry` where it is a dictionary; an empty one else."""
    inner = entry(tree, *path)
    return inner if isinstance(inner, Mapping) else {}


def items(tree: object, *path: str) -> list[object]:
    """:func:`entry` where it is a list; an empty one else."""
    inner = entry(tree, *path)
    return inner if isinstance(inner, list) else []


def pretty(value: float | None, digits: int = 4) -> str:
    """A number with ``digits`` significant digits and no power of ten where it can be helped; – for none."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 14:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - size)}f}"


def plus_minus(value: float | None, stderr: float | None) -> str:
    """``0.301 ± 0.002``: the error to one digit (two where it begins with 1), the value to the same place."""
    if value is None:
        return "–"
    if stderr is None or not 0 < stderr < math.inf:
        return pretty(value)
    size = math.floor(math.log10(stderr))
    places = max(0, -size + (1 if stderr / 10.0**size < 2 else 0))
    if places > 8:
        return pretty(value)
    return f"{value:,.{places}f} ± {stderr:,.{places}f}"


def how(inner: str) -> str:
    """A paragraph of HTML that says how to read the figure below it."""
    return f'<p class="how">{inner}</p>'


def figure(inner: str, kind: str = "") -> str:
    """A framed figure around HTML."""
    return f'<div class="figure {kind}">{inner}</div>' if kind else f'<div class="figure">{inner}</div>'


def gone(text: str) -> str:
    """A line where a part of the report would be that the run folder does not hold."""
    return f'<p class="gone">{esc(text)}</p>'


def percent(share: float, places: int = 0) -> str:
    """``0.4 %`` with a space that does not break."""
    return f"{100 * share:.{places}f}\u00a0%"


def short(value: float) -> str:
    """Axis labels and counts: 250k, 1.2M, 0.05, 3e-6."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{letter}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def flops(value: float | None) -> str:
    """``1.2 × 10¹⁴``."""
    if value is None:
        return "–"
    if value < 1e4:
        return pretty(value)
    digits, power = f"{value:.2e}".split("e")
    raised = str(int(power)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"


def duration(seconds: float | None) -> str:
    """``42 s``, ``6 min 12 s``, ``3 h 07 min``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(mebibytes: float | None) -> str:
    """``512 MiB`` or ``1.4 GiB``."""
    if mebibytes is None:
        return "–"
    return f"{mebibytes:,.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 picture``, ``1,200 pictures``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def start_line(start: Start, reached: Number) -> str:
    """What the bits cost of an encoder that was taken over, in a sentence; ``reached`` is the run's own PSNR."""
    kept = "kept" if start.tune != "all" else "tuned"
    said = f"encoder {kept} ({start.what}): these bits leave noise of {start.noise:.1%} of a latent's deviation"
    if start.clean is None:
        return said
    lost, own = start.clean.value - reached.value, f"{start.clean.value:.2f} dB by its own decoder without noise"
    return f"{said}, and cost {lost:.2f} dB: {own}" if lost >= 0 else f"{said}, and yet gain {-lost:.2f} dB: {own}"
