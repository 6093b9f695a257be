"""The whole configuration of a run: frozen dataclasses that stand next to what they build, and their JSON.

The resolved configuration lies in every run folder; reading it back is strict: an unknown or misspelt key is an error.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from unilat.models.autoencoder import AutoencoderConfig
from unilat.models.base import BaseConfig
from unilat.models.control import ControlConfig
from unilat.types import UserError


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pictures come from and which are kept out of training."""

    source: str = "glyphs"
    """A folder, an .npz, .npy or .parquet file, a data set folder of `datasets`, or a name of `unilat data get`."""
    size: int = 32
    """Side of the square pictures in pixels."""
    channels: int | None = None
    """1 for grey, 3 for colour; by default colour where any picture has some."""
    held_out: float = 0.1
    """Share of the pictures that is never trained on; the official test split is used where there is one."""
    held_out_at_most: int = 2000
    """Largest number of pictures held out."""
    calibration: int = 512
    """Training pictures set aside to measure the rate of the averaged weights while training."""


@dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Training of encoder, prior and decoder. Lengths count pictures seen."""

    bpp: float | None = 0.3
    """Wanted bits per pixel of the latent; the loss factor is moved until the rate holds there."""
    loss_factor: float | None = None
    """A fixed loss factor instead of wanted bits (UL Sec. 3.2: 1.3 to 1.7 for them)."""
    samples: int = 48_000
    """Pictures seen in training."""
    batch: int = 32
    """Pictures a step."""
    learning_rate: float = 1.5e-3
    """Peak learning rate of Adam."""
    warmup: int = 2_000
    """Pictures over which the learning rate rises from zero."""
    decay: float = 0.4
    """Last share of training over which the learning rate falls to zero."""
    ema_halflife: int = 2_000
    """Half-life of the weight average."""
    clip: float = 1.0
    """Largest gradient norm of the loss in nats per dimension of the data."""
    unit_scale: bool = True
    """Start with latents of unit scale, from the first batch."""
    prior_warmup: int = 0
    """Pictures over which the rate's gradient into the encoder rises from zero, so that the prior learns first."""
    calibrate_every: int = 3_200
    """Pictures between two measurements on the calibration pictures."""
    control: ControlConfig = field(default_factory=ControlConfig)
    """The controller."""


@dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """Training of the base model on frozen latents. Lengths count latents seen."""

    samples: int = 80_000
    """Latents seen in training; 0 leaves stage 2 out."""
    batch: int = 64
    """Latents a step."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""
    warmup: int = 4_000
    """Latents over which the learning rate rises from zero."""
    decay: float = 0.4
    """Last share of training over which the learning rate falls to zero."""
    ema_halflife: int = 5_000
    """Half-life of the weight average."""
    clip: float = 1.0
    """Largest gradient norm of the loss in nats per dimension of the latent."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured after training, and how a picture is made."""

    pictures: int = 1000
    """Held-out pictures measured, at most."""
    samples: int = 1000
    """Pictures generated for the distance."""
    rate_levels: int = 8
    """Noise levels drawn for each held-out picture when its bits are measured."""
    decoder_steps: int = 8
    """Network calls of the decoder for a picture."""
    step_counts: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Step counts at which reconstructions are shown and measured."""
    base_steps: int = 20
    """Network calls of the base model for a latent (second-order sampler)."""
    guidance: float = 1.5
    """Scale of classifier-free guidance; 1 is none. Only where pictures have classes."""
    features: str = "auto"
    """Network behind the distances: auto, none, efficientnet-lite0, or a TorchScript file."""
    classifier_samples: int = 60_000
    """Real pictures seen by the small classifier that names the samples, where pictures have classes; 0 trains none."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's result, but for the machine."""

    data: DataConfig = field(default_factory=DataConfig)
    """The pictures."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    """The networks of stage 1."""
    stage1: Stage1Config = field(default_factory=Stage1Config)
    """Training of stage 1."""
    base: BaseConfig = field(default_factory=BaseConfig)
    """The base model of stage 2."""
    stage2: Stage2Config = field(default_factory=Stage2Config)
    """Training of stage 2."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured at the end."""
    seed: int = 0
    """Seed of weights, order and noise."""


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries."""
    return dataclasses.asdict(config)


def to_json(config: RunConfig) -> str:
    """The configuration as readable JSON; :func:`from_json` reads it back to an equal object."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> RunConfig:
    """Read a configuration; raises :class:`UserError` naming the first key or value that does not fit."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"the configuration is not JSON: {error}") from None
    _refuse_unknown(RunConfig, values, "")
    try:
        return TypeAdapter(RunConfig).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"configuration: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def differences(a: RunConfig, b: RunConfig) -> list[str]:
    """Names of the fields in which two configurations differ, with both values."""
    flat_a, flat_b = _flatten(dataclasses.asdict(a)), _flatten(dataclasses.asdict(b))
    return [
        f"{name}: {flat_a.get(name)} and {flat_b.get(name)}"
        for name in flat_a | flat_b
        if flat_a.get(name) != flat_b.get(name)
    ]


def check(config: RunConfig) -> None:
    """Refuse what cannot work, before anything is built; raises :class:`UserError` with the way out."""
    ae, data = config.autoencoder, config.data
    factor = ae.encoder.factor[-1]
    if data.size < 2 * factor or data.size % factor:
        raise UserError(
            f"pictures of {data.size} pixels do not fit the encoder's grid of {factor}-pixel cells: "
            f"give --size a multiple of {factor}, {2 * factor} or more"
        )
    grid = data.size // factor
    if config.stage1.bpp is not None:
        reach = capacity(config)
        if config.stage1.bpp > reach:
            need = -(-config.stage1.bpp * ae.latent_channels // reach)
            raise UserError(
                f"{config.stage1.bpp:g} bits per pixel are more than a latent of {ae.latent_channels}×{grid}×{grid} "
                f"carries ({reach:.3g}): ask for less, or set --autoencoder.latent-channels {need:.0f} or more"
            )
    if (config.stage1.bpp is None) == (config.stage1.loss_factor is None):
        raise UserError(
            "give either wanted bits (--bpp 0.3) or a fixed loss factor (--loss-factor 1.5), not both or none"
        )
    if not ae.lambda_min < ae.lambda_0 <= ae.lambda_max:
        raise UserError(
            f"lambda_min < lambda_0 <= lambda_max must hold, not {ae.lambda_min}, {ae.lambda_0}, {ae.lambda_max}"
        )


def capacity(config: RunConfig) -> float:
    """Bits per pixel of a latent of unit variance, ``½ log2(1 + e^λ₀)`` a dimension: what the noise λ₀ lets through."""
    ae = config.autoencoder
    return ae.latent_channels / math.prod(ae.encoder.factor) * 0.5 * math.log2(1 + math.exp(ae.lambda_0))


def _refuse_unknown(kind: Any, values: Any, place: str) -> None:
    if not isinstance(values, dict):
        raise UserError(f"configuration: {place or 'the whole'} must be an object of named values")
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"configuration: unknown key {place}{name}; known are {', '.join(hints)}")
        if dataclasses.is_dataclass(hints[name]):
            _refuse_unknown(hints[name], value, f"{place}{name}.")


def _flatten(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{place}{name}.") if isinstance(value, dict) else {place + name: value}
    return flat
