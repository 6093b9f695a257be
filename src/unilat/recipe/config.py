"""The whole configuration of a run: frozen dataclasses that stand next to what they build, and their JSON.

The resolved configuration lies in every run folder; reading it back is strict: an unknown or misspelt key is an error.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

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
    at_most: int | None = None
    """Largest number of pictures read, evenly spread over the source; all by default."""
    held_out: float = 0.1
    """Share of the pictures that is never trained on; the official test split is used where there is one."""
    held_out_at_most: int = 2000
    """Largest number of pictures held out."""
    calibration: int = 512
    """Training pictures set aside to measure the rate of the averaged weights while training."""


SETTLED = 0.8
"""What a settled prior is taken to need of the co-trained one's bits: 0.65 to 0.93 were seen, the trim mends it."""


@dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Training of encoder, prior and decoder. Lengths count pictures seen."""

    autoencoder: str | None = None
    """Run folder whose autoencoder is taken as it is; stage 1 is then not trained."""
    target_bpp: float | None = 0.3
    """Wanted bits per pixel of the latent; the loss factor is moved until the rate holds there."""
    loss_factor: float | None = None
    """A fixed loss factor instead of wanted bits (UL Sec. 3.2: 1.3 to 1.7 for them)."""
    samples: int = 36_000
    """Pictures seen in training."""
    batch: int = 32
    """Pictures a step."""
    learning_rate: float = 1.5e-3
    """Peak learning rate."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: orthogonal steps for the networks' inner matrices, AdamW for the rest. adamw: for all."""
    warmup: int = 2_000
    """Pictures over which the learning rate rises from zero."""
    decay: float = 0.4
    """Last share of training over which the learning rate falls to zero."""
    ema_halflife: int = 2_000
    """Half-life of the weight average."""
    clip: float = 1.0
    """Largest gradient norm of the loss in nats per dimension of the data."""
    levels: Literal["learned", "fixed"] = "learned"
    """learned: noise levels fall along the loss that training sees. fixed: along that of signals of unit variance."""
    unit_scale: bool = True
    """Start with latents of unit scale, from the first batch."""
    prior_warmup: int = 0
    """Pictures over which the rate's gradient into the encoder rises from zero, so that the prior learns first."""
    follow_every: int = 1_600
    """Pictures between two looks at the latents' covariance, on which the prior builds."""
    settle: int = 0
    """Latents that the prior alone sees after encoder and decoder are done: its bound comes nearer to the truth, and
    the bits that this saves come back as less noise in the latent. A normal prior has nothing to learn."""
    calibrate_every: int = 3_200
    """Pictures between two measurements on the calibration pictures."""
    control: ControlConfig = field(default_factory=ControlConfig)
    """The controller."""


@dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """Training of the base model on frozen latents. Lengths count latents seen."""

    samples: int = 50_000
    """Latents seen in training; 0 leaves stage 2 out."""
    batch: int = 64
    """Latents a step."""
    learning_rate: float = 8e-3
    """Peak learning rate."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """muon: orthogonal steps for the networks' inner matrices, AdamW for the rest. adamw: for all."""
    warmup: int = 4_000
    """Latents over which the learning rate rises from zero."""
    decay: float = 0.4
    """Last share of training over which the learning rate falls to zero."""
    ema_halflife: int = 5_000
    """Half-life of the weight average."""
    clip: float = 1.0
    """Largest gradient norm of the loss in nats per dimension of the latent."""
    levels: Literal["learned", "fixed"] = "fixed"
    """As in stage 1; nothing was measured to be gained here (LOG.md)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured after training, and how a picture is made."""

    pictures: int = 1000
    """Held-out pictures measured, at most."""
    samples: int = 1000
    """Pictures generated for the distance."""
    rate_levels: int = 8
    """Noise levels drawn for each held-out picture when its bits are measured."""
    decoder_steps: int = 1
    """Network calls of the decoder for a picture; a decoder trained for minutes is at its best with 1 (LOG.md)."""
    decoder_range: tuple[float, float] = (-6.0, 3.0)
    """Log-SNR of the decoder's first and last call; the last one's answer is the picture."""
    decoder_temperature: float = 0.2
    """Standard deviation of the noise a picture is decoded from: 1 as in training, less leaves out grain (LOG.md)."""
    step_counts: tuple[int, ...] = (1, 4)
    """Step counts at which reconstructions are shown and measured."""
    base_steps: int = 8
    """Network calls of the base model for a latent (second-order sampler); 20 gained nothing (LOG.md)."""
    guidance: float = 1.5
    """Scale of classifier-free guidance; 1 is none. Only where pictures have classes."""
    sample_from: Literal["base", "prior"] = "base"
    """Where latents are drawn from when there is no base model: nowhere, or stage 1's prior (single-stage training)."""
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
    except (ValueError, RecursionError) as error:
        raise UserError(f"the configuration is not JSON: {error}") from None
    if isinstance(values, dict) and isinstance(values.get("stage1"), dict) and "bpp" in values["stage1"]:
        values["stage1"].setdefault("target_bpp", values["stage1"].pop("bpp"))  # its name until November 2026
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
    _check_numbers(config)
    _check_networks(config)
    ae, size, cell = config.autoencoder, config.data.size, _cell(config)
    if size < 2 * ae.encoder.factor[-1] or size < cell or size % cell:
        least = max(cell, -(-2 * ae.encoder.factor[-1] // cell) * cell)
        raise UserError(
            f"pictures of {size} pixels do not fit the networks' grid of {cell}-pixel cells: "
            f"give --size a multiple of {cell}, {least} or more"
        )
    if (config.stage1.target_bpp is None) == (config.stage1.loss_factor is None):
        raise UserError(
            "give either wanted bits (--target-bpp 0.2) or a fixed loss factor (--loss-factor 1.5), not both or none"
        )
    reach = capacity(config)
    if config.stage1.target_bpp is not None and config.stage1.target_bpp > reach:
        grid = size // ae.encoder.factor[-1]
        need = -(-config.stage1.target_bpp * ae.latent_channels // reach)
        raise UserError(
            f"{config.stage1.target_bpp:g} bits per pixel are more than a latent of {ae.latent_channels}×{grid}×{grid} "
            f"carries at unit variance ({reach:.3g}): ask for less, or set --autoencoder.latent-channels {need:.0f} "
            "or more"
        )
    floor = normal_floor(config)
    if config.stage1.target_bpp is not None and ae.price == "normal" and config.stage1.target_bpp <= floor:
        raise UserError(
            f"a KL term to N(0, I) stands at {floor:.3g} bits per pixel for an empty latent with the noise of "
            f"λ₀ = {ae.lambda_0:g}: ask for more than that, or add --autoencoder.learned-variance"
        )
    _check_variants(ae)
    if not -math.inf < ae.lambda_min < ae.lambda_0 <= ae.lambda_max < math.inf:
        raise UserError(
            f"lambda_min < lambda_0 <= lambda_max must hold, not {ae.lambda_min}, {ae.lambda_0}, {ae.lambda_max}"
        )


def _check_numbers(config: RunConfig) -> None:
    """Counts, lengths and shares, each with the least it may be."""
    counts = {
        "data.held_out_at_most": 1, "data.calibration": 0, "autoencoder.latent_channels": 1, "stage1.prior_warmup": 0,
        "autoencoder.prior.patch": 1, "autoencoder.prior.head_width": 1, "autoencoder.decoder.head_width": 1,
        "base.vit.patch": 1, "base.vit.head_width": 1,
        "stage1.samples": 1, "stage1.batch": 1, "stage1.calibrate_every": 1, "stage1.follow_every": 1,
        "stage1.settle": 0,
        "autoencoder.covariance_up_to": 0, "stage2.samples": 0, "stage2.batch": 1,
        "autoencoder.decoder.width": 1, "autoencoder.decoder.depth": 0,
        "evaluation.pictures": 1, "evaluation.samples": 1, "evaluation.rate_levels": 1,
        "evaluation.decoder_steps": 1, "evaluation.base_steps": 1,
    }  # fmt: skip
    positive = ("stage1.target_bpp", "stage1.loss_factor", "stage1.learning_rate", "stage1.clip",
                "stage2.learning_rate", "stage2.clip", "stage1.control.smoothing", "stage1.control.start")  # fmt: skip
    shares = ("data.held_out", "stage1.decay", "stage2.decay", "base.label_dropout", "base.token_dropping",
              "base.vit.dropout", "autoencoder.prior.dropout", "autoencoder.decoder.dropout")  # fmt: skip
    values = _flatten(dataclasses.asdict(config))
    if config.data.at_most is not None and config.data.at_most < 1:
        raise UserError(f"--data.at-most must be 1 or more, not {config.data.at_most}")
    for name, least in counts.items():
        if values[name] < least:
            raise UserError(f"{_option(name)} must be {least} or more, not {values[name]}")
    for name in positive:
        if values[name] is not None and not 0 < values[name] < math.inf:
            raise UserError(f"{_option(name)} must be a positive number, not {values[name]}")
    for name in shares:
        if not 0 <= values[name] <= 1:
            raise UserError(f"{_option(name)} must lie between 0 and 1, not {values[name]}")
    cells = [config.autoencoder.encoder.patch, *config.autoencoder.encoder.strides]
    cells += [config.autoencoder.decoder.patch, *config.autoencoder.decoder.strides]
    if any(side < 1 for cell in cells for side in cell):
        raise UserError("patches and strides of --autoencoder.encoder and .decoder must be 1 or more along each axis")
    if abs(config.evaluation.guidance) > 1000:
        raise UserError(
            f"--evaluation.guidance beyond 1000 is no guidance: 1 to 5 is usual, not {config.evaluation.guidance:g}"
        )
    free = ("autoencoder.bias", "base.bias", "evaluation.guidance")
    for name in (*free, "stage1.control.gain", "stage1.control.proportional"):
        if not math.isfinite(values[name]):
            raise UserError(f"{_option(name)} must be a number, not {values[name]}")
    low, high = config.evaluation.decoder_range
    if not -math.inf < low < high < math.inf:
        raise UserError(f"--evaluation.decoder-range must rise from noisy to clean, -6 3 for example, not {low} {high}")
    if not 0 <= config.evaluation.decoder_temperature <= 1:
        raise UserError(
            f"--evaluation.decoder-temperature must lie between 0 and 1, not {config.evaluation.decoder_temperature}"
        )
    if not 1 < config.stage1.control.limit < math.inf:
        raise UserError(f"--stage1.control.limit must be more than 1, not {config.stage1.control.limit}")
    if config.data.channels not in (None, 1, 3):
        raise UserError(f"--data.channels must be 1 (grey) or 3 (colour), not {config.data.channels}")
    if any(steps < 1 for steps in config.evaluation.step_counts):
        raise UserError(f"--evaluation.step-counts must be 1 or more each, not {config.evaluation.step_counts}")


def _check_variants(ae: AutoencoderConfig) -> None:
    """What stage 1 charges and asks for: weights that are weights, and options that something listens to."""
    if not 0 < ae.kl_weight < math.inf:
        raise UserError(f"--autoencoder.kl-weight must be a positive number, not {ae.kl_weight}")
    if not 0 <= ae.perceptual < math.inf:
        raise UserError(f"--autoencoder.perceptual must be 0 or a positive number, not {ae.perceptual}")
    if ae.perceptual and ae.decoder_loss != "mse":
        raise UserError("--autoencoder.perceptual stands beside a squared error: add --autoencoder.decoder-loss mse")
    if ae.random_end is not None and not (math.isfinite(ae.random_end[0]) and 0 < ae.random_end[1] < math.inf):
        raise UserError(
            f"--autoencoder.random-end is a log-SNR and a positive scale, 0 1 for example, not {ae.random_end}"
        )


def _check_networks(config: RunConfig) -> None:
    """Lists that describe the same levels must be as long, and attention heads must divide their width."""
    ae, vit = config.autoencoder, config.base.vit
    rows: list[tuple[str, Any, int | None, tuple[int, ...]]] = [
        ("autoencoder.encoder", ae.encoder, len(ae.encoder.channels) - 1, ()),
        ("autoencoder.decoder", ae.decoder, len(ae.decoder.channels), (ae.decoder.width,)),
        ("autoencoder.prior", ae.prior, None, ae.prior.channels),
        ("base.vit", vit, None, vit.channels),
    ]
    for name, net, strides, widths in rows:
        levels = len(net.channels)
        if not levels or len(net.blocks) != levels or (strides is not None and len(net.strides) != strides):
            wants = "" if strides is None else f" and {max(strides, 0)} strides"
            raise UserError(f"--{name}: {levels} levels of channels want as many counts of blocks{wants}")
        for width in widths:
            if width % max(1, width // net.head_width):
                raise UserError(f"--{name}: attention heads of {net.head_width} channels do not divide {width}")
    if config.base.token_dropping and vit.blocks[-1] < 3:
        raise UserError(
            "--base.token-dropping spares the first and the last block of the coarsest level: give --base.vit.blocks "
            f"3 or more there, not {vit.blocks[-1]}"
        )


def _cell(config: RunConfig) -> int:
    """Side in pixels of the coarsest cell of any network: what the pictures' side must be a multiple of."""
    ae = config.autoencoder
    factor = ae.encoder.factor[-1]
    decoder = math.prod([ae.decoder.patch[-1], *(stride[-1] for stride in ae.decoder.strides)])
    vits = (factor * net.patch * 2 ** (len(net.channels) - 1) for net in (ae.prior, config.base.vit))
    return math.lcm(*ae.encoder.factor[-2:], decoder, *vits)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def capacity(config: RunConfig) -> float:
    """Bits per pixel of a latent of unit variance, ``½ log2(1 + e^λ₀)`` a dimension: what the noise λ₀ lets through."""
    ae = config.autoencoder
    return ae.latent_channels / math.prod(ae.encoder.factor) * 0.5 * math.log2(1 + math.exp(ae.lambda_0))


def aim(config: RunConfig) -> float | None:
    """Bits per pixel held while all networks train: above the wanted ones where the prior settles afterwards.

    Never more than halfway to the latent's capacity.
    """
    wanted = config.stage1.target_bpp
    if wanted is None or not config.stage1.settle or config.autoencoder.price == "normal":
        return wanted
    return min(wanted / SETTLED, (wanted + capacity(config)) / 2)


def normal_floor(config: RunConfig) -> float:
    """Bits per pixel that a normal prior charges for latents that say nothing, ``½ (σ² − 1 − ln σ²)`` a dimension.

    Of the fixed noise at λ₀; a learned variance can fill the prior, so it has no floor.
    """
    ae = config.autoencoder
    if ae.learned_variance:
        return 0.0
    variance = 1 / (1 + math.exp(ae.lambda_0))
    nats = 0.5 * (variance - 1 - math.log(variance))
    return ae.latent_channels / math.prod(ae.encoder.factor) * nats / math.log(2)


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


def latent_grid(config: RunConfig) -> tuple[int, ...]:
    """Sides of the latents of the configured pictures."""
    return tuple(config.data.size // step for step in config.autoencoder.encoder.factor)
