"""What trials stand on: tiny pictures, the uninterrupted run, runs stopped on the way, and how a folder is judged."""

import hashlib
import json
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .command import Child, Ended, describe_once, run

SHORT = (  # noqa: SIM905
    "--preset tiny --bpp 0.4 --stage1.samples 256 --stage2.samples 96 --evaluation.samples 8 --evaluation.pictures 8 "
    "--evaluation.step-counts 1 --evaluation.rate-levels 1 --evaluation.base-steps 2 --save-every 2"
).split()
STEPS, SAVE_EVERY = 11, 2
"""Steps of both stages, and steps between two saves."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial: OK, CLEAN, BAD or SILENT, and what was seen."""

    name: str
    seen: str


def ok(seen: str) -> Outcome:
    return Outcome("OK", seen)


def clean(seen: str) -> Outcome:
    return Outcome("CLEAN", seen)


def bad(seen: str) -> Outcome:
    return Outcome("BAD", seen)


def silent(seen: str) -> Outcome:
    return Outcome("SILENT", seen)


class Ground:
    """A folder to work in, with the pictures and the runs that trials copy."""

    def __init__(self, work: Path) -> None:
        self.work = work
        for left in ("oracle", "trials"):
            shutil.rmtree(work / left, ignore_errors=True)
        self.pictures = work / "pictures"
        _draw(self.pictures)
        describe_once(self.words(work / "nowhere")[1:-2])
        self.oracle = work / "oracle"
        ended = run(self.words(self.oracle), work / "oracle.txt")
        if ended.code or ended.steps != STEPS:
            raise SystemExit(f"the uninterrupted run ended with {ended.code} after {ended.steps} steps: {ended.said}")
        self.seconds, self.state = ended.work, state_of(self.oracle)

    def words(self, folder: Path, *more: str) -> list[str]:
        """The command that trains in ``folder``."""
        return ["train", str(self.pictures), *SHORT, *more, "--out", str(folder)]

    def stopped(self, steps: int) -> Path:
        """A run stopped by SIGUSR1 after so many steps; made once."""
        folder = self.work / f"stopped-{steps}"
        if not folder.is_dir():
            ended = run(self.words(folder), self.work / "stopped.txt", stopping(steps))
            assert ended.code == 128 + signal.SIGUSR1 and ended.steps == steps, ended.said
        return folder

    def train(
        self, folder: Path, plant: Callable[[], Any] | None = None, when: Callable[[Child], bool] | None = None
    ) -> Ended:
        """Train in ``folder``, killed when ``when`` holds."""
        return run(self.words(folder), folder.with_suffix(".txt"), plant, when)

    def copy(self, source: Path, folder: Path) -> Path:
        """``folder``, now as ``source``."""
        shutil.copytree(source, folder, symlinks=True)
        return folder

    def goes_on(self, folder: Path, told: str = "") -> Outcome:
        """Train on without the fault: OK where that ends in the oracle's state, CLEAN where ``told`` says of what."""
        ended = self.train(folder)
        if ended.bad:
            return bad(f"going on: {ended.bad}")
        if ended.code:
            return bad(f"does not go on: {ended.line}")
        if left := leftovers(folder):
            return bad(f"left behind after going on: {left}")
        if state_of(folder) != self.state:
            return silent(f"another state than the oracle's {told}")
        return clean(told) if told else ok("the oracle's state")

    def survives(self, folder: Path, ended: Ended) -> Outcome:
        """Judge a command that met a fault and was not killed: it did what it should, or said so and lost nothing."""
        if ended.bad:
            return bad(ended.bad)
        if ended.code == 0:
            if left := leftovers(folder):
                return bad(f"left behind: {left}")
            return ok("the oracle's state") if state_of(folder) == self.state else silent("exit 0, another state")
        if not ended.line.startswith("error:") or ended.code < 0:
            return bad(f"ended with {ended.code}: {ended.line}")
        if left := leftovers(folder):
            return bad(f"left behind: {left} after {ended.line}")
        return self.goes_on(folder, ended.line)


def stopping(steps: int, number: int = signal.SIGUSR1, twice: bool = False) -> Callable[[], None]:
    """Sends the process a signal when so many steps are done."""

    def plant() -> None:
        import os

        from unilat.training import engine

        inner, seen = engine.Step, [0]

        def counted(**fields: Any) -> Any:
            seen[0] += 1
            if seen[0] == steps:
                os.kill(os.getpid(), number)
                if twice:
                    os.kill(os.getpid(), signal.SIGTERM)
            return inner(**fields)

        engine.Step = counted  # pyright: ignore[reportAttributeAccessIssue]

    return plant


def state_of(folder: Path) -> str:
    """SHA-256 of all that a run is: its last checkpoints, weights, log and results, but for times and memory."""
    from unilat.files import digest, read_safetensors
    from unilat.training import checkpoint

    sha = hashlib.sha256()
    for stage in ("stage1", "prior", "stage2"):
        if found := checkpoint.load(folder / stage):
            sha.update(found.fingerprint().encode())
    for name in ("autoencoder.safetensors", "base.safetensors", "latents/train-00000.safetensors"):
        if (folder / name).is_file():
            sha.update(digest(read_safetensors(folder / name)[0]).encode())
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    results = json.loads((folder / "metrics.json").read_text())
    results["costs"].pop("phases")
    told = [[{name: one[name] for name in sorted(one) if name != "seconds"} for one in lines], results]
    sha.update(json.dumps(told, sort_keys=True).encode())
    return sha.hexdigest()


def leftovers(folder: Path) -> list[str]:
    """Temporary files and locks in a folder."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return [name for name in names if name.endswith(".part") or ".tmp-" in name or name.endswith(".lock")]


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def chance(kind: str, seed: int) -> random.Random:
    """The randomness of a trial."""
    return random.Random(f"{kind} {seed}")


def _draw(folder: Path) -> None:
    """96 grey pictures of 16 × 16 in two classes, bars that lie and bars that stand."""
    for index in range(96):
        picture = Image.new("L", (16, 16), 255 - index % 7)
        place, lying = index // 8, index % 2 == 0
        bar = (2, place, 14, place + 4) if lying else (place, 2, place + 4, 14)
        picture.paste(index // 2, bar)
        (folder / ("lying" if lying else "standing")).mkdir(exist_ok=True, parents=True)
        picture.save(folder / ("lying" if lying else "standing") / f"{index:02}.png")
