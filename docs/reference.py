"""The reference as pages: signatures and docstrings as they stand in the source, read by ``ast`` and never imported, so
that the site is built without torch. Used by site.py; standard library only."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Page:
    """One page: some modules whole, or some names of theirs."""

    path: str
    """Where it lies on the site."""
    title: str
    """Its heading."""
    parts: tuple[tuple[str, tuple[str, ...] | None], ...]
    """(module under ``src/unilat`` without ``.py``, names of it or None for all public ones)."""
    says: str = ""
    """A sentence under the heading; empty where the module has one of its own."""


def pages(source: Path) -> list[Page]:
    """All pages of the reference, the public names of ``unilat`` first."""
    public = tuple((home, (name,)) for name, home in homes(source).items())
    both = (("recipe/config", ("RunConfig",)), ("recipe/parts", None))
    parts = (*both, ("models/autoencoder", ("AutoencoderConfig",)), ("models/base", ("BaseConfig",)))
    maths = sorted(path.stem for path in (source / "maths").glob("*.py") if path.stem != "__init__")
    return [
        Page("reference/unilat.md", "unilat", public, "What `import unilat` offers."),
        Page("reference/results.md", "Results", (("results", None),)),
        Page("reference/configuration.md", "Configuration", parts, "Every field is an option of `unilat train`."),
        Page("reference/autoencoder.md", "Autoencoder", (("models/autoencoder", ("Stage1Losses", "Autoencoder")),)),
        Page("reference/control.md", "Control of the bits", (("models/control", None),)),
        Page("reference/types.md", "Axes, units, noise", (("types", None),)),
        *(Page(f"reference/maths-{name}.md", f"maths.{name}", ((f"maths/{name}", None),)) for name in maths),
    ]


def homes(source: Path) -> dict[str, str]:
    """Of each public name of ``unilat`` the module that it is defined in, as ``run/begin``."""
    for node in ast.parse((source / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return {name: home.replace(".", "/") for name, home in ast.literal_eval(node.value).items()}
    raise LookupError("unilat/__init__.py has no _HOMES")


def text(page: Page, source: Path) -> str:
    """The page's Markdown."""
    lines = [f"# {page.title}", ""]
    if page.says:
        lines += [page.says, ""]
    for module, names in page.parts:
        path = source / f"{module}.py"
        code = path.read_text(encoding="utf-8")
        tree = ast.parse(code)
        if names is None and not page.says:
            lines += [prose(ast.get_docstring(tree) or ""), "", f"In [{module}.py](../../src/unilat/{module}.py).", ""]
        for node in _public(tree, names):
            lines += _entry(node, code)
            if names is not None:
                lines += [f"In [{module}.py](../../src/unilat/{module}.py).", ""]
        if names is None:
            lines += _constants(tree)
    return "\n".join(lines).rstrip() + "\n"


def _public(tree: ast.Module, names: tuple[str, ...] | None) -> list[Definition]:
    every = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    if names is None:
        return [node for node in every if not node.name.startswith("_")]
    return [node for name in names for node in every if node.name == name]


def _entry(node: Definition, code: str, level: int = 2, owner: str = "") -> list[str]:
    """A definition: heading, signature, docstring; of a class its fields and methods."""
    lines = [f"{'#' * level} {owner}{node.name}", "", "```python", _signature(node), "```", ""]
    lines += [prose(ast.get_docstring(node) or ""), ""]
    if isinstance(node, ast.ClassDef):
        lines += _fields(node)
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method):
                lines += _entry(method, code, level + 1, f"{node.name}.")
    return lines


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    before = "".join(f"@{ast.unparse(one)}\n" for one in node.decorator_list if ast.unparse(one) == "property")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    whole = f"{before}def {node.name}({ast.unparse(node.args)}){returns}"
    if len(whole) <= 88:
        return whole
    return f"{before}def {node.name}(\n    " + ",\n    ".join(_arguments(node.args)) + f",\n){returns}"


def _arguments(args: ast.arguments) -> list[str]:
    """Each argument as it is written."""
    placed = [*args.posonlyargs, *args.args]
    values: list[ast.expr | None] = [None] * (len(placed) - len(args.defaults)) + list(args.defaults)
    found = [_argument(one, value) for one, value in zip(placed, values, strict=True)]
    if args.posonlyargs:
        found.insert(len(args.posonlyargs), "/")
    if args.vararg:
        found.append("*" + _argument(args.vararg, None))
    elif args.kwonlyargs:
        found.append("*")
    found += [_argument(one, value) for one, value in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return found + (["**" + _argument(args.kwarg, None)] if args.kwarg else [])


def _argument(one: ast.arg, value: ast.expr | None) -> str:
    kind = f": {ast.unparse(one.annotation)}" if one.annotation else ""
    if value is None:
        return one.arg + kind
    return f"{one.arg}{kind}{' = ' if kind else '='}{ast.unparse(value)}"


def _told(body: list[ast.stmt]) -> list[tuple[ast.Assign | ast.AnnAssign, str]]:
    """Assignments that a string follows, which says what they are."""
    pairs = zip(body, body[1:], strict=False)
    return [
        (one, after.value.value)
        for one, after in pairs
        if isinstance(one, ast.Assign | ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    ]


def _fields(node: ast.ClassDef) -> list[str]:
    """Two columns, so that a phone shows them: the field as it is written, and what it is."""
    rows = [(one, says) for one, says in _told(node.body) if isinstance(one, ast.AnnAssign)]
    if not rows:
        return []
    lines = ["| field | what |", "|---|---|"]
    for one, says in rows:
        value = "" if one.value is None else f" = {_default(ast.unparse(one.value))}"
        written = f"`{ast.unparse(one.target)}: {ast.unparse(one.annotation)}{value}`"
        lines.append(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in (written, plain(" ".join(says.split())))) + " |"
        )
    return [*lines, ""]


def _default(value: str) -> str:
    """``field(default_factory=DataConfig)`` as ``DataConfig()``."""
    factory = re.fullmatch(r"(?:dataclasses\.)?field\(default_factory=([\w.]+)\)", value)
    return f"{factory[1]}()" if factory else value


def _constants(tree: ast.Module) -> list[str]:
    found = []
    for one, says in _told(tree.body):
        name = ast.unparse(one.targets[0] if isinstance(one, ast.Assign) else one.target)
        if not name.startswith("_") and one.value is not None:
            found += [f"- `{name} = {ast.unparse(one.value)}`: {plain(' '.join(says.split()))}"]
    return ["## Constants and types", "", *found, ""] if found else []


def plain(words: str) -> str:
    """reStructuredText's marks as Markdown's: ````x```` and ``:func:`x``` become code."""
    words = re.sub(r":\w+:`~?([^`]+)`", lambda found: f"`{found[1].rsplit('.', 1)[-1]}`", words)
    return words.replace("``", "`")


def prose(docstring: str) -> str:
    """A docstring as Markdown; a paragraph with indented lines of its own is shown as it is set."""
    parts: list[str] = []
    for part in re.split(r"\n\s*\n", docstring.strip()):
        lines = part.rstrip().splitlines()
        if part.strip() == "::":
            continue
        if not lines or not any(line.startswith((" ", ">>>")) for line in lines):
            parts.append(plain(part))
        else:
            cut = min(len(line) - len(line.lstrip()) for line in lines)
            language = "python" if ">>>" in part else "text"
            parts.append(f"```{language}\n" + "\n".join(line[cut:] for line in lines) + "\n```")
    return "\n\n".join(parts)
