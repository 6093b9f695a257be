"""The process's streams, as whatever started it has left them: a terminal that knows no ±, a pipe whose reader has
gone, a full disk, a closed descriptor. What is said there may be lost; what is being computed is not lost with it."""

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, cast

PLAIN = {"±": "+-", "×": "x", "–": "-", "—": "-", "→": "->", "·": "*", "λ": "lambda_", "≤": "<=", "≥": ">="}
"""What stands for a character that a terminal does not know; others lose their accents, or are a question mark."""
_HANDLER = "unilat.plain"


class Steady:
    """A stream whose failures are nobody's business: where nothing can be written, nothing is."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """While the context lasts no character is an error on either stream, and nothing on standard error is.

    A descriptor that is closed is opened to nowhere first: the next file would get its number, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout = sys.stdout or nowhere
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=_HANDLER)
        sys.stderr = cast(Any, Steady(sys.stderr or nowhere))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def told(text: str) -> None:
    """Print a command's answer. Raises :class:`UserError` where it cannot be written; a reader who has seen enough and
    gone (``unilat ... | head``) is no mistake."""
    try:
        print(text, flush=True)
    except OSError as error:
        nowhere()
        if not isinstance(error, BrokenPipeError):
            from unilat.types import UserError  # whoever knows it has waited for torch

            why = error.strerror or error
            raise UserError(f"the result could not be printed ({why}): send standard output elsewhere") from None


def nowhere() -> None:
    """From now on standard output goes nowhere, so that Python's last flush does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def encodable(text: str) -> bool:
    """Whether standard output has all characters of ``text``."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plainly(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(letter: str) -> str:
    """ASCII for one character; of a file name that is not UTF-8, the byte."""
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return PLAIN.get(letter) or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"


codecs.register_error(_HANDLER, _plainly)
