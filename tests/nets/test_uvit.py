"""The UViT against its formula, with strides that differ along each axis."""

import torch

from unilat.nets.layers import merge_patches, split_patches, to_grid
from unilat.nets.uvit import UViT, UViTConfig

from .samples import shaken, signal

LEVELS = torch.tensor([-3.0, 0.5, 4.0])
CONFIG = UViTConfig(
    channels=(16, 24), blocks=(1, 2), strides=((2, 1), (1, 2)), patch=(1, 4), width=32, depth=2, head_width=16
)


def test_the_uvit_is_its_formula() -> None:
    """The latent on every level, blocks, the skip, fold; tokens with places and latent; and back. Kills: a latent that
    is multiplied, laid out before it is read, or not among the tokens; skips before the blocks or joined the other way
    round; places left out or turned; the level halved or turned on the way up."""
    net = shaken(UViT(CONFIG, 3, 5, shown=2))
    assert isinstance(net, UViT)
    assert [len(stack) for stack in (*net.down_blocks, *net.up_blocks)] == [1, 2, 1, 2]
    x, z = signal(2, channels=5), signal(2, 5)[:, :, :2, :1]
    e = net.embed(LEVELS)
    first = net.stem(merge_patches(x, (1, 4)))
    first = net.down_blocks[0](first + to_grid(net.latents[0](z), (8, 4)), e)
    second = net.downs[0](merge_patches(first, (2, 1)))
    second = net.down_blocks[1](second + to_grid(net.latents[1](z), (4, 4)), e)
    tokens = net.downs[1](merge_patches(second, (1, 2)))
    places = net.positions((4, 2), tokens).unflatten(0, (4, 2)).movedim(-1, 0)
    tokens = net.middle(tokens + places + to_grid(net.latents[2](z), (4, 2)), e)
    h = split_patches(net.ups[1](tokens), (1, 2))
    h = net.up_blocks[1](net.joins[1](torch.cat([h, second], 1)), e)
    h = split_patches(net.ups[0](h), (2, 1))
    h = net.up_blocks[0](net.joins[0](torch.cat([h, first], 1)), e)
    wanted = split_patches(net.head(net.norm(h)), (1, 4))
    assert wanted.shape == (3, 3, 8, 16)
    torch.testing.assert_close(net(x, LEVELS, z), wanted, rtol=1e-4, atol=1e-4)
