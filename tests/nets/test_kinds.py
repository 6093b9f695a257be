"""Encoder and decoder of each kind against their formulas, their depths by hand, and what they cost."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unilat.fields import FieldError
from unilat.nets.cost import cost
from unilat.nets.decoder import READING, Decoder, Drawing
from unilat.nets.encoder import Encoder, EncoderConfig
from unilat.nets.kinds import Kind, blocks_for, residual, transformer
from unilat.nets.layers import Stack, Tokens, merge_patches, split_patches, to_grid
from unilat.nets.uvit import UViT, UViTConfig
from unilat.recipe import presets
from unilat.recipe.build import describe

from .samples import AXES, KINDS, encoder, shaken, signal, uvit

LEVELS = torch.tensor([-3.0, 0.5, 4.0])
ENCODER = EncoderConfig(channels=(16, 20, 24), blocks=(1, 2, 3), strides=((2, 1), (1, 2)), patch=(1, 4))
DECODER = UViTConfig(
    channels=(16, 24), blocks=(1, 2), strides=((2, 1), (1, 2)), patch=(1, 4), width=32, depth=3, head_width=16
)


def placed(net: torch.nn.Module, h: Tensor) -> Tensor:
    """``h`` with the code of each place, row by row."""
    grid = tuple(h.shape[2:])
    return h + net.get_submodule("positions")(grid, h).unflatten(0, grid).movedim(-1, 0)


def test_depths_are_what_the_levels_flops_buy() -> None:
    """By hand: 36 w² a place for a residual block, 24 w² for a transformer's. Kills: levels weighed alike
    whatever their grid or width, strides that lead to the level in the place of those below it, one way
    of the decoder's two."""
    vit, depth = replace(ENCODER, kind="vit").built()
    assert depth == int(36 * (1 * 16**2 * 4 + 2 * 20**2 * 2 + 3 * 24**2) / (24 * 24**2)) == 11
    assert (vit.channels, vit.blocks, vit.strides, vit.patch) == ((24,), (0,), (), (2, 8))
    uvit, depth = replace(ENCODER, kind="uvit").built()
    assert (uvit.channels, uvit.blocks, depth) == ((16, 20, 24), (1, 2, 1), 3)
    assert ENCODER.built() == (ENCODER, 0) and DECODER.built() == DECODER
    assert replace(ENCODER, blocks=(1, 1, 1), kind="uvit").built() == (
        replace(ENCODER, blocks=(1, 1, 0), kind="uvit"),
        1,
    )
    assert replace(DECODER, kind="conv").built() == replace(DECODER, kind="conv", depth=3 * 24 // 36)
    alone = replace(DECODER, kind="vit").built()
    assert (alone.channels, alone.patch, alone.width) == ((), (2, 4), 32)
    assert alone.depth == int((36 * 2 * (1 * 16**2 * 2 + 2 * 24**2) + 3 * 24 * 32**2 / 2) / (24 * 32**2)) == 6


@pytest.mark.parametrize("axes", AXES)
def test_blocks_cost_what_they_are_counted(axes: int) -> None:
    """Against the counted blocks, attention taken off. Kills: 3^axes for another, one convolution for two."""
    width, grid = 16, (2,) * axes
    stack = cost(Stack(axes, width, 1), torch.zeros(1, width, *grid)).forward_flops
    assert stack == residual(axes, width) * 2**axes
    one, two = (cost(Tokens(axes, width, n), torch.zeros(1, width, *grid)).forward_flops for n in (1, 2))
    assert two - one == 2**axes * (transformer(width) + 4 * 2**axes * width)
    assert (blocks_for(7, 2), blocks_for(1, 2), blocks_for(0, 2)) == (3, 1, 0)


def test_a_vit_encodes_patches_by_tokens_alone() -> None:
    """Patch, places, blocks, norm and a linear head; no layer but attention sees beside a patch. Kills: a level or a
    3-wide map left in it, places left out or added twice."""
    net, x = shaken(Encoder(replace(ENCODER, kind="vit"), 3, 5)), signal(2)
    assert isinstance(net, Encoder) and isinstance(net.tokens, Tokens)
    h = torch.einsum("oi,bihw->bohw", net.stem.weight.flatten(1), merge_patches(x, (2, 8)))
    h = placed(net.tokens, h + net.stem.bias.view(-1, 1, 1))  # type: ignore[union-attr]
    h = net.tokens.middle(h, torch.ones(3, 1))
    wanted = net.head(net.norm(h))
    assert wanted.shape == (3, 5, 4, 2) and len(net.tokens.middle.blocks) == 11
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)


def test_a_uvit_encodes_by_its_levels_and_then_by_tokens() -> None:
    """Kills: tokens before the levels or behind the norm, or a level lost."""
    net, x = shaken(Encoder(replace(ENCODER, kind="uvit"), 3, 5)), signal(2)
    assert isinstance(net, Encoder) and isinstance(net.tokens, Tokens)
    assert [len(level) for level in net.levels] == [1, 2, 1] and len(net.tokens.middle.blocks) == 3  # type: ignore[arg-type]
    h = net.levels[0](net.stem(merge_patches(x, (1, 4))))
    for level, stride in ((1, (2, 1)), (2, (1, 2))):
        h = net.levels[level](net.downs[level - 1](merge_patches(h, stride)))
    wanted = net.head(net.norm(net.tokens(h)))
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)


def test_a_vit_decodes_picture_and_latent_on_one_grid_of_tokens() -> None:
    """Patches, places and the latent are added, blocks hear the level, and a linear map unfolds. Kills: the level or
    the latent left out, patches of another size on the way out."""
    net = shaken(UViT(replace(DECODER, kind="vit"), 3, 5, shown=2))
    x, z = signal(2, channels=5), signal(2, 5)[:, :, :2, :1]
    tokens = placed(net, net.get_submodule("stem")(merge_patches(x, (2, 4))))
    tokens = tokens + to_grid(net.get_submodule("latents.0")(z), (4, 4))
    h = net.get_submodule("middle")(tokens, net.get_submodule("embed")(LEVELS))
    wanted = split_patches(net.get_submodule("head")(net.get_submodule("norm")(h)), (2, 4))
    assert wanted.shape == (3, 3, 8, 16)
    torch.testing.assert_close(net(x, LEVELS, z), wanted, rtol=1e-4, atol=1e-4)
    assert {tuple(net.get_submodule(name).weight.shape[2:]) for name in ("stem", "head")} == {(1, 1)}


def test_convolutions_alone_have_residual_blocks_in_the_middle() -> None:
    """Skips, joins and latents as before, and the level heard in the middle too. Kills: a middle that is left out."""
    net = shaken(UViT(replace(DECODER, kind="conv"), 3, 5))
    middle = net.get_submodule("middle")
    assert isinstance(middle, Stack) and len(middle) == 2 and not hasattr(net, "positions")
    x, z, seen = signal(2), signal(2, 5)[:, :, :2, :1], []
    middle.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output)))
    net(x, LEVELS, z)
    ((h, e),), (made,) = [one[0] for one in seen], [one[1] for one in seen]
    assert h.shape == (3, 32, 4, 2)
    torch.testing.assert_close(e, net.get_submodule("embed")(LEVELS))
    assert (made - h).abs().amax() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_what_draws_is_of_the_decoders_kind(kind: Kind) -> None:
    """A transformer draws for a transformer, convolutions for the others, whatever the encoder is; both start silent
    and read the latent loudly. Kills: the encoder's kind for the decoder's."""
    for other in KINDS:
        net = Decoder(uvit(2, kind=kind), encoder(2, other), 3, 5)
        assert isinstance(net.drawing.tokens, Tokens) == (kind == "vit")
        assert not net.drawing(signal(2, 5, coarse=True)).any()
        kernel = 1 if kind == "vit" else 3
        bound = READING / (5 * kernel**2) ** 0.5
        assert 0.95 * bound < float(net.drawing.stem.weight.detach().abs().max()) <= bound


def test_a_transformer_draws_by_tokens_alone() -> None:
    """Kills: tokens left out, or a 3-wide map that looks over the border of a patch."""
    net = shaken(Drawing(replace(ENCODER, kind="vit"), 3, 5))
    assert isinstance(net, Drawing)
    z = signal(2, 5)[:, :, :4, :2]
    h = net.norm(net.tokens(net.stem(z)))
    wanted = split_patches(net.ups[0](h), (2, 8))
    assert wanted.shape == (3, 6, 8, 16) and net.ups[0].weight.shape[2:] == (1, 1)
    torch.testing.assert_close(net(z), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [20, 48, 100, 64])
def test_any_width_has_heads(width: int) -> None:
    """Kills: an encoder's width that works as convolutions and is refused as tokens."""
    made = Tokens(2, width, 1)(torch.randn(2, width, 3, 2))
    assert made.shape == (2, width, 3, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_is_as_dear_in_every_kind(channels: int) -> None:
    """Forward FLOPs of `small` within a quarter of the default's, encoder and decoder each. Kills: a depth that is not
    made for the kind, and a default that is not today's."""
    config = presets.get("small")
    assert (config.autoencoder.encoder.kind, config.autoencoder.decoder.kind) == ("conv", "uvit")
    usual, ae = describe(config, channels).parts, config.autoencoder
    for kind in KINDS:
        networks = {"encoder": replace(ae.encoder, kind=kind), "decoder": replace(ae.decoder, kind=kind)}
        parts = describe(replace(config, autoencoder=replace(ae, **networks)), channels).parts
        for name in networks:
            assert 0.75 < parts[name].forward_flops / usual[name].forward_flops < 1.25, (kind, name)


def test_another_kind_is_refused() -> None:
    """Kills: a name that is no kind, built as one of them."""
    for config in (replace(ENCODER, kind="cnn"), replace(DECODER, kind="cnn")):  # type: ignore[arg-type]
        with pytest.raises(FieldError, match=r"net\.kind must be one of conv, vit, uvit, not cnn"):
            config.check("net")
