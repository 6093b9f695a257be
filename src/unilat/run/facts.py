"""What a run remembers of its pictures: ``data.json``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import Tensor

from unilat.files import read_json
from unilat.run.seal import check
from unilat.signals.factors import Factors, from_json
from unilat.types import UserError


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Where a run's pictures came from, what they are, and how many of them are for what."""

    source: str
    """Folder, file or name that they were read from."""
    count: int = 0
    """Pictures there were; 0 in files that do not say, here and below."""
    train: int = 0
    calibration: int = 0
    test: int = 0
    """Held out."""
    classes: tuple[str, ...]
    """Their names, none where there are no classes."""
    untrained: tuple[str, ...] = ()
    """Those without a training picture; none in files that do not say."""
    factors: Factors | None = None
    """What each class is made of, where it is a combination of several labels."""
    size: tuple[int, ...] = ()
    """``(H, W)``."""
    channels: int
    streamed: bool = False
    """Read as they are needed, because they do not fit into memory."""
    sha256: str
    """Of the pictures and their labels."""
    skipped: int = 0
    """Files that could not be read."""
    converted: Mapping[str, int] = field(default_factory=dict)
    """How many were cropped, resized or otherwise converted."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Name and reason of those that could not be read while the run went on; others took their place."""

    @property
    def table(self) -> Tensor | None:
        """Which value of each factor a class has, int64 ``[classes, F]``; None where a class is one label."""
        return None if self.factors is None else self.factors.table

    def to_json(self) -> dict[str, object]:
        """The tree that ``data.json`` holds; :func:`read` reads it back."""
        tree = asdict(replace(self, factors=None))
        del tree["factors"]
        if self.factors is not None:
            tree["factors"] = self.factors.to_json()
        return tree


def read(path: Path) -> Facts:
    """The facts of a run folder; raises :class:`UserError` where they are not what the run wrote, or some are amiss."""
    check(path)
    found = read_json(path)
    tree = found if isinstance(found, dict) else {}
    needed = {"channels": int, "classes": list, "sha256": str, "source": str}
    missing = [name for name in needed if name not in tree]
    amiss = [name for name, kind in needed.items() if name in tree and not isinstance(tree[name], kind)]
    if missing or amiss:
        told = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{', '.join(amiss)} of another kind"] * bool(amiss)
        raise UserError(
            f"{path} is damaged ({'; '.join(told)}): bring it back, or begin the run anew in another folder"
        )
    size, converted, unreadable = tree.get("size"), tree.get("converted"), tree.get("unreadable")
    untrained = tree.get("untrained")
    counts = {name: tree[name] for name in ("count", "train", "calibration", "test", "skipped") if name in tree}
    return Facts(
        source=tree["source"],
        classes=tuple(tree["classes"]),
        untrained=tuple(untrained) if isinstance(untrained, list) else (),
        factors=from_json(tree.get("factors"), len(tree["classes"])),
        size=tuple(size) if isinstance(size, list) else (),
        channels=tree["channels"],
        streamed=tree.get("streamed") is True,
        sha256=tree["sha256"],
        converted=converted if isinstance(converted, dict) else {},
        unreadable=unreadable if isinstance(unreadable, dict) else {},
        **{name: count for name, count in counts.items() if isinstance(count, int)},
    )
