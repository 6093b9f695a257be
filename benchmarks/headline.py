"""Unified Latents (UL) against the KL-VAE latents of latent diffusion, each as its users would have it: who needs less?

    make bench-headline                         both data sets (four hours each of one core; goes on where it stopped)
    make bench-headline ARGS=fashion-mnist      one data set, written into a file of its own
    make bench-headline ARGS=--quick            a quarter of the training, fewer weights and budgets (100 minutes)
    python benchmarks/headline.py fashion-mnist --report   nothing is run: what is there is told
    python benchmarks/headline.py --rehearse    minutes, tiny, written into the run folder alone

32×32, the `small` networks. Choices (bits or KL weight, learning rates, settling, perceptual term, noise weighting of
the base model, guidance, calls) are made on a validation part of the held-out pictures and told on a test part.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT, Rows, make_command, mean, row, train_at_once, write
from headline_rows import Point, Told, farther, point_rows, work_rows

from unilat.results import Results, read

WORK = ROOT / "runs" / "bench-headline"
GOALS = (2.0, 1.2)
"""Of the base model's FLOPs to equal distance, and of all."""
EQUAL = ("kl-vae", "--autoencoder.decoder-loss", "diffusion")
PRESETS = {"UL": ("small",), "KL-VAE": ("kl-vae",), "equal decoders": EQUAL}
"""`equal decoders`: the KL-VAE's encoder, noise and price with UL's controller and diffusion decoder."""
OPTIONS = {
    "bpp": "--target-bpp",
    "weight": "--loss-factor",
    "settle": "--stage1.settle",
    "lr": "--stage1.learning-rate",
    "perceptual": "--autoencoder.perceptual",
    "decoder": "--autoencoder.decoder-loss",
    "n": "--stage1.samples",
    "bias": "--base.bias",
    "baselr": "--stage2.learning-rate",
}
STAGE2 = ("bias", "baselr")


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    data: tuple[tuple[str, int], ...]
    """Names of data sets and channels."""
    seeds: tuple[int, ...]
    search: tuple[int, ...]
    """Seeds whose validation part decides."""
    bits: tuple[str, ...]
    factors: tuple[str, ...]
    """One over the KL weights, chosen under the first of ``perceptual``."""
    samples: int
    """Pictures of stage 1; the KL-VAE's long runs see more."""
    settle: int
    budgets: tuple[int, ...]
    """Latents that base models see."""
    middle: int
    """The budget at which settings are chosen."""
    lr: tuple[str, ...]
    perceptual: tuple[str, ...]
    bias: tuple[str, ...]
    baselr: tuple[str, ...]
    pictures: int
    """Of the validation part, and of the test part."""
    guidance: str
    calls: str
    networks: tuple[str, ...]
    at_most: int = 20_000


FULL = Scale(
    data=(("fashion-mnist", 1), ("emoji", 3)), seeds=(0, 1, 2), search=(0,), bits=("0.1", "0.2", "0.4"),
    factors=("1", "3", "10", "1000", "1000000"), samples=16_000, settle=32_000, budgets=(750, 3_000, 12_000, 48_000),
    middle=12_000, lr=("0.003",), perceptual=("100", "10"), bias=("0", "4"), baselr=("0.004",), pictures=600,
    guidance="1,1.5", calls="8", networks=("efficientnet-lite0@96", "alexnet-st"),
)  # fmt: skip
QUICK = dataclasses.replace(
    FULL, data=(("fashion-mnist", 1),), bits=("0.1", "0.2"), factors=("3", "10", "1000", "1000000"), samples=4_000,
    settle=4_000, budgets=(500, 2_000, 8_000), middle=2_000, lr=(), perceptual=("100",), bias=("0",), baselr=(),
    pictures=250, guidance="1", at_most=12_000,
)  # fmt: skip
REHEARSAL = dataclasses.replace(
    QUICK, seeds=(0, 1), bits=("0.1",), factors=("10",), samples=96, settle=64, budgets=(64, 192), middle=64,
    pictures=12, networks=("efficientnet-lite0@32", "alexnet-st@32"), at_most=400,
)  # fmt: skip
Setting = tuple[tuple[str, str], ...]
"""Names of :data:`OPTIONS` and their values, the first choice first."""


@dataclass(frozen=True)
class Study:
    """One data set at one scale: its runs and what stands in them."""

    scale: Scale
    data: str
    channels: int
    work: Path

    def autoencoder(self, method: str, setting: Setting, seed: int) -> str:
        """Name of the run of stage 1."""
        parts = [f"{name}{value}" for name, value in setting if name not in STAGE2]
        return "-".join((self.data, method.lower().replace(" ", "-"), *parts, f"s{seed}"))

    def base(self, method: str, setting: Setting, budget: int, seed: int) -> str:
        """Name of the run of a base model on it."""
        parts = [f"{name}{value}" for name, value in setting if name in STAGE2]
        return "-".join((self.autoencoder(method, setting, seed), f"base{budget}", *parts))

    def make(self, method: str, settings: Iterable[Setting], budgets: Iterable[int], seeds: Iterable[int]) -> None:
        """Train and judge what is missing of these."""
        settings, budgets, seeds = list(settings), list(budgets), list(seeds)
        alone, pairs = ("--stage2.samples", "0"), [(one, s) for one in settings for s in seeds]
        first = {self.autoencoder(method, one, s): (*self._stage1(method, one, s), *alone) for one, s in pairs}
        train_at_once(self.work, first, 1)
        runs = {
            self.base(method, one, budget, s): self._stage2(method, one, budget, s)
            for one in settings
            for budget in budgets
            for s in seeds
        }
        train_at_once(self.work, runs, 1)
        for name in runs:
            self._judge(name)

    def _common(self, seed: int) -> tuple[str, ...]:
        scale = self.scale
        measured = f"--evaluation.pictures {2 * scale.pictures} --evaluation.samples 1 --evaluation.step-counts 1"
        rest = "--evaluation.features none --evaluation.classifier-samples 0 --evaluation.guidance 1"
        size = f"--data.at-most {scale.at_most} --data.channels {self.channels}"
        return (*f"{size} {measured} {rest}".split(), "--seed", f"{seed}")

    def _stage1(self, method: str, setting: Setting, seed: int) -> Sequence[str]:
        words = [word for name, value in setting if name not in STAGE2 for word in (OPTIONS[name], value)]
        length = () if "n" in dict(setting) else (OPTIONS["n"], f"{self.scale.samples}")
        settle = () if "settle" in dict(setting) or method != "UL" else (OPTIONS["settle"], "0")
        preset = ("--preset", *PRESETS[method])
        return (self.data, *preset, *words, *length, *settle, *self._common(seed))

    def _stage2(self, method: str, setting: Setting, budget: int, seed: int) -> Sequence[str]:
        words = [word for name, value in setting if name in STAGE2 for word in (OPTIONS[name], value)]
        short = {"samples": budget, "warmup": min(4_000, budget // 6), "ema-halflife": min(5_000, max(1, budget // 10))}
        length = [word for name, value in short.items() for word in (f"--stage2.{name}", f"{value}")]
        taken = ("--stage1.autoencoder", str(self.work / self.autoencoder(method, setting, seed)))
        return (*self._stage1(method, setting, seed), *words, *length, *taken)

    def _judge(self, name: str) -> None:
        path = self.work / f"{name}.cell.json"
        if path.is_file():
            return
        script, scale = Path(__file__).with_name("headline_cell.py"), self.scale
        words = (str(self.work / name), f"{scale.pictures}", scale.guidance, scale.calls, ",".join(scale.networks))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if subprocess.run([sys.executable, str(script), *words], env=environment).returncode:
            raise SystemExit(f"{name} could not be judged: see above")

    def cell(self, name: str) -> dict[str, Any] | None:
        """What ``headline_cell.py`` told of a run, None where it has not been judged."""
        path = self.work / f"{name}.cell.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def results(self, name: str) -> Results:
        """Of a finished run."""
        return read(self.work / name / "metrics.json")

    def stage1_flops(self, name: str) -> float:
        """All that training an autoencoder cost, its optimizer's products with it where they are counted."""
        return sum(value for part, value in self.results(name).costs.training_flops.items() if part != "base")

    def point(self, method: str, setting: Setting, budget: int, seeds: Sequence[int], network: int = 0) -> Point | None:
        """Of the finished runs of all these ``seeds``, None where one is missing."""
        names = [self.base(method, setting, budget, seed) for seed in seeds]
        cells = [self.cell(name) for name in names]
        if not all(cells):
            return None
        whole = [cell for cell in cells if cell]
        found = [cell["test"][self.scale.networks[network]]["generation"] for cell in whole]
        return Point(
            f"{method} ({words(setting)})",
            mean([self.results(name).costs.training_flops["base"] for name in names]),
            mean([self.stage1_flops(self.autoencoder(method, setting, seed)) for seed in seeds]),
            tuple(cell["validation"][cell["chosen"]]["kernel"] for cell in whole),
            tuple(Told(one["kernel"], one["stderr"]) for one in found),
        )


def words(setting: Setting) -> str:
    """A setting in a row."""
    return ", ".join(f"{name} {'1/' if name == 'weight' else ''}{value}" for name, value in setting)


def best(study: Study, method: str, settings: Sequence[Setting]) -> Setting | None:
    """The setting that is nearest on the validation part after the middle budget; None where none has been judged."""
    points = [(study.point(method, one, study.scale.middle, study.scale.search), one) for one in settings]
    known = [(mean(point.validation), one) for point, one in points if point]
    return min(known)[1] if known else None


def search(study: Study, method: str, run: bool) -> Setting | None:
    """Choose a method's settings one after another, each against the best so far: bits, or the KL weight under the
    first perceptual weight, then the rest. None where nothing has been judged."""
    scale = study.scale
    first: list[Setting] = [(("bpp", one),) for one in scale.bits]
    steps: list[list[tuple[str, str]]] = [[("lr", one) for one in scale.lr]]
    if method == "UL":
        steps.append([("settle", f"{scale.settle}")])
    if method == "KL-VAE":
        strongest, *others = scale.perceptual
        first = [(("weight", one), ("perceptual", strongest)) for one in scale.factors]
        steps.insert(0, [("perceptual", one) for one in others])
    steps += [[("bias", one) for one in scale.bias], [("baselr", one) for one in scale.baselr]]
    if run:
        study.make(method, first, [scale.middle], scale.search)
    if (now := best(study, method, first)) is None:
        return None
    for step in steps:
        tried = [tuple((dict(now) | {name: value}).items()) for name, value in step]
        if run:
            study.make(method, tried, [scale.middle], scale.search)
        now = best(study, method, [now, *tried]) or now
    return now


def long_runs(study: Study, ours: Setting, theirs: Setting, method: str) -> dict[str, Setting]:
    """The other method's setting with as long a stage 1 as ours has: in FLOPs, and in seconds."""
    scale, pairs = study.scale, (("UL", ours), (method, theirs))
    names = [study.autoencoder(one, setting, scale.search[0]) for one, setting in pairs]
    phases = [study.results(name).costs.phases for name in names]
    seconds = [sum(phase.seconds for phase in each if phase.name == "stage 1") for each in phases]
    flops = [study.stage1_flops(name) for name in names]
    longer = {"FLOPs": flops[0] / flops[1], "seconds": seconds[0] / seconds[1]}
    counts = {what: max(1, round(scale.samples * by / 32)) * 32 for what, by in longer.items()}
    return {f"{method}, stage 1 of equal {what}": (*theirs, ("n", f"{count}")) for what, count in counts.items()}


def curves(study: Study, run: bool) -> dict[str, list[Point]]:
    """Of each method, with the setting that its validation part chose, the point of each budget; what is not there is
    left out. Two runs at a time, of one thread each."""
    scale = study.scale
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(PRESETS, pool.map(lambda method: search(study, method, run), PRESETS), strict=True))
        ours, families = found["UL"], dict[str, tuple[str, Setting]]()
        if ours:
            families["UL"] = ("UL", ours)
        for method in ("KL-VAE", "equal decoders"):
            theirs = found[method]
            if ours and theirs:
                longer = long_runs(study, ours, theirs, method)
                for name in list(longer)[: 2 if method == "KL-VAE" else 1]:
                    families[name] = (method, longer[name])
        if run:
            list(pool.map(lambda one: study.make(one[0], [one[1]], scale.budgets, scale.seeds), families.values()))
    known = dict[str, list[Point]]()
    for name, (method, one) in families.items():
        points = [study.point(method, one, budget, scale.seeds) for budget in scale.budgets]
        known[name] = [point for point in points if point]
    return known


def removed(study: Study, run: bool) -> Rows:
    """What each part of ours is worth: the best of ours without it, after the middle budget."""
    scale, rows = study.scale, Rows()
    if not (now := search(study, "UL", False)):
        return rows
    bare = tuple(one for one in now if one[0] != "settle")
    others: dict[str, tuple[str, Setting]] = {
        "without the trained prior (a KL to N(0, I) under a learned variance)": ("equal decoders", bare),
        "without the diffusion decoder (a squared error in one call)": ("UL", (*now, ("decoder", "mse"))),
        "without the controller (a fixed loss factor of 1.5)": ("UL", (("weight", "1.5"), *now[1:])),
    }
    if "settle" in dict(now):
        others["without settling"] = ("UL", bare)
    else:
        others["with settling"] = ("UL", (*bare, ("settle", f"{scale.settle}")))
    if run:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: study.make(one[0], [one[1]], [scale.middle], scale.seeds), others.values()))
    reference = study.point("UL", now, scale.middle, scale.seeds)
    for name, (method, setting) in others.items():
        point = study.point(method, setting, scale.middle, scale.seeds)
        if point and reference:
            rows += farther(f"{study.data}, {scale.middle:,} latents, {name}", reference, point)
    return rows


def report(study: Study, run: bool) -> Rows:
    """All rows of a data set."""
    rows, found = Rows(), curves(study, run)
    for name, points in found.items():
        for point in points:
            what = f"{study.data}, {name}, base model of {point.base_flops:.3g} FLOPs, {point.label}"
            rows += point_rows(what, {"generation": point.test})
            rows.append(row(f"{what}: stage 1", point.stage1_flops, "FLOP"))
    ours = found.pop("UL", [])
    for name, points in found.items():
        if len(points) > 1 and len(ours) > 1:
            rows += work_rows(study.data, name, ours, points, GOALS)
        same = {one.base_flops: one for one in ours}
        for right in points:
            if left := same.get(right.base_flops):
                rows += farther(f"{study.data}, equal base FLOPs ({left.base_flops:.3g})", left, right, 0.0)
    return [*rows, *removed(study, run), *details(study)]


def details(study: Study) -> Rows:
    """Of every setting that the search tried, on its first seed: bits, PSNR, reconstructions, the second network."""
    rows: Rows = []
    for path in sorted(study.work.glob(f"{study.data}-*.cell.json")):
        name, cell = path.name.removesuffix(".cell.json"), json.loads(path.read_text("utf-8"))
        if f"-s{study.scale.search[0]}-" not in name or f"-base{study.scale.middle}" not in name:
            continue
        results = study.results(name)
        bits = results.base_bits
        if bits is not None:
            rows.append(row(f"{name}: bits under the base model", bits.value, "bits per pixel", stderr=bits.stderr))
        rows.append(row(f"{name}: bits by its own price", results.bits.value, "bits per pixel"))
        rows.append(row(f"{name}: PSNR, test part", cell["psnr"], "dB", n=cell["pictures"]))
        for network, told in cell["test"].items():
            for what, numbers in told.items():
                text = f"{name}: {what}, test part, {network}"
                kernel, stderr = numbers["kernel"], numbers["stderr"]
                rows.append(row(text, kernel, "kernel distance", stderr=stderr, n=cell["pictures"]))
                for share in ("precision", "recall"):
                    rows.append(row(f"{text}, {share}", numbers[share], "share", n=cell["pictures"]))
    return rows


def commits(work: Path) -> set[str]:
    """The commits that the runs of a folder were made by, ``+`` behind those of a changed tree."""
    found = (json.loads(path.read_text("utf-8")).get("commit") for path in work.glob("*/manifest.json"))
    return {str(one) for one in found}


def protocol(scale: Scale) -> str:
    """What the rows are."""
    seeds, searched = (", ".join(map(str, some)) for some in (scale.seeds, scale.search))
    weights, perceptual = ", ".join(f"1/{one}" for one in scale.factors), ", ".join(scale.perceptual)
    first, second = scale.networks
    return (
        f"32×32 pictures (at most {scale.at_most:,} read), `small` networks, stage 1 of {scale.samples:,} pictures, "
        f"two runs at a time, one thread each, seeds {seeds}. The held-out pictures are dealt into a validation and a "
        f"test part of at most "
        f"{scale.pictures} each. Settings are chosen one after another by the validation part after {scale.middle:,} "
        f"latents (seed {searched}), guidance ({scale.guidance}) and calls ({scale.calls}) of each run by its own "
        "samples for that part; rows tell other samples against the test part. UL: bits, learning rate, settling. "
        f"KL-VAE: preset `kl-vae`, squared error in one call, KL weights {weights} under a perceptual weight of "
        f"{scale.perceptual[0]}, perceptual weight ({perceptual}), learning rate, no adversarial term; its stage 1 "
        "then as long as UL's in FLOPs, and as long in seconds. "
        "`equal decoders`: its encoder and price with UL's controller and decoder, stage 1 of equal FLOPs. Of all: the "
        "base model's noise weighting (bias b of sigmoid(b − λ), which shifts its levels) and learning rate; latents "
        f"scaled and shifted a channel. Kernel distances of {first}; {second} beside it, which the perceptual term "
        "has seen. They compare among the rows of one data set only, never with a published FID. Errors: √(spread of "
        "the seeds² / n + mean squared jackknife), pictures being the same for all seeds; of ratios: half of the "
        "middle 68 % of curves drawn within these errors. FLOPs: training as `costs` counts it; encoding the latents "
        "and measuring are not counted. Equal distance: the nearest that both methods come, curves joined straight in "
        "ln FLOPs."
    )


def main() -> None:
    """Train what is missing and write what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", choices=[*(name for name, _ in FULL.data), []], help="all when left out")
    for name in ("--quick", "--rehearse", "--report"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--work", type=Path, help="folder of the runs")
    asked = parser.parse_args()
    name, scale = ("rehearsal", REHEARSAL) if asked.rehearse else ("quick", QUICK) if asked.quick else ("full", FULL)
    for data, channels in scale.data:
        if not asked.data or data in asked.data:
            study = Study(scale, data, channels, (asked.work or WORK) / name / data)
            study.work.mkdir(parents=True, exist_ok=True)
            tell(study, name, report(study, not asked.report))


def tell(study: Study, scale: str, rows: Rows) -> None:
    """Write one data set's results; of a rehearsal, print them."""
    if scale == "rehearsal":
        return print("\n".join(f"{one['value']!s:>24} {one['stderr']!s:>24} {one['what']}" for one in rows))
    made = commits(study.work)
    if len(made) != 1 or any(one.endswith("+") for one in made):
        raise SystemExit(f"not written: the runs in {study.work} are of {sorted(made)}, not of one unchanged commit")
    file = "headline_quick" if scale == "quick" else f"headline_{study.data.replace('-', '_')}"
    words = ["--quick"] if scale == "quick" else [study.data]
    path = write(file, protocol(study.scale), rows, command=make_command("headline", words), commit=made.pop())
    print(path.with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
