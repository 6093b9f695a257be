"""``.npy`` files larger than memory, by memory map; layouts and values are those of ``arrays.py``."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unilat.signals.arrays import _as_nhwc, _squares, _value_map, read_npy
from unilat.signals.decode import printable
from unilat.signals.index import Entry, Index, Listing, checked, digest_of, listing, unread
from unilat.types import UserError


class ArrayFormat:
    """Pictures in one array of numbers: ``Format`` for ``.npy``. It has no labels."""

    word = "npy"
    classes = None
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
        order = "C" if array.flags.c_contiguous else "F"
        self._map = {
            "dtype": array.dtype,
            "shape": array.shape,
            "offset": array.offset,
            "order": order,
        }

    def _images(self) -> np.ndarray:
        """``[N, H, W, C]``, mapped for as long as it is held: its pages count as this process's memory no longer."""
        return _as_nhwc(np.memmap(self.path, mode="r", **self._map), self.source)[0]

    def listing(self) -> Listing:
        """The one file."""
        return listing([(self.path.name, self.path)])

    def scan(self, file: str) -> Iterator[Entry]:
        """Every picture; what its values mean is settled by all of them."""
        images = self._images()
        _value_map(images, self.source)
        extremes = np.array([np.inf, -np.inf])
        fraction = None
        for row in range(len(images)):
            picture = np.ascontiguousarray(images[row])
            extremes = [min(extremes[0], picture.min().item()), max(extremes[1], picture.max().item())]
            if picture.dtype.kind == "f" and fraction is None and (odd := picture[picture != np.round(picture)]).size:
                fraction = odd[0].item()
            height, width, depth = picture.shape
            entry = Entry(name=str(row), offset=row, size=picture.nbytes, digest=digest_of(picture.view(np.uint8).data))
            yield entry._replace(height=height, width=width, coloured=depth > 1)
        self.said = json.dumps([*extremes, extremes[0] if fraction is None else fraction])

    def name(self, file: str, entry: str) -> str:
        """The picture's number."""
        return entry

    def pixels(self, index: Index, row: int, size: tuple[int, int]) -> np.ndarray:
        """uint8 ``[1 or 3, H, W]`` of a picture."""
        try:
            images = self._images()
        except (OSError, ValueError) as error:
            raise unread(index, row, self.path.parent, self.source, error) from None
        picture = np.ascontiguousarray(images[int(index.offset[row])])
        checked(index, row, picture.view(np.uint8).data, self.source)
        # the least value, the largest and one that is no whole number decide what all of them mean
        values = np.array([json.loads(index.said)], images.dtype)
        image = _value_map(values, self.source)[0](picture)
        if image.shape[:2] == size and image.shape[2] != 4:
            return image.transpose(2, 0, 1)
        return _squares(image[None], np.arange(1), min(size), self.source, None)[0][0]
