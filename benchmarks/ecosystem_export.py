"""What loads where: each row is a claim, and counts the tests of ``tests/interop`` that hold it, run here and now."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

try:
    from benchmarks.common import ROOT, row
except ModuleNotFoundError:  # as a script
    from common import ROOT, row

FOLDER = Path("tests") / "interop"


class Claim(NamedTuple):
    """Something that a tool takes from `unilat export`, and the tests that see it."""

    what: str
    package: str
    """Whose version is told; empty for ComfyUI, which is not installed."""
    tests: tuple[str, ...]
    slow: bool = False


CLAIMS = (
    Claim(
        "pipeline in a process without unilat: the run's pictures to 1e-3",
        "diffusers",
        (
            "test_without_us.py::test_the_same_pictures_without_us",
            "test_without_us.py::test_what_the_pipeline_is_asked",
        ),
    ),
    Claim(
        "the autoencoder alone, by AutoModel", "diffusers", ("test_without_us.py::test_the_autoencoder_loads_alone",)
    ),
    Claim(
        "pipeline in an environment of torch and diffusers alone",
        "diffusers",
        ("test_without_us.py::test_an_environment_with_torch_and_diffusers_alone",),
        slow=True,
    ),
    Claim(
        "ten kinds of run, computed by the classes that are exported",
        "diffusers",
        ("test_to_diffusers.py::test_every",),
    ),
    Claim(
        "steps of DiT training on our latents, by its classes",
        "diffusers",
        ("test_to_diffusers.py::test_their_training",),
    ),
    Claim("DiTPipeline with our autoencoder", "diffusers", ("test_to_diffusers.py::test_their_pipelines_decode",)),
    Claim("encoder, decoder and base model as graphs, to 1e-4 of torch", "onnxruntime", ("test_to_onnx.py::test_",)),
    Claim("nodes by ComfyUI's documented interface", "", ("test_to_comfyui.py::test_",)),
    Claim("latents as shards and as arrays", "safetensors", ("test_export.py::test_latents_of",)),
    Claim("push to a stand-in server", "huggingface_hub", ("test_export.py::test_the_hubs_own_client",)),
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
    files = {test.split("::")[0] for test in claim.tests}
    chosen = " or ".join(test.split("::")[1] for test in claim.tests)
    words = [sys.executable, "-m", "pytest", "-q", "-k", chosen, *(["-m", "slow"] if claim.slow else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [*words, *(str(FOLDER / file) for file in sorted(files))]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    counts = {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|error|skipped)", said)}
    return counts.get("passed", 0), sum(counts.values())


if __name__ == "__main__":
    for one in rows():
        print(f"{one['what']}: {one['value']} of {one['n']}, holds: {one['holds']}")
