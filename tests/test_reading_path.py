"""The reading path of docs/tour.md: short, and true of the code that it leads to."""

import ast
import builtins
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
PATH = [ROOT / "docs" / link for link in re.findall(r"^\d\. \[[^]]+\]\(([^)]+)\)", TOUR, flags=re.MULTILINE)]
SUBJECTS = (("autoencoder.py", "Autoencoder", "losses"), ("control.py", "RateController"))
MODULES = {"torch", "math"}


def _node(file: str, *names: str) -> ast.AST:
    (path,) = (path for path in PATH if path.name == file)
    node: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for name in names:
        (node,) = (n for n in ast.walk(node) if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name)
    return node


def _used(node: ast.AST) -> set[str]:
    """Names that a piece of code uses and does not make itself: attributes, classes and functions."""
    inner = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    local = {argument.arg for one in inner for argument in (*one.args.args, *one.args.kwonlyargs)}
    stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    loaded = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    attributes = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return (loaded - local - stored - set(dir(builtins)) - MODULES) | attributes


def _explained(text: str) -> set[str]:
    """Classes and functions with a docstring, fields with one below, and names that a docstring has in ``ticks``."""
    names = set(re.findall(r"``(\w+)``", text))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            names.add(node.name)
        body = getattr(node, "body", None)
        for one, after in zip(body, body[1:], strict=False) if isinstance(body, list) else ():
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(after, ast.Expr):
                names.add(one.target.id)
    return names


def test_the_reading_path_is_short():
    """Six files, 600 lines at most. Kills: a list that leads nowhere, a file that grows without the path noticing."""
    assert len(PATH) == 6 and all(path.is_file() for path in PATH)
    assert {f"{path.parent.name}/{path.name}" for path in PATH} >= {"maths/noise.py", "models/control.py"}
    assert sum(path.read_text(encoding="utf-8").count("\n") for path in PATH) <= 600


def test_what_the_loss_and_the_controller_use_is_explained():
    """Every name they use stands with an explanation in one of the six files or has a line in the tour. Kills: a loss
    that leans on something the path never shows."""
    used = set().union(*(_used(_node(*subject)) for subject in SUBJECTS))
    assert {"posterior", "log_ratio", "strata", "up_to"} <= used
    lines = {
        name for line in re.findall(r"^- (`.*)$", TOUR, flags=re.MULTILINE) for name in re.findall(r"`(\w+)`", line)
    }
    known = set().union(*(_explained(path.read_text(encoding="utf-8")) for path in PATH)) | lines
    assert sorted(used - known - {"Tensor"}) == []


def test_the_tour_explains_nothing_that_is_not_used():
    """Kills: a line of the tour about a name that has gone."""
    used = set().union(*(_used(_node(*subject)) for subject in SUBJECTS))
    lines = re.findall(r"^- ((?:`\w+`(?:, )?)+)", TOUR, flags=re.MULTILINE)
    assert sorted({name for line in lines for name in re.findall(r"\w+", line)} - used) == []
