"""Layers written once for 1, 2 and 3 axes of a signal.

Shape suffixes: ``x_BC*`` channels first on any grid ``*``; ``x_BLD`` tokens; ``e_BE`` the embedding of noise level
and class. ``axes`` is the number of grid axes. Patches follow UL Sec. 5.1 (2×2 at the pixels).
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unilat.nets.condition import ClassEmbedder, Condition
from unilat.nets.products import Linear

Layer = TypeVar("Layer", bound=nn.Module)
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
_MERGE = {
    1: "b c (x p) -> b (c p) x",
    2: "b c (y p) (x q) -> b (c p q) y x",
    3: "b c (t p) (y q) (x r) -> b (c p q r) t y x",
}


def convolution(axes: int, channels_in: int, channels_out: int, kernel: int = 3) -> Convolution:
    """A convolution on ``axes`` axes that keeps the grid (zero padding)."""
    return _CONVOLUTIONS[axes](channels_in, channels_out, kernel, padding=kernel // 2)


def zero_(module: Layer) -> Layer:
    """Set a layer's parameters to zero, so that the branch it ends starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def merge_patches(x_BCX: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Fold patches of the grid into channels: ``[B, C, p·h, q·w] -> [B, C·p·q, h, w]``."""
    return rearrange(x_BCX, _MERGE[len(patch)], **dict(zip("pqr", patch, strict=False)))


def split_patches(x_BCX: Tensor, patch: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`merge_patches`."""
    merged, split = _MERGE[len(patch)].split(" -> ")
    return rearrange(x_BCX, f"{split} -> {merged}", **dict(zip("pqr", patch, strict=False)))


def to_grid(x_BCX: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Lay features on another grid by nearest neighbour; the same grid is returned as it is."""
    return x_BCX if tuple(x_BCX.shape[2:]) == tuple(grid) else F.interpolate(x_BCX, size=tuple(grid), mode="nearest")


def normalisation(channels: int) -> nn.GroupNorm:
    """Group normalisation with 16 channels a group, or the largest count that divides."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions with an optional scale and shift from the embedding ``e_BE``; starts as the identity."""

    def __init__(self, axes: int, channels: int, embedding: int = 0, dropout: float = 0.0):
        super().__init__()
        self.norm_in, self.norm_out = normalisation(channels), normalisation(channels)
        self.conv_in = convolution(axes, channels, channels)
        self.conv_out = zero_(convolution(axes, channels, channels))
        self.modulate = zero_(Linear(embedding, 2 * channels)) if embedding else None
        self.dropout = dropout

    def forward(self, x_BCX: Tensor, e_BE: Tensor | None = None) -> Tensor:
        h_BCX = self.norm_out(self.conv_in(F.silu(self.norm_in(x_BCX))))
        if self.modulate is not None:
            scale, shift = self.modulate(e_BE).view(x_BCX.shape[0], -1, *[1] * (x_BCX.dim() - 2)).chunk(2, dim=1)
            h_BCX = torch.addcmul(shift, h_BCX, 1 + scale)
        h_BCX = F.dropout(F.silu(h_BCX), self.dropout, self.training)
        return x_BCX + self.conv_out(h_BCX)


def through(function: Callable[..., Any], again: bool, *inputs: Tensor | None) -> Any:
    """``function(*inputs)``; ``again``: its inside is not kept for the backward pass but computed once more there."""
    if again and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)


class Stack(nn.ModuleList):
    """Residual blocks one after the other: ``[B, C, *] -> [B, C, *]``."""

    checkpointing = False
    """Whether blocks are computed again in the backward pass."""
    channels_last = False
    """Whether channels lie next to each other in memory; on two and three axes."""

    def __init__(self, axes: int, channels: int, count: int, embedding: int = 0, dropout: float = 0.0):
        super().__init__(ResidualBlock(axes, channels, embedding, dropout) for _ in range(count))

    def forward(self, x_BCX: Tensor, e_BE: Tensor | None = None) -> Tensor:
        if self.channels_last and x_BCX.dim() in _LAYOUTS:
            x_BCX = x_BCX.contiguous(memory_format=_LAYOUTS[x_BCX.dim()])
        for block in self:
            x_BCX = through(block, self.checkpointing, x_BCX, e_BE)
        return x_BCX


class Embedding(nn.Module):
    """Noise level, and condition where there are ``classes``: ``λ [B], condition -> e_BE``.

    ``e = silu(MLP(cos(2π f λ), sin(2π f λ)) + row of the class)`` with wavelengths from 1 to 64 units of log-SNR.
    ``factors``: what the classes are made of (:class:`~unilat.nets.condition.ClassEmbedder`).
    """

    frequency: Tensor

    def __init__(self, width: int, classes: int = 0, factors: Tensor | None = None, frequencies: int = 16):
        super().__init__()
        self.register_buffer(
            "frequency", torch.exp2(-torch.linspace(0, 6, frequencies)) * 2 * math.pi, persistent=False
        )
        self.project = nn.Sequential(Linear(2 * frequencies, width), nn.SiLU(), Linear(width, width))
        self.table = ClassEmbedder(classes, width, factors) if classes else None

    def forward(self, logsnr: Tensor, cond: Condition | None = None) -> Tensor:
        angle = logsnr[:, None] * self.frequency
        e_BE = self.project(torch.cat([angle.cos(), angle.sin()], dim=1))
        return F.silu(e_BE if self.table is None or cond is None else e_BE + self.table(cond))


class Positions(nn.Module):
    """Places on the grid: sines of each coordinate, projected to the tokens' width (any grid size works)."""

    def __init__(self, axes: int, width: int, frequencies: int = 8):
        super().__init__()
        self.frequencies = frequencies
        self.project = Linear(2 * axes * frequencies, width)

    def forward(self, grid: tuple[int, ...], like: Tensor) -> Tensor:
        exact: Any = {
            "device": like.device,
            "dtype": torch.promote_types(like.dtype, torch.float32),
        }  # bf16 loses places
        waves = torch.exp2(torch.linspace(-6, 0, self.frequencies, **exact)) * math.pi
        places = torch.cartesian_prod(*[torch.arange(size, **exact) for size in grid])
        angle = (places.view(-1, len(grid), 1) * waves).flatten(1)
        return self.project(torch.cat([angle.cos(), angle.sin()], dim=1))


class TransformerBlock(nn.Module):
    """Attention and a 4× MLP, each gated, scaled and shifted by the embedding (adaLN-single, PixArt-α Sec. 2.3).

    The six modulation vectors are shared between blocks but for a learned offset ``[6, D]`` of this block; the gates
    start at zero, so the block starts as the identity.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.norm_q, self.norm_k = nn.LayerNorm(width // heads), nn.LayerNorm(width // heads)
        self.merge = Linear(width, width)
        self.expand, self.contract = Linear(width, 4 * width), Linear(4 * width, width)
        self.offset = nn.Parameter(torch.zeros(6, width))

    def forward(self, x_BLD: Tensor, modulation_B6D: Tensor) -> Tensor:
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = (modulation_B6D + self.offset)[:, :, None].unbind(1)
        h_BLD = torch.addcmul(shift_a, self.norm_attention(x_BLD), 1 + scale_a)
        q, k, v = rearrange(self.qkv(h_BLD), "b l (n h d) -> n b h l d", n=3, h=self.heads)
        a_BLD = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v)
        a_BLD = self.merge(rearrange(a_BLD, "b h l d -> b l (h d)"))
        x_BLD = torch.addcmul(x_BLD, gate_a, F.dropout(a_BLD, self.dropout, self.training))
        h_BLD = torch.addcmul(shift_m, self.norm_mlp(x_BLD), 1 + scale_m)
        h_BLD = self.contract(F.gelu(self.expand(h_BLD)))
        return torch.addcmul(x_BLD, gate_m, F.dropout(h_BLD, self.dropout, self.training))


class Transformer(nn.Module):
    """Blocks on the tokens of a grid, with one shared modulation: ``[B, D, *grid] -> [B, D, *grid]``.

    ``keep_BK``: places of the tokens that the blocks between the first and the last see; the others pass those by
    unchanged (TREAD, arXiv 2501.04765). Other tokens of an example, but as many of each.
    """

    checkpointing = False
    """As :class:`Stack`'s."""

    def __init__(self, width: int, blocks: int, embedding: int, head_width: int, dropout: float = 0.0):
        super().__init__()
        heads = max(1, width // head_width)
        self.modulate = zero_(Linear(embedding, 6 * width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(blocks))

    def forward(self, x_BDX: Tensor, e_BE: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        modulation_B6D = self.modulate(e_BE).view(x_BDX.shape[0], 6, -1)
        x_BLD = all_BLD = x_BDX.flatten(2).transpose(1, 2).contiguous()  # a compiled block errs on transposed tokens
        place_BKD = None if keep_BK is None else keep_BK[:, :, None].expand(-1, -1, x_BLD.shape[2])
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            if place_BKD is not None and 1 == index < last:
                all_BLD, x_BLD = x_BLD, x_BLD.gather(1, place_BKD)
            if place_BKD is not None and 1 < index == last:
                x_BLD = all_BLD.scatter(1, place_BKD, x_BLD)
            x_BLD = through(block, self.checkpointing, x_BLD, modulation_B6D)
        return x_BLD.transpose(1, 2).reshape(x_BDX.shape)


class Tokens(nn.Module):
    """Transformer blocks that hear no noise level, on the tokens of a grid: ``[B, D, *grid] -> [B, D, *grid]``."""

    def __init__(self, axes: int, width: int, depth: int, head_width: int = 32):
        super().__init__()
        heads = math.gcd(width, max(1, width // head_width))
        self.positions = Positions(axes, width)
        self.middle = Transformer(width, depth, 1, width // heads)

    def forward(self, x_BDX: Tensor) -> Tensor:
        position_LD = self.positions(tuple(x_BDX.shape[2:]), x_BDX)
        x_BDX = x_BDX + position_LD.T.reshape(1, -1, *x_BDX.shape[2:])
        return self.middle(x_BDX, x_BDX.new_ones(x_BDX.shape[0], 1)).contiguous()
