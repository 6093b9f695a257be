"""Dictionaries of anything: few in the library, none where others call it."""

import ast

from test_imports import FILES, SOURCE

LOOSE = "dict[str, Any]"


def _signatures(body: list[ast.stmt]) -> list[tuple[str, ast.expr]]:
    """What the public functions of a module, and the public classes with their methods, fields and attributes, say of
    types: names without an underscore before them, and ``__init__``. A type that is given a name of its own counts too.
    """
    found: list[tuple[str, ast.expr | None]] = []
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [(f"{node.name}.{name}", one) for name, one in _signatures(node.body)]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") or node.name == "__init__":
                every = node.args
                arguments = (*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg)
                found += [(node.name, one.annotation) for one in arguments if one] + [(node.name, node.returns)]
                own = [one for one in ast.walk(node) if isinstance(one, ast.AnnAssign)]
                found += [(ast.unparse(one.target), one.annotation) for one in own if _public(one.target)]
        elif isinstance(node, ast.AnnAssign):
            found += [(ast.unparse(node.target), node.annotation)]
        elif isinstance(node, ast.Assign):
            found += [(ast.unparse(node.targets[0]), node.value)]
    return [(name, one) for name, one in found if one is not None]


def _public(target: ast.expr) -> bool:
    """Whether it is an attribute ``self.name`` that others may read."""
    return isinstance(target, ast.Attribute) and not target.attr.startswith("_")


def test_loose_signatures_are_seen():
    """Kills: the test below passing because it does not look at methods, fields, attributes, ``**``, quoted types or
    other names of the same type, or because it counts private functions."""
    source = (
        "Progress = Callable[[dict[str, Any]], None]\n"
        "def f(a: 'dict[str, Any]'): pass\n"
        "async def g(*, b) -> list[dict[str, Any]]: pass\n"
        "def h(**c: dict[str, Any]): pass\n"
        "def _i(a: dict[str, Any]) -> dict[str, Any]: inner: dict[str, Any] = {}\n"
        "class A:\n"
        "    x: dict[str, Any] | None = None\n"
        "    def __init__(self, d: dict[str, Any]):\n"
        "        self.y: dict[str, Any] = d\n"
        "        self._z: dict[str, Any] = d\n"
        "    def m(self) -> dict[str, Any]: pass\n"
        "class _B:\n"
        "    x: dict[str, Any]\n"
        "def fine(a: dict[str, object], b: Mapping[str, float]) -> None: rows: dict[str, Any] = {}\n"
    )
    loose = [name for name, one in _signatures(ast.parse(source).body) if LOOSE in ast.unparse(one)]
    assert loose == ["Progress", "f", "g", "h", "A.x", "A.__init__", "A.self.y", "A.m"]


def test_no_public_signature_has_a_dictionary_of_anything():
    """Kills: a result, a record or a setting under string keys, where a dataclass would name what is in it."""
    loose = [
        f"{path.relative_to(SOURCE)}: {name}"
        for path in FILES
        for name, one in _signatures(ast.parse(path.read_text(encoding="utf-8")).body)
        if LOOSE in ast.unparse(one)
    ]
    assert not loose


def test_dictionaries_of_anything_are_few():
    """At most 25 times in all of the source. Kills: what travels inside a room under string keys."""
    assert sum(path.read_text(encoding="utf-8").count(LOOSE) for path in FILES) <= 25
