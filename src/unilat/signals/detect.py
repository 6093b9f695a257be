"""What a folder is: pictures, tar shards, Parquet or a saved data set. A stray file of another kind decides nothing."""

from pathlib import Path
from typing import Literal

from unilat.signals.decode import printable
from unilat.signals.folders import walk
from unilat.signals.shards import PICTURES, has_shards
from unilat.types import UserError

FolderKind = Literal["saved", "shards", "parquet", "pictures"]


def folder_kind(path: Path) -> FolderKind:
    """By its files. Raises :class:`UserError` where two kinds lie in it, each of which could be the set."""
    picture = first_picture(path)
    marked = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    if marked and (not picture or next(path.rglob("*.arrow"), None) is not None):
        return "saved"
    if shard := next(iter(sorted(path.glob("*.tar"))), None):
        return _alone("shards", shard, picture, path)
    if not picture and has_shards(path):
        return "shards"
    tables = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if not picture:
        return "parquet" if tables else "pictures"
    if table := next((table for table in tables if _of_pictures(table)), None):
        return _alone("parquet", table, picture, path)
    return "pictures"


def first_picture(path: Path) -> str:
    """The first file below whose name ends as that of a picture; empty where there is none."""
    for parts, problem in walk(path):
        if not problem and parts[-1].rpartition(".")[2].lower() in PICTURES:
            return "/".join(parts)
    return ""


def _alone(kind: FolderKind, file: Path, picture: str, path: Path) -> FolderKind:
    """``kind``, or the line that says that pictures lie beside it."""
    if not picture:
        return kind
    raise UserError(
        f"{printable(str(path))}: it holds {printable(file.name, 60)} and pictures ({printable(picture, 60)}), of which"
        " only one can be the data set; name a folder that holds one of the two"
    )


def _of_pictures(file: Path) -> bool:
    """Whether a Parquet file has a column of pictures; also what lies beside pictures and cannot be read has none."""
    from unilat.signals.tables import open_parquet, picture_columns

    try:
        return bool(picture_columns(open_parquet(file).schema))
    except UserError:
        return False
