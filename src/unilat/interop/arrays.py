"""Latents of others as they lie in a file: ``.npy``, ``.npz``, ``.safetensors``, or an array in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unilat.files import read_safetensors
from unilat.signals.arrays import read_npy
from unilat.signals.npz import read_npz
from unilat.types import UserError

SUFFIXES = (".npy", ".npz", ".safetensors")
NAMES = ("latents", "z", "latent", "mean", "arr_0", "data")


def load(path: Path) -> Tensor:
    """float32 latents ``[N, C, *grid]`` of a file; nothing is unpickled.

    Of several arrays that called ``latents``, ``z``, ``latent``, ``mean`` or ``data`` is meant, or else the only one of
    floating point with two axes or more. Raises :class:`UserError` where that is not clear or the file is damaged.
    """
    if not path.is_file() or path.suffix not in SUFFIXES:
        what = "is of another kind" if path.is_file() else "is not there"
        raise UserError(f"{path} {what}: name a folder of diffusers, or latents in a {', '.join(SUFFIXES)} file")
    if path.suffix == ".safetensors":
        return checked(_pick(read_safetensors(path)[0], path), str(path))
    arrays = read_npz(path, str(path)) if path.suffix == ".npz" else {"data": read_npy(path, str(path))}
    return checked(_pick({name: array for name, array in arrays.items() if hasattr(array, "ndim")}, path), str(path))


def _pick(arrays: Mapping[str, Tensor | np.ndarray], path: Path) -> Tensor | np.ndarray:
    named = [name for name in NAMES if name in arrays and arrays[name].ndim >= 2]
    fitting = [name for name, array in arrays.items() if array.ndim >= 2 and _is_float(array)]
    if not named and len(fitting) != 1:
        shown = ", ".join(f"{name[:30]} {list(array.shape)}" for name, array in list(arrays.items())[:6])
        raise UserError(f"{path}: which array holds the latents? It has {shown or 'none'}; name one 'latents'")
    return arrays[(named or fitting)[0]]


def _is_float(array: Any) -> bool:
    return array.is_floating_point() if isinstance(array, Tensor) else array.dtype.kind == "f"


def checked(array: Any, name: str) -> Tensor:
    """Any array as float32 latents ``[N, C, *grid]`` with 1 to 3 grid axes; ``[N, D]`` becomes ``[N, D, 1]``."""
    if not isinstance(array, Tensor):
        try:
            array = np.asarray(array)
            if array.dtype.kind not in "fiub":
                raise UserError(f"{name}: latents are numbers, not {array.dtype}")
            array = torch.from_numpy(np.array(array, dtype=None if array.dtype.kind != "f" else np.float32))
        except (TypeError, ValueError) as error:
            raise UserError(f"{name} is no array of latents ({' '.join(str(error).split())[:80]})") from None
    if not array.is_floating_point():
        raise UserError(
            f"{name}: latents are real numbers, these are {array.dtype} (codes of a codebook have no density to audit)"
        )
    if not 2 <= array.ndim <= 5:
        raise UserError(f"{name}: latents are [N, C], or [N, C, ...] with one to three axes, not {list(array.shape)}")
    if 0 in array.shape:
        raise UserError(f"{name}: there are no latents in {list(array.shape)}")
    z = array.detach().float().cpu()
    return z[..., None] if z.ndim == 2 else z
