"""What the charts of a report draw, read back from SVG in the units of their own labels, against the run's files."""

import math

import pytest

from unilat.report import figures, pictures, training
from unilat.report.folder import logged

from . import known_run
from .drawn import Chart, bars, chart, charts, close, parse, rows


def test_the_information_curve_has_the_bits_as_its_area() -> None:
    """Bits over uneven bins, 0.5, 3, 2 and 3 a unit. Kills bits a bin told as bits a unit of log-SNR."""
    drawn = charts(parse(pictures.curve(known_run.contents())))[0]
    steps = [(-10, 0.5), (-6, 0.5), (-6, 3), (-4, 3), (-4, 2), (1, 2), (1, 3), (5, 3)]
    close(drawn.curve("line measured"), [(float(x), float(y)) for x, y in steps])
    close(drawn.curve("fill measured"), [*((float(x), float(y)) for x, y in steps), (5.0, 0.0), (-10.0, 0.0)])
    assert drawn.y_label == "bits per unit of λ, one picture" and "clean on the right" in drawn.x_label
    assert drawn.alt == "information curve: 30 bits in all, half of them below λ = -0.5, highest 3.0"


def test_half_of_the_bits_lie_below_the_line() -> None:
    """2 + 6 bits and 7 of the third bin's 10: −4 + 5 · 7/10. Kills a bin's edge told as the median."""
    drawn = charts(parse(pictures.curve(known_run.contents())))[0]
    half = drawn.curve("dashes wanted")
    assert [x for x, _ in half] == pytest.approx([-0.5, -0.5], abs=0.01)
    assert drawn.legend["dashes wanted"] == "half of the bits on either side: -0.5"
    assert half[0][1] == pytest.approx(0.0, abs=0.01)


def test_the_words_tell_area_and_terminal_bits_apart() -> None:
    """Kills the terminal bits told as the area, or added to it."""
    text = parse(pictures.curve(known_run.contents(), "the noise of a test")).one("p", "how").text
    assert "the area is all of them, 30.0 bits for the average picture" in text
    assert "Another 0.34 bits are the price of ending in pure noise" in text
    assert "where the noise of a test begins" in text


def test_the_rate_over_training_is_the_log() -> None:
    """Kills another stage's rows, another key, steps for samples, and the target for what was asked."""
    node = parse(training.rate(known_run.contents()))
    drawn = charts(node)[0]
    close(drawn.curve("line measured"), known_run.logged(known_run.RATES))
    close(drawn.curve("dots second"), [(600.0, 0.52), (1200.0, 0.36)])
    assert [y for _, y in drawn.curve("dashes wanted")] == pytest.approx([0.40, 0.40], abs=2e-3)
    assert drawn.legend == {
        "line measured": "training batches",
        "dashes wanted": "held until the prior settles",
        "dots second": "averaged weights on pictures set aside",
    }
    assert (drawn.x_label, drawn.y_label) == ("pictures seen in stage 1", "bits per pixel")
    assert drawn.alt == "bits per pixel over training: 2.1 at the start, 0.405 over the last fifth, 0.4 asked for"
    text = node.one("p", "how").text
    assert "The first steps reach 2.10, above this figure." in text and "trimmed to the 0.42 asked for" in text


def test_without_a_pause_the_dashes_are_what_was_asked_for() -> None:
    """Kills a run told to have been held elsewhere, and a first step within the figure told to be above it."""
    log = [{**row, "target": 0.42, "bpp": min(row.get("bpp", 0), 0.5)} for row in known_run.log()]
    node = parse(training.rate(known_run.contents(log=log)))
    drawn = charts(node)[0]
    assert drawn.legend["dashes wanted"] == "asked for" and "trimmed" not in node.text
    assert "above this figure" not in node.text
    assert [y for _, y in drawn.curve("dashes wanted")] == pytest.approx([0.42, 0.42], abs=2e-3)


def long_log(count: int = 200) -> list[dict[str, float | str]]:
    """Rates far off for the first 14 of 200 lines and then 2 % below 0.5, 4 % above, in turn."""
    rates = [0.9] * 14 + [0.52 if index % 2 else 0.49 for index in range(count - 14)]
    return [{"stage": "stage1", "samples": 1000 * n, "bpp": rate, "target": 0.5} for n, rate in enumerate(rates, 1)]


def test_many_steps_are_drawn_as_means_with_their_range() -> None:
    """200 lines in groups of 4. Kills lowest for highest, and a group's end for its middle."""
    run = known_run.contents(log=long_log(), config={"stage1": {"target_bpp": 0.5}})
    drawn = charts(parse(training.rate(run)))[0]
    mean, band = drawn.curve("line measured"), drawn.curve("fill quiet")
    assert len(mean) == 50 and len(band) == 100
    assert [x for x, _ in mean[:3]] == pytest.approx([2500, 6500, 10500], abs=30)
    assert [y for _, y in mean[4:]] == pytest.approx([0.505] * 46, abs=1e-3)
    assert [y for _, y in band[4:50]] == pytest.approx([0.52] * 46, abs=1e-3)
    assert [y for _, y in band[50:96]] == pytest.approx([0.49] * 46, abs=1e-3)
    assert band[50][0] == pytest.approx(band[49][0], abs=30)
    assert drawn.legend["band quiet"] == "range of single batches"


def test_held_from_where_the_last_group_outside_ends() -> None:
    """Groups of 5: the third, steps 11 to 15, is the last outside, so the rate holds from between 15,000 and 16,000.

    Kills a start before that group has ended, and its batches in the average, (93 · 4 % + 92 · 2 %) / 185.
    """
    points = [(float(row["samples"]), float(row["bpp"])) for row in long_log()]
    words = training._held(points, 0.5)
    tail = [abs(rate / 0.5 - 1) for seen, rate in points if seen > 15_500]
    assert sum(tail) / len(tail) == pytest.approx((93 * 0.04 + 92 * 0.02) / 185)
    assert "From about 15.5k pictures on it stayed within 10\u00a0% of it" in words
    assert "single batches were 3.0\u00a0% off on average" in words
    assert "From the start it stayed" in training._held(points[30:], 0.5)
    assert "single batches were 3.0\u00a0% off" in training._held(points[30:], 0.5)
    assert "has not come to stay within 10 %" in training._held(points[:100] + points[:12], 0.5)
    assert "The loss factor was fixed" in training._held(points, None)


def test_the_loss_factor_is_drawn_on_its_logarithmic_axis() -> None:
    """Kills the reciprocal, and a linear place under logarithmic labels."""
    drawn = charts(parse(training.rate(known_run.contents())))[1]
    assert drawn.y_label == "loss factor, logarithmic"
    close(drawn.curve("line wanted"), known_run.logged(known_run.FACTORS))
    assert drawn.alt == "loss factor over training, from 10 to 5, moving by a factor of 2.4 in all"


def losses() -> dict[str, Chart]:
    """The charts of the losses by their title."""
    node = parse(training.losses(known_run.contents()))
    return {frame.one("h3").text: chart(frame.one("div", "chart")) for frame in node.all("div", "figure")}


@pytest.mark.parametrize(
    ("title", "values", "step", "unit"),
    [
        ("Stage 1, decoder", known_run.DECODER, 100, "loss in nats per picture, before the loss factor"),
        ("Stage 1, total", known_run.TOTAL, 100, "loss, as minimised"),
        ("Then the prior alone", known_run.PRIOR, 70, "rate in nats per latent number"),
        ("Stage 2, base model", known_run.BASE, 300, "loss in nats per latent number, logarithmic"),
    ],
)
def test_each_loss_is_its_own_column_of_the_log(title: str, values: tuple, step: int, unit: str) -> None:
    """Kills one stage's losses under another's title, another key, and a logarithm that the label does not tell."""
    drawn = losses()[title]
    close(drawn.curve("line measured"), known_run.logged(values, step))
    assert drawn.y_label == unit and drawn.x_label == "examples seen"
    assert f"from {values[0]:.4g} to {values[-1]:.4g}" in drawn.alt


def test_series_pairs_samples_with_values() -> None:
    """Kills steps on the x axis and rows without a value told as 0."""
    rows = [{"step": 1, "samples": 64, "bpp": 0.5}, {"step": 2, "samples": 128}, {"samples": 192, "bpp": math.nan}]
    rows.append({"step": 4, "samples": 256, "bpp": 0.25})
    assert training.series([logged(row) for row in rows], "bpp") == [(64.0, 0.5), (256.0, 0.25)]


def test_thinning_keeps_the_last_short_group() -> None:
    """7 points in 3 groups of 3, 3 and 1, by hand. Kills a tail that is dropped or averaged over 3."""
    points = [(float(x), float(x * x)) for x in range(7)]
    mean, high, low = figures.thin(points, 3)
    assert mean == [(1.0, 5 / 3), (4.0, 50 / 3), (6.0, 36.0)]
    assert [y for _, y in high] == [4.0, 25.0, 36.0] and [y for _, y in low] == [0.0, 9.0, 36.0]


def test_costs_are_the_phases_and_the_parts() -> None:
    """Kills minutes for seconds, another phase's peak, a sum without a phase, and FLOPs in another column."""
    node = parse(training.costs(known_run.contents()))
    assert bars(node) == [
        ("data", 5.0, "30 s, 200 MiB"),
        ("stage 1", 100.0, "10 min 00 s, 1.0 GiB"),
        ("stage 2", 25.0, "2 min 30 s, 2.5 GiB"),
        ("evaluation", 12.5, "1 min 15 s, 900 MiB"),
    ]
    assert "14 min 15 s in all, at most 2.5 GiB of memory" in node.text
    assert rows(node) == {
        "encoder": ["11,001", "1.50 × 10¹²"],
        "prior": ["22,002", "2.50 × 10¹³"],
        "decoder": ["33,003", "3.50 × 10¹⁴"],
        "base model": ["44,004", "4.50 × 10¹¹"],
    }
