"""Open files of one process: the latest few are kept, and a forked child opens its own."""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from unilat.files import BINARY


class Descriptor:
    """A file opened for reading by place, closed when nothing holds it any more. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | BINARY)

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``; fewer where the file ends."""
        if hasattr(os, "pread"):
            return os.pread(self.number, size, offset)
        os.lseek(self.number, offset, os.SEEK_SET)  # Windows
        return os.read(self.number, size)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


Key = TypeVar("Key")
Thing = TypeVar("Thing")


class Handles(Generic[Key, Thing]):
    """What ``open_one(key)`` returns, kept for the ``most`` keys used last, of ``most_bytes`` in all by ``weigh``.

    Nothing is shared with the process that forked this one: a file's position, and what a library's threads hold, is a
    process's own. Not for use by several threads at once.
    """

    def __init__(
        self,
        open_one: Callable[[Key], Thing],
        *,
        most: int,
        weigh: Callable[[Thing], int] | None = None,
        most_bytes: int = 0,
    ) -> None:
        self._open_one, self._most, self._weigh, self._most_bytes = open_one, most, weigh, most_bytes
        self._kept: OrderedDict[Key, Thing] = OrderedDict()
        self._process = os.getpid()

    def get(self, key: Key) -> Thing:
        """The thing of this key, opened where it is not at hand; what ``open_one`` raises goes through."""
        if self._process != os.getpid():
            self._kept, self._process = OrderedDict(), os.getpid()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        thing = self._open_one(key)
        self._kept[key] = thing
        while len(self._kept) > 1 and (len(self._kept) > self._most or self._over()):
            self._kept.popitem(last=False)
        return thing

    def _over(self) -> bool:
        return self._weigh is not None and sum(map(self._weigh, self._kept.values())) > self._most_bytes
