"""What a run ran on: versions, threads, processor, date and commit, for ``manifest.json``."""

import hashlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from unilat.types import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything besides configuration and data that decides the bits of a result, and when and from which commit."""

    unilat: str
    """Version, ``source`` where it is not installed."""
    torch: str
    python: str
    threads: int
    waiting: str
    """How OpenMP's threads wait for each other, as the environment says; ``default`` where it says nothing."""
    cpu: str
    flags: str
    """First 16 digits of the SHA-256 of the processor's feature flags."""
    capability: str
    """Instruction set that torch makes use of."""
    device: str
    """Name of the GPU, or ``cpu``."""
    date: str
    """ISO 8601, UTC."""
    commit: str | None
    """``+`` at its end where files differ; None outside a checkout."""


def pick_device(device: str = "auto") -> torch.device:
    """``"cpu"``, ``"cuda"`` (this process's own of them), or ``"auto"``: cuda where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                "device cuda: this machine has none, or this torch cannot use it; give device='cpu', or leave it out"
            )
        mine, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if mine >= there:
            raise UserError(
                f"process {mine + 1} of this machine has no GPU of its own: start {there}, as there are GPUs"
            )
        device = f"cuda:{mine}"
        torch.cuda.set_device(device)
    return torch.device(device)


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB; 0 where the system does not say.

    From /proc where there is one: getrusage also counts what the process that started this one had.
    """
    status = Path("/proc/self/status")
    peaks = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text("utf-8"), re.MULTILINE) if status.is_file() else []
    if peaks:
        return int(peaks[0]) / 1024
    if resource is None:
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10  # a Mac counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def manifest(device: str = "cpu") -> Manifest:
    """Of this process, here and now."""
    model, flags = _processor()
    return Manifest(
        unilat=_version("unilat"),
        torch=str(torch.__version__),
        python=platform.python_version(),
        threads=torch.get_num_threads(),
        waiting=_waiting(),
        cpu=model,
        flags=hashlib.sha256(flags.encode()).hexdigest()[:16],
        capability=torch.backends.cpu.get_cpu_capability(),
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(Path(__file__).parent),
    )


def _waiting() -> str:
    told = (f"{name}={os.environ[name]}" for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ)
    return ", ".join(told) or "default"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "source"


def _processor() -> tuple[str, str]:
    """Name and sorted feature flags of the first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), ""
    entries = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = entries.get("flags", entries.get("Features", ""))
    return entries.get("model name", platform.machine()), " ".join(sorted(flags.split()))


def _commit(folder: Path) -> str | None:
    """The commit this code is checked out from, ``+`` appended when files differ; None outside a checkout."""
    try:
        _git(folder, "ls-files", "--error-unmatch", "machine.py")
        return _git(folder, "rev-parse", "HEAD") + ("+" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=20, text=True).stdout.strip()
