"""Standard output and error as a shell, a pipe, a full disk or a terminal of 1990 have left them."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unilat.cli import main, streams
from unilat.cli.output import Output
from unilat.types import UserError

WORDS = "0.297 ± 0.002 of λ₀ = 5, 4×4 – naïve… ‖"


def _terminal(encoding: str) -> io.TextIOWrapper:
    """A strict stream of this encoding, as Python opens them."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)


def _written(stream: io.TextIOWrapper) -> bytes:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


@pytest.mark.parametrize(
    ("encoding", "plain"),
    [
        ("ascii", b"0.297 +- 0.002 of lambda_0 = 5, 4x4 - naive... ?"),
        ("iso-8859-1", "0.297 ± 0.002 of lambda_0 = 5, 4×4 - naïve... ?".encode("iso-8859-1")),
        ("utf-8", WORDS.encode()),
    ],
)
def test_no_character_is_an_error(monkeypatch: pytest.MonkeyPatch, encoding: str, plain: bytes) -> None:
    """Kills: figures of hours lost for a ± that the terminal does not know, on either stream; question marks where
    ASCII has a way to say it; a terminal that knows the character and does not get it."""
    out, err = _terminal(encoding), _terminal(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with streams.steady(), Output(False) as output:
        output.say(WORDS)
        output.result({}, WORDS)
    assert _written(out).rstrip() == _written(err).rstrip() == plain
    assert sys.stdout is out and sys.stderr is err


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_json_keeps_every_name(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Kills: a question mark in the name of a file, or JSON that nobody can read, where a terminal lacks a letter or
    a name is no UTF-8."""
    names = {"file": "λ₀-größe", "bytes": os.fsdecode(b"\xff\xfe.png")}
    out = _terminal(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    with streams.steady(), Output(True) as output:
        output.result(names, "")
    assert json.loads(_written(out)) == names


def test_bytes_of_a_name_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: an error for a file name that is not UTF-8, on a terminal that is."""
    monkeypatch.setattr(sys, "stdout", out := _terminal("utf-8"))
    with streams.steady():
        streams.told(os.fsdecode(b"a\xffb"))
    assert _written(out) == b"a\\xffb\n"


class _Gone(io.StringIO):
    """A stream whose other end is lost."""

    def __init__(self, error: type[OSError] = BrokenPipeError):
        super().__init__()
        self.error, self.asked = error, 0

    def write(self, text: str) -> int:
        self.asked += 1
        raise self.error(5, "gone")

    def flush(self) -> None:
        raise self.error(5, "gone")


def test_a_lost_terminal_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: training that ends, with exit code 0, because the reader of its progress has gone or its disk is full."""
    monkeypatch.setattr(sys, "stderr", lost := _Gone())
    done = []
    with streams.steady(), Output(False) as output:
        output.say("half way")
        print("warning", file=sys.stderr, flush=True)
        output.note(1, 2, "reading")
        done.append("training")
    assert done == ["training"] and lost.asked > 0


def test_a_result_that_cannot_be_printed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: exit code 0 for a result that went nowhere, and an error for `| head`, which has seen enough."""
    monkeypatch.setattr(streams, "nowhere", lambda: None)
    monkeypatch.setattr(sys, "stdout", _Gone(OSError))
    with pytest.raises(UserError, match=r"the result could not be printed \(gone\)"):
        streams.told("0.3")
    monkeypatch.setattr(sys, "stdout", _Gone())
    streams.told("0.3")


def test_a_run_with_closed_streams(tiny_source: Path, tmp_path: Path) -> None:
    """The real process without standard input, output and error. Kills: a log that gets descriptor 1 or 2 and with it
    what is printed, and an error for a stream that is None."""
    words = ["train", str(tiny_source), "--preset", "tiny", "--bpp", "0.4", "--out", str(tmp_path / "run")]
    words += ["--stage1.samples", "64", "--stage2.samples", "0", "--json"]
    here = os.environ | {"PYTHONPATH": str(Path(streams.__file__).parents[2])}
    closed = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable]
    code = "with streams.steady(), open('number', 'w') as file, open('x', 'w') as x: file.write(str(x.fileno()))"
    assert (
        subprocess.run([*closed, "-c", f"from unilat.cli import streams\n{code}"], cwd=tmp_path, env=here).returncode
        == 0
    )
    assert int((tmp_path / "number").read_text()) > 2
    assert subprocess.run([*closed, "-m", "unilat", *words], cwd=tmp_path, env=here).returncode == 0
    lines = (tmp_path / "run" / "log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["bits"]["target"] == 0.4


def test_nobodys_home(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: a traceback for a user whom the system does not know, as in a container, with HOME unset."""
    for name in ("HOME", "UNILAT_CACHE", "USERPROFILE", "HOMEDRIVE"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert main(["data", "look", "emoji"]) == 2
    assert capsys.readouterr().err == "error: there is no home folder to keep files in: name a folder in UNILAT_CACHE\n"
