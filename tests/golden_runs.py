"""Three small runs whose every number is written down, so that a rebuild can prove that it changed nothing.

``make golden`` writes ``tests/golden/*.json`` again. Do so only where a change of numbers is meant, alone in its
commit, and say in its message which and why. Each file holds the kind of machine it was made on, every step of every
stage, all of metrics.json but times and memory, every text of the report, and the SHA-256 of each of its drawings and
of the weights. On that kind of machine all must be equal to the last bit; elsewhere numbers may differ in their last
digits (:data:`ELSEWHERE`), and drawings and weights are not compared.
"""

import contextlib
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unilat.files import digest, read_json, read_safetensors
from unilat.recipe import presets
from unilat.recipe.config import RunConfig
from unilat.report import page
from unilat.results import Results
from unilat.run import train as run
from unilat.run.distill import DistillConfig, distill
from unilat.run.evaluate import evaluate
from unilat.run.records import Note
from unilat.training.fast import Choices
from unilat.training.records import Step

FOLDER = Path(__file__).parent / "golden"
STEPS, BATCH = 20, 16
ELSEWHERE = 2e-3
"""Largest relative difference on another kind of machine; AVX2 in place of AVX-512 makes 1.4e-4 at the most."""
ON_A_GPU = 5e-2
"""The same for a GPU: twenty steps of Muon let rounding grow to 2.8e-2 of a gradient's norm (H100)."""
PLAIN = Choices(precision="float32", compile="off", capture="off", noise="cpu")
"""On a GPU too the plain path, on the noise that a CPU draws: so that one file serves both."""
CLOCKS = ("phases", "seconds", "peak_memory_mib")


def kind() -> dict[str, str]:
    """What decides the last bits: torch, the processor's family and what torch uses of it; threads are always one."""
    path = Path("/proc/cpuinfo")
    facts = dict(re.findall(r"^(vendor_id|cpu family)\s*: (.*)$", path.read_text(), re.M)) if path.is_file() else {}
    return {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(), **facts}


def shapes(count: int, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 ``[count, 16, 16, channels]``, a box on a slope of grey whose height and place its class decides."""
    random = np.random.Generator(np.random.PCG64(7))
    pictures = (4 * np.arange(16)[:, None, None] + random.integers(0, 60, (count, 16, 16, channels))).astype(np.uint8)
    labels = np.arange(count) % max(1, classes)
    for picture, label in zip(pictures, labels, strict=True):
        row, column, width = random.integers(1, 8, 3)
        picture[row : row + 2 + label % 5, column : column + 2 + width] = random.integers(100, 256, channels)
        picture[13:, : 1 + label] //= 3
    return pictures, labels


def _config(source: Path, **changed: Any) -> RunConfig:
    """The preset tiny at :data:`STEPS` steps a stage, the prior's settling too, with calibrations in the middle."""
    config = presets.get("tiny")
    samples = STEPS * BATCH
    usual: dict[str, Any] = {
        "data": replace(config.data, source=source.name, calibration=12),
        "stage1": replace(config.stage1, samples=samples, batch=BATCH, warmup=32, ema_halflife=16,
                          calibrate_every=96, follow_every=64, settle=STEPS * 64),
        "stage2": replace(config.stage2, samples=samples, batch=BATCH, warmup=32, ema_halflife=32),
        "evaluation": replace(config.evaluation, pictures=11, samples=13, rate_levels=3, step_counts=(1, 3)),
        "seed": 5,
    }  # fmt: skip
    return replace(config, **usual | changed)


def numbers(results: Results | None) -> dict[str, Any]:
    """What ``metrics.json`` holds."""
    assert results is not None
    return results.to_json()


def grey(folder: Path, tell: Callable[[Step | Note], None]) -> dict[str, Any]:
    """Grey pictures in ten classes, with distances and a classifier."""
    images, labels = shapes(150, 1, 10)
    np.savez(folder / "grey.npz", images=images, labels=labels)
    config = _config(folder / "grey.npz")
    measured = replace(config.evaluation, features="efficientnet-lite0@64", classifier_samples=640)
    return numbers(run.train(replace(config, evaluation=measured), folder / "run", tell, choices=PLAIN))


def colour(folder: Path, tell: Callable[[Step | Note], None]) -> dict[str, Any]:
    """Colour pictures without classes; the prior on the latents' covariance, tokens dropped in stage 2."""
    np.savez(folder / "colour.npz", images=shapes(140, 3, 0)[0])
    config = _config(folder / "colour.npz")
    networks = replace(config.autoencoder, covariance_up_to=1024)
    base = replace(config.base, token_dropping=0.25, vit=replace(config.base.vit, blocks=(2, 3)))
    return numbers(run.train(replace(config, autoencoder=networks, base=base), folder / "run", tell, choices=PLAIN))


def variance(folder: Path, tell: Callable[[Step | Note], None]) -> dict[str, Any]:
    """A learned variance in colour with classes, levels learned in stage 2, and a decoder distilled to one call."""
    images, labels = shapes(130, 3, 3)
    np.savez(folder / "variance.npz", images=images, labels=labels)
    config = _config(folder / "variance.npz")
    networks = replace(config.autoencoder, learned_variance=True)
    stage2 = replace(config.stage2, levels="learned", optimizer="muon")
    metrics = numbers(
        run.train(replace(config, autoencoder=networks, stage2=stage2), folder / "run", tell, choices=PLAIN)
    )
    student = DistillConfig(steps=1, teacher_steps=4, samples=STEPS * BATCH, batch=BATCH, seed=5)
    distill(folder / "run", student, tell, choices=PLAIN)
    return metrics | {"fast": evaluate(run.load(folder / "run", decoder="fast")).to_json()}


RUNS = {"grey": grey, "colour": colour, "variance": variance}


def without_clocks(tree: Any) -> Any:
    """A tree of JSON without what the clock and the memory say."""
    if isinstance(tree, dict):
        return {name: without_clocks(value) for name, value in tree.items() if name not in CLOCKS}
    return [without_clocks(value) for value in tree] if isinstance(tree, list | tuple) else tree


def drawings(html: str) -> dict[str, str]:
    """SHA-256 of each section of a report, drawings and all; costs and origin tell of the machine and are left out."""
    found = re.findall(r'<section id="(\w+)">(.*?)</section>', html, re.S)
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in found if name not in ("costs", "origin")}


def texts(html: str) -> list[str]:
    """What stands to be read in a report, sections as :func:`drawings` takes them."""
    lines = []
    for name, text in re.findall(r'<section id="(\w+)">(.*?)</section>', html, re.S):
        if name not in ("costs", "origin"):
            lines += [line.strip() for line in re.sub(r"<[^>]*>", "\n", text).split("\n") if line.strip()]
    return lines


def made(name: str) -> dict[str, Any]:
    """Make the run ``name`` in a folder that goes again, on one thread, and return all that is written down of it."""
    steps: list[dict[str, Any]] = []

    def tell(told: Step | Note) -> None:
        if isinstance(told, Step):
            steps.append({"stage": told.stage, "step": told.step, **told.metrics})

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        folder = Path()
        metrics = RUNS[name](folder, tell)
        here = f"{Path.cwd()}/"  # where the pictures lie is told from the root on, and another place each time
        html = page.page(page.read(folder / "run")).replace(here, "")
        weights = {
            path.name: digest(read_safetensors(path)[0]) for path in sorted((folder / "run").rglob("*.safetensors"))
        }
        data = read_json(folder / "run" / "data.json")
    torch.set_num_threads(threads)
    tree = {"kind": kind(), "steps": steps, "metrics": without_clocks(metrics), "data": data}
    text = json.dumps(tree | {"report": texts(html), "drawings": drawings(html), "weights": weights})
    return json.loads(text.replace(here, ""))


def main() -> int:
    """Write all files again."""
    for name in RUNS:
        text = json.dumps(made(name), indent=1, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"tests/golden/{name}.json: {len(text):,} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
