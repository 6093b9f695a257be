"""Pictures that use few of their levels, 12 bits in files of 16 or 0 and 1 in bytes: read as they are, and told."""

import numpy as np

MOST_BITS, DARK = 14, 63
"""Of 16 bits and of 255: what uses no more is told."""


def levels_told(images: np.ndarray, wide: int = 0, peak: int = 0) -> tuple[str, ...]:
    """What is told of ``images``, uint8 of any shape; ``wide`` of them had 16 bits, with no value above ``peak``."""
    bits = peak.bit_length()
    if wide and bits <= MOST_BITS:
        way = "save them as 8 bits" if bits <= 8 else f"multiply their values by {1 << (16 - bits)}, save them again"
        return (
            f"{wide:,} picture(s) of 16 bits hold no value above {peak:,}: their high byte is read, which leaves"
            f" {(peak >> 8) + 1} of 256 levels; {way}",
        )
    return dark_told(int(images.max()), "any picture")


def dark_told(peak: int, where: str) -> tuple[str, ...]:
    """What is told of pictures whose largest byte is ``peak``."""
    if peak > DARK:
        return ()
    looks, way = "nearly black", f"multiply their values by {1 << (8 - peak.bit_length())}, save them again"
    if peak == 0:
        looks, way = "black", "name other pictures"
    if peak == 1:
        way = "where 0 and 1 mean black and white, save them as bool or times 255"
    return (f"no value above {peak} of 255 in {where}: they are read as they are, {looks}; {way}",)
