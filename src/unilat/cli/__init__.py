"""The command line: parse, build, call. Nothing is computed here.

`main` is the only way in. It finds the command, lets tyro read the options into the command's dataclass (`commands.py`)
and runs it. Mistakes of the user's end as one line and a documented exit code:

    0 done    1 unexpected error (UNILAT_TRACEBACK=1 shows where), or a check that failed (its result was printed)
    2 mistake in the command line or the data, or training that has diverged
    130 interrupted    143 terminated (training has saved)

`unilat --help` imports nothing beyond tyro, so it answers at once.
"""

import os
import sys
from collections.abc import Sequence

from unilat.cli import streams, waiting
from unilat.cli.parse import parse, root_help, version


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code."""
    with streams.steady():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(words: list[str]) -> int:
    try:
        if not words or words[0] in ("-h", "--help", "help", "--version"):
            print(version() if words and words[0] == "--version" else root_help(), flush=True)
            return 0 if words else 2
        waiting.choose()
        command = parse(words)
        if words[0] != "train" and _beside():
            return 0
        command.execute()
    except SystemExit as stop:  # tyro after a message of its own; training after it has saved
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print("interrupted: nothing after the last save is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `unilat ... | head`: the reader has seen enough
        streams.nowhere()
        return 0
    except Exception as error:
        return _failed(error)
    return 0


def _beside() -> bool:
    """Whether torchrun has started this process beside the one that does a command for one process, which is told."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count == "1" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    if os.environ.get("RANK") != "0":
        return True
    print(f"this command runs in one process: the others of {count} have nothing to do", file=sys.stderr)
    os.environ["WORLD_SIZE"] = "1"
    return False


def _failed(error: Exception) -> int:
    """Say on standard error, in one line, what went wrong; the exit code."""
    if os.environ.get("UNILAT_TRACEBACK") == "1":
        raise error
    from unilat.cli.naming import arguments_named, options_named
    from unilat.fields import FieldError
    from unilat.types import UserError

    text = arguments_named(" ".join(str(error).split()))
    if isinstance(error, FieldError):
        text = options_named(text)
    if isinstance(error, UserError):
        print(f"error: {text}", file=sys.stderr)
        return 2
    print(f"error: {type(error).__name__}: {text} (UNILAT_TRACEBACK=1 shows where)", file=sys.stderr)
    return 1
