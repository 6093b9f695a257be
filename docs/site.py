"""Gather the pages of the site: ``python docs/site.py FOLDER``, then ``zensical build`` (``make docs`` does both).

The pages under docs/ stay where they are and are no page twice: they are copied as they are, with links that lead out
of docs/ turned to what the site has of it: the results, the log, the code. The reference comes from docstrings
(reference.py), a page for each command from docs/help/. Standard library only.
"""

import json
import os
import posixpath
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "unilat"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
BY_NAME = {"README.md": "readme.md", "CHANGELOG.md": "changelog.md", "LOG.md": "log.md", "LICENSE": "license.md"}
BY_NAME |= {"CONTRIBUTING.md": "contributing.md", "examples": "examples/index.md", "docs/help": "commands/index.md"}
BY_NAME |= {"benchmarks/profiles": "measured/profiles.md"}
LANGUAGES = {".py": "python", ".slurm": "bash", ".toml": "toml"}


def place_of(path: str) -> str | None:
    """Where the site has a file of the repository; None where it has it not."""
    if path in BY_NAME:
        return BY_NAME[path]
    for folder, there in (("docs/help/", "commands/"), ("benchmarks/results/", "measured/"), ("docs/", "")):
        if path.startswith(folder) and path.endswith((".md", ".txt", ".png")):
            return there + path.removeprefix(folder).replace(".txt", ".md")
    if path.endswith(".ipynb"):
        return path.replace(".ipynb", ".md")
    return f"source/{path}.md" if Path(path).suffix in LANGUAGES else None


def turned(text: str, home: str, there: str, wanted: set[str]) -> str:
    """A page with its links turned from the repository to the site; what they lead to is added to ``wanted``."""

    def turn(found: re.Match[str]) -> str:
        target, mark, anchor = found[2].partition("#")
        if not target or ":" in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
        place = place_of(path)
        if place is None:
            raise SystemExit(f"error: {home} links to {target}, which the site has not")
        wanted.add(path)
        return found[1] + posixpath.relpath(place, posixpath.dirname(there) or ".") + mark + anchor + found[3]

    return LINK.sub(turn, text)


def fenced(content: str, language: str = "text") -> str:
    """A block of code, whatever is in it."""
    return f"````{language}\n{content.rstrip()}\n````\n"


def notebook(content: str) -> str:
    """A notebook's cells in their order."""
    parts = []
    for cell in json.loads(content)["cells"]:
        lines = "".join(cell["source"])
        parts.append(lines if cell["cell_type"] == "markdown" else fenced(lines, "python"))
    return "\n\n".join(parts) + "\n"


def commands(folder: Path) -> dict[str, str]:
    """A page for each help text, and their list."""
    pages, rows = {}, []
    for path in sorted(folder.glob("*.txt")):
        name = "unilat" if path.stem == "unilat" else f"unilat {path.stem.replace('-', ' ')}"
        content = path.read_text(encoding="utf-8")
        pages[f"commands/{path.stem}.md"] = f"---\nhide:\n  - toc\n---\n\n# {name}\n\n{fenced(content)}"
        first = content.split("\n\n")[1 if path.stem != "unilat" else 0].replace("\n", " ")
        if path.stem != "unilat":
            rows.append(f"| [`{name}`]({path.stem}.md) | {first} |")
    table = "\n".join(["| command | what it does |", "|---|---|", *rows])
    intro = "Each page is what `unilat COMMAND --help` prints; a test holds the two together."
    pages["commands/index.md"] = f"# Commands\n\n{intro}\n\n{table}\n\n[All in one screen](unilat.md).\n"
    return pages


def examples(folder: Path) -> str:
    """The list of scripts and notebooks, by their first lines."""
    rows = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".ipynb":
            first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()
            rows.append(f"- [{first[0].lstrip('# ')}]({path.name}): {' '.join(first[2:])}")
        elif path.suffix == ".py":
            first = path.read_text(encoding="utf-8").split('"""')[1].strip().split("\n\n")[0]
            rows.append(f"- [{path.name}]({path.name}): {' '.join(first.split())}")
    return "# Examples\n\nNotebooks and scripts under `examples/`; tests run them.\n\n" + "\n".join(rows) + "\n"


def gather(folder: Path) -> None:
    """Write every page into ``folder``, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    wanted: set[str] = set()
    written: dict[str, str] = commands(ROOT / "docs" / "help")
    homes = [path for path in BY_NAME if path.endswith(".md")]
    homes += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
    homes += [f"benchmarks/results/{path.name}" for path in sorted((ROOT / "benchmarks" / "results").glob("*.md"))]
    for home in homes:
        there = place_of(home)
        assert there is not None
        written[there] = turned((ROOT / home).read_text(encoding="utf-8"), home, there, wanted)
    texts = sorted((ROOT / "benchmarks" / "profiles").iterdir())
    profiles = [f"## {one.stem}\n\n{fenced(one.read_text(encoding='utf-8'))}" for one in texts]
    written["measured/profiles.md"] = "\n".join(["# Where a step's time goes\n", *profiles])
    written["examples/index.md"] = turned(examples(ROOT / "examples"), "examples/index.md", "examples/index.md", wanted)
    for page in reference.pages(SOURCE):
        written[page.path] = turned(reference.text(page, SOURCE), f"docs/{page.path}", page.path, wanted)
    for path in sorted(wanted):
        place = place_of(path)
        if place is not None and place.endswith(".md") and place not in written:
            written[place] = shown(path)
    for place, content in written.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    for kind in ("images", "style"):
        shutil.copytree(ROOT / "docs" / kind, folder / kind)


def shown(path: str) -> str:
    """A page for a file of code, which no search finds: what is said of it stands in the reference."""
    content = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".ipynb"):
        return notebook(content)
    head = "---\nsearch:\n  exclude: true\n---\n\n" if path != "LICENSE" else ""
    block = fenced(content, LANGUAGES.get(Path(path).suffix, "text"))
    return f"{head}# {posixpath.basename(path)}\n\n`{path}`\n\n{block}"


if __name__ == "__main__":
    os.chdir(ROOT)
    gather(Path(sys.argv[1]))
