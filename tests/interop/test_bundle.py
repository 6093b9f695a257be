"""One file out of many: what is published is whole, is ours, and needs what it says it needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from einops import rearrange

from unilat.interop import bundle as bundling
from unilat.interop.bundle import bundle
from unilat.interop.published import plain
from unilat.nets.layers import _MERGE

ENTRIES = {
    "vae": {"torch", "diffusers"},
    "base": {"torch", "diffusers"},
    "pipeline": {"torch", "diffusers"},
    "nodes": {"torch", "safetensors", "comfy"},
}


def _text(entry: str) -> str:
    return bundle(f"interop/published/{entry}.py", "torch")


@pytest.mark.parametrize("entry", ENTRIES)
def test_only_what_is_named_is_imported(entry: str):
    """Kills: einops, jaxtyping or unilat itself in a file for a place where they are not."""
    found = set()
    for node in ast.walk(ast.parse(_text(entry))):
        if isinstance(node, ast.Import):
            found |= {one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            found.add(node.module.split(".")[0])
    assert found - set(sys.stdlib_module_names) <= ENTRIES[entry]


def test_every_name_is_there_before_it_is_used(tmp_path: Path):
    """ruff finds no undefined, unused or doubled name, and each file but diffusers' own runs. Kills: a definition that
    was left out or stands below what needs it, an import of something that nobody uses, a stray constant."""
    for entry in ENTRIES:
        (tmp_path / f"{entry}.py").write_text(_text(entry), encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    exec(compile(_text("nodes"), str(tmp_path / "nodes.py"), "exec"), {"__name__": "alone", "__file__": "nodes.py"})


def test_what_is_not_reached_stays_at_home():
    """Kills: whole files that come along for one function of theirs, the training of a model, and operators that are
    registered under one name by every file."""
    text = _text("vae")
    assert "class Decoder(" in text and "class ViT(" not in text and "def ancestral(" not in text
    assert "custom_op" not in text and "def losses(" not in text


def test_the_order_is_that_of_the_files():
    """Kills: constants that are computed before what they are computed of, a file's statements out of their order."""
    text = _text("vae")
    files = ("maths/noise.py", "nets/layers.py", "nets/decoder.py", "interop/published/coding.py")
    places = [text.index(f"# -------- unilat/{file}") for file in files]
    assert places == sorted(places) and text.index("def alpha(") < text.index("def sigma(")


def _ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(bundling, "ROOT", tmp_path)


def test_two_things_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: the later of two functions of one name taking the place of the first, in silence."""
    entry = "from unilat.a import one\nfrom unilat.b import two\nthree = one() + two()\n"
    helper = "def _half(): return {}\ndef {}(): return _half()\n"
    _ours(tmp_path, monkeypatch, entry=entry, a=helper.format(1, "one"), b=helper.format(2, "two"))
    with pytest.raises(ValueError, match=r"_half is defined in .\.py and in .\.py"):
        bundle("entry.py", "nothing")


def test_other_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: ``from unilat.a import one as other``, whose other name nobody defines in one file."""
    entry = "from unilat.a import one as other\nthree = other()\n"
    _ours(tmp_path, monkeypatch, entry=entry, a="def one(): return 1\n")
    with pytest.raises(ValueError, match="called other here"):
        bundle("entry.py", "nothing")


def test_texts_come_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: a lost decorator, a lost text behind a constant, shapes of jaxtyping that stay, a lost import's name."""
    entry = '"""About."""\nfrom unilat.a import one\n\nthree = one(3)\n'
    helper = (
        "import functools\nimport math as m\n\nfrom jaxtyping import Float\nfrom torch import Tensor\n\n"
        'TWO = m.sqrt(4)\n"""Two."""\n\n\n@functools.cache\n'
        'def one(x: Float[Tensor, " b"]) -> float:  # as it is\n    return TWO * x\n'
    )
    _ours(tmp_path, monkeypatch, entry=entry, a=helper)
    text, names = bundle("entry.py", "torch"), dict[str, object]()
    assert text.startswith('"""About.\n\nCopied out of unilat') and 'TWO = m.sqrt(4)\n"""Two."""' in text
    assert "@functools.cache\ndef one(x: Tensor) -> float:  # as it is" in text and "jaxtyping" not in text
    exec(compile(text, "entry", "exec"), names)
    assert names["three"] == 6.0


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_stand_in_of_einops(axes: int):
    """On every pattern that published code has, both ways. Kills: axes in another order, a size of another name."""
    merged, split = _MERGE[axes].split(" -> ")
    x = torch.randn(2, 3, *(4, 6, 10)[:axes])
    sizes = dict(zip("pqr"[:axes], (2, 3, 5), strict=False))
    folded = plain.rearrange(x, f"{merged} -> {split}", **sizes)
    assert torch.equal(folded, rearrange(x, f"{merged} -> {split}", **sizes))
    assert torch.equal(plain.rearrange(folded, f"{split} -> {merged}", **sizes), x)
    tokens = torch.randn(2, 7, 24)
    for pattern, given in (("b l (n h d) -> n b h l d", {"n": 3, "h": 2}), ("b h l -> b (l h)", {})):
        assert torch.equal(plain.rearrange(tokens, pattern, **given), rearrange(tokens, pattern, **given))
