"""The files of a run folder: every name is spelled here, once. Knows nothing of what is in them.

It stands on the floor of ``files.py``: whoever reads a run folder may know it, the report among them.
"""

from dataclasses import dataclass
from pathlib import Path


class _Inside:
    """An attribute of :class:`RunFolder` that is a path inside it."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, folder: "RunFolder", owner: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of the run in the folder ``path`` lie, whether they are there or not."""

    path: Path

    config = _Inside("config.json")
    """The whole configuration; it makes a folder a run folder."""
    manifest = _Inside("manifest.json")
    """Machine, versions, date and the machine's choices."""
    data = _Inside("data.json")
    """What was read: counts, classes, hash."""
    log = _Inside("log.jsonl")
    """Numbers of the steps of all stages."""
    phases = _Inside("phases.json")
    """Seconds and memory of each part of the job."""
    autoencoder = _Inside("autoencoder.safetensors")
    """Weights that stage 1 ended with."""
    base = _Inside("base.safetensors")
    """Weights that stage 2 ended with."""
    latents = _Inside("latents")
    """Folder of the training pictures' latents."""
    metrics = _Inside("metrics.json")
    """What the run is worth."""
    metrics_fast = _Inside("metrics-fast.json")
    """The same with a distilled network."""
    evaluation = _Inside("evaluation.safetensors")
    """Pictures, bit maps and curves for the report."""
    report = _Inside("report.html")
    """The report."""
    verified = _Inside("verify.json")
    """What `unilat verify` found."""
    track = _Inside("track")
    """Folder of what trackers write."""
    refits = _Inside("verify")
    """Folder of the priors that `unilat verify` refits."""
    seal = _Inside("seal.json")
    """Size and SHA-256 of all the others that belong together (``run/seal.py``)."""

    @property
    def trained(self) -> tuple[Path, ...]:
        """What training leaves, and goes on from."""
        stages = (self.stage(name) for name in ("stage1", "prior", "stage2"))
        return (self.data, self.autoencoder, self.base, self.log, self.latents, *stages)

    def few_steps(self, part: str) -> Path:
        """Where the distilled ``decoder`` or ``base`` lies."""
        return self.path / f"fast-{part}.safetensors"

    def stage(self, name: str) -> Path:
        """Folder of a stage's checkpoints."""
        return self.path / name

    def owns(self, path: Path) -> bool:
        """Whether this is a run folder and ``path``, somewhere in it, one of its own files or in one of its folders."""
        if not self.config.is_file():
            return False
        first = path.relative_to(self.path).parts[0]
        names = {one.name for one in vars(RunFolder).values() if isinstance(one, _Inside)}
        return first in names | {"stage1", "prior", "stage2", ".lock"} or first.startswith(("fast-", "distill-"))
