"""Latents of a run as other people's training reads them: safetensors shards or .npy, with the numbers to scale by.

    latents-00000.safetensors …    latents [n, C, h, w] float32, labels [n] int64, bits [n]; std beside them where the
                                   encoder learned a variance
    latents.npy labels.npy …       the same in one array each
    statistics.json                shape, count, scaling_factor, shift_factor, mean and std of each channel, noise
    names.json                     file that each row came from, and the names of the classes

``latents`` is the mean of z_0, ``α(λ₀) z``: what ``vae.encode(x).latent_dist.mode()`` of the export to diffusers gives.
A model of latents should see ``latents + noise_std · ε`` with ε drawn anew at every step: what the decoder was trained
on. All statistics are of that.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unilat.files import write_json, write_safetensors
from unilat.interop.space import Space, kept_latents, space_of
from unilat.maths.noise import alpha, sigma
from unilat.maths.rate import LN2
from unilat.models.latents import LatentSet
from unilat.models.shards import SHARD
from unilat.run.evaluate import own_pictures
from unilat.run.parts import names_of, rows_of
from unilat.run.rate import latent_nats
from unilat.run.trained import Run, Source

FORMAT = "unilat latents for others 1"
LOAD = {
    "safetensors": """```py
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

told = json.loads(Path("FOLDER/statistics.json").read_text())
rows = load_file("FOLDER/" + told["files"][0])
z = rows["latents"] + told["noise_std"] * torch.randn_like(rows["latents"])
x = (z - told["shift_factor"]) * told["scaling_factor"]
```""",
    "npy": """```py
import json
from pathlib import Path

import numpy as np

told = json.loads(Path("FOLDER/statistics.json").read_text())
rows = np.load("FOLDER/latents.npy", mmap_mode="r")
z = rows + told["noise_std"] * np.random.randn(*rows.shape)
x = (z - told["shift_factor"]) * told["scaling_factor"]
```""",
}


def write(
    run: Run, folder: Path, data: Source | None, format: str, say: Callable[[str], object]
) -> tuple[Space, str, tuple[str, ...]]:
    """Write the latents of ``data``, or of the pictures that the run was trained on; their space, how they are read,
    and what to know of them."""
    space, level = space_of(run), run.config.autoencoder.lambda_0
    count, sets, notes = _sets(run, data, say)
    put = _Arrays(folder, count, run.latent_shape) if format == "npy" else _Shards(folder)
    names: list[str | None] = []
    for latents in sets:
        put.rows(published(latents, level))
        names += latents.names or [None] * len(latents)
    told = {
        "format": FORMAT,
        "count": count,
        "shape": list(run.latent_shape),
        "files": put.files,
        **dataclasses.asdict(space),
        "lambda_0": level,
        "pixels": run.pixels,
        "encoder_sha256": run.encoder_sha256,
        "statistics_of": "z_0, latents with their noise, of pictures that the autoencoder was trained on",
    }
    write_json(folder / "statistics.json", told)
    write_json(folder / "names.json", {"classes": run.classes, "names": names if any(names) else None})
    return space, LOAD[format], notes


def published(latents: LatentSet, lambda_0: float) -> dict[str, Tensor]:
    """Rows as they are written: the mean of z_0, labels, bits; and the deviation of z_0 where each has its own."""
    level = torch.tensor(lambda_0)
    if latents.moments is None:
        return {"latents": alpha(level) * latents.z, "labels": latents.labels, "bits": latents.bits}
    mean, std = latents.moments.unbind(1)
    spread = (alpha(level).square() * std.square() + sigma(level).square()).sqrt()
    return {"latents": alpha(level) * mean, "labels": latents.labels, "bits": latents.bits, "std": spread}


class _Shards:
    """Rows into a file each time."""

    def __init__(self, folder: Path):
        self.folder, self.files = folder, list[str]()

    def rows(self, tensors: dict[str, Tensor]) -> None:
        self.files.append(f"latents-{len(self.files):05}.safetensors")
        write_safetensors(self.folder / self.files[-1], tensors, {"format": "pt"})


class _Arrays:
    """Rows into one array for each name, as long as all of them together."""

    def __init__(self, folder: Path, count: int, shape: tuple[int, ...]):
        self.folder, self.count, self.shape, self.done = folder, count, shape, 0
        self.files = list[str]()

    def rows(self, tensors: dict[str, Tensor]) -> None:
        last = self.done + len(tensors["latents"])
        for name, tensor in tensors.items():
            path, array = self.folder / f"{name}.npy", tensor.contiguous().numpy()
            whole = (self.count, *array.shape[1:])
            new = f"{name}.npy" not in self.files
            place = np.lib.format.open_memmap(path, "w+" if new else "r+", array.dtype if new else None, whole)
            place[self.done : last] = array
            place.flush()
            self.files += [path.name] if new else []
        self.done = last


def _sets(
    run: Run, data: Source | None, say: Callable[[str], object]
) -> tuple[int, Iterator[LatentSet], tuple[str, ...]]:
    """How many latents, they themselves in sets of a shard, and what is to be told of their pictures."""
    if data is not None:
        found = run.read(data)
        rows, notes = range(len(found)), tuple(found.lines())

        def given(first: int, last: int) -> LatentSet:
            names = None if found.names is None else found.names[first:last]
            return _encoded(run, found.images[first:last], found.labels[first:last], names, first)

        return len(rows), _in_shards(len(rows), given, say), notes
    if (kept := kept_latents(run)) is not None:
        return len(kept), (LatentSet.load(path) for path in sorted(run.files.latents.glob("train-*.safetensors"))), ()
    pictures = own_pictures(run)
    train = run.split(pictures)[0]

    def own(first: int, last: int) -> LatentSet:
        rows = train[first:last]
        images = rows_of(pictures, rows, train)
        return _encoded(run, images, pictures.labels[rows], names_of(pictures, rows), first)

    return len(train), _in_shards(len(train), own, say), ()


def _in_shards(count: int, make: Callable[[int, int], LatentSet], say: Callable[[str], object]) -> Iterator[LatentSet]:
    for first in range(0, count, SHARD):
        say(f"encoding {min(first + SHARD, count):,} of {count:,} pictures")
        yield make(first, min(first + SHARD, count))


def _encoded(run: Run, images: Tensor, labels: Tensor, names: tuple[str, ...] | None, first: int) -> LatentSet:
    """Latents of pictures, of which the first is number ``first`` of its set."""
    z, posterior = run.encoded(images, start=first)
    bits = latent_nats(run.config.autoencoder, z, run.rate(z, 1, first, posterior), posterior) / LN2
    origin = (run.config.autoencoder.lambda_0, run.encoder_sha256, run.pixels)
    moments = None if posterior is None else posterior.moments()
    return LatentSet(z, bits, labels, *origin, names=names, classes=tuple(run.classes), moments=moments)
