"""The head of the report: what was asked, what came out, and the table of numbers."""

from unilat.report import figures
from unilat.report.folder import Contents
from unilat.report.text import entry, esc, finite, gone, how, percent, plural, plus_minus, pretty, start_line
from unilat.results import Classifier, Number, Results


def bits(run: Contents) -> tuple[float | None, float | None, float | None]:
    """``(target, measured, stderr)`` in bits per pixel; the target stands in the configuration too."""
    target = finite(entry(run.config, "stage1", "target_bpp"))
    if run.results is None:
        return target, None, None
    found = run.results.bits
    return found.target or target, finite(found.value), finite(found.stderr)


def _asked(value: float) -> str:
    """Wanted bits with two decimals or as many as they need."""
    return max(f"{value:.2f}", f"{value:.4g}", key=len) if value >= 0.1 else f"{value:.3g}"


def headline(run: Contents) -> str:
    """One sentence, as HTML: asked for against carried."""
    wanted, measured, stderr = bits(run)
    if measured is None:
        now = last_rate(run)
        if now is None:
            return "This run has not been measured yet."
        asked = f"You asked for <em>{_asked(wanted)} bits per pixel</em>; t" if wanted else "T"
        return f"{asked}raining stands at <b>{pretty(now, 3)}</b>, held-out pictures are not measured yet."
    carried = f"held-out pictures carry <b>{plus_minus(measured, stderr).replace(' ± ', '&nbsp;±&nbsp;')}</b>"
    if wanted is None:
        return f"No bits were asked for, the loss factor was fixed; {carried} bits per pixel."
    return f"You asked for <em>{_asked(wanted)} bits per pixel</em>; {carried}."


def last_rate(run: Contents) -> float | None:
    """Bits per pixel of the last logged steps of stage 1, averaged over up to 20 lines, of few the later half."""
    lines = run.stage("stage1")
    values = [row.numbers["bpp"] for row in lines[-min(20, (len(lines) + 1) // 2) :] if "bpp" in row.numbers]
    return sum(values) / len(values) if values else None


def _size(stored: object) -> tuple[float, float] | None:
    """Height and width as data.json has them; one number was a square before November 2026."""
    sides = [finite(side) for side in (stored if isinstance(stored, list) else [stored, stored])]
    return (sides[0], sides[1]) if len(sides) == 2 and sides[0] and sides[1] else None


def lead(run: Contents) -> str:
    """Two sentences below the headline: the same in bytes, and on what."""
    wanted, measured, stderr = bits(run)
    words = []
    size, count = _size(run.data.get("size")), run.results.bits.n if run.results else None
    if measured is not None and size:
        each = measured * size[0] * size[1]
        side = "above" if wanted and measured >= wanted else "below"
        words.append(
            f"That is {pretty(each, 3)} bits, or {pretty(each / 8, 3)} bytes, for a picture of {size[0]:.0f} × "
            f"{size[1]:.0f} pixels"
            + (f", {percent(abs(measured / wanted - 1), 1)} {side} what was asked." if wanted else ".")
        )
    if count:
        error = "; ± is one standard error" if stderr else ""
        words.append(f"Measured on {plural(count, 'picture')} that training never saw{error}.")
    return f'<p class="lead">{esc(" ".join(words))}</p>' if words else ""


def head(run: Contents) -> str:
    """Eyebrow, headline, gauge and tiles."""
    source, train = run.data.get("source"), finite(run.data.get("train"))
    about = [f"unilat run <strong>{esc(run.name)}</strong>"]
    if source is not None:
        about.append(esc(source) + (f", {plural(int(train), 'picture')} trained on" if train else ""))
    if run.manifest.get("date"):
        about.append(esc(str(run.manifest["date"])[:10]))
    wanted, measured, stderr = bits(run)
    known = wanted is not None and measured is not None and wanted > 0
    gauge = figures.gauge(wanted, measured, stderr, "bits per pixel") if known else ""  # pyright: ignore[reportArgumentType]
    top = f'<p class="eyebrow">{" · ".join(about)}</p><h1>{headline(run)}</h1>'
    return f"{top}{_outcome(run)}{lead(run)}{_start(run)}{gauge}{_tiles(run)}{_notes(run)}"


def _outcome(run: Contents) -> str:
    """That the run missed the wanted bits or has diverged, why, and what to do."""
    found = run.results.outcome if run.results else None
    if found is None or not found.reason:
        return ""
    return f'<p class="lead" role="note"><strong>{esc(found.verdict.capitalize())}: </strong>{esc(found.reason)}.</p>'


def _start(run: Contents) -> str:
    """What the bits cost of an encoder that was taken over."""
    found = run.results
    if found is None or found.start is None:
        return ""
    line = start_line(found.start, found.reconstruction.psnr)
    return f'<p class="lead">{esc(line[0].upper() + line[1:])}.</p>'


def _tiles(run: Contents) -> str:
    """The few numbers that sum the run up, each with a word on what is good."""
    tiles: list[tuple[str, str, str]] = []
    found = run.results
    if found is None:
        return ""
    psnr = finite(found.reconstruction.psnr.value)
    if psnr is not None:
        calls = plural(found.reconstruction.steps, "decoder call")
        tiles.append(
            ("Reconstruction, PSNR", f"{psnr:.1f} <small>dB</small>", f"more is closer to the original; {calls}")
        )
    for distance, title in (
        (found.reconstruction.distance, "Reconstructions"),
        (found.generation, "New pictures"),
    ):
        value = finite(distance.kernel.value) if distance else None
        if value is not None:
            tiles.append((f"{title}, kernel distance", pretty(value, 3), "0 is indistinguishable from real ones"))
    for judge in found.judged:
        share, real = finite(judge.samples.value), finite(judge.real.value)
        if share is not None and real:
            what = "" if judge.of == "class" else f": the {judge.of}"
            tiles.append(
                (f"Samples a classifier names{what}", percent(share), f"of held-out real ones it names {percent(real)}")
            )
    if not tiles:
        return ""
    inner = "".join(f'<li class="tile"><span>{esc(a)}</span><b>{b}</b><span>{esc(c)}</span></li>' for a, b, c in tiles)
    return f'<ul class="tiles">{inner}</ul>'


def _notes(run: Contents) -> str:
    """What is missing in the run folder, in words."""
    notes = list(run.notes)
    if run.config and not run.finished[0]:
        notes.append("Stage 1 (encoder, prior and decoder) is not finished.")
    if run.config and not run.finished[1]:
        notes.append("Stage 2 (the base model that makes new latents) is not finished: no new pictures.")
    if run.results and not run.results.reconstruction.distance and not run.results.generation:
        notes.append(
            "No feature network was used, so there are no distances: install 'unilat[metrics]' and evaluate again."
        )
    if run.data and len(run.classes) < 2:
        notes.append("The pictures have no labels: samples are unlabelled and no classifier judges them.")
    if not notes:
        return ""
    lines = "".join(f"<li>{esc(note)}</li>" for note in notes)
    return f'<div class="notes" role="note"><p><strong>Not in this report</strong></p><ul>{lines}</ul></div>'


def _row(what: str, value: str, note: str) -> str:
    return f'<tr><th scope="row">{esc(what)}</th><td class="n">{esc(value)}</td><td class="note">{esc(note)}</td></tr>'


def _on(row: Number, *more: str) -> str:
    """How many pictures stand behind a number, and with what."""
    return ", ".join(word for word in (plural(row.n, "picture") if row.n else "", *more) if word)


def numbers(run: Contents) -> str:
    """The table: bits, PSNR, SSIM, distances, classifier; and what was measured against a reference."""
    rows: list[str] = []
    target, measured, stderr = bits(run)
    if target is not None:
        rows.append(_row("Bits per pixel, asked for", _asked(target), ""))
    if run.results is not None:
        if measured is not None:
            on = _on(run.results.bits.measured)
            rows.append(_row("Bits per pixel, held out", plus_minus(measured, stderr), on))
        rows += _measured(run.results)
    if not rows:
        return gone("Nothing has been measured yet.")
    return _numbered(rows, "measured on") + (_against(run.results) if run.results else "")


def _numbered(rows: list[str], last: str) -> str:
    """A table of :func:`_row`, whose last column is called ``last``."""
    return (
        '<table class="stack"><thead><tr><th scope="col">what</th><th scope="col" class="n">value ± standard error</th>'
        f'<th scope="col">{esc(last)}</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _against(found: Results) -> str:
    """Distances from a reference, each by its own name and with the beginning of its protocol; nothing without any."""
    rows = []
    for one in found.against:
        value, stderr = finite(one.number.value), finite(one.number.stderr)
        share = one.name.startswith(("precision", "recall"))
        shown = _percent(value, stderr) if share and value is not None else plus_minus(value, stderr)
        rows.append(_row(one.name, shown, one.number.protocol.partition("; ")[0]))
    if not rows:
        return ""
    words = how(
        "Each is called by what compares with it; ± of an inception score is the standard deviation over its parts. "
        'The whole protocols stand <a href="#protocol">below</a>.'
    )
    return f"<h3>Against a reference</h3>{words}{_numbered(rows, 'how')}"


def _measured(found: Results) -> list[str]:
    """Rows of quality, distances and the classifier."""
    rows, made = [], found.reconstruction
    calls = plural(made.steps, "decoder call")
    for row, name, unit in ((made.psnr, "PSNR", " dB"), (made.ssim, "SSIM", "")):
        if (value := finite(row.value)) is not None:
            rows.append(_row(name, plus_minus(value, finite(row.stderr)) + unit, _on(row, calls)))
    for distance, whose in ((made.distance, "Reconstructions"), (found.generation, "New pictures")):
        if distance is None:
            continue
        for row, name in (
            (distance.kernel, "kernel distance"),
            (distance.frechet64, "Fréchet distance, 64 components"),
        ):
            value = finite(row.value)
            note = distance.reason if value is None and distance.reason else _on(row, "to real held-out ones")
            rows.append(_row(f"{whose}, {name}", plus_minus(value, finite(row.stderr)), note))
        for row, name in ((distance.precision, "precision"), (distance.recall, "recall")):
            if row is not None and (share := finite(row.value)) is not None:
                note = _on(row, "made ones among real ones" if name == "precision" else "real ones among made ones")
                rows.append(_row(f"{whose}, {name}", _percent(share, finite(row.stderr)), note))
    return rows + [row for judge in found.judged for row in _judged(judge)]


def _percent(share: float, error: float | None) -> str:
    """A share with its standard error, in per cent."""
    return f"{plus_minus(100 * share, None if error is None else 100 * error)}\u00a0%"


def _judged(judge: Classifier) -> list[str]:
    """What a classifier of the real pictures makes of the samples."""
    rows, what = [], "" if judge.of == "class" else f", {judge.of}"
    for row, name in ((judge.real, "Held-out pictures named rightly"), (judge.samples, "Samples named rightly")):
        share, error = finite(row.value), finite(row.stderr)
        if share is not None:
            said = "by a small classifier trained on the real pictures"
            rows.append(_row(name + what, _percent(share, error), said))
    if (ratio := finite(judge.ratio)) is not None:
        rows.append(
            _row(f"Samples against real ones, named rightly{what}", percent(ratio, 1), "the one over the other")
        )
    return rows
