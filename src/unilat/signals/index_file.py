"""Indexes on the disk: one safetensors file each in the cache folder, mapped and not loaded when a set is opened.

A file that is damaged, of another version or of another state of the set is made anew; a cache that cannot be written
costs time only.
"""

import hashlib
import json
import mmap
from dataclasses import fields
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from unilat.files import whole
from unilat.signals.cache import cache_folder
from unilat.signals.index import Format, Index, Listing, Texts, build
from unilat.signals.pictures import Progress

VERSION = 2
"""Of what an index holds; a change makes all of them anew."""
PART = 1 << 20  # bytes read at once, so that checking leaves nothing in memory
DTYPES = {"U8": np.uint8, "I32": np.int32, "U32": np.uint32, "I64": np.int64}


def indexed(form: Format, now: Listing, progress: Progress | None = None) -> Index:
    """The index of a set: the one kept where it fits the files as they are ``now``, else made, and kept."""
    key = hashlib.blake2b(f"{VERSION} {form.word} {form.path.resolve()}".encode("utf-8", "surrogateescape"))
    path = cache_folder() / "indexes" / f"{key.hexdigest()[:32]}.safetensors"
    kept = read(path)
    if kept is not None and kept.mark == now.mark:
        return kept
    made = build(form, form.listing(), kept, progress)
    if not write(path, made):
        return made
    again = read(path)
    return made if again is None or again.mark != made.mark else again


def write(path: Path, index: Index) -> bool:
    """Write it whole or not at all; whether that went well."""
    arrays: dict[str, np.ndarray] = {}
    said: dict[str, object] = {"version": VERSION}
    for one in fields(index):
        value = getattr(index, one.name)
        if isinstance(value, Texts):
            arrays |= {f"{one.name}.blob": value.blob, f"{one.name}.ends": value.ends}
        elif isinstance(value, np.ndarray):
            arrays[one.name] = np.ascontiguousarray(value)
        elif one.name != "mapped":
            said[one.name] = value
    try:
        with whole(path) as part:
            part.write_bytes(save(arrays, metadata={"index": json.dumps(said)}))
            total = _sum(part)
            with open(part, "ab") as file:
                file.write(total)
    except OSError:
        return False
    return True


def read(path: Path) -> Index | None:
    """The index kept there, its arrays mapped from the file; None where there is none, or it is damaged."""
    try:
        size = path.stat().st_size - hashlib.blake2b().digest_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < size:
                return None
            header = json.loads(file.read(length))
            file.seek(max(size, 0))
            if file.read() != _sum(path, size):
                return None
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        values = json.loads(header.pop("__metadata__")["index"])
        if values.pop("version") != VERSION:
            return None
        arrays, whole = {}, np.frombuffer(mapped, np.uint8)
        for name, one in header.items():
            begin, end = (8 + length + offset for offset in one["data_offsets"])
            arrays[name] = whole[begin:end].view(DTYPES[one["dtype"]]).reshape(one["shape"])
        for one in fields(Index):
            if f"{one.name}.ends" in arrays:
                values[one.name] = Texts(arrays[f"{one.name}.blob"], arrays[f"{one.name}.ends"])
            elif one.name in arrays:
                values[one.name] = arrays[one.name]
        return Index(**values, mapped=mapped)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sum(path: Path, size: int | None = None) -> bytes:
    """BLAKE2b of the file, or of its first ``size`` bytes, read in parts."""
    total = hashlib.blake2b()
    with open(path, "rb") as file:
        left = path.stat().st_size if size is None else size
        while left > 0 and (part := file.read(min(PART, left))):
            total.update(part)
            left -= len(part)
    return total.digest()
