"""Whether a run has seen pictures that it is given: equal ones, pixel by pixel, among its own."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unilat.signals import Pictures


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How many of some pictures equal one of the run's own; one that stands in several parts counts for the first."""

    trained: int
    calibrated: int
    held_out: int
    others: int

    def __str__(self) -> str:
        counts = (
            (self.trained, "that the run was trained on"),
            (self.calibrated, "that it was calibrated on"),
            (self.held_out, "that it held out, never trained on"),
            (self.others, "that are none of its own"),
        )
        there = [(count, what) for count, what in counts if count]
        return f"all {there[0][1]}" if len(there) == 1 else ", ".join(f"{count:,} {what}" for count, what in there)


def seen(images: Tensor, own: Pictures, parts: tuple[Tensor, Tensor, Tensor]) -> Seen:
    """Which part of a run's ``own`` pictures, ``(train, calibration, test)``, has each of uint8 ``[N, C, H, W]``."""
    train, calibration, test = (set(_digests(own.images[indices])) for indices in parts)
    counts = {"trained": 0, "calibrated": 0, "held_out": 0, "others": 0}
    for digest in _digests(images):
        if digest in train:
            counts["trained"] += 1
        elif digest in calibration:
            counts["calibrated"] += 1
        else:
            counts["held_out" if digest in test else "others"] += 1
    return Seen(**counts)


def _digests(images: Tensor) -> Iterable[bytes]:
    """A hash of each picture's bytes."""
    return (hashlib.blake2b(np.ascontiguousarray(one).data, digest_size=16).digest() for one in images.numpy())
