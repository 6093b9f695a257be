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
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unilat.files import Unfit, built, digest, read_json, read_safetensors, write_json
from unilat.models.latents import LatentSet
from unilat.types import UserError

FORMAT = "unilat latent shards 1"
_NAME = re.compile(r"train-\d{5,}\.safetensors")
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


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of latents, as the index has it."""

    name: str
    count: int
    """Latents in it."""
    sha256: str
    """Of its tensors."""
    mean: tuple[float, ...]
    """Of each channel."""
    std: tuple[float, ...]
    """Of each channel."""


@dataclass(frozen=True, kw_only=True)
class _Index:
    """``index.json``: the seal, the statistics of all shards together, and the shards in their order."""

    seal: Seal
    per_shard: int
    """Latents in each shard but the last."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        """Latents written so far."""
        return sum(shard.count for shard in self.shards)

    def to_json(self) -> dict[str, object]:
        """With its own checksum."""
        tree: dict[str, object] = {"format": FORMAT, **asdict(self)}
        return tree | {"sha256": _checksum(tree)}


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
    moments: Rows | None = None
    """What each was drawn from, as :class:`~unilat.models.latents.LatentSet` has it; None where it was not kept."""

    def __len__(self) -> int:
        return len(self.z)

    @property
    def encoder_sha256(self) -> str:
        """Hash of the encoder's weights."""
        return self.seal.encoder_sha256


def write_shards(
    folder: Path,
    seal: Seal,
    make: Callable[[int, int], LatentSet],
    shard: int = SHARD,
    writes: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> LatentShards:
    """Encode what is missing, shard by shard, and open the whole; ``make(first, last)`` encodes those rows.

    Of several processes that encode together one ``writes``; all ``wait`` for each other before they open the whole.
    Raises :class:`UserError` where the folder holds latents of another encoder, noise or data, or damaged ones.
    """
    shards: tuple[Shard, ...] = ()
    per_shard = shard
    if _place(folder).is_file():
        index = _read(folder)
        _refuse_other(folder, index, seal)
        shards, per_shard = index.shards, index.per_shard
    for part in folder.glob(".*.part") if writes else ():  # of a process that was killed while it wrote
        part.unlink(missing_ok=True)
    for first in range(sum(one.count for one in shards), seal.count, per_shard):
        latents = make(first, min(first + per_shard, seal.count))
        if not writes:
            continue
        name = f"train-{len(shards):05}.safetensors"
        latents.save(folder / name)
        sha256 = digest(latents.tensors())
        mean, std = tuple(latents.mean.tolist()), tuple(latents.std.tolist())
        shards = (*shards, Shard(name=name, count=len(latents), sha256=sha256, mean=mean, std=std))
        _write(folder, seal, shards, per_shard, math.prod(latents.z.shape[2:]))
    wait()
    whole = open_shards(folder, seal)
    assert whole is not None
    return whole


def open_shards(folder: Path, seal: Seal | None = None) -> LatentShards | None:
    """The latents in ``folder``, every shard checked against the index; None where there are none or not all yet.

    With ``seal``, UserError where they are of another encoder, noise or data.
    """
    if not _place(folder).is_file():
        return None
    index = _read(folder)
    if seal is not None:
        _refuse_other(folder, index, seal)
    if index.count != index.seal.count:
        return None
    bits, labels, parts, moments = [], [], [], []
    for shard in index.shards:
        tensors, _ = read_safetensors(folder / shard.name)
        if digest(tensors) != shard.sha256 or len(tensors["bits"]) != shard.count:
            raise UserError(f"{folder / shard.name} is not the shard that was written: delete {folder} and go on")
        bits.append(tensors["bits"])
        labels.append(tensors["labels"])
        parts.append(_mapped(folder / shard.name, "z"))
        moments += [_mapped(folder / shard.name, "moments")] if "moments" in tensors else []
    return LatentShards(
        z=Rows(parts, index.per_shard),
        bits=torch.cat(bits),
        labels=torch.cat(labels),
        mean=torch.tensor(index.mean),
        std=torch.tensor(index.std),
        seal=index.seal,
        moments=Rows(moments, index.per_shard) if len(moments) == len(parts) else None,
    )


def take_shards(other: Path, folder: Path, seal: Seal) -> bool:
    """Take another run's latents where they are those of ``seal`` and whole; by hard link, or as a copy."""
    try:
        theirs = open_shards(other, seal)
    except UserError:
        return False
    if theirs is None or _place(folder).is_file():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    index = _read(other)
    for shard in index.shards:
        with contextlib.suppress(FileNotFoundError):
            (folder / shard.name).unlink()
        try:
            os.link(other / shard.name, folder / shard.name)
        except OSError:
            shutil.copyfile(other / shard.name, folder / shard.name)
    write_json(_place(folder), index.to_json())
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


def _place(folder: Path) -> Path:
    return folder / "index.json"


def _write(folder: Path, seal: Seal, shards: tuple[Shard, ...], per_shard: int, cells: int) -> None:
    """The index of what is there."""
    means, stds = torch.tensor([one.mean for one in shards]), torch.tensor([one.std for one in shards])
    mean, std = pooled([one.count * cells for one in shards], means, stds)
    statistics = {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
    write_json(_place(folder), _Index(seal=seal, per_shard=per_shard, shards=shards, **statistics).to_json())


def _checksum(tree: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _read(folder: Path) -> _Index:
    """The index, if it is whole and as it was written."""
    tree = read_json(_place(folder))
    body = {name: value for name, value in tree.items() if name != "sha256"} if isinstance(tree, dict) else {}
    try:
        if body.get("format") != FORMAT or tree.get("sha256") != _checksum(body):
            raise Unfit("its content does not match its checksum")
        index: _Index = built(_Index, {name: value for name, value in body.items() if name != "format"}, "")
        if wrong := [shard.name for shard in index.shards if not _NAME.fullmatch(shard.name)]:
            raise Unfit(f"{wrong[0]!r} is the name of no shard")
        return index
    except (Unfit, ValueError, RecursionError) as problem:
        raise UserError(
            f"{_place(folder)} is damaged ({problem}): delete {folder} and go on, the pictures are encoded again"
        ) from None


def _refuse_other(folder: Path, index: _Index, seal: Seal) -> None:
    known = asdict(index.seal)
    differ = [name for name, value in asdict(seal).items() if known[name] != value]
    if differ:
        raise UserError(
            f"{folder} holds latents of another encoder or other pictures ({', '.join(differ)} differ): delete it and "
            "go on, they are encoded again"
        )


def _mapped(path: Path, name: str) -> np.ndarray:
    """The tensor ``name`` of a safetensors file, memory-mapped."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
    if entry["dtype"] != "F32":
        raise UserError(f"{path} holds latents of type {entry['dtype']}, not float32: encode again")
    return np.memmap(path, "<f4", "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
