"""The commands that pass pictures through a run: encode, decode, reconstruct, sample."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

import unilat
from unilat.cli.output import Output
from unilat.files import whole
from unilat.models.latents import LatentSet
from unilat.run.folder import RunFolder
from unilat.types import UserError

if TYPE_CHECKING:
    from unilat.cli.commands import Decode, Reconstruct, Sample


def encode(folder: Path, source: str, out: Path, output: Output) -> None:
    """Pictures → latent data set."""
    run = unilat.load(folder)
    latents = run.encode(source)
    latents.save(out)
    bits = latents.bits.double()
    error = float(bits.std()) / math.sqrt(len(bits)) if len(bits) > 1 else None
    pixels = run.pixels
    values = {
        "latents": out,
        "count": len(bits),
        "shape": list(latents.z.shape[1:]),
        "bits_per_picture": {"mean": float(bits.mean()), "stderr": error},
        "bits_per_pixel": {"mean": float(bits.mean()) / pixels, "stderr": None if error is None else error / pixels},
    }
    shape = "×".join(map(str, values["shape"]))
    text = (
        f"{len(bits)} latents of {shape}, {bits.mean():.1f} bits a picture ({bits.mean() / pixels:.4g} a pixel): {out}"
    )
    output.result(values, text)


def decode(options: "Decode", output: Output) -> None:
    """Latent data set → one PNG each."""
    run, out = unilat.load(options.run, decoder=options.decoder), options.out
    images = run.decode(LatentSet.load(options.latents), steps=options.steps, seed=options.seed)
    write_each(images, out)
    output.result({"folder": out, "count": len(images)}, f"{len(images)} pictures: {out}")


def reconstruct(options: "Reconstruct", output: Output) -> None:
    """Pictures → latents → pictures, and how near they came."""
    from unilat.metrics.quality import psnr

    run, out = unilat.load(options.run, decoder=options.decoder), options.out
    originals, _ = run.pictures(options.data)
    images = run.reconstruct(originals, steps=options.steps, seed=options.seed)
    write_each(images, out)
    decibels = psnr(originals, images)
    values = {"folder": out, "count": len(images), "psnr": {"mean": float(decibels.mean()), "unit": "dB"}}
    output.result(values, f"{len(images)} pictures, mean PSNR {decibels.mean():.2f} dB: {out}")


def sample(options: "Sample", output: Output) -> None:
    """New pictures, on one sheet or one PNG each."""
    run = unilat.load(options.run, decoder=options.decoder, base=options.base)
    images, labels = run.sample(
        options.number, label=options.label, guidance=options.guidance, steps=options.steps, seed=options.seed
    )
    if options.out.suffix.lower() == ".png":
        write_sheet(images, options.out)
    else:
        write_each(images, options.out)
    values = {"out": options.out, "count": len(images), "labels": labels.tolist(), "classes": list(run.classes)}
    output.result(values, f"{len(images)} pictures: {options.out}")


def write_each(images: Tensor, folder: Path) -> None:
    """``folder/00000.png`` and so on, in the order of ``images`` uint8 [N, C, H, W].

    Refuses a run folder, and one where pictures of an earlier call would be left among these.
    """
    if RunFolder(folder).config.is_file():
        raise UserError(f"{folder} is a run folder: choose another --out for the pictures")
    left = [path for path in folder.glob("*.png") if path.stem.isdecimal() and int(path.stem) >= len(images)]
    if left:
        raise UserError(
            f"{folder} holds {len(left)} more pictures of an earlier call: empty it, or choose another --out"
        )
    for index, image in enumerate(images):
        _save(_pillow(image), folder / f"{index:05}.png")


def write_sheet(images: Tensor, path: Path) -> None:
    """All of ``images`` uint8 [N, C, H, W] on one picture, as near to a square as they go, white between them."""
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    gap = 2
    sheet = images.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    _save(_pillow(sheet), path)


def _save(picture: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all; raises :class:`UserError` where it cannot."""
    try:
        with whole(path) as part:
            picture.save(part, format="PNG")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def _pillow(image: Tensor) -> Image.Image:
    """One picture uint8 [1 or 3, H, W] for Pillow."""
    array = image.numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))
