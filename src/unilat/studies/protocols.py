"""What a comparison tells of a run, and the protocol of each number: the parts that must be equal to share a column."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unilat.report.comparison import Parts
from unilat.report.folder import Contents
from unilat.report.text import entry, finite
from unilat.results import Number


@dataclass(frozen=True)
class Compared:
    """A number with the parts of its protocol."""

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
    read: Callable[[Contents], Compared | None]


NAMED = {
    "samples": "new pictures named rightly",
    "real": "real ones named rightly",
    "over": "new over real ones named rightly",
}
"""What a classifier's numbers are called."""


def _told(tree: object, *path: str) -> str | None:
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
    which = run.results.pictures if run.results else None
    source = _told(run.data, "source")
    line = which.replace(source, "the data") if which and source else None
    return data(run) | {
        "held-out split": how,
        "pictures": line,
        "count": None if count is None else f"{count:.0f}",
    }


def _number(run: Contents, row: Number, protocol: Parts) -> Compared | None:
    """A measured number, held by the pictures it was measured on, ``protocol`` and the number's own line."""
    value = finite(row.value)
    if value is None:
        return None
    line: Parts = {"protocol": row.protocol or None}
    return Compared(value, finite(row.stderr), row.n, pictures(run, row.n) | protocol | line)


def _bits(run: Contents, what: str) -> Compared | None:
    """Bits aimed at, bits measured, or how far the one is from the other."""
    if run.results is None:
        target = finite(entry(run.config, "stage1", "target_bpp"))
        return None if target is None or what != "target" else Compared(target, None, None, data(run))
    row, normal = run.results.bits, entry(run.config, "autoencoder", "price") == "normal"
    target = finite(row.target)
    if what == "target":
        return None if target is None else Compared(target, None, None, data(run))
    how: Parts = {
        "price": "KL to N(0, I)" if normal else "diffusion prior",
        "log-SNR of the fixed noise": _told(run.config, "autoencoder", "lambda_0"),
    }
    measured = _number(run, row.measured, how)
    if measured is None:
        return None
    if what == "measured" or not target:
        return measured if what == "measured" else None
    error = None if measured.stderr is None else 100 * measured.stderr / target
    return Compared(100 * (measured.value / target - 1), error, measured.n, measured.protocol)


def _quality(run: Contents, key: str) -> Compared | None:
    """PSNR or SSIM with the decoder's calls and range."""
    if run.results is None:
        return None
    made = run.results.reconstruction
    return _number(run, made.psnr if key == "psnr" else made.ssim, _calls(run, made.steps))


def _calls(run: Contents, steps: int) -> Parts:
    """As the results tell them: the configuration may have been changed since."""
    return {"decoder calls": f"{steps}", **_made(run, "decoder", "decoder_range", "decoder_temperature")}


def _made(run: Contents, *names: str) -> Parts:
    made = run.results.making if run.results else None
    told = {name: None if made is None else getattr(made, name) for name in names}
    return {name.replace("_", " "): None if value is None else str(value) for name, value in told.items()}


def _distance(run: Contents, what: str, kind: str) -> Compared | None:
    if run.results is None:
        return None
    made = run.results.reconstruction
    distance, how = (
        (made.distance, _calls(run, made.steps))
        if what == "reconstruction"
        else (run.results.generation, _sampling(run))
    )
    if distance is None:
        return None
    if kind == "frechet64" and distance.components:
        how = how | {"components": f"{distance.components}"}
    row = {"precision": distance.precision, "recall": distance.recall}.get(kind)
    if kind in ("precision", "recall"):
        return _percent(_number(run, row, how)) if row else None
    return _number(run, distance.kernel if kind == "kernel" else distance.frechet64, how)


def _sampling(run: Contents) -> Parts:
    names = ("base", "guidance", "base_steps")
    return _made(run, *names, "decoder", "decoder_steps", "decoder_range", "decoder_temperature")


def _classifier(run: Contents, key: str, of: str) -> Compared | None:
    """Shares that a classifier of the class, or of a label, names rightly: of samples, of real ones, or ``over``: the
    one over the other, with the error of both."""
    judges = run.results.judged if run.results else ()
    judge = next((one for one in judges if one.of == of), None)
    if judge is None:
        return None
    real, made = _number(run, judge.real, {}), _number(run, judge.samples, _sampling(run))
    if key != "over":
        return _percent(real if key == "real" else made)
    if made is None or real is None or not real.value:
        return None
    ratio, error = made.value / real.value, None
    if made.stderr is not None and real.stderr is not None:
        error = math.hypot(made.stderr, ratio * real.stderr) / real.value
    lines = dict.fromkeys([made.protocol["protocol"], real.protocol["protocol"]])
    both = None if None in lines else "; of real ones: ".join(map(str, lines))
    protocol = made.protocol | {"count of real ones": real.protocol["count"], "protocol": both}
    return _percent(Compared(ratio, error, made.n, protocol))


def _percent(share: Compared | None) -> Compared | None:
    """A share in per cent."""
    if share is None:
        return None
    error = None if share.stderr is None else 100 * share.stderr
    return Compared(100 * share.value, error, share.n, share.protocol)


def _cost(run: Contents, tree: str, part: str) -> Compared | None:
    """Counted, not measured, by one rule; but results of before leave out the products of Muon's steps."""
    if run.results is None:
        return None
    costs = run.results.costs
    values = costs.parameters if tree == "parameters" else costs.training_flops
    known = [value for one in values.values() if (value := finite(one)) is not None]
    value = (sum(known) if known else None) if part == "all" else finite(values.get(part))
    counted = "counted" if costs.muon_flops is not None else "left out, as before December 2026"
    rule: Parts = {"products of Muon's steps": counted} if tree == "training_flops" else {}
    return None if value is None else Compared(value, None, None, rule)


def _minutes(run: Contents, phase: str) -> Compared | None:
    phases = run.results.costs.phases if run.results else ()
    seconds = [finite(row.seconds) for row in phases if phase in ("all", row.name)]
    known = [value for value in seconds if value is not None]
    machine = {name: _told(run.manifest, name) for name in ("cpu", "threads", "device", "torch")}
    return Compared(sum(known) / 60, None, None, machine) if known else None


def quantities(runs: Sequence[Contents]) -> tuple[Quantity, ...]:
    """All that is compared of these runs; what classifiers name are their classes, or the labels that those are of."""
    cut = functools.partial
    rows = [
        Quantity("bits_target", "wanted", "bits per pixel", "bits", cut(_bits, what="target")),
        Quantity("bits", "measured", "bits per pixel", "bits", cut(_bits, what="measured")),
        Quantity("bits_off", "measured against wanted", "%", "bits", cut(_bits, what="off")),
        Quantity("psnr", "PSNR", "dB", "quality", cut(_quality, key="psnr")),
        Quantity("ssim", "SSIM", "", "quality", cut(_quality, key="ssim")),
    ]
    for what, whose in (("reconstruction", "reconstructions"), ("generation", "new pictures")):
        for kind, name in (("kernel", "kernel distance"), ("frechet64", "Fréchet distance, 64 components")):
            title = f"{whose}, {name}"
            rows.append(Quantity(f"{what}_{kind}", title, "", "quality", cut(_distance, what=what, kind=kind)))
        for kind in ("precision", "recall"):
            title = f"{whose}, {kind}"
            rows.append(Quantity(f"{what}_{kind}", title, "%", "quality", cut(_distance, what=what, kind=kind)))
    judges = [judge for run in runs if run.results for judge in run.results.judged]
    for of in dict.fromkeys(judge.of for judge in judges):
        label, name = ("", "") if of == "class" else (f"_{of}", f", {of}")
        for key, title in NAMED.items():
            quality = cut(_classifier, key=key, of=of)
            rows.append(Quantity(f"classifier_{key}{label}", title + name, "%", "quality", quality))
    for tree, title, unit in (("parameters", "parameters", ""), ("training_flops", "training FLOPs", "FLOPs")):
        for part in ("encoder", "prior", "decoder", "base", "all"):
            name = f"{title}, {'in all' if part == 'all' else part}"
            rows.append(Quantity(f"{tree}_{part}", name, unit, "cost", cut(_cost, tree=tree, part=part)))
    for phase, key in (("stage 1", "stage1"), ("stage 2", "stage2"), ("all", "all")):
        name = f"minutes, {'in all' if phase == 'all' else phase}"
        rows.append(Quantity(f"minutes_{key}", name, "min", "cost", cut(_minutes, phase=phase)))
    return tuple(rows)


def _logged(run: Contents, stage: str, key: str) -> bool:
    return sum(key in row.numbers for row in run.stage(stage)) > 1


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
    return pictures(run, run.results.bits.n if run.results else None) if known else None


def _scatter_chart(run: Contents) -> Parts | None:
    psnr, bits = _quality(run, "psnr"), _bits(run, "measured")
    return None if psnr is None or bits is None else psnr.protocol


CHARTS: dict[str, Callable[[Contents], Parts | None]] = {
    "rate": _rate_chart,
    "decoder": _decoder_chart,
    "base": _base_chart,
    "curve": _curve_chart,
    "scatter": _scatter_chart,
}
