"""What a comparison tells of a run, and the protocol of each number: the parts that must be equal to share a column."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unilat.report.folder import Contents
from unilat.report.text import entry, finite

Parts = dict[str, str | None]
"""Parts of a protocol by name; None where the run folder does not tell, which equals nothing."""


@dataclass(frozen=True)
class Number:
    """A measured number with the protocol it was measured by."""

    value: float
    stderr: float | None
    n: int | None
    protocol: Parts


@dataclass(frozen=True)
class Quantity:
    """What is compared. ``group``: the table it stands in, ``bits``, ``quality`` or ``cost``."""

    key: str
    title: str
    unit: str
    group: str
    read: Callable[[Contents], Number | None]


def _told(tree: Any, *path: str) -> str | None:
    """A value as text, None where it is not there."""
    value = entry(tree, *path)
    return None if value is None else str(value)


def data(run: Contents) -> Parts:
    """The pictures and labels by their hash: a path may change, and two sets may share a name."""
    return {"data": _told(run.data, "sha256")}


def pictures(run: Contents, count: float | None) -> Parts:
    """Which pictures a number was measured on: data, how they were held out, and how many."""
    split = [_told(run.config, *path) for path in (("seed",), ("data", "held_out"), ("data", "held_out_at_most"))]
    how = None if None in split else "seed {}, share {}, at most {}".format(*split)
    which = entry(run.metrics, "protocol", "pictures")
    source = _told(run.data, "source")
    line = str(which).replace(source, "the data") if which and source else None
    return data(run) | {
        "held-out split": how,
        "pictures": line,
        "count": None if count is None else f"{count:.0f}",
    }


def _number(run: Contents, row: Any, protocol: Parts, value: str = "value", stderr: str = "stderr") -> Number | None:
    """``row[value]`` with its error and count; the row's own protocol line is a part like any other."""
    found, count = finite(entry(row, value)), finite(entry(row, "n"))
    if found is None:
        return None
    own = pictures(run, count) | protocol
    if entry(row, "protocol") is not None:
        own["protocol"] = str(row["protocol"])
    return Number(found, finite(entry(row, stderr)), None if count is None else int(count), own)


def _bits(run: Contents, what: str) -> Number | None:
    """Bits wanted, bits measured, or how far the one is from the other."""
    row = entry(run.metrics, "bits")
    normal = entry(run.config, "autoencoder", "price") == "normal"
    how: Parts = {
        "noise levels a picture": _told(run.config, "evaluation", "rate_levels"),
        "price": "KL to N(0, I)" if normal else "diffusion prior",
        "log-SNR of the fixed noise": _told(run.config, "autoencoder", "lambda_0"),
    }
    found = _number(run, row, how)
    wanted = finite(entry(row, "wanted")) if row else finite(entry(run.config, "stage1", "target_bpp"))
    if what == "measured" or (what == "off" and (found is None or not wanted)):
        return found if what == "measured" else None
    if what == "wanted":
        return None if wanted is None else Number(wanted, None, None, data(run))
    assert found is not None and wanted
    error = None if found.stderr is None else 100 * found.stderr / wanted
    return Number(100 * (found.value / wanted - 1), error, found.n, found.protocol)


def _quality(run: Contents, key: str) -> Number | None:
    """PSNR or SSIM with the decoder's calls and range."""
    row, line = entry(run.metrics, key), _told(run.metrics, "protocol", key)
    return _number(run, row, _calls(run, row) | {"protocol": line})


def _calls(run: Contents, row: Any) -> Parts:
    steps = finite(entry(row, "steps"))
    how = {f"decoder {name}": _told(run.config, "evaluation", f"decoder_{name}") for name in ("range", "temperature")}
    return {"decoder calls": None if steps is None else f"{steps:.0f}", **how}


def _distance(run: Contents, what: str, kind: str) -> Number | None:
    row = entry(run.metrics, what, kind)
    how = _calls(run, entry(run.metrics, what)) if what == "reconstruction" else _sampling(run)
    parts = finite(entry(row, "components"))
    found = _number(run, row, how | ({"components": f"{parts:.0f}"} if parts else {}))
    if found is not None:
        found.protocol.setdefault("protocol", None)  # no feature network named: comparable with nothing
    return found


def _sampling(run: Contents) -> Parts:
    names = ("guidance", "base_steps", "decoder_steps", "decoder_range", "decoder_temperature")
    return {name.replace("_", " "): _told(run.config, "evaluation", name) for name in names}


def _classifier(run: Contents, key: str) -> Number | None:
    row = entry(run.metrics, "classifier")
    how = {} if key == "real" else _sampling(run)
    found = _number(run, row, how, key, f"{key}_stderr")
    if found is None:
        return None
    error = None if found.stderr is None else 100 * found.stderr
    found.protocol.setdefault("protocol", None)
    return Number(100 * found.value, error, found.n, found.protocol)


def _cost(run: Contents, tree: str, part: str) -> Number | None:
    """Counted, not measured, by the same rule in every run: no protocol but the rule."""
    values = entry(run.metrics, tree)
    values = values if isinstance(values, dict) else {}
    known = [value for one in values.values() if (value := finite(one)) is not None]
    value = (sum(known) if known else None) if part == "all" else finite(values.get(part))
    return None if value is None else Number(value, None, None, {})


def _minutes(run: Contents, phase: str) -> Number | None:
    phases = entry(run.metrics, "phases")
    rows = [row for row in phases if isinstance(row, dict)] if isinstance(phases, list) else []
    seconds = [finite(row.get("seconds")) for row in rows if phase in ("all", row.get("name"))]
    known = [value for value in seconds if value is not None]
    machine = {name: _told(run.manifest, name) for name in ("cpu", "threads", "device", "torch")}
    return Number(sum(known) / 60, None, None, machine) if known else None


def _quantities() -> tuple[Quantity, ...]:
    cut = functools.partial
    rows = [
        Quantity("bits_wanted", "wanted", "bits per pixel", "bits", cut(_bits, what="wanted")),
        Quantity("bits", "measured", "bits per pixel", "bits", cut(_bits, what="measured")),
        Quantity("bits_off", "measured against wanted", "%", "bits", cut(_bits, what="off")),
        Quantity("psnr", "PSNR", "dB", "quality", cut(_quality, key="psnr")),
        Quantity("ssim", "SSIM", "", "quality", cut(_quality, key="ssim")),
    ]
    for what, whose in (("reconstruction", "reconstructions"), ("generation", "new pictures")):
        for kind, name in (("kernel", "kernel distance"), ("frechet64", "Fréchet distance, 64 components")):
            title = f"{whose}, {name}"
            rows.append(Quantity(f"{what}_{kind}", title, "", "quality", cut(_distance, what=what, kind=kind)))
    for key, title in (("samples", "new pictures named rightly"), ("real", "real ones named rightly")):
        rows.append(Quantity(f"classifier_{key}", title, "%", "quality", cut(_classifier, key=key)))
    for tree, title, unit in (("parameters", "parameters", ""), ("training_flops", "training FLOPs", "FLOPs")):
        for part in ("encoder", "prior", "decoder", "base", "all"):
            name = f"{title}, {'in all' if part == 'all' else part}"
            rows.append(Quantity(f"{tree}_{part}", name, unit, "cost", cut(_cost, tree=tree, part=part)))
    for phase, key in (("stage 1", "stage1"), ("stage 2", "stage2"), ("all", "all")):
        name = f"minutes, {'in all' if phase == 'all' else phase}"
        rows.append(Quantity(f"minutes_{key}", name, "min", "cost", cut(_minutes, phase=phase)))
    return tuple(rows)


def _logged(run: Contents, stage: str, key: str) -> bool:
    return sum(finite(row.get(key)) is not None for row in run.stage(stage)) > 1


def _rate_chart(run: Contents) -> Parts | None:
    return data(run) if _logged(run, "stage1", "bpp") else None


def _decoder_chart(run: Contents) -> Parts | None:
    """Nats of the decoder: of one data set, one weight and one range of noise."""
    ae = entry(run.config, "autoencoder")
    ae = ae if isinstance(ae, dict) else {}
    own = {"bias", "lambda_min", "lambda_max"} | {
        name for name in ae if name.startswith("decoder_") or name == "perceptual"
    }
    weight = {name.replace("_", " "): _told(ae, name) for name in sorted(own)}
    return data(run) | weight if _logged(run, "stage1", "decoder") else None


def _base_chart(run: Contents) -> Parts | None:
    """Nats per latent number under one weight; the latents are each run's own, and the page says so."""
    weight = {
        "bias": _told(run.config, "base", "bias"),
        "lambda 0": _told(run.config, "autoencoder", "lambda_0"),
    }
    return data(run) | weight if _logged(run, "stage2", "loss") else None


def _curve_chart(run: Contents) -> Parts | None:
    known = "curve_edges" in run.arrays and "curve_bits" in run.arrays
    return pictures(run, finite(entry(run.metrics, "bits", "n"))) if known else None


def _scatter_chart(run: Contents) -> Parts | None:
    psnr, bits = _quality(run, "psnr"), _bits(run, "measured")
    return None if psnr is None or bits is None else psnr.protocol


QUANTITIES = _quantities()
CHARTS: dict[str, Callable[[Contents], Parts | None]] = {
    "rate": _rate_chart,
    "decoder": _decoder_chart,
    "base": _base_chart,
    "curve": _curve_chart,
    "scatter": _scatter_chart,
}
