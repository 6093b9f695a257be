"""Runs side by side: what may share a column, what may not, and what the page says of it."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from report import sample_run
from report.test_page import Checker
from unilat.cli import main
from unilat.recipe import config as configuration
from unilat.recipe.config import RunConfig
from unilat.report import compare as page
from unilat.report.comparison import Comparison
from unilat.report.folder import Contents, read
from unilat.report.page import write as write_report
from unilat.studies.compare import _missing, compare, groups
from unilat.types import UserError

MEASURED = ("bits", "bits_off", "psnr", "ssim", "reconstruction_kernel", "generation_kernel", "classifier_samples")

DECODED = {"psnr", "ssim", *(f"reconstruction_{kind}" for kind in ("kernel", "frechet64", "precision", "recall"))}
BEFORE = "it was measured before unilat kept what pictures were made with: evaluate it again"
SAMPLED = {"classifier_samples", "classifier_over"}
SAMPLED |= {f"generation_{kind}" for kind in ("kernel", "frechet64", "precision", "recall")}


def change(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set ``tree[a][b]`` for the path ``a.b``."""
    *inner, last = path.split(".")
    for key in inner:
        tree = tree[key]
    tree[last] = value


def make(folder: Path, **files: dict[str, Any]) -> Path:
    """A whole run folder with a whole configuration; ``metrics={"psnr.steps": 4}`` and the like change its files."""
    sample_run.write(folder)
    (folder / "config.json").write_text(configuration.to_json(RunConfig()))
    (folder / "manifest.json").write_text(json.dumps(sample_run.MANIFEST | {"device": "cpu"}))
    for name, changes in files.items():
        tree = json.loads((folder / f"{name}.json").read_text())
        for path, value in changes.items():
            change(tree, path, value)
        (folder / f"{name}.json").write_text(json.dumps(tree))
    return folder


def columns(table: Comparison, key: str) -> list[list[int]]:
    """For each column of a quantity the runs that stand in it."""
    own = [column.values for column in table.columns if column.key == key]
    return [[index for index, value in enumerate(values) if value is not None] for values in own]


def parsed(path: Path) -> tuple[str, str]:
    """Source and text of a page, after the checks that every page has to pass."""
    source, checker = path.read_text("utf-8"), Checker()
    checker.feed(source)
    checker.close()
    assert checker.open == [] and len(checker.ids) == len(set(checker.ids))
    for tag, attributes in checker.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes or (attributes["href"] or "")[1:] in checker.ids
    assert "could not be drawn" not in source and "http" not in source
    return source, "".join(checker.text)


def test_a_run_against_itself_shares_every_column(tmp_path: Path) -> None:
    """Kills a part of the protocol that depends on the folder, and a name that stands for two runs."""
    run = make(tmp_path / "run")
    table = compare([run, run], tmp_path / "page.html")
    assert table.apart == () and table.differences == {}
    keys = [column.key for column in table.columns]
    assert len(keys) == len(set(keys)) and set(MEASURED) <= set(keys)
    assert all(values[0] == values[1] is not None for values in (column.values for column in table.columns))
    assert [one.name for one in table.runs] == ["run", "run (2)"]
    assert all(chart.groups == ((0, 1),) for chart in table.charts.values())
    _, text = parsed(tmp_path / "page.html")
    assert "Kept apart" not in text and "the configurations are equal" in text


@pytest.mark.parametrize(
    ("file", "path", "value", "apart"),
    [
        ("metrics", "reconstruction.psnr.protocol", "peak 255, median of decibels", {"psnr"}),
        ("metrics", "reconstruction.ssim.protocol", "window of 7", {"ssim"}),
        ("metrics", "reconstruction.steps", 4, DECODED),
        ("metrics", "reconstruction.psnr.n", 900, {"psnr"}),
        ("metrics", "bits.measured.n", 900, {"bits", "bits_off"}),
        ("metrics", "generation.kernel.protocol", "another network", {"generation_kernel"}),
        ("metrics", "generation.kernel.n", 900, {"generation_kernel"}),
        ("metrics", "classifier.samples.protocol", "a larger network", {"classifier_samples", "classifier_over"}),
        ("metrics", "classifier.real.n", 900, {"classifier_real", "classifier_over"}),
        ("metrics", "making.guidance", 3.0, SAMPLED),
        ("metrics", "making.base", "fast", SAMPLED),
        ("metrics", "making.base_steps", 4, SAMPLED),
        ("metrics", "making.decoder_steps", 4, SAMPLED),
        ("metrics", "making.decoder", "fast", SAMPLED | DECODED),
        ("metrics", "making.decoder_range", [-6.0, 2.0], SAMPLED | DECODED),
        ("metrics", "making.decoder_temperature", 1.0, SAMPLED | DECODED),
        ("metrics", "bits.measured.protocol", "9 noise levels a picture", {"bits", "bits_off"}),
        ("config", "evaluation.guidance", 3.0, set()),  # set since, and nothing was measured with it
        ("config", "evaluation.rate_levels", 9, set()),
        ("config", "autoencoder.price", "normal", {"bits", "bits_off"}),
        ("config", "autoencoder.lambda_0", 4.0, {"bits", "bits_off"}),
        ("manifest", "threads", 7, {"minutes_stage1", "minutes_stage2", "minutes_all"}),
    ],
)
def test_one_word_of_difference_keeps_apart(tmp_path: Path, file: str, path: str, value: Any, apart: set[str]) -> None:
    """Each part alone splits its own quantities and no others. Kills any part left out of a protocol."""
    table = compare([make(tmp_path / "a"), make(tmp_path / "b", **{file: {path: value}})])
    assert {key for one in table.apart for key in one.keys} == apart
    for key in {column.key for column in table.columns}:
        assert columns(table, key) == ([[0], [1]] if key in apart else [[0, 1]])
    assert all(one.why for one in table.apart)


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [("data", "sha256", "0" * 64), ("config", "seed", 5), ("config", "data.held_out", 0.2)],
)
def test_other_pictures_share_no_measured_column(tmp_path: Path, file: str, path: str, value: Any) -> None:
    """Another data set, or another choice of held-out pictures. Kills distances and PSNR across data sets."""
    table = compare([make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c", **{file: {path: value}})])
    for key in (*MEASURED, "reconstruction_frechet64", "generation_frechet64", "classifier_real"):
        assert columns(table, key) == [[0, 1], [2]], key
    assert columns(table, "parameters_all") == [[0, 1, 2]]
    assert columns(table, "bits_target") == ([[0, 1], [2]] if file == "data" else [[0, 1, 2]])
    assert table.charts["scatter"].groups == ((0, 1), (2,))
    assert table.charts["rate"].groups == (((0, 1), (2,)) if file == "data" else ((0, 1, 2),))


def test_the_note_names_what_differs_and_only_that(tmp_path: Path) -> None:
    """Kills a note that gives two long protocols to compare by eye."""
    network = "kernel distance, 901 against 901; features: lite0, bicubic resize to {}"
    runs = [
        make(tmp_path / str(size), metrics={"generation.kernel.protocol": network.format(size)}) for size in (128, 224)
    ]
    (one,) = compare(runs).apart
    assert one.why == "protocol: features: lite0, bicubic resize to 128 | features: lite0, bicubic resize to 224"


def test_the_path_of_the_pictures_does_not_matter(tmp_path: Path) -> None:
    """Equal bytes under two paths are one data set. Kills the source's name in the protocol."""
    moved = {"source": "/mnt/else", "sha256": sample_run.DATA["sha256"]}
    line = {"pictures": "held out of /mnt/else, never trained on"}
    table = compare([make(tmp_path / "a"), make(tmp_path / "b", data=moved, metrics=line)])
    assert table.apart == ()


def test_what_is_not_known_equals_nothing(tmp_path: Path) -> None:
    """Two runs without data.json do not share a column, though both say nothing. Kills None == None."""
    runs = [make(tmp_path / name) for name in "ab"]
    for run in runs:
        (run / "data.json").unlink()
    table = compare(runs, tmp_path / "page.html")
    assert all(columns(table, key) == [[0], [1]] for key in MEASURED)
    assert groups([{"a": None}, {"a": None}, {"a": "x"}, None, {"a": "x"}]) == [[0], [1], [2, 4]]
    assert "data: not known" in parsed(tmp_path / "page.html")[1]


def test_a_configuration_changed_since_changes_no_protocol(tmp_path: Path) -> None:
    """Measured at guidance 1.5, set to 5 since. Kills: a protocol that tells the configuration's numbers for those that
    made the figures, in the table, on the page and in the report; what is set differently is told as such alone."""
    since = {"guidance": 5.25, "base_steps": 77, "decoder_steps": 66, "decoder_temperature": 0.9, "rate_levels": 55}
    changes = {f"evaluation.{name}": value for name, value in since.items()} | {"evaluation.decoder_range": [-4.0, 1.0]}
    runs = [make(tmp_path / "a"), make(tmp_path / "b", config=changes)]
    table = compare(runs, tmp_path / "page.html")
    assert table.apart == () and table.differences["evaluation.guidance"] == (1.5, 5.25)
    told = "; ".join(str(column.protocol) for column in table.columns)
    assert "'guidance': '1.5'" in told and not any(f"'{value}'" in told for value in since.values())
    report = write_report(runs[1]).read_text("utf-8")
    made = "guidance 1.5, 9 calls of the base and 8 of the decoder at temperature 0.2, log-SNR -6 to 3"
    assert f"<dt>what pictures were made with</dt><dd>{made}</dd>" in report


def test_results_that_do_not_tell_what_made_them_stand_alone(tmp_path: Path) -> None:
    """Files of before Making. Kills: the configuration believed in its place, and a silence about it."""
    runs = [make(tmp_path / name) for name in "ab"]
    for run in runs:
        tree = json.loads((run / "metrics.json").read_text())
        del tree["making"]
        (run / "metrics.json").write_text(json.dumps(tree))
    table = compare(runs)
    assert all(columns(table, key) == [[0], [1]] for key in DECODED | SAMPLED)
    assert columns(table, "bits") == [[0, 1]]
    assert all(one.missing == BEFORE for one in table.runs)


def test_values_stand_in_their_own_rows(tmp_path: Path) -> None:
    """Kills columns whose numbers are another run's: text and JSON of the command line, one changed run."""
    changes = {"reconstruction.psnr.value": 31.25, "bits.measured.value": 0.33, "bits.target": 0.3}
    runs = [make(tmp_path / "a"), make(tmp_path / "b", metrics=changes)]
    table = compare(runs, tmp_path / "page.html")
    value = {column.key: [cell.value for cell in column.values] for column in table.columns}
    assert value["psnr"] == [19.8431, 31.25] and value["bits"][1] == 0.33
    assert value["bits_off"][1] == pytest.approx(10.0) and value["classifier_samples"][0] == pytest.approx(87.11)
    assert value["parameters_all"][0] == 412_336 + 812_004 + 1_204_113 + 1_630_212
    assert value["minutes_all"][0] == pytest.approx((6.2 + 391.7 + 4.1 + 182.0 + 71.3) / 60)
    source, _ = parsed(tmp_path / "page.html")
    row = source.split('<section id="quality">')[1].split("<tbody>")[1].split("</tr>")
    assert "19.84 ± 0.07" in row[0] and "31.25 ± 0.07" in row[1]


def test_architectures_are_told_where_they_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three runs, one of before kinds and one that cannot be read; a run beside itself has nothing to tell. Kills:
    encoder and decoder exchanged, a run of before told as of no kind, kinds in the order of another run."""
    changes = {"autoencoder.encoder.kind": "vit", "autoencoder.decoder.kind": "conv"}
    runs = [make(tmp_path / "before"), make(tmp_path / "vit", config=changes), make(tmp_path / "torn")]
    tree = json.loads((runs[0] / "config.json").read_text())
    del tree["autoencoder"]["encoder"]["kind"], tree["autoencoder"]["decoder"]["kind"]
    (runs[0] / "config.json").write_text(json.dumps(tree))
    change(tree, "autoencoder.encoder.kind", "cnn")
    (runs[2] / "config.json").write_text(json.dumps(tree))
    table = compare(runs)
    assert [(run.encoder, run.decoder) for run in table.runs] == [("conv", "uvit"), ("vit", "conv"), (None, None)]
    keys = [column.key for column in table.glance]
    assert keys[:4] == [
        f"{what}_{part}" for what in ("parameters", "training_flops") for part in ("encoder", "decoder")
    ]
    assert keys[4:7] == ["bits_target", "bits", "psnr"]
    assert compare([runs[0], runs[0]]).glance == ()
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    assert "vit, vit encoder, conv decoder" in text and "torn, – encoder, – decoder" in text
    assert "before, conv encoder, uvit decoder" in text


def test_fields_set_differently_are_listed_with_every_value(tmp_path: Path) -> None:
    """Three runs, each with a field of its own. Kills differences against the first run alone."""
    fields = ({}, {"stage1.target_bpp": 0.5}, {"base.bias": 1.0, "stage1.target_bpp": 0.5})
    runs = [make(tmp_path / str(index), config=changes) for index, changes in enumerate(fields)]
    found = compare(runs).differences
    assert found == {"stage1.target_bpp": (0.3, 0.5, 0.5), "base.bias": (2.0, 2.0, 1.0)}


def test_unequal_lengths_and_unfinished_runs_are_told(tmp_path: Path) -> None:
    """A run that stopped in stage 1 has its curve and a line; a damaged file too. Kills a comparison that ends."""
    runs = [make(tmp_path / name) for name in ("whole", "half", "torn")]
    for name in ("metrics.json", "evaluation.safetensors", "autoencoder.safetensors", "base.safetensors"):
        (runs[1] / name).unlink()
    log = [line for line in (runs[1] / "log.jsonl").read_text().splitlines() if '"stage1"' in line]
    (runs[1] / "log.jsonl").write_text("\n".join(log[:40]))
    (runs[2] / "metrics.json").write_text('{"bits": {')
    table = compare(runs, tmp_path / "page.html")
    told = [run.missing for run in table.runs]
    assert told[0] == "" and "stage 1 is not finished" in told[1] and "metrics.json is damaged" in told[2]
    assert all("\n" not in one for one in told)
    assert table.charts["rate"].groups == ((0, 1, 2),) and table.charts["base"].groups == ((0, 2),)
    assert columns(table, "psnr") == [[0]]
    assert "not whole" in parsed(tmp_path / "page.html")[1]


def test_refusals_are_one_line(tmp_path: Path) -> None:
    """Too few, too many, none of them a run, nothing to compare."""
    run = make(tmp_path / "a")
    for folders in ([], [run], [run] * 9):
        with pytest.raises(UserError, match="two to 8 runs"):
            compare(folders)
    with pytest.raises(UserError, match="is no folder"):
        compare([run, tmp_path / "nowhere"])
    empty = make(tmp_path / "empty")
    for name in ("metrics.json", "log.jsonl"):
        (empty / name).unlink()
    with pytest.raises(UserError, match=r"fewer than two .* empty: metrics.json is missing"):
        compare([run, empty])
    with pytest.raises(UserError, match="choose another `out`"):
        compare([run, run], run / "config.json" / "page.html")


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Kills any text that reaches the page without being escaped: names, sources, protocols, fields, values."""
    bad = "<img src=x onerror=alert(1)>\"'&</style></title><script>alert(1)</script>"
    metrics = {"generation.kernel.protocol": bad, "reconstruction.psnr.protocol": bad, "pictures": bad}
    run = make(tmp_path / "run <b>bold", metrics=metrics, data={"source": bad, "sha256": bad})
    tree = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(tree | {bad: bad, "seed": bad}))
    compare([make(tmp_path / "a", config={"data.source": bad}), run], tmp_path / "page.html")
    source, _ = parsed(tmp_path / "page.html")
    assert "<script" not in source and "<img src=x" not in source and "<b>bold" not in source
    assert source.count("&lt;script&gt;") > 5


@pytest.mark.parametrize("value", [None, "x", [], {}, -1e300, 10**400])
def test_values_of_the_wrong_kind_never_stop_the_comparison(tmp_path: Path, value: object) -> None:
    """Kills a page that is not written when parts of metrics.json or the other files are something else."""
    runs = [make(tmp_path / name) for name in "ab"]
    metrics = json.loads((runs[1] / "metrics.json").read_text())
    inside = {key: dict.fromkeys(part, value) for key, part in metrics.items() if isinstance(part, dict)}
    for spoilt in ({**metrics, **inside}, dict.fromkeys(metrics, value)):
        (runs[1] / "metrics.json").write_text(json.dumps(spoilt))
        assert len(compare(runs, tmp_path / "page.html").runs) == 2
    for name in ("data", "config", "manifest"):
        (runs[1] / f"{name}.json").write_text(json.dumps(dict.fromkeys(["source", "stage1", "cpu", "data"], value)))
    assert len(compare(runs, tmp_path / "page.html").runs) == 2
    assert (tmp_path / "page.html").read_text("utf-8").rstrip().endswith("</html>")


def test_pictures_stand_together_only_where_they_are_the_same(tmp_path: Path) -> None:
    """Kills reconstructions of one set below another's originals."""
    runs = [make(tmp_path / name) for name in "abc"]
    from safetensors.torch import save_file

    arrays = sample_run.arrays()
    arrays["originals"] = sample_run.letters(8, seed=4)
    save_file(arrays, runs[2] / "evaluation.safetensors")
    compare(runs, tmp_path / "page.html")
    source, text = parsed(tmp_path / "page.html")
    assert source.count("8 held-out originals") == 2 and "2 sets of pictures that differ" in text
    assert source.count("reconstructions of a, 8 decoder calls, 19.8 dB") == 1


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` is one object with the page's path; text names every run; mistakes are one line and code 2."""
    runs = [str(make(tmp_path / name)) for name in "ab"]
    out = tmp_path / "deep" / "page.html"
    assert main(["compare", *runs, "--out", str(out), "--json"]) == 0
    table = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert table["page"] == str(out) and out.is_file() and not list(out.parent.glob("*.part"))
    assert main(["compare", *runs, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "19.84 ± 0.071" in text and f"page: {out}" in text
    assert main(["compare", runs[0]]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: name two to 8 runs to compare, not 1"


SEEN = {  # Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB
    "all three cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(colour: str) -> list[float]:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def lab(rgb: list[float]) -> tuple[float, float, float]:
    """CIE L*a*b* of linear RGB, white D65."""
    rows = ((0.4124, 0.3576, 0.1805, 0.95047), (0.2126, 0.7152, 0.0722, 1.0), (0.0193, 0.1192, 0.9505, 1.08883))
    xyz = [sum(a * b for a, b in zip(row[:3], rgb, strict=True)) / row[3] for row in rows]
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize(("colours", "card"), [(page.LIGHT, "#ffffff"), (page.DARK, "#1b1e24")])
def test_colours_can_be_told_apart_without_a_cone(colours: tuple[str, ...], card: str) -> None:
    """Any two of eight differ by 30 in L*a*b* for every reader (Okabe and Ito: 16) and stand out from the card."""
    for matrix in SEEN.values():
        seen = []
        for colour in colours:
            rgb = linear(colour)
            mixed = (sum(a * b for a, b in zip(row, rgb, strict=True)) for row in matrix)
            seen.append(lab([min(1.0, max(0.0, value)) for value in mixed]))
        assert min(math.dist(a, b) for a, b in itertools.combinations(seen, 2)) > 30
    ground = sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear(card), strict=True))
    for colour in colours:
        light = sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))
        assert (max(light, ground) + 0.05) / (min(light, ground) + 0.05) > 3


def test_contents_are_read_once(tmp_path: Path) -> None:
    """The page reads nothing but what it is given: the same table and runs give the same bytes."""
    runs = [make(tmp_path / name) for name in "ab"]
    table, contents = compare(runs), [read(run) for run in runs]
    assert page.page(table, contents) == page.page(table, contents)


@pytest.mark.parametrize(("samples", "told"), [(128, "stage 2 is not finished"), (0, "")])
def test_a_second_stage_is_missed_where_it_was_asked_for(samples: int, told: str) -> None:
    """Kills: a run without its base model told to be whole, and one that never was to have any told to lack it."""
    run = Contents(name="run", config={"stage2": {"samples": samples}}, finished=(True, False))
    assert _missing(run) == told
