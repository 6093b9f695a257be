"""The whole codelength of held-out pictures: latent bits + decoder bits, beside a pixel model and lossless files.

    make bench-codelength                              Fashion-MNIST, about half an hour on one thread
    python benchmarks/codelength.py glyphs             another data set; goes on where it stopped

Everything lies in runs/bench-codelength/. JPEG XL is measured where pillow-jxl-plugin is installed.
"""

import argparse
import contextlib
import importlib.util
import io
import math
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import ROOT, row, unilat, write
from PIL import Image
from torch import Tensor

from unilat.metrics.quality import average
from unilat.run.evaluate import held_out, own_pictures
from unilat.run.trained import Run, load
from unilat.studies.codelength import LAMBDA_MAX, bits_each, train_pixels
from unilat.studies.pixels import PixelDenoiser
from unilat.training.plan import Schedule

WORK = ROOT / "runs" / "bench-codelength"
STAGE1, FURTHER, PICTURES = 24_000, 16_000, 500
Rows = list[dict[str, Any]]
UNIT = "bits per dimension"
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {"optimize": True}),
    "WebP lossless": ("WEBP", {"lossless": True, "quality": 100, "method": 6}),
    "JPEG XL lossless": ("JXL", {"lossless": True, "effort": 9}),
}


def schedule(samples: int) -> Schedule:
    """Both models learn by the same rule."""
    return Schedule(
        batch=32,
        samples=samples,
        learning_rate=1.5e-3,
        optimizer="muon",
        warmup=2000,
        decay=0.5,
        ema_halflife=2000,
        clip=1.0,
        log_every=25,
    )


def trained(data: str) -> Run:
    """Stage 1 at 0.3 bits per pixel, by the command line."""
    folder = WORK / data
    words = ("--bpp", "0.3", "--stage1.samples", str(STAGE1), "--stage2.samples", "0", "--out", str(folder))
    words += ("--evaluation.features", "none", "--evaluation.classifier-samples", "0")
    if not (folder / "report.html").is_file():
        code = unilat("train", data, *words, threads=1, log=WORK / f"{data}.log").wait()
        if code:
            raise SystemExit(f"{data} ended with {code}: see {WORK / data}.log")
    return load(folder)


def image(picture: Tensor) -> Image.Image:
    """One picture uint8 [1 or 3, H, W] for Pillow."""
    array = picture.numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def sheet(pictures: Tensor) -> Tensor:
    """All pictures edge to edge on one, 25 in a row."""
    count, channels, height, width = pictures.shape
    rows = count // 25
    tiled = pictures[: rows * 25].view(rows, 25, channels, height, width)
    return tiled.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, 25 * width).contiguous()


def file_bits(picture: Tensor, kind: str, options: dict[str, Any]) -> int:
    """Bits of the file, after it was read back and found equal."""
    buffer = io.BytesIO()
    image(picture).save(buffer, kind, **options)
    with Image.open(buffer) as found:
        again = found.convert("L" if len(picture) == 1 else "RGB")
        assert again.tobytes() == image(picture).tobytes(), f"{kind} lost something"
    return 8 * buffer.getbuffer().nbytes


def codecs(data: str, pictures: Tensor) -> Rows:
    """Each lossless format file by file and as one sheet."""
    rows, dimensions = [], pictures[0].numel()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")
    for name, (kind, options) in FORMATS.items():
        if kind not in Image.registered_extensions().values() and kind == "JXL":
            continue
        each = torch.tensor([file_bits(one, kind, options) for one in pictures], dtype=torch.float64) / dimensions
        error = float(each.std()) / math.sqrt(len(each))
        what = f"{data}: {name}, file by file (headers included)"
        rows.append(row(what, float(each.mean()), UNIT, stderr=error, n=len(each)))
        tiled = sheet(pictures)
        whole = file_bits(tiled, kind, options) / tiled.numel()
        rows.append(row(f"{data}: {name}, one sheet of all pictures", whole, UNIT, n=tiled.numel() // dimensions))
    return rows


def measured(name: str, found: dict[str, Tensor]) -> Rows:
    """The parts and the total of one model."""
    rows = {part: average(bits, UNIT, "") for part, bits in found.items()}
    return [row(f"{name}, {part}", one.value, UNIT, stderr=one.stderr, n=one.n) for part, one in rows.items()]


def one_set(data: str) -> Rows:
    """Train, train on with weight 1, and measure on the same held-out pictures as the codecs."""
    run = trained(data)
    pictures = own_pictures(run)
    train, _, _ = run.split(pictures)
    test, _ = held_out(run, pictures)
    test = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:PICTURES]]
    images, folder = pictures.images[train], WORK / f"{data}-pixels"
    as_it_is = PixelDenoiser(run.config.autoencoder, images.shape[1], run.autoencoder.decoder.mean.flatten(),
                             run.autoencoder.decoder.std.flatten())  # fmt: skip
    as_it_is.continue_from(run.autoencoder.decoder)
    rows = measured(f"{data}: latent + the run's decoder as it is", bits_each(run, test, as_it_is.eval()))
    print("with a latent", flush=True)
    with_latent = train_pixels(run, images, folder, schedule(FURTHER))
    both = bits_each(run, test, with_latent)
    rows += measured(f"{data}: latent + decoder trained on with weight 1", both)
    print("without", flush=True)
    without = train_pixels(run, images, folder, schedule(STAGE1 + FURTHER), latent=False)
    alone = bits_each(run, test, without, latent=False)
    rows += measured(f"{data}: pixel model of equal size and training, no latent", alone)
    gap = {name: both[name] - alone[name] for name in ("total", "decoder")}
    rows += measured(f"{data}: with the latent less without it, picture by picture", gap)
    return rows + codecs(data, test)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["fashion-mnist"])
    torch.set_num_threads(1)
    rows = [one for data in parser.parse_args().sets for one in one_set(data)]
    plugin = importlib.util.find_spec("pillow_jxl")
    protocol = (
        f"Upper bounds on -log2 p(x) of {PICTURES} held-out pictures of 32×32, 8 noise levels each, λ from -10 to "
        f"{LAMBDA_MAX:g}, bits over C·H·W numbers. Stage 1: {STAGE1:,} pictures at 0.3 bits per pixel; its decoder "
        f"trained on with weight 1 for {FURTHER:,}, the encoder and the prior frozen; the pixel model, the same "
        f"network fed zeros for the latent, for {STAGE1 + FURTHER:,}. Bounds are no files: no coder was run. "
        "Fashion-MNIST is padded from 28 to 32 by black, which every row sees. Files: Pillow, decoded and compared; "
        f"WebP stores grey as colour{'; JPEG XL by pillow-jxl-plugin' if plugin else ''}. "
        f"Sheet: 25 pictures in a row, edge to edge."
    )
    print(write("codelength", protocol, rows))


if __name__ == "__main__":
    main()
