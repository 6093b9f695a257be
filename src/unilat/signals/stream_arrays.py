"""``.npy`` files larger than memory, by memory map; layouts and values are those of ``arrays.py``."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unilat.fields import Fit, Size
from unilat.signals.arrays import _as_nhwc, _sized, _value_map, read_npy
from unilat.signals.decode import printable
from unilat.signals.factors import USUAL
from unilat.signals.handles import Handles
from unilat.signals.index import Entry, Index, Listing, checked, digest_of, listing, unread
from unilat.types import UserError

READS = 1024
"""Pictures that one map is read for; a new one counts none of the pages as this process's memory."""


class ArrayFormat:
    """Pictures in one array of numbers: ``Format`` for ``.npy``. It has no labels."""

    word = "npy"
    classes = None
    labels = USUAL
    has_blocks = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = printable(str(path))
        self.said = "null"
        array = read_npy(path, self.source)
        assert isinstance(array, np.memmap)
        shown, _ = _as_nhwc(array, self.source)
        if 0 in array.shape:
            raise UserError(f"{self.source}: the array of pictures is empty, shape {list(array.shape)}")
        self.rows, self.side = len(shown), int(min(shown.shape[1:3]))
        self._maps: Handles[int, np.ndarray] = Handles(self._images, most=1)
        self._reads = 0
        order = "C" if array.flags.c_contiguous else "F"
        self._map = {
            "dtype": array.dtype,
            "shape": array.shape,
            "offset": array.offset,
            "order": order,
        }

    def _images(self, turn: int = 0) -> np.ndarray:
        """``[N, H, W, C]``, mapped; raises OSError or ValueError where the file is gone or shorter."""
        return _as_nhwc(np.memmap(self.path, mode="r", **self._map), self.source)[0]

    def listing(self, *, keep: bool = True) -> Listing:
        """The one file."""
        return listing([(self.path.name, str(self.path))], keep=keep)

    def scan(self, file: str) -> Iterator[Entry]:
        """Every picture; what its values mean is settled by all of them."""
        images = self._images()
        _value_map(images, self.source)
        low, high = np.inf, -np.inf
        for row in range(len(images)):
            picture = np.ascontiguousarray(images[row])
            low, high = min(low, picture.min().item()), max(high, picture.max().item())
            height, width, depth = picture.shape
            entry = Entry(name=str(row), offset=row, size=picture.nbytes, digest=digest_of(picture.view(np.uint8).data))
            yield entry._replace(height=height, width=width, coloured=depth > 1)
        self.said = json.dumps([low, high])

    def name(self, file: str, entry: str) -> str:
        """The picture's number."""
        return entry

    def pixels(self, index: Index, row: int, size: Size, fit: Fit = "crop") -> np.ndarray:
        """uint8 ``[1 or 3, H, W]`` of a picture."""
        try:
            images = self._maps.get(self._reads // READS)
            self._reads += 1
        except (OSError, ValueError) as error:
            raise unread(index, row, self.path.parent, self.source, error) from None
        picture = np.ascontiguousarray(images[int(index.offset[row])])
        checked(index, row, picture.view(np.uint8).data, self.source)
        # the least value and the largest decide what all of them mean
        values = np.array([json.loads(index.said)], images.dtype)
        image = _value_map(values, self.source)[0](picture)
        if image.shape[:2] == size and image.shape[2] != 4:
            return image.transpose(2, 0, 1)
        return _sized(image[None], np.arange(1), size, fit, self.source, None)[0][0]
