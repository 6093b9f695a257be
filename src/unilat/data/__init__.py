"""Pictures in: files, arrays, named data sets -> uint8 tensors, with a split and an order that replay from a seed."""

from unilat.data.catalogue import CATALOGUE, get
from unilat.data.load import load
from unilat.data.look import Look, look
from unilat.data.order import batch_indices, split
from unilat.data.pictures import Pictures, Progress, to_bytes, to_unit

__all__ = [
    "CATALOGUE",
    "Look",
    "Pictures",
    "Progress",
    "batch_indices",
    "get",
    "load",
    "look",
    "split",
    "to_bytes",
    "to_unit",
]
