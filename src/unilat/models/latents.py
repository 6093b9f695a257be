"""A latent data set: latents that know what made them, how noisy they are meant to be, and the bits they carry."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from unilat.files import digest, read_safetensors, write_safetensors
from unilat.types import UserError

FORMAT = "unilat latents 1"
_SHOWN = 5  # rows in one line


@dataclass(frozen=True, eq=False)
class Latent:
    """One latent of a set."""

    name: str | None
    """File it came from, where that is known."""
    label: str | None
    """Name of its class; None where it has none or one that the run does not know."""
    z: Tensor
    """float32 ``[C, *grid]``."""
    bits: float
    """Bound on what it tells of its signal, bits; NaN where it was not measured."""


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Latents of N signals; written to one safetensors file, statistics and origin in its header.

    ``latents[3]`` is one :class:`Latent`; a slice, a mask or a list or tensor of indices gives the set of those.
    """

    z: Tensor
    """Clean latents ``E(x)``, or with ``noisy`` the ``z_0`` that a base model sampled, float32 ``[N, C, *grid]``."""
    bits: Tensor
    """Bound on what each ``z_0`` tells of its signal, bits, float32 ``[N]``; NaN where it was not measured."""
    labels: Tensor
    """Classes, int64 ``[N]``; zeros where there are none, -1 where a signal's class is not one of ``classes``."""
    lambda_0: float
    """Log-SNR of the noise that turns ``z`` into ``z_0``."""
    encoder_sha256: str
    """Hash of the encoder's weights (:func:`fingerprint`)."""
    pixels: int
    """Pixels (samples, frames × pixels, voxels) of one signal: the unit of bits per pixel."""
    noisy: bool = False
    """Whether ``z`` holds ``z_0`` already."""
    names: tuple[str, ...] | None = None
    """File that each came from; None where they came from none."""
    classes: tuple[str, ...] = ()
    """Names of the run's classes, which ``labels`` number."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Name and reason of each file of the source that could not be read."""
    converted: Mapping[str, int] = field(default_factory=dict)
    """How many signals were cropped, resized or otherwise converted."""
    moments: Tensor | None = None
    """Mean and standard deviation that each ``z`` was drawn with, float32 ``[N, 2, C, *grid]``: of a training set with
    a learned variance, whose base model draws anew at every step; None for points, and where they were not kept."""

    def __post_init__(self) -> None:
        for what in (self.bits, self.labels, self.names, self.moments):
            if what is not None and len(what) != len(self.z):
                raise ValueError(f"{len(self.z)} latents but {len(what)} bits, labels or names")

    def __len__(self) -> int:
        return len(self.z)

    @overload
    def __getitem__(self, rows: int) -> Latent: ...
    @overload
    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> "LatentSet": ...
    def __getitem__(self, rows: int | slice | Tensor | Sequence[int]) -> "Latent | LatentSet":
        if isinstance(rows, int):
            index = range(len(self))[rows]
            label = int(self.labels[index])
            return Latent(
                name=None if self.names is None else self.names[index],
                label=self.classes[label] if 0 <= label < len(self.classes) else None,
                z=self.z[index],
                bits=float(self.bits[index]),
            )
        chosen = torch.arange(len(self))[rows if isinstance(rows, slice | Tensor) else list(rows)]
        names = None if self.names is None else tuple(self.names[index] for index in chosen.tolist())
        tensors = {name: tensor[chosen] for name, tensor in self.tensors().items()}
        return replace(self, **tensors, names=names)

    def __iter__(self) -> Iterator[Latent]:
        return (self[index] for index in range(len(self)))

    @property
    def mean(self) -> Tensor:
        """Mean of each channel, ``[C]``."""
        return self.z.transpose(0, 1).flatten(1).mean(1)

    @property
    def std(self) -> Tensor:
        """Standard deviation of each channel, ``[C]``."""
        return self.z.transpose(0, 1).flatten(1).std(1)

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`save` writes, by name."""
        found = {"z": self.z.contiguous(), "bits": self.bits.contiguous(), "labels": self.labels.contiguous()}
        return found if self.moments is None else found | {"moments": self.moments.contiguous()}

    @property
    def bpp(self) -> Tensor:
        """Bits per pixel of each signal, ``[N]``."""
        return self.bits / self.pixels

    def save(self, path: str | Path) -> Path:
        """Write to ``path`` (.safetensors), whole or not at all."""
        path = Path(path)
        header = {
            "format": FORMAT,
            "lambda_0": repr(self.lambda_0),
            "encoder_sha256": self.encoder_sha256,
            "pixels": str(self.pixels),
            "noisy": str(self.noisy).lower(),
            "mean": json.dumps(self.mean.tolist()),
            "std": json.dumps(self.std.tolist()),
            "names": json.dumps(self.names),
            "classes": json.dumps(self.classes),
            "skipped": json.dumps(self.skipped),
            "converted": json.dumps(dict(self.converted)),
        }
        write_safetensors(path, self.tensors(), header)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "LatentSet":
        """Read a file that :meth:`save` wrote; raises :class:`UserError` for any other."""
        tensors, header = read_safetensors(Path(path))
        if header.get("format") != FORMAT or not {"z", "bits", "labels"} <= set(tensors):
            raise UserError(f"{path} is not a latent data set of unilat: make one with `unilat encode RUN DATA`")
        z, bits, labels = tensors["z"], tensors["bits"], tensors["labels"]
        if z.dim() < 3 or not bits.shape == labels.shape == z.shape[:1]:
            shapes = f"{list(z.shape)}, {list(bits.shape)} and {list(labels.shape)}"
            raise UserError(f"{path} is a damaged latent data set (z, bits and labels are {shapes}): encode again")
        try:
            return cls(
                z=z,
                bits=bits,
                labels=labels,
                lambda_0=float(header["lambda_0"]),
                encoder_sha256=header["encoder_sha256"],
                pixels=int(header["pixels"]),
                noisy={"true": True, "false": False}[header["noisy"]],
                moments=tensors.get("moments"),
                **_known(header),
            )
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} is a damaged latent data set ({error} in its header): encode again") from None

    def refuse_other(self, encoder_sha256: str, lambda_0: float) -> None:
        """Raise :class:`UserError` unless these latents are of this encoder and this noise."""
        if self.lambda_0 != lambda_0:
            raise UserError(
                f"these latents have their noise at log-SNR {self.lambda_0:g}, the model was trained at {lambda_0:g}: "
                "encode the pictures again with this model"
            )
        if self.encoder_sha256 != encoder_sha256:
            raise UserError(
                f"these latents are of another encoder ({self.encoder_sha256[:12]}, not {encoder_sha256[:12]}): decode "
                "them with the run that made them, or encode the pictures again with this one"
            )

    def refuse_damaged(self, shape: tuple[int, ...]) -> None:
        """Raise :class:`UserError` unless there are latents of this ``shape``, all finite; other rows are named."""
        if not len(self) or tuple(self.z.shape[1:]) != shape or not self.z.is_floating_point():
            wanted = f"float [N, {', '.join(map(str, shape))}]"
            raise UserError(f"latents must be {wanted}, not {str(self.z.dtype)[6:]} {list(self.z.shape)}")
        rows = (~self.z.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        if rows:
            named = [f"{row} ({self.names[row]})" if self.names else str(row) for row in rows[:_SHOWN]]
            more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
            raise UserError(
                f"{len(rows)} of {len(self)} latents hold NaN or infinity, rows {', '.join(named)}{more}: leave them "
                "out, or encode their pictures again"
            )


def _known(header: dict[str, str]) -> dict[str, Any]:
    """Names, classes and what was skipped and converted; files written before these were kept have none of them."""
    names = json.loads(header.get("names", "null"))
    return {
        "names": None if names is None else tuple(map(str, names)),
        "classes": tuple(map(str, json.loads(header.get("classes", "[]")))),
        "skipped": tuple((str(name), str(reason)) for name, reason in json.loads(header.get("skipped", "[]"))),
        "converted": {str(what): int(count) for what, count in json.loads(header.get("converted", "{}")).items()},
    }


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a module's weights and buffers."""
    return digest(module.state_dict())
