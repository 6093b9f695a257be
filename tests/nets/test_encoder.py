"""The encoder against its formula, and what is learned beside the mean."""

import math

import pytest
import torch
from torch import Tensor, nn

from unilat.nets.encoder import Encoder, EncoderConfig
from unilat.nets.layers import merge_patches

from .samples import shaken, signal

CONFIG = EncoderConfig(channels=(16, 20, 24), blocks=(1, 2, 1), strides=((2, 1), (1, 2)), patch=(1, 4))
"""Three levels; no two of patch and strides are alike."""


def learned(shake: bool = True) -> Encoder:
    """One with a learned variance, shaken or as it is before training."""
    torch.manual_seed(0)
    net = Encoder(CONFIG, 3, 5, learned_variance=True)
    if shake:
        shaken(net)
    return net


def test_the_encoder_is_its_formula() -> None:
    """Patch, then blocks, fold and a 1-wide map a level, norm and a linear head. Kills: the last stride for all, a norm
    left out, a wider map between levels, latents squashed into a range."""
    net, x = shaken(Encoder(CONFIG, 3, 5)), signal(2)
    h = net.get_submodule("levels.0")(net.get_submodule("stem")(merge_patches(x, (1, 4))))
    for level, stride in ((1, (2, 1)), (2, (1, 2))):
        down = net.get_submodule(f"downs.{level - 1}")
        folded = merge_patches(h, stride)
        h = torch.einsum("oi,bihw->bohw", down.get_parameter("weight").flatten(1), folded)
        h = net.get_submodule(f"levels.{level}")(h + down.get_parameter("bias").view(-1, 1, 1))
    wanted = net.get_submodule("head")(net.get_submodule("norm")(h))
    assert wanted.shape == (3, 5, 4, 2) and CONFIG.factor == (2, 8)
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)


def test_a_learned_variance_starts_as_the_fixed_noise() -> None:
    """σ² / α² at λ₀ = 5 is e⁻⁵ everywhere. Kills: a deviation for a variance, a start that depends on the picture."""
    mean, log_variance = learned(shake=False).posterior(signal(2))
    assert log_variance is not None and log_variance.shape == mean.shape
    assert torch.equal(log_variance, torch.full_like(mean, -5.0))
    assert Encoder(CONFIG, 3, 5).posterior(signal(2))[1] is None


@pytest.mark.parametrize(("asked", "given"), [(-100.0, -30.0), (-25.0, -25.0), (19.0, 19.0), (100.0, 20.0)])
def test_a_learned_variance_stays_in_its_range(asked: float, given: float) -> None:
    """Kills: no bound, after which e to the log-variance is infinite, or one that is too tight."""
    net = learned(shake=False)
    assert net.spread is not None
    nn.init.constant_(net.spread.get_parameter("bias"), asked)
    found = net.posterior(signal(2))[1]
    assert found is not None and torch.equal(found, torch.full_like(found, given))


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_rescaled_it_scales_the_mean_and_the_deviation(scale: float) -> None:
    """z times s has variance times s². Kills: one ln s for two, a bias that keeps its size."""
    net, x = learned(), signal(2)
    mean, log_variance = net.posterior(x)
    net.rescale(scale)
    scaled, other = net.posterior(x)
    assert log_variance is not None and other is not None
    torch.testing.assert_close(scaled, scale * mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other, log_variance + 2 * math.log(scale), rtol=1e-4, atol=1e-5)


def test_all_layers_but_the_last_are_in_low_precision() -> None:
    """Kills: a precision that is asked for and not used; latents rounded to eight bits of mantissa."""
    net, seen = learned(), dict[str, torch.dtype]()

    def keep(name: str):
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = output.dtype

        return look

    for name in ("stem", "downs.1", "head", "spread"):
        net.get_submodule(name).register_forward_hook(keep(name))
    net.precision = torch.bfloat16
    net.posterior(signal(2))
    low, full = torch.bfloat16, torch.float32
    assert seen == {"stem": low, "downs.1": low, "head": full, "spread": full}


def test_low_precision_is_that_of_the_convolutions() -> None:
    """What blocks add to keeps its 24 bits. Kills: a sum rounded to bf16 on either level, which is a percent of the
    bits; convolutions in float32."""
    net, seen = shaken(Encoder(EncoderConfig(channels=(32, 64), blocks=(1, 2)), 3, 5)), list[torch.dtype]()
    for block in (block for level in net.levels for block in level):
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
        block.conv_in.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    net.precision = torch.bfloat16
    assert net(signal(2)).dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16] * 3
