"""Messages name fields of the configuration; the command line names the options that set them."""

import re
from pathlib import Path

import pytest

from unilat.cli import main
from unilat.cli.naming import ARGUMENTS, arguments_named, options_named

SENTENCES = {
    "stage1.samples must be 1 or more, not 0": "--stage1.samples must be 1 or more, not 0",
    "base.token_dropping spares: give base.vit.blocks 3": "--base.token-dropping spares: give --base.vit.blocks 3",
    "autoencoder.decoder.head_width must be 1": "--autoencoder.decoder.head-width must be 1",
    "autoencoder.encoder: 2 levels": "--autoencoder.encoder: 2 levels",
    "add autoencoder.decoder_loss mse": "add --autoencoder.decoder-loss mse",
    "set autoencoder.decoder.": "set --autoencoder.decoder.",
    "the nearest that work: data.size 16 or 24": "the nearest that work: --size 16 or 24",
    "(target_bpp 0.2) or (loss_factor 1.5)": "(--target-bpp 0.2) or (--loss-factor 1.5)",
    "/tmp/data.size/a.npy and x.stage1.batch and stage1.batches": "/tmp/data.size/a.npy and x.stage1.batch and "
    "stage1.batches",
    "the data of stage1 and its base": "the data of stage1 and its base",
}


@pytest.mark.parametrize("text", SENTENCES)
def test_fields_become_the_options_that_set_them(text: str) -> None:
    """Kills: underscores in options, a field that is cut at a shorter one's name, words and paths of files taken for
    fields."""
    assert options_named(text) == SENTENCES[text]


SPOKEN = {
    "choose another `out`": "choose another --out",
    "`teacher_steps` 5 must be a multiple of `steps` 3": "--teacher-steps 5 must be a multiple of --steps 3",
    "`count` must be 1 or more; leave out `label`": "-n must be 1 or more; leave out --class",
    "(`compile='on'` does it; `compile='off'` leaves it)": "(--compile does it; --no-compile leaves it)",
    "a longer `stage1.settle`, `target_bpp`": "a longer --stage1.settle, --target-bpp",
    "go on with `unilat train`, out of `datasets`": "go on with `unilat train`, out of `datasets`",
}


@pytest.mark.parametrize("text", SPOKEN)
def test_arguments_become_the_options_that_give_them(text: str) -> None:
    """Kills: commands and words in backticks taken for options, an option that no command has, backticks that stay."""
    assert arguments_named(text) == SPOKEN[text]


def test_every_argument_has_an_option_of_a_command() -> None:
    """Kills: a misspelt option that a message would tell."""
    texts = "".join(path.read_text() for path in (Path(__file__).parents[1] / "docs" / "help").glob("*.txt"))
    for option in ARGUMENTS.values():
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", texts), option


def test_the_command_line_tells_options_and_other_mistakes_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: a check's message that is printed with Python's names; fields of a FILE told as options."""
    assert main(["train", "glyphs", "--stage1.batch", "0", "--dry-run"]) == 2
    assert capsys.readouterr().err == "error: --stage1.batch must be 1 or more, not 0\n"
    assert main(["train", "glyphs", "--size", "40x64", "--dry-run"]) == 2
    assert capsys.readouterr().err.endswith("a height of 40 must be a multiple of 16, 16 or more; the nearest that "
                                            "work: --size 32x64 or 48x64\n")  # fmt: skip
    (tmp_path / "config.json").write_text('{"stage1": {"batch": "many"}}')
    assert main(["train", "glyphs", "--config", str(tmp_path / "config.json")]) == 2
    assert "configuration: stage1.batch: " in capsys.readouterr().err
