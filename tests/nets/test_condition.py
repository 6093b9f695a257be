"""Conditions: rows with a null, taken apart like a tensor, embedded in one place."""

import torch
from torch import nn

from unilat.nets.condition import ClassEmbedder, Condition


def test_dropped_rows_are_embedded_as_the_null() -> None:
    """Rows that are dropped get the last row of the table, the others their own. Kills: class 0 for the null, the
    dropped ones kept and the others lost."""
    embed, lost = ClassEmbedder(3, 5), torch.tensor([True, False, False, True])
    rows = torch.tensor([0, 2, 1, 1])
    wanted = embed.weight[torch.tensor([3, 2, 1, 3])]
    assert torch.equal(embed(Condition(rows).drop(lost)), wanted)
    assert torch.equal(embed(Condition(rows)), embed.weight[rows])
    assert torch.equal(embed(Condition(rows).null()), embed.weight[3].expand(4, -1))


def test_a_condition_is_taken_apart_along_its_rows() -> None:
    """Length, slices, places and devices go with what was dropped, and dropping adds up. Kills: rows without their
    mask, a drop that brings back what was dropped before, a null that says something."""
    lost = torch.tensor([True, False, False, True])
    whole = Condition(torch.arange(4)).drop(lost)
    assert len(whole) == 4 and len(whole[1:3]) == 2 and len(whole.null()) == 4
    part = whole[torch.tensor([3, 1])].to("cpu")
    assert part.rows.tolist() == [3, 1] and part.dropped is not None and part.dropped.tolist() == [True, False]
    again = whole.drop(torch.tensor([False, True, False, False]))
    assert again.dropped is not None and again.dropped.tolist() == [True, True, False, True]
    assert whole.null().dropped is not None and bool(whole.null().dropped.all())
    assert Condition(torch.arange(4))[:2].to("meta").dropped is None and whole.to("meta").rows.is_meta


def test_old_weights_fit_the_embedder() -> None:
    """One weight, named and drawn as ``nn.Embedding``'s with standard deviation 0.5, so that old checkpoints load and
    seeds give what they gave. Kills: a table without its null, another name, another draw."""
    torch.manual_seed(3)
    before = nn.Embedding(8, 16)
    nn.init.normal_(before.weight, std=0.5)
    torch.manual_seed(3)
    embed = ClassEmbedder(7, 16)
    assert torch.equal(embed.state_dict()["weight"], before.weight) and list(embed.state_dict()) == ["weight"]


def test_a_class_of_factors_is_the_sum_of_its_values() -> None:
    """Three letters in two faces, of which one pair is no class: each has its own row, and a class their sum, so that
    two pairs of letters differ by the same in either face. Kills: factors that share rows, a mean, the null's row
    taken by a value, dropped rows that keep a factor."""
    factors = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 1]])
    embed = ClassEmbedder(5, 4, factors)
    assert embed.weight.shape == (3 + 2 + 1, 4) and list(embed.state_dict()) == ["weight"]
    rows, weight = torch.tensor([4, 1, 2]), embed.weight
    torch.testing.assert_close(embed(Condition(rows)), weight[[2, 0, 1]] + weight[[4, 4, 3]])
    dropped = embed(Condition(rows).drop(torch.tensor([False, True, False])))
    torch.testing.assert_close(dropped, torch.stack([weight[2] + weight[4], 2 * weight[5], weight[1] + weight[3]]))
    each = embed(Condition(torch.arange(5)))
    torch.testing.assert_close(each[2] - each[0], each[3] - each[1])
    torch.manual_seed(1)
    spread = (
        ClassEmbedder(1000, 64, torch.stack([torch.arange(1000), torch.arange(1000) % 10], 1)).weight.detach().std()
    )
    assert abs(float(spread) - 0.5 / 2**0.5) < 0.01, "a class is drawn as wide as one without factors"
