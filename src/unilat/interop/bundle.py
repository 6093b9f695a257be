"""One Python file out of ours that needs no ``unilat``: the definitions that a file reaches, and no others.

    bundle("interop/published/vae.py")   its own text, and before it every function, class and constant of ours it uses

Texts are taken as they stand, so what is published is what is tested here. Names keep their meaning: two definitions of
one name are an error, not a choice. Nothing of a user's gets into it.
"""

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PLAIN = "interop/published/plain.py"
STAND_INS = {("einops", "rearrange"): _PLAIN, ("unilat.nets.products", "Linear"): _PLAIN}
"""What published code takes from elsewhere: einops may not be there, and oneDNN's linear map registers an operator."""
_ANNOTATIONS = (
    (r'(?:Float|Shaped)\[Tensor, "[^"]*"\]', "Tensor"),
    (r"\bDenoiser\[[^\]]+\]", "Callable[..., Tensor]"),
)
"""jaxtyping's shapes, and the type of a denoiser, which has the name of a class."""
_EVERYWHERE = {"Callable": ("collections.abc", "Callable")}


@dataclass(frozen=True)
class _Place:
    """A name at the top of one of our files."""

    file: str
    name: str


@dataclass(frozen=True)
class _Statement:
    """A definition as it is written, and the names that it uses."""

    first: int
    text: str
    uses: frozenset[str]


class _File:
    """What stands at the top of one of our files."""

    def __init__(self, path: Path):
        text = path.read_text(encoding="utf-8")
        for pattern, plain in _ANNOTATIONS:
            text = re.sub(pattern, plain, text)
        tree, lines = ast.parse(text), text.splitlines()
        self.about = ast.get_docstring(tree) or ""
        self.imported: dict[str, tuple[str, str]] = {}
        self.defined: dict[str, _Statement] = {}
        for index, node in enumerate(tree.body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                self.imported |= {one.asname or one.name: (module, one.name) for one in node.names}
                continue
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            after = tree.body[index + 1] if index + 1 < len(tree.body) else None
            documented = isinstance(node, ast.Assign | ast.AnnAssign) and _is_text(after)
            last = after.end_lineno if documented and after else node.end_lineno
            uses = frozenset(one.id for one in ast.walk(node) if isinstance(one, ast.Name))
            statement = _Statement(first, "\n".join(lines[first - 1 : last]), uses)
            self.defined |= dict.fromkeys(_names(node), statement)


@functools.cache
def _read(path: Path) -> _File:
    return _File(path)


def bundle(entry: str, needs: str) -> str:
    """The text of ``entry``, a path below ``src/unilat``, with all that it uses of ours; ``needs``: what it is told to
    need. Raises :class:`ValueError` where two definitions have one name, or one has two.
    """
    files: dict[str, _File] = {}
    taken: dict[str, _Place] = {}
    external: dict[str, tuple[str, str]] = {}

    def known(file: str) -> _File:
        if file not in files:
            files[file] = _read(ROOT / file)
        return files[file]

    def take(file: str, name: str) -> None:
        here = known(file)
        if name not in here.defined:
            origin = here.imported.get(name, _EVERYWHERE.get(name))
            if origin is not None:
                follow(name, *origin)
            return
        if taken.setdefault(name, _Place(file, name)) != _Place(file, name):
            raise ValueError(f"{name} is defined in {file} and in {taken[name].file}")
        if (file, name) in seen:
            return
        seen.add((file, name))
        for used in sorted(here.defined[name].uses):
            take(file, used)

    def follow(name: str, module: str, original: str) -> None:
        if _home(module, original):
            if name != original:
                raise ValueError(f"{original} of {module} is called {name} here, which one file cannot do")
            take(_home(module, original), original)
            return
        if external.setdefault(name, (module, original)) != (module, original):
            raise ValueError(f"{name} is imported from {module} and from {external[name][0]}")

    seen: set[tuple[str, str]] = set()
    for name in known(entry).defined:
        take(entry, name)
    parts = [_head(known(entry).about, needs), _imports(external)]
    for file in _ordered(entry, files):
        statements = {one.first: one.text for name, one in known(file).defined.items() if (file, name) in seen}
        title = [f"# {'-' * 8} unilat/{file}"] if statements else []
        parts += [*title, *(statements[first] for first in sorted(statements))]
    return "\n\n\n".join(parts) + "\n"


def _home(module: str, name: str) -> str:
    """The file of ours that published code takes a name from; empty where it is not ours."""
    if stand_in := STAND_INS.get((module, name)):
        return stand_in
    return module.removeprefix("unilat.").replace(".", "/") + ".py" if module.split(".")[0] == "unilat" else ""


def _ordered(entry: str, files: dict[str, _File]) -> list[str]:
    """The ``files``, each behind those that it imports."""
    order: dict[str, None] = {}

    def after(file: str) -> None:
        homes = {_home(*origin) for origin in files[file].imported.values()}
        for home in sorted(homes & files.keys() - order.keys()):
            after(home)
        order[file] = None

    after(entry)
    return list(order)


def _head(about: str, needs: str) -> str:
    licence = f"Copied out of unilat (Apache-2.0) by `unilat export`; needs {needs} alone."
    return f'"""{about}\n\n{licence}\n"""'


def _imports(external: dict[str, tuple[str, str]]) -> str:
    """The import statements, plain ones first; ``import torch.nn.functional as F`` keeps its name."""
    plain = [
        f"import {original}" + ("" if name == original else f" as {name}")
        for name, (module, original) in external.items()
        if not module
    ]
    modules: dict[str, list[str]] = {}
    for name, (module, original) in sorted(external.items()):
        if module:
            modules.setdefault(module, []).append(original + ("" if name == original else f" as {name}"))
    return "\n".join([*sorted(plain), *(f"from {one} import {', '.join(modules[one])}" for one in sorted(modules))])


def _names(node: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a file defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        yield from (one.id for one in ast.walk(target) if isinstance(one, ast.Name))


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
