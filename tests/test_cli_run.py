"""The real commands on a real run of some seconds: one after the other, as a user would."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from unilat.cli import main
from unilat.maths.rate import RateTerms
from unilat.models.latents import LatentSet

ROOT = Path(__file__).parents[1]
Capture = pytest.CaptureFixture[str]


def _json(capsys: Capture, *words: object) -> dict:
    """The object that a command prints under ``--json``; nothing else may stand on standard output."""
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def _refused(capsys: Capture, *words: object) -> str:
    """The one line with which a command refuses."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *notes, line = err.splitlines()
    assert line.startswith("error: ")
    assert not [note for note in notes if "error" in note or "Traceback" in note]
    return line


def test_a_run_folder_has_its_files(tiny_run: Path):
    """Kills a run that ends without a report, and temporary files that stay."""
    names = {path.name for path in tiny_run.iterdir()}
    assert {"config.json", "manifest.json", "data.json", "log.jsonl", "metrics.json", "report.html"} <= names
    assert not [path for path in tiny_run.rglob("*") if "tmp" in path.name or ".part" in path.name]


def test_training_again_is_done_at_once(tiny_run: Path, tiny_source: Path, capsys: Capture):
    """Kills a finished run that is trained again, and other settings mixed into it."""
    before = (tiny_run / "autoencoder.safetensors").read_bytes()
    words = ["train", tiny_source, "--preset", "tiny", "--out", tiny_run, "--stage1.samples", 256]
    metrics = _json(capsys, *words, "--stage2.samples", 128, "--bpp", 0.4)
    assert metrics["bits"]["target"] == 0.4
    assert (tiny_run / "autoencoder.safetensors").read_bytes() == before
    assert "bpp" in _refused(capsys, *words, "--stage2.samples", 128, "--bpp", 0.5)


def test_equal_runs_have_equal_bytes(tiny_run: Path, tiny_source: Path, tmp_path: Path):
    """Kills weights, latents or pictures of a run whose hash is another each time: by the order of their headers, a
    date in them or a seed that is not one."""
    words = ["train", tiny_source, "--preset", "tiny", "--out", tmp_path, "--bpp", 0.4, "--stage1.samples", 256]
    assert main([*map(str, words), "--stage2.samples", "128"]) == 0
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.safetensors"))
    assert {"base.safetensors", "autoencoder.safetensors", "evaluation.safetensors"} < {str(name) for name in names}
    assert len(names) == 10
    assert [name for name in names if (tmp_path / name).read_bytes() != (tiny_run / name).read_bytes()] == []


def test_latents_go_and_come(tiny_run: Path, tiny_source: Path, tmp_path: Path, capsys: Capture):
    """encode → decode is reconstruct; kills lost labels, bits in another unit, a seed that is ignored."""
    file = tmp_path / "latents.safetensors"
    told = _json(capsys, "encode", tiny_run, tiny_source, "--out", file)
    latents = LatentSet.load(file)
    assert told["count"] == len(latents.bits) == 96
    assert told["bits_per_pixel"]["mean"] == pytest.approx(float(latents.bits.mean()) / 256, rel=1e-5)
    assert sorted(latents.labels.unique().tolist()) == [0, 1]
    for seed, name in ((3, "a"), (4, "b")):
        _json(capsys, "decode", tiny_run, file, "--out", tmp_path / name, "--steps", 2, "--seed", seed)
    told = _json(capsys, "reconstruct", tiny_run, tiny_source, "--out", tmp_path / "c", "--steps", 2, "--seed", 3)
    a, b, c = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc")
    assert len(a) == 96
    assert a == c != b
    assert told["psnr"]["mean"] > 3


def test_an_error_does_not_count_copies(tiny_run: Path, tiny_source: Path, tmp_path: Path, capsys: Capture):
    """Every picture three times. Kills: a standard error that takes copies for independent pictures, or bits in another
    unit; the count and the mean are of all."""
    for path in sorted(tiny_source.rglob("*.png"))[:20]:
        for copy in range(3):
            shutil.copy(path, tmp_path / f"{path.stem}-{path.parent.name}-{copy}.png")
    told = _json(capsys, "encode", tiny_run, tmp_path, "--out", tmp_path / "z.safetensors")
    latents = LatentSet.load(tmp_path / "z.safetensors")
    names = [str(name).rsplit("-", 1)[0] for name in latents.names or ()]
    firsts = latents.bits.double()[[names.index(name) for name in dict.fromkeys(names)]]
    mean = float(latents.bits.double().mean())
    assert told["count"] == 60 and told["bits_per_picture"]["mean"] == pytest.approx(mean, rel=1e-6)
    error = float(firsts.std()) / math.sqrt(20)
    assert told["bits_per_picture"]["stderr"] == pytest.approx(error, rel=1e-6)
    assert told["bits_per_pixel"]["stderr"] == pytest.approx(error / 256, rel=1e-6)


def test_samples_are_of_their_class(tiny_run: Path, tmp_path: Path, capsys: Capture):
    """Kills --class and --seed that go nowhere, and a sample that depends on how many there are."""
    sheet, few, many = tmp_path / "sheet.png", tmp_path / "few", tmp_path / "many"
    told = _json(capsys, "sample", tiny_run, "-n", 5, "--out", sheet)
    assert told["labels"] == [0, 1, 0, 1, 0]
    assert _picture(sheet).size == (3 * 18 - 2, 2 * 18 - 2)
    for folder, count in ((few, 2), (many, 4)):
        told = _json(capsys, "sample", tiny_run, "-n", count, "--class", "standing", "--seed", 7, "--out", folder)
        assert told["labels"] == [1] * count
    near = [
        abs(a - b) for a, b in zip(*(_picture(f / "00001-standing.png").tobytes() for f in (few, many)), strict=True)
    ]
    assert max(near) <= 1  # batches of other sizes round differently
    assert "lying" in _refused(capsys, "sample", tiny_run, "--class", "hanging")
    assert "-n" in _refused(capsys, "sample", tiny_run, "-n", 0)


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def test_evaluation_and_report(tiny_run: Path, tiny_source: Path, capsys: Capture):
    """Kills an evaluation on other pictures that overwrites the run's own, and a report command that writes nothing."""
    own = (tiny_run / "metrics.json").read_bytes()
    told = _json(capsys, "evaluate", tiny_run, tiny_source)
    assert told["bits"]["measured"]["n"] > 0
    assert (tiny_run / "metrics.json").read_bytes() == own
    (tiny_run / "report.html").unlink()
    assert Path(_json(capsys, "report", tiny_run)["report"]) == tiny_run / "report.html"
    assert (tiny_run / "report.html").stat().st_size > 1000


def test_another_encoders_latents_are_refused(tiny_run: Path, tiny_source: Path, tmp_path: Path, capsys: Capture):
    """Kills decoding what another model wrote, and reading what is no latent file."""
    file = tmp_path / "latents.safetensors"
    _json(capsys, "encode", tiny_run, tiny_source, "--out", file)
    latents = LatentSet.load(file)
    other = LatentSet(latents.z, latents.bits, latents.labels, latents.lambda_0, "0" * 64, latents.pixels)
    other.save(tmp_path / "other.safetensors")
    assert "encoder" in _refused(capsys, "decode", tiny_run, tmp_path / "other.safetensors", "--out", tmp_path / "d")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 64)
    assert "broken" in _refused(capsys, "decode", tiny_run, tmp_path / "broken.safetensors", "--out", tmp_path / "d")
    assert "nothing" in _refused(capsys, "decode", tiny_run, tmp_path / "nothing", "--out", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_bad_folders_are_refused(tiny_run: Path, tmp_path: Path, capsys: Capture):
    """Kills a traceback for an empty folder, for no run, and for a run whose configuration is misspelt."""
    (tmp_path / "empty").mkdir()
    assert "empty" in _refused(capsys, "train", tmp_path / "empty", "--preset", "tiny", "--out", tmp_path / "run")
    for command in (["sample"], ["evaluate"], ["report"]):
        assert "run folder" in _refused(capsys, *command, tmp_path / "empty")
    shutil.copytree(tiny_run, tmp_path / "copy")
    (tmp_path / "copy" / "seal.json").unlink()
    text = (tmp_path / "copy" / "config.json").read_text(encoding="utf-8")
    (tmp_path / "copy" / "config.json").write_text(text.replace('"batch"', '"bach"', 1), encoding="utf-8")
    assert "bach" in _refused(capsys, "sample", tmp_path / "copy")


def test_the_training_example_runs(tiny_source: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    """examples/train_from_python.py from beginning to end on the smallest preset."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    import train_from_python

    train_from_python.main(str(tiny_source), str(tmp_path / "run"), "tiny")
    assert "wanted 0.4 bits per pixel, measured" in capsys.readouterr().out


def test_the_charge_example_runs(tiny_source: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    """examples/charge_of_your_own.py; kills a mirror along the other axis, or a term that nothing escapes."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    import charge_of_your_own

    x = torch.arange(8.0).view(1, 1, 2, 4)
    free = RateTerms(torch.zeros_like(x), torch.zeros_like(x), torch.zeros(1))
    same = SimpleNamespace(encode=lambda picture: picture)
    assert charge_of_your_own.charge(same, x, x, free).tolist() == [0.0]  # type: ignore[arg-type]
    assert charge_of_your_own.charge(same, x, x.flip(-2), free).tolist() == pytest.approx([12.8])  # type: ignore[arg-type]
    charge_of_your_own.main(str(tiny_source), str(tmp_path / "run"), "tiny")
    assert "bits per pixel, measured" in capsys.readouterr().out
