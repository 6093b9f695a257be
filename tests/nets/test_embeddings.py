"""Codes of noise levels, classes and places against their formulas, and what a block is made of."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unilat.nets.condition import Condition
from unilat.nets.layers import Embedding, Positions, ResidualBlock, Stack, Transformer, TransformerBlock

from .samples import AXES, shaken, signal

PLACES = {1: (4,), 2: (3, 5), 3: (2, 3, 4)}


@pytest.mark.parametrize("named", [True, False])
def test_embedding_is_its_formula(named: bool) -> None:
    """``silu(MLP(cos, sin of 2π λ / wavelength) + row of the class)``, 16 wavelengths from 1 to 64. Kills: wavelengths
    of another range, half a turn for a turn, another row's class, the null's row given where no class is asked."""
    embed = Embedding(12, classes=3)
    levels, labels = torch.tensor([-3.3, 0.7, 9.0]), torch.tensor([0, 3, 1])
    waves = torch.tensor([2 ** (6 * index / 15) for index in range(16)], dtype=torch.float64)
    angle = 2 * math.pi * levels.double()[:, None] / waves
    code = embed.project(torch.cat([angle.cos(), angle.sin()], 1).float())
    assert embed.table is not None
    rows = torch.stack([embed.table.weight[index] for index in (0, 3, 1)]) if named else 0.0
    torch.testing.assert_close(
        embed(levels, Condition(labels) if named else None), F.silu(code + rows), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("axes", AXES)
def test_positions_are_their_formula(axes: int) -> None:
    """Eight waves of each coordinate, π / 64 to π a step, places row by row. Kills: axes in another order, coordinates
    as shares of the grid, waves of twice the length."""
    grid, positions = PLACES[axes], Positions(axes, 24)
    wanted = []
    for place in itertools.product(*map(range, grid)):
        angles = torch.tensor([at * math.pi * 2 ** (6 * wave / 7 - 6) for at in place for wave in range(8)])
        wanted.append(positions.project(torch.cat([angles.cos(), angles.sin()])))
    torch.testing.assert_close(positions(grid, torch.zeros(1)), torch.stack(wanted), rtol=1e-4, atol=1e-5)


def test_heads_are_as_wide_as_was_said() -> None:
    """Kills: the width of a head taken for the number of heads, which changes neither shapes nor FLOPs."""
    for width, head_width, heads in ((48, 16, 3), (64, 8, 8), (16, 32, 1)):
        block = Transformer(width, 1, 8, head_width).blocks[0]
        assert isinstance(block, TransformerBlock)
        assert (block.heads, block.norm_q.normalized_shape) == (heads, (width // heads,))


@pytest.mark.parametrize("again", [False, True])
def test_a_stack_is_its_blocks_in_turn(again: bool) -> None:
    """Kills: blocks in another order, or without the embedding; computed again they are the same."""
    stack, x, e = shaken(Stack(2, 16, 3, embedding=8)), signal(2, channels=16), torch.randn(3, 8)
    assert isinstance(stack, Stack)
    stack.checkpointing = again
    first, second, third = stack
    assert torch.equal(stack(x, e), third(second(first(x, e), e), e))


def share_left_out(module: nn.Module, *inputs: Tensor) -> float:
    """Share of zeros in what ``module`` adds to its first input; what is left must be 1 / (1 - 0.2) times as large."""
    calm = module.eval()(*inputs) - inputs[0]
    trained = module.train()(*inputs) - inputs[0]
    kept = trained != 0
    torch.testing.assert_close(trained[kept], calm[kept] / 0.8, rtol=1e-4, atol=1e-5)
    return float((~kept).double().mean())


def test_dropout_leaves_out_the_share_it_names() -> None:
    """A fifth, in each of the three places. Kills: the share that stays taken for the one that goes; a place without
    dropout."""
    block = ResidualBlock(2, 16, dropout=0.2)
    nn.init.dirac_(block.conv_out.weight)
    torch.manual_seed(0)
    assert share_left_out(block, signal(2, channels=16, batch=8)) == pytest.approx(0.2, abs=0.015)
    for gate in (2, 5):
        layer = TransformerBlock(16, heads=2, dropout=0.2)
        with torch.no_grad():
            layer.offset[gate] = 1.0
        shares = share_left_out(layer, torch.randn(8, 128, 16), torch.zeros(8, 6, 16))
        assert shares == pytest.approx(0.2, abs=0.015)


def test_places_are_told_apart_in_low_precision() -> None:
    """On 32 places angles reach 97: in bf16 they would be off by up to a quarter. Kills: places rounded with what they
    are added to."""
    net = Positions(2, 16)
    full, low = (net((32, 32), torch.zeros(1, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16))
    torch.testing.assert_close(low, full)
