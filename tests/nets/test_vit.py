"""The ViT against its formula: levels, positions, skips, the class's row and the tokens that are dropped."""

import pytest
import torch
from torch import Tensor, nn

from unilat.nets.condition import Condition
from unilat.nets.layers import Positions, merge_patches, split_patches
from unilat.nets.vit import ViT, ViTConfig

from .samples import AXES, shaken, signal

LEVELS = torch.tensor([-3.0, 0.5, 4.0])
LABELS = torch.tensor([0, 2, 3])
GRIDS = {1: (24,), 2: (8, 16), 3: (4, 8, 12)}
"""Sides that divide by 4, the fold between three levels."""


def placed(positions: nn.Module, h: Tensor) -> Tensor:
    """``h [B, D, *grid]`` with the code of each place, row by row."""
    assert isinstance(positions, Positions)
    grid = tuple(h.shape[2:])
    return h + positions(grid, h).unflatten(0, grid).movedim(-1, 0)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dropping", [True, False])
def test_the_vit_is_its_formula(axes: int, dropping: bool) -> None:
    """Three levels: blocks before, fold, blocks, unfold, sum with what was left, blocks after. Kills: a skip of another
    level or sign, positions on other places, blocks on the wrong side, tokens dropped on a fine level or on none, a
    class forgotten while tokens are dropped, a norm left out."""
    net = shaken(ViT(ViTConfig(channels=(16, 24, 32), blocks=(5, 2, 4), head_width=8), 3, axes, classes=3))
    assert isinstance(net, ViT)
    counts = [len(list(part.get_submodule("blocks").children())) for part in (*net.before, *net.after)]
    assert counts == [3, 1, 4, 2, 1]
    z = torch.randn(3, 3, *GRIDS[axes], generator=torch.Generator().manual_seed(1))
    keep = torch.tensor([[0, 3, 2], [5, 1, 4], [2, 0, 5]]) if dropping else None
    e, fold = net.embed(LEVELS, Condition(LABELS)), (2,) * axes
    fine = net.before[0](placed(net.positions[0], net.stem(z)), e)
    middle = net.before[1](placed(net.positions[1], net.downs[0](merge_patches(fine, fold))), e)
    coarse = net.before[2](placed(net.positions[2], net.downs[1](merge_patches(middle, fold))), e, keep)
    middle = net.after[1](middle + split_patches(net.ups[1](coarse), fold), e)
    fine = net.after[0](fine + split_patches(net.ups[0](middle), fold), e)
    wanted = net.head(net.norm(fine))
    found = net(z, LEVELS, Condition(LABELS), keep)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("levels", "patch", "grid", "tokens"),
    [(1, 1, (3, 5), 15), (1, 2, (6, 4), 6), (2, 3, (12, 6, 18), 6), (3, 1, (8,), 2)],
)
def test_tokens_are_those_of_the_coarsest_level(levels: int, patch: int, grid: tuple[int, ...], tokens: int) -> None:
    """Counted by a hook too. Kills: a level too many or too few, the patch left out, sides added up."""
    config = ViTConfig(channels=(16,) * levels, blocks=(1,) * levels, patch=patch, head_width=16)
    assert config.tokens(grid) == tokens
    net, seen = ViT(config, 3, len(grid)), list[int]()
    last = net.before[-1]
    last.register_forward_hook(lambda module, inputs, output: seen.append(output[0, 0].numel()))
    net(torch.zeros(1, 3, *grid), LEVELS[:1])
    assert seen == [tokens]


def test_no_class_is_neither_a_class_nor_the_null() -> None:
    """Kills: an unnamed example heard as the null class, a classless network that wants a label."""
    net, z = shaken(ViT(ViTConfig(channels=(16,), blocks=(1,), head_width=16), 3, 2, classes=3)), signal(2)[:1]
    level, unnamed = LEVELS[:1], net(signal(2)[:1], LEVELS[:1])
    assert all((net(z, level, Condition(torch.tensor([k]))) - unnamed).abs().amax() > 1e-4 for k in range(4))
    torch.testing.assert_close(net(z, level, None, torch.zeros(1, 2, dtype=torch.int64)), unnamed)
