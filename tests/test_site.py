"""The docs site has every page in its navigation, every link leads somewhere, and every public name is told of."""

import ast
import importlib
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import unilat

ROOT = Path(__file__).parents[1]
ZENSICAL = shutil.which("zensical") or shutil.which("zensical", path=str(ROOT / ".venv-docs" / "bin"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gathered pages."""
    folder = tmp_path_factory.mktemp("site") / "pages"
    subprocess.run([sys.executable, ROOT / "docs" / "site.py", folder], check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """docs/reference.py."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = made  # dataclasses look for their module
    spec.loader.exec_module(made)
    return made


def _nav() -> list[str]:
    """Pages of mkdocs.yml's navigation, in their order."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    return re.findall(r"^ +- (?:[^:\n]+: )?([\w/.-]+\.md)$", text, flags=re.MULTILINE)


def _pages(site: Path) -> set[str]:
    return {path.relative_to(site).as_posix() for path in site.rglob("*.md")}


def test_every_page_is_in_the_navigation(site: Path):
    """But for pages of code, which pages of text lead to. Kills: a page that nobody finds, an entry whose page is gone,
    a page twice."""
    nav, pages = _nav(), _pages(site)
    assert len(set(nav)) == len(nav) > 60
    assert set(nav) == {page for page in pages if not page.startswith("source/")}
    assert {f"{path.stem}.md" for path in (ROOT / "docs").glob("*.md")} <= set(nav)


def test_every_link_leads_to_a_page_or_a_heading(site: Path):
    """As zensical's strict mode has it, without zensical. Kills: a link out of docs/ that is left as it was, an anchor
    of a heading that is called otherwise by now."""
    pages = _pages(site)
    for page in sorted(pages):
        text = re.sub(r"^(`{3,})[^\n]*\n.*?^\1$", "", (site / page).read_text(encoding="utf-8"), flags=re.M | re.S)
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([\w-]+))?\)", text):
            there = (site / page).parent / target if target else site / page
            assert there.is_file(), f"{page}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE)
                assert anchor in {re.sub(r"[^\w\s-]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_docs_pages_are_copied_and_not_written_twice(site: Path):
    """Kills: a page that says on the site what it does not say in the repository."""
    for path in (ROOT / "docs").glob("*.md"):
        plain = re.compile(r"\]\([^)]*\)")
        assert plain.sub("]", path.read_text("utf-8")) == plain.sub("]", (site / path.name).read_text("utf-8"))


def test_every_public_name_has_an_entry_with_its_signature_and_docstring(site: Path):
    """Kills: a name of ``unilat.__all__`` without an entry, an argument or a default that the entry leaves out."""
    text = (site / "reference" / "unilat.md").read_text(encoding="utf-8")
    entries = {part.split("\n", 1)[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}
    assert set(entries) == set(unilat.__all__)
    for name, entry in entries.items():
        thing = getattr(unilat, name)
        first = (inspect.getdoc(thing) or "").split(".")[0].split("\n")[0].replace("``", "`")
        assert first and first in entry, name
        if inspect.isfunction(thing):
            head = entry.split("```python\n")[1].split("\n```")[0].rstrip(":")
            told, real = ast.parse(f"{head}: ...").body[0], ast.parse(inspect.getsource(thing)).body[0]
            assert isinstance(told, ast.FunctionDef) and isinstance(real, ast.FunctionDef)
            assert ast.unparse(told.args) == ast.unparse(real.args), name


def test_every_function_of_the_mathematics_has_an_entry(site: Path):
    """Kills: a module of maths/ that the reference leaves out, a public function without an entry or its formula."""
    for path in (ROOT / "src" / "unilat" / "maths").glob("*.py"):
        if path.stem == "__init__":
            continue
        text = (site / "reference" / f"maths-{path.stem}.md").read_text(encoding="utf-8")
        module = importlib.import_module(f"unilat.maths.{path.stem}")
        for name, thing in vars(module).items():
            own = getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_")
            if own and (inspect.isfunction(thing) or inspect.isclass(thing)):
                assert f"\n## {name}\n" in text, f"{path.stem}.{name}"


def test_docstrings_become_markdown(reference: ModuleType):
    """Kills: reStructuredText's marks on a page, a formula that runs into the sentence before it."""
    told = (
        "Of :class:`~unilat.types.UserError` and ``x``.\n\n    R = ½ ∫\n      dλ\n\nAxes\n    B batch\n\n>>> 1 + 1\n2"
    )
    assert reference.prose(told).split("\n\n") == [
        "Of `UserError` and `x`.",
        "```text\nR = ½ ∫\n  dλ\n```",
        "```text\nAxes\n    B batch\n```",
        "```python\n>>> 1 + 1\n2\n```",
    ]


def test_signatures_are_as_written(reference: ModuleType):
    """Kills: a default beside the wrong argument, keywords that read as if they could be placed."""
    long = (
        "def work(first: int, /, second: float = 0.5, *rest: str, third: bool = True, **others: list[str]) -> None: ..."
    )
    (node,) = ast.parse(long).body
    told = reference._signature(node)
    assert told.count("\n") > 3 and ast.unparse(ast.parse(f"{told}: ...").body[0]) == ast.unparse(node)
    (node,) = ast.parse("def f(a, *, b=1): ...").body
    assert reference._signature(node) == "def f(a, *, b=1)"


@pytest.mark.skipif(ZENSICAL is None, reason="zensical is not installed: `make docs` builds the site")
def test_the_site_builds_and_asks_no_other_host(site: Path, tmp_path: Path):
    """In strict mode. Kills: a broken link, a font, a script or a picture from elsewhere, a plugin that brings one."""
    assert ZENSICAL
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    shutil.copytree(site, tmp_path / "build" / "pages")
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    done = subprocess.run([ZENSICAL, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-3000:]
    built = tmp_path / "site"
    assert len(list(built.rglob("*.html"))) > 90 and (built / "search.json").is_file()
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|iframe|link)[^>]*(?:src|href)=\"?(?:https?:)?//[^\"> ]+", text) == [], page
