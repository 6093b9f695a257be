"""Layers: patches, starts, and what may depend on what."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from unilat.nets.condition import Condition
from unilat.nets.layers import (
    Embedding,
    Positions,
    ResidualBlock,
    Transformer,
    TransformerBlock,
    convolution,
    merge_patches,
    normalisation,
    split_patches,
    to_grid,
)

from .samples import AXES, GRIDS, shaken, signal

PATCHES = {1: (3,), 2: (2, 4), 3: (4, 2, 8)}


@pytest.mark.parametrize("axes", AXES)
def test_patches_split_back(axes: int) -> None:
    """Kills: an axis order that differs between merging and splitting, for patches unequal along each axis."""
    x = signal(axes)
    merged = merge_patches(x, PATCHES[axes])
    assert merged.shape[1] == 3 * math.prod(PATCHES[axes])
    assert merged.shape[2:] == tuple(n // p for n, p in zip(GRIDS[axes], PATCHES[axes], strict=True))
    assert torch.equal(split_patches(merged, PATCHES[axes]), x)


@pytest.mark.parametrize("axes", AXES)
def test_a_patch_holds_neighbours_of_one_channel(axes: int) -> None:
    """Kills: two mistakes that undo each other, such as patches of distant samples, which the round trip forgives."""
    x, patch = signal(axes), PATCHES[axes]
    merged = merge_patches(x, patch).unflatten(1, (3, *patch))
    for channel in range(3):
        for place in itertools.product(*map(range, patch)):
            apart = tuple(slice(start, None, step) for start, step in zip(place, patch, strict=True))
            assert torch.equal(merged[:, channel, *place], x[:, channel, *apart])


@pytest.mark.parametrize("axes", AXES)
def test_outside_of_the_grid_there_is_nothing(axes: int) -> None:
    """Ones under a kernel of ones: 3 of 3 a line inside, 2 at a border. Kills: borders repeated, mirrored or joined."""
    layer = convolution(axes, 2, 1)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.get_parameter("bias"))
    found = layer(torch.ones(1, 2, *GRIDS[axes]))[0, 0].detach()
    assert (float(found[(0,) * axes]), float(found[(1,) * axes])) == (2 * 2**axes, 2 * 3**axes)
    assert found.shape == GRIDS[axes]


def test_latents_lie_on_a_finer_grid_where_they_belong() -> None:
    """Kills: interpolation that shifts or blurs a latent's cell, and a resize where the grids agree already."""
    z = signal(2, coarse=True)
    fine = to_grid(z, (8, 16))
    assert torch.equal(fine[:, :, 4:8, 12:16], z[:, :, 1:, 3:].expand(-1, -1, 4, 4))
    assert to_grid(z, z.shape[2:]) is z


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (16, 1), (48, 3), (20, 1), (512, 32), (36, 2)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    """Kills: a width that no group count divides, found out only when a preset is built."""
    assert normalisation(channels).num_groups == groups


@pytest.mark.parametrize("axes", AXES)
def test_blocks_start_as_the_identity(axes: int) -> None:
    """Kills: a residual branch or a gate that does not start at zero."""
    x, e = signal(axes, channels=16), torch.randn(3, 8)
    assert torch.equal(ResidualBlock(axes, 16)(x), x)
    assert torch.equal(ResidualBlock(axes, 16, embedding=8)(x, e), x)
    assert torch.equal(Transformer(16, 2, 8, head_width=8)(x, e), x)


def test_residual_block_is_its_formula() -> None:
    """Kills: scale and shift swapped, the 1 of 1 + scale left out, a norm or an activation lost."""
    block, x, e = shaken(ResidualBlock(2, 16, embedding=8)), signal(2, channels=16), torch.randn(3, 8)
    assert isinstance(block, ResidualBlock) and block.modulate is not None
    scale, shift = block.modulate(e)[:, :16, None, None], block.modulate(e)[:, 16:, None, None]
    h = block.norm_out(block.conv_in(F.silu(block.norm_in(x)))) * (1 + scale) + shift
    torch.testing.assert_close(block(x, e), x + block.conv_out(F.silu(h)))


def test_transformer_block_is_its_formula() -> None:
    """Kills: heads split from the wrong side, q or k not normalised, gates, scales and shifts in another order."""
    block = shaken(TransformerBlock(16, heads=2))
    assert isinstance(block, TransformerBlock)
    x, modulation = torch.randn(3, 5, 16), torch.randn(3, 6, 16)
    scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = (
        (modulation[:, i] + block.offset[i])[:, None] for i in range(6)
    )
    qkv = block.qkv(F.layer_norm(x, (16,)) * (1 + scale_a) + shift_a)
    heads = []
    for head in (slice(0, 8), slice(8, 16)):
        q, k, v = (qkv[..., 16 * i : 16 * i + 16][..., head] for i in range(3))
        scores = block.norm_q(q) @ block.norm_k(k).transpose(1, 2) / math.sqrt(8)
        heads.append(scores.softmax(-1) @ v)
    h = x + gate_a * block.merge(torch.cat(heads, -1))
    mlp = block.contract(F.gelu(block.expand(F.layer_norm(h, (16,)) * (1 + scale_m) + shift_m)))
    torch.testing.assert_close(block(x, modulation), h + gate_m * mlp, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", AXES)
def test_transformer_keeps_every_token_in_its_place(axes: int) -> None:
    """Kills: tokens that come back on another place of the grid: attention alone must follow any turn of its tokens."""
    transformer, x, e = shaken(Transformer(16, 2, 8, head_width=8)), signal(axes, channels=16), torch.randn(3, 8)
    turned = x.flip(2)
    torch.testing.assert_close(transformer(turned, e), transformer(x, e).flip(2), rtol=1e-4, atol=1e-4)
    assert (transformer(x, e) - x).abs().amin() > 0


@pytest.mark.parametrize("axes", AXES)
def test_positions_tell_every_place_apart(axes: int) -> None:
    """Kills: an axis that the position's code forgets, or two places that share one."""
    grid = GRIDS[axes]
    places = shaken(Positions(axes, 24))(grid, torch.zeros(1)).detach()
    assert places.shape == (math.prod(grid), 24)
    assert torch.cdist(places, places).fill_diagonal_(1).min() > 1e-3


def test_embedding_tells_levels_and_classes_apart() -> None:
    """Kills: a frequency range in which two noise levels look alike, and a null class outside the table."""
    embed = Embedding(16, classes=3)
    levels = torch.linspace(-12, 12, 49)
    codes = embed(levels).detach()
    assert torch.cdist(codes, codes).fill_diagonal_(1).min() > 1e-3
    level = torch.zeros(4)
    named = embed(level, Condition(torch.tensor([0, 1, 2, 3]))).detach()
    assert torch.cdist(named, named).fill_diagonal_(1).min() > 1e-2
    with pytest.raises(IndexError):
        embed(level[:1], Condition(torch.tensor([4])))


def test_dropout_is_for_training_only() -> None:
    """Kills: dropout left on in evaluation, or never on."""
    x, e = signal(2, channels=16), torch.randn(3, 8)
    for module in (ResidualBlock(2, 16, embedding=8, dropout=0.5), Transformer(16, 1, 8, head_width=8, dropout=0.5)):
        shaken(module)
        assert torch.equal(module(x, e), module(x, e))
        module.train()
        assert not torch.equal(module(x, e), module(x, e))


def _dropping() -> tuple[Transformer, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Five blocks, tokens on a grid of 12, an embedding, and 5 kept places of each of 3 examples, in no order."""
    net = shaken(Transformer(16, 5, 8, head_width=8))
    assert isinstance(net, Transformer)
    keep = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(row))[:5] for row in range(3)])
    return net, torch.randn(3, 16, 3, 4), torch.randn(3, 8), keep


def test_what_is_dropped_passes_the_middle_unchanged() -> None:
    """Kills: dropped tokens put back as zeros or in another place: with a middle that does nothing, nothing is lost.

    The blocks between the first and the last are closed by gates of zero, so dropping must not change a bit.
    """
    net, x, e, keep = _dropping()
    torch.nn.init.zeros_(net.modulate.weight)
    torch.nn.init.zeros_(net.modulate.bias)
    for block in list(net.blocks)[1:-1]:
        torch.nn.init.zeros_(block.get_parameter("offset"))
    assert torch.equal(net(x, e, keep), net(x, e)) and not torch.equal(net(x, e), x)


def test_kept_tokens_see_each_other_alone_in_the_middle() -> None:
    """Kills: a middle that sees all tokens or those of another example, an end that sees some, a block left out."""
    net, x, e, keep = _dropping()
    first, *middle, last = net.blocks
    modulation, tokens = net.modulate(e).view(3, 6, 16), first(x.flatten(2).mT, net.modulate(e).view(3, 6, 16))
    for row, places in enumerate(keep):
        kept = tokens[row : row + 1, places]
        for block in middle:
            kept = block(kept, modulation[row : row + 1])
        tokens = tokens.index_put((torch.tensor(row), places), kept[0])
    torch.testing.assert_close(net(x, e, keep).flatten(2).mT, last(tokens, modulation), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_two_blocks_have_no_middle(blocks: int) -> None:
    """Kills: a first or a last block that misses tokens where there is nothing between them."""
    net, (_, x, e, keep) = shaken(Transformer(16, blocks, 8, head_width=8)), _dropping()
    assert torch.equal(net(x, e, keep), net(x, e))
