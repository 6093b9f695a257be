"""Sections about the way there: the rate against its target, losses, time, memory and size."""

from collections.abc import Sequence

from unilat.report import figures
from unilat.report.folder import Contents, LogRow
from unilat.report.sections import bits
from unilat.report.text import (
    duration,
    esc,
    figure,
    finite,
    flops,
    gone,
    how,
    memory,
    percent,
    plural,
    pretty,
    short,
)
from unilat.results import Costs, Phase

PARTS = {
    "encoder": "encoder",
    "prior": "prior",
    "decoder": "decoder",
    "base": "base model",
}


def series(rows: Sequence[LogRow], key: str) -> list[tuple[float, float]]:
    """``(samples seen, value)`` where both were logged."""
    known = (row.numbers for row in rows if "samples" in row.numbers and key in row.numbers)
    return [(numbers["samples"], numbers[key]) for numbers in known]


def rate(run: Contents) -> str:
    """Bits per pixel over training against the wanted ones, and the loss factor that held them."""
    rows = run.stage("stage1")
    points = series(rows, "bpp")
    if len(points) < 2:
        return gone("Stage 1 has left no log.")
    held_at = [row.numbers["target"] for row in rows if "target" in row.numbers]
    wanted = (held_at[-1] if held_at else None) or bits(run)[0]
    mean, high, low = figures.thin(points, min(240, max(60, len(points) // 3)))
    checks = series(rows, "calibration_bpp")
    across = figures.axis(0.0, points[-1][0], most=6)
    settled = sorted(y for _, y in points[len(points) // 4 :])
    top = max(1.6 * wanted if wanted else 0.0, 1.1 * settled[int(0.99 * (len(settled) - 1))])
    if max(y for _, y in points) <= 1.4 * top:
        top = 1.04 * max(y for _, y in points)
    up = figures.axis(0.0, top, most=5)
    curves = [figures.Curve("range of single batches", high, "quiet", "band", lower=low, legend=high != low)]
    ends = [(0.0, wanted), (across.high, wanted)] if wanted else []
    curves.append(figures.Curve("training batches", mean))
    asked = bits(run)[0]
    held = bool(asked and wanted and abs(wanted / asked - 1) > 1e-6)
    curves.append(figures.Curve("held until the prior settles" if held else "asked for", ends, "wanted", "dashes"))
    curves.append(figures.Curve("averaged weights on pictures set aside", checks, "second", "dots"))
    drawn = figures.chart(
        curves, across, up, x_label="pictures seen in stage 1", y_label="bits per pixel", alt=_rate_alt(points, wanted)
    )
    cut = max(y for _, y in points)
    above = f" The first steps reach {pretty(cut, 3)}, above this figure." if cut > top * 1.001 else ""
    later = f" Then the prior was trained alone, and the scale trimmed to the {asked:.4g} asked for." if held else ""
    words = _held(points, wanted) + above + later
    return how(esc(words)) + figure(drawn + _factor(rows, across))


def _rate_alt(points: list[tuple[float, float]], wanted: float | None) -> str:
    tail = points[-max(1, len(points) // 5) :]
    mean = sum(y for _, y in tail) / len(tail)
    asked = f", {wanted:.4g} asked for" if wanted else ""
    return f"bits per pixel over training: {points[0][1]:.3g} at the start, {mean:.4g} over the last fifth{asked}"


def _held(points: list[tuple[float, float]], wanted: float | None) -> str:
    """A sentence on when the rate first stayed near its target, judged on means of 1/40 of training."""
    if not wanted:
        return "The loss factor was fixed; the bits are what came out of it."
    means, _, _ = figures.thin(points, 40)
    last_off = max((index for index, (_, y) in enumerate(means) if abs(y / wanted - 1) > 0.1), default=-1)
    words = (
        "A controller moves the weight of the decoder's loss, the loss factor, until the latents cost what was asked. "
    )
    if last_off + 1 >= len(means):
        return words + "Here the rate has not come to stay within 10 % of it."
    start = (means[last_off][0] + means[last_off + 1][0]) / 2 if last_off >= 0 else 0.0
    tail = [y for x, y in points if x > start]
    error = sum(abs(y / wanted - 1) for y in tail) / max(1, len(tail))
    since = f"From about {short(round(start, -2))} pictures on" if last_off >= 0 else "From the start"
    return words + f"{since} it stayed within 10\u00a0% of it; single batches were {percent(error, 1)} off on average."


def _factor(rows: Sequence[LogRow], across: figures.Axis) -> str:
    points = [(x, y) for x, y in series(rows, "loss_factor") if y > 0]
    if len(points) < 2:
        return ""
    mean, _, _ = figures.thin(points, 240)
    values = [y for _, y in points]
    spread = max(values) / min(values)
    up = figures.axis(min(values) / 1.15, max(values) * 1.15, log=True, most=4)
    return "<h3>The loss factor that held it</h3>" + figures.chart(
        [figures.Curve("loss factor", mean, "wanted", legend=False)],
        across,
        up,
        x_label="pictures seen in stage 1",
        y_label="loss factor, logarithmic",
        alt=(
            f"loss factor over training, from {values[0]:.3g} to {values[-1]:.3g}, moving by a factor of {spread:.3g} "
            "in all"
        ),
        small=True,
    )


def losses(run: Contents) -> str:
    """Loss curves of both stages side by side."""
    first, second = run.stage("stage1"), run.stage("stage2")
    drawn = [
        _loss(first, "decoder", "Stage 1, decoder", "loss in nats per picture, before the loss factor"),
        _loss(first, "loss", "Stage 1, total", "loss, as minimised"),
        _loss(run.stage("prior"), "loss", "Then the prior alone", "rate in nats per latent number"),
        _loss(second, "loss", "Stage 2, base model", "loss in nats per latent number"),
    ]
    kept = [piece for piece in drawn if piece]
    if not kept:
        return gone("There are no logged losses.")
    told = "" if second else gone("Stage 2 has not been trained yet.")
    words = (
        "Means of neighbouring steps; the shade is their range. A total whose loss factor moves may rise while "
        "everything gets better, so look at the decoder's own loss first."
    )
    return how(words) + f'<div class="pair">{"".join(kept)}</div>{told}'


def _loss(rows: Sequence[LogRow], key: str, title: str, unit: str) -> str:
    points = series(rows, key)
    if len(points) < 2:
        return ""
    mean, high, low = figures.thin(points, min(160, max(50, len(points) // 3)))
    values = sorted(y for _, y in points)
    log = values[0] > 0 and values[-1] / values[0] > 8
    bottom = values[0] / 1.1 if log else min(0.0, values[0])
    up = figures.axis(bottom, values[-1] * 1.05 if values[-1] > 0 else 0.0, log=log, most=4)
    drawn = figures.chart(
        [
            figures.Curve("range", high, "quiet", "band", lower=low, legend=False),
            figures.Curve(title, mean, legend=False),
        ],
        figures.axis(0.0, points[-1][0], most=4),
        up,
        x_label="examples seen",
        y_label=unit + (", logarithmic" if log else ""),
        alt=f"{title}: {key} from {mean[0][1]:.4g} to {mean[-1][1]:.4g}",
        small=True,
    )
    return f'<div class="figure"><h3 style="margin-top:0">{esc(title)}</h3>{drawn}</div>'


def costs(run: Contents) -> str:
    """Seconds and peak memory by phase; parameters and training FLOPs by part."""
    text = _phases(run.results.costs.phases) + _parts(run.results.costs) if run.results else ""
    return text or gone("Time, memory and size are not known.")


def _phases(phases: Sequence[Phase]) -> str:
    timed = [(row.name, finite(row.seconds), finite(row.peak_memory_mib)) for row in phases]
    known = [(name, seconds, peak) for name, seconds, peak in timed if seconds is not None]
    if not known:
        return ""
    total = sum(seconds for _, seconds, _ in known)
    lines = [
        (name, seconds, duration(seconds) + (f", {memory(peak)}" if peak is not None else ""))
        for name, seconds, peak in known
    ]
    peaks = [peak for _, _, peak in known if peak is not None]
    most = f", at most {memory(max(peaks))} of memory" if peaks else ""
    drawn = figures.bars(lines, alt=f"time by phase, {duration(total)} in all")
    return how(esc(f"{duration(total)} in all{most}. Beside each phase: its time, and its peak of memory.")) + drawn


def _muon(spent_on: Costs) -> str:
    """How many of the FLOPs are products of Muon's steps; a full stop where none are."""
    of_muon, all_of_it = sum((spent_on.muon_flops or {}).values()), sum(spent_on.training_flops.values())
    return f", and {of_muon / all_of_it:.0%} are products of Muon's steps." if of_muon and all_of_it else "."


def _parts(spent_on: Costs) -> str:
    parameters, work = spent_on.parameters, spent_on.training_flops
    names = list(dict.fromkeys([*PARTS, *parameters, *work]))
    rows = []
    for name in names:
        count, spent = finite(parameters.get(name)), finite(work.get(name))
        if count is None and spent is None:
            continue
        shown = "–" if count is None else f"{count:,.0f}"
        rows.append(
            f'<tr><th scope="row">{esc(PARTS.get(name, name))}</th><td class="n">{shown}</td>'
            f'<td class="n">{flops(spent)}</td></tr>'
        )
    if not rows:
        return ""
    return (
        '<table><thead><tr><th scope="col">part</th><th scope="col" class="n">parameters</th>'
        f'<th scope="col" class="n">FLOPs of training</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        + how(
            "FLOPs of linear layers, convolutions and attention; a training step counts as three forward passes"
            + (", without the products of Muon's steps." if spent_on.muon_flops is None else _muon(spent_on))
        )
    )


def seen(run: Contents) -> str:
    """How far each stage has come, for the footer."""
    words = []
    for stage, name in (("stage1", "stage 1"), ("prior", "prior alone"), ("stage2", "stage 2")):
        counts = [row.numbers["samples"] for row in run.stage(stage) if "samples" in row.numbers]
        if counts:
            words.append(f"{name}: {plural(int(max(counts)), 'example')} seen")
    return ", ".join(words)
