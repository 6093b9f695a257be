"""Encoder and decoder of somebody else's autoencoder, with the faces of ours: diffusers' AutoencoderKL, Tiny and DC.

    z = s (E(x) − m) / d,   x̂ = D(m + d z_0 / (s α(λ₀)))        m, d: mean and standard deviation of a channel of E(x)

E is the mean of the class's posterior, or its latents; D is called once. ``s`` is what holds the bits where E is not
trained: more of it is more room above the fixed noise. D hears ``z_0 / s``, so that it never learns of s but by noise.

A configuration chooses one of three names that stand here, and numbers for its constructor. Nothing in it is imported
or run, and the classes come from diffusers when they are built, not before.
"""

import functools
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from unilat.fields import FieldError
from unilat.nets.denoiser import call, per_channel
from unilat.types import UserError

Kind = Literal["AutoencoderKL", "AutoencoderTiny", "AutoencoderDC"]
CLASSES: tuple[str, ...] = get_args(Kind)
HALVES = {"encoder": ("encoder", "quant_conv"), "decoder": ("decoder", "post_quant_conv")}
"""What of a class's parts belongs to which half; those that a class has not are none."""
UNFIT = (
    TypeError,
    ValueError,
    KeyError,
    RuntimeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    NotImplementedError,
)
"""What the constructors and networks of diffusers raise for numbers that do not fit."""
LEAST = 1e-3
"""Smallest standard deviation of a channel, as a share of the largest: the rounding of a dead one is not blown up."""
_WORD = re.compile(r"[A-Za-z0-9_]{0,60}")


@dataclass(frozen=True, kw_only=True)
class ForeignConfig:
    """Which autoencoder it is, and what of it is kept. Read from its folder, not written by hand."""

    kind: Kind
    """Its class."""
    values: str
    """JSON of all values of the class's constructor."""
    sha256: str
    """Of its weights as they were read."""
    decoder: Literal["ours", "own"] = "ours"
    """Whether the diffusion decoder is trained from nothing, or the model's own is kept, or tuned."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what is no configuration of the class; ``name`` is its field."""
        try:
            tree = json.loads(self.values)
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict) or not all(_WORD.fullmatch(key) and _plain(one) for key, one in tree.items()):
            raise FieldError(f"{name}.values must be the JSON of an {self.kind}: numbers, words and lists of them")
        try:
            numbers = self.channels, self.latent_channels, self.factor
        except (KeyError, TypeError, ValueError):
            numbers = ()
        if not numbers or not all(1 <= number < 2**17 for number in numbers):
            raise FieldError(f"{name}.values must tell channels, latent_channels and levels of an {self.kind}")

    @property
    def channels(self) -> int:
        """Of the pictures."""
        return int(self._values["in_channels"])

    @property
    def latent_channels(self) -> int:
        """Of the latents."""
        return int(self._values["latent_channels"])

    @property
    def whole(self) -> bool:
        """Whether it makes as many channels as it takes."""
        return self._values.get("out_channels", self.channels) == self.channels

    @property
    def factor(self) -> int:
        """Pixels that a latent place covers along each side."""
        stages = "block_out_channels" if self.kind == "AutoencoderKL" else "encoder_block_out_channels"
        return 2 ** (len(self._values[stages]) - 1)

    @functools.cached_property
    def _values(self) -> Mapping[str, Any]:
        return json.loads(self.values)

    def build(self) -> Any:
        """The class with these values, in float32 and with whatever weights it starts with; raises :class:`UserError`.

        The state of torch's generator stays as it was.
        """
        return built(self.kind, self._values, "autoencoder.foreign")


def built(kind: str, values: Mapping[str, object], name: str) -> Any:
    """The class ``kind`` of the three with those of ``values`` that its constructor takes; ``name``: who says so."""
    cls = _classes()[kind]
    known = set(inspect.signature(cls.__init__).parameters) - {"self"}
    try:
        with torch.random.fork_rng(devices=[]):
            return cls(**{key: value for key, value in values.items() if key in known})
    except UNFIT as error:
        raise UserError(f"{name} fits no {kind} ({one_line(error)})") from None


def described(kind: str, module: Any, sha256: str) -> ForeignConfig:
    """The configuration of a built ``module``, its defaults spelled out."""
    known = inspect.signature(type(module).__init__).parameters
    values = {key: value for key, value in sorted(dict(module.config).items()) if key in known}
    config = ForeignConfig(kind=kind, values=json.dumps(values), sha256=sha256)  # pyright: ignore[reportArgumentType]
    config.check("its config.json")
    return config


def one_line(error: BaseException) -> str:
    """An error of diffusers' in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


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


def _plain(value: object, depth: int = 3) -> bool:
    """Whether a value of a configuration is a number, a word, nothing, or a list of such."""
    if isinstance(value, list):
        return depth > 0 and len(value) <= 256 and all(_plain(one, depth - 1) for one in value)
    if isinstance(value, str):
        return bool(_WORD.fullmatch(value))
    return value is None or (isinstance(value, bool | int | float) and math.isfinite(value))


def encoded(module: Any, kind: str, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """``(mode, log-variance)`` of an AutoencoderKL's posterior, or ``(latents, None)``, in float32."""
    found = module.encode(x)
    if kind == "AutoencoderKL":
        return found.latent_dist.mode().float(), found.latent_dist.logvar.float()
    return (found.latent if kind == "AutoencoderDC" else found.latents).float(), None


def half(module: Any, name: str) -> Any:
    """``module`` with one of its halves alone, in place."""
    for other in HALVES["decoder" if name == "encoder" else "encoder"]:
        if hasattr(module, other):
            setattr(module, other, None)
    return module


class ForeignEncoder(nn.Module):
    """``x [B, C, H, W] -> z [B, latent_channels, h, w]``, deterministic: the mean where the class has a posterior.

    Always float32: what is rounded in ``z`` is noise that the prior pays for, and the inside is not ours to split.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, config: ForeignConfig):
        super().__init__()
        self.kind, self.net = config.kind, half(config.build(), "encoder")
        self.register_buffer("mean", per_channel(torch.zeros(config.latent_channels), 2))
        self.register_buffer("std", per_channel(torch.ones(config.latent_channels), 2))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.posterior(x_BCHW)[0]

    def posterior(self, x_BCHW: Tensor) -> tuple[Tensor, None]:
        """``(z, None)``: a point."""
        return self.scaled(self.unscaled(x_BCHW)), None

    def unscaled(self, x_BCHW: Tensor) -> Tensor:
        """E(x): what never changes where the weights are kept."""
        return encoded(self.net, self.kind, x_BCHW.contiguous())[0]

    def scaled(self, own_BCHW: Tensor) -> Tensor:
        """z of :meth:`unscaled`."""
        return (own_BCHW - self.mean) * (self.scale / self.std)

    @torch.no_grad()
    def standardise(self, x_BCHW: Tensor) -> None:
        """Let each channel of z have mean 0 and variance 1 on ``x``, dead ones less."""
        own = torch.cat([encoded(self.net, self.kind, part)[0] for part in x_BCHW.split(32)])
        std = own.std((0, 2, 3), keepdim=True)
        self.mean.copy_(own.mean((0, 2, 3), keepdim=True))
        self.std.copy_(std.clamp_min(LEAST * float(std.max()) or 1.0))

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Multiply the latents by ``scale``."""
        self.scale.mul_(scale)


class ForeignDecoder(nn.Module):
    """``z_0 / s [B, latent_channels, h, w] -> x [B, C, H, W]`` in one call; ``x_t`` and its level change nothing."""

    mean: Tensor
    std: Tensor
    precision: torch.dtype = torch.float32

    def __init__(self, config: ForeignConfig, lambda_0: float):
        super().__init__()
        self.net, self.alpha_0 = half(config.build(), "decoder"), math.sqrt(1 / (1 + math.exp(-lambda_0)))
        self.register_buffer("mean", per_channel(torch.zeros(config.latent_channels), 2))
        self.register_buffer("std", per_channel(torch.ones(config.latent_channels), 2))

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: Tensor) -> Tensor:
        own_BCHW = self.mean + self.std * (cond / self.alpha_0)
        return call(self.made, self.precision, own_BCHW.contiguous())

    def made(self, own_BCHW: Tensor) -> Tensor:
        """The picture of a latent at the model's own scale."""
        return self.net.decode(own_BCHW).sample
