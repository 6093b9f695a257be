"""Build sdist and wheel, install the wheel into an empty environment, use it outside of the checkout: ``make wheel``.

    python tests/wheel.py FOLDER

The wheel is made from the unpacked sdist, as an index would have it. ``FOLDER/dist`` holds both. Needs a package index.
"""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def said(*words: object, cwd: Path) -> str:
    """What a command prints on standard output; its own words go on to standard error."""
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return subprocess.run([str(word) for word in words], cwd=cwd, env=plain, check=True, stdout=-1, text=True).stdout


def environment(folder: Path, *packages: object) -> Path:
    """A new environment with these packages; its folder of programs."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    said(programs / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *packages, cwd=folder)
    return programs


def build(folder: Path) -> Path:
    """The wheel, made of the sdist alone."""
    tool = environment(folder / "build", "hatchling")
    said(tool / "python", "-m", "hatchling", "build", "-t", "sdist", "-d", folder / "dist", cwd=ROOT)
    (packed,) = (folder / "dist").glob("unilat-*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (source,) = (folder / "sdist").iterdir()
    said(tool / "python", "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=source)
    (wheel,) = (folder / "dist").glob("unilat-*.whl")
    return wheel


def check(wheel: Path) -> None:
    """Every module is in it, the page of `unilat ui`, and nothing else but what says what it is."""
    sources = [*(ROOT / "src" / "unilat").rglob("*.py"), *(ROOT / "src" / "unilat" / "app").glob("page.*")]
    there = {path.relative_to(ROOT / "src").as_posix() for path in sources}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (told,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    assert names == there | {"unilat/py.typed"}, names ^ there
    for line in (
        "Requires-Python: >=3.11",
        "Description-Content-Type: text/markdown",
        "License-Expression: Apache-2.0",
    ):
        assert line in told, line


def use(programs: Path, folder: Path) -> None:
    """What a newcomer does first, in a folder that knows of no checkout."""
    folder.mkdir()
    unilat = programs / "unilat"
    assert said(unilat, "--version", cwd=folder).startswith("unilat ")
    assert "train" in said(unilat, "--help", cwd=folder)
    where = said(programs / "python", "-c", "import unilat; print(unilat.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(programs.parent), where
    said(unilat, "train", "glyphs", "--preset", "tiny", "--features", "none", "--out", "run", cwd=folder)
    said(unilat, "sample", "run", "-n", "4", "--out", "samples.png", cwd=folder)
    assert (folder / "run" / "report.html").is_file() and (folder / "samples.png").is_file()


def main(folder: Path) -> None:
    """All of it."""
    folder = folder.resolve()
    wheel = build(folder)
    check(wheel)
    use(environment(folder / "empty", wheel), folder / "elsewhere")
    print(f"{wheel}: installed into an empty environment, trained and sampled")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
