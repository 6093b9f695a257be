"""Numbers in words, axes, charts and colours, against values worked out by hand."""

import re

import pytest
import torch

from unilat.report import figures, page, sheets, training
from unilat.report.text import duration, esc, finite, flops, memory, percent, plural, plus_minus, pretty, short
from unilat.results import Costs


def test_errors_decide_how_many_digits_are_told() -> None:
    """Kills a value with more digits than its error, and an error rounded to nothing."""
    assert plus_minus(0.30119, 0.00212) == "0.301 ± 0.002"
    assert plus_minus(0.30119, 0.00151) == "0.3012 ± 0.0015"
    assert plus_minus(19.8431, 0.713) == "19.8 ± 0.7"
    assert plus_minus(1234.5, 42.0) == "1,234 ± 42"
    assert plus_minus(0.30119, float("nan")) == plus_minus(0.30119, float("inf")) == plus_minus(0.30119, None)
    assert plus_minus(0.30119, 0.00096) == "0.3012 ± 0.0010"
    assert plus_minus(0.3, None) == "0.3000" and plus_minus(None, 0.1) == "–" and plus_minus(2.0, 0.0) == "2.000"


def test_numbers_in_words() -> None:
    """Kills a lost digit, powers of two for thousands, and minutes for seconds."""
    assert [pretty(v) for v in (0.0, 1.427349, 0.00123456, 12345678.0, 1e-9)] == [
        "0",
        "1.427",
        "0.001235",
        "12,345,678",
        "1.000e-09",
    ]
    assert [short(v) for v in (0.0, 250_000.0, 1_500_000.0, -10.0, 0.05)] == ["0", "250k", "1.5M", "−10", "0.05"]
    assert [duration(v) for v in (6.2, 42.4, 391.7, 3599.7, 11_220.0)] == [
        "6.2 s",
        "42 s",
        "6 min 32 s",
        "1 h 00 min",
        "3 h 07 min",
    ]
    assert flops(1.27e14) == "1.27 × 10¹⁴" and flops(9.999e13) == "1.00 × 10¹⁴" and flops(None) == "–"
    assert memory(402.4) == "402 MiB" and memory(2560.0) == "2.5 GiB"
    assert plural(1, "picture") == "1 picture" and plural(1200, "picture") == "1,200 pictures"
    assert percent(0.0041, 1) == "0.4\u00a0%"
    assert esc("<a b='\"'>&") == "&lt;a b=&#x27;&quot;&#x27;&gt;&amp;"


@pytest.mark.parametrize("value", [None, "3", True, float("nan"), float("inf"), 10**400, [1.0]])
def test_what_is_no_finite_number_is_none(value: object) -> None:
    """Kills True told as 1 and infinity told as a number."""
    assert finite(value) is None
    assert finite(3) == 3.0


def test_axes_hold_their_range_at_round_places() -> None:
    """Kills labels at other places than round ones, and more of them than fit."""
    assert figures.axis(0.0, 250_000.0, most=6).ticks == (0, 50_000, 100_000, 150_000, 200_000, 250_000)
    assert figures.axis(-10.0, 5.0, most=7).ticks == (-10, -5, 0, 5)
    assert figures.axis(0.9, 120.0, log=True).ticks == (1, 3, 10, 30, 100)
    assert figures.axis(0.9, 1e5, log=True, most=5).ticks == (1, 10, 100, 1000, 1e4, 1e5)
    assert figures.axis(10.0, 30.0, log=True).ticks == (10, 20)
    log = figures.axis(1.0, 100.0, log=True)
    assert log.place(10.0) == pytest.approx(50.0) and figures.axis(0.0, 4.0).place(1.0) == 25.0


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_an_axis_of_one_value_has_a_width(value: float) -> None:
    """Kills a division by nothing."""
    axis = figures.axis(value, value)
    assert axis.low < value < axis.high and len(axis.ticks) >= 1


def test_thinning_keeps_means_and_extremes() -> None:
    """Kills a range that is the mean's."""
    points = [(float(i), float(i % 10)) for i in range(1000)]
    mean, high, low = figures.thin(points, 100)
    assert len(mean) == 100 and mean[0] == (4.5, 4.5) and high[7][1] == 9.0 and low[7][1] == 0.0
    assert figures.thin(points[:5], 100)[0] == points[:5]


def test_a_chart_puts_points_where_they_belong() -> None:
    """Kills an axis upside down: SVG counts downwards."""
    axis = figures.axis(0.0, 10.0)
    drawn = figures.chart(
        [figures.Curve("c", [(0.0, 0.0), (5.0, 10.0)])], axis, axis, x_label="<x>", y_label="y", alt='"a"'
    )
    assert 'd="M0.00 100.00L50.00 0.00"' in drawn
    assert "&lt;x&gt;" in drawn and 'aria-label="&quot;a&quot;"' in drawn
    assert 'class="y" style="top:80.00%">2<' in drawn and 'class="x" style="left:20.00%">2<' in drawn


def test_the_gauge_puts_the_dot_on_the_right_side() -> None:
    """Kills a gauge the wrong way round, and a dot that leaves it."""
    over, under = figures.gauge(0.3, 0.303, 0.001, "bits"), figures.gauge(0.3, 0.297, 0.001, "bits")
    places = [float(re.findall(r'class="dot" style="left:([\d.]+)%', text)[0]) for text in (over, under)]
    assert places[0] > 50 > places[1] and places[0] - 50 == pytest.approx(50 - places[1], abs=0.02)
    far = figures.gauge(0.3, 0.9, 0.001, "bits")
    assert 50 < float(re.findall(r'class="dot" style="left:([\d.]+)%', far)[0]) < 100


def test_heat_rises_evenly_in_brightness() -> None:
    """Kills a colour scale that cannot be read without hue."""
    colours = sheets.heat(torch.linspace(0, 1, 33)).double()
    bright = (colours * torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)).sum(1)
    assert bool((bright.diff() > 0).all())
    assert sheets.heat(torch.tensor([float("nan"), -1.0, 2.0])).tolist() == [
        list(sheets.HEAT[0]),
        list(sheets.HEAT[0]),
        list(sheets.HEAT[-1]),
    ]


def test_bits_lie_over_their_own_place() -> None:
    """Kills a map turned or mirrored against the picture: one dear cell, top right."""
    pictures = torch.full((1, 3, 8, 12), 255, dtype=torch.uint8)
    maps = torch.zeros(1, 2, 3)
    maps[0, 0, 2] = 4.0
    over = sheets.laid_over(pictures, maps, 4.0)[0].float().mean(0)
    assert bool((over[:4, 8:] > over[4:, :8].max() + 50).all())
    assert float(over[:4, 8:].std()) == 0.0


def test_sheets_keep_every_pixel_and_shrink_only_the_large() -> None:
    """Kills pictures that are resized, and gaps that are not seen through."""
    pictures = torch.arange(3 * 2 * 4 * 5, dtype=torch.uint8).view(3, 1, 8, 5)
    page = sheets.sheet(pictures, 2, gap=1)
    assert page.shape == (17, 11, 4)
    assert torch.equal(page[9:, :5, 0], pictures[2, 0]) and page[9:, 6:, 3].max() == 0
    assert sheets.shrunk(pictures) is pictures
    large = torch.full((1, 3, 300, 200), 7, dtype=torch.uint8)
    assert sheets.shrunk(large).shape == (1, 3, 100, 67) and sheets.shrunk(large).max() == 7


@pytest.mark.parametrize(("count", "words"), [(1, ["1 thread"]), (2, ["2 threads"]), (16, ["16 threads"]), (0, [])])
def test_every_thread_of_the_machine_is_told(count: int, words: list[str]) -> None:
    """Kills: two threads told as one, and a count that is told where none is known."""
    known = {"unilat": "0.1", "cpu": "some processor", "threads": count}
    assert page.machine(known) == ["unilat 0.1", *words, "some processor"]


def test_flops_say_what_of_them_are_products_of_muons() -> None:
    """Kills: a share of what is left, or of one part, and a page of before that tells FLOPs as if all were counted."""
    work = {"encoder": 3e12, "base": 1e12}
    for muon, said in (
        ({"encoder": 1e12}, "three forward passes, and 25% are products of Muon's steps."),
        ({}, "three forward passes.<"),
        (None, "three forward passes, without the products of Muon's steps."),
    ):
        page = training._parts(Costs(parameters={"base": 1}, training_flops=work, muon_flops=muon))
        assert said in page
