"""``load``: from the name of a data set, a folder or a file to :class:`Pictures`."""

import dataclasses
import difflib
import math
from pathlib import Path
from typing import get_args

import torch

from unilat.fields import FieldError, Fit, Size, as_size, spelled
from unilat.signals import catalogue
from unilat.signals.collect import even_positions
from unilat.signals.decode import printable
from unilat.signals.factors import Labels
from unilat.signals.pictures import Pictures, Progress, pack, require_memory, with_channels
from unilat.types import UserError

NATURAL_SIZE = {
    "glyphs": 32,
    "digits": 8,
    "fashion-mnist": 32,  # 28 and a border of two: a power of two
    "emoji": 32,
    "emoji-google": 32,
    "emoji-twitter": 32,
    "solar": 64,
}
FOLDER_SIZE = 64  # of folders and tables where none is asked for


def located(source: str) -> str:
    """``source`` so that it is found from every folder: a name of the catalogue as it is, a path from the root on."""
    there = source not in catalogue.CATALOGUE and Path(source).exists()
    return str(Path(source).absolute()) if there else source


def load(
    source: str,
    *,
    size: int | str | Size | None = None,
    channels: int | None = None,
    fit: Fit = "crop",
    progress: Progress | None = None,
    limit: int | None = None,
    labels: tuple[str, ...] = (),
    unlabelled: bool = False,
) -> Pictures:
    """Pictures of a catalogue name, a folder, ``.npz``, ``.npy``, ``.tar`` shards, ``.parquet`` or a saved data set.

    ``size`` is one number for a square, or ``(height, width)``; None is the source's natural one: ``NATURAL_SIZE``, an
    array's shorter side, ``FOLDER_SIZE`` for the rest. ``fit`` is what is done to pictures of another shape.
    ``channels`` None is 1 if every picture is grey, else 3. ``limit`` takes at most so many, evenly spread. A name of
    the catalogue wins over a folder of that name: write ``./emoji`` for the folder. Nothing is downloaded here.
    ``labels``: names of the labels that are read of each picture: columns of a table, keys of a shard's JSON, levels of
    folders from the first down. ``unlabelled``: those without one are kept, in a class named by the empty text.
    Raises :class:`UserError` with one line that names the thing and the way out.
    """
    wanted = None if size is None else as_size(size)
    if wanted is not None and not all(1 <= side <= 8192 for side in wanted):
        raise UserError(f"the pictures' size must lie between 1 and 8192, not {spelled(wanted)}")
    if fit == "random-crop":
        raise FieldError(
            f"{printable(source)}: random crops are cut while files are read, and this is read once: "
            "set data.fit to crop or pad"
        )
    if fit not in get_args(Fit):
        raise UserError(f"pictures are brought to size by {' or '.join(get_args(Fit))}, not {fit!r}")
    if channels not in (None, 1, 3):
        raise UserError(f"pictures have 1 channel (grey) or 3 (colour), not {channels}")
    require_name(source)
    asked = Labels(tuple(labels), unlabelled)
    require_labels(source, asked)
    if source in catalogue.CATALOGUE:
        return _thin(_named(source, wanted or as_size(NATURAL_SIZE[source]), fit, progress), channels, limit)
    path = Path(source)
    shown = printable(source)
    if path.is_dir():
        return _folder(path, shown, wanted or as_size(FOLDER_SIZE), channels, fit, progress, limit, asked)
    if not path.is_file():
        raise UserError(_not_there(path, shown))
    if path.suffix in (".npy", ".npz"):
        from unilat.signals.arrays import load_array

        return load_array(path, size=wanted, channels=channels, fit=fit, progress=progress, limit=limit)
    if path.suffix == ".tar":
        return _shards(path, wanted or as_size(FOLDER_SIZE), channels, fit, progress, limit, asked)
    if path.suffix == ".parquet":
        from unilat.signals.tables import load_tables, open_parquet

        tables, size = [open_parquet(path)], wanted or as_size(FOLDER_SIZE)
        return load_tables(
            tables, shown, size=size, channels=channels, fit=fit, progress=progress, limit=limit, labels=asked
        )
    raise UserError(
        f"{shown}: a file of this kind is not read; name a folder of pictures, an .npz, .npy, .tar or .parquet"
    )


def require_name(source: str) -> None:
    """:class:`UserError` for no name at all, which a path takes for the current folder."""
    if not source:
        raise UserError("the data set has no name; name a folder of pictures, or . for the current one")


def require_labels(source: str, labels: Labels) -> None:
    """:class:`FieldError` for no names, and for names of what has no columns, keys or folders to read labels from."""
    kind = Path(source).suffix
    if not all(labels.names) or len(set(labels.names)) < len(labels.names):
        raise FieldError(f"data.labels must be names, no two of them alike, not {', '.join(labels.names)}")
    if labels.names and not labels.unlabelled and (source in catalogue.CATALOGUE or kind in (".npy", ".npz")):
        own = "an .npz names its labels in 'factors'" if kind == ".npz" else "it names its labels itself, or has none"
        raise FieldError(f"{printable(source)}: {own}; leave data.labels out")


def _named(name: str, size: Size, fit: Fit, progress: Progress | None) -> Pictures:
    """A set of the catalogue that is on this machine."""
    from unilat.signals import named
    from unilat.signals.glyphs import load_glyphs

    folder = catalogue.need(name)
    if name == "glyphs":
        return load_glyphs(size, progress)
    if name == "digits":
        return named.load_digits(size)
    if name == "fashion-mnist":
        return named.load_fashion(folder, size)
    if name == "emoji":
        return named.load_fluent(folder, size, fit, progress)
    if name == "solar":
        return named.load_solar(folder, size, fit, progress)
    return named.load_datasource(folder, name.removeprefix("emoji-"), size, fit, progress)


def _folder(
    path: Path,
    shown: str,
    size: Size,
    channels: int | None,
    fit: Fit,
    progress: Progress | None,
    limit: int | None,
    labels: Labels,
) -> Pictures:
    """A saved data set, Parquet files or pictures: what the folder's files say it is."""
    from unilat.signals.detect import folder_kind
    from unilat.signals.folders import load_folder
    from unilat.signals.tables import load_tables, parquet_tables, saved_tables

    kind = folder_kind(path)
    if kind == "pictures":
        return load_folder(path, size=size, channels=channels, fit=fit, progress=progress, limit=limit, labels=labels)
    if kind == "shards":
        return _shards(path, size, channels, fit, progress, limit, labels)
    tables = saved_tables(path) if kind == "saved" else parquet_tables(path)
    return load_tables(
        tables, shown, size=size, channels=channels, fit=fit, progress=progress, limit=limit, labels=labels
    )


def _shards(
    path: Path,
    size: Size,
    channels: int | None,
    fit: Fit,
    progress: Progress | None,
    limit: int | None,
    labels: Labels,
) -> Pictures:
    """Tar shards, through their index."""
    from unilat.signals.index_file import indexed
    from unilat.signals.shards import ShardFormat
    from unilat.signals.stream import Streamed

    form = ShardFormat(path, labels)
    index = indexed(form, form.listing(keep=False), progress)
    found = Streamed(form, index, size=size, fit=fit, channels=channels, limit=limit)
    shape = " x ".join(map(str, found.kind.shape))
    require_memory(len(found) * math.prod(found.kind.shape), found.source, len(found), shape)
    return found.gathered(progress)


def _not_there(path: Path, shown: str) -> str:
    """The line for a source that is neither a name nor a folder nor a regular file."""
    names = ", ".join(catalogue.CATALOGUE)
    if path.is_symlink() or path.exists():
        return f"{shown}: neither a folder nor a regular file; name a folder of pictures or one of {names}"
    near = difflib.get_close_matches(str(path), catalogue.CATALOGUE, n=1, cutoff=0.6)
    hint = f"perhaps you meant {near[0]}" if near else f"name a folder of pictures or one of {names}"
    return f"{shown}: there is no such file, folder or data set; {hint}"


def _thin(pictures: Pictures, channels: int | None, limit: int | None) -> Pictures:
    """The same set with other channels or fewer pictures: evenly spread, or of factors all of the first values."""
    wanted = pictures.channels if channels is None else channels
    held_out = None if pictures.held_out is None else pictures.held_out.tolist()
    positions = even_positions(len(pictures), limit, held_out)
    positions = positions if pictures.factors is None else list(range(len(positions)))
    if wanted == pictures.channels and len(positions) == len(pictures):
        return pictures
    chosen = torch.tensor(positions)
    every, some = len(pictures), len(positions)
    converted = {  # which ones it was is not known any more
        what if number == every or some == every else f"{what} (before the limit)": some if number == every else number
        for what, number in pictures.converted.items()
    }
    if wanted != pictures.channels:
        converted["colour to grey" if wanted == 1 else "grey to colour"] = len(positions)
    again = pack(
        with_channels(pictures.images[chosen].numpy(), wanted),
        pictures.labels[chosen].numpy(),
        pictures.source,
        classes=pictures.classes,
        groups=pictures.groups[chosen].numpy(),
        names=None if pictures.names is None else tuple(pictures.names[position] for position in positions),
        held_out=None if pictures.held_out is None else pictures.held_out[chosen].numpy(),
        converted=converted,
        shapes=pictures.shapes if some == every else {},
        factors=pictures.factors,
    )
    return dataclasses.replace(again, skipped=pictures.skipped)
