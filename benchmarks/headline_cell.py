"""One finished run of ``headline.py``, judged: ``python headline_cell.py RUN PICTURES GUIDANCE,… STEPS,… NETWORK,…``.

Its held-out pictures are dealt, always alike, into a validation part and a test part of PICTURES each. Of every pair of
guidance and calls of the base model, samples are held against the validation part; of the pair that is nearest there,
by the first NETWORK, other samples are held against the test part. ``RUN.cell.json`` tells both.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unilat.metrics.distances import compare
from unilat.metrics.features import FeatureNetwork, feature_network
from unilat.metrics.quality import psnr
from unilat.results import Distance
from unilat.run.evaluate import held_out
from unilat.run.trained import Run, load

VALIDATION, TEST = 1, 2
"""Seeds of the samples of either part."""


@dataclass(frozen=True)
class Words:
    """What was asked for."""

    run: Path
    pictures: int
    guidance: tuple[float, ...]
    steps: tuple[int, ...]
    networks: tuple[str, ...]


def parts(count: int, pictures: int) -> tuple[Tensor, Tensor]:
    """Indices of the validation and the test part: disjoint, as many as there are where ``pictures`` are too many."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(20_251_126))
    half = min(pictures, count // 2)
    return order[:half], order[half : 2 * half]


def numbers(found: Distance) -> dict[str, float | None]:
    """Kernel distance with its jackknife error, precision and recall."""
    shares = {name: getattr(found, name) for name in ("precision", "recall")}
    told = {name: None if one is None else one.value for name, one in shares.items()}
    return {"kernel": found.kernel.value, "stderr": found.kernel.stderr, **told}


def judge(run: Run, words: Words, networks: dict[str, FeatureNetwork]) -> dict[str, object]:
    """What ``RUN.cell.json`` holds."""
    images = held_out(run)[0]
    validation, test = (images[rows] for rows in parts(len(images), words.pictures))
    first, *_ = networks
    real = networks[first](validation)

    def made(guidance: float, steps: int, seed: int) -> Tensor:
        asked = guidance if run.classes else None
        return run.sample(len(validation), guidance=asked, steps=steps, seed=seed).images

    tried = {
        f"{guidance:g}x{steps}": compare(real, networks[first](made(guidance, steps, VALIDATION)), protocol="")
        for guidance in words.guidance
        for steps in words.steps
    }
    best = min(tried, key=lambda one: tried[one].kernel.value)
    guidance, steps = best.split("x")
    samples, back = made(float(guidance), int(steps), TEST), run.reconstruct(test).images
    told: dict[str, object] = {}
    for name, network in networks.items():
        truth = network(test)
        told[name] = {
            "generation": numbers(compare(truth, network(samples), protocol="")),
            "reconstruction": numbers(compare(truth, network(back), protocol="")),
        }
    return {
        "pictures": len(test),
        "chosen": best,
        "validation": {what: numbers(found) for what, found in tried.items()},
        "test": told,
        "psnr": float(psnr(test, back).mean()),
    }


def main(arguments: list[str]) -> None:
    """Judge one run; what is written is whole or not at all."""
    run, pictures, guidance, steps, networks = arguments
    words = Words(
        Path(run),
        int(pictures),
        tuple(map(float, guidance.split(","))),
        tuple(map(int, steps.split(","))),
        tuple(networks.split(",")),
    )
    torch.set_num_threads(1)
    known = {name: network for name in words.networks if (network := feature_network(name)) is not None}
    found = judge(load(words.run, device="cpu"), words, known)
    path = Path(f"{words.run}.cell.json")
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1), "utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    main(sys.argv[1:])
