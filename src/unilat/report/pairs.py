"""Samples where a class is made of two labels: a page of both, and held-out pairs beside what they really look like."""

from torch import Tensor

from unilat.report import sheets
from unilat.report.folder import Contents
from unilat.report.text import esc, figure, how
from unilat.signals.kind import Image

UNSEEN = (214, 96, 44)
"""Colour of the frame around pairs that were never trained on."""
BESIDE = 16


def pairs(run: Contents) -> str:
    """The page, framed where a pair was never trained on, and rows of truth over samples; nothing of other runs."""
    return _page(run) + _beside(run)


def _page(run: Contents) -> str:
    made, labels, seen = (run.arrays.get(name) for name in ("page", "page_labels", "page_seen"))
    if made is None or labels is None or seen is None or not Image.are_rows(made):
        return ""
    if labels.ndim != 2 or labels.shape != seen.shape or labels.numel() != len(made):
        return ""
    (rows, columns), (first, second, *_) = labels.shape, _names(run)
    unseen = ~seen.bool().flatten()
    alt = f"samples of {rows} values of the {second} down and {columns} of the {first} across"
    picture = sheets.png(sheets.framed(sheets.shrunk(made), columns, unseen, UNSEEN), alt)
    words = (
        f"Every picture was drawn from noise for its {first} and its {second}, and decoded; none was "
        f"picked. <strong>Framed: {int(unseen.sum())} pairs that were never trained on.</strong>"
    )
    return how(words) + figure(f'<div class="page">{picture}</div>')


def _beside(run: Contents) -> str:
    truths, made = run.arrays.get("truths"), run.arrays.get("samples")
    if truths is None or made is None or not Image.are_rows(truths) or not Image.are_rows(made):
        return ""
    count = min(2 * BESIDE, len(truths), len(made))
    strips = [
        _strip(title, rows[first : first + BESIDE])
        for first in range(0, count, BESIDE)
        for title, rows in (("Never trained on", truths[:count]), ("Made for the same", made[:count]))
    ]
    *others, last = _names(run)
    words = (
        f"Above a held-out picture, below what the model makes when told its {', '.join(others)} and {last}: it has "
        "seen each of them in other pictures, and these together never."
    )
    return how(words) + figure("".join(strips))


def _strip(title: str, pictures: Tensor) -> str:
    picture = sheets.png(sheets.sheet(sheets.shrunk(pictures), BESIDE), f"{title}: {len(pictures)} pictures")
    return f'<div class="strip"><p>{esc(title)}</p><div>{picture}</div></div>'


def _names(run: Contents) -> list[str]:
    """The names of the factors, as text for the page."""
    factors = run.data.get("factors")
    names = factors.get("names") if isinstance(factors, dict) else None
    return [esc(str(name)) for name in names] if isinstance(names, list) and len(names) > 1 else ["first", "second"]
