"""Inner matrices of a network, which Muon moves (``training/muon.py``), and what the products of its steps cost."""

from torch import Tensor, nn

LEAST = 64
"""Smaller side that makes a weight an inner matrix; first, last and embedding layers of narrow signals stay Adam's."""
ROUNDS = 3
"""Quintics of one orthogonal step."""


def is_inner(weight: Tensor) -> bool:
    """Whether ``weight`` is for Muon: two or more axes, and as a matrix ``LEAST`` or more rows and columns."""
    return weight.dim() > 1 and min(weight.shape[0], weight[0].numel()) >= LEAST


def flops(rows: int, columns: int) -> int:
    """FLOPs of the orthogonal step of one matrix, ``6 n² (2 m + n)`` with n ≤ m its sides.

    Each quintic ``a x + (b S + c S²) x``, ``S = x xᵀ``, is three products of two FLOPs a multiply-add: S takes
    ``2 n² m``, S² ``2 n³``, and their sum times x ``2 n² m`` again.
    """
    least, most = min(rows, columns), max(rows, columns)
    return 2 * ROUNDS * least**2 * (2 * most + least)


def step_flops(net: nn.Module) -> int:
    """FLOPs of the products of one step of Muon for the trained inner matrices of ``net``, whatever the batch."""
    weights = (weight for weight in net.parameters() if weight.requires_grad and is_inner(weight))
    return sum(flops(len(weight), weight[0].numel()) for weight in weights)
