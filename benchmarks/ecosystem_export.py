"""What loads where: each row is a claim, and counts the tests of ``tests/interop`` that hold it, run here and now."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from common import ROOT, row

FOLDER = Path("tests") / "interop"


class Claim(NamedTuple):
    """Something that a tool takes from `unilat export`, and the tests that see it."""

    what: str
    package: str
    """Whose version is told; empty for ComfyUI, which is not installed."""
    file: str
    """Of the tests."""
    tests: str
    """Which of them, as pytest's -k has it."""
    slow: bool = False


US, THEM, GRAPHS = "test_without_us.py", "test_to_diffusers.py", "test_to_onnx.py"
NODES, FILES = "test_to_comfyui.py", "test_export.py"
CLAIMS = (
    Claim("a pipeline where unilat is not: the run's pictures to 1e-3", "diffusers", US, "test_the_same or test_what"),
    Claim("an environment of torch and diffusers alone", "diffusers", US, "test_an_environment", slow=True),
    Claim("the autoencoder alone, by AutoModel", "diffusers", US, "test_the_autoencoder"),
    Claim(
        "twelve kinds of run, by the classes that are exported",
        "diffusers",
        THEM,
        "test_every_kind or test_a_distilled",
    ),
    Claim("its DiT trained on our latents, scaled as it does", "diffusers", THEM, "test_their_training"),
    Claim(
        "its DiTPipeline, and Stable Diffusion's line, with our autoencoder", "diffusers", THEM, "test_their_pipelines"
    ),
    Claim("encoder, decoder and base model within 1e-4 of torch", "onnxruntime", GRAPHS, "test_"),
    Claim("nodes, by the documented interface", "", NODES, "test_"),
    Claim("latents as shards and as arrays", "safetensors", FILES, "test_latents_of"),
    Claim("a push to a stand-in server", "huggingface_hub", FILES, "test_the_hubs"),
)


def rows() -> list[dict[str, Any]]:
    """A row for each of :data:`CLAIMS`: tests that passed, of as many as there are."""
    return [_row(claim) for claim in CLAIMS]


def _row(claim: Claim) -> dict[str, Any]:
    passed, there = _ran(claim)
    try:
        version = metadata.version(claim.package) if claim.package else ""
    except metadata.PackageNotFoundError:
        version = "not installed"
    name = f"{claim.package} {version}" if claim.package else "ComfyUI, not installed"
    return row(f"{name}: {claim.what}", passed, "tests passed", goal=max(1, there), at_least=True, n=there)


def _ran(claim: Claim) -> tuple[int, int]:
    """How many of the claim's tests passed, and how many there are; a test that is skipped has not passed."""
    slow = ["-m", "slow"] if claim.slow else []
    command = [sys.executable, "-m", "pytest", "-q", "-k", claim.tests, *slow, str(FOLDER / claim.file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    counts = {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|error|skipped)", said)}
    return counts.get("passed", 0), sum(counts.values())


if __name__ == "__main__":
    for one in rows():
        print(f"{one['what']}: {one['value']} of {one['n']}, holds: {one['holds']}")
