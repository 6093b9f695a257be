"""One data set's study of ``headline.py``: its scale, its runs, what they are named, trained with and judged by."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT, mean, train_at_once
from headline_rows import Point, Told

from unilat.results import Results, read

WORK = ROOT / "runs" / "bench-headline"
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
HELD_OUT = {"fashion-mnist": 0.1, "emoji": 0.2}
"""Shares of the pictures: a tenth of the 3,391 emoji would leave 169 for either part."""


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
    """One over the KL weights."""
    samples: int
    """Pictures of stage 1; the KL-VAE's long runs see more."""
    settle: int
    budgets: tuple[int, ...]
    """Latents that base models see."""
    middle: int
    """The budget at which settings are chosen."""
    lr: tuple[str, ...]
    perceptual: tuple[str, ...]
    """Under the first of them bits and KL weights are chosen."""
    bias: tuple[str, ...]
    baselr: tuple[str, ...]
    pictures: int
    """Of the validation part, and of the test part."""
    guidance: str
    calls: str
    networks: tuple[str, ...]
    at_most: int = 20_000


FULL = Scale(
    data=(("fashion-mnist", 1), ("emoji", 3)), seeds=(0, 1, 2), search=(0,), bits=("0.1", "0.2"),
    factors=("1", "3", "10", "1000000"), samples=16_000, settle=32_000, budgets=(750, 3_000, 12_000, 48_000),
    middle=12_000, lr=("0.003",), perceptual=("100", "10"), bias=("0", "4"), baselr=("0.004",), pictures=600,
    guidance="1,1.5", calls="8", networks=("efficientnet-lite0@96", "alexnet-st"),
)  # fmt: skip
QUICK = dataclasses.replace(
    FULL, data=(("fashion-mnist", 1),), factors=("3", "10", "1000", "1000000"), samples=4_000,
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
        size = f"--data.at-most {scale.at_most} --data.channels {self.channels} --data.held-out {HELD_OUT[self.data]}"
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

    def point(self, method: str, setting: Setting, budget: int, seeds: Sequence[int]) -> Point | None:
        """Of the finished runs of all these ``seeds``, None where one is missing."""
        names = [self.base(method, setting, budget, seed) for seed in seeds]
        cells = [self.cell(name) for name in names]
        if not all(cells):
            return None
        whole = [cell for cell in cells if cell]
        first, second = (
            tuple(Told(one["kernel"], one["stderr"]) for one in (cell["test"][name]["generation"] for cell in whole))
            for name in self.scale.networks
        )
        return Point(
            f"{method} ({words(setting)})",
            mean([self.results(name).costs.training_flops["base"] for name in names]),
            mean([self.stage1_flops(self.autoencoder(method, setting, seed)) for seed in seeds]),
            tuple(cell["validation"][cell["chosen"]]["kernel"] for cell in whole),
            first,
            second,
            tuple(cell["psnr"] for cell in whole),
        )


def words(setting: Setting) -> str:
    """A setting in a row."""
    return ", ".join(f"{name} {'1/' if name == 'weight' else ''}{value}" for name, value in setting)


def best(study: Study, method: str, settings: Sequence[Setting]) -> Setting | None:
    """The setting that is nearest on the validation part after the middle budget; None where none has been judged."""
    points = [(study.point(method, one, study.scale.middle, study.scale.search), one) for one in settings]
    known = [(mean(point.validation), one) for point, one in points if point]
    return min(known)[1] if known else None
