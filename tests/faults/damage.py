"""Files that are not what was written: truncated, flipped, zeroed, swapped, missing; told, and survived or refused."""

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from .command import run
from .ground import Ground, Outcome, bad, chance, clean, contents, ok, silent

PAGE = 4096


def _truncate(content: bytes, random: random.Random) -> bytes:
    return content[: random.randrange(len(content))]


def _flip(content: bytes, random: random.Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def _zero(content: bytes, random: random.Random) -> bytes:
    place = PAGE * random.randrange(-(-len(content) // PAGE))
    return content[:place] + bytes(len(content[place : place + PAGE])) + content[place + PAGE :]


WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {"truncated": _truncate, "flipped": _flip, "zeroed": _zero}


def _pair(ground: Ground) -> Path:
    """A stage 1 with two whole checkpoints, of steps 4 and 5."""
    return ground.stopped(5)


def _damaged(newest: Path, kind: str, seed: int) -> str:
    """Damage one file of a checkpoint; says what was done, nothing where that changed no byte."""
    random, files = chance(kind, seed), sorted(newest.iterdir())
    path = files[seed % len(files)]
    before = path.read_bytes()
    if kind in WAYS:
        path.write_bytes(WAYS[kind](before, random))
    elif kind == "missing":
        path.unlink()
    else:  # the file of the older checkpoint in its place, or another's of the same one
        older = sorted(newest.parent.iterdir())[0]
        other = older / path.name if seed % 2 else files[(seed + 1) % len(files)]
        path.write_bytes(other.read_bytes())
    return f"{path.name} {kind}" if not path.exists() or path.read_bytes() != before else ""


def read(ground: Ground, seed: int, folder: Path, kind: str) -> Outcome:
    """The reader that every command uses falls back to the older checkpoint, whole, and says so."""
    from unilat.training import checkpoint

    shutil.copytree(_pair(ground) / "stage1", folder)
    done, told = _damaged(folder / "step-0000000005", kind, seed), list[str]()
    found = checkpoint.load(folder, warn=told.append)
    if not done:
        return ok("no byte changed")
    if found is None or found.step != 4 or not told:
        return silent(f"{done}: step {found.step if found else None} read, told {told}")
    return clean(f"{done}: {told[0].rsplit('/', 1)[-1]}")


def train(ground: Ground, seed: int, folder: Path) -> Outcome:
    """`unilat train` on a damaged newest checkpoint goes back, says so, and ends in the oracle's state; with both
    damaged it refuses to start over."""
    ground.copy(_pair(ground), folder)
    kind = ("truncated", "flipped", "zeroed", "swapped", "missing")[seed % 5]
    done = _damaged(folder / "stage1" / "step-0000000005", kind, seed // 5)
    if seed % 7 == 6:
        done = _damaged(folder / "stage1" / "step-0000000004", "truncated", seed) and done
        before = contents(folder / "stage1")
        ended = ground.train(folder)
        if ended.bad or ended.code != 2 or "no checkpoint can be read" not in ended.line:
            return bad(f"both damaged: {ended.bad or ended.line}")
        return clean(ended.line) if contents(folder / "stage1") == before else bad("what is damaged was changed")
    ended = ground.train(folder)
    found = ground.survives(folder, ended)
    if found.name == "OK" and done and "is damaged" not in ended.said:
        return silent(f"{done}, and not told")
    return clean(f"{done}: told, and the oracle's state") if found.name == "OK" and done else found


COMMANDS: dict[str, list[str]] = {
    "sample": ["sample", "RUN", "-n", "2", "--out", "OUT"],
    "reconstruct": ["reconstruct", "RUN", "DATA", "--out", "OUT"],
    "report": ["report", "RUN"],
    "evaluate": ["evaluate", "RUN"],
    "compare": ["compare", "RUN", "OTHER", "--out", "OUT/compare.html"],
    "train": [],
}


def _told(ground: Ground, name: str, folder: Path) -> tuple[int, str, str, str]:
    """Exit code and what matters of a command's words, what makes it bad, and its error line."""
    out = folder.with_suffix(".out")
    out.mkdir(exist_ok=True)
    places = {"RUN": str(folder), "OUT": str(out), "OTHER": str(ground.oracle), "DATA": str(ground.pictures)}
    words = [places.get(word, word).replace("OUT", str(out)) for word in COMMANDS[name]]
    ended = run(words or ground.words(folder), folder.with_suffix(".txt"))
    made = sorted(contents(out).values()) if name in ("sample", "reconstruct") else []
    pages = [path for path in (out / "compare.html", folder / "report.html") if name != "train" and path.is_file()]
    for page in pages:
        text = page.read_text(errors="replace").replace(str(folder), "RUN").replace(folder.name, "RUN")
        made.append(f"{page.name} {hashlib.sha256(text.encode()).hexdigest()}")
    said = ended.said.replace(str(folder), "RUN").replace(str(out), "OUT").replace(folder.name, "RUN")
    said = "\n".join(" ".join(line.split()) for line in said.splitlines())  # a table is as wide as its names
    return ended.code, "\n".join([said, *made]), ended.bad, ended.line


def sealed(ground: Ground, seed: int, folder: Path) -> Outcome:
    """One bit of one file of a finished run: whichever command comes next refuses it, tells it, or does not need it."""
    name, random = [*COMMANDS][seed % len(COMMANDS)], chance("sealed", seed)
    whole = ground.work / f"whole-{name}"
    if not whole.with_suffix(".expected").is_file():
        ground.copy(ground.oracle, whole)
        whole.with_suffix(".expected").write_text(_told(ground, name, whole)[1])
    ground.copy(ground.oracle, folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "step-" not in str(path))
    path = paths[(seed // len(COMMANDS)) % len(paths)]
    path.write_bytes(_flip(path.read_bytes(), random))
    done = f"{name}, one bit of {path.relative_to(folder)}"
    code, said, trouble, line = _told(ground, name, folder)
    if trouble:
        return bad(f"{done}: {trouble}")
    if code:
        return clean(f"{done}: {line}") if code == 2 and line.startswith("error:") else bad(f"{done}: {code} {line}")
    if said == whole.with_suffix(".expected").read_text():
        return ok(f"{done}: not needed")
    expected = set(whole.with_suffix(".expected").read_text().splitlines())
    more = [one for one in said.splitlines() if one not in expected]
    if any(path.name in one for one in more):
        return clean(f"{done}: {more[0]}")
    return silent(f"{done}: {more[:3]}")
