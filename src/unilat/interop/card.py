"""README.md of an export: what it is, what was measured, and how it is loaded."""

import json
import re
from pathlib import Path

from unilat.files import read_json
from unilat.interop.space import Space
from unilat.results import Distance, Number, Results
from unilat.run import seal
from unilat.run.making import making
from unilat.run.trained import Run
from unilat.types import UserError

UNKNOWN = "other"
"""The licence of an export whose maker names none."""
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,62}")


def check_licence(licence: str) -> None:
    """Raise :class:`UserError` for what is no name of a licence, as model cards have it."""
    if not _LICENCE.fullmatch(licence):
        raise UserError(f"`licence` is a short name such as apache-2.0, cc-by-4.0 or {UNKNOWN}, not {licence[:40]!r}")


def card(run: Run, space: Space | None, licence: str, library: str, load: str, notes: tuple[str, ...]) -> str:
    """The whole text. ``space``: of the run's latents, None where the folder makes others. ``library``: who reads the
    files; ``load``: how, as Markdown; ``notes``: sentences of its own.
    """
    name, results = plain(run.folder.resolve().name), _results(run)
    head = ["---", f"license: {json.dumps(licence)}", f"library_name: {library}", "tags:", "- unilat", "- diffusion"]
    told = [
        f"# {name}",
        "Latents with a bit budget and what was trained on them, by "
        "[unilat](https://arxiv.org/abs/2602.17270) (Unified Latents).",
        "## Load",
        load,
        "## Measured",
        _measured(run, results),
        "## Made of",
        "\n".join(f"- {line}" for line in _made_of(run, space)),
        "## Licence",
        f"`{licence}`" + (": its maker has named none, ask before use." if licence == UNKNOWN else "."),
    ]
    if notes:
        told += ["## To know", "\n".join(f"- {line}" for line in notes)]
    return "\n".join([*head, "---", "", "\n\n".join(told), ""])


def plain(text: str) -> str:
    """A text of the user's as one short line that Markdown and YAML take as it is."""
    return " ".join(re.sub(r"[^\w .,+()-]+", " ", text).split())[:60] or "unnamed"


def _results(run: Run) -> Results | None:
    return run.results if run.files.metrics.is_file() else None


def _measured(run: Run, results: Results | None) -> str:
    """A table of figures, each with its error, its count and its protocol."""
    if results is None:
        return "Nothing was measured: `unilat evaluate` does."
    rows = [("bits, a bound", results.bits.measured)]
    rows += [("bits under the base model", results.base_bits)] if results.base_bits else []
    rows += [("PSNR of reconstructions", results.reconstruction.psnr), ("SSIM", results.reconstruction.ssim)]
    rows += _distances("reconstructions", results.reconstruction.distance) + _distances("samples", results.generation)
    lines = ["| what | value | protocol |", "|---|---|---|"]
    lines += [f"| {what} | {_value(number)} | {_cell(number.protocol, run)} |" for what, number in rows]
    slack = _slack(run)
    lines.append(f"| slack of the bits | {slack or 'not verified: `unilat verify` does'} | a larger prior, refitted |")
    told = f"Pictures: {_cell(results.pictures, run)}."
    how = results.making.line if results.making else making(run).line
    return "\n".join([*lines, "", told, "", f"Made with {how}."])


def _distances(of: str, distance: Distance | None) -> list[tuple[str, Number]]:
    return [] if distance is None else [(f"kernel distance of {of}", distance.kernel)]


def _value(number: Number) -> str:
    error = "" if number.stderr is None else f" ± {number.stderr:.2g}"
    return f"{number.value:.4g}{error} {number.unit}".strip() + (f" (n {number.n})" if number.n else "")


def _cell(text: str, run: Run) -> str:
    """A line of ours for a table, without the place on its maker's disk where the pictures lie."""
    text = text.replace(run.data.source, plain(Path(run.data.source).name))
    return re.sub(r"[|\s<>`]+", " ", text).strip()


def _slack(run: Run) -> str:
    """``0.035 ± 0.004``, as `unilat verify` found it; empty where nobody has verified."""
    path = run.files.verified
    if not path.is_file():
        return ""
    seal.check(path)
    tree = read_json(path)
    slack = tree.get("slack") if isinstance(tree, dict) else None
    value, error = (slack.get("value"), slack.get("stderr")) if isinstance(slack, dict) else (None, None)
    if not isinstance(value, int | float):
        return ""
    return f"{value:.3g}" + (f" ± {error:.2g}" if isinstance(error, int | float) else "")


def _made_of(run: Run, space: Space | None) -> list[str]:
    data, shape = run.data, "×".join(map(str, run.latent_shape))
    channels = "grey" if data.channels == 1 else "colour"
    height, width = run.config.data.size
    lines = [
        f"data: {plain(Path(data.source).name)}, {data.train:,} {channels} pictures trained on, of {height}×{width} "
        f"pixels, {data.test:,} held out",
        f"latents of {shape}"
        + (
            f", noise at log-SNR {run.config.autoencoder.lambda_0:g} (standard deviation {space.noise_std:.3g}), "
            f"scaling_factor {space.scaling_factor:.4g}, shift_factor {space.shift_factor:.4g}"
            if space
            else ""
        ),
    ]
    if data.classes:
        shown = ", ".join(plain(name) for name in data.classes[:20]) + (" …" if len(data.classes) > 20 else "")
        lines.append(f"{len(data.classes):,} classes: {shown}")
    return lines
