"""Folders that diffusers' ``save_pretrained`` wrote, read whole and exactly, or refused in one line.

Weights come from safetensors, each tensor that the class wants and no other: diffusers itself only warns about missing
ones and leaves them random. The class is built on the meta device and takes the file's tensors, so a configuration that
asks for more than the file holds costs no memory. No pickle is opened.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unilat.files import digest, read_json, read_safetensors
from unilat.nets.foreign import CLASSES, ForeignConfig, ForeignDecoder, ForeignEncoder, built, described
from unilat.types import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"
_OLD_NAMES = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model of one of the three classes, frozen and in float32."""

    folder: Path
    kind: str
    module: Any
    values: Mapping[str, object]
    """What its config.json says."""
    sha256: str
    """Of its weights."""

    @property
    def config(self) -> ForeignConfig:
        """What a run's configuration keeps of it."""
        return described(self.kind, self.module, self.sha256)

    @torch.no_grad()
    def fill(self, part: ForeignEncoder | ForeignDecoder) -> None:
        """Give a half that was built by :attr:`config` this model's weights."""
        own = self.module.state_dict()
        part.net.load_state_dict({name: own[name] for name in part.net.state_dict()})


def is_folder(path: Path) -> bool:
    """Whether this is meant as a diffusers folder: a folder with a config.json or a model_index.json."""
    return path.is_dir() and any((path / name).is_file() for name in ("config.json", "model_index.json"))


def is_run(path: Path) -> bool:
    """Whether the folder's config.json is that of a run of ours."""
    config = read_json(path / "config.json") if (path / "config.json").is_file() else None
    return isinstance(config, dict) and "autoencoder" in config and "stage1" in config


def read(folder: Path) -> Pretrained:
    """The model of a folder; raises :class:`UserError` for what is no whole model of the three classes."""
    if (folder / "model_index.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(f"{folder} is a whole pipeline: name its autoencoder, {folder / 'vae'}")
    config = read_json(folder / "config.json")
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind not in CLASSES:
        if is_run(folder):
            raise UserError(f"{folder} is a run of unilat's own: `unilat evaluate {folder}` measures it")
        raise UserError(f"{folder}/config.json names the class {str(kind)[:60]!r}; read are {', '.join(CLASSES)}")
    tensors = _renamed(_weights(folder))
    with torch.device("meta"):
        module = built(str(kind), config, f"{folder}/config.json")
    _fill(module, tensors, folder, str(kind))
    return Pretrained(folder, str(kind), module.eval().requires_grad_(False), config, digest(tensors))


def _weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's one safetensors file."""
    path = folder / WEIGHTS
    if not path.is_file():
        others = sorted(file.name for file in folder.glob("*.safetensors"))
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if len(others) == 1 and not (folder / f"{WEIGHTS}.index.json").is_file():
            path = folder / others[0]  # a variant: diffusion_pytorch_model.fp16.safetensors
        elif others:
            raise UserError(f"{folder} holds its weights in {len(others)} files; save it as one, {WEIGHTS}")
        elif pickles:
            raise UserError(
                f"{folder}/{pickles[0]} is a pickle, which can run code, and is not read: save the model again with "
                "save_pretrained(..., safe_serialization=True)"
            )
        else:
            raise UserError(f"{folder} holds no weights ({WEIGHTS})")
    tensors, _ = read_safetensors(path)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names that attention had before diffusers 0.18, as Stable Diffusion 1's files still do."""
    found = {}
    for name, tensor in tensors.items():
        if re.search(r"\.attentions\.\d+\.", name):
            for old, new in _OLD_NAMES:
                name = name.replace(old, new)
        found[name] = tensor
    return found


def _fill(module: nn.Module, tensors: dict[str, Tensor], folder: Path, kind: str) -> None:
    """Give the module the tensors, all that it wants and no others."""
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    missing = [name for name in wanted if name not in tensors]
    over = [name for name in tensors if name not in wanted]
    if missing or over:
        names = missing or over
        raise UserError(
            f"{folder} is no whole {kind}: {len(names)} weights {'missing' if missing else 'of another model'}, "
            f"the first is {names[0][:80]}"
        )
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise UserError(f"{folder}: {name[:80]} is {list(tensors[name].shape)}, config.json asks for {list(shape)}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise UserError(f"{folder}: {name[:80]} holds numbers that are not finite")
    module.load_state_dict(tensors, assign=True)
    left = [name for name, tensor in module.named_buffers() if tensor.is_meta]
    if left:
        raise UserError(
            f"{folder}: this version of diffusers keeps {left[0]} out of the weights, so {kind} is not read"
        )
