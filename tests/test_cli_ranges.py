"""Numbers on the command line that lie where they cannot: one line that names the option, and nothing is begun."""

import dataclasses
import types
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest

from unilat.cli import main
from unilat.cli.commands import COMMANDS
from unilat.types import UserError

RUN, DATA = "RUN", "DATA"
CASES = [
    (["sample", RUN, "-n"], "-n", ("0", "-4")),
    (["sample", RUN, "--guidance"], "--guidance", ("nan", "inf")),
    (["sample", RUN, "--steps"], "--steps", ("0", "-1")),
    (["decode", RUN, "LATENTS", "--steps"], "--steps", ("0", "-1")),
    (["reconstruct", RUN, DATA, "--steps"], "--steps", ("0", "-1")),
    (["distill", RUN, "--steps"], "--steps", ("0", "-1")),
    (["distill", RUN, "--teacher-steps"], "--teacher-steps", ("0", "-8", "3.5")),
    (["distill", RUN, "--samples"], "--samples", ("0", "-1")),
    (["distill", RUN, "--truth"], "--truth", ("-1", "nan", "inf")),
    (["verify", "--samples"], "--samples", ("0", "-1")),
    (["verify", RUN, "--samples"], "--samples", ("0", "-1")),
    (["audit", "LATENTS", "--size"], "size", ("0", "-4", "0x4", "4x0")),
    (["audit", "LATENTS", "--limit"], "--limit", ("-1", "0", "49")),
    (["audit", "LATENTS", "--samples"], "--samples", ("0", "-1")),
    (["bench", "tiny", "--channels"], "--channels", ("0", "2", "-1")),
    (["bench", "tiny", "--pictures"], "--pictures", ("0", "-4")),
    (["bench", "tiny", "--size"], "size", ("0", "-4")),
    (["data", "look", DATA, "--size"], "size", ("0", "-4", "99999")),
    (["advise", RUN, "--flops"], "--flops", ("0", "-1", "nan", "inf")),
    (["advise", RUN, "--flops", "1e12", "--pixels"], "--pixels", ("0", "-1")),
    (["sweep", DATA, "--preset", "tiny", "--bpp", "0.3", "--dry-run", "--out", "s", "--seeds"], "--seeds", ("0", "-1")),
    (["stats", DATA, "--size", "16", "--rows"], "--rows", ("-1",)),
    (["watch", RUN, "--every"], "--every", ("0", "-1", "nan", "inf")),
    (["ui", "--port"], "--port", ("-1", "65536")),
    (["train", DATA, "--preset", "tiny", "--dry-run", "--target-bpp"], "--target-bpp", ("0", "-1", "nan", "inf")),
    (["train", DATA, "--preset", "tiny", "--dry-run", "--loss-factor"], "loss-factor", ("0", "-1", "nan", "inf")),
    (["train", DATA, "--preset", "tiny", "--dry-run", "--bias"], "bias", ("nan", "inf")),
    (["train", DATA, "--preset", "tiny", "--dry-run", "--size"], "size", ("0", "-8")),
    (["train", DATA, "--preset", "tiny", "--dry-run", "--workers"], "--workers", ("-1",)),
    (["train", DATA, "--preset", "tiny", "--dry-run", "--micro-batch"], "--micro-batch", ("-1",)),
]


@pytest.mark.parametrize(("words", "named", "values"), CASES, ids=lambda value: "-".join(value) if value else "")
def test_what_cannot_be_is_one_line(
    words: list[str],
    named: str,
    values: tuple[str, ...],
    tiny_run: Path,
    tiny_source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Kills: a size of -4 that is measured by, a count of nothing, a number that is told only after the work, and one
    that is told without its option."""
    import unilat

    monkeypatch.chdir(tmp_path)
    places = {RUN: str(tiny_run), DATA: str(tiny_source), "LATENTS": "z.safetensors"}
    if "LATENTS" in words:
        unilat.load(tiny_run).encode(tiny_source).save("z.safetensors")
    before = sorted(tmp_path.rglob("*"))
    for value in values:
        line = [places.get(word, word) for word in words]
        assert main([*line[:-1], f"{line[-1]}={value}" if line[-1].startswith("--") else line[-1] + value]) == 2
        said, noted = capsys.readouterr()
        noted = "\n".join(one for one in noted.splitlines() if not one.startswith(("skipped", "converted")))
        assert not said and named in noted, (value, noted)
        assert noted.startswith("error: ") == (noted.count("\n") == 0), noted  # tyro frames what is no number at all
    assert sorted(tmp_path.rglob("*")) == before


def _numbers(kind: object) -> bool:
    """Whether an option's type is a number, or a number that may be left out."""
    inner = get_args(kind) if get_origin(kind) in (types.UnionType,) else (kind,)
    return any(one in (int, float) for one in inner)


def test_every_number_of_every_command_is_tried() -> None:
    """Kills: a new option that takes any number. A seed may be any whole number."""
    tried = {(words[0], words[-1].lstrip("-")) for words, _, _ in CASES}
    for name, command in COMMANDS.items():
        for field in dataclasses.fields(command) if dataclasses.is_dataclass(command) else ():
            if _numbers(get_type_hints(command)[field.name]) and field.name != "seed":
                option = {"number": "n"}.get(field.name, field.name.replace("_", "-"))
                assert (name.split()[0], option) in tried, (name, field.name)


def test_python_names_its_arguments() -> None:
    """Kills: an option named where there is no command line."""
    from unilat.fields import at_least
    from unilat.training.fast import Choices

    assert at_least(1, 1, "count") == 1
    for wrong, name in ((lambda: at_least(1, 0, "count"), "count"), (lambda: Choices(micro_batch=-1), "micro_batch")):
        with pytest.raises(UserError, match=f"^`{name}` must be [01] or more, not"):
            wrong()
