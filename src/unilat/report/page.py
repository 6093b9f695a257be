"""The report of a run: one HTML file made of the run folder's files and of nothing else, without scripts or outside
links.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from unilat.files import whole
from unilat.report import pictures, sections, training
from unilat.report.folder import Contents, Tree, read
from unilat.report.style import CSS
from unilat.report.text import entry, esc, finite, gone, how
from unilat.results import Results
from unilat.run.folder import RunFolder
from unilat.types import UserError

Read = TypeVar("Read")
"""What a page is made of: the contents of a run folder, or of an audit's."""
NOT_FID = (
    "No number here compares with a published FID: the network, the resize, the counts and the estimator are others. "
    "Distances "
    "compare with distances of equal protocol and equal count only."
)
NAMED_FID = (
    "Of the numbers here only those against the reference stand on the published network, and compare with published "
    "ones of the same data where their protocols say nothing else. Distances compare with distances of equal protocol "
    "and equal count only."
)
"""In place of :data:`NOT_FID` where a number is called FID, which only the published network's is."""
SECTIONS: tuple[tuple[str, str, str, Callable[[Contents], str]], ...] = (
    ("samples", "New pictures", "Samples", pictures.samples),
    ("numbers", "The numbers", "Numbers", sections.numbers),
    ("reconstructions", "What the bits keep", "Reconstructions", pictures.reconstructions),
    ("bitmap", "Where the bits sit", "Bit map", pictures.bit_map),
    ("curve", "Coarse bits, fine bits", "Information curve", pictures.curve),
    ("rate", "How the bits were held", "Rate", training.rate),
    ("losses", "Losses", "Losses", training.losses),
    ("costs", "Time, memory, size", "Costs", training.costs),
)


def write(run_folder: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    Reads only files of that folder; the same files give the same bytes. Missing or damaged parts are told in words.
    UserError if there is no run folder or the page cannot be written; an older report then stays as it was.
    """
    folder = Path(run_folder)
    return save(RunFolder(folder).report, page(read(folder)))


def save(path: Path, text: str) -> Path:
    """Write a page whole or not at all; UserError where that fails, and an older page then stays as it was."""
    try:
        with whole(path) as part:
            part.write_bytes(text.encode())
    except OSError as problem:
        raise UserError(f"{path} cannot be written: {problem.strerror}") from problem
    return path


def page(run: Contents) -> str:
    """The whole page as text."""
    links = [(key, name) for key, _, name, _ in SECTIONS] + [("protocol", "Protocol"), ("origin", "Configuration")]
    body = "".join(section(key, title, part, run) for key, title, _, part in SECTIONS)
    title = f"{run.name}: report of a unilat run"
    return shell(title, guarded(sections.head, run), links, f"{body}{_protocol(run)}{_origin(run)}", _last_line(run))


def shell(title: str, head: str, links: Sequence[tuple[str, str]], main: str, footer: str, css: str = "") -> str:
    """The page around its parts: ``head`` and ``main`` are HTML, the rest is text; ``links`` are (id, name). ``css`` is
    what it needs beside the style sheet."""
    nav = "".join(f'<a href="#{esc(key)}">{esc(name)}</a>' for key, name in links)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)}</title><style>{CSS}{css}</style></head><body>"
        f'<header class="top">{head}<nav aria-label="Contents">{nav}</nav></header>'
        f"<main>{main}</main><footer>{esc(footer)}</footer></body></html>\n"
    )


def section(key: str, title: str, part: Callable[[Read], str], run: Read) -> str:
    """A section of the page; ``part(run)`` makes its HTML."""
    return f'<section id="{key}"><h2>{esc(title)}</h2>{guarded(part, run)}</section>'


def guarded(part: Callable[[Read], str], run: Read) -> str:
    """``part(run)``; files that hold something unforeseen cost that part only, and the page says so."""
    try:
        return part(run)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError) as problem:
        cause = f"{type(problem).__name__}: {problem}".splitlines()[0]
        return gone(f"This part could not be drawn from the run folder ({cause}).")


def _protocol(run: Contents) -> str:
    """How each number was measured; numbers of one protocol share its line."""
    found: dict[str, list[str]] = {}
    for name, line in _lines(run.results) if run.results else []:
        if line:
            found.setdefault(line, []).append(name)
    entries = "".join(f"<dt>{esc(', '.join(names))}</dt><dd>{esc(line)}</dd>" for line, names in found.items())
    shown = f"<dl>{entries}</dl>" if entries else gone("No protocol is recorded.")
    published = run.results and any("fid[" in one.name for one in run.results.against)
    return (
        f'<section id="protocol"><h2>How the numbers were measured</h2>'
        f'<p class="plain"><strong>Mind.</strong> {esc(NAMED_FID if published else NOT_FID)}</p>'
        + how(
            "± is one standard error over pictures. The bits are an upper bound on what a latent says about its "
            "picture, measured on pictures outside training."
        )
        + f"{shown}</section>"
    )


def _lines(found: Results) -> list[tuple[str, str]]:
    """What was measured, and its protocol."""
    made = found.reconstruction
    lines = [("bits", found.bits.protocol), ("base bits", found.base_bits.protocol if found.base_bits else "")]
    for name, distance in (
        *(("reconstruction", row.distance) for row in (made, *found.other_steps)),
        ("generation", found.generation),
    ):
        if distance is not None:
            lines.append((f"{name}, kernel", distance.kernel.protocol))
            lines.append((f"{name}, Fréchet distance", distance.frechet64.protocol))
            shares = (("precision", distance.precision), ("recall", distance.recall))
            lines += [(f"{name}, {which}", share.protocol) for which, share in shares if share]
    lines += [
        ("classifier" + ("" if judge.of == "class" else f" of the {judge.of}"), judge.samples.protocol)
        for judge in found.judged
    ]
    lines += [(one.name, one.number.protocol) for one in found.against]
    lines += [("pictures", found.pictures), ("psnr", made.psnr.protocol), ("ssim", made.ssim.protocol)]
    lines += [("what pictures were made with", found.making.line)] if found.making else []
    return [*dict.fromkeys([*lines, ("features", found.features or "")])]


def _origin(run: Contents) -> str:
    """Configuration, data, machine and every single number, folded away."""
    trees = (
        ("Every number of metrics.json", _table(run.results.to_json() if run.results else {})),
        ("Configuration (config.json)", _pre(run.config)),
        ("Pictures (data.json)", _pre(run.data)),
        ("Machine and versions (manifest.json)", _pre(run.manifest)),
    )
    folded = "".join(f"<details><summary>{esc(name)}</summary>{inner}</details>" for name, inner in trees if inner)
    inner = folded or gone("The run folder holds no configuration.")
    return f'<section id="origin"><h2>Configuration and origin</h2>{inner}</section>'


def _pre(tree: Tree) -> str:
    return f"<pre>{esc(json.dumps(tree, indent=2, ensure_ascii=False))}</pre>" if tree else ""


def _table(tree: Tree) -> str:
    rows = "".join(
        f'<tr><th scope="row">{esc(path)}</th><td class="n">{esc(json.dumps(value))}</td></tr>'
        for path, value in flat(tree)
        if not isinstance(value, str)
    )
    return f"<table><tbody>{rows}</tbody></table>" if rows else ""


def flat(tree: object, path: str = "") -> list[tuple[str, object]]:
    """``(path, value)`` of every leaf of nested dictionaries and lists."""
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in flat(value, f"{path}.{key}" if path else str(key))]
    if isinstance(tree, list):
        return [leaf for index, value in enumerate(tree) for leaf in flat(value, f"{path}[{index}]")]
    return [(path, tree)]


def _last_line(run: Contents) -> str:
    """Version, commit, machine and how far training came."""
    known = machine(run.manifest)
    if entry(run.data, "sha256"):
        known.append(f"pictures sha256 {str(run.data['sha256'])[:12]}…")
    known += [words] if (words := training.seen(run)) else []
    known += ["not sealed: nothing tells whether a file was changed"] if run.remark else []
    return " · ".join(known)


def machine(manifest: Tree) -> list[str]:
    """Versions, commit, threads and processor, a few words each."""
    known = [f"{key} {manifest[key]}" for key in ("unilat", "torch", "python") if manifest.get(key)]
    if manifest.get("commit"):
        known.append(f"commit {str(manifest['commit'])[:12]}")
    threads = finite(manifest.get("threads"))
    if threads:
        known.append(f"{threads:.0f} threads" if threads != 1 else "1 thread")
    return known + ([str(manifest["cpu"])] if manifest.get("cpu") else [])
