"""Configurations: JSON and back, strictly; what cannot work is refused in one line; the dial."""

import dataclasses
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from unilat.cli.naming import options_named
from unilat.fields import FieldError
from unilat.recipe import config as configuration
from unilat.recipe import presets
from unilat.recipe.config import RunConfig, aim, capacity, check, differences, from_json, normal_floor, to_dict, to_json
from unilat.types import UserError


def changed(config: RunConfig, **values: Any) -> RunConfig:
    """``config`` with fields replaced; a path's dots are written ``__``."""
    for path, value in values.items():
        config = _replaced(config, path.split("__"), value)
    return config


def _replaced(node: Any, path: list[str], value: Any) -> Any:
    return replace(node, **{path[0]: _replaced(getattr(node, path[0]), path[1:], value) if path[1:] else value})


def few_bits(config: RunConfig) -> RunConfig:
    """``config`` asked for bits that a latent of any size carries."""
    return changed(config, stage1__target_bpp=0.01)


TINY = presets.get("tiny")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_json_round_trip(name: str) -> None:
    """Kills: tuples that come back as lists, None that comes back as a string, a field that is left out."""
    config = presets.get(name)
    again = from_json(to_json(config))
    assert again == config and hash(again) == hash(config)
    assert to_dict(config) == dataclasses.asdict(config)


def test_every_field_survives() -> None:
    """Kills: a field that the JSON carries but the reader ignores."""
    one = changed(
        TINY, stage1__target_bpp=None, stage1__loss_factor=1.5, data__channels=3, seed=9, stage1__unit_scale=False
    )
    one = changed(one, evaluation__step_counts=(1, 7), autoencoder__bias=-1.25, stage1__control__gain=0.5)
    assert from_json(to_json(one)) == one != TINY


@pytest.mark.parametrize(
    ("place", "known"),
    [((), "autoencoder"), (("stage1",), "loss_factor"), (("autoencoder", "decoder"), "head_width")],
)
def test_an_unknown_key_is_refused_by_its_whole_name(place: tuple[str, ...], known: str) -> None:
    """Kills: a misspelt option that is taken for nothing, at any depth."""
    values = json.loads(to_json(TINY))
    node = values
    for name in place:
        node = node[name]
    node["smaples"] = 5
    with pytest.raises(UserError, match=f"unknown key {'.'.join([*place, 'smaples'])}; known are .*{known}"):
        from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "must be an object"),
        ('{"stage1": 3}', "stage1. must be an object"),
        ('{"stage1": {"samples": "many"}}', "stage1.samples"),
        ('{"data": {"size": null}}', "data.size"),
        ('{"autoencoder": {"encoder": {"patch": [2, "x"]}}}', "autoencoder.encoder.patch.1"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(text: str, says: str) -> None:
    """Kills: a traceback, or pydantic's page of text, for a file that somebody edited."""
    with pytest.raises(UserError, match=says) as error:
        from_json(text)
    assert "\n" not in str(error.value)


def test_differences_are_named_with_both_values() -> None:
    """Kills: a list that stops at the first level, or names fields that agree."""
    other = changed(TINY, seed=3, stage1__batch=48, autoencoder__encoder__patch=(4, 4))
    assert differences(TINY, TINY) == []
    assert sorted(differences(TINY, other)) == [
        "autoencoder.encoder.patch: (2, 2) and (4, 4)",
        f"seed: {TINY.seed} and 3",
        f"stage1.batch: {TINY.stage1.batch} and 48",
    ]


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_can_work(name: str) -> None:
    """Kills: a check so strict that a preset fails it."""
    check(presets.get(name))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"data__size": 6}, "pictures of 6 pixels .* a multiple of 8, 8 or more; the nearest that work: --size 8$"),
    ({"data__size": 18}, "a height of 18 and a width of 18 must be a multiple of 8.* --size 16 or 24$"),
    (
        {"data__size": 20},
        "pictures of 20 pixels .* a multiple of 8.* --size 16 or 24$",
    ),  # the encoder's 4 divide it, the base's 8 do not
    ({"data__size": 0}, "pictures of 0 pixels"),
    ({"data__channels": 2}, r"--data.channels must be 1 \(grey\) or 3"),
    ({"data__held_out": 1.5}, "--data.held-out must lie between 0 and 1, not 1.5"),
    ({"stage1__target_bpp": 5.0}, "5 bits per pixel are more than a latent of 4×4×4 carries .*latent-channels 23"),
    ({"stage1__target_bpp": 0.0}, "--stage1.target-bpp must be a positive number, not 0"),
    ({"stage1__target_bpp": math.nan}, "--stage1.target-bpp must be a positive number, not nan"),
    ({"stage1__target_bpp": None}, "either wanted bits .* or a fixed loss factor"),
    ({"stage1__loss_factor": 1.5}, "not both or none"),
    ({"stage1__target_bpp": None, "stage1__loss_factor": -1.5}, "--stage1.loss-factor must be a positive number"),
    ({"stage1__batch": 0}, "--stage1.batch must be 1 or more, not 0"),
    ({"stage1__samples": 0}, "--stage1.samples must be 1 or more"),
    ({"stage1__learning_rate": math.inf}, "--stage1.learning-rate must be a positive number"),
    ({"stage1__control__smoothing": 0.0}, "--stage1.control.smoothing must be a positive number"),
    ({"stage2__samples": -1}, "--stage2.samples must be 0 or more"),
    ({"stage2__batch": 0}, "--stage2.batch must be 1 or more"),
    ({"base__label_dropout": 1.1}, "--base.label-dropout must lie between 0 and 1"),
    ({"base__token_dropping": -0.5}, "--base.token-dropping must lie between 0 and 1"),
    ({"base__token_dropping": 0.5}, "--base.token-dropping spares .* --base.vit.blocks 3 or more there, not 1"),
    ({"autoencoder__decoder__dropout": -0.1}, "--autoencoder.decoder.dropout must lie between 0 and 1"),
    ({"autoencoder__latent_channels": 0}, "--autoencoder.latent-channels must be 1 or more"),
    ({"autoencoder__lambda_0": 11.0}, "lambda_min < lambda_0 <= lambda_max must hold, not -10.0, 11.0, 10.0"),
    ({"autoencoder__lambda_min": 5.0}, "lambda_min < lambda_0"),
    ({"autoencoder__lambda_max": math.inf}, "lambda_min < lambda_0"),
    (
        {"autoencoder__encoder__blocks": (1,)},
        "--autoencoder.encoder: 2 levels of channels want as many counts of",
    ),
    ({"autoencoder__encoder__strides": ()}, "--autoencoder.encoder: 2 levels .* and 1 strides"),
    ({"autoencoder__decoder__strides": ()}, "--autoencoder.decoder: 1 levels .* and 1 strides"),
    ({"base__vit__blocks": (1, 2, 3)}, "--base.vit: 2 levels"),
    ({"autoencoder__prior__channels": (35,)}, "--autoencoder.prior: attention heads of 16 channels do not divide 35"),
    ({"stage1__control__gain": math.nan}, "--stage1.control.gain must be a number"),
    ({"stage1__control__proportional": math.inf}, "--stage1.control.proportional must be a number"),
    ({"evaluation__decoder_steps": 0}, "--evaluation.decoder-steps must be 1 or more"),
    ({"evaluation__step_counts": (2, 0)}, "--evaluation.step-counts must be 1 or more each"),
    ({"evaluation__rate_levels": 0}, "--evaluation.rate-levels must be 1 or more"),
    ({"evaluation__pictures": 0}, "--evaluation.pictures must be 1 or more"),
    ({"evaluation__guidance": 1e30}, "guidance beyond 1000 is no guidance"),
    ({"autoencoder__encoder__patch": (0, 0)}, "patches and strides .* must be 1 or more"),
    ({"autoencoder__decoder__width": 0}, "--autoencoder.decoder.width must be 1 or more"),
    ({"autoencoder__encoder__kind": "cnn"}, "--autoencoder.encoder.kind must be one of conv, vit, uvit, not cnn"),
    ({"autoencoder__decoder__kind": "unet"}, "--autoencoder.decoder.kind must be one of conv, vit, uvit, not unet"),
    ({"autoencoder__decoder__depth": -1}, "--autoencoder.decoder.depth must be 0 or more"),
    (
        {"autoencoder__perceptual": 1.0, "data__size": (16, 32)},
        "--autoencoder.perceptual needs pictures of 24 pixels a side or more, not 16x32: raise --size, or leave it out",
    ),
    (
        {"autoencoder__price": "normal", "stage1__target_bpp": 0.5},
        r"a KL term to N\(0, I\) stands at 0.724 bits per pixel",
    ),
]


@pytest.mark.parametrize(("values", "says"), BAD, ids=[str(values) for values, _ in BAD])
def test_what_cannot_work_is_refused_in_one_line(values: dict[str, Any], says: str) -> None:
    """Kills: a mistake found by a traceback, or after an hour, instead of by a line that names the way out; an option
    told to who calls from Python."""
    with pytest.raises(FieldError) as error:
        check(changed(TINY, **values))
    assert re.search(says, options_named(str(error.value))), options_named(str(error.value))
    assert "\n" not in str(error.value) and "--" not in str(error.value)


def test_a_perceptual_term_is_for_pictures() -> None:
    """Kills: a clip refused by a traceback of convolutions, in training."""
    config = presets.get("kinetics-600")
    with pytest.raises(FieldError, match="perceptual is a distance of pictures: leave it out for other signals"):
        check(changed(config, autoencoder__perceptual=1.0))


def test_the_way_out_of_too_many_bits_is_one() -> None:
    """Kills: advice that is refused in its turn, or a capacity in nats or by dimension."""
    assert capacity(TINY) == pytest.approx(4 / 16 * 0.5 * math.log2(1 + math.exp(5)))
    check(changed(TINY, stage1__target_bpp=5.0, autoencoder__latent_channels=23))
    with pytest.raises(UserError):
        check(changed(TINY, stage1__target_bpp=5.0, autoencoder__latent_channels=22))


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_the_dial_keeps_the_latent_grid(size: int) -> None:
    """Kills: pictures twice as large that make a latent four times as dear, or a decoder on another grid."""
    config = few_bits(presets.get("small", size=size))
    check(config)
    ae = config.autoencoder
    assert config.data.size == (size, size)
    assert [size // factor for factor in ae.encoder.factor] == [8, 8]
    decoder = [math.prod(axis) for axis in zip(ae.decoder.patch, *ae.decoder.strides, strict=True)]
    small = presets.get("small").autoencoder.decoder
    usual = [math.prod(axis) for axis in zip(small.patch, *small.strides, strict=True)]
    assert [size // n for n in decoder] == [32 // n for n in usual]


@pytest.mark.parametrize("size", [30, 36, 40, 100, 7])
def test_odd_sizes_are_refused_with_a_size_that_works(size: int) -> None:
    """Kills: an einops error in the middle of the first step; the message's own advice must pass."""
    with pytest.raises(UserError, match="do not fit") as error:
        check(few_bits(presets.get("small", size=size)))
    for near in str(error.value).split("data.size ")[1].split(" or "):
        check(few_bits(presets.get("small", size=near)))


def test_the_dial_leaves_the_papers_presets_their_levels() -> None:
    """Kills: levels added to a network whose levels are the paper's."""
    config = presets.get("imagenet-512", size=256)
    assert config.autoencoder == presets.get("imagenet-512").autoencoder
    assert config.data.size == (256, 256)
    with pytest.raises(UserError, match="no preset 'smal': choose one of small, glyphs, kl-vae, tiny"):
        presets.get("smal")


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_the_dial_keeps_the_bits_a_latent_carries(size: int) -> None:
    """Kills a dial that keeps the latent while the pixels grow: the default target must fit every size."""
    config = presets.get("small", size=size)
    check(config)
    assert capacity(config) == pytest.approx(capacity(presets.get("small")))


@pytest.mark.parametrize(
    ("part", "values", "says"),
    [
        ("evaluation", {"decoder_range": (3.0, -6.0)}, "decoder_range"),
        ("evaluation", {"guidance": math.nan}, "guidance"),
        ("autoencoder", {"bias": math.inf}, "bias"),
        ("stage1", {"prior_warmup": -5}, "prior_warmup"),
    ],
)
def test_what_would_fail_only_after_training_is_refused_before(part: str, values: dict[str, Any], says: str) -> None:
    """Kills a check that looks at training alone."""
    config = presets.get("tiny")
    with pytest.raises(UserError, match=says):
        check(replace(config, **{part: replace(getattr(config, part), **values)}))


def test_a_normal_prior_s_floor_is_the_closed_form() -> None:
    """Kills: nats told as bits, and a floor where a learned variance can fill the prior.

    ½ (σ² − 1 − ln σ²) at λ₀ = 5 is 2.0067 nats, 2.895 bits, and `small` has half a latent number a pixel.
    """
    small = changed(presets.get("small"), autoencoder__price="normal", stage1__target_bpp=1.5)
    assert normal_floor(small) == pytest.approx(1.4476, abs=2e-4)
    check(small)
    assert normal_floor(changed(small, autoencoder__learned_variance=True)) == 0.0


def test_more_bits_are_held_until_the_prior_has_settled() -> None:
    """Kills: a run that ends with as many bits too few as its settled prior saves, an aim beyond the capacity, and one
    for a prior that has nothing to learn."""
    settling = changed(presets.get("small"), stage1__target_bpp=0.2, stage1__settle=1_000)
    assert aim(settling) == pytest.approx(0.2 / 0.8)
    assert aim(changed(settling, stage1__settle=0)) == 0.2
    many = changed(settling, stage1__target_bpp=1.7)
    assert aim(many) == pytest.approx((1.7 + capacity(many)) / 2) and capacity(many) > 1.7
    assert aim(changed(settling, autoencoder__price="normal")) == 0.2
    assert aim(changed(settling, stage1__target_bpp=None, stage1__loss_factor=2.0)) is None


def test_cells_that_are_no_squares() -> None:
    """Patches of 4 × 2 behind one level of 2 × 2: a latent of 2 × 4 for 16 × 16, a number for 32 pixels and channel.
    Kills: the axes exchanged, one side's factor squared, pixels counted by dimension."""
    config = changed(TINY, autoencoder__encoder__patch=(4, 2), autoencoder__latent_channels=3)
    assert configuration.latent_grid(config) == (2, 4)
    assert capacity(config) == pytest.approx(3 / 32 * 0.5 * math.log2(1 + math.exp(5)))
    variance = 1 / (1 + math.exp(5))
    nats = 0.5 * (variance - 1 - math.log(variance))
    assert normal_floor(config) == pytest.approx(3 / 32 * nats / math.log(2))


@pytest.mark.parametrize(
    ("size", "levels", "grid"), [((64, 96), 1, (8, 12)), ((48, 80), 1, (6, 10)), ((256, 32), 0, (64, 8))]
)
def test_the_dial_is_the_shorter_side(size: tuple[int, int], levels: int, grid: tuple[int, int]) -> None:
    """Kills: levels by the longer side, which would leave a grid of few places along the shorter one."""
    config, small = presets.get("small", size=size), presets.get("small")
    check(config)
    assert config.data.size == size and configuration.latent_grid(config) == grid
    assert len(config.autoencoder.encoder.channels) == len(small.autoencoder.encoder.channels) + levels
    assert capacity(config) == pytest.approx(capacity(small))
    assert presets.get("small", size="x".join(map(str, size))) == config


def test_every_axis_is_divided_by_the_grid() -> None:
    """Cells of 16 × 8 pixels. Kills: one axis checked by the other's cells, the axis named wrongly, advice that mends
    one axis alone or is refused in its turn, a decoder's grid that is forgotten."""
    config = changed(TINY, autoencoder__encoder__patch=(4, 2), data__size=(32, 24))
    check(config)
    says = {
        (
            24,
            24,
        ): "pictures of 24 pixels .*: a height of 24 must be a multiple of 16, 16 or more; .* 16x24 or 32x24$",
        (
            32,
            20,
        ): "pictures of 32x20 pixels .*: a width of 20 must be a multiple of 8, 8 or more; .* 32x16 or 32x24$",
        (
            40,
            20,
        ): "a height of 40 and a width of 20 must be a multiple of 16, 16 or more and a multiple of 8, .* or 48x24$",
        (8, 4): "data.size 16x8$",
    }
    for size, text in says.items():
        with pytest.raises(FieldError, match=text) as error:
            check(changed(config, data__size=size))
        for near in str(error.value).split("data.size ")[1].split(" or "):
            check(changed(config, data__size=near))
    folded = changed(TINY, autoencoder__decoder__patch=(3, 1), data__size=(24, 24))
    check(folded)
    with pytest.raises(FieldError, match="a height of 16 must be a multiple of 24"):
        check(changed(folded, data__size=(16, 24)))


def test_squares_of_before_are_read() -> None:
    """Kills: a configuration of a square that is refused, or read as another; one number that Python may not give."""
    values = json.loads(to_json(TINY))
    assert values["data"]["size"] == [16, 16]
    values["data"]["size"] = 48
    del values["data"]["fit"], values["data"]["flip"]
    assert from_json(json.dumps(values)) == changed(TINY, data__size=(48, 48)) == changed(TINY, data__size=48)
    wide = changed(TINY, data__size=(16, 24), data__fit="pad", data__flip=True)
    assert from_json(to_json(wide)) == wide


def test_networks_of_before_are_read() -> None:
    """Files without kinds hold convolutions and a UViT. Kills: an old run that cannot be opened, or is built anew."""
    tree = json.loads(to_json(TINY))
    assert (tree["autoencoder"]["encoder"].pop("kind"), tree["autoencoder"]["decoder"].pop("kind")) == ("conv", "uvit")
    assert from_json(json.dumps(tree)) == TINY
    tree["autoencoder"]["encoder"]["kind"] = "cnn"
    with pytest.raises(UserError, match=r"autoencoder\.encoder\.kind"):
        from_json(json.dumps(tree))


def test_flips_are_refused_where_pictures_are_letters() -> None:
    """Kills: letters mirrored into what are none, digits too; a check that refuses pictures as well."""
    for source in ("glyphs", "digits"):
        with pytest.raises(FieldError, match=f"data.flip mirrors the letters of {source}"):
            check(changed(TINY, data__source=source, data__flip=True))
    check(changed(TINY, data__source="photos", data__flip=True))
