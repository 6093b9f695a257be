"""Pictures in: files, arrays and named data sets -> uint8 tensors, with a split and an order that replay from a seed."""

from unilat.data.load import load
from unilat.data.order import batch_indices, split
from unilat.data.pictures import Pictures, to_bytes, to_unit

__all__ = ["Pictures", "batch_indices", "load", "split", "to_bytes", "to_unit"]
