"""Autoencoders that diffusers' ``save_pretrained`` wrote: AutoencoderKL, AutoencoderTiny, AutoencoderDC.

A configuration file chooses one of three names that stand here, and numbers for its constructor; nothing in it is ever
imported or run. Weights come from safetensors, each tensor that the class wants and no other: diffusers itself only
warns about missing ones and leaves them random. The class is built on the meta device and takes the file's tensors, so
a configuration that asks for more than the file holds costs no memory.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unilat.files import digest, read_json, read_safetensors
from unilat.interop.model import Declared, Encoded
from unilat.types import UserError

CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
WEIGHTS = "diffusion_pytorch_model.safetensors"
DECLARED = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
_STAGES = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "encoder_block_out_channels",
    "AutoencoderDC": "encoder_block_out_channels",
}
_OLD_NAMES = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))
_UNFIT = (
    TypeError,
    ValueError,
    KeyError,
    RuntimeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    NotImplementedError,
)


class DiffusersModel:
    """One of the three classes with its weights, frozen and in float32."""

    def __init__(self, module: Any, config: Mapping[str, object], name: str, sha256: str):
        self.module, self.name, self.sha256 = module, name, sha256
        self.kind = str(config["_class_name"])
        known = {key: _number_or_list(config.get(key), key, name) for key in DECLARED}
        self.declared: Declared = {key: value for key, value in known.items() if value is not None}
        self.channels = int(module.config.in_channels)
        self.factor = 2 ** (len(getattr(module.config, _STAGES[self.kind])) - 1)

    def check_size(self, height: int, width: int) -> None:
        """Refuse pictures that the encoder's strides do not divide; raises :class:`UserError`."""
        if height % self.factor or width % self.factor:
            fits = max(1, round(height / self.factor)) * self.factor
            raise UserError(
                f"{self.name} shrinks pictures {self.factor} times and {height} × {width} does not fit: `size` {fits}"
            )

    @torch.no_grad()
    def encode(self, x: Tensor) -> Encoded:
        """The posterior's mode and log-variance (AutoencoderKL), or the latents."""
        self.check_size(*x.shape[2:])
        try:
            found = self.module.encode(x)
        except _UNFIT as error:
            raise UserError(f"{self.name} cannot encode pictures of {list(x.shape[1:])} ({_line(error)})") from None
        if self.kind == "AutoencoderKL":
            return Encoded(found.latent_dist.mode().float(), found.latent_dist.logvar.float())
        return Encoded((found.latent if self.kind == "AutoencoderDC" else found.latents).float())

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor | None:
        """Pictures in [-1, 1], not clipped."""
        return self.module.decode(z).sample.float()


def is_folder(path: Path) -> bool:
    """Whether this is meant as a diffusers folder: a folder with a config.json or a model_index.json."""
    return path.is_dir() and any((path / name).is_file() for name in ("config.json", "model_index.json"))


def load(folder: Path, device: torch.device | str = "cpu") -> DiffusersModel:
    """The model of a folder; raises :class:`UserError` for what is no whole model of the three classes."""
    if (folder / "model_index.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(f"{folder} is a whole pipeline: name its autoencoder, {folder / 'vae'}")
    config = read_json(folder / "config.json")
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind not in CLASSES:
        if isinstance(config, dict) and "autoencoder" in config and "stage1" in config:
            raise UserError(f"{folder} is a run of unilat's own: `unilat evaluate {folder}` measures it")
        raise UserError(f"{folder}/config.json names the class {str(kind)[:60]!r}; read are {', '.join(CLASSES)}")
    tensors = _renamed(_weights(folder))
    module = _built(str(kind), config, folder)
    _fill(module, tensors, folder, str(kind))
    module.eval().requires_grad_(False).to(device)
    return DiffusersModel(module, config, str(folder), digest(tensors))


def _classes() -> dict[str, Callable[..., Any]]:
    """The three classes by name; diffusers takes seconds to import, so only here."""
    try:
        from diffusers import (
            AutoencoderDC,  # pyright: ignore[reportPrivateImportUsage]
            AutoencoderKL,  # pyright: ignore[reportPrivateImportUsage]
            AutoencoderTiny,  # pyright: ignore[reportPrivateImportUsage]
        )
    except ImportError:
        raise UserError("reading a diffusers folder needs diffusers: pip install 'unilat[diffusers]'") from None
    return {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny, "AutoencoderDC": AutoencoderDC}


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


def _built(kind: str, config: Mapping[str, object], folder: Path) -> Any:
    """The class with the configuration's values, on the meta device: shapes without numbers."""
    cls = _classes()[kind]
    known = set(inspect.signature(cls.__init__).parameters) - {"self"}
    values = {key: value for key, value in config.items() if key in known}
    try:
        with torch.device("meta"):
            return cls(**values)
    except _UNFIT as error:
        raise UserError(f"{folder}/config.json fits no {kind} ({_line(error)})") from None


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


def _number_or_list(value: Any, key: str, name: str) -> float | list[float] | None:
    """A finite number or a list of them, as the configuration may state it."""
    numbers = value if isinstance(value, list | tuple) else [value]
    if value is None:
        return None
    for one in numbers:
        if isinstance(one, bool) or not isinstance(one, int | float) or not abs(one) < 1e30:
            raise UserError(f"{name}/config.json: {key} must be a number or a list of numbers, not {str(value)[:60]}")
    return [float(one) for one in numbers] if isinstance(value, list | tuple) else float(value)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
