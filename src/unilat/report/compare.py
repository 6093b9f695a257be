"""The page of a comparison: tables with one column per protocol, and curves laid over each other.

Made of plain data: the table of ``unilat compare --json`` and the runs' files. No scripts, no outside links.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from unilat.files import whole
from unilat.report import overlays
from unilat.report.comparison import Cell, Column, Comparison
from unilat.report.folder import Contents
from unilat.report.style import CSS
from unilat.report.text import esc, flops, gone, how, plural, plus_minus, pretty
from unilat.types import UserError

LIGHT = ("#2900cc", "#ed461d", "#131320", "#6685ff", "#d67171", "#6c0b84", "#701600", "#9f8cba")
DARK = ("#66ffff", "#d93912", "#f8d9aa", "#ff66ff", "#586f93", "#b3f155", "#9d0aff", "#a37266")
"""Eight colours that also readers with one of the three kinds of colour blindness tell apart (a test measures it)."""

TITLE = "unilat runs side by side"
"""What the titles of all these pages end with."""
FOLDED = 12
"""Longer lists of differing fields are folded away."""

TABLES = (
    ("bits", "The bits", "Upper bounds on what a latent says of its picture; measured on held-out pictures."),
    ("quality", "What the pictures are worth", "More is better for PSNR, SSIM and shares; less for distances."),
    (
        "cost",
        "What it cost",
        "Parameters and FLOPs are counted by one rule. Minutes share a column on equal machines only, and mean little "
        "where other programs ran beside.",
    ),
)
NAMES = {
    "rate": "Rate over training",
    "decoder": "Decoder loss",
    "base": "Stage 2 loss",
    "curve": "Information curves",
    "scatter": "PSNR against bits",
}


def write(path: Path, table: Comparison, runs: Sequence[Contents]) -> Path:
    """Write the page to ``path``, whole or not at all; UserError where it cannot be written."""
    path = Path(path)
    try:
        with whole(path) as part:
            part.write_bytes(page(table, runs).encode())
    except OSError as problem:
        raise UserError(f"{path} cannot be written ({problem.strerror}): choose another `out`") from problem
    return path


def page(table: Comparison, runs: Sequence[Contents]) -> str:
    """The whole page as text."""
    names = table.names
    links = {"architectures": "Architectures"} if table.glance else {}
    links |= {"bits": "Bits", "quality": "Quality", "cost": "Costs", "differences": "Differences", **NAMES}
    links |= {"pictures": "Pictures", "protocol": "Protocol"}
    nav = "".join(f'<a href="#{key}">{esc(name)}</a>' for key, name in links.items())
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(len(names))} {TITLE}</title><style>{CSS}{css()}</style></head><body>"
        f'<header class="top">{_head(table)}<nav aria-label="Contents">{nav}</nav></header>'
        f"<main>{inner(table, runs)}</main><footer></footer>"
        "</body></html>\n"
    )


def inner(table: Comparison, runs: Sequence[Contents]) -> str:
    """Tables, differences, curves, pictures and protocols: what stands between the head and the foot of the page."""
    names = table.names
    tables = _architectures(table) + "".join(_table(table, group, title, words) for group, title, words in TABLES)
    charts = "".join(
        f'<section id="{key}"><h2>{esc(title)}</h2>{overlays.chart(key, table.charts[key], runs, names)}</section>'
        for key, title in NAMES.items()
    )
    shown = f'<section id="pictures"><h2>The same pictures</h2>{overlays.pictures(runs, names)}</section>'
    return f"{tables}{_differences(table, names)}{charts}{shown}{_protocols(table)}"


def css() -> str:
    """The runs' colours, and tables that scroll sideways under a first column that stays."""
    light = "".join(f"--run{index}:{colour};" for index, colour in enumerate(LIGHT))
    dark = "".join(f"--run{index}:{colour};" for index, colour in enumerate(DARK))
    each = "".join(
        f"i.run{index}{{color:var(--run{index})}}svg .run{index}{{stroke:var(--run{index})}}"
        for index in range(len(LIGHT))
    )
    return (
        f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{each}"
        ".key{display:inline-block;width:12px;height:12px;border-radius:3px;background:currentColor;margin-right:9px;"
        "vertical-align:-1px}"
        "ul.runs{list-style:none;padding:0;margin:18px 0 0;font-size:15px}ul.runs li{margin:0 0 6px}"
        "ul.runs small{color:var(--soft);font-size:13.5px;margin-left:8px;overflow-wrap:anywhere}"
        ".wide table{width:auto;min-width:100%}.wide thead th{min-width:104px;max-width:150px;vertical-align:bottom;"
        "line-height:1.35;white-space:normal}.wide .n{padding-left:14px}"
        ".wide thead th small{display:block;font-weight:400}.wide th[scope=row]{position:sticky;left:0;"
        "background:var(--paper);min-width:118px;max-width:210px;overflow-wrap:anywhere}"
        ".wide td.n{font-variant-numeric:tabular-nums}.wide td.text{overflow-wrap:anywhere;min-width:90px}"
        "svg .dots{stroke-width:11}@media (min-width:1000px){main,header.top,footer{max-width:1120px}}"
    )


def swatch(index: int) -> str:
    """A square in the colour of a run."""
    return f'<i class="key run{index % len(LIGHT)}"></i>'


def _head(table: Comparison) -> str:
    """What is compared, each run with its colour and, in one line, what is missing of it."""
    lines = []
    for index, run in enumerate(table.runs):
        missing = f"<small>not whole: {esc(run.missing)}</small>" if run.missing else ""
        source = f"<small>{esc(run.source)}</small>" if run.source is not None else ""
        lines.append(f"<li>{swatch(index)}<strong>{esc(run.name)}</strong>{source}{missing}</li>")
    apart = "".join(
        f"<li><strong>{esc(', '.join(one.titles))}</strong> in {len(one.columns)} columns: {esc(_short(one.why))}</li>"
        for one in table.apart
    )
    count = sum(len(one.titles) for one in table.apart)
    words = f"Kept apart: {plural(count, 'quantity', 'quantities')} measured by more than one protocol"
    notes = f"<details><summary>{words}</summary><ul>{apart}</ul></details>" if apart else ""
    return (
        f'<p class="eyebrow">unilat compare</p><h1>{plural(len(lines), "run")} side by side</h1>'
        '<p class="lead">Numbers share a column only where they were measured by the same protocol on the same '
        f'pictures, as many of them.</p><ul class="runs">{"".join(lines)}</ul>{notes}'
    )


def _short(text: str) -> str:
    """Hashes by their first twelve characters."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}", r"\1…", text)


def _table(table: Comparison, group: str, title: str, words: str) -> str:
    columns = [column for column in table.columns if column.group == group]
    if not columns:
        return f'<section id="{group}"><h2>{esc(title)}</h2>{gone("None of the runs holds these numbers.")}</section>'
    return _section(table, group, title, words, columns)


def _architectures(table: Comparison) -> str:
    """Runs of several architectures at a glance: their networks, what those cost, and what comes out."""
    if not table.glance:
        return ""
    words = "What each kind of encoder and decoder costs, and what the bits give; it stands again below, with the rest."
    kinds = {"encoder": [run.encoder for run in table.runs], "decoder": [run.decoder for run in table.runs]}
    return _section(table, "architectures", "Architectures at a glance", words, table.glance, kinds)


def _section(
    table: Comparison,
    name: str,
    title: str,
    words: str,
    columns: Sequence[Column],
    texts: Mapping[str, Sequence[str | None]] | None = None,
) -> str:
    """One row a run: columns of text by their titles, then the numbers."""
    texts = texts or {}
    heads = [f'<th scope="col">{esc(head)}</th>' for head in texts]
    heads += [
        f'<th scope="col" class="n">{esc(column.title)}<small>{esc(column.unit)}</small></th>' for column in columns
    ]
    rows = []
    for index, run in enumerate(table.runs):
        cells = "".join(f'<td class="text">{esc(values[index] or "–")}</td>' for values in texts.values())
        cells += "".join(f'<td class="n">{_cell(column, column.values[index])}</td>' for column in columns)
        rows.append(f'<tr><th scope="row">{swatch(index)}{esc(run.name)}</th>{cells}</tr>')
    head = f'<tr><th scope="col">run</th>{"".join(heads)}</tr>'
    return (
        f'<section id="{name}"><h2>{esc(title)}</h2>{how(esc(words))}<div class="wide" tabindex="0"><table>'
        f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cell(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if column.unit == "FLOPs":
        return esc(flops(cell.value))
    if column.key.startswith("parameters"):
        return f"{cell.value:,.0f}"
    return esc(plus_minus(cell.value, cell.stderr) if cell.stderr else pretty(cell.value, 3))


def _differences(table: Comparison, names: Sequence[str]) -> str:
    """The configuration's fields that are not equal in all runs."""
    fields = table.differences
    title = '<section id="differences"><h2>What was set differently</h2>'
    if not fields:
        return title + gone("Nothing: the configurations are equal.") + "</section>"
    heads = "".join(f'<th scope="col">{swatch(index)}{esc(name)}</th>' for index, name in enumerate(names))
    rows = "".join(
        f'<tr><th scope="row">{esc(name).replace(".", ".<wbr>").replace("_", "_<wbr>")}</th>'
        + "".join(f'<td class="text">{esc("–" if value is None else value)}</td>' for value in values)
        + "</tr>"
        for name, values in fields.items()
    )
    inner = (
        f'<div class="wide" tabindex="0"><table><thead><tr><th scope="col">field</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    if len(fields) > FOLDED:
        inner = f"<details><summary>{plural(len(fields), 'field')} of the configuration</summary>{inner}</details>"
    return f"{title}{inner}</section>"


def _protocols(table: Comparison) -> str:
    """Every column's protocol in full, and the runs that have a number in it."""
    names = table.names
    found: dict[str, list[str]] = {}
    for column in table.columns:
        if not column.protocol:
            continue
        own = [name for name, value in zip(names, column.values, strict=True) if value is not None]
        parts = "; ".join(
            f"{name}: {'not known' if v is None else v}" for name, v in column.protocol.items() if v != ""
        )
        found.setdefault(f"{', '.join(own)}. {parts}", []).append(column.title)
    entries = "".join(
        f"<dt>{esc(', '.join(titles))}</dt><dd>{esc(_short(line))}</dd>" for line, titles in found.items()
    )
    words = "± is one standard error over pictures. No number here compares with a published FID."
    return f'<section id="protocol"><h2>How the numbers were measured</h2>{how(esc(words))}<dl>{entries}</dl></section>'
