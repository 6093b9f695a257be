"""The page of an audit: one HTML file made of audit.json and audit.safetensors and of nothing else."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from unilat.files import read_json, read_safetensors
from unilat.report import page, pictures, sheets
from unilat.report.folder import Contents, Tree
from unilat.report.text import branch, entry, esc, figure, finite, gone, how, items, plural, plus_minus, pretty
from unilat.signals.kind import Image
from unilat.types import UserError

SECTIONS = (
    ("faults", "What is wrong, and what to change", "Faults"),
    ("numbers", "The numbers", "Numbers"),
    ("reconstructions", "What the latents keep", "Reconstructions"),
    ("channels", "Channel by channel", "Channels"),
    ("bitmap", "Where the bits sit", "Bit map"),
    ("curve", "Coarse bits, fine bits", "Information curve"),
    ("unknown", "What this audit cannot know", "Unknown"),
)


@dataclass(frozen=True)
class Found:
    """What lies in the folder of an audit."""

    values: Tree
    arrays: dict[str, Tensor] = field(default_factory=dict)

    @property
    def contents(self) -> Contents:
        """The same arrays as the sections of a run's report take them."""
        return Contents(name=str(entry(self.values, "subject", "name")), arrays=self.arrays)


def write(folder: Path) -> Path:
    """Write ``audit.html`` into an audit's folder and return its path; the same files give the same bytes.

    UserError where audit.json or audit.safetensors is missing or damaged, or the page cannot be written.
    """
    folder = Path(folder)
    values = read_json(folder / "audit.json")
    if not isinstance(values, dict):
        raise UserError(f"{folder / 'audit.json'} is no audit: run `unilat audit` again")
    arrays, _ = read_safetensors(folder / "audit.safetensors")
    return page.save(folder / "audit.html", whole(Found(values, arrays)))


def whole(found: Found) -> str:
    """The page as text."""
    parts = {
        "faults": _faults,
        "numbers": _numbers,
        "reconstructions": _reconstructions,
        "channels": _channels,
        "bitmap": _bit_map,
        "curve": lambda found: pictures.curve(found.contents, "the noise of the audit"),
        "unknown": _unknown,
    }
    body = "".join(page.section(key, title, parts[key], found) for key, title, _ in SECTIONS)
    links = [(key, name) for key, _, name in SECTIONS] + [("protocol", "Protocol")]
    title = f"{_name(found)}: audit of its latents by unilat"
    footer = " · ".join(page.machine(branch(found.values, "manifest")))
    return page.shell(title, page.guarded(_head, found), links, body + page.guarded(_protocol, found), footer)


def _name(found: Found) -> str:
    return str(entry(found.values, "subject", "name") or "latents")


def _amount(row: object, places: str = "value") -> str:
    value, stderr = finite(entry(row, places)), finite(entry(row, "stderr"))
    return esc(plus_minus(value, stderr)).replace(" ± ", "&nbsp;±&nbsp;")


def _head(found: Found) -> str:
    """What was audited, its bits, and what is wrong."""
    values = found.values
    about = branch(values, "subject")
    latent = " × ".join(str(side) for side in items(about, "latent"))
    eyebrow = [f"unilat audit <strong>{esc(_name(found))}</strong>", esc(about.get("kind", ""))]
    source = entry(about, "pictures", "source")
    eyebrow += [esc(f"latents of {latent}"), *([esc(source)] if source else [])]
    unit, row = ("pixel", "per_pixel") if entry(values, "bits", "per_pixel") else ("latent", "per_latent")
    normal = finite(entry(values, "normal", "noisy", row, "value"))
    against = f"; a normal prior would charge <em>{pretty(normal, 3)}</em>" if normal is not None else ""
    bits = _amount(entry(values, "bits", row))
    title = f"These latents carry <b>{bits}</b> bits per {unit}{against}."
    lead = f'<p class="lead">{esc(values.get("sentence", ""))}</p>'
    return f'<p class="eyebrow">{" · ".join(eyebrow)}</p><h1>{title}</h1>{lead}{_tiles(found)}'


def _tiles(found: Found) -> str:
    values = found.values
    level = finite(entry(values, "plan", "lambda_0")) or 0.0
    most = 0.5 * math.log2(1 + math.exp(level))
    tiles = [
        ("Bits of a latent", _amount(entry(values, "bits", "per_latent")), "under a diffusion prior, held out"),
        (
            "Bits of a number",
            _amount(entry(values, "bits", "per_dimension")),
            f"independent normal numbers need {most:.2f} at log-SNR {level:g}",
        ),
    ]
    if (psnr := finite(entry(values, "psnr", "value"))) is not None:
        tiles.append(("Reconstruction, PSNR", f"{psnr:.1f} <small>dB</small>", "more is closer to the original"))
    if (kernel := finite(entry(values, "kernel", "value"))) is not None:
        tiles.append(("Reconstructions, kernel distance", pretty(kernel, 3), "0 is indistinguishable from real ones"))
    inner = "".join(
        f'<li class="tile"><span>{esc(a)}</span><b>{b.replace("&nbsp;", " ")}</b><span>{esc(c)}</span></li>'
        for a, b, c in tiles
    )
    return f'<ul class="tiles">{inner}</ul>'


def _faults(found: Found) -> str:
    faults = [fault for fault in items(found.values, "faults") if isinstance(fault, dict)]
    looked = (
        "Looked for: collapse, dead channels, a decoder that learns nothing, exact copies, scale, means, correlated "
        "channels."
    )
    if not faults:
        return f"<p>Nothing wrong found.</p>{how(esc(looked))}"
    lines = "".join(
        f"<li><strong>{esc(fault.get('kind', ''))}.</strong> {esc(fault.get('says', ''))} "
        f"{esc(fault.get('change', ''))}</li>"
        for fault in faults
    )
    return f'{how(esc(looked))}<div class="notes" role="note"><ul>{lines}</ul></div>'


def _numbers(found: Found) -> str:
    """Bits under both priors, in each unit."""
    names = (
        ("bits", "Diffusion prior", "held out, at the added noise"),
        ("normal.noisy", "N(0, I)", "the same latents, the same noise"),
        ("normal.posterior", "Posterior's KL", "raw latents, the model's own noise"),
    )
    units = ("per_pixel", "per_latent", "per_dimension")
    lines, notes = "", []
    for path, what, note in names:
        group = entry(found.values, *path.split("."))
        if isinstance(group, dict):
            cells = "".join(f'<td class="n">{_amount(group.get(unit))}</td>' for unit in units)
            lines += f'<tr><th scope="row">{esc(what)}</th>{cells}</tr>'
            notes.append(f"{what}: {note}")
    if not lines:
        return gone("Nothing has been measured.")
    heads = "".join(f'<th scope="col" class="n">bits a {unit}</th>' for unit in ("pixel", "latent", "number"))
    count = plural(int(finite(entry(found.values, "bits", "per_latent", "n")) or 0), "latent")
    words = (
        "These are upper bounds. The diffusion prior learns how the numbers of a latent depend on each other; N(0, I), "
        f"the prior of a KL term, does not, so it charges more for the same. ± is one standard error over {count}. "
        f"{'; '.join(notes)}."
    )
    return how(esc(words)) + (
        f'<div class="wide"><table><thead><tr><th scope="col">prior</th>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _reconstructions(found: Found) -> str:
    if entry(found.values, "psnr") is None:
        return gone("No decoder or no pictures were at hand, so nothing was decoded.")
    above = finite(entry(found.values, "psnr", "above_mean"))
    shown = found.arrays
    strips = [
        pictures.strip(title, [below], pictures.sheet(shown[key], f"{title}, {len(shown[key])} pictures"))
        for title, below, key in (
            ("Originals", "held out from the prior", "originals"),
            ("Decoded", f"{finite(entry(found.values, 'psnr', 'value')) or 0:.1f} dB on average", "reconstructions"),
        )
        if Image.are_rows(shown.get(key))
    ]
    words = "The model's own decoder on its own latents, without the audit's noise."
    words += f" One mean picture for all would be {above:.1f} dB worse." if above is not None else ""
    return how(esc(words)) + figure("".join(strips))


def _channels(found: Found) -> str:
    """A table with mean, scale, bits and faults of every channel."""
    rows = [row for row in items(found.values, "channels") if isinstance(row, dict)]
    if not rows:
        return gone("There is no table of channels.")
    posterior = any(row.get("posterior_kl_bits") is not None for row in rows)
    columns = [("bits", "bits of a latent"), ("mean", "mean"), ("std", "std")]
    columns += [("scaled_mean", "mean, scaled"), ("scaled_std", "std, scaled")]
    columns += [("posterior_kl_bits", "KL, bits"), ("own_level", "own log-SNR")] if posterior else []
    head = "".join(f'<th scope="col" class="n">{esc(name)}</th>' for _, name in columns)
    faults = [fault for fault in items(found.values, "faults") if isinstance(fault, dict)]
    lines = ""
    for row in rows[:64]:
        index = row.get("channel")
        kinds = [str(fault.get("kind")) for fault in faults if index in items(fault, "channels")]
        cells = "".join(f'<td class="n">{pretty(finite(row.get(key)), 3)}</td>' for key, _ in columns)
        lines += f'<tr><th scope="row">{esc(index)}</th>{cells}<td class="note">{esc(", ".join(kinds))}</td></tr>'
    more = f" The first 64 of {len(rows)} are shown." if len(rows) > 64 else ""
    words = (
        "Scaled is what a diffusion model is given: after the factors of the model's own configuration, or as they are "
        "where it has none. It should have mean 0 and standard deviation 1."
        + (
            " Own log-SNR is where the posterior's own noise stands; the audit adds noise of its own."
            if posterior
            else ""
        )
        + more
    )
    return how(esc(words)) + (
        f'<div class="wide"><table><thead><tr><th scope="col">channel</th>{head}<th scope="col"></th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _bit_map(found: Found) -> str:
    if "bit_map" not in found.arrays:
        return gone("No prior was trained, so there is no map.")
    if Image.are_rows(found.arrays.get("originals")) and "bit_maps" in found.arrays:
        return pictures.bit_map(found.contents)
    mean = found.arrays["bit_map"].float()
    top = float(mean.max())
    picture = sheets.png(sheets.heat(mean / top if top > 0 else mean), f"mean bits of {list(mean.shape)} positions")
    words = (
        f"Mean of the held-out latents, up to {pretty(top, 3)} bits a position; {pretty(float(mean.sum()), 4)} in all."
    )
    drawn = figure(f'<div class="mean">{picture}<p>{esc(words)}</p></div>')
    return drawn + pictures.by_channel(found.arrays["channel_bits"])


def _unknown(found: Found) -> str:
    lines = "".join(f"<li>{esc(line)}</li>" for line in items(found.values, "unknown"))
    return f"<ul>{lines}</ul>" if lines else gone("Nothing that is known to be unknown.")


def _protocol(found: Found) -> str:
    """How each number was measured, and every number, folded away."""
    lines = {name: str(line) for name, line in branch(found.values, "protocol").items()}
    if isinstance(line := entry(found.values, "kernel", "protocol"), str):
        lines["kernel distance"] = line
    entries = "".join(f"<dt>{esc(name.replace('.', ', '))}</dt><dd>{esc(line)}</dd>" for name, line in lines.items())
    text = esc(json.dumps(found.values, indent=2, ensure_ascii=False))
    return (
        f'<section id="protocol"><h2>How the numbers were measured</h2><dl>{entries}</dl>'
        f"<details><summary>Every number (audit.json)</summary><pre>{text}</pre></details></section>"
    )
