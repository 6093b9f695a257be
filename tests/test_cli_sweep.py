"""`unilat sweep`: which words are the sweep's and which its runs', and what it prints."""

from pathlib import Path

import pytest

from unilat.cli import main
from unilat.cli import sweep as command
from unilat.cli.sweep import parse_sweep
from unilat.studies.cells import Estimate


def test_words_of_the_sweep_and_of_its_runs() -> None:
    """Kills an option that goes to the wrong parser: values of options before DATA, `=`, and fields below `base`."""
    words = "--stage1.samples 64 photos --bpp=0.1,0.2 --base small,medium --base.vit.blocks 3 --preset tiny --json"
    found = parse_sweep([*words.split(), "--out", "s", "--grid", "4x4x4", "--size=32", "--seeds", "2", "--seed", "7"])
    own = found.options
    assert (own.data, own.target_bpp, own.base, own.grid) == ("photos", "0.1,0.2", "small,medium", "4x4x4")
    assert (own.seeds, own.out, own.json, own.dry_run) == (2, Path("s"), True, False)
    settings = found.runs.settings
    assert (settings.stage1.samples, settings.data.size, settings.seed) == (64, (32, 32), 7)
    assert settings.base.vit.blocks == (3,)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--bpp 0.2", "name one with --out"),
        ("--bpp 0.2,x --out s", "--target-bpp 0.2,x: give numbers separated by commas"),
        ("--bpp 9 --out s", "--autoencoder.latent-channels"),
        ("--bpp 0.2 --out s --grid 5x5x2", "a --grid of 5x5x2 does not divide"),
        ("--bpp 0.2 --out s --base huge", "--base is one or more of tiny, small, medium, large"),
        ("--bpp 0.2 --out s --seeds 0", "--seeds must be 1 or more"),
        ("--bpp 0.2 --out file/s", "file is a file"),
    ],
)
def test_mistakes_are_one_line(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills a traceback, and a message that names a field where an option is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["sweep", "glyphs", "--preset", "tiny", *words.split()]) == 2
    said = capsys.readouterr()
    assert told in said.err and len(said.err.splitlines()) == 1 and said.out == ""


def test_a_dry_run_prints_every_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills columns the other way round, a shared autoencoder told as free of parameters, and a sum that is none."""
    costs = {"latent": (4, 8, 6), "capacity_bpp": 0.9, "base_parameters": 1234, "autoencoder_parameters": 56}
    rows = [
        Estimate(name="a", base_flops=2e9, autoencoder_flops=3e9, minutes=2.25, **costs),
        Estimate(name="b", base_flops=4e9, autoencoder_flops=0.0, minutes=0.5, **costs),
    ]
    monkeypatch.setattr(command, "estimates", lambda plan, say: rows)
    assert main(["sweep", "glyphs", "--preset", "tiny", "--bpp", "0.2", "--out", "nowhere", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "4×8×6", "0.9", "1,234", "2e+09", "56", "3e+09", "2.2"]
    assert lines[2].split() == ["b", "4×8×6", "0.9", "1,234", "4e+09", "56", "shared", "0.5"]
    assert lines[-1] == "2 runs, about 3 minutes here, reading pictures not counted"
    assert not Path("nowhere").exists()
