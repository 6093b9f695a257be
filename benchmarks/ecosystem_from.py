"""The part of `make bench-ecosystem` that starts from somebody's weights: before and after ``unilat train --from``.

    python benchmarks/ecosystem_from.py --seeds 0 1 2     all; goes on where it stopped, one thread
    python benchmarks/ecosystem_from.py --report          nothing is run: what is there is told
    python benchmarks/ecosystem_from.py --rehearse        a minute or two, tiny

An ``AutoencoderKL`` of diffusers' own class is trained on small pictures with latent diffusion's loss (absolute
error, a perceptual distance where its weights are there, 1e-6 KL), saved and audited. *Before* is what its users do:
a diffusion model on its latents as they are (their noise is that of λ₀ = 10, a hundredth of a latent's deviation) and
its own decoder. *After* holds the bits that the audit found, or a share of them, by the scale of the same latents
above the noise of λ₀ = 5, with our diffusion decoder, its own one tuned, or its own as it is."""

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import ROOT, Rows, mean, row, train_at_once
from headline_rows import Point, Told, curve, nearest, point_rows, ratio, spread
from torch import Tensor

from unilat.results import Results, read
from unilat.signals import load, to_unit
from unilat.training.order import batch_indices

WORK = ROOT / "runs" / "bench-ecosystem-from"
KL_WEIGHT, BATCH = 1e-6, 16
FINE = 10.0
"""λ₀ of the latents as they are: as little noise as makes no difference to a picture."""
WAYS = {
    "ours": (),
    "tuned": ("--keep-decoder", "--stage1.optimizer", "adamw", "--stage1.learning-rate", "0.0005"),
    "kept": ("--tune", "none"),
}
"""What decodes: our diffusion decoder, the model's own one tuned, or as it is."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    data: str
    channels: int
    at_most: int
    widths: tuple[int, ...]
    """Channels of the model's levels; each but the last halves the picture."""
    steps: int
    """Of 16 pictures, of the model's own training."""
    audited: int
    """Latents that the audit's prior sees."""
    shares: tuple[float, ...]
    """Of the audited bits that runs hold."""
    samples: int
    """Pictures of stage 1."""
    settle: int
    budgets: tuple[int, ...]
    """Latents that base models see."""
    pictures: int
    """Of the validation part, and of the test part."""
    networks: tuple[str, ...]


FULL = Scale(
    data="emoji", channels=3, at_most=20_000, widths=(16, 32, 32), steps=2_000, audited=32_000, shares=(1.0, 0.5),
    samples=8_000, settle=16_000, budgets=(1_000, 4_000, 16_000), pictures=160,
    networks=("efficientnet-lite0@96", "alexnet-st"),
)  # fmt: skip
REHEARSAL = dataclasses.replace(
    FULL, at_most=400, widths=(8, 16, 16), steps=12, audited=640, shares=(1.0,), samples=96, settle=64, budgets=(64,),
    pictures=12, networks=("efficientnet-lite0@32",),
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One seed at one scale: its model and what stands on it."""

    scale: Scale
    seed: int
    work: Path

    @property
    def model(self) -> Path:
        """The folder of diffusers'."""
        return self.work / f"vae-s{self.seed}"

    def name(self, way: str, share: float = 1.0, budget: int = 0) -> str:
        """Of a run: ``before``, or one of :data:`WAYS` at a share of the audited bits."""
        first = way if way == "before" else f"{way}{share:g}"
        return f"{first}-s{self.seed}" + (f"-base{budget}" if budget else "")

    def audited(self) -> dict[str, float]:
        """What was found of the model, with the minutes of its training."""
        return json.loads((self.work / f"audit-s{self.seed}.json").read_text("utf-8"))

    def jobs(self) -> list[tuple[str, float]]:
        """All ways, with the shares of bits that they hold."""
        return [("before", 1.0), *((way, share) for way in WAYS for share in self.scale.shares)]

    def words(self, way: str, share: float) -> list[str]:
        """Of the command that trains stage 1."""
        scale, found = self.scale, self.audited()
        bits = share * found["bits"]
        if way == "before":  # what λ₀ = 10 lets through more than 5 of latents at the scale they have
            bits = found["bits"] + found["dimensions"] * (FINE - 5.0) / 2 / math.log(2)
        small = f"--data.at-most {scale.at_most} --data.channels {scale.channels} --evaluation.samples 1"
        rest = "--evaluation.step-counts 1 --evaluation.classifier-samples 0 --evaluation.features none"
        length = f"--stage1.samples {scale.samples} --stage1.settle {scale.settle} --seed {self.seed}"
        start = ["--from", str(self.model), "--target-bpp", f"{bits:.6g}", "--evaluation.guidance", "1"]
        chosen = ("--tune", "none", "--autoencoder.lambda-0", f"{FINE:g}") if way == "before" else WAYS[way]
        pictures = f"--evaluation.pictures {2 * scale.pictures}"
        return [scale.data, "--size", "32", *start, *chosen, *f"{small} {rest} {length} {pictures}".split()]

    def run(self) -> None:
        """Train, audit and judge what is missing."""
        make_model(self)
        alone = ["--stage2.samples", "0"]
        train_at_once(self.work, {self.name(*one): [*self.words(*one), *alone] for one in self.jobs()}, 1)
        bases = {}
        for way, share in self.jobs():
            taken = ["--from", str(self.work / self.name(way, share)), "--tune", "none"]
            for budget in self.scale.budgets if way != "kept" else ():
                short = {"samples": budget, "warmup": min(4_000, budget // 6), "ema-halflife": max(1, budget // 10)}
                length = [word for name, value in short.items() for word in (f"--stage2.{name}", f"{value}")]
                bases[self.name(way, share, budget)] = [self.scale.data, *taken, *length, "--seed", f"{self.seed}"]
        train_at_once(self.work, bases, 1)
        for name in bases:
            self._judge(name)

    def _judge(self, name: str) -> None:
        path = self.work / f"{name}.cell.json"
        if path.is_file():
            return
        script, scale = Path(__file__).with_name("headline_cell.py"), self.scale
        words = (str(self.work / name), f"{scale.pictures}", "1", "8", ",".join(scale.networks))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if subprocess.run([sys.executable, str(script), *words], env=environment).returncode:
            raise SystemExit(f"{name} could not be judged: see above")

    def cell(self, name: str) -> dict[str, Any] | None:
        """What ``headline_cell.py`` told of a run, None where it has not been judged."""
        path = self.work / f"{name}.cell.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def results(self, name: str) -> Results | None:
        """Of a finished run, None where there is none."""
        path = self.work / name / "metrics.json"
        return read(path) if path.is_file() else None


def make_model(study: Study) -> None:
    """Train, save and audit the model of diffusers', once."""
    from diffusers import AutoencoderKL

    from unilat.nets import perceptual
    from unilat.studies.audit import audit
    from unilat.types import UserError

    path, scale, folder = study.work / f"audit-s{study.seed}.json", study.scale, study.model
    if path.is_file():
        return
    pictures = load(scale.data, size=32, channels=scale.channels, limit=scale.at_most)
    began = time.monotonic()
    if not (folder / "config.json").is_file():
        torch.manual_seed(study.seed)
        levels = len(scale.widths)
        model = AutoencoderKL(
            in_channels=scale.channels, out_channels=scale.channels, latent_channels=4, norm_num_groups=8,
            block_out_channels=scale.widths, down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels, mid_block_add_attention=False,
        )  # fmt: skip
        try:
            distance = perceptual.load()
        except UserError:
            distance = None
        _train(model, pictures.images[~_held_out(study, len(pictures))], distance, study)
        model.save_pretrained(folder)
    minutes = (time.monotonic() - began) / 60
    found = audit(folder, pictures, out=study.work / f"audit-s{study.seed}", samples=scale.audited, say=print).findings
    one, kept = found.diffusion.bits.per_pixel, found.kept
    assert one is not None and kept is not None
    told = {
        "bits": one.value, "psnr": kept.psnr.value, "faults": len(found.faults), "minutes": minutes,
        "dimensions": 4 * 4.0 ** (1 - len(scale.widths)),
    }  # fmt: skip
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told, indent=1), "utf-8")
    os.replace(part, path)


def _held_out(study: Study, count: int) -> Tensor:
    """Which pictures no run of this seed trains on, so that the model does not either."""
    from unilat.recipe.config import DataConfig, RunConfig
    from unilat.run.parts import read_pictures, split_pictures

    data = DataConfig(source=study.scale.data, channels=study.scale.channels, at_most=study.scale.at_most)
    config = RunConfig(data=data, seed=study.seed)
    test = split_pictures(config, read_pictures(data, study.scale.channels))[2]
    return torch.zeros(count, dtype=torch.bool).index_fill(0, test, True)


def _train(model: Any, train: Tensor, distance: Any, study: Study) -> None:
    """Absolute error, perceptual distance and KL, sums over each picture, one Adam."""
    steps, generator = study.scale.steps, torch.Generator().manual_seed(study.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 100, 2.0 * (1.0 - step / steps))
        x = to_unit(train[batch_indices(len(train), BATCH, study.seed, step)])
        posterior = model.encode(x).latent_dist
        made = model.decode(posterior.sample(generator)).sample
        loss = (made - x).abs().flatten(1).sum(1) + KL_WEIGHT * posterior.kl()
        if distance is not None:
            loss = loss + x[0].numel() * distance(made, x)
        optimiser.zero_grad()
        (loss.mean() / x[0].numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 200 == 0:
            print(f"seed {study.seed}, step {step} of {steps}: loss {float(loss.detach().mean()):.4g}", flush=True)


def _point(studies: Sequence[Study], way: str, share: float, budget: int) -> Point | None:
    """A base model of one budget over the seeds, None where one is missing."""
    names = [study.name(way, share, budget) for study in studies]
    cells = [study.cell(name) for study, name in zip(studies, names, strict=True)]
    runs = [study.results(name) for study, name in zip(studies, names, strict=True)]
    whole = [(cell, run) for cell, run in zip(cells, runs, strict=True) if cell is not None and run is not None]
    if len(whole) < len(studies):
        return None
    network = studies[0].scale.networks[0]
    found = [cell["test"][network]["generation"] for cell, _ in whole]
    flops = mean([run.costs.training_flops["base"] for _, run in whole])
    validation = tuple(cell["validation"][cell["chosen"]]["kernel"] for cell, _ in whole)
    return Point(way, flops, 0.0, validation, tuple(Told(one["kernel"], one["stderr"]) for one in found))


def _work(studies: Sequence[Study]) -> Rows:
    """Base FLOPs before over after, at the nearest distance that both come to."""
    rows, scale = Rows(), studies[0].scale
    points = {
        one: [point for budget in scale.budgets if (point := _point(studies, *one, budget))]
        for one in studies[0].jobs()
        if one[0] != "kept"
    }
    before = points[("before", 1.0)]
    for (way, share), after in points.items():
        what = "before: latents as they are" if way == "before" else f"after: {way} decoder, {share:g} of the bits"
        for one in after:
            each = {f"samples, base of {one.base_flops:.3g} FLOPs": one.test}
            rows += point_rows(what, each)
        if way == "before" or not after or not before:
            continue
        wanted = nearest(curve(after), curve(before))
        found, drawn = ratio(wanted, curve(after), curve(before)), spread(after, before, (0.0, 0.0))
        low, high = drawn[round(0.025 * (len(drawn) - 1))], drawn[round(0.975 * (len(drawn) - 1))]
        text = (
            f"{what}: base FLOPs to equal distance {wanted:.3g}, before over after; 95 % from {low:.3g} to {high:.3g}"
        )
        rows.append(row(text + (f"; {found.bound} this" if found.bound else ""), found.value, "ratio", n=len(studies)))
    return rows


def _decoders(studies: Sequence[Study]) -> Rows:
    """PSNR and distance of reconstructions, the noise that the bits leave, minutes of stage 1."""
    rows, scale = Rows(), studies[0].scale
    for way, share in studies[0].jobs():
        what = "before" if way == "before" else f"{way} decoder, {share:g} of the bits"
        found = [one for study in studies if (one := study.results(study.name(way, share)))]
        taken = [one.start for one in found if one.start is not None]
        seconds = [sum(phase.seconds for phase in one.costs.phases if phase.name == "stage 1") for one in found]
        numbers = {
            ("bits", "bits per pixel"): [one.bits.value for one in found],
            ("PSNR", "dB"): [one.reconstruction.psnr.value for one in found],
            ("PSNR of its own decoder without noise", "dB"): [one.clean.value for one in taken if one.clean],
            ("noise over a latent's deviation", ""): [one.noise for one in taken],
            ("stage 1", "minutes"): [one / 60 for one in seconds],
        }
        for (name, unit), values in numbers.items():
            told = tuple(Told(value, 0.0) for value in values)
            rows += point_rows(what, {name: told}, unit)
        cells = [study.cell(study.name(way, share, scale.budgets[-1])) for study in studies if way != "kept"]
        each = [cell["test"][scale.networks[0]]["reconstruction"] for cell in cells if cell is not None]
        rows += point_rows(what, {"reconstructions": tuple(Told(one["kernel"], one["stderr"]) for one in each)})
    return rows


def rows(work: Path = WORK, seeds: Sequence[int] = (0, 1, 2), scale: Scale = FULL, run: bool = True) -> Rows:
    """All rows of these seeds; what is missing is trained first where ``run``, and left out where not."""
    torch.set_num_threads(1)
    studies = [Study(scale, seed, work) for seed in seeds]
    work.mkdir(parents=True, exist_ok=True)
    if run:
        for study in studies:
            study.run()
    there = [study for study in studies if (work / f"audit-s{study.seed}.json").is_file()]
    if not there:
        return []
    units = {"bits": "bits per pixel", "psnr": "dB", "faults": "faults", "minutes": "minutes"}
    audits = {name: tuple(Told(study.audited()[name], 0.0) for study in there) for name in units}
    told = [one for name, unit in units.items() for one in point_rows("the model, audited", {name: audits[name]}, unit)]
    return [*told, *_decoders(there), *_work(there)]


def main() -> None:
    """Measure, and print the rows; ``ecosystem.py`` writes them with the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    how = parser.parse_args()
    work, scale = (WORK / "rehearsal", REHEARSAL) if how.rehearse else (WORK, FULL)
    seeds = how.seeds[:1] if how.rehearse else how.seeds
    for one in rows(work, seeds, scale, run=not how.report):
        error = "" if one["stderr"] is None else f" ± {one['stderr']:.2g}"
        print(f"{one['what']}: {one['value']:.4g}{error} {one['unit']}")


if __name__ == "__main__":
    main()
