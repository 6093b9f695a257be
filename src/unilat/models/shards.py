"""Latents of a whole training set on disk: shards written while encoding, and an index that seals them.

    latents/train-00000.safetensors, train-00001 …   each a LatentSet of at most SHARD latents, whole or not at all
    latents/index.json                               seal, statistics, and the checksum of each shard

A killed process loses the shard it was at. Rows are memory-mapped: what stage 2 holds is a batch, not the set.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unilat.files import digest, read_json, read_safetensors, write_json
from unilat.models.latents import LatentSet
from unilat.types import UserError

FORMAT = "unilat latent shards 1"
SHARD = 8192
"""Latents in a shard; the last one may hold fewer."""


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What the latents are of: equal seals mean equal latents."""

    encoder_sha256: str
    """Hash of the encoder's weights."""
    data_sha256: str
    """Hash of the pictures that were encoded and of their order."""
    lambda_0: float
    """Log-SNR of the noise that they are meant to carry."""
    pixels: int
    """Pixels of one picture."""
    count: int
    """Latents there are when all are encoded."""


class Rows:
    """Latents ``[N, C, *grid]`` that stay on disk: ``rows[indices [b]]`` reads float32 ``[b, C, *grid]``."""

    def __init__(self, parts: list[np.ndarray], per_shard: int):
        self._parts, self._per_shard = parts, per_shard
        self.shape = torch.Size((sum(len(part) for part in parts), *parts[0].shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        wanted = indices.cpu().numpy()
        shard, row = np.divmod(wanted, self._per_shard)
        rows = np.empty((len(wanted), *self.shape[1:]), np.float32)
        for number in np.unique(shard):
            here = shard == number
            rows[here] = self._parts[number][row[here]]
        return torch.from_numpy(rows)

    def whole(self) -> Tensor:
        """All of them, in memory."""
        return torch.from_numpy(np.concatenate(self._parts))


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentShards:
    """An encoded training set: rows on disk, the little ones in memory."""

    z: Rows
    """Clean latents."""
    bits: Tensor
    """Bound on what each tells of its picture, bits ``[N]``."""
    labels: Tensor
    """Classes, int64 ``[N]``."""
    mean: Tensor
    """Mean of each channel, ``[C]``."""
    std: Tensor
    """Standard deviation of each channel, ``[C]``."""
    seal: Seal

    def __len__(self) -> int:
        return len(self.z)

    @property
    def encoder_sha256(self) -> str:
        """Hash of the encoder's weights."""
        return self.seal.encoder_sha256


def write_shards(folder: Path, seal: Seal, make: Callable[[int, int], LatentSet], shard: int = SHARD) -> LatentShards:
    """Encode what is missing, shard by shard, and open the whole; ``make(first, last)`` encodes those rows.

    Raises :class:`UserError` where the folder holds latents of another encoder, noise or data, or damaged ones.
    """
    rows: list[dict[str, Any]] = []
    per_shard = shard
    if _index(folder).is_file():
        index = _read(folder)
        _refuse_other(folder, index, seal)
        rows, per_shard = index["shards"], index["per_shard"]
    for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink(missing_ok=True)
    for first in range(sum(row["count"] for row in rows), seal.count, per_shard):
        latents = make(first, min(first + per_shard, seal.count))
        name = f"train-{len(rows):05}.safetensors"
        latents.save(folder / name)
        sha256 = digest({"z": latents.z, "bits": latents.bits, "labels": latents.labels})
        statistics = {"mean": latents.mean.tolist(), "std": latents.std.tolist()}
        rows = [*rows, {"name": name, "count": len(latents), "sha256": sha256, **statistics}]
        _write(folder, seal, rows, per_shard, math.prod(latents.z.shape[2:]))
    whole = open_shards(folder, seal)
    assert whole is not None
    return whole


def open_shards(folder: Path, seal: Seal | None = None) -> LatentShards | None:
    """The latents in ``folder``, every shard checked against the index; None where there are none or not all yet.

    With ``seal``, UserError where they are of another encoder, noise or data.
    """
    if not _index(folder).is_file():
        return None
    index = _read(folder)
    if seal is not None:
        _refuse_other(folder, index, seal)
    if sum(row["count"] for row in index["shards"]) != index["seal"]["count"]:
        return None
    bits, labels, parts = [], [], []
    for row in index["shards"]:
        tensors, _ = read_safetensors(folder / row["name"])
        if digest(tensors) != row["sha256"] or len(tensors["bits"]) != row["count"]:
            raise UserError(f"{folder / row['name']} is not the shard that was written: delete {folder} and go on")
        bits.append(tensors["bits"])
        labels.append(tensors["labels"])
        parts.append(_mapped(folder / row["name"]))
    return LatentShards(
        z=Rows(parts, index["per_shard"]),
        bits=torch.cat(bits),
        labels=torch.cat(labels),
        mean=torch.tensor(index["mean"]),
        std=torch.tensor(index["std"]),
        seal=Seal(**index["seal"]),
    )


def take_shards(other: Path, folder: Path, seal: Seal) -> bool:
    """Take another run's latents where they are those of ``seal`` and whole; by hard link, or as a copy."""
    try:
        theirs = open_shards(other, seal)
    except UserError:
        return False
    if theirs is None or _index(folder).is_file():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    index = _read(other)
    for row in index["shards"]:
        with contextlib.suppress(FileNotFoundError):
            (folder / row["name"]).unlink()
        try:
            os.link(other / row["name"], folder / row["name"])
        except OSError:
            shutil.copyfile(other / row["name"], folder / row["name"])
    write_json(_index(folder), index)
    return True


def pooled(counts: list[int], means: Tensor, stds: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[C]`` of everything from those of the parts, ``[parts, C]``, float64 inside.

    ``m = Σ n_i m_i / n``,  ``s² = (Σ (n_i − 1) s_i² + n_i (m_i − m)²) / (n − 1)``; of one part they are its own.
    """
    count, means, stds = torch.tensor(counts, dtype=torch.float64)[:, None], means.double(), stds.double()
    mean = (count * means).sum(0) / count.sum()
    spread = ((count - 1) * stds.square() + count * (means - mean).square()).sum(0)
    return mean.float(), (spread / (count.sum() - 1)).sqrt().float()


def of_data(sha256: str, rows: Tensor) -> str:
    """The ``data_sha256`` of some rows of a data set of hash ``sha256``."""
    total = hashlib.sha256(f"{sha256} [".encode())
    for first in range(0, len(rows), SHARD):  # the text of the whole list, in parts: of millions it is long
        total.update((", " if first else "").encode())
        total.update(", ".join(map(str, rows[first : first + SHARD].tolist())).encode())
    total.update(b"]")
    return total.hexdigest()


def _index(folder: Path) -> Path:
    return folder / "index.json"


def _write(folder: Path, seal: Seal, rows: list[dict[str, Any]], per_shard: int, cells: int) -> None:
    """The index of what is there, with its own checksum."""
    means, stds = (torch.tensor([row[name] for row in rows]) for name in ("mean", "std"))
    mean, std = pooled([row["count"] * cells for row in rows], means, stds)
    index = {
        "format": FORMAT,
        "seal": asdict(seal),
        "per_shard": per_shard,
        "mean": mean.tolist(),
        "std": std.tolist(),
        "shards": rows,
    }
    write_json(_index(folder), index | {"sha256": _checksum(index)})


def _checksum(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    """The index, if it is whole and as it was written."""
    index = read_json(_index(folder))
    body = {name: value for name, value in index.items() if name != "sha256"} if isinstance(index, dict) else {}
    if body.get("format") != FORMAT or index["sha256"] != _checksum(body):
        raise UserError(f"{_index(folder)} is damaged: delete {folder} and go on, the pictures are encoded again")
    return index


def _refuse_other(folder: Path, index: dict[str, Any], seal: Seal) -> None:
    differ = [name for name, value in asdict(seal).items() if index["seal"].get(name) != value]
    if differ:
        raise UserError(
            f"{folder} holds latents of another encoder or other pictures ({', '.join(differ)} differ): delete it and "
            "go on, they are encoded again"
        )


def _mapped(path: Path) -> np.ndarray:
    """The tensor ``z`` of a safetensors file, memory-mapped."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))["z"]
    if entry["dtype"] != "F32":
        raise UserError(f"{path} holds latents of type {entry['dtype']}, not float32: encode again")
    return np.memmap(path, "<f4", "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
