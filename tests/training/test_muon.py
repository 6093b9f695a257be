"""Muon against the singular value decomposition, and a run with both optimisers stopped and resumed."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unilat.nets import products
from unilat.nets.inner import flops, is_inner, step_flops
from unilat.training import checkpoint, muon
from unilat.training.muon import RMS, Muon, _each, _together, orthogonal, shares
from unilat.training.parallel import ALONE, World
from unilat.training.state import State

from .toy import Toy, fit, schedule


def matrices(count: int, rows: int, columns: int, lowest: float = 0.02) -> Tensor:
    """Matrices of known singular values: ``lowest`` to 1, before they are scaled by 0.1 to 10."""
    generator = torch.Generator().manual_seed(rows + columns)
    least = min(rows, columns)
    u = torch.linalg.qr(torch.randn(count, rows, least, generator=generator))[0]
    v = torch.linalg.qr(torch.randn(count, columns, least, generator=generator))[0]
    values = torch.logspace(math.log10(lowest), 0, least)
    return (u * values) @ v.mT * torch.logspace(-1, 1, count)[:, None, None]


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (4, 9), (9, 4)])
def test_singular_values_near_one_and_the_same_singular_vectors(rows: int, columns: int) -> None:
    """Kills: a coefficient, a matrix taken the wrong way round, one norm for all matrices, a step left out."""
    given = matrices(3, rows, columns)
    got = orthogonal(given)
    assert got.shape == given.shape
    values = torch.linalg.svdvals(got)
    assert float(values.min()) > 0.72 and float(values.max()) < 1.28
    product = given.mT @ got  # V S U^T U S' V^T: symmetric, no negative eigenvalue
    torch.testing.assert_close(product, product.mT, atol=1e-4, rtol=1e-4)
    assert float(torch.linalg.eigvalsh(product).min()) > -1e-4


def test_no_gradient_no_direction() -> None:
    """Kills: 0 / 0."""
    assert torch.equal(orthogonal(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


def test_one_by_one_is_the_same_as_together() -> None:
    """Kills: a factor lost between two quintics, a matrix on the wrong side, another one's sums."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no linear map of oneDNN's")
    given = matrices(3, 20, 31)
    given = given / torch.linalg.vector_norm(given, dim=(1, 2), keepdim=True)
    torch.testing.assert_close(_each(given), _together(given), atol=2e-5, rtol=1e-4)


def test_steps_follow_the_formula() -> None:
    """Kills: momentum without its look ahead, a buffer not kept, decay at another rate, matrices mixed up."""
    torch.manual_seed(1)
    stacks = [nn.Parameter(torch.randn(shape)) for shape in ((3, 4, 6), (1, 5, 3))]
    optimizer = Muon(stacks, lr=0.1, momentum=0.8, weight_decay=0.5)
    mine = [stack.detach().clone() for stack in stacks]
    buffers = [torch.zeros_like(stack) for stack in stacks]
    for _ in range(3):
        for index, (stack, longer) in enumerate(zip(stacks, (6, 5), strict=True)):
            gradient = torch.randn_like(stack)
            stack.grad = gradient.clone()
            buffers[index] = 0.8 * buffers[index] + 0.2 * gradient
            ahead = 0.2 * gradient + 0.8 * buffers[index]
            for place in range(len(stack)):
                step = 0.1 * RMS * math.sqrt(longer) * orthogonal(ahead[place : place + 1])[0]
                mine[index][place] = (1 - 0.1 * 0.5) * mine[index][place] - step
        optimizer.step()
        for stack, expected in zip(stacks, mine, strict=True):
            torch.testing.assert_close(stack.detach(), expected, atol=1e-5, rtol=1e-5)


def test_a_step_is_as_long_as_the_learning_rate_says() -> None:
    """Kills: a scale that depends on the gradient's, or on the matrix's smaller side."""
    for shape in ((64, 64), (64, 256), (256, 64)):
        weight = nn.Parameter(torch.zeros(1, *shape))
        weight.grad = matrices(1, *shape, lowest=0.5) * 1e-3
        Muon([weight], lr=0.01).step()
        wanted = 0.01 * RMS * math.sqrt(min(shape) * max(shape) / (shape[0] * shape[1]))
        assert float(weight.detach().square().mean().sqrt()) == pytest.approx(wanted, rel=0.28)


def test_inner_matrices() -> None:
    """Kills: vectors, tables and narrow first and last layers given to Muon; a kernel's axes not counted as columns."""
    inner = [(64, 64), (64, 8, 3, 3), (384, 128)]
    others = [(64,), (4096,), (128, 32, 1, 1), (32, 64, 3, 3), (11, 128), (6, 128)]
    assert all(is_inner(torch.zeros(shape)) for shape in inner)
    assert not any(is_inner(torch.zeros(shape)) for shape in others)


class Wide(Toy):
    """The toy with one inner matrix."""

    def __init__(self) -> None:
        super().__init__(width=64)
        torch.manual_seed(4)
        out = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), self.model.out)
        self.model.out = out  # pyright: ignore[reportAttributeAccessIssue]


def test_resumed_at_every_step_with_both_optimisers(tmp_path: Path) -> None:
    """Kills: Muon's momentum left out of a checkpoint, or given to another weight."""
    plan = schedule(optimizer="muon")
    fit(Wide(), plan, tmp_path / "whole", 7)
    whole = checkpoint.load(tmp_path / "whole")
    assert whole is not None
    assert [name for name in whole.tensors["optimizer"] if "momentum" in name] == ["out.0.weight.momentum_buffer"]
    for step in (1, 4, 7):
        fit(Wide(), plan, tmp_path / str(step), 7, stop_at=step)
        fit(Wide(), plan, tmp_path / str(step), 7)
        again = checkpoint.load(tmp_path / str(step))
        assert again is not None and again.fingerprint() == whole.fingerprint()


def test_each_weight_has_one_optimiser() -> None:
    """Kills: a weight that both move, or neither; Muon where it was not asked for."""
    for name, counts in (("muon", {"AdamW": 5, "Muon": 1}), ("adamw", {"AdamW": 6})):
        state = State(Wide().stage(), schedule(optimizer=name), 0, torch.device("cpu"))
        moved = dict.fromkeys(counts, 0)
        for optimizer in state.optimizers:
            before = {name: part.clone() for name, part in state.weights.parts.items()}
            state.gradients.whole.fill_(1.0)
            for group in optimizer.param_groups:
                group["lr"] = 0.1
            optimizer.step()
            changed = [name for name, part in state.weights.parts.items() if not torch.equal(part, before[name])]
            moved[type(optimizer).__name__] += len(changed)
        assert moved == counts and len(state.trained) == 6


def test_a_step_of_both_optimisers_by_hand() -> None:
    """ρ = 0.8, μ = 0.95, one learning rate and one decay for both: two steps of a matrix, one of Adam's.

    Kills: Muon without decay or at a rate of its own, another ρ, another momentum.
    """
    state = State(Wide().stage(), schedule(optimizer="muon"), 0, torch.device("cpu"))
    named = dict(state.stage.model.named_parameters())
    inner, other = named["out.0.weight"], named["into.weight"]
    first, second = matrices(2, 64, 64)
    wanted = inner.detach() * (1 - 0.03 * 0.1) - 0.03 * 0.8 * 8 * orthogonal(first[None])[0]
    momentum = 0.95 * 0.05 * first + 0.05 * second
    wanted = wanted * (1 - 0.03 * 0.1) - 0.03 * 0.8 * 8 * orthogonal((0.05 * second + 0.95 * momentum)[None])[0]
    for gradient in (first, second):
        for parameter in state.trained:
            parameter.grad = torch.full_like(parameter, 0.2)
        inner.grad = gradient.clone()
        before = other.detach().clone()
        state.move(0.03)
    torch.testing.assert_close(inner.detach(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.detach(), before * (1 - 0.03 * 0.1) - 0.03, rtol=1e-4, atol=1e-5)


def test_a_real_step_multiplies_as_much_as_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's counter beside a step of both optimisers: tall, wide and square matrices, a convolution, what is frozen
    and what is Adam's. Kills: products left out, sides exchanged, a kernel's size forgotten, another number of quintics
    and weights that do not move."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)  # the counter passes by oneDNN's maps
    net = nn.Sequential(
        nn.Linear(64, 192), nn.Linear(192, 64), nn.Linear(70, 70), nn.Linear(300, 300), nn.Linear(9, 80)
    )
    net.append(nn.Conv2d(16, 96, 3))
    net[3].requires_grad_(False)
    state = State(replace(Toy().stage(), model=net), schedule(optimizer="muon"), 0, torch.device("cpu"))
    for weight in state.trained:
        weight.grad = torch.randn_like(weight)
    with FlopCounterMode(display=False) as counter:
        state.move(0.1)
    by_hand = 6 * (2 * 64**2 * (2 * 192 + 64) + 70**2 * 210 + 96**2 * (2 * 144 + 96))
    assert counter.get_total_flops() == step_flops(net) == by_hand


def test_matrices_are_shared_out_by_their_cost() -> None:
    """By hand: a matrix of 2 × 2 costs 6 · 4 · 6 = 144 FLOPs, one of 1 × 4 costs 6 · 9 = 54. Four and five of them on
    three processes: the large ones 2, 1, 1, the small ones 0, 3, 2, that is 288, 306 and 252.

    Kills: as many matrices each, FLOPs by the larger side, matrices that are nobody's or of two.
    """
    assert flops(2, 2) == 144.0 and flops(1, 4) == flops(4, 1) == 54.0
    assert shares([(5, 1, 4), (4, 2, 2)], 3) == [[0, 0, 3, 5], [0, 2, 3, 4]]
    assert shares([(5, 1, 4), (4, 2, 2)], 1) == [[0, 5], [0, 4]]
    assert shares([(1, 2, 2)], 3) == [[0, 1, 1, 1]]


class Linked(World):
    """One of ``size`` processes that are threads here."""

    def __init__(self, rank: int, given: list[Tensor | None], meet: threading.Barrier) -> None:
        super().__init__(rank, len(given))
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "meet", meet)

    def gather(self, tensor: Tensor) -> Tensor:
        given: list[Tensor] = self.__dict__["given"]
        given[self.rank] = tensor
        self.__dict__["meet"].wait(20)
        every = torch.stack(given)
        self.__dict__["meet"].wait(20)
        return every


@pytest.mark.parametrize("size", [2, 3])
def test_processes_that_share_the_matrices_take_the_steps_of_one(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Kills: another's steps on a matrix, padding taken for steps, momentum of the own matrices alone, all by all."""
    torch.manual_seed(5)
    shapes, made = ((3, 4, 6), (2, 5, 3), (1, 7, 7)), list[int]()
    starts, gradients = [torch.randn(shape) for shape in shapes], [[torch.randn(s) for s in shapes] for _ in range(3)]
    monkeypatch.setattr(muon, "orthogonal", lambda given: (made.append(len(given)), orthogonal(given))[1])

    def moved(world: World) -> list[Tensor]:
        stacks = [nn.Parameter(start.clone()) for start in starts]
        optimizer = Muon(stacks, lr=0.1, momentum=0.8, weight_decay=0.5, world=world)
        for step in gradients:
            for stack, gradient in zip(stacks, step, strict=True):
                stack.grad = gradient.clone()
            optimizer.step()
        return [*(stack.detach() for stack in stacks), *(optimizer.state[stack]["momentum_buffer"] for stack in stacks)]

    alone = moved(ALONE)
    assert sum(made) == 6 * 3
    made.clear()
    given, meet = list[Tensor | None]([None] * size), threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        every = [*pool.map(moved, [Linked(rank, given, meet) for rank in range(size)])]
    assert sum(made) == 6 * 3
    for one in every:
        for mine, expected in zip(one, alone, strict=True):
            torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-5)
