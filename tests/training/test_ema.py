"""The average of the weights: half-lives in samples, by hand."""

import math

import pytest
import torch

from unilat.training.ema import EMA
from unilat.training.flat import Flat


@pytest.mark.parametrize("batch", [10, 25])
def test_a_value_weighs_half_after_the_half_life(batch: int) -> None:
    """Kills: a half-life in steps, e for 2, the new weights kept where the average is, the longer of two half-lives."""
    live = torch.zeros(3)
    average = EMA({"w": live}, halflife=100.0)
    live.fill_(1.0)
    for step in range(100 // batch):
        average.update(batch, 10_000 + step * batch)
    torch.testing.assert_close(average.tensors["w"], torch.full((3,), 0.5))


def test_early_the_half_life_is_a_twentieth_of_the_samples() -> None:
    """0.5^(8 / (0.05 · 400)) of the untrained weights stay. Kills: another share, a ramp that is not applied."""
    live = torch.ones(2)
    average = EMA({"w": live}, halflife=1e6)
    live.fill_(3.0)
    average.update(8, 400)
    torch.testing.assert_close(average.tensors["w"], torch.full((2,), 3.0 - 2.0 * math.exp(-0.4 * math.log(2))))


def test_without_a_half_life_the_average_is_the_weights() -> None:
    """Kills: an average that never moves where none was asked for."""
    live = torch.ones(2)
    average = EMA({"w": live}, halflife=0.0)
    live.fill_(3.0)
    average.update(8, 400)
    assert torch.equal(average.tensors["w"], torch.full((2,), 3.0))


def test_counters_are_copied_and_weights_left_alone() -> None:
    """Kills: a count that is averaged or left behind, and an average that flows into the model."""
    live, count = torch.full((2,), 2.0), torch.tensor(7)
    average = EMA({"w": live, "count": count}, halflife=1e6)
    live.fill_(4.0)
    count.fill_(9)
    average.update(20, 400)
    assert int(average.tensors["count"]) == int(count) == 9
    assert torch.equal(live, torch.full((2,), 4.0))
    torch.testing.assert_close(average.tensors["w"], torch.full((2,), 3.0))


def test_weights_that_lie_together_are_averaged_as_alone() -> None:
    """Kills: weights left out where they lie together, or averaged twice."""
    source = {"a": torch.randn(3), "b": torch.randn(2, 2), "buffer": torch.randn(4), "count": torch.tensor(3)}
    flat = Flat({name: source[name] for name in ("b", "a")})
    together = {name: tensor.clone() for name, tensor in source.items()} | flat.parts
    ones = EMA(source, 100.0), EMA(together, 100.0, flat)
    for tensors in (source, together):
        for name in ("a", "b", "buffer", "count"):
            tensors[name].add_(2)
    for one in ones:
        one.update(10, 10_000)
    assert all(torch.equal(ones[0].tensors[name], ones[1].tensors[name]) for name in source)
    assert not torch.equal(ones[1].tensors["a"], source["a"]) and int(ones[1].tensors["count"]) == 5
