"""Pictures in: files, arrays, named data sets -> uint8 tensors, with a split and an order that replay from a seed."""

from unilat.signals.catalogue import CATALOGUE, get
from unilat.signals.load import load
from unilat.signals.look import Look, look
from unilat.signals.pictures import Pictures, Progress, to_bytes, to_unit
from unilat.signals.split import held_out_fit, split

__all__ = [
    "CATALOGUE",
    "Look",
    "Pictures",
    "Progress",
    "get",
    "held_out_fit",
    "load",
    "look",
    "split",
    "to_bytes",
    "to_unit",
]
