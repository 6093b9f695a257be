"""A page read back: its rows, pictures, bars and the curves of its charts in the units that its tick labels tell."""

import base64
import io
import math
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unilat.report import sheets

from .known_run import HEIGHT, WIDTH

VOID = {"meta", "img", "br", "path", "hr", "wbr"}
LETTERS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass
class Node:
    """One element of a page, and what is in it."""

    tag: str
    attributes: dict[str, str]
    inner: "list[Node | str]" = field(default_factory=list)

    def all(self, tag: str, kind: str = "") -> "list[Node]":
        """Every element below with this tag, and where asked this word among its classes, in the page's order."""
        found: list[Node] = []
        for child in self.inner:
            if isinstance(child, Node):
                fits = child.tag == tag and (not kind or kind in child.attributes.get("class", "").split())
                found += [child] if fits else []
                found += child.all(tag, kind)
        return found

    def one(self, tag: str, kind: str = "") -> "Node":
        """The only such element."""
        (found,) = self.all(tag, kind)
        return found

    @property
    def text(self) -> str:
        """All words below, with single spaces."""
        words = "".join(child if isinstance(child, str) else f" {child.text} " for child in self.inner)
        return " ".join(words.split())

    def section(self, key: str) -> "Node":
        """The section of that id."""
        (found,) = (node for node in self.all("section") if node.attributes.get("id") == key)
        return found

    @property
    def style(self) -> dict[str, float]:
        """Per cents of the element's own style, ``left:12.5%``, by name."""
        found = re.findall(r"([a-z-]+):(-?[\d.]+)%", self.attributes.get("style", ""))
        return {name: float(value) for name, value in found}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inner.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inner.append(Node(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].inner.append(data)


def parse(source: str) -> Node:
    """The tree of a page or of a piece of one."""
    reader = _Reader()
    reader.feed(source)
    reader.close()
    assert len(reader.open) == 1
    return reader.open[0]


def rows(node: Node) -> dict[str, list[str]]:
    """Table rows by their head: the words of their cells."""
    lines = [line for line in node.all("tr") if line.all("td")]
    return {line.all("th")[0].text: [cell.text for cell in line.all("td")] for line in lines}


def bars(node: Node) -> list[tuple[str, float, str]]:
    """``(name, width in per cent, text beside)`` of each bar, from the top."""
    lines = node.one("ul", "bars").all("li")
    return [
        (line.one("span", "name").text, line.one("i").style["width"], line.one("span", "value").text) for line in lines
    ]


def image(node: Node) -> Tensor:
    """An ``<img>``'s pixels, uint8 ``[H, W, 4]``."""
    _, text = node.attributes["src"].split("base64,")
    with Image.open(io.BytesIO(base64.b64decode(text))) as opened:
        return torch.from_numpy(np.asarray(opened.convert("RGBA")).copy())


def number(text: str) -> float:
    """A tick label as a number: 250k, −10, 1.2M."""
    text = text.replace("−", "-")
    return float(text[:-1]) * LETTERS[text[-1]] if text[-1] in LETTERS else float(text)


@dataclass
class Chart:
    """One chart, its curves in the units of its tick labels."""

    alt: str
    x_label: str
    y_label: str
    legend: dict[str, str]
    """Name by the classes of its key."""
    curves: list[tuple[str, list[tuple[float, float]]]]
    """``(classes, points)`` in the order they are drawn."""

    def curve(self, kind: str) -> list[tuple[float, float]]:
        """The points of the only curve of these classes."""
        (found,) = (points for classes, points in self.curves if classes == kind)
        return found


def _scale(places: list[float], labels: list[float], log: bool) -> tuple[float, float]:
    """``(slope, offset)`` of the value, or its logarithm, by place: two labels fix it, all lie inside and agree."""
    assert min(places) >= 0 and max(places) <= 100
    values = [math.log(label) if log else label for label in labels]
    slope = (values[-1] - values[0]) / (places[-1] - places[0])
    offset = values[0] - slope * places[0]
    assert all(
        abs(slope * place + offset - value) < 0.02 * abs(slope) for place, value in zip(places, values, strict=True)
    )
    return slope, offset


def chart(node: Node) -> Chart:
    """A ``<div class="chart">`` read back."""
    plot, log = node.one("div", "plot"), "logarithmic" in node.one("p", "y-label").text
    across, up = plot.all("span", "x"), plot.all("span", "y")
    wide, start = _scale([tick.style["left"] for tick in across], [number(tick.text) for tick in across], False)
    tall, floor = _scale([100 - tick.style["top"] for tick in up], [number(tick.text) for tick in up], log)
    curves = []
    for path in plot.all("path"):
        kind, drawn = path.attributes["class"], re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.attributes["d"])
        places = [(wide * float(x) + start, tall * (100 - float(y)) + floor) for x, y in drawn]
        if kind != "grid":
            curves.append((kind, [(x, math.exp(y) if log else y) for x, y in places]))
    keys = [key for legend in node.all("ul", "legend") for key in legend.all("li")]
    legend = {key.one("i").attributes["class"]: key.text for key in keys}
    words = (plot.attributes["aria-label"], node.one("p", "x-label").text, node.one("p", "y-label").text)
    return Chart(*words, legend, curves)


def charts(node: Node) -> list[Chart]:
    """Every chart below, in the page's order."""
    return [chart(found) for found in node.all("div", "chart")]


def close(drawn: list[tuple[float, float]], points: list[tuple[float, float]]) -> None:
    """Points in the same order, each within what two decimals of a per cent can say."""
    assert len(drawn) == len(points)
    for index in (0, 1):
        span = max(point[index] for point in points) - min(point[index] for point in points) or 1.0
        assert [point[index] for point in drawn] == pytest.approx([p[index] for p in points], abs=3e-3 * span)


def tiles(page: Tensor, height: int = HEIGHT, width: int = WIDTH, gap: int = 1) -> list[Tensor]:
    """The pictures of a contact sheet row by row, cut out by hand; places that are see-through are left out."""
    found = []
    for top in range(0, page.shape[0], height + gap):
        for left in range(0, page.shape[1], width + gap):
            part = page[top : top + height, left : left + width]
            found += [part[..., :3]] if part[..., 3].min() == 255 else []
    return found


def heat(share: float) -> list[float]:
    """The scale by hand: straight lines between its colours."""
    places = np.linspace(0, 1, len(sheets.HEAT))
    return [float(np.interp(share, places, [colour[channel] for colour in sheets.HEAT])) for channel in range(3)]
