"""Which examples a refused step is to be blamed on: their rows are computed once more, nothing moves."""

from collections.abc import Callable

import torch
from torch import Tensor

from unilat.training.flat import Whole
from unilat.training.guard import Refused
from unilat.training.micro import MicroBatch
from unilat.training.parallel import World
from unilat.training.plan import Batch, Losses
from unilat.training.state import State

SHOWN = 16
"""Examples that are named."""
Forward = Callable[[int, int, Losses | None], tuple[Tensor, Batch]]
"""``(first, last, the stage's losses or others) -> losses [last - first] and batch`` of those rows of the step."""


def blamed(state: State, world: World, found: Refused, micro: MicroBatch, order: Tensor, forward: Forward) -> str:
    """What is wrong with the step ``found``, in words; ``order [batch]``: the examples of its global batch."""
    if found.why:
        return found.why
    total = state.schedule.batch
    first, last = world.rows(total)
    parts = [_finite_parts(state, forward, *part) for part in micro.parts(first, last, -(-total // world.size))]
    bad = torch.zeros(total, device=state.device)

    def mark(rows: Tensor) -> bool:
        bad[first : first + len(rows)] = (~rows).to(bad.dtype)
        return bool(world.sum(bad).any())

    if mark(torch.cat([data for data, _ in parts])):
        what = "their data are not finite"
    elif mark(torch.cat([own for _, own in parts])):
        what = f"their loss is not finite (mean {found.loss})"
    elif mark(_finite_gradients(state, world, forward)):
        what = "their gradients are not finite"
    else:
        bad.fill_(1)
        what = f"the gradient's norm over the batch is {found.norm}"
    state.forget_gradients()
    examples = order[bad.cpu() > 0]
    some = examples[:SHOWN]
    names = state.stage.names(some) if state.stage.names else None
    named = ", ".join(map(str, some.tolist() if names is None else names))
    more = f" and {len(examples) - SHOWN} more" if len(examples) > SHOWN else ""
    return f"samples {named}{more}: {what}"


def _finite_parts(state: State, forward: Forward, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Whether the data and the loss of each row are finite, of the same rows as in the step once more."""
    with torch.no_grad():
        own, batch = forward(first, last, state.laid.part_losses)
    return torch.stack([_finite_rows(part) for part in batch]).all(0), _finite_rows(own)


def _finite_rows(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(len(tensor), -1).isfinite().all(1)


def _finite_gradients(state: State, world: World, forward: Forward) -> Tensor:
    """Whether the gradient of each own example, computed alone, is finite; all True if the model needs company."""
    first, last = world.rows(state.schedule.batch)
    finite = torch.ones(last - first, dtype=torch.bool, device=state.device)
    if not isinstance(state.laid, Whole):
        return finite  # none can be computed alone
    try:
        for row in range(first, last):
            loss = forward(row, row + 1, None)[0].sum()
            grads = torch.autograd.grad(loss, state.trained, allow_unused=True)
            finite[row - first] = all(bool(grad.isfinite().all()) for grad in grads if grad is not None)
    except (RuntimeError, ValueError):
        finite.fill_(True)
    return finite
