"""FLOPs, parameters and kept bytes, against sums by hand."""

import torch
from torch import nn

from unilat.nets.cost import cost
from unilat.nets.layers import TransformerBlock
from unilat.nets.vit import ViT

from .samples import vit


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
    assert found.training_flops(11) == 3 * 11 * found.forward_flops


def test_kept_bytes_by_hand() -> None:
    """Kills: weights counted as activations, a tensor that two layers keep counted twice, or nothing counted."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert cost(net, torch.zeros(1, 4)).activation_bytes == 4 * (4 + 8)


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
    z, level, label = torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    with torch.device("meta"):
        twin = ViT(vit(), 3, 2, classes=4)
    assert cost(ViT(vit(), 3, 2, classes=4), z, level, label) == cost(twin, z, level, label)
