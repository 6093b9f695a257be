"""A small run in memory whose every number differs from every other, so that a swap is seen: colour, not square."""

import math
from typing import Any

import torch
from torch import Tensor

from unilat.report.folder import Contents
from unilat.report.folder import logged as log_row
from unilat.results import Bits, Classifier, Costs, Distance, Number, Phase, Reconstruction, Results

HEIGHT, WIDTH, ROWS, COLUMNS = 12, 18, 2, 3
"""Of a picture in pixels, and of the latent's grid in positions."""
CLASSES = ("red", "green", "blue")


def _number(value: float, stderr: float | None = None, n: int | None = None, protocol: str = "") -> Number:
    return Number(value=value, stderr=stderr, n=n, protocol=protocol)


def _steps(steps: int, psnr: float, ssim: float, kernel: float) -> Reconstruction:
    near = Distance(kernel=_number(kernel), frechet64=_number(math.nan))
    return Reconstruction(steps=steps, psnr=_number(psnr), ssim=_number(ssim), distance=near)


RESULTS = Results(
    pictures="",
    features=None,
    bits=Bits(target=0.42, measured=_number(0.4368, 0.0031, 811)),
    reconstruction=Reconstruction(
        steps=5,
        psnr=_number(23.4567, 0.0412, 812),
        ssim=_number(0.87654, 0.0023, 813),
        distance=Distance(
            kernel=_number(0.0345, 0.0061, 814),
            frechet64=_number(2.3456, None, 815),
            precision=_number(0.9123, 0.0123, 817),
            recall=_number(0.8234, 0.0234, 818),
        ),
    ),
    other_steps=(_steps(2, 25.12, 0.8901, 0.0711), _steps(10, 22.08, 0.8602, 0.0398)),
    generation=Distance(
        kernel=_number(0.1278, 0.0053, 816),
        frechet64=_number(math.nan, None, 90),
        reason="needs at least 128 pictures",
        precision=_number(0.6345, 0.0345, 819),
        recall=_number(0.4456, 0.0456, 820),
    ),
    classifier=Classifier(samples=_number(0.7531, 0.0172), real=_number(0.9142, 0.0064)),
    costs=Costs(
        parameters={"encoder": 11_001, "prior": 22_002, "decoder": 33_003, "base": 44_004},
        training_flops={"encoder": 1.5e12, "prior": 2.5e13, "decoder": 3.5e14, "base": 4.5e11},
        phases=(
            Phase(name="data", seconds=30.0, peak_memory_mib=200.0),
            Phase(name="stage 1", seconds=600.0, peak_memory_mib=1024.0),
            Phase(name="stage 2", seconds=150.0, peak_memory_mib=2560.0),
            Phase(name="evaluation", seconds=75.0, peak_memory_mib=900.0),
        ),
    ),
)
RATES = (2.10, 0.30, 0.47, 0.41, 0.43, 0.39, 0.44, 0.38, 0.45, 0.42, 0.395, 0.415)
FACTORS = (10.0, 12.0, 11.0, 9.0, 8.0, 7.0, 6.5, 6.0, 5.5, 5.2, 5.1, 5.0)
DECODER = (90.0, 60.0, 50.0, 45.0, 40.0, 38.0, 36.0, 35.0, 34.0, 33.0, 32.0, 31.0)
TOTAL = (2.0, 1.6, 1.5, 1.3, 1.2, 1.15, 1.1, 1.05, 1.02, 1.0, 0.98, 0.97)
PRIOR = (0.71, 0.66, 0.61, 0.58)
BASE = (9.0, 3.0, 1.5, 0.9, 0.7)
CALIBRATION = {600: 0.52, 1200: 0.36}


def log() -> list[dict[str, Any]]:
    """Twelve steps of stage 1, four of the prior alone, five of stage 2, each of other counts."""
    steps = zip(RATES, FACTORS, DECODER, TOTAL, strict=True)
    rows: list[dict[str, Any]] = []
    for index, (bpp, factor, decoder, total) in enumerate(steps, 1):
        row = {"stage": "stage1", "samples": 100 * index, "bpp": bpp, "target": 0.40, "loss_factor": factor}
        rows.append({**row, "step": index, "seconds": 7.0 * index, "decoder": decoder, "loss": total})
        if 100 * index in CALIBRATION:
            rows[-1]["calibration_bpp"] = CALIBRATION[100 * index]
    rows += [{"stage": "prior", "step": n, "samples": 70 * n, "loss": loss} for n, loss in enumerate(PRIOR, 1)]
    return rows + [{"stage": "stage2", "step": n, "samples": 300 * n, "loss": loss} for n, loss in enumerate(BASE, 1)]


def logged(values: tuple[float, ...], step: int = 100) -> list[tuple[float, float]]:
    """``(samples seen, value)`` of the known run's log."""
    return [(float(step * index), value) for index, value in enumerate(values, 1)]


def flat(value: int, count: int = 4) -> Tensor:
    """``count`` pictures that differ by one step of brightness, from ``value`` on, ``[count, 3, H, W]``."""
    shades = torch.arange(value, value + count, dtype=torch.uint8)
    return shades[:, None, None, None].expand(-1, 3, HEIGHT, WIDTH).contiguous()


def coloured(labels: Tensor) -> Tensor:
    """Pictures whose class is their colour, red, green or blue, and whose place is their brightness."""
    made = torch.zeros(len(labels), 3, HEIGHT, WIDTH, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        made[index, label] = 100 + index
    return made


def arrays() -> dict[str, Tensor]:
    """White originals, so that a map's colours are plain; uneven noise levels; a map whose every cell differs."""
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 0])
    maps = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]) * torch.tensor([1.0, 4.0, 2.0])[:, None, None]
    return {
        "originals": torch.full((3, 3, HEIGHT, WIDTH), 255, dtype=torch.uint8),
        "reconstructions_2": flat(20),
        "reconstructions_5": flat(50),
        "reconstructions_10": flat(110),
        "bit_maps": maps,
        "bits_each": maps.flatten(1).sum(1),
        "bit_map": torch.tensor([[3.0, 30.0, 6.0], [9.0, 12.0, 15.0]]),
        "channel_bits": torch.tensor([12.5, 40.0, 7.5, 60.0]),
        "curve_edges": torch.tensor([-10.0, -6.0, -4.0, 1.0, 5.0]),
        "curve_bits": torch.tensor([2.0, 6.0, 10.0, 12.0]),
        "terminal_bits": torch.tensor([0.34]),
        "samples": coloured(labels),
        "sample_labels": labels,
    }


def contents(**changes: Any) -> Contents:
    """The run as its folder is read; a name replaces a whole file."""
    known: dict[str, Any] = {
        "name": "known",
        "config": {"stage1": {"target_bpp": 0.42}, "seed": 3},
        "manifest": {
            "unilat": "0.2.0",
            "torch": "2.13.0",
            "python": "3.11.7",
            "threads": 4,
            "date": "2026-11-23T05:00",
        },
        "data": {"source": "colours", "train": 7003, "test": 811, "size": 20, "classes": list(CLASSES)},
        "results": RESULTS,
        "log": log(),
        "arrays": arrays(),
        "finished": (True, True),
    }
    known |= changes
    return Contents(**known | {"log": [log_row(row) for row in known["log"]]})
