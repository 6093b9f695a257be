"""Results and their JSON: what is written is read back, what does not fit is refused by its key, old files are read."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from measured import distance, measured, number, shares, written
from unilat import results
from unilat.results import FORMAT, Number, Phase, Results
from unilat.types import UserError

BEFORE: dict[str, Any] = {
    "bits": {"wanted": 0.3, "measured": 0.34, "value": 0.34, "stderr": 0.031, "n": 11, "unit": "bits per pixel"},
    "base_bits": {"value": 0.31, "stderr": 0.044, "n": 12, "unit": "bits per pixel"},
    "psnr": {"value": 18.67, "stderr": 0.27, "n": 13, "unit": "dB", "steps": 2},
    "ssim": {"value": 0.56, "stderr": 0.045, "n": 14, "unit": "", "steps": 2},
    "reconstruction": {
        "kernel": {"value": 11.27, "stderr": 2.85, "n": 15, "protocol": "of kernels"},
        "frechet64": {"value": None, "n": 16, "components": 64, "reason": "too few", "protocol": "of Gaussians"},
        "steps": 2,
    },
    "by_steps": [
        {"steps": 1, "psnr": 18.66, "ssim": 0.55, "kernel": 10.91},
        {"steps": 2, "psnr": 18.67, "ssim": 0.56, "kernel": 11.27},
        {"steps": 5, "psnr": 18.11, "ssim": 0.51, "kernel": None},
    ],
    "generation": {"kernel": {"value": 9.5, "stderr": 0.5, "n": 17}, "frechet64": {"value": 7.5, "n": 18}},
    "classifier": {"samples": 0.6, "samples_stderr": 0.07, "real": 0.8, "real_stderr": 0.08, "ratio": 0.75, "n": 19,
                   "protocol": "a judge"},
    "parameters": {"encoder": 11, "base": 40},
    "training_flops": {"encoder": 811, "base": 403},
    "phases": [{"name": "stage 1", "seconds": 1.5, "peak_memory_mib": 700}],
    "protocol": {"pictures": "held out", "psnr": "of decibels", "ssim": "of windows", "features": "a ruler"},
}  # fmt: skip
"""A metrics.json as commit fe3ecef wrote it."""


def whole() -> Results:
    """Results with every part."""
    near = replace(distance(0.5), components=64, reason="too few")
    phases = (Phase(name="stage 1", seconds=2.5, peak_memory_mib=700), Phase(name="b", seconds=4, peak_memory_mib=9))
    found = measured(near=near, generation=0.7, base_bits=0.21, classifier=shares(0.6, 0.8), phases=phases)
    return replace(found, other_steps=(replace(found.reconstruction, steps=4), replace(found.reconstruction, steps=1)))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Kills: a part that is lost on the way, NaN in JSON, and one number's fields in another's place."""
    found = whole()
    written(tmp_path, found)
    text = (tmp_path / "metrics.json").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["format"] == FORMAT
    again = results.read(tmp_path / "metrics.json")
    assert again.to_json() == found.to_json()  # NaN is not equal to itself, and Python 3.13 compares field by field
    assert again.generation is not None and math.isnan(again.generation.frechet64.value)
    assert [one.steps for one in again.by_steps] == [1, 2, 4] and again.costs.seconds == 6.5
    assert again.classifier is not None and again.classifier.ratio == pytest.approx(0.75)


def test_distances_of_before_precision_and_recall_are_read() -> None:
    """Kills: a metrics.json of yesterday that no longer loads, at each of the three places of a distance; and a share
    that is there and is passed over."""
    near = replace(distance(0.5), precision=number(0.9), recall=number(0.8))
    found = replace(measured(near=near, generation=near), other_steps=(measured(near=near).reconstruction,))
    assert Results.from_json(found.to_json()).to_json() == found.to_json()
    tree: Any = found.to_json()
    places = (tree["reconstruction"]["distance"], tree["other_steps"][0]["distance"], tree["generation"])
    for place in places:
        del place["precision"], place["recall"]
    again = Results.from_json(tree)
    for one in (again.reconstruction.distance, again.other_steps[0].distance, again.generation):
        assert one is not None and one.kernel.value == 0.5 and one.precision is None and one.recall is None


def test_bits_are_read_by_attribute() -> None:
    """Kills: the target for the measured bits, and a unit, an error or a protocol of another number."""
    row = Number(value=0.31, stderr=0.02, n=9, unit="bits per pixel", protocol="a bound")
    bits = results.Bits(target=0.3, measured=row)
    assert (bits.target, bits.value, bits.stderr, bits.n) == (0.3, 0.31, 0.02, 9)
    assert (bits.unit, bits.protocol) == ("bits per pixel", "a bound")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("bits.measured.value", "0.3", "bits.measured.value must be a number"),
        ("bits.measured.value", True, "bits.measured.value must be a number"),
        ("bits.measured.stderr", [], "bits.measured.stderr must be a number"),
        ("bits.measured.n", 1.5, "bits.measured.n must be a whole number"),
        ("bits.measured.n", 10**400, "bits.measured.n is larger than any number"),
        ("bits.measured.unit", None, "bits.measured.unit must be a text"),
        ("bits.measured", 0.3, "bits.measured must be an object"),
        ("bits.wanted", 0.3, "bits.wanted is not known"),
        ("reconstruction", None, "reconstruction must be an object"),
        ("other_steps", {}, "other_steps must be a list"),
        ("costs.parameters.base", 0.5, "costs.parameters.base must be a whole number"),
        ("costs.parameters", [], "costs.parameters must be an object"),
    ],
)
def test_a_key_that_does_not_fit_is_named_with_the_way_out(tmp_path: Path, path: str, value: Any, said: str) -> None:
    """Kills: a value of another kind that is read as a number, a key that is passed over, a message without a file."""
    tree: Any = whole().to_json()
    inner, (*way, last) = tree, path.split(".")
    for name in way:
        inner = inner[name]
    inner[last] = value
    (tmp_path / "metrics.json").write_text(json.dumps(tree))
    with pytest.raises(UserError) as caught:
        results.read(tmp_path / "metrics.json")
    text = f"{tmp_path / 'metrics.json'} is damaged or of another unilat ({said}): "
    assert str(caught.value) == f"{text}measure again with `unilat evaluate {tmp_path}`"


def test_a_place_in_a_list_is_named() -> None:
    """Kills: a message that leaves open which of the rows it is."""
    tree: Any = whole().to_json()
    del tree["costs"]["phases"][1]["seconds"]
    with pytest.raises(UserError, match=r"\(costs.phases\[1\].seconds is missing\)"):
        Results.from_json(tree)


def test_a_file_that_left_out_muons_products_says_so() -> None:
    """Kills: results of before December 2026 refused, or taken for such as count them."""
    tree: Any = whole().to_json()
    assert Results.from_json(tree).costs.muon_flops == {}
    del tree["costs"]["muon_flops"]
    assert Results.from_json(tree).costs.muon_flops is None
    assert Results.from_json(BEFORE).costs.muon_flops is None


def test_files_that_hold_no_results_are_refused(tmp_path: Path) -> None:
    """Kills: a traceback where there is no file, a list or the format of a later unilat, and a lost way out."""
    with pytest.raises(UserError, match=r"metrics.json is not there: measure the run with `unilat evaluate"):
        results.read(tmp_path / "metrics.json")
    for tree, said in ((["bits"], "holds no results"), ({"format": "unilat results 2"}, "'unilat results 2', not")):
        with pytest.raises(UserError, match=f"{said}.*unilat evaluate RUN"):
            Results.from_json(tree)


def test_a_file_of_before_is_read() -> None:
    """Every number of it by hand. Kills: one number for another, a count that was not kept, the chosen calls twice."""
    found = Results.from_json(BEFORE)
    assert (found.bits.target, found.bits.value, found.bits.stderr, found.bits.n) == (0.3, 0.34, 0.031, 11)
    assert found.base_bits == Number(value=0.31, stderr=0.044, n=12, unit="bits per pixel")
    made = found.reconstruction
    assert made.psnr == Number(value=18.67, stderr=0.27, n=13, unit="dB", protocol="of decibels") and made.steps == 2
    assert made.ssim == Number(value=0.56, stderr=0.045, n=14, protocol="of windows")
    assert made.distance is not None and made.distance.kernel == number(11.27, 2.85, 15, "of kernels")
    assert math.isnan(made.distance.frechet64.value) and made.distance.frechet64.n == 16
    assert (made.distance.components, made.distance.reason) == (64, "too few")
    first, second = found.other_steps
    assert (first.steps, first.psnr.value, first.ssim.value) == (1, 18.66, 0.55)
    assert first.distance is not None and first.distance.kernel.value == 10.91 and second.distance is None
    assert found.generation is not None and found.generation.kernel == number(9.5, 0.5, 17)
    assert found.classifier is not None and found.classifier.real == number(0.8, 0.08, None, "a judge")
    assert found.classifier.samples == number(0.6, 0.07, 19, "a judge")
    assert found.costs.parameters == {"encoder": 11, "base": 40} and found.costs.seconds == 1.5
    assert (found.pictures, found.features) == ("held out", "a ruler")
    assert Results.from_json(found.to_json()).to_json() == found.to_json()


def test_a_file_of_before_without_its_optional_parts_is_read() -> None:
    """Kills: a run without a base model, features or step counts that is taken for damaged."""
    few = {name: BEFORE[name] for name in ("bits", "psnr", "ssim", "parameters", "training_flops", "protocol")}
    found = Results.from_json({**few, "classifier": None, "generation": None})
    assert found.base_bits is found.generation is found.classifier is found.reconstruction.distance is None
    assert found.other_steps == () and found.costs.phases == ()


@pytest.mark.parametrize("key", ["bits", "psnr", "ssim", "protocol", "parameters", "training_flops"])
def test_what_is_too_old_names_the_commit_that_reads_it(key: str) -> None:
    """Kills: a file of long ago that is refused without a way to read it."""
    tree = {name: value for name, value in BEFORE.items() if name != key}
    with pytest.raises(UserError, match="read it with commit fe3ecef or the one that wrote it, or measure") as caught:
        Results.from_json(tree, "old.json", "runs/old")
    assert key in str(caught.value) and str(caught.value).endswith("`unilat evaluate runs/old`")
