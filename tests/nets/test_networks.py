"""Encoder, ViT and UViT on one, two and three axes."""

import pytest
import torch
from torch import nn

from unilat.nets.condition import Condition
from unilat.nets.decoder import Drawing
from unilat.nets.encoder import Encoder, EncoderConfig
from unilat.nets.uvit import UViT
from unilat.nets.vit import ViT, ViTConfig

from .samples import AXES, COARSE, GRIDS, KINDS, encoder, shaken, signal, uvit, vit

LEVELS = torch.tensor([-3.0, 0.5, 4.0])
NAMES = ("encoder", "vit", "uvit", "encoder of vit", "encoder of uvit", "decoder of conv", "decoder of vit", "drawing")


def networks(axes: int) -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]]:
    """Each network with inputs that it takes, batch 3, and weights without zeros."""
    x, z, labels = signal(axes), signal(axes, 5, coarse=True), Condition(torch.tensor([0, 2, 3]))
    return {
        "encoder": (shaken(Encoder(encoder(axes), 3, 5)), (x,)),
        "vit": (shaken(ViT(vit(), 3, axes, classes=3)), (x, LEVELS, labels)),
        "uvit": (shaken(UViT(uvit(axes), 3, 5)), (x, LEVELS, z)),
        "encoder of vit": (shaken(Encoder(encoder(axes, "vit"), 3, 5)), (x,)),
        "encoder of uvit": (shaken(Encoder(encoder(axes, "uvit"), 3, 5)), (x,)),
        "decoder of conv": (shaken(UViT(uvit(axes, kind="conv"), 3, 5)), (x, LEVELS, z)),
        "decoder of vit": (shaken(UViT(uvit(axes, kind="vit"), 3, 5)), (x, LEVELS, z)),
        "drawing": (shaken(Drawing(encoder(axes, "vit"), 3, 5)), (z,)),
    }


@pytest.mark.parametrize("axes", AXES)
def test_shapes_on_unequal_grids(axes: int) -> None:
    """Kills: an axis count or order written into a layer, and swapped axes, on grids whose sides all differ."""
    shapes = {name: tuple(net(*inputs).shape) for name, (net, inputs) in networks(axes).items()}
    latent, whole, drawn = (3, 5, *COARSE[axes]), (3, 3, *GRIDS[axes]), (3, 6, *GRIDS[axes])
    wanted = {"encoder": latent, "encoder of vit": latent, "encoder of uvit": latent, "drawing": drawn}
    assert shapes == {name: wanted.get(name, whole) for name in NAMES}


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_batch_do_not_meet(axes: int, name: str) -> None:
    """Kills: a reshape that mixes examples; sample i must depend on its own seed only."""
    net, inputs = networks(axes)[name]
    together = net(*inputs)
    for row in range(3):
        alone = net(*(item[row : row + 1] for item in inputs))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", AXES)
def test_factor_is_the_grid_that_comes_out(axes: int) -> None:
    """Kills: a factor that forgets the patch, a level, or counts a stride that leads to no level."""
    config = encoder(axes)
    assert tuple(n // f for n, f in zip(GRIDS[axes], config.factor, strict=True)) == COARSE[axes]
    assert EncoderConfig(channels=(8,), blocks=(1,), strides=((2, 2),), patch=(4, 2)).factor == (4, 2)


def test_outputs_start_at_zero() -> None:
    """Kills: a head that starts at random: the untrained denoiser must be the best for a Gaussian."""
    x, z = signal(2), signal(2, 5, coarse=True)
    assert not ViT(vit(), 3, 2)(x, LEVELS).any()
    assert not any(UViT(uvit(2, kind=kind), 3, 5)(x, LEVELS, z).any() for kind in KINDS)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("config", [vit(), ViTConfig(channels=(16,), blocks=(1,), head_width=16, patch=2)])
def test_vit_knows_where_a_token_lies(axes: int, config: ViTConfig) -> None:
    """Kills: positions left out: a constant input would give the same everywhere (no layer sees a border)."""
    net = shaken(ViT(config, 3, axes))
    coarse = config.patch * 2 ** (len(config.channels) - 1)
    out = net(torch.ones(1, 3, *GRIDS[axes]), LEVELS[:1]).detach()
    for axis in range(2, 2 + axes):
        if out.shape[axis] > coarse:
            assert (out - out.roll(coarse, axis)).abs().amax() > 1e-3


def test_vit_hears_level_and_class_and_null() -> None:
    """Kills: an embedding that reaches no block, a class that changes nothing, a null class taken for class 0."""
    net, x = shaken(ViT(vit(), 3, 2, classes=3)), signal(2)[:1]
    with torch.no_grad():
        outs = [net(x, torch.tensor([level]), Condition(torch.tensor([k]))) for level in (0.0, 2.0) for k in range(4)]
    for i, a in enumerate(outs):
        for b in outs[:i]:
            assert (a - b).abs().amax() > 1e-4


def test_coarse_level_sees_the_whole_grid() -> None:
    """Kills: attention along one axis only, and a level that is built but not called."""
    net, x = shaken(ViT(vit(), 3, 2)), signal(2)[:1].requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, LEVELS[:1])[0, :, 0, 0].sum(), x)
    assert bool((gradient.abs().sum(1) > 0).all())
    assert all(p.grad is not None for p in _trained(net, (x.detach(), LEVELS[:1])))


def _trained(net: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[nn.Parameter]:
    net(*inputs).square().sum().backward()
    return list(net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_used(name: str) -> None:
    """Kills: a layer that is built, counted in the table and never called."""
    net, inputs = networks(2)[name]
    for parameter in _trained(net, inputs):
        assert parameter.grad is not None and bool(parameter.grad.any())


@pytest.mark.parametrize("cut", [None, 0, 1])
def test_the_latent_reaches_the_decoder_on_two_paths(cut: int | None) -> None:
    """Kills: a decoder that ignores z_0, or hears it on the tokens alone or the pixels alone."""
    net, (x, level, z) = networks(2)["uvit"]
    if cut is not None:
        for parameter in net.get_submodule(f"latents.{cut}").parameters():
            nn.init.zeros_(parameter)
    other = z.clone()
    other[:, :, 0, 1] += 1
    changed = (net(x, level, z) - net(x, level, other)).abs().amax((0, 1)) > 1e-6
    assert bool(changed[:4, 4:8].all())


def test_skips_carry_what_the_middle_does_not() -> None:
    """Kills: a skip that is not joined: with nothing below it, the finest level must still see the noisy picture."""
    net, (x, level, z) = networks(2)["uvit"]
    for parameter in net.get_submodule("downs.0").parameters():
        nn.init.zeros_(parameter)
    assert (net(x, level, z) - net(-x, level, z)).abs().amax() > 1e-3


def test_fine_level_of_the_vit_is_carried_past_the_coarse_one() -> None:
    """Kills: a skip of the two-level ViT that is left out: everything would pass through a quarter of the tokens."""
    net, (z, level, labels) = networks(2)["vit"]
    for parameter in net.get_submodule("ups.0").parameters():
        nn.init.zeros_(parameter)
    assert (net(z, level, labels) - net(-z, level, labels)).abs().amax() > 1e-3


def test_a_grid_that_does_not_divide_is_an_error() -> None:
    """Kills: a picture cropped or padded in silence."""
    with pytest.raises(Exception, match=r"(?i)divi"):
        Encoder(encoder(2), 3, 5)(torch.zeros(1, 3, 9, 16))
