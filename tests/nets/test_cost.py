"""FLOPs, parameters and kept bytes, against sums by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from unilat.nets.condition import Condition
from unilat.nets.cost import cost
from unilat.nets.decoder import Decoder
from unilat.nets.encoder import Encoder
from unilat.nets.layers import TransformerBlock
from unilat.nets.vit import ViT, ViTConfig

from .samples import AXES, KINDS, encoder, signal, uvit, vit


def test_linear_maps_and_convolutions_by_hand() -> None:
    """Kills: multiply-adds counted once, kernels or grids forgotten, biases left out of the parameters."""
    linear = cost(nn.Linear(6, 5), torch.zeros(7, 6))
    assert (linear.forward_flops, linear.parameters) == (2 * 7 * 6 * 5, 35)
    conv = cost(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 12))
    assert (conv.forward_flops, conv.parameters) == (2 * 8 * 3 * 9 * 10 * 12, 8 * 27 + 8)
    volume = cost(nn.Conv3d(2, 4, 3, padding=1, bias=False), torch.zeros(1, 2, 3, 4, 5))
    assert volume.forward_flops == 2 * 4 * 2 * 27 * 60


def test_attention_by_hand() -> None:
    """Kills: attention that the counter passes by: its share grows with the square of the tokens."""
    width, tokens = 16, 9
    block = TransformerBlock(width, heads=2)
    found = cost(block, torch.zeros(1, tokens, width), torch.zeros(1, 6, width))
    maps = 2 * tokens * width * (3 + 1 + 4 + 4) * width
    attention = 2 * (2 * tokens * tokens * width)
    assert found.forward_flops == maps + attention


def test_kept_bytes_by_hand() -> None:
    """Kills: weights counted as activations, a tensor that two layers keep counted twice, or nothing counted."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert cost(net, torch.zeros(1, 4)).activation_bytes == 4 * (4 + 8)


def test_masks_of_dropout_are_kept_by_hand() -> None:
    """Kills: memory counted as in evaluation: in training dropout keeps a number for each of its own."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 2))
    assert cost(net, torch.zeros(3, 4)).activation_bytes == 4 * 3 * (4 + 8 + 8)
    assert cost(net, torch.zeros(3, 4)).forward_flops == 2 * 3 * (4 * 8 + 8 * 2)


def test_attention_keeps_no_matrix_by_hand() -> None:
    """What is kept grows by as much with each token. Kills: bytes of tokens by tokens, which no fast kernel keeps, and
    as many taken off as were never counted."""
    block, width = TransformerBlock(16, heads=2), 16
    modulation = torch.zeros(1, 6, width)
    few, many, twice = (cost(block, torch.zeros(1, n, width), modulation).activation_bytes for n in (8, 24, 40))
    assert twice - many == many - few > 0


def test_counting_touches_neither_the_network_nor_memory() -> None:
    """Kills: counting by running (this input would need 4 TiB), or a network moved to meta under its owner."""
    net = nn.Linear(1024, 8)
    found = cost(net, torch.empty(2**30, 1024, device="meta"))
    assert found.forward_flops == 2 * 2**30 * 1024 * 8
    assert net.weight.device.type == "cpu" and net.weight.grad is None
    with torch.device("meta"):
        huge = nn.Linear(2**20, 2**20)
    assert cost(huge, torch.empty(1, 2**20, device="meta")).parameters == 2**40 + 2**20


def test_real_and_meta_networks_cost_the_same() -> None:
    """Kills: a network that computes something else where there is no memory."""
    z, level, label = torch.zeros(1, 3, 8, 8), torch.zeros(1), Condition(torch.zeros(1, dtype=torch.int64))
    with torch.device("meta"):
        twin = ViT(vit(), 3, 2, classes=4)
    assert cost(ViT(vit(), 3, 2, classes=4), z, level, label) == cost(twin, z, level, label)


class Gated(nn.Module):
    """A linear map whose two halves are multiplied: both are kept, and both lie in one block of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.layer(x).chunk(2, dim=1)
        return left * right


def test_kept_views_take_the_room_of_what_they_view() -> None:
    """Kills: the bytes of the last view alone, or of each view as if it were memory of its own."""
    assert cost(Gated(), torch.zeros(3, 4)).activation_bytes == 4 * 3 * (4 + 8)


def test_frozen_parameters_are_counted() -> None:
    """Kills: a size of what is trained in the place of what is there; and nothing frozen is kept for."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    net[0].requires_grad_(False)
    assert cost(net, torch.zeros(1, 4)).parameters == 4 * 8 + 8 + 8 * 2 + 2


def by_hooks(net: nn.Module, *inputs: Any) -> int:
    """FLOPs of a forward pass with numbers: outputs times inputs of each map, and attention by its tokens."""
    found = []

    def look(layer: nn.Module, taken: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, TransformerBlock):
            tokens, width = output.shape[1:]
            found.append(4 * tokens**2 * width)
        elif isinstance(layer, nn.Linear):
            found.append(2 * output.numel() * layer.in_features)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            found.append(2 * output.numel() * layer.in_channels * math.prod(layer.kernel_size))

    hooks = [layer.register_forward_hook(look) for layer in net.modules()]
    net(*inputs)
    for hook in hooks:
        hook.remove()
    return sum(found)


@pytest.mark.parametrize("axes", AXES)
def test_networks_cost_the_sum_of_their_layers(axes: int) -> None:
    """Encoder, decoder, a ViT and one that drops tokens, on unequal sides. Kills: a network whose table says less than
    it computes, tokens that are dropped and paid for, attention or convolutions passed by."""
    x, z, level = signal(axes, batch=1), signal(axes, 5, 1, coarse=True), torch.zeros(1)
    wide = ViT(ViTConfig(channels=(16, 32), blocks=(2, 4), head_width=16), 3, axes, classes=2)
    cond, keep = Condition(torch.ones(1, dtype=torch.int64)), torch.tensor([[1, 0]])
    for net, inputs in (
        *((Encoder(encoder(axes, kind), 3, 5, learned_variance=True), (x,)) for kind in KINDS),
        *((Decoder(uvit(axes, kind=kind), encoder(axes), 3, 5), (x, level, z)) for kind in KINDS),
        (wide, (x, level, cond)),
        (wide, (x, level, cond, keep)),
    ):
        taken = cost(net, *inputs)
        assert taken.forward_flops == by_hooks(net, *inputs)
        assert taken.parameters == sum(
            math.prod(one.shape) for one in net.state_dict(keep_vars=True).values() if one.requires_grad
        )
    fewer = 2 * (x[0, 0].numel() // 2**axes - 2)
    assert cost(wide, x, level, cond).forward_flops > cost(wide, x, level, cond, keep).forward_flops + fewer
