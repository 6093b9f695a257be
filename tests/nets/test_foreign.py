"""Halves of diffusers' autoencoders with the faces of ours: scales, moments, and what a configuration may say."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unilat.fields import FieldError
from unilat.nets.foreign import ForeignConfig, ForeignDecoder, ForeignEncoder, described
from unilat.types import UserError

diffusers: Any = pytest.importorskip("diffusers")
LEVELS = {"block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2}
LEVELS |= {"up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4, "mid_block_add_attention": False}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(5)
    made = diffusers.AutoencoderKL(in_channels=1, out_channels=1, latent_channels=3, **LEVELS).eval()
    with torch.no_grad():
        made.quant_conv.weight[:3] *= 4.0
        made.quant_conv.weight[1] = 0.0  # a channel that says nothing
        made.quant_conv.bias[:3] = torch.tensor([5.0, -2.0, 0.5])
    return made.requires_grad_(False)


def halves(model: Any, lambda_0: float = 5.0) -> tuple[ForeignEncoder, ForeignDecoder]:
    """Both halves with the weights of ``model``."""
    config = described("AutoencoderKL", model, "")
    both = ForeignEncoder(config).eval(), ForeignDecoder(config, lambda_0).eval()
    for half in both:
        half.net.load_state_dict({name: model.state_dict()[name] for name in half.net.state_dict()})
    return both


def pictures() -> Tensor:
    return torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_channels_are_brought_to_unit_scale_and_dead_ones_stay_dead(model: Any) -> None:
    """Kills: moments over all channels, a variance for a deviation, a dead channel whose rounding becomes a signal."""
    encoder, _ = halves(model)
    encoder.standardise(pictures())
    z, mode = encoder(pictures()), model.encode(pictures()).latent_dist.mean
    torch.testing.assert_close(encoder.mean, mode.mean((0, 2, 3), keepdim=True), rtol=1e-4, atol=1e-5)
    assert float(z[:, 1].std()) < 1e-3 and float(encoder.std[:, 1]) == pytest.approx(1e-3 * float(encoder.std.max()))
    torch.testing.assert_close(z[:, ::2].std((0, 2, 3)), torch.ones(2), rtol=1e-4, atol=1e-4)
    encoder.rescale(2.0)
    encoder.rescale(1.5)
    torch.testing.assert_close(encoder(pictures()), 3 * z)


@torch.no_grad()
def test_the_decoder_undoes_scale_moments_and_alpha(model: Any) -> None:
    """Kills: α(λ₀) left in, moments the wrong way round, a picture or a noise level that is heard."""
    encoder, decoder = halves(model, lambda_0=-1.0)
    encoder.standardise(pictures())
    decoder.mean.copy_(encoder.mean)
    decoder.std.copy_(encoder.std)
    x = pictures()[:4]
    alpha = (1 / (1 + torch.tensor(1.0).exp())).sqrt()
    made = decoder(torch.randn(4, 1, 8, 8), torch.randn(4), alpha * encoder(x))
    torch.testing.assert_close(made, model.decode(model.encode(x).latent_dist.mean).sample, rtol=1e-4, atol=1e-4)


def test_halves_are_halves_and_draw_nothing(model: Any) -> None:
    """Kills: a run that keeps the other half's weights, weights of ours that hang on diffusers' initialisation."""
    torch.manual_seed(9)
    first = torch.rand(1)
    torch.manual_seed(9)
    encoder, decoder = halves(model)
    assert torch.equal(torch.rand(1), first)
    names = {name for half in (encoder, decoder) for name in half.net.state_dict()}
    assert names == set(model.state_dict()) and not set(encoder.net.state_dict()) & set(decoder.net.state_dict())


def test_a_configuration_is_the_classs_own_with_its_defaults(model: Any) -> None:
    """Kills: a factor off by a level, defaults that another version of diffusers would change."""
    config = described("AutoencoderKL", model, "abc")
    assert (config.channels, config.latent_channels, config.factor, config.whole) == (1, 3, 2, True)
    assert json.loads(config.values)["act_fn"] == "silu" and config.decoder == "ours"
    other = diffusers.AutoencoderKL(in_channels=3, out_channels=1, latent_channels=3, **LEVELS)
    assert not described("AutoencoderKL", other, "").whole


@pytest.mark.parametrize(
    "values",
    ["[", "[1]", '{"in_channels": 1}', '{"a": "os.system(1)"}', '{"__import__(1)": 1}', '{"a": {"b": 1}}', "[" * 9999],
)
def test_what_no_constructor_takes_is_refused(values: str) -> None:
    """Kills: numbers without an end, names of code, tracebacks of a parser."""
    with pytest.raises(FieldError, match=r"here.values must"):
        ForeignConfig(kind="AutoencoderKL", values=values, sha256="").check("here")


def test_values_that_fit_no_class_are_one_line(model: Any) -> None:
    """Kills: a traceback out of diffusers."""
    config = described("AutoencoderKL", model, "")
    spoilt = replace(config, values=json.dumps({**json.loads(config.values), "down_block_types": ["os", "sys"]}))
    with pytest.raises(UserError, match="fits no AutoencoderKL"):
        spoilt.build()
