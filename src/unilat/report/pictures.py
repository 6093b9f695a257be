"""Sections that show pictures: reconstructions, where the bits sit, samples."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unilat.report import figures, pairs, sheets
from unilat.report.folder import Contents
from unilat.report.text import entry, esc, figure, finite, gone, how, percent, plural, pretty
from unilat.results import Reconstruction
from unilat.signals.kind import Image

SHOWN = 8
MANY_CLASSES = 16


def strip(title: str, below: list[str], picture: str) -> str:
    """A title with lines below it, and HTML beside."""
    small = "".join(f"<small>{esc(line)}</small>" for line in below)
    return f'<div class="strip"><p>{esc(title)}{small}</p><div>{picture}</div></div>'


def _columns(texts: list[str], columns: int) -> str:
    """Short texts under a strip of as many pictures."""
    cells = "".join(f'<span title="{esc(text)}">{esc(text)}</span>' for text in texts)
    return f'<div class="under" style="grid-template-columns:repeat({columns},1fr)">{cells}</div>'


ONE_CALL = (
    "This decoder learned by a squared error and is <strong>called once</strong>: it answers with an average, which "
    "PSNR rewards."
)
MORE_CALLS = (
    "Each row decodes the same latents with more <strong>calls of the diffusion decoder</strong>. Few calls answer "
    "with an average, which PSNR rewards; many add detail, which a well-trained decoder gets right."
)


def reconstructions(run: Contents) -> str:
    """Originals, and below them what each number of decoder calls makes of their latents."""
    originals = run.arrays.get("originals")
    if not Image.are_rows(originals):
        return gone("There are no reconstructions in this run folder.")
    count = min(SHOWN, len(originals))
    strips = [strip("Originals", ["held out"], sheet(originals[:count], f"{count} held-out originals in a row"))]
    quality = {row.steps: row for row in run.results.by_steps} if run.results else {}
    for steps, made in sorted(_by_steps(run).items()):
        psnr, ssim, kernel = _three(quality.get(steps))
        words = [f"{psnr:.1f} dB" if psnr is not None else "", f"SSIM {ssim:.3f}" if ssim is not None else ""]
        words.append(f"distance {pretty(kernel, 3)}" if kernel is not None else "")
        words = [word for word in words if word]
        alt = f"the same {count} pictures decoded with {plural(steps, 'call')}" + "".join(f", {word}" for word in words)
        strips.append(strip(plural(steps, "decoder call"), words, sheet(made[:count], alt)))
    words = ONE_CALL if entry(run.config, "autoencoder", "decoder_loss") == "mse" else MORE_CALLS
    return how(words + _best(list(quality.values()))) + figure("".join(strips))


def _three(row: Reconstruction | None) -> tuple[float | None, float | None, float | None]:
    """PSNR, SSIM and kernel distance, each None where it is not known."""
    if row is None:
        return None, None, None
    return finite(row.psnr.value), finite(row.ssim.value), finite(row.distance.kernel.value) if row.distance else None


def _best(rows: Sequence[Reconstruction]) -> str:
    """Which number of calls did best by PSNR and by distance."""
    known = [(_three(row), row.steps) for row in rows]
    psnr = [(value, steps) for (value, _, _), steps in known if value is not None]
    kernel = [(value, steps) for (_, _, value), steps in known if value is not None]
    if len(psnr) < 2:
        return ""
    near = f", the distance to real pictures smallest with {min(kernel)[1]}" if len(kernel) > 1 else ""
    return f" Here PSNR is highest with {plural(max(psnr)[1], 'call')}{near}."


def _by_steps(run: Contents) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for name, value in run.arrays.items():
        steps = name.removeprefix("reconstructions_")
        if steps != name and steps.isdigit() and Image.are_rows(value):
            found[int(steps)] = value
    return found


def sheet(pictures: Tensor, alt: str, columns: int = 0) -> str:
    """Pictures in rows as an image."""
    return sheets.png(sheets.sheet(sheets.shrunk(pictures), columns or len(pictures)), alt)


def bit_map(run: Contents) -> str:
    """The bits of each latent position as colour over the pictures, their mean, and the bits by channel."""
    originals, maps = run.arrays.get("originals"), run.arrays.get("bit_maps")
    parts: list[str] = []
    fits = isinstance(maps, Tensor) and maps.ndim == 3 and Image.are_rows(originals)
    if fits and originals is not None and maps is not None and len(maps) >= 1:
        parts.append(_overlay(run, originals, maps))
    else:
        parts.append(gone("There is no bit map in this run folder."))
    channels = run.arrays.get("channel_bits")
    if isinstance(channels, Tensor) and channels.ndim == 1 and len(channels):
        parts.append(by_channel(channels))
    return "".join(parts)


def _overlay(run: Contents, originals: Tensor, maps: Tensor) -> str:
    count = min(SHOWN, len(originals), len(maps))
    originals, maps = originals[:count], maps[:count].float()
    mean = run.arrays.get("bit_map")
    mean = mean.float() if isinstance(mean, Tensor) and mean.ndim == 2 else None
    top = max(float(maps.max()), float(mean.max()) if mean is not None else 0.0)
    each = run.arrays.get("bits_each")
    totals = each[:count].tolist() if isinstance(each, Tensor) and each.ndim == 1 else maps.flatten(1).sum(1).tolist()
    grid = f"{maps.shape[1]} × {maps.shape[2]}"
    dearest, cheapest = max(range(count), key=totals.__getitem__), min(range(count), key=totals.__getitem__)
    plain, alt = (
        sheet(originals, f"{count} held-out originals"),
        f"the same with the bits of {grid} latent positions as colour",
    )
    colour = sheet(sheets.laid_over(sheets.shrunk(originals), maps, top), alt)
    under = _columns([f"{total:.0f}" for total in totals], count)
    gradient = ",".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in sheets.HEAT)
    scale = (
        f'<div class="scale"><span>0</span><i style="background:linear-gradient(90deg,{gradient})"></i>'
        f"<span>{pretty(top, 3)} bits per latent position</span></div>"
    )
    aside = ""
    if mean is not None:
        picture = sheets.png(sheets.heat(mean / top if top > 0 else mean), f"mean bit map over {grid} latent positions")
        words = f"Mean of all held-out pictures: {pretty(float(mean.sum()), 3)} bits each."
        aside = f'<div class="mean">{picture}<p>{words}</p></div>'
    words = (
        f"The latent is a grid of {grid} positions, and the bound splits into one sum of bits for each. Bright cells "
        "are where the encoder spends. Below each picture stand its bits; of these the dearest takes "
        f"<strong>{totals[dearest]:.0f}</strong>, the cheapest <strong>{totals[cheapest]:.0f}</strong>."
    )
    left = f'<div>{plain}<div style="height:6px"></div>{colour}{under}{scale}</div>'
    return how(words) + figure(f'<div class="maps">{left}{aside}</div>')


def by_channel(channels: Tensor) -> str:
    """Bits of each latent channel as bars, most first."""
    values = channels.float().sort(descending=True).values
    total = float(values.sum())
    if not total > 0:
        return ""
    needed = int((values.cumsum(0) < 0.9 * total).sum()) + 1
    order = channels.float().argsort(descending=True)[:24].tolist()
    rows = [
        (f"channel {i}", float(channels[i]), f"{float(channels[i]):.1f} ({percent(float(channels[i]) / total)})")
        for i in order
    ]
    more = f", the first {len(order)} of them" if len(channels) > len(order) else ""
    drawn = figures.bars(rows, alt="bits of each latent channel")
    words = (
        f"{needed} of {plural(len(channels), 'channel')} hold nine tenths of the bits; most first{more}, in bits "
        "per picture."
    )
    return "<h3>Bits by latent channel</h3>" + how(words) + drawn


def curve(run: Contents, noise: str = "the encoder's own noise") -> str:
    """The information curve: bits per unit of log-SNR, up to where ``noise`` begins."""
    edges, values = run.arrays.get("curve_edges"), run.arrays.get("curve_bits")
    known = isinstance(edges, Tensor) and isinstance(values, Tensor) and edges.ndim == values.ndim == 1
    if not known or edges is None or values is None or len(edges) != len(values) + 1 or len(values) < 2:
        return gone("There is no information curve in this run folder.")
    left, width, mass = edges[:-1].tolist(), edges.diff(), values.double()
    density = (mass / width).tolist()
    points = [(x, y) for a, b, y in zip(left, edges[1:].tolist(), density, strict=True) for x in (a, b) for y in (y,)]
    across, up = figures.axis(float(edges[0]), float(edges[-1]), most=7), figures.axis(0.0, 1.08 * max(density), most=4)
    total = float(mass.sum())
    share = mass.cumsum(0) / total if total > 0 else mass
    index = int(torch.searchsorted(share, torch.tensor(0.5, dtype=share.dtype)).clamp(max=len(mass) - 1))
    before = float(share[index - 1]) if index else 0.0
    inside = (0.5 - before) / max(float(share[index]) - before, 1e-12)
    half = left[index] + inside * float(width[index])
    terminal = run.arrays.get("terminal_bits")
    rest = float(terminal.sum()) if isinstance(terminal, Tensor) else 0.0
    drawn = figures.chart(
        [
            figures.Curve("bits per unit of log-SNR", points, kind="area"),
            figures.Curve(
                f"half of the bits on either side: {half:.1f}", [(half, 0.0), (half, up.high)], "wanted", "dashes"
            ),
        ],
        across,
        up,
        x_label="log signal-to-noise ratio λ of the latent: noise on the left, clean on the right",
        y_label="bits per unit of λ, one picture",
        alt=(
            f"information curve: {total:.0f} bits in all, half of them below λ = {half:.1f}, highest {max(density):.1f}"
        ),
    )
    end = f" Another {pretty(rest, 2)} bits are the price of ending in pure noise." if rest else ""
    words = (
        "<strong>How to read it.</strong> Lift a latent out of noise, from left to right: the height says how many "
        "bits about the picture become visible at that noise level, and the area is all of them, "
        f"<strong>{pretty(total, 3)} bits</strong> for the average picture.{esc(end)} Bits on the left are coarse: "
        "shape, class, layout. Bits on the right are fine detail. A curve still climbing at its right edge, where "
        f"{noise} begins, means that more bits would go into ever finer detail."
    )
    return how(words) + figure(drawn)


def samples(run: Contents) -> str:
    """New pictures, by class where there are a few classes, with their class below where there are many."""
    made, labels = run.arrays.get("samples"), run.arrays.get("sample_labels")
    if not Image.are_rows(made):
        return gone("There are no samples in this run folder: stage 2 has not finished, or was not evaluated.")
    if page := pairs.pairs(run):
        return page
    made = made[:64]
    names, rows = run.classes, []
    if not isinstance(labels, Tensor) or labels.ndim != 1 or len(labels) < len(made) or len(names) < 2:
        grid = sheet(made, f"{len(made)} new pictures", min(SHOWN, len(made)))
        return how("Drawn from noise by the base model and decoded; none was picked.") + figure(grid)
    known = [names[label] if 0 <= label < len(names) else f"class {label}" for label in labels[: len(made)].tolist()]
    intro = how("Drawn from noise by the base model for a class it was told, and decoded; none was picked.")
    if len(set(known)) <= MANY_CLASSES:
        most = min(SHOWN, max(known.count(name) for name in known))
        for name in sorted(set(known), key=lambda n: names.index(n) if n in names else len(names)):
            rows_of = [index for index, own in enumerate(known) if own == name]
            alt = f"{plural(min(SHOWN, len(rows_of)), 'sample')} of class {name}"
            picture = sheet(made[rows_of][:SHOWN], alt, most)
            rows.append(strip(name, [], picture))
        return intro + figure("".join(rows), "named")
    for start in range(0, len(made), SHOWN):
        part = known[start : start + SHOWN]
        alt = "samples of " + ", ".join(part)
        rows.append(
            sheet(made[start : start + SHOWN], alt, SHOWN) + _columns(part, SHOWN) + '<div style="height:8px"></div>'
        )
    return intro + figure("".join(rows))
