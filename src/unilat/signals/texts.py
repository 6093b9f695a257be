"""Many texts in little memory: one run of bytes, and where each ends."""

from array import array
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Texts:
    """Many texts as one run of UTF-8 bytes and where each ends: 4 bytes a text beside its letters."""

    blob: np.ndarray  # uint8 [total]
    ends: np.ndarray  # uint32 [N]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        begin = int(self.ends[index - 1]) if index else 0
        return self.blob[begin : int(self.ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def all(self) -> list[str]:
        """Every text, where there are few."""
        return [self[index] for index in range(len(self))]


class TextsBuilder:
    """Grows :class:`Texts`."""

    def __init__(self) -> None:
        self._blob, self._ends, self._places = bytearray(), array("I"), {}

    def add(self, text: str) -> None:
        """Append one."""
        self._blob += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._blob))

    def place(self, text: str) -> int:
        """The number of a text that may stand here already."""
        if text not in self._places:
            self._places[text] = len(self._ends)
            self.add(text)
        return self._places[text]

    def done(self) -> Texts:
        """What was added."""
        return Texts(np.frombuffer(bytes(self._blob), np.uint8), np.array(self._ends, np.uint32))
