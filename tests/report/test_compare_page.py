"""The page of a comparison from a table and runs made by hand: whose number, whose curve, whose pictures."""

from dataclasses import replace

import pytest
import torch

from unilat.report import compare, overlays
from unilat.report.comparison import Apart, Cell, Column, Comparison, Member, Shared
from unilat.report.folder import Contents
from unilat.results import Bits, Number

from . import known_run
from .drawn import Node, chart, charts, close, image, parse, rows, tiles

NAMES = ["first", "second", "third"]


def cell(value: float, stderr: float | None = None) -> Cell:
    """A number of a column."""
    return Cell(value=value, stderr=stderr, n=9)


def column(key: str, title: str, unit: str, group: str, *values: Cell | None) -> Column:
    """A column of the table, its protocol named after it."""
    protocol = {"line": f"of {title}", "data": None, "empty": ""}
    return Column(key=key, title=title, unit=unit, group=group, protocol=protocol, values=values)


def table() -> Comparison:
    """Three runs, the last without some numbers."""
    shared = Shared(groups=((0, 1),), names=(), why="")
    last = Member(name="third", folder="", source=None, missing="stage 2 is not finished")
    return Comparison(
        runs=(*(Member(name=name, folder="", source=f"source {name}", missing="") for name in NAMES[:2]), last),
        columns=(
            column("bits", "measured", "bits per pixel", "bits", cell(0.41, 0.0021), cell(0.52, 0.0032), None),
            column("bits_target", "wanted", "bits per pixel", "bits", cell(0.4), cell(0.5), cell(0.6)),
            column("psnr", "PSNR", "dB", "quality", cell(21.37, 0.14), cell(24.68, 0.25), None),
            column("parameters_all", "parameters, in all", "", "cost", cell(1_234_567), cell(2_345_678), None),
            column("training_flops_all", "training FLOPs, in all", "FLOPs", "cost", cell(2.5e15), cell(3.5e14), None),
            column("minutes_all", "minutes, in all", "min", "cost", cell(14.25), cell(31.5), None),
        ),
        apart=(Apart(keys=("a", "b"), titles=("PSNR", "SSIM"), columns=(("x",), ("y",), ("z",)), why="calls: 2 | 4"),),
        charts=dict.fromkeys(compare.NAMES, shared),
        differences={"stage1.target_bpp": (0.4, 0.5, 0.6), "seed": (1, None, 3)},
    )


def scaled(factor: float) -> Contents:
    """The known run with every logged number and every bit multiplied, other PSNR and other reconstructions."""
    log = [{k: v * factor if isinstance(v, float) else v for k, v in line.items()} for line in known_run.log()]
    arrays = known_run.arrays() | {"reconstructions_5": known_run.flat(180)}
    arrays["curve_bits"] = arrays["curve_bits"] * factor
    bits = Bits(target=None, measured=Number(value=0.4368 * factor, stderr=0.0091))
    psnr = Number(value=29.87, stderr=0.0734)
    made = replace(known_run.RESULTS.reconstruction, steps=10, psnr=psnr)
    results = replace(known_run.RESULTS, bits=bits, reconstruction=made)
    config = {"stage1": {"target_bpp": 0.42 * factor}}
    return known_run.contents(log=log, arrays=arrays, results=results, config=config)


RUNS = [known_run.contents(), scaled(1.5), known_run.contents(log=[], arrays={})]


@pytest.fixture(scope="module")
def page() -> Node:
    """The page as a tree."""
    return parse(compare.page(table(), RUNS))


def test_each_run_has_its_own_numbers_under_each_head(page: Node) -> None:
    """Kills another run's row, another column's number, FLOPs as parameters and errors without their value."""
    assert rows(page.section("bits")) == {
        "first": ["0.410 ± 0.002", "0.400"],
        "second": ["0.520 ± 0.003", "0.500"],
        "third": ["–", "0.600"],
    }
    assert rows(page.section("quality")) == {"first": ["21.37 ± 0.14"], "second": ["24.7 ± 0.2"], "third": ["–"]}
    assert rows(page.section("cost")) == {
        "first": ["1,234,567", "2.50 × 10¹⁵", "14.2"],
        "second": ["2,345,678", "3.50 × 10¹⁴", "31.5"],
        "third": ["–", "–", "–"],
    }
    heads = [head.text for head in page.section("bits").all("thead")[0].all("th")]
    assert heads == ["run", "measured bits per pixel", "wanted bits per pixel"]


def test_architectures_stand_at_a_glance_where_they_differ(page: Node) -> None:
    """Kinds, then parameters, FLOPs, bits and quality in one row. Kills: another run's kinds, encoder for decoder,
    other columns or another order, a section where all runs have one architecture."""
    one = table()
    assert "architectures" not in [section.attributes.get("id") for section in page.all("section")]
    kinds = (("conv", "uvit"), ("vit", "conv"), (None, None))
    runs = tuple(
        replace(run, encoder=encoder, decoder=decoder) for run, (encoder, decoder) in zip(one.runs, kinds, strict=True)
    )
    more = (
        column("training_flops_decoder", "training FLOPs, decoder", "FLOPs", "cost", cell(1e15), cell(2e15), None),
        column("parameters_encoder", "parameters, encoder", "", "cost", cell(1234), cell(2345), None),
    )
    node = parse(compare.page(replace(one, runs=runs, columns=(*one.columns, *more)), RUNS))
    section = node.section("architectures")
    assert rows(section) == {
        "first": ["conv", "uvit", "1,234", "1.00 × 10¹⁵", "0.400", "0.410 ± 0.002", "21.37 ± 0.14"],
        "second": ["vit", "conv", "2,345", "2.00 × 10¹⁵", "0.500", "0.520 ± 0.003", "24.7 ± 0.2"],
        "third": ["–", "–", "–", "–", "0.600", "–", "–"],
    }
    assert [head.text for head in section.all("thead")[0].all("th")][:3] == ["run", "encoder", "decoder"]
    assert "Architectures" in [link.text for link in node.one("nav").all("a")]


def test_fields_and_their_values_stand_by_their_run(page: Node) -> None:
    """Kills values in the order of another field, and a value that is not there told as one."""
    told = {name.replace(" ", ""): values for name, values in rows(page.section("differences")).items()}
    assert told == {"stage1.target_bpp": ["0.4", "0.5", "0.6"], "seed": ["1", "–", "3"]}


def test_the_head_names_runs_what_is_missing_and_what_is_kept_apart(page: Node) -> None:
    """Kills a run told as whole, and columns counted for quantities."""
    told = [line.text for line in page.one("ul", "runs").all("li")]
    assert told == ["first source first", "second source second", "third not whole: stage 2 is not finished"]
    assert page.one("h1").text == "3 runs side by side"
    header = page.one("header")
    assert header.all("summary")[0].text == "Kept apart: 2 quantities measured by more than one protocol"
    assert header.all("details")[0].all("li")[0].text == "PSNR, SSIM in 3 columns: calls: 2 | 4"


def test_protocols_name_the_runs_that_have_the_number(page: Node) -> None:
    """Kills a protocol told of a run without the number."""
    node = page.section("protocol")
    told = dict(zip([name.text for name in node.all("dt")], [line.text for line in node.all("dd")], strict=True))
    assert told["measured"] == "first, second. line: of measured; data: not known"
    assert told["wanted"] == "first, second, third. line: of wanted; data: not known"


@pytest.mark.parametrize(
    ("key", "values", "step", "unit", "x"),
    [
        ("rate", known_run.RATES, 100, "bits per pixel, logarithmic", "pictures seen in stage 1"),
        ("decoder", known_run.DECODER, 100, "nats per picture", "pictures seen in stage 1"),
        ("base", known_run.BASE, 300, "nats per latent number, logarithmic", "latents seen in stage 2"),
    ],
)
def test_curves_are_each_runs_own_log(page: Node, key: str, values: tuple, step: int, unit: str, x: str) -> None:
    """Kills another key or stage, one run's curve in another's colour, and a legend of other names."""
    drawn = charts(page.section(key))[0]
    close(drawn.curve("line run0"), known_run.logged(values, step))
    close(drawn.curve("line run1"), known_run.logged(tuple(1.5 * value for value in values), step))
    assert drawn.legend == {"line run0": "first", "line run1": "second"}
    assert drawn.x_label == x and drawn.y_label == unit
    assert drawn.alt == "; ".join(
        f"{name}: from {values[0] * factor:.3g} to {values[-1] * factor:.3g}"
        for name, factor in (("first", 1.0), ("second", 1.5))
    )


def test_what_was_asked_for_is_dashed_in_the_runs_own_colour(page: Node) -> None:
    """Kills the rate where the run was held told as what was asked for, and another run's wish."""
    drawn = charts(page.section("rate"))[0]
    for kind, wanted in (("dashes run0", 0.42), ("dashes run1", 0.63)):
        assert [y for _, y in drawn.curve(kind)] == pytest.approx([wanted] * 2, abs=5e-3)
        assert [x for x, _ in drawn.curve(kind)] == pytest.approx([0, 1200], abs=5)


def test_information_curves_are_bits_over_the_width_of_their_bins(page: Node) -> None:
    """0.5, 3, 2 and 3 bits a unit, and half as many again. Kills bits a bin."""
    drawn = charts(page.section("curve"))[0]
    for kind, factor in (("line run0", 1.0), ("line run1", 1.5)):
        steps = [(-10, 0.5), (-6, 0.5), (-6, 3), (-4, 3), (-4, 2), (1, 2), (1, 3), (5, 3)]
        close(drawn.curve(kind), [(float(x), y * factor) for x, y in steps])
    assert drawn.alt == "first: at most 3 bits a unit; second: at most 4.5 bits a unit"
    assert drawn.y_label == "bits per unit of λ, one picture"


def test_the_scatter_has_bits_across_and_psnr_upwards_with_two_errors_each(page: Node) -> None:
    """Kills axes that are swapped, one error for two, and PSNR's error on the bits."""
    drawn = charts(page.section("scatter"))[0]
    for index, (x, y, dx, dy) in enumerate(((0.4368, 23.4567, 0.0031, 0.0412), (0.6552, 29.87, 0.0091, 0.0734))):
        (spot,), across, up = [points for kind, points in drawn.curves if kind.endswith(f"run{index}")]
        assert spot == pytest.approx((x, y), abs=3e-3)
        assert [place for place, _ in across] == pytest.approx([x - 2 * dx, x + 2 * dx], abs=1e-4)
        assert [place for _, place in up] == pytest.approx([y - 2 * dy, y + 2 * dy], abs=3e-3)
    assert (drawn.x_label, drawn.y_label) == ("bits per pixel", "PSNR, dB")
    assert drawn.alt == "first: 0.4368 bits per pixel, 23.46 dB; second: 0.6552 bits per pixel, 29.87 dB"
    assert "One run alone" in overlays._scatter([(0, RUNS[0], "first")])


def test_runs_kept_apart_have_charts_of_their_own() -> None:
    """Kills a chart whose title names another group's runs."""
    groups = Shared(groups=((1,), (0,)), names=(), why="data: a | b")
    node = parse(overlays.chart("decoder", groups, RUNS, NAMES))
    assert [title.text for title in node.all("h3")] == ["second", "first"]
    first, second = (chart(found) for found in node.all("div", "chart"))
    close(first.curve("line run1"), known_run.logged(tuple(1.5 * value for value in known_run.DECODER)))
    close(second.curve("line run0"), known_run.logged(known_run.DECODER))
    assert "Kept apart: data: a | b" in node.text


def test_pictures_below_the_originals_are_each_runs_own_at_its_calls(page: Node) -> None:
    """Grey levels tell the array: 5 calls of the first, 10 of the second. Kills pictures and calls of another run."""
    shown = page.section("pictures")
    strips = {strip.one("p").text: tiles(image(strip.one("img"))) for strip in shown.all("div", "strip")}
    levels = {name: [int(tile.float().mean()) for tile in parts] for name, parts in strips.items()}
    assert levels == {
        "Originals held out": [255] * 3,
        "first 5 decoder calls, 23.5 dB": [50, 51, 52, 53],
        "second 10 decoder calls, 29.9 dB": [110, 111, 112, 113],
    }


def test_a_run_shown_at_other_calls_is_not_told_the_measured_psnr() -> None:
    """Measured with 7 calls, which are not kept: shown with 2. Kills decibels beside pictures they are not of."""
    made = replace(known_run.RESULTS.reconstruction, steps=7, psnr=Number(value=31.0))
    run = known_run.contents(results=replace(known_run.RESULTS, reconstruction=made))
    node = parse(overlays.pictures([run, RUNS[1]], NAMES[:2]))
    assert "first 2 decoder calls" in [strip.one("p").text for strip in node.all("div", "strip")]


def test_other_originals_come_in_another_block() -> None:
    """Kills originals that are taken for equal because their shapes are."""
    other = known_run.arrays() | {"originals": torch.full((3, 3, 12, 18), 254, dtype=torch.uint8)}
    node = parse(overlays.pictures([RUNS[0], known_run.contents(arrays=other), RUNS[0]], NAMES))
    blocks = [
        [strip.one("p").text.split()[0] for strip in part.all("div", "strip")] for part in node.all("div", "figure")
    ]
    assert blocks == [["Originals", "first", "third"], ["Originals", "second"]]
    assert "held out 2 sets of pictures that differ" in node.text
