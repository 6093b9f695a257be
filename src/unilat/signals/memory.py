"""A source whose pictures all lie in memory."""

from torch import Tensor

from unilat.signals.pictures import Pictures


class InMemory:
    """:class:`Pictures` as a ``Source``."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.kind = pictures.kind
        self.source, self.classes, self.sha256 = pictures.source, pictures.classes, pictures.sha256
        self.labels, self.groups, self.held_out = pictures.labels, pictures.groups, pictures.held_out
        self.skipped, self.notes = pictures.skipped, pictures.notes
        self.blocks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, indices: Tensor, *, among: Tensor | None = None) -> Tensor:
        """Pictures ``indices`` (int64 ``[B]``) -> uint8 ``[B, C, H, W]``, a copy."""
        self._check(indices)
        return self.pictures.images[indices]

    def names(self, indices: Tensor) -> list[str]:
        """What the pictures are called; their numbers where the source names none."""
        self._check(indices)
        names = self.pictures.names
        return [str(index) if names is None else names[index] for index in indices.tolist()]

    def json(self) -> dict[str, object]:
        """What is in it, as plain JSON types."""
        return self.pictures.json()

    def _check(self, indices: Tensor) -> None:
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"{self.source} has pictures 0 to {len(self) - 1}, not {indices.min()} to {indices.max()}")
