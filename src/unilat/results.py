"""What a finished run is worth: every measured number with its standard error, count, unit and protocol.

``metrics.json`` of a run folder is the JSON of :class:`Results`, written once by `unilat evaluate`.

    >>> run.results.bits.value, run.results.bits.stderr, run.results.bits.protocol
    >>> run.results.reconstruction.psnr.value
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unilat.files import Place, Unfit, built, read_json, whole, write_json
from unilat.types import UserError

FORMAT = "unilat results 1"
BEFORE = "fe3ecef"
"""The commit to read older files with, where this one cannot."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """One measured number. ``value`` is NaN where it could not be measured, which JSON has as null."""

    value: float
    stderr: float | None = None
    """Standard error over the ``n`` pictures, or None where there is none."""
    n: int | None = None
    """Pictures (of each set, where two sets are compared)."""
    unit: str = ""
    """Empty for what has no unit."""
    protocol: str = ""
    """How it was measured, in a line; numbers of different protocols do not compare."""


@dataclass(frozen=True, kw_only=True)
class Bits:
    """Bits of held-out pictures' latents: an upper bound, and what was aimed at."""

    target: float | None
    """Bits per pixel that training held, or None where a loss factor was fixed."""
    measured: Number
    """Bits per pixel of pictures that training never saw."""

    @property
    def value(self) -> float:
        """Measured bits per pixel."""
        return self.measured.value

    @property
    def stderr(self) -> float | None:
        """Standard error of :attr:`value` over pictures."""
        return self.measured.stderr

    @property
    def n(self) -> int | None:
        """Pictures measured."""
        return self.measured.n

    @property
    def unit(self) -> str:
        """``bits per pixel``."""
        return self.measured.unit

    @property
    def protocol(self) -> str:
        """How :attr:`value` was measured."""
        return self.measured.protocol


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far a set of pictures is from real ones, by two distances (``metrics/distances.py``)."""

    kernel: Number
    frechet64: Number
    components: int | None = None
    """Principal components that ``frechet64`` stands on."""
    reason: str = ""
    """Why a distance without a value has none."""
    precision: Number | None = None
    """Share in [0, 1] of the set that lies among real ones (``metrics/manifolds.py``); None in files of before
    December 2026, as ``recall``."""
    recall: Number | None = None
    """Share of the real ones that lie among the set."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What one number of decoder calls makes of the latents of held-out pictures."""

    steps: int
    psnr: Number
    """Decibels."""
    ssim: Number
    distance: Distance | None = None
    """None where no feature network was at hand."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Shares in [0, 1] that a small classifier of real pictures names rightly."""

    samples: Number
    real: Number
    """Of held-out real pictures."""
    of: str = "class"
    """What is named: the class, or one of the factors that a class is made of."""

    @property
    def ratio(self) -> float:
        """Samples named rightly over real ones."""
        return self.samples.value / max(self.real.value, 1e-9)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number against reference statistics (``metrics/reference.py``), under the name that its protocol gives it."""

    name: str
    """``fid[inception, uint8, bilinear-tf1 299, 50k samples]``; only the published network's is called so."""
    number: Number


@dataclass(frozen=True, kw_only=True)
class Making:
    """What pictures were made with when they were measured; the run's configuration may say something else by now."""

    decoder: str
    """``full`` as it was trained, or ``fast`` as it was distilled."""
    decoder_steps: int
    """Calls for a picture."""
    decoder_range: tuple[float, float]
    """Log-SNR of the first and the last call."""
    decoder_temperature: float
    """Standard deviation of the noise that it starts from."""
    base: str | None = None
    """``full``, ``fast``, or ``prior`` for stage 1's in its place; None where there is none."""
    base_steps: int | None = None
    """Calls for a latent."""
    guidance: float | None = None
    """1 is none, as where there are no classes; None where a student's file does not tell, or there is no base."""

    @property
    def line(self) -> str:
        """As protocols have it: ``guidance 2, 8 calls of the base and 1 of the decoder at temperature 0.2, …``."""
        low, high = self.decoder_range
        fast = "fast " if self.decoder == "fast" else ""
        decoder = f"the {fast}decoder at temperature {self.decoder_temperature:g}, log-SNR {low:g} to {high:g}"
        if self.base is None:
            return f"{_calls(self.decoder_steps)} of {decoder}"
        base = {"fast": "the fast base", "prior": "stage 1's prior"}.get(self.base, "the base")
        guidance = "guidance not known" if self.guidance is None else f"guidance {self.guidance:g}"
        return f"{guidance}, {_calls(self.base_steps)} of {base} and {self.decoder_steps} of {decoder}"


def _calls(count: int | None) -> str:
    return f"{count} call{'' if count == 1 else 's'}"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Seconds and largest memory of one phase of a run, interrupted attempts counted too."""

    name: str
    seconds: float
    peak_memory_mib: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a run cost: counted by part (encoder, prior, decoder with its perceptual network, base), timed by phase."""

    parameters: dict[str, int]
    training_flops: dict[str, float]
    phases: tuple[Phase, ...] = ()
    muon_flops: dict[str, float] | None = field(default_factory=dict)
    """What of ``training_flops`` are the products of Muon's steps, of the parts that have any; None in a file of before
    December 2026, whose ``training_flops`` leave them out."""

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(phase.seconds for phase in self.phases)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Whether a run has come to what was wanted of it."""

    verdict: str
    """``reached``: the wanted bits; ``missed``; ``diverged``: its numbers are worth nothing; ``done``: no bits were
    wanted."""
    reason: str = ""
    """Why not, and what to do, in one sentence; empty for ``reached`` and ``done``."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Of a run that took over an encoder and holds its bits by a scale: what they cost."""

    what: str
    """Whose encoder it is, and ``tune``, what learned: ``all``, or with the encoder kept ``decoder`` or ``none``."""
    tune: str
    decoder: str
    """``ours``, ``own`` as it was, or ``tuned``."""
    scale: float
    """What latents of unit variance are multiplied by before the fixed noise."""
    noise: float
    """Standard deviation of the noise over that of a latent as it was taken over, ``σ(λ₀) / (α(λ₀) scale)``."""
    clean: Number | None = None
    """PSNR of the model's own decoder on latents without noise, of the same pictures; None where it is not known."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Every number of an evaluation."""

    pictures: str
    """Which pictures were measured."""
    features: str | None
    """Protocol line of the feature network that distances stand on, or None without one."""
    bits: Bits
    base_bits: Number | None = None
    """The same bound under the base model, where there is one."""
    reconstruction: Reconstruction
    """With the decoder calls that the run was evaluated with."""
    other_steps: tuple[Reconstruction, ...] = ()
    """With other numbers of calls."""
    generation: Distance | None = None
    """Of samples, where there are any and a feature network was at hand."""
    classifier: Classifier | None = None
    """None where samples have no classes, or nobody was asked to judge them."""
    costs: Costs
    making: Making | None = None
    """None in a file of before December 2026, which did not keep it."""
    outcome: Outcome | None = None
    """Of a run measured on its own held-out pictures; None for other pictures, and in files of before."""
    factors: tuple[Classifier, ...] = ()
    """In place of :attr:`classifier` where classes are combinations of factors: one a factor."""
    start: Start | None = None
    """Of a run that took over an encoder whose bits a scale holds; its file has no such entry otherwise."""
    against: tuple[Measure, ...] = ()
    """Of samples and reconstructions against reference statistics, where any were given."""

    @property
    def judged(self) -> tuple[Classifier, ...]:
        """What classifiers make of the samples: of their class, or of each of its factors."""
        return (self.classifier,) if self.classifier else self.factors

    @property
    def by_steps(self) -> tuple[Reconstruction, ...]:
        """Reconstructions with every number of calls, fewest first."""
        return tuple(sorted((self.reconstruction, *self.other_steps), key=lambda one: one.steps))

    def to_json(self) -> dict[str, object]:
        """The tree that ``metrics.json`` holds, NaN as null; :meth:`from_json` reads it back."""
        tree = _plain(dataclasses.asdict(self))
        return {"format": FORMAT, **{name: value for name, value in tree.items() if name != "start" or value}}

    @classmethod
    def from_json(cls, tree: object, name: str = "results", run: str | Path = "RUN") -> "Results":
        """Read what :meth:`to_json` made, or a metrics.json of before; ``name`` and ``run`` are for its messages.

        Raises :class:`UserError` that names the file, the first key that does not fit and the way out.
        """
        out = f"measure again with `unilat evaluate {run}`"
        if not isinstance(tree, dict):
            raise UserError(f"{name} holds no results: {out}")
        if tree.get("format", FORMAT) != FORMAT:
            raise UserError(f"{name} is of the format {tree['format']!r}, not {FORMAT!r}: {out}")
        before = "format" not in tree
        try:
            inner = _of_before(tree) if before else {key: value for key, value in tree.items() if key != "format"}
            inner = (
                {"start": None} | {"making": None, "outcome": None, "factors": (), "against": ()} | _with_shares(inner)
            )
            if isinstance(judge := inner.get("classifier"), dict):
                inner["classifier"] = {"of": "class"} | judge
            if isinstance(costs := inner.get("costs"), dict):
                inner["costs"] = {"muon_flops": None} | costs
            return built(cls, inner, "")
        except Unfit as problem:
            if before:
                out = f"read it with commit {BEFORE} or the one that wrote it, or {out}"
            raise UserError(f"{name} is damaged or of another unilat ({problem}): {out}") from None


def write(path: Path, results: Results, place: Place = whole) -> None:
    """Write ``results`` as JSON, whole or not at all; raises :class:`UserError` where that fails."""
    write_json(path, results.to_json(), place)


def read(path: Path) -> Results:
    """Read the ``metrics.json`` of a run folder; raises :class:`UserError` where it is missing or does not fit."""
    if not path.is_file():
        raise UserError(f"{path} is not there: measure the run with `unilat evaluate {path.parent}`")
    return Results.from_json(read_json(path), str(path), path.parent)


def read_phases(path: Path) -> list[Phase]:
    """What ``phases.json`` holds, nothing where it is not there; raises :class:`UserError` where it does not fit."""
    if not path.exists():
        return []
    try:
        return list(built(tuple[Phase, ...], read_json(path), ""))
    except Unfit as problem:
        raise UserError(f"{path} is damaged ({problem}): delete it and go on without these times") from None


def _plain(tree: Any) -> Any:
    """Tuples as lists, NaN and infinity as None: what JSON gives back."""
    if isinstance(tree, dict):
        return {name: _plain(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _with_shares(tree: Any, depth: int = 4) -> Any:
    """``tree``, whose distances may have been written before there were precision and recall, with None for them."""
    if isinstance(tree, list) and depth:
        return [_with_shares(value, depth - 1) for value in tree]
    if not isinstance(tree, dict) or not depth:
        return tree
    tree = {name: _with_shares(value, depth - 1) for name, value in tree.items()}
    return {"precision": None, "recall": None} | tree if {"kernel", "frechet64"} <= tree.keys() else tree


def _of_before(tree: Mapping[str, object]) -> dict[str, object]:
    """A metrics.json of before November 2026, without a format mark, as the tree of this format."""
    lines, bits, psnr = _object(tree, "protocol"), _object(tree, "bits"), _object(tree, "psnr")
    head = {
        "steps": psnr.get("steps"),
        "psnr": _number(psnr, lines.get("psnr")),
        "ssim": _number(_object(tree, "ssim"), lines.get("ssim")),
        "distance": _distance(tree, "reconstruction"),
    }
    others = []
    for row in _rows(tree, "by_steps"):
        if row.get("steps") != head["steps"]:
            few = {name: _number({"value": row.get(name)}, lines.get(name)) for name in ("psnr", "ssim")}
            kernel = None if row.get("kernel") is None else _number({"value": row["kernel"]}, None)
            nothing = {"frechet64": _number({}, None), "components": None, "reason": ""}
            distance = kernel and {"kernel": kernel, **nothing}
            others.append({"steps": row.get("steps"), **few, "distance": distance})
    judge = _object(tree, "classifier") if tree.get("classifier") else None
    counts = {"samples": judge and judge.get("n"), "real": None}  # of the real ones it was not kept
    shares = judge and {
        name: _number({**judge, "value": judge.get(name), "stderr": judge.get(f"{name}_stderr"), "n": n}, None)
        for name, n in counts.items()
    }
    return {
        "pictures": lines.get("pictures"),
        "features": lines.get("features"),
        "bits": {"target": bits.get("wanted"), "measured": _number(bits, None)},
        "base_bits": _number(_object(tree, "base_bits"), None) if tree.get("base_bits") else None,
        "reconstruction": head,
        "other_steps": others,
        "generation": _distance(tree, "generation"),
        "classifier": shares,
        "costs": {
            "parameters": tree.get("parameters"),
            "training_flops": tree.get("training_flops"),
            "phases": _rows(tree, "phases"),
        },
    }


def _object(tree: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = tree.get(key)
    if not isinstance(value, dict):
        raise Unfit(f"{key} is {'missing' if value is None else 'no object'}")
    return value


def _rows(tree: Mapping[str, object], key: str) -> list[dict[str, object]]:
    value = tree.get(key, [])
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise Unfit(f"{key} is no list of objects")
    return value


def _number(row: Mapping[str, object], line: object) -> dict[str, object]:
    plain = {name: row.get(name) for name in ("value", "stderr", "n")}
    return {**plain, "unit": row.get("unit", ""), "protocol": row.get("protocol", line) or ""}


def _distance(tree: Mapping[str, object], key: str) -> dict[str, object] | None:
    if not tree.get(key):
        return None
    found = _object(tree, key)
    kernel, frechet = _object(found, "kernel"), _object(found, "frechet64")
    reason = frechet.get("reason") or kernel.get("reason") or ""
    numbers = {"kernel": _number(kernel, None), "frechet64": _number(frechet, None)}
    return {**numbers, "components": frechet.get("components"), "reason": reason}
