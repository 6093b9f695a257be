"""The whole configuration of a run: frozen dataclasses that stand next to what they build, and their JSON.

The resolved configuration lies in every run folder; reading it back is strict: an unknown or misspelt key is an error.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from unilat.fields import FieldError, spelled
from unilat.models.autoencoder import AutoencoderConfig
from unilat.models.base import BaseConfig
from unilat.nets.perceptual import LEAST_SIDE
from unilat.recipe.parts import DataConfig, EvaluationConfig, Stage1Config, Stage2Config
from unilat.types import UserError

FRAMES = 16
"""Length of the clips that a configuration of three axes is counted for."""
SETTLED = 0.8
"""What a settled prior is taken to need of the co-trained one's bits: 0.58 to 0.93 were seen, the trim mends it."""


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


def to_dict(config: RunConfig) -> dict[str, object]:
    """The configuration as nested dictionaries."""
    return dataclasses.asdict(config)


def to_json(config: RunConfig) -> str:
    """The configuration as readable JSON; :func:`from_json` reads it back to an equal object."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> RunConfig:
    """Read a configuration; raises :class:`UserError` naming the first key or value that does not fit."""
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
        _refuse_numbers(values)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the configuration is not JSON: {error}") from None
    if isinstance(values, dict) and isinstance(values.get("stage1"), dict) and "bpp" in values["stage1"]:
        values["stage1"].setdefault("target_bpp", values["stage1"].pop("bpp"))  # its name until November 2026
    if isinstance(values, dict) and isinstance(values.get("data"), dict) and type(values["data"].get("size")) is int:
        values["data"]["size"] = [values["data"]["size"]] * 2  # pictures were squares until November 2026
    _refuse_unknown(RunConfig, values, "")
    try:
        return TypeAdapter(RunConfig).validate_python(values)
    except RecursionError:
        raise UserError("configuration: it is nested deeper than any configuration") from None
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
    """Refuse what cannot work, before anything is built; raises :class:`FieldError` with the way out.

    Each part checks itself; here stands what only several of them together can break.
    """
    config.data.check("data")
    config.autoencoder.check("autoencoder")
    config.stage1.check("stage1")
    config.base.check("base")
    config.stage2.check("stage2")
    config.evaluation.check("evaluation")
    if len(config.autoencoder.decoder.patch) != len(config.autoencoder.encoder.patch):
        raise FieldError("autoencoder.decoder.patch and autoencoder.encoder.patch must have as many axes")
    _check_grid(config)
    _check_perceptual(config)
    _check_start(config)
    ae, wanted, reach = config.autoencoder, config.stage1.target_bpp, capacity(config)
    if wanted is None:
        return
    if wanted > reach and not _scaled(config):
        grid = "×".join(map(str, latent_grid(config)))
        need = -(-wanted * ae.latent_channels // reach)
        raise FieldError(
            f"{wanted:g} bits per pixel are more than a latent of {ae.latent_channels}×{grid} carries at unit variance "
            f"({reach:.3g}): ask for less, or set autoencoder.latent_channels {need:.0f} or more"
        )
    floor = normal_floor(config)
    if ae.price == "normal" and wanted <= floor:
        raise FieldError(
            f"a KL term to N(0, I) stands at {floor:.3g} bits per pixel for an empty latent with the noise of "
            f"λ₀ = {ae.lambda_0:g}: ask for more than that, or add autoencoder.learned_variance"
        )


def _scaled(config: RunConfig) -> bool:
    """Whether the latents have a scale beside the encoder's weights: more of it, and they carry more than at 1."""
    return config.autoencoder.foreign is not None or config.autoencoder.frozen


def _check_start(config: RunConfig) -> None:
    """What is taken over must come from somewhere, once, and see pictures of its own channels."""
    ae, one = config.autoencoder, config.stage1
    if one.start is not None and one.autoencoder is not None:
        raise FieldError(f"stage1.start trains from {one.start} and stage1.autoencoder takes a run as it is: give one")
    if _scaled(config) and one.start is None and one.autoencoder is None:
        raise FieldError("an encoder is taken over, and nobody says whose: give stage1.start its folder")
    if ae.frozen and one.target_bpp is None:
        raise FieldError(
            "no loss factor moves the bits of an encoder that is kept as it is: give target_bpp, which its scale holds"
        )
    if ae.foreign is not None and config.data.channels != ae.foreign.channels:
        raise FieldError(
            f"this {ae.foreign.kind} takes pictures of {ae.foreign.channels} channels, and data.channels is "
            f"{config.data.channels}: leave it out"
        )


def _check_grid(config: RunConfig) -> None:
    """Each axis of the pictures must be divided by the networks' grid."""
    size, factor = config.data.size, config.autoencoder.encoder.factor[-2:]
    cells = _cell(config, -2), _cell(config, -1)
    least = [max(cell, -(-2 * fold // cell) * cell) for fold, cell in zip(factor, cells, strict=True)]
    wrong = [axis for axis in (0, 1) if size[axis] < least[axis] or size[axis] % cells[axis]]
    if not wrong:
        return
    above = [max(low, -(-side // cell) * cell) for low, side, cell in zip(least, size, cells, strict=True)]
    below = [max(low, side // cell * cell) for low, side, cell in zip(least, size, cells, strict=True)]
    near = " or ".join(dict.fromkeys(spelled((high, wide)) for high, wide in (below, above)))
    names = " and ".join(f"a {('height', 'width')[axis]} of {size[axis]}" for axis in wrong)
    wanted = " and ".join(dict.fromkeys(f"a multiple of {cells[axis]}, {least[axis]} or more" for axis in wrong))
    raise FieldError(
        f"pictures of {spelled(size)} pixels do not fit the networks' grid: {names} must be {wanted}; the nearest that "
        f"work: data.size {near}"
    )


def _check_perceptual(config: RunConfig) -> None:
    """The perceptual network is one of pictures, and its layers leave nothing of small ones."""
    if not config.autoencoder.perceptual:
        return
    if len(config.autoencoder.encoder.patch) != 2:
        raise FieldError("autoencoder.perceptual is a distance of pictures: leave it out for other signals")
    if min(config.data.size) < LEAST_SIDE:
        raise FieldError(
            f"autoencoder.perceptual needs pictures of {LEAST_SIDE} pixels a side or more, not "
            f"{spelled(config.data.size)}: raise data.size, or leave it out"
        )


def _cell(config: RunConfig, axis: int) -> int:
    """Pixels that the coarsest cell of any network covers along an axis: what its side must be a multiple of."""
    ae = config.autoencoder
    factor = ae.encoder.factor[axis]
    decoder = math.prod([ae.decoder.patch[axis], *(stride[axis] for stride in ae.decoder.strides)])
    vits = (factor * net.patch * 2 ** (len(net.channels) - 1) for net in (ae.prior, config.base.vit))
    return math.lcm(factor, decoder, *vits)


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
    if _scaled(config):
        return wanted / SETTLED
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


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _refuse_numbers(tree: Any) -> None:
    """Raise ValueError for a whole number beyond 64 bits or a text that no file can hold, which JSON may have."""
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            _refuse_numbers(value)
    elif isinstance(tree, int) and tree.bit_length() > 63:
        raise ValueError("it holds a whole number beyond 64 bits")
    elif isinstance(tree, float) and not math.isfinite(tree):
        raise ValueError("it holds a number without an end")
    elif isinstance(tree, str):
        tree.encode()


def _flatten(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{place}{name}.") if isinstance(value, dict) else {place + name: value}
    return flat


def latent_grid(config: RunConfig) -> tuple[int, ...]:
    """Sides of the latents of the configured pictures, or of clips of :data:`FRAMES` of them."""
    factor = config.autoencoder.encoder.factor
    grid = (FRAMES, *config.data.size)[-len(factor) :]
    return tuple(side // step for side, step in zip(grid, factor, strict=True))
