"""The order in which examples are seen: a function of seed, step and epoch."""

import pytest
import torch

from unilat.training.order import batch_indices


@pytest.mark.parametrize(("count", "batch"), [(7, 3), (3, 7), (5, 5), (1, 4), (64, 16)])
def test_batches_are_permutations_end_to_end(count, batch):
    """Kills: a dropped last batch, an epoch border that repeats or loses a picture."""
    steps = 3 * count
    stream = torch.cat([batch_indices(count, batch, 5, step) for step in range(steps)])
    assert len(stream) == steps * batch
    for epoch in range(len(stream) // count):
        assert sorted(stream[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


def test_batches_depend_on_seed_step_and_epoch_only():
    """Kills: position kept in a hidden state, one order for all epochs, the cached order handed out for writing."""
    later = batch_indices(100, 10, 1, 37).clone()
    for step in (0, 99, 37):
        batch_indices(100, 10, 1, step).fill_(-1)
    assert torch.equal(later, batch_indices(100, 10, 1, 37)) and later.dtype == torch.int64
    assert not torch.equal(later, batch_indices(100, 10, 2, 37))
    epochs = [torch.cat([batch_indices(100, 10, 1, 10 * e + s) for s in range(10)]).tolist() for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_are_those_written_down():
    """Golden: another order would break every resumed run."""
    assert batch_indices(11, 8, 7, 2).tolist() == [2, 6, 7, 4, 1, 0, 10, 0]
