"""Nodes of ComfyUI for the export that this file lies in: put the folder into ComfyUI/custom_nodes and restart.

Load gives the model and a VAE that ComfyUI's own VAE Decode and VAE Encode take; Sample draws latents, Decode and
Encode go between them and pictures. IMAGE is float32 ``[B, H, W, C]`` in [0, 1], LATENT ``{"samples": [B, C, h, w]}``.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unilat.interop.published.coding import Coding, check_steps, decode, networks, noise, picture_shape, posterior
from unilat.interop.published.sampling import Sampling, check_call, draw, network, numbers

HERE = Path(__file__).resolve().parent
MODEL = f"UNILAT {HERE.name}"
"""Type of what Load gives; of another export it is another."""
IN_TURN = "(all in turn)"
SEED = ("INT", {"default": 0, "min": 0, "max": 2**63 - 1})
STEPS = ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "0: as it was made for"})
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey picture."""
WEIGHTS = "diffusion_pytorch_model.safetensors"


def read(part: str) -> dict:
    """A part's configuration; empty where the export has no such part."""
    path = HERE / part / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def device() -> torch.device:
    """Where ComfyUI computes, or a CPU outside it."""
    try:
        from comfy.model_management import get_torch_device  # pyright: ignore[reportMissingImports]
    except ImportError:
        return torch.device("cpu")
    return get_torch_device()


def filled(net: nn.ModuleDict, part: str) -> nn.ModuleDict:
    """``net`` with the part's weights, all of them and no others."""
    net.load_state_dict(load_file(HERE / part / WEIGHTS))
    return net.eval().requires_grad_(False)


class Model:
    """The networks of this export; its ``encode`` and ``decode`` are those of a VAE of ComfyUI."""

    def __init__(self):
        vae, base = read("vae"), read("base")
        config = vae | {"encoder": vae["encoder_config"], "decoder": vae["decoder_config"]}
        self.coding = Coding(**{one.name: config[one.name] for one in dataclasses.fields(Coding)})
        self.encoder, self.decoder = networks(self.coding)
        self.device, self.factor = device(), int(vae["spatial_compression_ratio"])
        filled(nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder}), "vae").to(self.device)
        self.sampling = None
        if base:
            self.sampling = sampling_of(base)
            self.denoise = network(self.sampling)
            filled(nn.ModuleDict({"denoise": self.denoise}), "base").to(self.device)

    @torch.no_grad()
    def encode(self, pixels: Tensor, seed: int | None = None) -> Tensor:
        """IMAGE -> latents z_0, with their noise where there is a seed; what does not divide is cut off around."""
        x = pixels[..., :3].movedim(-1, 1)
        if self.coding.in_channels == 1:
            x = (x * x.new_tensor(GREY).view(1, -1, 1, 1)).sum(1, keepdim=True) if x.shape[1] == 3 else x[:, :1]
        tops = [side % self.factor // 2 for side in x.shape[2:]]
        ends = [top + side // self.factor * self.factor for top, side in zip(tops, x.shape[2:], strict=True)]
        x = x[:, :, tops[0] : ends[0], tops[1] : ends[1]].to(self.device)
        mean, log_variance = posterior(self.coding, self.encoder, 2 * x.float() - 1)
        if seed is None:
            return mean.cpu()
        eps = noise(seed, "encode", len(mean), tuple(mean.shape[1:])).to(mean.device)
        return (mean + torch.exp(0.5 * log_variance) * eps).cpu()

    @torch.no_grad()
    def decode(self, samples: Tensor, seed: int = 0, steps: int | None = None) -> Tensor:
        """Latents -> IMAGE."""
        check_steps(self.coding, steps)
        z_0, shape = samples.float().to(self.device), picture_shape(self.coding, samples)
        x_1 = noise(seed, "decode", len(z_0), shape).to(self.device)
        x = decode(self.coding, self.decoder, z_0, x_1, steps)
        images = (x / 2 + 0.5).clamp(0, 1).movedim(1, -1).cpu()
        return images.expand(-1, -1, -1, 3).contiguous() if images.shape[-1] == 1 else images

    @torch.no_grad()
    def sample(self, label: str, count: int, seed: int, guidance: float | None, steps: int | None) -> Tensor:
        """Latents z_0 of a class, or of all in turn; picture i depends on (seed, i) alone."""
        assert self.sampling is not None
        check_call(self.sampling, guidance, steps)
        labels = numbers(self.sampling, None if label == IN_TURN else label, count).to(self.device)
        shape = (self.sampling.in_channels, *self.sampling.sample_size)
        z_1 = noise(seed, "sample", count, shape).to(self.device)
        return draw(self.sampling, self.denoise, z_1, labels, guidance, steps).cpu()


def sampling_of(base: dict) -> Sampling:
    """What the configuration of the model of latents says, lists as tuples."""
    given = {one.name: base[one.name] for one in dataclasses.fields(Sampling)}
    plain: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in given.items()}
    return Sampling(**plain)


@functools.cache
def model() -> Model:
    """Read once."""
    return Model()


class Load:
    """The model of this folder, and its autoencoder as a VAE."""

    RETURN_TYPES = (MODEL, "VAE")
    RETURN_NAMES = ("model", "vae")
    FUNCTION = "load"
    CATEGORY = "unilat"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        return (model(), model())


class Sample:
    """New latents of a class."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    CATEGORY = "unilat"

    @classmethod
    def INPUT_TYPES(cls):
        base = read("base")
        needed = {"model": (MODEL,), "count": ("INT", {"default": 4, "min": 1, "max": 4096}), "seed": SEED}
        if base.get("classes"):
            needed["label"] = ([IN_TURN, *base["classes"]],)
        if base.get("grid") is None:
            needed["steps"] = STEPS
            if base.get("classes"):
                scale = {"default": base["guidance_scale"], "min": 0.0, "max": 20.0, "step": 0.1}
                needed["guidance"] = ("FLOAT", scale)
        return {"required": needed}

    def sample(self, model, count, seed, label=IN_TURN, steps=0, guidance=None):
        return ({"samples": model.sample(label, count, seed, guidance, steps or None)},)


class Decode:
    """Pictures of latents."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    CATEGORY = "unilat"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": (MODEL,), "samples": ("LATENT",), "seed": SEED, "steps": STEPS}}

    def decode(self, model, samples, seed, steps):
        return (model.decode(samples["samples"], seed, steps or None),)


class Encode:
    """Latents of pictures, with the noise that the decoder was trained on."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = "unilat"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": (MODEL,), "pixels": ("IMAGE",), "seed": SEED}}

    def encode(self, model, pixels, seed):
        return ({"samples": model.encode(pixels, seed)},)


_NODES = {"Load": Load, "Decode": Decode, "Encode": Encode} | ({"Sample": Sample} if read("base") else {})
NODE_CLASS_MAPPINGS = {f"Unilat{name} {HERE.name}": node for name, node in _NODES.items()}
NODE_DISPLAY_NAME_MAPPINGS = {f"Unilat{name} {HERE.name}": f"{name} ({HERE.name})" for name in _NODES}
