"""What is audited: a folder, a function or an array becomes latents, with their pictures where they are known."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unilat.fields import Size
from unilat.files import digest, read_json, read_safetensors, write_json, write_safetensors
from unilat.interop import arrays, diffusers
from unilat.interop.model import CallableModel, Declared, ForeignModel
from unilat.maths.seeds import key
from unilat.signals import Pictures, split
from unilat.signals import load as load_pictures
from unilat.signals.pictures import equal_groups, pack
from unilat.types import UserError

BATCH = 32
FEWEST = 50
"""Latents below which nothing is told: a prior must be trained on some and measured on others."""
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Subject:
    """Latents as they are, and what is known of where they come from."""

    name: str
    z: Tensor
    """Raw latents float32 ``[N, C, *grid]``."""
    logvar: Tensor | None
    """Of the posterior, where there is one."""
    train: Tensor
    """Indices of the latents that the prior is trained on."""
    test: Tensor
    """Indices of those that it is measured on."""
    pixels: int | None
    """Pixels of the picture behind a latent, or None."""
    model: ForeignModel | None = None
    pictures: Pictures | None = None

    @property
    def declared(self) -> Declared:
        """Scale and shift as the model's configuration states them."""
        return {} if self.model is None else self.model.declared


def model_of(
    source: Any, decode: Callable[[Tensor], Tensor] | None = None, device: torch.device | str = "cpu"
) -> ForeignModel | None:
    """The model that ``source`` is or names; None where it is an array of latents. Raises :class:`UserError`."""
    if isinstance(source, str | Path):
        path = Path(source)
        if diffusers.is_folder(path):
            return diffusers.load(path, device)
        if path.is_dir():
            raise UserError(f"{path} is no folder of diffusers (no config.json in it): name one that has it")
        return None
    if hasattr(source, "encode") and hasattr(source, "declared"):
        return source
    if callable(source) and not isinstance(source, Tensor):
        return CallableModel(source, decode, name=str(getattr(source, "__name__", type(source).__name__)))
    return None


def pictures_of(source: Any, size: Size | None, channels: int | None, limit: int | None) -> Pictures:
    """Pictures of a data set, or of a uint8 tensor ``[N, C, H, W]`` as it is."""
    if isinstance(source, Pictures):
        return source
    if isinstance(source, Tensor):
        if source.dtype != torch.uint8 or source.ndim != 4:
            raise UserError(f"pictures must be uint8 [N, C, H, W], not {source.dtype} {list(source.shape)}")
        return pack(source.cpu().numpy()[:limit], None, "a tensor")
    return load_pictures(str(source), size=size, channels=channels, limit=limit)


def of_model(
    model: ForeignModel,
    pictures: Pictures,
    folder: Path,
    identity: Mapping[str, object],
    seed: int,
    device: Any,
    say: Say,
) -> Subject:
    """Encode the pictures, or read the latents that an earlier start of the same audit left in ``folder``."""
    identity = {**identity, "model": model.sha256, "pictures": pictures.sha256}
    path = folder / "latents.safetensors"
    if model.channels not in (None, pictures.channels):
        raise UserError(f"{model.name} takes pictures of {model.channels} channels, these have {pictures.channels}")
    if model.sha256 is not None:
        claim(folder, identity)
    if model.sha256 is not None and path.is_file():
        tensors = read_safetensors(path)[0]
        if "z" not in tensors:
            raise UserError(f"{path} holds no latents: delete it, and the pictures are encoded again")
    else:
        say(f"encoding {len(pictures):,} pictures")
        tensors = _encoded(model, pictures, device)
        if model.sha256 is None:
            claim(folder, {**identity, "latents": digest(tensors)})
        write_safetensors(path, tensors, {})
    train, test = split(pictures, fraction=0.1, at_most=2000, seed=seed)
    test = test[torch.from_numpy(equal_groups(pictures.images[test].numpy())).unique()]
    for tensor in tensors.values():
        checked(tensor, model.name)
    pixels = math.prod(pictures.images.shape[2:])
    return Subject(model.name, tensors["z"], tensors.get("logvar"), train, test, pixels, model, pictures)


def of_array(
    array: Any,
    folder: Path,
    identity: Mapping[str, object],
    seed: int,
    size: Size | None,
    pictures: Any,
    name: str | None = None,
) -> Subject:
    """Latents of a file or in memory; ``size`` or ``pictures``, in the same order, tell the pixels behind each."""
    path = Path(array) if isinstance(array, str | Path) else None
    name = name or (str(path) if path else "an array")
    z = arrays.load(path) if path else arrays.checked(array, name)
    checked(z, name)
    claim(folder, {**identity, "latents": digest({"z": z})})
    train, test = apart(z, seed)
    if len(train) == 1:
        raise UserError(f"{name}: all latents but one are equal, so there is nothing to train a prior on")
    shown = None
    if pictures is not None:
        shown = pictures_of(pictures, size, None, None)
        if len(shown) != len(z):
            raise UserError(f"{name}: {len(z)} latents and {len(shown)} pictures; they must be the same ones in order")
        size = shown.size
    return Subject(name, z, None, train, test, math.prod(size) if size else None, None, shown)


def apart(z: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices ``(train, test)`` of latents, sorted: equal ones stand on one side, and are measured once.

    Copies on both sides would be measured by a prior that knows them by heart, and twice the same number is no second
    one. About a tenth of the different latents is held out, 10 at least and half of them at most.
    """
    copy_of = torch.from_numpy(equal_groups(z.numpy()))
    firsts = copy_of.unique()
    order = torch.randperm(len(firsts), generator=torch.Generator().manual_seed(key(seed, "audit split")))
    held_out = max(1, min(2000, max(10, len(firsts) // 10), len(firsts) // 2))
    test = firsts[order[:held_out]].sort().values
    return (~torch.isin(copy_of, test)).nonzero().flatten(), test


def checked(z: Tensor, name: str) -> None:
    """Refuse too few latents and numbers that are not finite."""
    if len(z) < FEWEST:
        raise UserError(
            f"{name}: {len(z)} latents are too few to train a prior on and hold some out; {FEWEST} at least"
        )
    bad = ~torch.isfinite(z).flatten(1).all(1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise UserError(f"{name}: {int(bad.sum())} of {len(z)} latents are not finite (the first is number {first})")


def claim(folder: Path, identity: Mapping[str, object]) -> None:
    """Make ``folder`` this audit's, or refuse one that is another's, naming what differs."""
    path, identity = folder / "identity.json", json.loads(json.dumps(identity))  # as a file has it: lists, no tuples
    if path.is_file():
        found = read_json(path)
        names = set(identity) | set(found if isinstance(found, dict) else {})
        differ = sorted(name for name in names if not isinstance(found, dict) or found.get(name) != identity.get(name))
        if differ:
            raise UserError(f"{folder} holds another audit ({', '.join(differ)} differ): choose another `out`")
    write_json(path, identity)


@torch.no_grad()
def _encoded(model: ForeignModel, pictures: Pictures, device: Any) -> dict[str, Tensor]:
    z, logvar = [], []
    for part in pictures.images.split(BATCH):
        found = model.encode(pictures.kind.to_unit(part).to(device))
        z.append(found.z.cpu())
        logvar += [] if found.logvar is None else [found.logvar.cpu()]
    tensors = {"z": torch.cat(z)}
    if tensors["z"].ndim == 2:
        tensors["z"] = tensors["z"][..., None]
    if logvar:
        tensors["logvar"] = torch.cat(logvar).reshape(tensors["z"].shape)
    return tensors
