"""From words to a command object: tyro reads the options, the prose of the help texts is the commands' docstrings."""

import difflib
import inspect
import re
from collections.abc import Sequence

import tyro

from unilat import __version__
from unilat.cli.commands import COMMANDS, Command
from unilat.cli.helptext import MARKERS, help_text

_ROOT = """\
usage: unilat COMMAND ...

Latents for diffusion models with a bit budget: name the bits per pixel, get an autoencoder
whose latents carry them, and a diffusion model trained on these latents.

    unilat train photos/ --target-bpp 0.2  a folder of pictures in, a run folder out
    unilat sample runs/photos -n 64        new pictures from it

Commands
{commands}

`unilat COMMAND --help` explains one. Commands that report take --json: one object on standard
output, everything else on standard error. Exit codes: 0 done, 1 unexpected error or a check that
failed, 2 a mistake in the command line or the data, 130 interrupted, 143 terminated."""


def parse(words: Sequence[str]) -> Command:
    """The command that ``words`` ask for, ready to run; mistakes and ``--help`` end in SystemExit after a message."""
    name, rest = _split(words)
    _refuse_empty(rest)
    options = COMMANDS[name]
    if "--help" in rest or "-h" in rest:
        print(help_text(name, COMMANDS[name]))
        raise SystemExit(0)
    if name == "train":
        from unilat.cli.configure import parse_train

        return parse_train(rest)
    if name == "sweep":
        from unilat.cli.sweep import parse_sweep

        return parse_sweep(rest)
    return tyro.cli(options, prog=f"unilat {name}", args=rest, config=MARKERS)


def root_help() -> str:
    """What ``unilat --help`` prints."""
    lines = (f"  {name:<13}{(inspect.getdoc(command) or '').splitlines()[0]}" for name, command in COMMANDS.items())
    return _ROOT.format(commands="\n".join(lines))


def version() -> str:
    """Name and version of the package."""
    return f"unilat {__version__}"


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse an empty word, which a shell makes of a variable that is not set: as a path it is the current folder."""
    for index, word in enumerate(words):
        if not word.strip() or re.fullmatch(r"--[\w.-]+=\s*", word):
            from unilat.types import UserError

            option = word.rstrip("= ") or (words[index - 1] if index and words[index - 1].startswith("-") else "")
            raise UserError(f"{option or 'an argument'} is empty: name something, or leave it out")


def _split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command's name, of one or two words, and what follows it."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, list(words[length:])
    inner = [name.split()[1] for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if inner and (len(words) == 1 or words[1] in ("-h", "--help")):
        print("\n\n".join(help_text(f"{words[0]} {name}", COMMANDS[f"{words[0]} {name}"]) for name in inner))
        raise SystemExit(0 if len(words) > 1 else 2)
    from unilat.types import UserError

    wrong = " ".join(words[: 2 if inner else 1])
    near = difflib.get_close_matches(wrong, COMMANDS, n=1)
    hint = f"perhaps you meant `unilat {near[0]}`" if near else f"there are {', '.join(COMMANDS)}"
    raise UserError(f"no command named {wrong!r}: {hint}")
