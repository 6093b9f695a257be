"""The head and the table of a report against a run whose numbers are known and differ everywhere."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest

from unilat.report import sections
from unilat.report.page import NAMED_FID, NOT_FID, page
from unilat.results import Classifier, Distance, Measure, Number

from . import known_run
from .drawn import Node, parse, rows


@pytest.fixture(scope="module")
def whole() -> Node:
    """The page of the known run."""
    return parse(page(known_run.contents()))


def test_every_row_has_its_own_value_error_and_count(whole: Node) -> None:
    """All rows of the table, word by word. Kills a value, an error or a count of another row, and a lost factor 100."""
    assert rows(whole.section("numbers")) == {
        "Bits per pixel, asked for": ["0.42", ""],
        "Bits per pixel, held out": ["0.437 ± 0.003", "811 pictures"],
        "PSNR": ["23.46 ± 0.04 dB", "812 pictures, 5 decoder calls"],
        "SSIM": ["0.877 ± 0.002", "813 pictures, 5 decoder calls"],
        "Reconstructions, kernel distance": ["0.035 ± 0.006", "814 pictures, to real held-out ones"],
        "Reconstructions, Fréchet distance, 64 components": ["2.346", "815 pictures, to real held-out ones"],
        "Reconstructions, precision": ["91.2 ± 1.2 %", "817 pictures, made ones among real ones"],
        "Reconstructions, recall": ["82 ± 2 %", "818 pictures, real ones among made ones"],
        "New pictures, kernel distance": ["0.128 ± 0.005", "816 pictures, to real held-out ones"],
        "New pictures, Fréchet distance, 64 components": ["–", "needs at least 128 pictures"],
        "New pictures, precision": ["63 ± 3 %", "819 pictures, made ones among real ones"],
        "New pictures, recall": ["45 ± 5 %", "820 pictures, real ones among made ones"],
        "Held-out pictures named rightly": ["91.4 ± 0.6 %", "by a small classifier trained on the real pictures"],
        "Samples named rightly": ["75.3 ± 1.7 %", "by a small classifier trained on the real pictures"],
        "Samples against real ones, named rightly": ["82.4 %", "the one over the other"],
    }


def test_the_tiles_are_the_metrics(whole: Node) -> None:
    """Kills samples for real ones in the classifier's tile, and reconstructions for new pictures."""
    tiles = [[part.text for part in tile.inner if isinstance(part, Node)] for tile in whole.all("li", "tile")]
    assert tiles == [
        ["Reconstruction, PSNR", "23.5 dB", "more is closer to the original; 5 decoder calls"],
        ["Reconstructions, kernel distance", "0.0345", "0 is indistinguishable from real ones"],
        ["New pictures, kernel distance", "0.128", "0 is indistinguishable from real ones"],
        ["Samples a classifier names", "75 %", "of held-out real ones it names 91 %"],
    ]


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        # 20 × 20 pixels: 400 times the bits of a pixel, an eighth of that in bytes
        (0.4368, "175 bits, or 21.8 bytes, for a picture of 20 × 20 pixels, 4.0 % above what was asked."),
        (0.3885, "155 bits, or 19.4 bytes, for a picture of 20 × 20 pixels, 7.5 % below what was asked."),
    ],
)
def test_the_lead_is_the_same_in_bits_bytes_and_per_cent(measured: float, said: str) -> None:
    """Kills bits for bytes, one side for both, above for below, and a share of the measured for one of the asked."""
    bits = known_run.RESULTS.bits
    moved = replace(known_run.RESULTS, bits=replace(bits, measured=replace(bits.measured, value=measured)))
    text = parse(sections.head(known_run.contents(results=moved))).one("p", "lead").text
    assert text == f"That is {said} Measured on 811 pictures that training never saw; ± is one standard error."


def test_the_headline_and_the_line_above_it(whole: Node) -> None:
    """Kills the asked for in place of the measured bits, and the held-out count for that of training."""
    assert whole.one("h1").text.replace(" ;", ";") == (
        "You asked for 0.42 bits per pixel; held-out pictures carry 0.437 ± 0.003 ."
    )
    assert whole.one("p", "eyebrow").text == "unilat run known · colours, 7,003 pictures trained on · 2026-11-23"
    assert "prior alone: 280 examples seen, stage 2: 1,500 examples seen" in whole.one("footer").text
    assert "4 threads" in whole.one("footer").text and "stage 1: 1,200 examples seen" in whole.one("footer").text


def test_before_it_is_measured_the_last_twenty_lines_of_the_rate_are_told() -> None:
    """Means of 20 lines by hand. Kills the first lines, other stages, and a last line told as a mean."""
    log = [{"stage": "stage1", "samples": n, "bpp": float(n)} for n in range(1, 41)]
    log += [{"stage": "stage2", "samples": 1, "bpp": 900.0}]
    run = known_run.contents(log=log, results=None)
    assert sections.last_rate(run) == pytest.approx(sum(range(21, 41)) / 20)
    assert "asked for 0.42 bits per pixel ; training stands at 30.5 ," in parse(sections.head(run)).one("h1").text
    assert sections.bits(run) == (0.42, None, None)
    short = known_run.contents(log=log[:5], results=None)  # whose first lines are of the start
    assert sections.last_rate(short) == (3 + 4 + 5) / 3


def gauge(node: Node) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Places and spans on the gauge, in bits: the words −3 % and +3 % of 0.42 fix the scale."""
    ends = {end.text: end.style["left"] for end in node.all("span", "end")}
    scale = 0.42 * 0.06 / (ends["+3 %"] - ends["−3 %"])

    def bits(place: float) -> float:
        return 0.42 * 0.97 + scale * (place - ends["−3 %"])

    spans = {kind: node.one("i", kind).style for kind in ("goal", "error")}
    edges = {kind: (bits(at["left"]), bits(at["left"] + at["width"])) for kind, at in spans.items()}
    return {"dot": bits(node.one("i", "dot").style["left"]), "asked": bits(ends["asked"])}, edges


def test_the_gauge_shows_the_measured_bits_with_two_errors_on_the_band(whole: Node) -> None:
    """Kills one error told as two, a band of another width, and a dot at the asked bits."""
    drawn = whole.one("div", "gauge")
    places, spans = gauge(drawn)
    assert places == pytest.approx({"dot": 0.4368, "asked": 0.42}, abs=2e-5)
    assert spans["goal"] == pytest.approx((0.42 * 0.97, 0.42 * 1.03), abs=2e-5)
    assert spans["error"] == pytest.approx((0.4368 - 2 * 0.0031, 0.4368 + 2 * 0.0031), abs=2e-5)
    assert drawn.attributes["aria-label"].startswith("0.4368 bits per pixel measured against 0.42 wanted")


def test_asked_bits_keep_their_digits() -> None:
    """Kills 0.125 told as 0.12 and 0.3 told as 0.3000."""
    assert [sections._asked(value) for value in (0.3, 0.125, 1.0, 0.012345)] == ["0.30", "0.125", "1.00", "0.0123"]


def test_every_leaf_of_the_metrics_is_listed_under_its_path(whole: Node) -> None:
    """Kills a list whose values stand under another's path."""
    listed = rows(whole.section("origin").all("details")[0])
    assert listed["other_steps[1].distance.kernel.value"] == ["0.0398"]
    assert listed["costs.phases[2].seconds"] == ["150.0"] and listed["bits.measured.n"] == ["811"]
    assert listed["classifier.real.stderr"] == ["0.0064"]
    assert listed["generation.frechet64.value"] == [json.dumps(None)]


def test_protocols_are_told_with_the_numbers_they_belong_to() -> None:
    """Kills a line under another number's name, and equal lines that are told for one number only."""
    found, line = known_run.RESULTS, partial(Number, value=1.0)
    near = Distance(kernel=line(protocol="line of kernels"), frechet64=line())
    made = replace(found.reconstruction, psnr=line(protocol="line of PSNR"), distance=near)
    samples = replace(near, frechet64=line(protocol="of Gaussians"), recall=line(protocol="of balls"))
    bits = replace(found.bits, measured=line(protocol="line of bits"))
    judge = Classifier(samples=line(protocol="a judge"), real=line(protocol="a judge"))
    changed = replace(found, bits=bits, base_bits=line(protocol="line of the base"), classifier=judge)
    changed = replace(changed, reconstruction=made, generation=samples, pictures="held out", features="a ruler")
    node = parse(page(known_run.contents(results=changed))).section("protocol")
    told = dict(zip([name.text for name in node.all("dt")], [line.text for line in node.all("dd")], strict=True))
    assert told == {
        "reconstruction, kernel, generation, kernel": "line of kernels",
        "generation, Fréchet distance": "of Gaussians",
        "generation, recall": "of balls",
        "psnr": "line of PSNR",
        "bits": "line of bits",
        "base bits": "line of the base",
        "classifier": "a judge",
        "pictures": "held out",
        "features": "a ruler",
    }


def measure(name: str, value: float, stderr: float | None, protocol: str) -> Measure:
    return Measure(name=name, number=Number(value=value, stderr=stderr, n=50_000, protocol=protocol))


def test_what_was_measured_against_a_reference_is_told_with_its_protocol() -> None:
    """Kills a distance left out or under another's name, a share told as a number, an inception score told as a share,
    the protocol of another, and a page that says no number is a FID where one is, or does not where none is."""
    tail = "50,000 of photos; a network; guidance 2"
    against = (
        measure("rfid[inception, 9k reconstructions]", 1.2345, None, f"of all 2,048 features; {tail}, again"),
        measure("fid[inception, 50k samples]", 7.891, None, f"Fréchet distance; {tail}"),
        measure("sfid[inception, 50k samples]", 9.123, None, f"of 7 channels; {tail}"),
        measure("precision[inception, 50k samples against 10,000]", 0.7123, 0.0021, f"k = 3; {tail}"),
        measure("recall[inception, 50k samples against 10,000]", 0.6234, 0.0043, f"k = 3 of recall; {tail}"),
        measure("kernel[inception, 50k samples against 10,000]", math.nan, None, f"all pairs; {tail}"),
        measure("inception score[inception, 50k samples]", 3.456, 0.078, f"10 parts; {tail}"),
    )
    node = parse(page(known_run.contents(results=replace(known_run.RESULTS, against=against))))
    told = rows(node.section("numbers"))
    assert {one.name: told[one.name] for one in against} == {
        "rfid[inception, 9k reconstructions]": ["1.234", "of all 2,048 features"],
        "fid[inception, 50k samples]": ["7.891", "Fréchet distance"],
        "sfid[inception, 50k samples]": ["9.123", "of 7 channels"],
        "precision[inception, 50k samples against 10,000]": ["71.2 ± 0.2 %", "k = 3"],
        "recall[inception, 50k samples against 10,000]": ["62.3 ± 0.4 %", "k = 3 of recall"],
        "kernel[inception, 50k samples against 10,000]": ["–", "all pairs"],
        "inception score[inception, 50k samples]": ["3.46 ± 0.08", "10 parts"],
    }
    assert told["PSNR"] == ["23.46 ± 0.04 dB", "812 pictures, 5 decoder calls"]
    section = node.section("protocol")
    names, lines = ([one.text for one in section.all(tag)] for tag in ("dt", "dd"))
    lines = dict(zip(names, lines, strict=True))
    assert {one.name: lines[one.name] for one in against} == {one.name: one.number.protocol for one in against}
    assert NAMED_FID in section.text and NOT_FID not in section.text
    for few in ((), against[3:]):
        other = parse(page(known_run.contents(results=replace(known_run.RESULTS, against=few))))
        assert NOT_FID in other.section("protocol").text and NAMED_FID not in other.section("protocol").text
        assert ("Against a reference" in other.section("numbers").text) == bool(few)


def test_what_is_unfinished_is_told_of_its_own_stage() -> None:
    """Kills the two stages taken for one another."""
    for finished, told in (((True, False), "Stage 2"), ((False, True), "Stage 1")):
        notes = parse(sections.head(known_run.contents(finished=finished))).one("div", "notes").all("li")
        assert [note.text.split(" (")[0] for note in notes] == [told]
