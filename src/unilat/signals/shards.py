"""Folders of tar shards with WebDataset's naming, read in place: nothing is unpacked.

``00000.tar`` holds members ``KEY.jpg`` (or png, webp, ...) with ``KEY.cls``, a class by number or name, or
``KEY.json``, ``{"label": ...}`` or other names of labels. A key is a member's path up to the first dot of its last
part. ``train-*.tar`` with ``test-*.tar`` (or ``val``, ``dev``; ``parts.py`` has all words) is the official split.
Compressed archives cannot be read by place and are refused.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from unilat.fields import Fit, Size
from unilat.signals.decode import MAX_BYTES, printable
from unilat.signals.factors import USUAL, Labels
from unilat.signals.handles import Descriptor, Handles
from unilat.signals.index import Entry, Index, Listing, checked, described, listing, sized, unread
from unilat.signals.parts import word_side
from unilat.types import UserError

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")
LABEL_BYTES = 1 << 20
"""More than any label's file has; a longer one is no label."""
COMPRESSED = ("*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz", "*.tar.zst")


def has_shards(folder: Path) -> bool:
    """Whether a folder is one of shards; compressed ones alone are refused with the way out."""
    if any(folder.glob("*.tar")):
        return True
    packed = next((path for pattern in COMPRESSED for path in folder.glob(pattern)), None)
    if packed is not None:
        raise UserError(f"{printable(str(packed))}: a compressed shard cannot be read in place; unpack it to a .tar")
    return False


class _Member(NamedTuple):
    """A file in a shard: tarfile's own records are twenty times as large."""

    name: str
    offset: int  # of its content
    size: int


@dataclass(slots=True)
class _Sample:
    """What the members of one key hold."""

    picture: _Member | None = None
    cls: _Member | None = None
    json: _Member | None = None

    @property
    def place(self) -> int:
        """Where it stands among the others."""
        return min(one.offset for one in (self.picture, self.cls, self.json) if one is not None)


class ShardFormat:
    """Pictures in tar files: ``Format`` for a folder of shards or a single one."""

    word = "shards"
    classes = None
    has_blocks = False
    said = ""
    rows = None
    side = None

    def __init__(self, path: Path, labels: Labels = USUAL) -> None:
        self.path, self.labels = path, labels
        self.folder = path if path.is_dir() else path.parent
        self.source = printable(str(path))
        self._split = False
        self._files: Handles[str, Descriptor] = Handles(lambda file: Descriptor(self.folder / file), most=16)

    def listing(self, *, keep: bool = True) -> Listing:
        """The shards, by name."""
        paths = sorted(self.path.glob("*.tar")) if self.path.is_dir() else [self.path]
        names = [path.name for path in paths if path.is_file() and not path.name.startswith(".")]
        self._split = {"train", "test"} <= {word_side(name) for name in names}
        files = ((name, str(self.folder / name)) for name in names)
        return listing(files, lambda: ("split" if self._split else "") + self.labels.said, keep=keep)

    def scan(self, file: str) -> Iterator[Entry]:
        """The shard's pictures in the order of their members."""
        where = printable(str(self.folder / file))
        held_out = self._split and word_side(file) == "test"
        try:
            with open(self.folder / file, "rb") as stream:
                samples = _samples(stream, where)
                labelled = any(sample.cls or sample.json for sample in samples.values())
                if self.labels.names:
                    labelled = not self.labels.unlabelled
                for key, sample in samples.items():
                    if sample.picture is None:
                        yield Entry(name=key, held_out=held_out, problem="a label without a picture")
                        continue
                    entry = _entry(stream, sample, sample.picture, labelled, self.labels)
                    yield entry._replace(held_out=held_out)
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({error.strerror}); check the disk and its permissions") from None

    def name(self, file: str, entry: str) -> str:
        """Shard and member."""
        return f"{file}/{entry}"

    def pixels(self, index: Index, row: int, size: Size, fit: Fit = "crop") -> np.ndarray:
        """uint8 ``[1 or 3, H, W]`` of the member, read in place."""
        file = index.files[int(index.file[row])]
        try:
            data = self._files.get(file).read(int(index.size[row]), int(index.offset[row]))
        except OSError as error:
            raise unread(index, row, self.folder, self.source, error) from None
        checked(index, row, data, self.source)
        return sized(data, size, fit)


def _entry(stream: BinaryIO, sample: _Sample, picture: _Member, labelled: bool, labels: Labels) -> Entry:
    """The entry of one key; in a shard with labels a picture without one is left out."""
    entry = Entry(name=printable(picture.name), offset=picture.offset, size=picture.size)
    try:
        label = _label(stream, sample, labels)
    except ValueError as reason:
        return entry._replace(problem=str(reason))
    if label is None and labelled:
        return entry._replace(problem="no label")
    entry = entry._replace(label=label or "")
    if picture.size > MAX_BYTES:
        return entry._replace(problem=f"file over {MAX_BYTES >> 20} MiB")
    return described(entry, _content(stream, picture))


def _content(stream: BinaryIO, member: _Member) -> bytes:
    stream.seek(member.offset)
    return stream.read(member.size)


def _label(stream: BinaryIO, sample: _Sample, labels: Labels) -> str | None:
    """The class that the key's members name; None for none. Raises ValueError with the reason of a damaged one."""
    member = sample.json if labels.names else sample.cls or sample.json
    if member is None:
        return None
    if member.size > LABEL_BYTES:
        raise ValueError(f"its label has over {LABEL_BYTES >> 20} MiB")
    try:
        text = _content(stream, member).decode("utf-8")
        if member is sample.cls:
            return text.strip() or None
        said = json.loads(text)
        values = [said[name] for name in labels.names or ("label",)]
    except KeyError:
        return None
    except (ValueError, TypeError, RecursionError):
        raise ValueError("its label cannot be read") from None
    if any(isinstance(value, bool) or not isinstance(value, str | int) for value in values):
        raise ValueError("its label is neither text nor a whole number")
    texts = [str(value).strip() for value in values]
    return labels.text(texts) if all(texts) else None


def _samples(stream: BinaryIO, where: str) -> dict[str, _Sample]:
    """Every key of a shard with its members, in order. Raises :class:`UserError` for what no shard holds."""
    samples: dict[str, _Sample] = {}
    seen: set[str] = set()
    for member in _members(stream, where):
        if member.isdir():
            continue
        name = printable(member.name)
        if not member.isreg() or member.issparse():
            raise UserError(f"{where}: {name} is a link or no plain file; write the shard anew with files alone")
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise UserError(f"{where}: {name} leads outside the shard; write the shard anew with plain names")
        if member.name in seen:
            raise UserError(f"{where}: two files are called {name}; give each its own name")
        seen.add(member.name)
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if not stem:  # hidden
            continue
        sample = samples.setdefault(f"{folder}/{stem}" if folder else stem, _Sample())
        kept = _Member(member.name, member.offset_data, member.size)
        ending = ending.lower()
        if ending.rpartition(".")[2] in PICTURES:
            if sample.picture is not None:
                first = printable(sample.picture.name)
                raise UserError(f"{where}: {first} and {name} are two pictures of one key; keep one of them")
            sample.picture = kept
        elif ending == "cls":
            sample.cls = kept
        elif ending == "json":
            sample.json = kept
    used = {key: one for key, one in samples.items() if one.picture or one.cls}
    return dict(sorted(used.items(), key=lambda item: item[1].place))


def _members(stream: BinaryIO, where: str) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file that ends as one must; :class:`UserError` where it is cut or none."""
    cut = f"{where}: the shard is cut in the middle or damaged; fetch or write it anew"
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                getattr(archive, "members").clear()  # noqa: B009 (not in its stub; it would keep them all)
                yield member
            end = archive.offset
        stream.seek(end)
        if stream.read(512) != bytes(512):
            raise UserError(cut)
    except (tarfile.TarError, ValueError, EOFError, RecursionError):
        raise UserError(cut) from None
