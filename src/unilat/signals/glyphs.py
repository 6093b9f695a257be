"""The embedded default: letters and digits in the 12 DejaVu faces that matplotlib carries, drawn with Pillow.

Real type without a download. Each picture has two labels, its character and its face; what is held out are pairs of
the two. Dark ink on white, grey. A character that the first face draws like an earlier one (Greek Alpha) is left out.
All characters of a face share one scale, so that a small letter stays smaller than its capital; a character too large
for the picture (accents above a wide capital) is shrunk to fit. Each is centred: up and down by its ink, sideways by
its ink and advance together.
"""

import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unilat.fields import Size, spelled
from unilat.signals.cache import cached_arrays
from unilat.signals.factors import combined
from unilat.signals.pictures import Pictures, Progress, equal_groups, pack
from unilat.types import UserError

VERSION = 2  # of the drawing below; a cached array of another version is not used
FAMILIES = ("Sans", "Sans Mono", "Serif")
STYLES = ("", "Bold", "Oblique", "Bold Oblique")
LAST_CODE_POINT = 0x0523  # end of Cyrillic: beyond lie mostly stacked accents (Vietnamese, polytonic Greek)
PHONETIC = range(0x0250, 0x02B0)
OVERSAMPLING = 4
EM = 0.88  # of the picture's shorter side; a capital is then 0.64 of it
SPECIMEN = "Hamburgefonstiv"
"""The word that type is shown by."""
MARGIN = 0.04  # of the side, kept free on every edge


def faces() -> tuple[tuple[str, str], ...]:
    """(name shown, file name) of the 12 faces, in a fixed order."""
    found = []
    for family in FAMILIES:
        for style in STYLES:
            slanted = style.replace("Oblique", "Italic") if family == "Serif" else style
            suffix = "-" + slanted.replace(" ", "") if slanted else ""
            found.append((f"{family} {slanted}".strip(), f"DejaVu{family.replace(' ', '')}{suffix}.ttf"))
    return tuple(found)


def fonts_folder() -> Path:
    """Where the installed matplotlib keeps its faces; pyplot is not imported."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    if not folder.is_dir():
        raise UserError(
            f"glyphs: matplotlib's faces are not in {folder}; reinstall matplotlib or name another data set"
        )
    return folder


def characters(face_file: Path) -> list[str]:
    """The Latin, Greek and Cyrillic letters and the ten digits that the face draws, by code point."""
    from fontTools.ttLib import TTFont

    with TTFont(face_file, lazy=True) as font:
        mapped = sorted(font.getBestCmap() or ())
    scripts = ("LATIN", "GREEK", "CYRILLIC", "DIGIT")
    return [
        chr(code)
        for code in mapped
        if code <= LAST_CODE_POINT
        and code not in PHONETIC
        and not unicodedata.decomposition(chr(code)).startswith("<compat>")  # two letters in one: DZ, ij
        and unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt", "Nd")
        and unicodedata.name(chr(code), "?").split()[0] in scripts
    ]


def draw(character: str, font: ImageFont.FreeTypeFont, size: Size) -> np.ndarray:
    """One character, ``uint8 [*size]``, dark on white; drawn OVERSAMPLING times larger and averaged down."""
    side_y, side_x = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    room = round(min(side_y, side_x) * (1 - 2 * MARGIN))
    left, top, right, bottom = font.getbbox(character)
    width, height = int(right - left), int(bottom - top)
    if width < 1 or height < 1:
        return np.full(size, 255, np.uint8)
    ink = Image.new("L", (width, height), 255)
    ImageDraw.Draw(ink).text((-left, -top), character, fill=0, font=font)
    if max(width, height) > room:
        shrink = room / max(width, height)
        ink = ink.resize((max(1, round(width * shrink)), max(1, round(height * shrink))), Image.Resampling.LANCZOS)
    canvas = Image.new("L", (side_x, side_y), 255)
    canvas.paste(ink, ((side_x - ink.width) // 2, (side_y - ink.height) // 2))
    return np.asarray(canvas.reduce(OVERSAMPLING))


def draw_all(size: Size, progress: Progress | None) -> dict[str, np.ndarray]:
    """Every (character, face) pair: ``images [N, 1, *size]``, ``labels [N]`` (face), ``code_points [N]``."""
    folder = fonts_folder()
    images, labels, codes = [], [], []
    alike: set[int] = set()
    for label, (shown, file_name) in enumerate(faces()):
        path = folder / file_name
        if not path.is_file():
            raise UserError(f"glyphs: the face {file_name} is not in {folder}; reinstall matplotlib")
        font = ImageFont.truetype(str(path), round(EM * min(size) * OVERSAMPLING), layout_engine=ImageFont.Layout.BASIC)
        drawn = {ord(one): draw(one, font, size) for one in characters(path)}
        if label == 0:
            first = equal_groups(np.stack(list(drawn.values()))[:, None]).tolist()
            alike = {code for index, code in enumerate(drawn) if first[index] != index}
        for code in [code for code in drawn if code not in alike]:
            images.append(drawn[code])
            labels.append(label)
            codes.append(code)
        if progress:
            progress(label + 1, len(faces()), f"drawing {shown}")
    return {
        "images": np.stack(images)[:, None],
        "labels": np.array(labels, np.int64),
        "code_points": np.array(codes, np.int64),
    }


def assemble(drawn: dict[str, np.ndarray]) -> Pictures:
    """The arrays of :func:`draw_all` -> :class:`Pictures` named ``A U+0041 Serif Bold``, of class ``A Serif Bold``."""
    order = np.argsort(drawn["code_points"], kind="stable")  # all faces of a character side by side
    drawn = {name: array[order] for name, array in drawn.items()}
    shown = tuple(name for name, _ in faces())
    names = tuple(
        f"{chr(code)} U+{code:04X} {shown[label]}"
        for code, label in zip(drawn["code_points"].tolist(), drawn["labels"].tolist(), strict=True)
    )
    codes, character = np.unique(drawn["code_points"], return_inverse=True)
    values = ([chr(code) for code in codes.tolist()], shown)
    rows, names_of = np.stack([character, drawn["labels"]], 1), ("character", "face")
    labels, classes, factors = combined(rows, names_of, values, SPECIMEN)
    return pack(drawn["images"], labels, "glyphs", classes=classes, names=names, factors=factors)


def load_glyphs(size: Size, progress: Progress | None = None) -> Pictures:
    """The whole set at ``size``; the drawing (2 s) is cached under a key of what shapes its pixels."""
    import matplotlib
    import PIL

    key = f"glyphs-v{VERSION}-{spelled(size)}-pillow{PIL.__version__}-matplotlib{matplotlib.__version__}"
    return assemble(cached_arrays(key, lambda: draw_all(size, progress)))
