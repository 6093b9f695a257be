"""The page of an audit against values known by hand, each of them another."""

import math
from typing import Any

import pytest

from unilat.report import audit

from . import known_run
from .drawn import Node, heat, image, parse, rows, tiles


def row(value: float, stderr: float) -> dict[str, Any]:
    """A measured number as it stands in audit.json."""
    return {"value": value, "stderr": stderr, "n": 123}


def values() -> dict[str, Any]:
    """audit.json of a model with a posterior."""
    keys = ("per_pixel", "per_latent", "per_dimension")

    def group(pixel: float, latent: float, dimension: float, error: float) -> dict[str, Any]:
        errors = (error, error * 100, error / 2)
        return {key: row(v, e) for key, v, e in zip(keys, (pixel, latent, dimension), errors, strict=True)}

    names = ("mean", "std", "scaled_mean", "scaled_std", "bits", "posterior_kl_bits", "own_level")
    channels = [
        dict(zip(names, (0.11, 1.12, 0.13, 0.94, 15.5, 16.6, 7.17), strict=True)) | {"channel": 0},
        dict(zip(names, (0.21, 2.22, 0.23, 0.84, 25.5, 26.6, 6.27), strict=True)) | {"channel": 1},
    ]
    return {
        "subject": {"name": "theirs", "kind": "a function", "latent": [2, 2, 3], "pictures": {"source": "colours"}},
        "bits": group(0.512, 221.3, 1.844, 0.004),
        "normal": {"noisy": group(0.634, 274.1, 2.284, 0.006), "posterior": group(0.745, 322.7, 2.689, 0.009)},
        "psnr": {**row(27.53, 0.21), "above_mean": 9.4},
        "kernel": {**row(0.0456, 0.003), "protocol": "line of the kernel"},
        "channels": channels,
        "faults": [{"kind": "scale", "says": "It is off.", "change": "Divide.", "channels": [1]}],
        "plan": {"lambda_0": 4.0},
        "protocol": {"bits": "line of the bits"},
        "unknown": ["this", "that"],
    }


def found(**changes: Any) -> audit.Found:
    """An audit in memory, ``bits={…}`` replaces a part."""
    shown = {name: value for name, value in known_run.arrays().items() if not name.startswith("reconstructions")}
    return audit.Found(values() | changes, shown | {"reconstructions": known_run.flat(70)})


@pytest.fixture(scope="module")
def page() -> Node:
    """The page as a tree."""
    return parse(audit.whole(found()))


def test_bits_stand_under_their_prior_and_unit(page: Node) -> None:
    """Kills a row of another prior, a column of another unit and errors of another number."""
    table = page.section("numbers")
    assert [head.text for head in table.all("thead")[0].all("th")] == [
        "prior",
        "bits a pixel",
        "bits a latent",
        "bits a number",
    ]
    assert rows(table) == {
        "Diffusion prior": ["0.512 ± 0.004", "221.3 ± 0.4", "1.844 ± 0.002"],
        "N(0, I)": ["0.634 ± 0.006", "274.1 ± 0.6", "2.284 ± 0.003"],
        "Posterior's KL": ["0.745 ± 0.009", "322.7 ± 0.9", "2.689 ± 0.004"],
    }
    assert "one standard error over 123 latents" in table.text


def test_the_head_tells_the_diffusion_priors_bits_against_the_normal_ones(page: Node) -> None:
    """Kills the posterior's KL told as the normal prior's charge, and bits a latent under a pixel's name."""
    assert page.one("h1").text == (
        "These latents carry 0.512 ± 0.004 bits per pixel; a normal prior would charge 0.634 ."
    )
    bits = {key: value for key, value in values()["bits"].items() if key != "per_pixel"}
    assert parse(audit.whole(found(bits=bits))).one("h1").text == (
        "These latents carry 221.3 ± 0.4 bits per latent; a normal prior would charge 274 ."
    )
    assert "latents of 2 × 2 × 3 · colours" in page.one("p", "eyebrow").text


def test_the_tiles_and_what_independent_numbers_would_need(page: Node) -> None:
    """``½ log2(1 + e^4)`` = 2.90 bits. Kills nats, the noise's own σ, and swapped units."""
    told = [[part.text for part in tile.inner if isinstance(part, Node)] for tile in page.all("li", "tile")]
    assert told == [
        ["Bits of a latent", "221.3 ± 0.4", "under a diffusion prior, held out"],
        ["Bits of a number", "1.844 ± 0.002", "independent normal numbers need 2.90 at log-SNR 4"],
        ["Reconstruction, PSNR", "27.5 dB", "more is closer to the original"],
        ["Reconstructions, kernel distance", "0.0456", "0 is indistinguishable from real ones"],
    ]
    assert f"{math.log(1 + math.exp(4.0)) / 2 / math.log(2):.2f}" == "2.90"


def test_channels_have_their_own_numbers_and_faults(page: Node) -> None:
    """Kills a column under another's head, and a fault told of another channel."""
    table = page.section("channels")
    heads = [head.text for head in table.all("thead")[0].all("th")]
    assert heads[1:8] == ["bits of a latent", "mean", "std", "mean, scaled", "std, scaled", "KL, bits", "own log-SNR"]
    assert rows(table) == {
        "0": ["15.5", "0.110", "1.12", "0.130", "0.940", "16.6", "7.17", ""],
        "1": ["25.5", "0.210", "2.22", "0.230", "0.840", "26.6", "6.27", "scale"],
    }


def test_originals_and_decoded_pictures_are_not_taken_for_each_other(page: Node) -> None:
    """Kills one set shown for both, and the decibels above the mean told as those of the reconstructions."""
    shown = page.section("reconstructions")
    strips = {strip.one("p").text: tiles(image(strip.one("img"))) for strip in shown.all("div", "strip")}
    levels = {name: [int(tile.float().mean()) for tile in parts] for name, parts in strips.items()}
    assert levels == {
        "Originals held out from the prior": [255] * 3,
        "Decoded 27.5 dB on average": [70, 71, 72, 73],
    }
    assert "One mean picture for all would be 9.4 dB worse." in shown.text


def test_without_pictures_the_mean_map_is_drawn_with_its_own_sum() -> None:
    """Kills a mean told as the sum, another scale, and rows for columns."""
    arrays = {name: known_run.arrays()[name] for name in ("bit_map", "channel_bits")}
    shown = parse(audit.whole(audit.Found(values(), arrays))).section("bitmap")
    drawn = image(shown.one("img"))
    for place, bits in zip(((0, 1), (1, 0), (1, 2)), (30.0, 9.0, 15.0), strict=True):
        assert drawn[place][:3].tolist() == pytest.approx(heat(bits / 30), abs=1.01)
    assert drawn.shape == (2, 3, 4)
    assert "up to 30.0 bits a position; 75.00 in all." in shown.text
    assert "channel 3 60.0 (50 %)" in shown.text


def test_faults_unknowns_and_protocols_are_told_whole(page: Node) -> None:
    """Kills a line that is dropped, and a protocol under another number's name."""
    assert [line.text for line in page.section("faults").all("li")] == ["scale. It is off. Divide."]
    assert [line.text for line in page.section("unknown").all("li")] == ["this", "that"]
    node = page.section("protocol")
    told = dict(zip([name.text for name in node.all("dt")], [line.text for line in node.all("dd")], strict=True))
    assert told == {"bits": "line of the bits", "kernel distance": "line of the kernel"}
    assert "Nothing wrong found." in parse(audit.whole(found(faults=[]))).section("faults").text


def test_the_curve_tells_of_the_audits_noise(page: Node) -> None:
    """Kills the encoder's own noise told of an audit that adds its own."""
    assert "where the noise of the audit begins" in page.section("curve").text
    assert "30.0 bits for the average picture" in page.section("curve").text
