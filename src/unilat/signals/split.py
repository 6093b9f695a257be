"""Which pictures are held out, and where training cuts the others: pure functions of a seed."""

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unilat.maths.seeds import seeded
from unilat.signals.factors import strata
from unilat.signals.pictures import Pictures
from unilat.types import UserError

if TYPE_CHECKING:
    from unilat.signals.stream import Streamed


def split(
    pictures: "Pictures | Streamed", *, fraction: float = 0.1, at_most: int = 2000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Indices ``(train, test)``, int64, sorted; whole groups only, so no near-duplicate stands on both sides.

    A source with test pictures of its own (``held_out``) gives those, or a seeded choice of ``at_most`` of them (the
    rest is left unused); training pictures of their groups, which are copies of them, are left unused too. Otherwise
    about ``fraction`` of the pictures, at most ``at_most``: groups in seeded order are taken while every class keeps at
    least one picture to train on and gives no more than its share, ``max(1, round(fraction * its pictures))``. A class
    of one picture or one group stays in train. Where classes are combinations of factors, each factor's value is kept
    in training and gives its share: what is held out are combinations, a letter never seen in that face.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the held-out fraction must lie between 0 and 1, not {fraction}")
    if at_most < 1:
        raise UserError(f"at least one picture must be held out, not {at_most}")
    count = len(pictures)
    if pictures.held_out is not None and bool(pictures.held_out.any()) and not bool(pictures.held_out.all()):
        official = pictures.held_out.nonzero().flatten()
        if len(official) > at_most:
            chosen = torch.randperm(len(official), generator=seeded("split", seed))[:at_most]
            official = official[chosen].sort().values
        copies = torch.isin(pictures.groups, pictures.groups[pictures.held_out])
        if bool(copies.all()):
            raise UserError(
                f"{pictures.source}: every training picture has a copy among the test pictures; take the copies out"
            )
        return (~copies).nonzero().flatten(), official
    test = torch.zeros(count, dtype=torch.bool)
    labels = strata(pictures.labels, pictures.factors)
    test[apart(pictures.groups, labels, fraction, at_most, seeded("split", seed))] = True
    if not bool(test.any()):
        raise UserError(
            f"{pictures.source}: {count} picture(s) leave nothing to hold out: one class needs at least 2 that differ;"
            " add pictures, or put them into fewer sub-folders"
        )
    return (~test).nonzero().flatten(), test.nonzero().flatten()


def _members(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures ``[N]`` group by group, groups in the order in which they first appear; and where each begins."""
    _, number = groups.unique(return_inverse=True)
    first = torch.full((int(number.max()) + 1,), len(groups)).scatter_reduce(
        0, number, torch.arange(len(groups)), "amin"
    )
    rank = torch.empty_like(first).index_copy_(0, first.argsort(), torch.arange(len(first)))[number]
    return torch.cat([torch.zeros(1).long(), torch.bincount(rank).cumsum(0)]), rank.argsort(stable=True)


def apart(groups: Tensor, labels: Tensor, fraction: float, at_most: int, generator: torch.Generator) -> list[int]:
    """Rows whose groups ``[N]`` are set apart, by the rule of :func:`split`; ``labels [N, F]``: their strata."""
    count = len(groups)
    starts, members = _members(groups)
    left = dict(enumerate(torch.bincount(labels.flatten()).tolist()))
    share = {label: max(1, round(fraction * number)) for label, number in left.items()}
    room = max(1, min(at_most, round(fraction * count)))
    taken: list[int] = []
    for position in torch.randperm(len(starts) - 1, generator=generator).numpy():
        group = members[starts[position] : starts[position + 1]].tolist()
        needed = Counter(labels[group].flatten().tolist())
        if len(group) > room or any(share[k] < n or left[k] <= n for k, n in needed.items()):
            continue
        for label, number in needed.items():
            share[label] -= number
            left[label] -= number
        taken += group
        room -= len(group)
        if room == 0:
            break
    return taken
