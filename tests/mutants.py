"""Breaks ``unilat.maths`` one line at a time and sees the tests notice: ``make mutants``.

A mutant replaces a text that stands exactly once in its file, and names the tests that must fail for it. They are
listed in ``tests/maths/mutants/*.txt``, lines of texts marked as in a diff:

    @ maths/noise.py  test_noise.py::test_endpoints
    - return torch.sigmoid(lambda_t).sqrt()
    + return torch.sigmoid(-lambda_t).sqrt()

Each runs against a copy of ``src`` in a process forked from this one, which has torch imported. A mutant is dead if a
test FAILS; a run of tests that breaks in another way, a text not found, or tests that fail without any mutant are
errors, not deaths. Prints every survivor and ``N of N mutants died``; exit code 1 unless all did. Words on the command
line pick the mutants whose file or tests contain one of them.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent / "maths"
SOURCE = TESTS.parent.parent / "src"
SECONDS = 120
"""Longer than any test; a mutant that runs past it is stopped and told."""


class Mutant(NamedTuple):
    """One change of one file, and what must notice it."""

    file: str
    """Path under ``src/unilat``."""
    tests: tuple[str, ...]
    """``test_file.py::test_name`` under ``tests/maths``."""
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old!r} -> {self.new!r}, past {' '.join(self.tests)}"

    def problem(self, text: str) -> str:
        """Why it cannot be applied to the file's text; empty if it can."""
        count = text.count(self.old)
        return "" if count == 1 else f"its old text stands {count} times in {self.file}"


def mutants() -> list[Mutant]:
    """All of them, in the order of the files."""
    found = []
    for path in sorted((TESTS / "mutants").glob("*.txt")):
        for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
            head, *lines = block.split("\n")
            marker, file, *tests = head.split()
            if marker != "@" or not tests or any(line[:1] not in ("-", "+") for line in lines):
                raise SystemExit(f"{path}: not a mutant:\n{block}")
            old, new = ("\n".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")
            found.append(Mutant(file, tuple(tests), old, new))
    return found


def run_forked(source: Path, tests: list[str], log: Path) -> int:
    """pytest's exit code for ``tests`` with the library in ``source``; -1 if they ran past their time."""
    child = os.fork()
    if child == 0:
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.path.insert(0, str(source))
        import pytest

        options = [
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            f"--rootdir={TESTS}",
            f"--confcutdir={TESTS}",
        ]
        os._exit(int(pytest.main([*options, *(f"{TESTS}/{test}" for test in tests)])))
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def warm_up() -> None:
    """Import once what every forked run would import again: 2 seconds for torch, as many for its jvp."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True  # two mutants of equal size within a second would share a .pyc
    import jaxtyping  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    one = torch.ones(1)
    torch.func.jvp(torch.nn.functional.softplus, (one,), (one,))


def main(words: list[str]) -> int:
    """Run the mutants that ``words`` pick, all without any; the exit code."""
    chosen = [one for one in mutants() if not words or any(word in " ".join((one.file, *one.tests)) for word in words)]
    started = time.monotonic()
    warm_up()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        source, log = Path(folder) / "src", Path(folder) / "log.txt"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
        if run_forked(source, sorted({test for one in chosen for test in one.tests}), log) != 0:
            print(f"{log.read_text()[-3000:]}\nthese tests fail without any mutant")
            return 1
        for one in chosen:
            path = source / "unilat" / one.file
            text = path.read_text(encoding="utf-8")
            if one.problem(text):
                failures.append(f"error: {one}: {one.problem(text)}")
                continue
            path.write_text(text.replace(one.old, one.new), encoding="utf-8")
            code = run_forked(source, list(one.tests), log)
            path.write_text(text, encoding="utf-8")
            if code == 0:
                failures.append(f"survived: {one}")
            elif code != 1:
                failures.append(f"error: {one}: pytest ended with {code}\n{log.read_text()[-1500:]}")
    for line in failures:
        print(line)
    print(f"{len(chosen) - len(failures)} of {len(chosen)} mutants died ({time.monotonic() - started:.0f} s)")
    return 1 if failures or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
