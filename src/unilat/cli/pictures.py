"""The commands that pass pictures through a run: encode, decode, reconstruct, sample."""

import math
from pathlib import Path

from torch import Tensor

from unilat.cli import places
from unilat.cli.output import Output
from unilat.metrics.quality import average
from unilat.models.latents import LatentSet
from unilat.run import classes
from unilat.run.given import PictureSet
from unilat.run.making import mismatches
from unilat.run.trained import Run
from unilat.signals.kind import Image as Kind
from unilat.signals.pictures import distinct
from unilat.types import UserError


def encode(run: Run, source: str, out: Path, output: Output) -> None:
    """Pictures → latent data set."""
    places.for_latents(out)
    given = _read(run, source, output)
    latents = run.encode(given)
    latents.save(out)
    bits = latents.bits.double()
    error = average(bits[distinct(given.images)], "", "").stderr
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
    output.result(values | given.counted(), text)


def decode(run: Run, latents: Path, out: Path, output: Output, *, steps: int | None, seed: int) -> None:
    """Latent data set → one PNG each."""
    places.for_pictures(out, run.data.source)
    _tell(run, output)
    made = run.decode(LatentSet.load(latents), steps=steps, seed=seed)
    write_each(made, out)
    output.result({"folder": out, "count": len(made)}, f"{len(made)} pictures: {out}")


def reconstruct(run: Run, source: str, out: Path, output: Output, *, steps: int | None, seed: int) -> None:
    """Pictures → latents → pictures, and how near they came."""
    from unilat.metrics.quality import psnr

    places.for_pictures(out, source, run.data.source)
    given = _read(run, source, output)
    _tell(run, output)
    made = run.reconstruct(given, steps=steps, seed=seed)
    write_each(made, out)
    decibels = psnr(given.images, made.images)
    values = {"folder": out, "count": len(made), "psnr": {"mean": float(decibels.mean()), "unit": "dB"}}
    output.result(values | given.counted(), f"{len(made)} pictures, mean PSNR {decibels.mean():.2f} dB: {out}")


def sample(
    run: Run,
    number: int,
    out: Path,
    output: Output,
    *,
    label: str | None,
    guidance: float | None,
    steps: int | None,
    seed: int,
) -> None:
    """New pictures, on one sheet or one PNG each."""
    sheet = out.suffix.lower() == ".png"
    (places.for_sheet if sheet else places.for_pictures)(out, run.data.source)
    if label is None and classes.told(run.data):
        output.say(classes.told(run.data))
    if label is not None and label.isdecimal():
        named = run.class_number(label)
        output.say(f"--class {label}: class number {named}, named {run.classes[named]}")
    _tell(run, output)
    made = run.sample(number, label=label, guidance=guidance, steps=steps, seed=seed)
    if sheet:
        write_sheet(made.images, out)
    else:
        write_each(made, out)
    values = {"out": out, "count": len(made), "labels": made.labels.tolist(), "classes": list(made.classes)}
    output.result(values, f"{len(made)} pictures: {out}")


def _tell(run: Run, output: Output) -> None:
    """Where a distilled network keeps other settings than the run has."""
    for line in mismatches(run):
        output.say(line)


def _read(run: Run, source: str, output: Output) -> PictureSet:
    """The pictures; what was skipped and converted is said."""
    given = run.read(source)
    for line in given.lines():
        output.say(line)
    return given


def write_each(pictures: PictureSet, folder: Path) -> None:
    """``folder/00003-cat.png`` and so on, named after the source files or the classes.

    Refuses what :func:`places.for_pictures` does, and a folder where pictures of an earlier call would be left among
    these.
    """
    places.for_pictures(folder)
    names = pictures.file_names()
    if left := places.left_of_before(folder, names):
        raise UserError(
            f"{folder} holds {len(left)} more pictures of an earlier call: empty it, or choose another `out`"
        )
    for name, picture in zip(names, pictures, strict=True):
        Kind.save(picture.image, folder / name)


def write_sheet(images: Tensor, path: Path) -> None:
    """All of ``images`` uint8 [N, C, H, W] on one picture, as near to a square as they go, white between them."""
    places.for_sheet(path)
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    gap = 2
    sheet = images.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    Kind.save(sheet, path)
