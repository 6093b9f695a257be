"""The order in which examples are seen: a function of seed, step and epoch."""

import pytest
import torch

from unilat.training.order import _epoch_order, batch_indices, epochs_of


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


def test_an_epoch_is_kept_in_four_bytes_a_picture():
    """Kills: orders of 8 bytes a picture, or of many epochs, kept while a run lasts."""
    _epoch_order.cache_clear()
    for step in range(50):
        batch_indices(100, 10, 1, step)
    assert _epoch_order(100, 1, 4).dtype == torch.int32 and _epoch_order.cache_info().currsize == 2


def _blocked() -> torch.Tensor:
    """int64 [61]: 20 blocks of three rows, named apart and out of order, and one of a single row."""
    return torch.cat([torch.arange(60) // 3 * 7 % 60 + 100, torch.tensor([5])])


def test_blocks_are_shuffled_within_windows():
    """An epoch is a permutation that takes 8 blocks at a time and mixes their rows. Kills: blocks without a shuffle, a
    window that leaves blocks in order, rows that leave their window, blocks in their stored order, a block split."""
    blocks = _blocked()
    order = batch_indices(61, 61, 3, 0, blocks)
    assert sorted(order.tolist()) == list(range(61))
    seen = blocks[order].tolist()
    bounds = [0]
    while bounds[-1] < 61:  # windows as they come: the next one begins once 8 blocks have been seen whole
        names: set[int] = set()
        for end in range(bounds[-1], 62):
            whole = all(seen[bounds[-1] : end].count(name) == blocks.tolist().count(name) for name in names)
            if (len(names) == 8 or end == 61) and whole:
                break
            names.add(seen[end] if end < 61 else -1)
        assert len(names) in (8, 21 - 16), "rows of more than 8 blocks are mixed"
        bounds.append(end)
    assert len(bounds) == 4
    changes = sum(left != right for left, right in zip(seen, seen[1:], strict=False))
    assert changes > 35, "rows of a window are not mixed"
    assert [*dict.fromkeys(seen)] != sorted(set(seen))


def test_order_of_blocks_is_a_function_of_seed_and_epoch():
    """Kills: one order of blocks for all epochs or seeds, an order that depends on which step came first."""
    blocks = _blocked()
    epochs = [batch_indices(61, 61, 3, epoch, blocks) for epoch in range(3)]
    assert len({tuple(one.tolist()) for one in [*epochs, batch_indices(61, 61, 4, 0, blocks)]}) == 4
    again = torch.cat([batch_indices(61, 10, 3, step, blocks.clone()) for step in range(13)])
    assert torch.equal(again[:122], torch.cat(epochs[:2]))
    windows = [frozenset(blocks[one[:12]].tolist()) for one in epochs]
    assert not windows[0] >= windows[1] and len(frozenset.union(*windows)) > 9, (
        "the same blocks come first in every epoch"
    )
    with pytest.raises(ValueError, match="one block each"):
        batch_indices(60, 10, 3, 0, blocks)


def test_each_row_knows_its_epoch():
    """Kills: the epoch of a batch's first row for all of it, epochs from 1, the step taken for the row."""
    assert epochs_of(11, 8, 2).tolist() == [1, 1, 1, 1, 1, 1, 2, 2]
    assert epochs_of(11, 8, 0).tolist() == [0] * 8 and epochs_of(3, 8, 1).tolist() == [2, 3, 3, 3, 4, 4, 4, 5]
