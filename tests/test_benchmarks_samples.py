"""What ``benchmarks/samples.py`` makes of emoji and of finished runs, by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmark_samples import found, opener, says
from measured import measured, number, written
from unilat.files import write_json, write_safetensors
from unilat.results import Classifier, Distance, Phase
from unilat.run.facts import Facts
from unilat.run.folder import RunFolder
from unilat.signals.factors import Factors


def test_an_emoji_is_known_by_its_name_and_its_tones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: the code point that asks for colour kept, a tone taken for another, the second tone of two lost, a
    variation under a name of its own."""
    script = opener(monkeypatch, tmp_path)("samples")
    wave = {"unified": "1F44B-1F3FB"}, {"unified": "1F44B-1F3FF"}
    pair = {"unified": "1F469-1F3FD-200D-2764-FE0F-200D-1F468-1F3FE"}
    names = script.named(
        [
            {"unified": "1F44B", "short_name": "wave", "skin_variations": {"1F3FB": wave[0], "1F3FF": wave[1]}},
            {"unified": "1F469-200D-2764-FE0F-200D-1F468", "short_name": "couple", "skin_variations": {"x": pair}},
            {"unified": "2665-FE0F", "short_name": "hearts"},
        ]
    )
    assert names[script.code("1f44b")] == ("wave", "none") and names[script.code("2665")] == ("hearts", "none")
    assert names[script.code("1f44b-1f3fb")] == ("wave", "light") and names["1f44b", "1f3ff"] == ("wave", "dark")
    two = script.code("1f469-1f3fd-200d-2764-fe0f-200d-1f468-1f3fe")
    assert names[two] == ("couple", "medium and medium dark") and "fe0f" not in two and len(names) == 6


def test_pictures_are_dealt_by_vendor_emoji_and_tone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: folders in another order, emoji of no name taken along, a vendor's pictures under another's."""
    script, out = opener(monkeypatch, tmp_path)("samples"), tmp_path / "dealt"
    folders = {name: tmp_path / name for name in script.VENDORS.values()}
    for name, folder in folders.items():
        (folder / "package").mkdir(parents=True)
        (folder / "package" / "1f44b-1f3fb.png").write_text(name)
        (folder / "package" / "1f999.webp").write_text("nobody knows it")
    told = [{"unified": "1F44B", "short_name": "wave", "skin_variations": {"1F3FB": {"unified": "1F44B-1F3FB"}}}]
    (folders["emoji-google"] / "package" / "emoji.json").write_text(json.dumps(told))
    monkeypatch.setattr(script, "find", folders.get)
    script.dealt(out)
    files = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*.*")}
    assert files == {
        "fluent/wave/light/picture.png": "emoji",
        "noto/wave/light/picture.png": "emoji-google",
        "twemoji/wave/light/picture.png": "emoji-twitter",
    }


def test_rows_of_a_run_and_its_goals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: a share upside down, seconds for minutes, reconstructions for samples, precision for recall, goals that
    emoji have too, FLOPs of all parts for those of the base model."""
    script = opener(monkeypatch, tmp_path)("samples")
    near, far = (
        Distance(kernel=number(at, 0.02, 9), frechet64=number(9.0), precision=number(0.6 + at), recall=number(0.3 + at))
        for at in (0.04, 0.2)
    )
    run = measured(0.4, target=0.41, stderr=0.004, n=9, psnr=number(32.0, 0.1, 9), near=near, generation=far)
    phases = (
        Phase(name="stage 1", seconds=2400.0, peak_memory_mib=1),
        Phase(name="evaluate", seconds=60.0, peak_memory_mib=1),
    )
    costs = replace(run.costs, phases=phases, training_flops={"encoder": 1e12, "base": 2.256e13})
    judge = Classifier(samples=number(0.6), real=number(0.8))
    run = replace(run, costs=costs, classifier=judge)
    rows = script.rows("fashion-mnist", run, 2)
    assert says(found(rows, "bits"), 0.4, 0.004, 9, None) and "0.41 wanted" in found(rows, "bits")["unit"]
    assert says(found(rows, "PSNR"), 32.0, 0.1, 9, None)
    assert says(found(rows, "reconstruction"), 0.04, 0.02, 9, None)
    assert says(found(rows, ": generation"), 0.2, 0.02, 9, False) and found(rows, ": generation")["goal"] < 0.2
    assert says(found(rows, "precision"), 0.8, None, None, None) and says(found(rows, "recall"), 0.5, None, None, None)
    assert says(found(rows, "named rightly"), 0.75, None, None, False)
    assert says(found(rows, "minutes"), 41.0, None, None, False) and found(rows, "minutes")["unit"].endswith(
        "2 threads"
    )
    assert says(found(rows, "over those"), 2.0, None, None, None) and says(
        found(rows, "in all"), 2.356e13, None, None, None
    )
    equal = script.rows("equal-fashion-mnist", run, 1)
    assert says(found(equal, "over those"), 2.0, None, None, False) and found(equal, ": generation")["holds"] is False
    assert script.group_of("equal-fashion-mnist") == "equal"
    factors = tuple(replace(judge, samples=number(share), of=of) for of, share in (("vendor", 0.8), ("tone", 0.4)))
    others = script.rows("emoji-32", replace(run, classifier=None, factors=factors), 1)
    assert all(row["goal"] is None for row in others)
    assert says(found(others, "named rightly", "vendor"), 1.0, None, None, None)
    assert says(found(others, "named rightly", "tone"), 0.5, None, None, None)


@pytest.mark.parametrize("labels", [0, 2, 3])
def test_a_sheet_shows_truth_above_samples_and_samples_by_class(
    labels: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Kills: rows exchanged, samples of a class apart, a page where there is none, calls that nobody chose."""
    script = opener(monkeypatch, tmp_path)("picture")

    def grey(*levels: int) -> torch.Tensor:
        return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).clone()

    names = ("vendor", "emoji", "tone")[:labels]
    factors = Factors(names, (("a", "b"),) * labels, torch.zeros(2, labels, dtype=torch.int64)) if labels else None
    facts = Facts(channels=1, classes=("a", "b"), sha256="", source="planted", factors=factors)
    written(tmp_path, measured(0.25))
    write_json(RunFolder(tmp_path).data, facts.to_json())
    arrays = {"samples": grey(*range(100, 140)), "sample_labels": torch.arange(40) % 2, "originals": grey(7, 8)}
    arrays |= {"reconstructions_2": grey(9, 10), "reconstructions_1": grey(0, 0)}
    if labels:
        arrays["truths"] = grey(*range(40))
    if labels == 2:
        seen = torch.tensor([[True, False]])
        arrays |= {"page": grey(50, 60), "page_labels": torch.tensor([[0, 1]]), "page_seen": seen}
    write_safetensors(tmp_path / "evaluation.safetensors", arrays, {})
    parts = script.sheets(tmp_path)
    *others, (title, last) = parts.items()
    assert title == "held-out pictures, and the same through 0.250 bits per pixel and back, 2 decoder calls"
    assert (at(last, 0, 1), at(last, 1, 0)) == (8, 9)
    if not labels:
        ((title, sheet),) = others
        assert "none picked" in title and [at(sheet, 0, 0), at(sheet, 0, 1), at(sheet, 2, 0)] == [100, 102, 125]
        return
    told = "vendor and emoji" if labels == 2 else "vendor, emoji and tone"
    title, sheet = others[-1]
    assert title == f"held-out pictures, and samples of the same {told}"
    assert (at(sheet, 0, 3), at(sheet, 1, 3)) == (3, 103) and len(others) == (2 if labels == 2 else 1)
    if labels == 2:
        assert others[0][0] == "samples of the base model; framed: 1 pairs of vendor and emoji never trained on"
        assert (at(others[0][1], 0, 0), at(others[0][1], 0, 1)) == (50, 60)
    else:
        assert (at(sheet, 2, 1), at(sheet, 3, 1)) == (17, 117)


def at(sheet: torch.Tensor, row: int, column: int) -> int:
    """Grey of the picture in this place of a sheet of pictures of 4 × 4 with gaps of 4."""
    return int(sheet[6 + 8 * row, 6 + 8 * column, 0])
