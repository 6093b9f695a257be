"""Pictures in: files, arrays, named data sets -> uint8 tensors, with a split and an order that replay from a seed."""

from unilat.signals.catalogue import CATALOGUE, get
from unilat.signals.crops import held_out_fit
from unilat.signals.kind import Image, kind_of, to_bytes, to_unit
from unilat.signals.load import load, located
from unilat.signals.look import Look, look
from unilat.signals.pictures import Pictures, Progress
from unilat.signals.source import Source, open_source
from unilat.signals.split import split

__all__ = [
    "CATALOGUE",
    "Image",
    "Look",
    "Pictures",
    "Progress",
    "Source",
    "get",
    "held_out_fit",
    "kind_of",
    "load",
    "located",
    "look",
    "open_source",
    "split",
    "to_bytes",
    "to_unit",
]
