"""``look``: a contact sheet of what would be read, with the counts of what was read, converted and skipped."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from unilat.fields import FieldError, Fit, Size, as_size
from unilat.files import whole
from unilat.signals.catalogue import CATALOGUE
from unilat.signals.collect import even_positions, reasons, shape_changed
from unilat.signals.crops import held_out_fit, random_crops, strip_size
from unilat.signals.decode import changes, printable
from unilat.signals.kind import SOFTWARE
from unilat.signals.kind import Image as Kind
from unilat.signals.load import load
from unilat.signals.memory import InMemory
from unilat.signals.pictures import Pictures, Progress
from unilat.signals.source import open_source
from unilat.signals.stream import Streamed
from unilat.types import UserError

COLUMNS, PLAIN_ROWS, MOST_CLASSES, MOST_SHAPES = 14, 10, 20, 8
FEW = 5
"""A combination of labels that has fewer pictures is counted as one of few."""
MOST_BYTES = 1 << 30
"""That a look takes for pictures: 87,000 of 64 x 64 in colour."""
PAPER, INK, FAINT, EDGE = (250, 250, 248), (24, 24, 28), (110, 110, 118), (222, 222, 218)
TEXT, GAP, BORDER = 15, 6, 28  # points of the captions; pixels between pictures; pixels around the sheet


@dataclass(frozen=True)
class Look:
    """What a source holds: the pictures, and where their contact sheet lies (None where none was asked for)."""

    pictures: Pictures | Streamed
    sheet: Path | None
    converted: dict[str, int]
    """How many were converted in a way, all but cropped, resized and padded unknown of pictures that were not read."""
    shapes: dict[str, int]
    """How many had a shape, with what is done to it, the commonest first."""
    notes: tuple[str, ...]

    def json(self) -> dict:
        """Counts as plain JSON types, with the reasons of what was skipped added up."""
        counted = Counter(reason.split(":")[0] for _, reason in self.pictures.skipped)
        labels = label_counts(self.pictures)
        combined = {"labels": labels, "combinations": combinations(self.pictures)} if labels else {}
        counts = {
            "converted": dict(self.converted),
            "shapes": dict(self.shapes),
            "notes": list(self.notes),
            "read": len(self.pictures),
            "skipped_count": len(self.pictures.skipped),
            "skipped_reasons": dict(counted.most_common()),
            "sheet": None if self.sheet is None else str(self.sheet),
        }
        return self.pictures.json() | counts | combined

    def lines(self) -> list[str]:
        """The same for a terminal, one fact a line."""
        pictures = self.pictures
        found = [headline(pictures)]
        if counts := label_counts(pictures):
            found += [_listed(name, values) for name, values in counts.items()]
            of = combinations(pictures)
            few = f"{of['few']:,} of them with fewer than {FEW} pictures"
            found.append(f"combinations: {of['count']:,} of {of['possible']:,} that are possible, {few}")
        elif counts := pictures.class_counts():
            found.append(_listed("classes", counts))
        if pictures.held_out is not None:
            found.append(f"held out by the source: {int(pictures.held_out.sum()):,}")
        if self.converted:
            found.append("converted: " + ", ".join(f"{number:,} {what}" for what, number in self.converted.items()))
        found += _shapes(self.shapes)
        found += [f"skipped {name}: {reason}" for name, reason in pictures.skipped[:10]]
        if len(pictures.skipped) > 10:
            found.append(f"... and {len(pictures.skipped) - 10} more skipped (`json()` lists all)")
        return found + list(self.notes) + ([f"contact sheet: {self.sheet}"] if self.sheet else [])


def look(
    source: str,
    *,
    size: int | str | Size | None = None,
    channels: int | None = None,
    fit: Fit = "crop",
    out: Path | None = None,
    limit: int | None = None,
    labels: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Look:
    """Read ``source`` as training would, count, and write the contact sheet to ``out`` (a PNG) where one is named.

    Of a set that takes more than ``MOST_BYTES`` in memory, headers are read, and the pictures of the sheet.
    """
    files = source not in CATALOGUE and Path(source).suffix != ".npz"  # what random crops can be cut from
    read = held_out_fit(fit) if files else fit
    asked = {"size": size if size is None else as_size(size), "channels": channels, "fit": read, "limit": limit}
    asked["labels"] = labels
    try:
        if files:
            found = open_source(source, memory_budget=MOST_BYTES, progress=progress, **asked)
            pictures = found.pictures if isinstance(found, InMemory) else found
        else:
            pictures = load(source, progress=progress, **asked)
    except FieldError as error:  # here they are arguments, and no fields of a configuration
        raise UserError(re.sub(r"\bdata\.(labels|fit|size)\b", r"`\1`", str(error))) from None
    converted, shapes, notes = _counted(pictures, read)
    if fit == "random-crop":
        sizes = {as_size(shape.split()[0]): number for shape, number in shapes.items()}
        room = sum(number for shape, number in sizes.items() if strip_size(shape, pictures.size) != pictures.size)
        notes += (random_crops(room, len(pictures)),)
    if out is not None:
        try:
            with whole(out) as part:
                sheet = torch.from_numpy(np.array(contact_sheet(pictures)))
                part.write_bytes(Kind.png(sheet.permute(2, 0, 1), software=SOFTWARE))
        except OSError as error:
            raise UserError(
                f"{out}: the contact sheet cannot be written ({error.strerror}); name another place"
            ) from None
    return Look(pictures, out, converted, shapes, notes)


def label_counts(pictures: Pictures | Streamed) -> dict[str, dict[str, int]]:
    """Pictures of each value of each label; empty where a class is no combination of labels."""
    if (factors := pictures.factors) is None:
        return {}
    rows = factors.table[pictures.labels].T
    return {
        name: dict(zip(values, torch.bincount(of, minlength=len(values)).tolist(), strict=True))
        for name, values, of in zip(factors.names, factors.values, rows, strict=True)
    }


def combinations(pictures: Pictures | Streamed) -> dict[str, int]:
    """How many combinations of labels have pictures, how many could, and how many have fewer than ``FEW``."""
    counts = [number for number in pictures.class_counts().values() if number]
    possible = math.prod(len(of) for of in pictures.factors.values) if pictures.factors else 0
    return {"count": len(counts), "possible": possible, "few": sum(number < FEW for number in counts)}


def _listed(what: str, counts: dict[str, int]) -> str:
    """``"classes: cat 3, dog 4, and 17 more"``."""
    few = list(counts.items())[:MOST_CLASSES]
    more = f", and {len(counts) - len(few):,} more" if len(counts) > len(few) else ""
    return f"{what}: " + ", ".join(f"{name} {number:,}" for name, number in few) + more


def _counted(pictures: Pictures | Streamed, fit: Fit) -> tuple[dict[str, int], dict[str, int], tuple[str, ...]]:
    """What is converted, the shapes, and the notes: of a stream as far as headers tell."""
    if isinstance(pictures, Pictures):
        return pictures.converted, pictures.shapes, pictures.notes
    shapes = pictures.shapes()
    counted = Counter[str]()
    for shape, number in shapes.items():
        counted.update(dict.fromkeys(changes(shape, pictures.size, fit), number))
    named = {shape_changed(shape, pictures.size, fit): number for shape, number in shapes.items()}
    told = f"{len(pictures):,} pictures are known by their headers; what is damaged behind them is told when it is read"
    return dict(sorted(counted.items())), named, (*pictures.notes, told)


def headline(pictures: Pictures | Streamed) -> str:
    """``"digits: 1,797 pictures of 8 x 8, grey, 10 classes"``; of factors how many values each has."""
    colour = "grey" if pictures.channels == 1 else "colour"
    classes = f", {len(pictures.classes)} classes" if pictures.classes else ""
    if factors := pictures.factors:
        each = (f"{len(of):,} of {name}" for name, of in zip(factors.names, factors.values, strict=True))
        classes = f", labels: {' and '.join(each)}"
    height, width = pictures.size
    return f"{pictures.source}: {len(pictures):,} pictures of {height} x {width}, {colour}{classes}"


def contact_sheet(pictures: Pictures | Streamed, seed: int = 0) -> Image.Image:
    """A row of pictures per class with its name and count, or plain rows where there are no classes."""
    chooser = np.random.default_rng(seed)
    high, wide = _tile_size(pictures.size)
    rows = _rows(pictures, chooser, COLUMNS if wide <= 80 else 8)
    large, small = _font(TEXT + 5, "Bold"), _font(TEXT)
    captions = [caption for caption, _ in rows]
    left = BORDER + (round(max(small.getlength(c) for c in captions)) + 18 if any(captions) else 0)
    columns = max(len(chosen) for _, chosen in rows)
    top, foot = BORDER + 44, _footer(pictures)
    title = headline(pictures)
    width = max(left + columns * (wide + GAP) - GAP, BORDER + round(large.getlength(title)))
    width = max(width, *(BORDER + round(small.getlength(line)) for line in foot), 0) + BORDER
    height = top + len(rows) * (high + GAP) + (len(foot) * (TEXT + 7) + 8 if foot else 0) + BORDER
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((BORDER, BORDER), title, fill=INK, font=large)
    for number, (caption, chosen) in enumerate(rows):
        y = top + number * (high + GAP)
        if caption:
            pen.text((left - 18, y + high // 2), caption, fill=INK, font=small, anchor="rm")
        for column, index in enumerate(chosen):
            x = left + column * (wide + GAP)
            pen.rectangle((x - 1, y - 1, x + wide, y + high), outline=EDGE)
            sheet.paste(_tile(pictures, index, high, wide), (x, y))
    for number, line in enumerate(foot):
        y = top + len(rows) * (high + GAP) + 8 + number * (TEXT + 7)
        pen.text((BORDER, y), line, fill=FAINT, font=small)
    return sheet


def _rows(pictures: Pictures | Streamed, chooser: np.random.Generator, columns: int) -> list[tuple[str, list[int]]]:
    """(caption, indices) of each row."""
    if not pictures.classes:
        chosen = sorted(chooser.permutation(len(pictures))[: columns * PLAIN_ROWS].tolist())
        chosen = [int(index) for index in chooser.permutation(chosen)]
        return [("", chosen[first : first + columns]) for first in range(0, len(chosen), columns)]
    _, names, labels = _classes(pictures)
    rows = []
    for number in even_positions(len(names), MOST_CLASSES):
        members = np.flatnonzero(labels == number)
        if len(members):
            chosen = chooser.permutation(members)[:columns].tolist()
            rows.append((f"{printable(names[number], 28)}  {len(members):,}", chosen))
    return rows


def _classes(pictures: Pictures | Streamed) -> tuple[str, Sequence[str], np.ndarray]:
    """What rows show, its names and the pictures' numbers ``[N]``: classes, or the label with the fewest values."""
    factors = pictures.factors
    if factors is None:
        return "classes", pictures.classes, pictures.labels.numpy()
    least = min(range(len(factors.names)), key=lambda one: len(factors.values[one]))
    return f"values of {factors.names[least]}", factors.values[least], factors.table[pictures.labels, least].numpy()


def _shapes(shapes: dict[str, int]) -> list[str]:
    """The commonest shapes with what was done to them, where there is more than one or something was."""
    if not shapes or (len(shapes) == 1 and " " not in next(iter(shapes))):
        return []
    few = [f"{number:,} of {shape}" for shape, number in list(shapes.items())[:MOST_SHAPES]]
    rest = sum(list(shapes.values())[MOST_SHAPES:])
    return ["shapes, height x width: " + "; ".join(few) + (f"; {rest:,} of others" if rest else "")]


def _tile_size(size: Size) -> Size:
    """Height and width of a picture on the sheet: enlarged by a whole factor, or brought down to 160."""
    scale = max(1, math.ceil(56 / min(size)))
    share = min(1.0, 160 / (scale * max(size)))
    return max(1, round(size[0] * scale * share)), max(1, round(size[1] * scale * share))


def _tile(pictures: Pictures | Streamed, index: int, high: int, wide: int) -> Image.Image:
    """One picture at ``high`` x ``wide``: enlarged without smoothing, so that its pixels are seen."""
    one = pictures.images[index] if isinstance(pictures, Pictures) else pictures.rows(torch.tensor([index]))[0]
    pixels = one.numpy()
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    enlarging = high >= pictures.size[0]
    return picture.resize((wide, high), Image.Resampling.NEAREST if enlarging else Image.Resampling.LANCZOS)


def _footer(pictures: Pictures | Streamed) -> list[str]:
    """What was converted and skipped, cut to lines of the sheet."""
    lines = []
    what, names, _ = _classes(pictures)
    if len(names) > MOST_CLASSES:
        lines.append(f"{MOST_CLASSES} of {len(names)} {what} shown")
    if pictures.converted:
        lines.append("converted: " + ", ".join(f"{count:,} {what}" for what, count in pictures.converted.items()))
    if pictures.skipped:
        lines.append(f"skipped: {len(pictures.skipped):,} ({reasons(pictures.skipped)})")
    return [line if len(line) <= 110 else line[:109] + "…" for line in lines]


def _font(points: int, weight: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """matplotlib's DejaVu Sans."""
    from unilat.signals.glyphs import fonts_folder

    name = f"DejaVuSans-{weight}.ttf" if weight else "DejaVuSans.ttf"
    return ImageFont.truetype(str(fonts_folder() / name), points)
