"""The rooms of the house: who may know whom, what importing costs, and what stands in no file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unilat"
FILES = sorted(SOURCE.rglob("*.py"))
RANKS = (
    ("types",),
    ("maths", "files", "results"),
    ("nets",),
    ("models",),
    ("recipe",),
    ("signals", "metrics", "report"),
    ("training",),
    ("interop",),
    ("run",),
    ("studies",),
    ("cli", "__main__"),
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
LIGHT = ("matplotlib", "PIL", "rich", "tyro", "pydantic", "yaml", "pyarrow", "datasets", "efficientnet_lite_pytorch")


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


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
    return {name.split(".")[1] for name in _imports(path) if name.startswith("unilat.")} & RANK.keys()


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
    """Kills ``data`` importing ``metrics`` while ``metrics`` imports ``data``."""
    edges = {(_room(p), room) for p in FILES if _room(p) in RANK for room in _rooms_known_to(p) if room != _room(p)}
    circles = {edge for edge in edges if edge[::-1] in edges}
    assert not circles


def test_maths_needs_torch_alone():
    """maths/ imports torch, the standard library and annotations, and holds no module with weights."""
    allowed = {"torch", "jaxtyping", "unilat"} | set(sys.stdlib_module_names)
    for path in (SOURCE / "maths").glob("*.py"):
        names = _imports(path)
        assert {name.split(".")[0] for name in names} <= allowed, path
        assert not any(name.startswith("torch.nn") for name in names if not name.startswith("torch.nn.functional")), (
            path
        )


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
    """torch.distributed is known to one file, by its path. Kills: another room's ``engine.py``, and
    ``torch.distributed.barrier()`` after a plain ``import torch``."""
    known = [p.relative_to(SOURCE).as_posix() for p in FILES if _reaches(p.read_text("utf-8"), "torch.distributed")]
    assert known == ["training/parallel.py"]


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


def test_there_is_no_drawer():
    """No file called utils, helpers, common or misc."""
    assert not [path for path in FILES if path.stem in ("utils", "util", "helpers", "common", "misc")]
