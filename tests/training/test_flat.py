"""Weights in one storage: the same numbers as apart, and the model's own again when the fit has ended."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from unilat.training.flat import ROW, Flat
from unilat.training.state import State

from .toy import Toy, fit, schedule


def named() -> dict[str, Tensor]:
    """Five tensors of lengths that fill no line."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (3,), "b": (2, 5), "c": (4, 2, 3), "d": (4, 6), "e": (700,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_parts_runs_and_stacks_are_views_of_the_whole() -> None:
    """Kills: a part at another's place, a stack that runs over the gaps, copies in place of views."""
    tensors = named()
    flat = Flat(tensors)
    assert len(flat.whole) % ROW == 0 and all(torch.equal(flat.parts[name], tensors[name]) for name in tensors)
    assert torch.equal(flat.stack(["c", "d"]), torch.stack([tensors["c"].reshape(4, 6), tensors["d"]]))
    flat.stack(["c", "d"])[1].add_(1)
    flat.run(["a", "b"]).mul_(2)
    assert torch.equal(flat.parts["d"], tensors["d"] + 1) and torch.equal(flat.parts["c"], tensors["c"])
    assert torch.equal(flat.parts["a"], 2 * tensors["a"]) and torch.equal(flat.parts["b"], 2 * tensors["b"])
    assert float(flat.whole.sum()) == pytest.approx(sum(float(part.sum()) for part in flat.parts.values()), abs=1e-3)
    assert list(flat.zeros(["e", "a"]).parts) == ["e", "a"] and not flat.zeros(["e"]).whole.any()
    with pytest.raises(ValueError, match="one dtype and device"):
        Flat({"a": torch.zeros(1), "b": torch.zeros(1, dtype=torch.float64)})


def test_the_norm_is_that_of_all_parts() -> None:
    """Kills: the first row's, a sum of norms."""
    tensors = named() | {"f": torch.full((50, 50), 0.3)}
    expected = torch.cat([tensor.flatten() for tensor in tensors.values()]).double().norm()
    assert float(Flat(tensors).norm()) == pytest.approx(float(expected), rel=1e-6)


def test_gradients_laid_elsewhere_are_taken_in() -> None:
    """Kills: a gradient that somebody set and nobody moves by; an old one for a weight that has none."""
    state = State(Toy().stage(), schedule(), 0, torch.device("cpu"))
    state.gradients.whole.fill_(5.0)
    first, second = state.trained[0], state.trained[1]
    first.grad, second.grad = torch.full_like(first, 3.0), None
    assert state.gradient() is state.gradients
    assert bool((state.gradients.parts[state.names[0]] == 3).all())
    assert not state.gradients.parts[state.names[1]].any() and second.grad is state.gradients.parts[state.names[1]]
    assert bool((state.gradients.parts[state.names[2]] == 5).all())


def test_a_model_owns_its_weights_again_after_a_fit(tmp_path: Path) -> None:
    """Also where it fails. Kills: weights that no safetensors file takes, or that hold all others' memory."""
    stage = Toy()
    done = fit(stage, schedule(), tmp_path, 7, stop_at=2)
    for tensor in [*stage.model.parameters(), *done.ema.values()]:
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() and tensor.grad is None
    stage.after_step = lambda metrics, samples: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        fit(stage, schedule(), tmp_path, 7)
    assert all(one.untyped_storage().nbytes() == one.numel() * 4 for one in stage.model.parameters())
