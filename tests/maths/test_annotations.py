import subprocess
import sys

PROGRAM = """
import importlib, sys, torch
import unilat.maths.denoising, unilat.maths.frechet, unilat.maths.guidance, unilat.maths.oracle, unilat.maths.samplers
from unilat.maths import noise
assert "beartype" not in sys.modules, "the library imports beartype"
arguments = torch.zeros(3, 2), torch.zeros(3, 1), torch.zeros(3)
noise.diffuse(*arguments)
import jaxtyping
with jaxtyping.install_import_hook("unilat.maths", "beartype.beartype"):
    noise = importlib.reload(noise)
try:
    noise.diffuse(*arguments)
except jaxtyping.TypeCheckError:
    print("checked")
"""


def test_shapes_are_checked_by_the_hook_and_only_by_it():
    """Kills: an annotation without shapes; an import of the checker by the library."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout == "checked\n", done.stderr
