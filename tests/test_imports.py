"""The rooms of the house: who may know whom, what importing costs, and what stands in no file."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unilat.run.folder import RunFolder

SOURCE = Path(__file__).parents[1] / "src" / "unilat"
FILES = sorted(SOURCE.rglob("*.py"))
RANKS = (
    ("types",),
    ("maths", "files", "fields", "results", "run.folder"),
    ("nets",),
    ("models",),
    ("recipe",),
    ("signals", "metrics", "report"),
    ("training",),
    ("run",),
    ("interop",),
    ("studies",),
    ("app",),
    ("cli", "__main__"),
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
LIGHT = ("matplotlib", "PIL", "rich", "tyro", "pydantic", "yaml", "pyarrow", "datasets", "efficientnet_lite_pytorch")


def _room(path: Path) -> str:
    return _room_of(path.relative_to(SOURCE).with_suffix("").as_posix().split("/"))


def _room_of(parts: list[str]) -> str:
    """The first part; but names and seal of a run's files are known to those that read them, below who writes them."""
    return "run.folder" if parts[0] == "run" and parts[1:2] in (["folder"], ["seal"]) else parts[0]


def _imports(path: Path) -> set[str]:
    """Full names of all a file imports, wherever the statement stands; ``from a import b`` gives ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the direction"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _rooms_known_to(path: Path) -> set[str]:
    return {_room_of(name.split(".")[1:]) for name in _imports(path) if name.startswith("unilat.")} & RANK.keys()


def test_every_room_has_a_rank():
    """A new room must say where it stands, or the direction test would pass it by."""
    assert {_room(path) for path in FILES} - {"__init__"} <= RANK.keys()


@pytest.mark.parametrize(
    "path", [path for path in FILES if _room(path) in RANK], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_imports_point_one_way(path: Path):
    """Kills an import of a room above, also one inside a function, where Python itself would not complain."""
    own = _room(path)
    above = {room for room in _rooms_known_to(path) if RANK[room] > RANK[own]}
    assert not above, f"{path.name} of {own} must not know {above}"


def test_rooms_of_one_rank_are_no_circle():
    """Kills ``signals`` importing ``metrics`` while ``metrics`` imports ``signals``."""
    edges = {(_room(p), room) for p in FILES if _room(p) in RANK for room in _rooms_known_to(p) if room != _room(p)}
    circles = {edge for edge in edges if edge[::-1] in edges}
    assert not circles


def test_one_file_spells_the_names_of_a_runs_files():
    """Kills: a name of a file of a run written anywhere else where runs are read or written, alone or in a path."""
    folder = RunFolder(Path())
    every = [value for value in vars(RunFolder).values() if hasattr(value, "name")]
    names = {one.name for one in every if "." in one.name} | {folder.few_steps("").name.split("-")[0] + "-"}
    assert len(names) == 14
    for path in FILES:
        if _room(path) not in ("run", "studies", "report", "cli"):
            continue
        spelt = {
            name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
            for name in names
            if name in node.value
        }
        assert not spelt, f"{path.relative_to(SOURCE)} spells {spelt}: ask run/folder.py"


def _file_graph() -> dict[str, set[str]]:
    """Each file with the files that it imports, also where a function or a type checker alone does."""
    names = {".".join(("unilat", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in FILES}
    places = {name.removesuffix(".__init__"): path.relative_to(SOURCE).as_posix() for name, path in names.items()}
    graph = {}
    for path in FILES:
        own = path.relative_to(SOURCE).as_posix()
        known = {places.get(name) or places.get(name.rpartition(".")[0]) for name in _imports(path)}
        graph[own] = {place for place in known if place and place != own}
    return graph


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found, open_ends = set[str](), list(graph[start])
    while open_ends:
        place = open_ends.pop()
        if place not in found:
            found.add(place)
            open_ends += graph[place]
    return found


def _circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The largest sets of files of which each reaches each."""
    reached = {place: _reachable(graph, place) for place in graph}
    return {frozenset(other for other in reached[one] if one in reached[other]) for one in graph if one in reached[one]}


def test_circles_are_seen():
    """Kills: the test below passing because its search finds nothing; a circle of three told as pairs."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}
    assert _circles(graph) == {frozenset("abc")} and _circles({"a": {"b"}, "b": set()}) == set()


def test_no_file_knows_a_file_that_knows_it():
    """Kills a circle between files, inside a room too, and one for the type checker alone."""
    assert _circles(_file_graph()) == set()


def test_the_house_is_small():
    """At most 18 rooms, counting files that stand alone, and 98 pairs of rooms of which one imports the other; the two
    doors are no rooms. Kills: a corridor between rooms that had none, a room too many."""
    doors = {"__init__", "__main__"}
    pairs = {(_room(SOURCE / one), _room(SOURCE / other)) for one, known in _file_graph().items() for other in known}
    assert len({_room(path) for path in FILES} - doors) <= 18
    assert len({pair for pair in pairs if pair[0] != pair[1] and not doors & {*pair}}) <= 98


def test_maths_needs_torch_alone():
    """maths/ imports torch, the standard library and annotations, and holds no module with weights."""
    allowed = {"torch", "jaxtyping", "unilat"} | set(sys.stdlib_module_names)
    for path in (SOURCE / "maths").glob("*.py"):
        names = _imports(path)
        assert {name.split(".")[0] for name in names} <= allowed, path
        assert not any(name.startswith("torch.nn") for name in names if not name.startswith("torch.nn.functional")), (
            path
        )


def test_training_knows_a_stage_and_no_model():
    """training/ imports maths, nets, files and types alone. Kills: an engine that builds, reads or draws pictures."""
    known = {room for path in (SOURCE / "training").glob("*.py") for room in _rooms_known_to(path)}
    assert known <= {"training", "maths", "nets", "files", "types"}


def _reaches(text: str, module: str) -> bool:
    """Whether a source knows ``package.module``: imports it, names it from its package under any alias, or writes its
    whole name as a text that is not a docstring."""
    package, _, inner = module.partition(".")
    tree = ast.parse(text)
    aliases = {package}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname for alias in node.names if alias.name == package and alias.asname}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [module] if node.value.id in aliases and node.attr == inner else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if " " not in node.value else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and len(node.args) > 1:
            owner, name = (ast.unparse(one) for one in node.args[:2])
            names = [module] if owner in aliases and name == repr(inner) else []
        if any(name == module or name.startswith(f"{module}.") for name in names):
            return True
    return False


@pytest.mark.parametrize(
    ("text", "reaches"),
    [
        ("import torch.distributed as dist", True),
        ("from torch import distributed", True),
        ("from torch.distributed.optim import ZeroRedundancyOptimizer", True),
        ("def f():\n    import torch\n    torch.distributed.barrier()", True),
        ("import torch as t\nt.distributed.barrier()", True),
        ("import torch\ngetattr(torch, 'distributed').barrier()", True),
        ("import importlib\nimportlib.import_module('torch.distributed')", True),
        ("import torch\ntorch.distributions.Normal(0, 1)", False),
        ('"""Nothing here knows torch.distributed."""\nimport torch\nself.distributed = 1', False),
    ],
)
def test_what_reaches_a_module_is_seen(text: str, reaches: bool):
    """Kills: the tests below going by import statements alone, though ``import torch`` brings all of torch along."""
    assert _reaches(text, "torch.distributed") == reaches


def test_only_the_engine_knows_distributed():
    """torch.distributed is known to two files, by their paths. Kills: another room's ``engine.py``, and
    ``torch.distributed.barrier()`` after a plain ``import torch``."""
    known = [p.relative_to(SOURCE).as_posix() for p in FILES if _reaches(p.read_text("utf-8"), "torch.distributed")]
    assert known == ["training/parallel.py", "training/sharded.py"]


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import unilat", LIGHT),
        ("import unilat.cli", ("torch", "numpy", *(name for name in LIGHT if name != "tyro"))),
        ("from unilat.cli import main; main(['--help'])", ("torch", "numpy", "rich", "pydantic")),
        ("from unilat.cli import main; main(['sample', '--help'])", ("torch", "numpy", "rich", "pydantic")),
    ],
)
def test_importing_touches_nothing_heavy(statement: str, forbidden: tuple[str, ...]):
    """Kills a top-level import of a heavy or optional package on the way of ``import unilat`` or of help."""
    code = f"import sys\n{statement}\nprint(*sorted(set({forbidden!r}) & set(sys.modules)), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr.strip() == ""


def test_importing_writes_nothing(tmp_path: Path):
    """Kills logging, caching or mkdir at import: home and working folder stay empty."""
    modules = ", ".join(
        "unilat." + ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.name not in ("__main__.py",) and path != SOURCE / "__init__.py"
    )
    environment = {"PATH": "", "HOME": str(tmp_path), "MPLCONFIGDIR": "/nonexistent", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(SOURCE.parent)
    command = [sys.executable, "-B", "-c", f"import {modules}"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120, capture_output=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_code_from_data(path: Path):
    """No pickle, no eval or exec, no unsafe yaml, no torch.load that would run code: in no file of the library."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {name.split(".")[0] for name in _imports(path)}
    assert not modules & {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__"), f"line {node.lineno}"
        for keyword in node.keywords:
            unsafe = keyword.arg in ("weights_only", "allow_pickle")
            safe = isinstance(keyword.value, ast.Constant) and keyword.value.value is (keyword.arg == "weights_only")
            assert not unsafe or safe, f"line {node.lineno}: {keyword.arg}"
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "torch.load":
            assert any(keyword.arg == "weights_only" for keyword in node.keywords), f"line {node.lineno}"
        if isinstance(node.func, ast.Attribute):
            assert ast.unparse(node.func) not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_end(path: Path):
    """Files end before 400 lines, functions before 60."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name}, line {node.lineno}"


def _calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def test_one_place_writes_a_png():
    """Kills: Pillow's or another writer of PNG beside ``Image.png``, where a second kind of signal would be forgotten;
    pictures made of arrays outside the room that reads them."""
    writers = [
        path.relative_to(SOURCE).as_posix()
        for path in FILES
        for call in _calls(path)
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("save", "savefig")
        and "png" in ast.unparse(call).lower()
    ]
    assert writers == ["signals/kind.py"]
    made = {_room(path) for path in FILES if "fromarray" in path.read_text(encoding="utf-8")}
    assert made == {"signals"}


def test_the_kind_alone_knows_its_range():
    """``to_unit`` and ``to_bytes`` are the kind's: others ask it. Kills: a range spelt where a sound would pass."""
    for path in FILES:
        if _room(path) != "signals":
            assert not {name for name in _imports(path) if name.rpartition(".")[2] in ("to_unit", "to_bytes")}, path


def test_messages_name_fields_and_no_options():
    """Outside cli/ no text that a user may read speaks of ``--options``, which Python does not have: it names the field
    or, in backticks, the argument; ``cli/naming.py`` tells the option. Kills: one that does, in an error or a note."""
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        for node in texts if _room(path) != "cli" and path.name != "style.py" else []:
            plain = re.sub(r"pip install[^,:;(]*|var\(--", "", str(node.value))
            spoken = " " in plain and id(node) not in docstrings
            assert not (spoken and re.search(r"(?<![\w-])--[a-z]", plain)), f"{path}:{node.lineno}: {node.value}"


def test_there_is_no_drawer():
    """No file called utils, helpers, common or misc."""
    assert not [path for path in FILES if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_every_module_imports_where_the_system_is_no_posix():
    """Data and training import on Windows and macOS: modules that only Linux or only POSIX have are taken away. Kills:
    ``import fcntl`` or ``import resource`` at the top of a file."""
    names = sorted(
        ".".join(("unilat", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if path.name != "__main__.py"
    )
    code = (
        "import importlib, sys\n"
        "for gone in ('fcntl', 'resource'):\n    sys.modules[gone] = None\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        "from unilat.training.machine import peak_memory\n"
        "from pathlib import Path\n"
        "Path.is_file = lambda path: False\n"
        "print(peak_memory())"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-B", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (run.returncode, run.stdout) == (0, "0.0\n"), run.stderr
