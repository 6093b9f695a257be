"""What a network costs, counted without memory on the meta device.

FLOPs are those of linear maps, convolutions and attention (two a multiply-add), as the paper counts them (UL Sec. 5.1);
training is three times the forward pass, and each step of Muon its own products (``nets/inner.py``).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unilat.nets.condition import Condition
from unilat.nets.inner import step_flops
from unilat.nets.layers import TransformerBlock


@dataclass(frozen=True)
class Cost:
    """Of one network: parameters, FLOPs of a forward pass of one example, bytes kept for its backward pass.

    Attention keeps no matrix of tokens by tokens: none of torch's fast kernels does, and the meta device alone would.
    """

    parameters: int
    forward_flops: int
    activation_bytes: int
    step_flops: int = 0
    """FLOPs of the products of one step, where Muon takes it; AdamW has none."""


def cost(net: nn.Module, *inputs: Tensor | Condition | None) -> Cost:
    """Cost of ``net(*inputs)``; inputs are those of one example (any device), taken by shape alone."""
    twin = copy.deepcopy(net).to("meta")
    shapes = [None if item is None else item.to("meta") for item in inputs]
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    matrices: list[int] = []

    def attend(block: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(block, TransformerBlock):
            matrices.append(len(given[0]) * block.heads * given[0].shape[1] ** 2 * given[0].element_size())

    for block in twin.modules():
        block.register_forward_hook(attend)

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = twin(*shapes)
    del output
    kept[0] = -sum(matrices)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Cost(parameters, counter.get_total_flops(), sum(kept.values()), step_flops(net))
