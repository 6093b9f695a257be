"""``unilat train``: which configuration an ordinary line, a dial and an override lead to."""

from pathlib import Path

import pytest

from unilat.cli.configure import parse_train
from unilat.recipe import presets
from unilat.recipe.config import RunConfig, to_json
from unilat.types import UserError


def _settings(*words: str) -> RunConfig:
    return parse_train(["glyphs", *words]).settings


def test_the_preset_is_the_start():
    """Kills a preset that is read for its name only."""
    assert _settings("--preset", "tiny") == presets.get("tiny")
    assert _settings("--preset", "small", "--size", "64").autoencoder == presets.get("small", size=64).autoencoder
    named = "glyphs" if "glyphs" in presets.PRESETS else "small"
    assert _settings() == presets.get(named)
    assert parse_train(["photos"]).settings.autoencoder == presets.get("small").autoencoder


def test_overrides_win_over_dials():
    """Kills the order of the two: a field's own option has the last word."""
    settings = _settings("--bpp", "0.2", "--stage1.target_bpp", "0.4", "--size", "64", "--data.source", "elsewhere")
    assert (settings.stage1.target_bpp, settings.data.size, settings.data.source) == (0.4, (64, 64), "elsewhere")


def test_dials_reach_their_fields():
    """Kills --loss-factor beside wanted bits, and --bias or --seed that go nowhere."""
    settings = _settings("--loss-factor", "1.5", "--bias", "-1", "--seed", "9")
    assert (settings.stage1.loss_factor, settings.stage1.target_bpp) == (1.5, None)
    assert (settings.autoencoder.bias, settings.seed) == (-1.0, 9)
    assert _settings("--bpp", "0.7").stage1.target_bpp == 0.7
    assert _settings("--stage1.target_bpp", "None", "--stage1.loss-factor", "2").stage1.target_bpp is None


def test_levels_can_be_written():
    """Kills the loss of levels: the number of strides is not fixed by the preset's."""
    words = ["--autoencoder.encoder.strides", "2x2", "1x2", "--autoencoder.encoder.channels", "8", "16", "24"]
    encoder = _settings("--preset", "tiny", *words).autoencoder.encoder
    assert encoder.strides == ((2, 2), (1, 2))
    assert encoder.channels == (8, 16, 24)


def test_a_file_is_a_start(tmp_path: Path):
    """The config.json of a run starts another; DATA and dials still shape it."""
    file = tmp_path / "config.json"
    file.write_text(to_json(_settings("--preset", "tiny", "--stage1.batch", "48", "--seed", "3")), encoding="utf-8")
    settings = parse_train(["photos", "--config", str(file), "--bpp", "0.6"]).settings
    assert (settings.stage1.batch, settings.stage1.target_bpp, settings.data.source) == (48, 0.6, "photos")
    assert settings.base == presets.get("tiny").base
    file.write_text(file.read_text(encoding="utf-8").replace('"batch"', '"bach"'), encoding="utf-8")
    with pytest.raises(UserError, match="bach"):
        parse_train(["photos", "--config", str(file)])


def test_a_file_keeps_its_seed(tmp_path: Path):
    """Kills a default of the command line that overwrites the file's seed."""
    file = tmp_path / "config.json"
    file.write_text(to_json(_settings("--preset", "tiny", "--seed", "3")), encoding="utf-8")
    assert parse_train(["photos", "--config", str(file)]).settings.seed == 3
    assert parse_train(["photos", "--config", str(file), "--seed", "4"]).settings.seed == 4


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("glyphs", "runs/glyphs"),
        ("/data/My photos/", "runs/My-photos"),
        ("a/b.npz", "runs/b"),
        ("..", None),
        ("/", "runs/run"),
    ],
)
def test_run_folders_are_named_after_the_data(source: str, folder: str | None, monkeypatch: pytest.MonkeyPatch):
    """Kills a run that is written outside runs/ or has no name."""
    named = parse_train([source]).folder
    assert named.parent == Path("runs")
    assert named.name not in ("", ".", "..")
    if folder is not None:
        assert named == Path(folder)
    assert parse_train([source, "--out", "x/y"]).folder == Path("x/y")


def test_help_config_shows_the_presets_values(capsys: pytest.CaptureFixture[str]):
    """Kills a list of fields with the wrong preset's defaults."""
    with pytest.raises(SystemExit):
        parse_train(["--help-config", "--preset", "tiny"])
    out = capsys.readouterr().out
    batch = presets.get("tiny").stage1.batch
    assert f"--stage1.batch INT\n        Pictures a step. (default: {batch})" in out
    assert "--autoencoder.encoder.strides [AxB ...]" in out
