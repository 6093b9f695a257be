"""The pictures of a run, in memory or read as they are needed, and who of them trains, calibrates and is held out."""

import sys

import torch
from torch import Tensor

from unilat.maths.seeds import seeded
from unilat.recipe.config import DataConfig, RunConfig
from unilat.signals import Pictures, split
from unilat.signals.factors import strata
from unilat.signals.memory import InMemory
from unilat.signals.source import open_source
from unilat.signals.split import apart
from unilat.signals.stream import Part, Streamed

BUDGETS = {None: None, True: 0, False: sys.maxsize}
"""Bytes that pictures may take in memory: a quarter of what is free, or what makes them lie where they lay."""


def read_pictures(config: DataConfig, channels: int | None, streamed: bool | None = None) -> Pictures | Streamed:
    """The pictures that a configuration names, in its size: in memory where they fit, else read as they are needed.

    ``streamed``: which of the two, where a run has begun with one.
    """
    budget = BUDGETS[None if config.fit == "random-crop" else streamed]
    asked = {"size": config.size, "channels": channels, "fit": config.fit, "limit": config.at_most}
    asked["labels"] = config.labels
    share = config.unreadable_share
    source = open_source(config.source, memory_budget=budget, unreadable_share=share, **asked)
    return source.pictures if isinstance(source, InMemory) else source


def part(pictures: Pictures | Streamed, indices: Tensor, seed: int = 0) -> Tensor | Part:
    """Some of the pictures, uint8 ``[n, C, H, W]``: a tensor, or what is read where it is indexed, with ``seed``."""
    return Part(pictures, indices, seed) if isinstance(pictures, Streamed) else pictures.images[indices]


def rows_of(pictures: Pictures | Streamed, indices: Tensor, among: Tensor | None = None) -> Tensor:
    """The pictures ``indices`` in memory; ``among``: who may stand in for one that cannot be read."""
    return pictures.rows(indices, among=among) if isinstance(pictures, Streamed) else pictures.images[indices]


def split_pictures(config: RunConfig, pictures: Pictures | Streamed) -> tuple[Tensor, Tensor, Tensor]:
    """Indices ``(train, calibration, test)``: a function of the configuration's seed; at most an eighth calibrates.

    Calibration pictures are whole groups too: a near-duplicate in training would make them cheaper than held-out ones.
    Where classes are combinations of factors they are chosen as the held-out ones are, a share of each factor's values:
    by chance, characters of few faces stood among the held-out alone, and those had 1.1 % more to tell (LOG.md).
    """
    train, test = split(pictures, fraction=config.data.held_out, at_most=config.data.held_out_at_most, seed=config.seed)
    groups = pictures.groups[train]
    draws = seeded(config.seed, "calibration")
    room = min(config.data.calibration, len(train) // 8)
    if pictures.factors is not None and room:
        chosen = torch.zeros(len(train), dtype=torch.bool)
        chosen[apart(groups, strata(pictures.labels[train], pictures.factors), room / len(train), room, draws)] = True
    else:
        chosen = _by_chance(groups, pictures.labels[train], room, draws)
    return train[~chosen], train[chosen], test


def _by_chance(groups: Tensor, labels: Tensor, room: int, draws: torch.Generator) -> Tensor:
    """Which rows are chosen, bool ``[N]``: groups in the order of ``draws`` while there is room for their pictures."""
    names = groups.unique()
    order = torch.randperm(len(names), generator=draws)
    rank = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)))[torch.searchsorted(names, groups)]
    sizes = torch.bincount(rank, minlength=len(names)).cumsum(0)
    chosen = sizes[rank] <= room
    left = torch.bincount(labels[~chosen], minlength=int(labels.max()) + 1)
    return chosen & ~torch.isin(groups, groups[left[labels] == 0])  # no class may lose all its pictures


def names_of(pictures: Pictures | Streamed, indices: Tensor) -> tuple[str, ...] | None:
    """Which file each of the pictures came from; None where they came from none."""
    if isinstance(pictures, Streamed):
        return tuple(pictures.names(indices))
    return None if pictures.names is None else tuple(pictures.names[index] for index in indices.tolist())
