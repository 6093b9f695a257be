"""Every cell of a comparison by hand: value, error, count and unit of each column of an invented run."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from report import sample_run
from studies.test_compare import change, make, parsed
from unilat.cli import main
from unilat.report.folder import read
from unilat.results import Costs
from unilat.studies import protocols
from unilat.studies.compare import compare
from unilat.studies.protocols import CHARTS, quantities

BITS, PERCENT, MINUTES = "bits per pixel", "%", "min"
CELLS: dict[str, tuple[float, float | None, int | None, str]] = {
    "bits_target": (0.25, None, None, BITS),
    "bits": (0.3, 0.005, 901, BITS),
    "bits_off": (20.0, 2.0, 901, PERCENT),
    "psnr": (19.8431, 0.0713, 901, "dB"),
    "ssim": (0.8917, 0.0017, 901, ""),
    "reconstruction_kernel": (0.0234, 0.0021, 901, ""),
    "reconstruction_frechet64": (61 * 0.0234, None, 901, ""),
    "reconstruction_precision": (87.66, 1.1, 901, PERCENT),
    "reconstruction_recall": (77.66, 1.3, 901, PERCENT),
    "generation_kernel": (0.0817, 0.0021, 901, ""),
    "generation_frechet64": (61 * 0.0817, None, 901, ""),
    "generation_precision": (81.83, 1.1, 901, PERCENT),
    "generation_recall": (71.83, 1.3, 901, PERCENT),
    "classifier_samples": (87.11, 1.49, 512, PERCENT),
    "classifier_real": (94.12, 0.78, 613, PERCENT),
    "classifier_over": (100 * 87.11 / 94.12, math.hypot(1.49, 87.11 / 94.12 * 0.78) / 0.9412, 512, PERCENT),
    "parameters_encoder": (412_336, None, None, ""),
    "parameters_prior": (812_004, None, None, ""),
    "parameters_decoder": (1_204_113, None, None, ""),
    "parameters_base": (1_630_212, None, None, ""),
    "parameters_all": (4_058_665, None, None, ""),
    "training_flops_encoder": (3.1e13, None, None, "FLOPs"),
    "training_flops_prior": (4.04e13, None, None, "FLOPs"),
    "training_flops_decoder": (1.27e14, None, None, "FLOPs"),
    "training_flops_base": (1.9e14, None, None, "FLOPs"),
    "training_flops_all": (3.884e14, None, None, "FLOPs"),
    "minutes_stage1": (391.7 / 60, None, None, MINUTES),
    "minutes_stage2": (182.0 / 60, None, None, MINUTES),
    "minutes_all": (655.3 / 60, None, None, MINUTES),
}
CHANGED: dict[str, Any] = {"bits.measured.value": 0.3, "bits.target": 0.25, "bits.measured.stderr": 0.005}


def test_every_cell_by_hand(tmp_path: Path) -> None:
    """The run on the right. Kills: bits off against what was measured, or with the other sign; shares told as per cent;
    an error or a count of another number; a sum that leaves a part out; seconds; and any column's own key or unit."""
    plain, run = make(tmp_path / "plain"), make(tmp_path / "run", metrics=CHANGED)
    table = compare([plain, run])
    found = {column.key: column for column in table.columns}
    assert {key: column.unit for key, column in found.items()} == {key: cell[3] for key, cell in CELLS.items()}
    for key, (value, stderr, n, _) in CELLS.items():
        cell = found[key].values[1]
        assert cell is not None and cell.value == pytest.approx(value) and cell.n == n, key
        assert cell.stderr == (None if stderr is None else pytest.approx(stderr)), key
    assert (found["bits"].values[0] or cell).value == 0.30119
    titles = {column.key: column.title for column in table.columns}
    assert titles["minutes_stage2"] == "minutes, stage 2" and titles["parameters_all"] == "parameters, in all"
    groups = {column.key: column.group for column in table.columns}
    assert [groups[key] for key in ("bits_off", "psnr", "minutes_all")] == ["bits", "quality", "cost"]


def test_a_normal_price_is_another_column_of_bits(tmp_path: Path) -> None:
    """Kills: a KL to N(0, I) and a rate under a diffusion prior in one column, and words that belong to the other."""
    price = {"autoencoder.price": "normal", "autoencoder.lambda_0": 10.0}
    table = compare([make(tmp_path / "a"), make(tmp_path / "b", config=price)])
    ours, theirs = (column.protocol for column in table.columns if column.key == "bits")
    assert (ours["price"], theirs["price"]) == ("diffusion prior", "KL to N(0, I)")
    assert (ours["log-SNR of the fixed noise"], theirs["log-SNR of the fixed noise"]) == ("5.0", "10.0")
    assert ours["count"] == "901" and ours["held-out split"] == "seed 0, share 0.1, at most 2000"


def test_calls_and_sampling_stand_in_the_protocols(tmp_path: Path) -> None:
    """Kills: the steps of the base told for the decoder's, of reconstructions for new pictures', and a part left
    out."""
    settings = {
        "guidance": 2.5,
        "base_steps": 11,
        "decoder_steps": 13,
        "decoder_range": [-7.0, 2.0],
        "decoder_temperature": 0.9,
    }
    run = read(make(tmp_path / "a", metrics={f"making.{name}": value for name, value in settings.items()}))
    protocols = {one.key: number.protocol for one in quantities([run]) if (number := one.read(run)) is not None}
    for key in ("psnr", "reconstruction_kernel"):
        assert protocols[key]["decoder calls"] == "8" and protocols[key]["decoder range"] == "(-7.0, 2.0)", key
        assert protocols[key]["decoder temperature"] == "0.9" and "guidance" not in protocols[key], key
    for key in ("generation_kernel", "classifier_samples"):
        for name, value in settings.items():
            told = str(tuple(value) if isinstance(value, list) else value)
            assert protocols[key][name.replace("_", " ")] == told, key
        assert (protocols[key]["base"], protocols[key]["decoder"]) == ("full", "full")
    assert "guidance" not in protocols["classifier_real"] and protocols["parameters_all"] == {}
    assert protocols["reconstruction_frechet64"]["components"] == "64"
    assert protocols["minutes_all"]["threads"] == "2"


@pytest.mark.parametrize(
    ("path", "value", "apart"),
    [
        ("autoencoder.bias", 1.5, {"decoder"}),
        ("autoencoder.lambda_0", 4.0, {"base"}),
        ("base.bias", 1.5, {"base"}),
        ("evaluation.decoder_range", [-7.0, 2.0], set()),
        ("seed", 5, {"curve", "scatter"}),
        ("evaluation.guidance", 7.0, set()),
    ],
)
def test_charts_are_shared_where_their_numbers_are(tmp_path: Path, path: str, value: Any, apart: set[str]) -> None:
    """Kills: curves of two weights, levels or sets of pictures on one axis, and charts that are split without need."""
    table = compare([make(tmp_path / "a"), make(tmp_path / "b", config={path: value})])
    assert {key for key, chart in table.charts.items() if chart.groups == ((0,), (1,))} == apart
    assert set(table.charts) == set(CHARTS)


def judge(of: str, samples: float, real: float) -> dict[str, Any]:
    """A classifier's entry of metrics.json: 700 samples and 350 real ones, errors of a hundredth and a fiftieth."""
    row = {"unit": "", "protocol": f"a network that names the {of}"}
    made = row | {"value": samples, "stderr": samples / 100, "n": 700}
    return {"of": of, "samples": made, "real": row | {"value": real, "stderr": real / 50, "n": 350}}


def test_each_label_has_columns_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs of two labels and one of classes, in the table, on the page and in the terminal. Kills: one label's
    share for another's, a label that is left out, a class told as a label, real ones over samples, an error of one
    part alone."""
    both = [[judge("character", 0.8, 0.64), judge("face", 0.6, 0.9)], [judge("character", 0.5, 0.4)]]
    found = [{"classifier": None, "factors": factors} for factors in both]
    runs = [make(tmp_path / str(index), metrics=metrics) for index, metrics in enumerate(found)]
    runs.append(make(tmp_path / "classes"))
    table = compare(runs, tmp_path / "page.html")
    cells = {column.key: column.values for column in table.columns if column.key.startswith("classifier")}
    assert len(cells) == 9, "three each of character, face and class"
    told = {key: [None if cell is None else round(cell.value, 6) for cell in of] for key, of in cells.items()}
    assert told["classifier_samples_character"] == [80, 50, None]
    assert told["classifier_real_character"] == [64, 40, None]
    assert told["classifier_over_character"] == [125, 125, None]
    assert told["classifier_over_face"] == [66.666667, None, None] and told["classifier_real_face"] == [90, None, None]
    assert told["classifier_samples"] == [None, None, 87.11]
    over = cells["classifier_over_face"][0]
    assert over is not None and over.n == 700
    assert over.stderr == pytest.approx(200 / 3 * math.hypot(1 / 100, 1 / 50)), "errors of both, each relative"
    titles = {column.key: column.title for column in table.columns}
    assert titles["classifier_over_face"] == "new over real ones named rightly, face"
    source, _ = parsed(tmp_path / "page.html")
    rows = source.split('<section id="quality">')[1].split("<tbody>")[1].split("</tr>")
    assert "66.7 ± 1.5" in rows[0] and "66.7 ± 1.5" not in rows[1] + rows[2]
    assert "new pictures named rightly, character" in source
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "new over real ones named rightly, character, %" in text and "66.67 ± 1.5" in text


@pytest.mark.parametrize(
    ("path", "value", "apart"),
    [
        ("samples.protocol", "a larger network", {"samples", "over"}),
        ("real.protocol", "a larger network", {"real", "over"}),
        ("samples.n", 701, {"samples", "over"}),
        ("real.n", 351, {"real", "over"}),
    ],
)
def test_a_label_named_by_another_protocol_stands_apart(tmp_path: Path, path: str, value: Any, apart: set[str]) -> None:
    """Of two labels one was measured otherwise. Kills: a ratio that tells of one of its two parts alone."""
    factors = [judge("character", 0.8, 0.64), judge("face", 0.6, 0.9)]
    other = json.loads(json.dumps(factors))
    change(other[1], path, value)
    runs = [
        make(tmp_path / name, metrics={"classifier": None, "factors": rows})
        for name, rows in (("a", factors), ("b", other))
    ]
    table = compare(runs)
    assert {key for one in table.apart for key in one.keys} == {f"classifier_{key}_face" for key in apart}


def test_nothing_is_over_no_real_ones(tmp_path: Path) -> None:
    """Kills: a division by nothing, and a ratio of 10⁹ where no real picture is named rightly."""
    found = {"classifier": None, "factors": [judge("character", 0.8, 0.0)]}
    runs = [make(tmp_path / name, metrics=found) for name in "ab"]
    keys = {column.key for column in compare(runs).columns if column.key.startswith("classifier")}
    assert keys == {"classifier_samples_character", "classifier_real_character"}


def test_invented_numbers_are_told_apart() -> None:
    """Every cell's value is another's only where it must be. Kills: a fixture in which a slip of columns cannot
    show."""
    values = [cell[0] for cell in CELLS.values()]
    assert len(set(values)) == len(values)
    tree = sample_run.metrics(0.3)
    change(tree, "bits.measured.value", 2.0)
    assert tree["bits"]["measured"]["value"] == 2.0


def test_flops_without_muons_products_stand_apart() -> None:
    """Kills: FLOPs of before December 2026 ranked beside such as count all; parameters are counted alike."""
    costs = Costs(parameters={"base": 5}, training_flops={"base": 7.0})
    both = (costs, replace(costs, muon_flops=None))
    runs: list[Any] = [SimpleNamespace(results=SimpleNamespace(costs=one)) for one in both]
    new, old = (protocols._cost(run, "training_flops", "all") for run in runs)
    assert new is not None and old is not None and new.value == old.value == 7 and new.protocol != old.protocol
    assert "counted" in dict(new.protocol).values() and "counted" not in dict(old.protocol).values()
    new, old = (protocols._cost(run, "parameters", "all") for run in runs)
    assert new == old
