"""Pictures with names: what a run is given, whatever it comes in, and what it makes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unilat.fields import Fit, Size
from unilat.run.classes import renumbered
from unilat.signals import Pictures
from unilat.signals import load as load_pictures
from unilat.signals.arrays import from_memory
from unilat.signals.collect import Item, collect
from unilat.signals.decode import changes, flatten, shrink
from unilat.signals.pictures import pack, with_channels
from unilat.types import UserError

TAKES = (
    "pictures are a path, a list of paths or of single pictures (PIL, NumPy, tensors), an array or a tensor, "
    "uint8 or float in [0, 1]"
)
_SHOWN = 5  # names in one line
_NONE = (".", "")
"""The class of pictures beside the folders of classes, and of rows without a label."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a set."""

    name: str | None
    """File it came from, where that is known."""
    label: str | None
    """Name of its class; None where it has none or one that the run does not know."""
    image: Tensor
    """uint8 ``[C, H, W]``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureSet:
    """Pictures in a run's shape and classes, and which files they came from."""

    images: Tensor
    """uint8 ``[N, C, H, W]``."""
    labels: Tensor
    """Number of the class among ``classes``, int64 ``[N]``: -1 where it is none of them; zeros where there are none."""
    classes: tuple[str, ...]
    """The run's classes."""
    names: tuple[str, ...] | None = None
    """File that each came from; None where they came from none."""
    source: str = ""
    """What they were read from."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Name and reason of each file of the source that could not be read."""
    converted: dict[str, int] = field(default_factory=dict)
    """How many were cropped, resized or otherwise converted."""
    notes: tuple[str, ...] = ()
    """Lines of the reader for the user."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Picture:
        index = range(len(self))[index]
        label = int(self.labels[index])
        return Picture(
            name=None if self.names is None else self.names[index],
            label=self.classes[label] if 0 <= label < len(self.classes) else None,
            image=self.images[index],
        )

    def __iter__(self) -> Iterator[Picture]:
        return (self[index] for index in range(len(self)))

    def file_names(self) -> list[str]:
        """``00003-cat.png``: number, and the source file's name, or else the class; no two are equal."""
        stems = [Path(one.name).stem if one.name else one.label or "" for one in self]
        safe = [re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:60] for stem in stems]
        return [f"{index:05}-{stem}.png" if stem else f"{index:05}.png" for index, stem in enumerate(safe)]

    def lines(self) -> list[str]:
        """What the user should know of what was read: what was skipped and why, and what was converted."""
        lines = list(self.notes)
        if self.skipped:
            shown = ", ".join(f"{name} ({reason})" for name, reason in self.skipped[:_SHOWN])
            more = f" and {len(self.skipped) - _SHOWN} more" if len(self.skipped) > _SHOWN else ""
            lines.append(f"skipped: {shown}{more}")
        if self.converted:
            lines.append("converted: " + ", ".join(f"{count} {what}" for what, count in self.converted.items()))
        return lines

    def counted(self) -> dict[str, object]:
        """``skipped`` with names and reasons, and ``converted`` with counts, as JSON has it."""
        skipped = [{"name": name, "reason": reason} for name, reason in self.skipped]
        return {"skipped": skipped, "converted": dict(self.converted)}


def read(
    source: Any,
    *,
    size: Size,
    channels: int,
    classes: Sequence[str],
    fit: Fit = "crop",
    labels: tuple[str, ...] = (),
) -> PictureSet:
    """Whatever holds pictures as a set in a run's shape and classes; UserError in one line where it is no such thing.

    A path or name is read as for training, by the same ``labels``, and classes are taken over by their names. In a list
    of paths the class is the folder that a picture lies in, where the run has a class of that name. Arrays may be
    ``[H, W]``, ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]``, in a list each ``[H, W]``, ``[H, W, C]`` or
    ``[C, H, W]``.
    """
    classes = tuple(classes)
    if isinstance(source, PictureSet):
        if source.classes != classes:
            raise UserError(f"these pictures are labelled with other classes ({source.classes}, not {classes})")
        return replace(read(source.images, size=size, channels=channels, classes=(), fit=fit), **_facts(source))
    if isinstance(source, Tensor) and source.dtype == torch.uint8 and tuple(source.shape[1:]) == (channels, *size):
        return PictureSet(images=source, labels=unknown(len(source), classes), classes=classes)
    if isinstance(source, str | Path):
        found = load_pictures(str(source), size=size, channels=channels, fit=fit, labels=labels, unlabelled=True)
    elif isinstance(source, Tensor | np.ndarray):
        found = from_memory(_plain(_array(source)), "the array", size=size, channels=channels, fit=fit)
    elif isinstance(source, list | tuple) and source and all(isinstance(one, str | Path) for one in source):
        items = [Item(str(one), Path(one), Path(one).absolute().parent.name) for one in source]
        found = collect(items, len(items), "the list", size=size, channels=channels, fit=fit)
        return _in_classes(found, classes, strict=False)
    elif isinstance(source, list | tuple) and source:
        found = _each(source, size, channels, fit)
    else:
        raise UserError(f"{TAKES}; not {type(source).__name__ if source else 'an empty ' + type(source).__name__}")
    return _in_classes(found, classes)


def _facts(source: PictureSet) -> dict[str, Any]:
    """All of a set but its images."""
    return {name: value for name, value in vars(source).items() if name != "images"}


def _in_classes(found: Pictures, classes: tuple[str, ...], strict: bool = True) -> PictureSet:
    """The pictures with their labels among the run's ``classes``, by name; with ``strict`` others are noted."""
    notes = tuple(note for note in found.notes if "train" not in note)  # of a split, which nobody makes here
    labels = unknown(len(found), classes)
    if classes and found.classes:
        labels = renumbered(found.labels, found.classes, classes)
        others = [name for name in found.classes if name not in (*classes, *_NONE)]
        bare = torch.isin(
            found.labels, torch.tensor([found.classes.index(one) for one in _NONE if one in found.classes])
        )
        if bare.any() and not set(_NONE) & set(classes):
            notes += (f"{int(bare.sum())} picture(s) have no class, label -1",)
        if others and strict:
            shown = ", ".join(others[:_SHOWN]) + (" ..." if len(others) > _SHOWN else "")
            notes += (f"{len(others)} class(es) that the run does not know, label -1: {shown}",)
    return PictureSet(
        images=found.images,
        labels=labels,
        classes=classes,
        names=found.names,
        source=found.source,
        skipped=found.skipped,
        converted=found.converted,
        notes=notes,
    )


def unknown(count: int, classes: Sequence[str]) -> Tensor:
    """Labels of signals whose class is not known."""
    return torch.full((count,), -1 if classes else 0)


def _array(values: Any) -> np.ndarray:
    """NumPy's view of an array or tensor."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _plain(values: np.ndarray) -> np.ndarray:
    """One grey picture ``[H, W]`` as a set of one; what is no set of pictures is refused."""
    if values.ndim not in (2, 3, 4) or values.dtype.kind not in "biuf" or not values.size:
        raise UserError(f"{TAKES}; not {values.dtype} {list(values.shape)}")
    return values[None, :, :, None] if values.ndim == 2 else values


def _each(source: Sequence[Any], size: Size, channels: int, fit: Fit) -> Pictures:
    """Single pictures of any sizes, one by one."""
    images, converted = [], {}
    for index, one in enumerate(source):
        if isinstance(one, Image.Image):
            found, done = _pillow(one, size, fit, f"picture {index}")
        elif isinstance(one, Tensor | np.ndarray) and one.ndim in (2, 3):
            values = _array(one)
            row = values[None] if values.ndim == 3 else _plain(values)
            alone = from_memory(row, f"picture {index}", size=size, fit=fit)
            found, done = alone.images.numpy()[0], list(alone.converted)
        else:
            raise UserError(f"{TAKES}; picture {index} is {type(one).__name__}")
        if len(found) != channels:
            done.append("colour to grey" if channels == 1 else "grey to colour")
        images.append(with_channels(found[None], channels)[0])
        for what in done:
            converted[what] = converted.get(what, 0) + 1
    return pack(np.stack(images), None, "the list", converted=converted)


def _pillow(picture: Image.Image, size: Size, fit: Fit, name: str) -> tuple[np.ndarray, list[str]]:
    """A picture of Pillow's as uint8 ``[1 or 3, *size]``, and what was done to it."""
    flat, done = flatten(ImageOps.exif_transpose(picture))
    shape = (flat.height, flat.width)
    if fit != "pad" and (shape[0] < size[0] or shape[1] < size[1]):
        raise UserError(f"{name} is {shape[0]} x {shape[1]}, smaller than {size[0]} x {size[1]}: leave it out")
    done += changes(shape, size, fit)
    pixels = np.asarray(shrink(flat, size, fit))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), done
