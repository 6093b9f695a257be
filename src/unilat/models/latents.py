"""A latent data set: latents that know what made them, how noisy they are meant to be, and the bits they carry."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from unilat.files import digest, read_safetensors, write_safetensors
from unilat.types import UserError

FORMAT = "unilat latents 1"


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Latents of N signals; written to one safetensors file, statistics and origin in its header."""

    z: Tensor
    """Clean latents ``E(x)``, or with ``noisy`` the ``z_0`` that a base model sampled, float32 ``[N, C, *grid]``."""
    bits: Tensor
    """Bound on what each ``z_0`` tells of its signal, bits, float32 ``[N]``; NaN where it was not measured."""
    labels: Tensor
    """Classes, int64 ``[N]``; zeros where there are none."""
    lambda_0: float
    """Log-SNR of the noise that turns ``z`` into ``z_0``."""
    encoder_sha256: str
    """Hash of the encoder's weights (:func:`fingerprint`)."""
    pixels: int
    """Pixels (samples, frames × pixels, voxels) of one signal: the unit of bits per pixel."""
    noisy: bool = False
    """Whether ``z`` holds ``z_0`` already."""

    def __len__(self) -> int:
        return len(self.z)

    @property
    def mean(self) -> Tensor:
        """Mean of each channel, ``[C]``."""
        return self.z.transpose(0, 1).flatten(1).mean(1)

    @property
    def std(self) -> Tensor:
        """Standard deviation of each channel, ``[C]``."""
        return self.z.transpose(0, 1).flatten(1).std(1)

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
        }
        tensors = {"z": self.z.contiguous(), "bits": self.bits.contiguous(), "labels": self.labels.contiguous()}
        write_safetensors(path, tensors, header)
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
            )
        except (KeyError, ValueError) as error:
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


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a module's weights and buffers."""
    return digest(module.state_dict())
