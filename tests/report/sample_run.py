"""A run folder as a finished run leaves it, made up in a tenth of a second: real letters, invented numbers."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch import Tensor

from unilat.results import Bits, Classifier, Costs, Distance, Making, Number, Phase, Reconstruction, Results

SIDE, GRID, CHANNELS = 32, 8, 6
CLASSES = ("Sans", "Sans Bold", "Serif", "Serif Italic", "Mono", "Mono Bold")
LETTERS = "gRsÄ8жΩkQ&ßyM5aЮ"


def letters(count: int, seed: int = 0) -> Tensor:
    """Dark letters on white, uint8 ``[count, 1, 32, 32]``."""
    faces = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono")
    fonts = [ImageFont.truetype(font_manager.findfont(name), 24) for name in faces]
    rows = []
    for index in range(count):
        image = Image.new("L", (SIDE, SIDE), 255)
        letter = LETTERS[(index * 7 + seed) % len(LETTERS)]
        ImageDraw.Draw(image).text((16, 17), letter, font=fonts[(index + seed) % 3], fill=0, anchor="mm")
        rows.append(torch.tensor(list(image.tobytes()), dtype=torch.uint8).view(1, SIDE, SIDE))
    return torch.stack(rows)


def blurred(pictures: Tensor, sigma: float, noise: float, seed: int) -> Tensor:
    """What a decoder with few bits makes of them."""
    place = torch.arange(-3.0, 4.0)
    kernel = torch.exp(-0.5 * (place / sigma).square())
    window = (kernel[:, None] * kernel / kernel.sum() ** 2)[None, None]
    flat = pictures.float().flatten(0, 1)[:, None]
    smooth = torch.nn.functional.conv2d(torch.nn.functional.pad(flat, (3, 3, 3, 3), mode="replicate"), window)
    grain = noise * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(seed))
    return (smooth + grain).clamp(0, 255).to(torch.uint8).view_as(pictures)


def log(wanted: float) -> list[dict[str, Any]]:
    """Both stages' logged steps."""
    generator = torch.Generator().manual_seed(5)
    rows: list[dict[str, Any]] = []
    for step in range(20, 3901, 20):
        noise = float(torch.randn((), generator=generator))
        seen = step * 64
        rate = (
            wanted
            * (1 + 5 * math.exp(-seen / 4000) - 0.9 * math.exp(-(((seen - 15000) / 9000) ** 2)))
            * (1 + 0.04 * noise)
        )
        row = {
            "stage": "stage1",
            "step": step,
            "samples": seen,
            "seconds": step * 0.1,
            "loss": 0.02 + 0.3 * math.exp(-seen / 60000) + 0.01 * abs(noise),
            "bpp": rate,
            "target": wanted,
            "loss_factor": 10 * math.exp(1.1 * math.tanh(seen / 60000) + 0.05 * noise),
            "decoder": 30 + 400 * math.exp(-seen / 12000) + 3 * noise,
        }
        if step % 260 == 0:
            row["calibration_bpp"] = wanted * (1 + 0.3 * math.exp(-seen / 50000) * (-1) ** (step // 260))
        rows.append(row)
    for step in range(20, 3001, 20):
        loss = 0.31 + 0.5 * math.exp(-step / 500) + 0.01 * float(torch.randn((), generator=generator))
        rows.append({"stage": "stage2", "step": step, "samples": step * 128, "seconds": step * 0.05, "loss": loss})
    return rows


FEATURES = "features: 1,280 of efficientnet-lite0 (ImageNet; weights sha256 579344248a93…), bicubic resize to 128×128"


def distance(value: float) -> Distance:
    """Both distances with their protocols."""
    return Distance(
        kernel=Number(value=value, stderr=0.0021, n=901, protocol=f"kernel distance, 901 against 901; {FEATURES}"),
        frechet64=Number(value=61 * value, n=901, protocol=f"Fréchet distance, 64; {FEATURES}"),
        components=64,
        precision=Number(value=0.9 - value, stderr=0.011, n=901, protocol=f"precision, 901 against 901; {FEATURES}"),
        recall=Number(value=0.8 - value, stderr=0.013, n=901, protocol=f"recall, 901 against 901; {FEATURES}"),
    )


def reconstruction(
    steps: int, psnr: float, ssim: float, kernel: float, errors: tuple[float, float] = (0.07, 0.002)
) -> Reconstruction:
    """One number of decoder calls."""
    return Reconstruction(
        steps=steps,
        psnr=Number(value=psnr, stderr=errors[0], n=901, unit="dB", protocol="peak 255, mean of decibels"),
        ssim=Number(value=ssim, stderr=errors[1], n=901, protocol="window of 11"),
        distance=distance(kernel),
    )


def results(target: float | None) -> Results:
    """What was measured."""
    judge = "small convolutional network trained on 8,104 real pictures in 6 classes"
    phases = (
        ("data", 6.2, 402.0),
        ("stage 1", 391.7, 1311.5),
        ("latents", 4.1, 690.0),
        ("stage 2", 182.0, 884.2),
        ("evaluation", 71.3, 1502.0),
    )
    return Results(
        pictures="held out of glyphs, never trained on",
        features=FEATURES,
        bits=Bits(
            target=target,
            measured=Number(
                value=0.30119,
                stderr=0.00212,
                n=901,
                unit="bits per pixel",
                protocol="a bound, 8 noise levels a picture",
            ),
        ),
        reconstruction=reconstruction(8, 19.8431, 0.8917, 0.0234, (0.0713, 0.0017)),
        other_steps=(
            reconstruction(1, 21.417, 0.9021, 0.0911),
            reconstruction(4, 20.335, 0.8954, 0.0402),
            reconstruction(20, 19.377, 0.8871, 0.0207),
        ),
        generation=distance(0.0817),
        classifier=Classifier(
            samples=Number(value=0.8711, stderr=0.0149, n=512, protocol=judge),
            real=Number(value=0.9412, stderr=0.0078, n=613, protocol=judge),
        ),
        costs=Costs(
            parameters={"encoder": 412_336, "prior": 812_004, "decoder": 1_204_113, "base": 1_630_212},
            training_flops={"encoder": 3.1e13, "prior": 4.04e13, "decoder": 1.27e14, "base": 1.9e14},
            phases=tuple(Phase(name=name, seconds=time, peak_memory_mib=peak) for name, time, peak in phases),
        ),
        making=Making(
            decoder="full",
            decoder_steps=8,
            decoder_range=(-6.0, 3.0),
            decoder_temperature=0.2,
            base="full",
            base_steps=9,
            guidance=1.5,
        ),
    )


def metrics(target: float | None) -> dict[str, Any]:
    """The tree of metrics.json."""
    return json.loads(json.dumps(results(target).to_json()))


def arrays(classes: int = len(CLASSES)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    originals, fresh = letters(8), letters(64, seed=3)
    edges = torch.linspace(-10.0, 5.0, 31)
    middle = (edges[1:] + edges[:-1]) / 2
    shape = torch.sigmoid(middle + 1) * torch.exp(-0.5 * ((middle - 2.2) / 2.4).square()) + 0.03 * torch.sigmoid(
        middle + 5
    )
    contrast = torch.nn.functional.avg_pool2d(originals.float().var(1, correction=0) * 0 + originals.float().mean(1), 4)
    spread = torch.nn.functional.avg_pool2d(originals.float().mean(1).square(), 4) - contrast.square()
    maps = 1.4 + 14.0 * (spread.clamp(min=0).sqrt() / 128) + 0.5 * torch.rand(8, GRID, GRID, generator=generator)
    found = {
        "originals": originals,
        "samples": blurred(fresh, 0.75, 9, 2),
        "sample_labels": torch.arange(64) % classes,
        "bit_maps": maps,
        "bits_each": maps.flatten(1).sum(1),
        "bit_map": maps.mean(0),
        "curve_edges": edges,
        "curve_bits": shape / shape.sum() * 308.1,
        "terminal_bits": torch.tensor([0.34]),
        "channel_bits": torch.tensor([101.0, 82.5, 60.2, 41.0, 18.3, 5.4]),
    }
    for steps, sigma, noise in ((1, 1.15, 0.0), (4, 0.95, 4.0), (8, 0.8, 7.0), (20, 0.7, 9.0)):
        found[f"reconstructions_{steps}"] = blurred(originals, sigma, noise, steps)
    return found


CONFIG = {
    "data": {"source": "glyphs", "size": 32, "channels": 1},
    "autoencoder": {"latent_channels": 6, "lambda_0": 5.0, "lambda_min": -10.0},
    "stage1": {"target_bpp": 0.3, "samples": 250000, "batch": 64},
    "stage2": {"samples": 400000, "batch": 128},
    "seed": 0,
}
DATA = {
    "source": "glyphs",
    "count": 9005,
    "train": 8104,
    "test": 901,
    "classes": list(CLASSES),
    "size": SIDE,
    "channels": 1,
    "sha256": "5d41402abc4b2a76b9719d911017c592" * 2,
    "skipped": 3,
    "converted": {"palette": 2},
}
MANIFEST = {
    "unilat": "0.1.0",
    "torch": "2.13.0+cpu",
    "python": "3.11.7",
    "threads": 2,
    "cpu": "Intel(R) Xeon(R) Processor",
    "date": "2026-11-22T01:50:00+00:00",
    "commit": "d62f5fb0c3a1",
}


def write(folder: Path, *, wanted: float | None = 0.3, data: dict[str, Any] | None = None) -> Path:
    """Write the whole run folder; tests then take away or spoil what they want to."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, "stage1": {**CONFIG["stage1"], "target_bpp": wanted}}
    for name, tree in (
        ("config", config),
        ("manifest", MANIFEST),
        ("data", data or DATA),
        ("metrics", metrics(wanted)),
    ):
        (folder / f"{name}.json").write_text(json.dumps(tree), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in log(wanted or 0.3))
    (folder / "log.jsonl").write_text(lines, encoding="utf-8")
    save_file(arrays(len((data or DATA)["classes"]) or 1), folder / "evaluation.safetensors")
    for name in ("autoencoder", "base"):
        save_file({"weight": torch.zeros(1)}, folder / f"{name}.safetensors")
    return folder
