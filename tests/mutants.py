"""Breaks the library one line at a time and sees the tests notice: ``make mutants``.

A mutant replaces a text that stands exactly once in its file, and names the tests that must fail for it. The lists lie
beside the tests, ``tests/**/mutants/*.txt``; names of tests are relative to the folder above. Texts are marked as in a
diff:

    @ maths/noise.py  test_noise.py::test_endpoints
    - return torch.sigmoid(lambda_t).sqrt()
    + return torch.sigmoid(-lambda_t).sqrt()

A change that changes nothing is named as such, with its reason on a line of its own; its tests must pass:

    @ maths/noise.py  test_noise.py::test_endpoints
    = the square root of a positive number is positive
    - x.sqrt()
    + x.sqrt().abs()

Each runs against a copy of ``src``, in a temporary folder, in a process forked from one that has torch imported, one
worker a core. A mutant is dead if a test FAILS; a run of tests that breaks in another way, a text not found, or tests
that fail without any mutant are errors, not deaths. Prints every survivor and how many mutants died; exit code 1 unless
all did.

Words on the command line pick the mutants whose file or tests contain one of them; ``--tenth TEXT`` picks a tenth by
chance, the same for the same text (CI gives the commit); ``--times`` prints what each took; ``--lists`` takes other
lists, whose tests may be whole folders (``benchmarks/slips``).
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src"
SECONDS = 300
"""Longer than any test; a mutant that runs past it is stopped and told."""
WARM = "jaxtyping pytest torch torch._dynamo numpy einops safetensors.torch pydantic tyro rich.table PIL.Image"
"""What every forked run would import again, seconds in all."""


class Mutant(NamedTuple):
    """One change of one file, and what must notice it."""

    file: str
    """Path under ``src/unilat``."""
    tests: tuple[str, ...]
    """``folder/test_file.py::test_name`` under ``tests``."""
    old: str
    new: str
    reason: str = ""
    """Why it changes nothing; empty where it does."""

    @property
    def room(self) -> str:
        return self.file.split("/")[0].removesuffix(".py")

    def __str__(self) -> str:
        return f"{self.file}: {self.old!r} -> {self.new!r}, past {' '.join(self.tests)}"

    def problem(self, text: str) -> str:
        """Why it cannot be applied to the file's text; empty if it can."""
        count = text.count(self.old)
        return "" if count == 1 else f"its old text stands {count} times in {self.file}"


def mutants(lists: Path | None = None) -> list[Mutant]:
    """All of them, in the order of the files; those of the folder ``lists``, if it is given, name tests from here."""
    found = []
    for path in sorted(TESTS.rglob("mutants/*.txt") if lists is None else lists.glob("*.txt")):
        above = Path() if lists else path.parent.parent.relative_to(TESTS)
        for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
            head, *lines = block.split("\n")
            marker, file, *tests = head.split()
            if marker != "@" or not tests or any(line[:1] not in ("-", "+", "=") for line in lines):
                raise SystemExit(f"{path}: not a mutant:\n{block}")
            reason, old, new = ("\n".join(line[2:] for line in lines if line[0] == sign) for sign in "=-+")
            found.append(Mutant(file, tuple((above / test).as_posix() for test in tests), old, new, reason))
    return found


def run_forked(source: Path, tests: list[str], log: Path, seconds: float = SECONDS) -> int:
    """pytest's exit code for ``tests`` with the library in ``source``; -1 if they ran past their time."""
    child = os.fork()
    if child == 0:
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.path.insert(0, str(source))
        os.environ["PYTHONPATH"] = str(source)
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={TESTS}"]
        options += [f"--confcutdir={TESTS}", f"--basetemp={source.parent / 'tmp'}"]
        os._exit(int(pytest.main([*options, *(f"{TESTS}/{test}" for test in tests)])))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def warm_up() -> None:
    """Import once what every forked run would import again, and make torch's jvp do so, too."""
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    sys.dont_write_bytecode = True  # two mutants of equal size within a second would share a .pyc
    for name in WARM.split():
        __import__(name)
    import torch

    torch.set_num_threads(1)
    one = torch.ones(1)
    torch.func.jvp(torch.nn.functional.softplus, (one,), (one,))


def outcome(one: Mutant, source: Path, log: Path) -> str:
    """What is to be told of a mutant; empty if it died, or lived as it was said to."""
    path = source / "unilat" / one.file
    text = path.read_text(encoding="utf-8")
    if one.problem(text):
        return f"error: {one}: {one.problem(text)}"
    path.write_text(text.replace(one.old, one.new), encoding="utf-8")
    code = run_forked(source, list(one.tests), log)
    path.write_text(text, encoding="utf-8")
    if code not in (0, 1):
        return f"error: {one}: pytest ended with {code}\n{log.read_text()[-1500:]}"
    if (code == 1) == bool(one.reason):
        return f"{'noticed, though it should change nothing' if one.reason else 'survived'}: {one}"
    return ""


def work(chosen: list[Mutant], folder: Path, times: bool) -> None:
    """One worker: a copy of the library of its own, its outcomes as lines of JSON."""
    source, log = folder / "src", folder / "log.txt"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "outcomes.jsonl").open("w") as out:
        for one in chosen:
            start = time.monotonic()
            out.write(json.dumps(outcome(one, source, log)) + "\n")
            out.flush()
            if times:
                print(f"{time.monotonic() - start:6.1f} s  {one}", flush=True)


def untouched(files: list[str], chosen: list[Mutant], folder: Path) -> None:
    """Tests without any mutant, those of a file at once: the logs of those that fail are left in ``folder``."""
    for file in files:
        log = folder / f"{file.replace('/', '-')}.log"
        tests = sorted({test for one in chosen for test in one.tests if test.split("::")[0] == file})
        if run_forked(folder / "src", tests, log, seconds=600) == 0:  # no such folder: the library itself
            log.unlink()


def in_workers(target: Callable[..., None], jobs: list[tuple[Any, ...]]) -> None:
    """``target(*job)`` for each job in a forked process of its own, all at once."""
    children = []
    for job in jobs:
        child = os.fork()
        if child == 0:
            try:
                target(*job)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def main(words: list[str]) -> int:
    """Run the mutants that ``words`` pick; the exit code."""
    parser = argparse.ArgumentParser(description="Break the library one line at a time and see the tests notice.")
    parser.add_argument("words", nargs="*", help="only mutants whose file or tests contain one of these")
    parser.add_argument("--tenth", metavar="TEXT", help="only a tenth, chosen by this text's hash")
    parser.add_argument("--times", action="store_true", help="print how long each took")
    parser.add_argument("--lists", type=Path, metavar="FOLDER", help="take the lists of this folder instead")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(words)
    chosen = mutants(asked.lists)
    if asked.words:
        chosen = [one for one in chosen if any(word in " ".join((one.file, *one.tests)) for word in asked.words)]
    if asked.tenth:
        rank = {one: hashlib.sha256(f"{asked.tenth} {one}".encode()).digest() for one in chosen}
        chosen = sorted(chosen, key=rank.__getitem__)[: -(-len(chosen) // 10)]
    started = time.monotonic()
    warm_up()
    told: list[str] = []
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        homes = [Path(name) / f"worker{index}" for index in range(asked.workers)]
        for home in homes:
            home.mkdir()
        files = sorted({test.split("::")[0] for one in chosen for test in one.tests})
        in_workers(untouched, [(files[index :: len(homes)], chosen, home) for index, home in enumerate(homes)])
        broken = [log.read_text()[-3000:] for home in homes for log in home.glob("*.log")]
        if broken:
            print("\n".join(broken) + "\nthese tests fail without any mutant")
            return 1
        in_workers(work, [(chosen[index :: len(homes)], home, asked.times) for index, home in enumerate(homes)])
        for home in homes:
            told += [json.loads(line) for line in (home / "outcomes.jsonl").read_text().splitlines()]
    failures = [line for line in told if line]
    for line in failures:
        print(line)
    for room, of in sorted(Counter(one.room for one in chosen if not one.reason).items()):
        lived = sum(f": {room}/" in line.split(" -> ")[0] or f": {room}.py" in line for line in failures)
        print(f"  {room}: {of - lived} of {of} died")
    if len(told) < len(chosen):
        failures.append(f"error: {len(chosen) - len(told)} mutants were not tried, a worker ended early")
        print(failures[-1])
    named = sum(bool(one.reason) for one in chosen)
    died = len(chosen) - named - len(failures)
    print(f"{died} of {len(chosen) - named} mutants died, {named} change nothing ({time.monotonic() - started:.0f} s)")
    return 1 if failures or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
