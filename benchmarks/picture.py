"""The pictures of README and docs, from a finished run.

python benchmarks/picture.py runs/glyphs docs/images/results.png
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from unilat import results
from unilat.files import read_safetensors
from unilat.report.pairs import UNSEEN
from unilat.report.sheets import framed
from unilat.run.facts import read
from unilat.run.folder import RunFolder

COLUMNS = 16


def on_white(page: Tensor) -> Tensor:
    """uint8 ``[H, W, 4]`` with see-through gaps as ``[H, W, 3]``."""
    return torch.where(page[..., 3:] > 0, page[..., :3], 255)


def strip(*rows: Tensor) -> Tensor:
    """The first pictures of each of ``rows``, uint8 ``[N, C, H, W]``, one row below the other, ``[H, W, 3]``."""
    shown = torch.cat([row[:COLUMNS] for row in rows])
    return on_white(framed(shown, min(COLUMNS, len(rows[0])), torch.zeros(len(shown), dtype=torch.bool), UNSEEN))


def sheets(run: Path) -> dict[str, Tensor]:
    """Titles and pictures: samples, held-out pictures above samples of the same labels, and reconstructions."""
    arrays, _ = read_safetensors(run / "evaluation.safetensors")
    found, factors = results.read(run / "metrics.json"), read(RunFolder(run).data).factors
    bits, calls = found.bits, found.reconstruction.steps
    through = f"through {bits.value:.3f} bits per pixel and back, {calls} decoder call{'s' * (calls > 1)}"
    samples, parts = arrays["samples"], dict[str, Tensor]()
    if factors is None:
        in_order = samples[arrays["sample_labels"].argsort(stable=True)]
        parts["samples of the base model, none picked"] = strip(*in_order.split(COLUMNS))
    else:
        told, paged = ", ".join(factors.names[:-1]) + f" and {factors.names[-1]}", "page" in arrays
        if paged:
            unseen, across = ~arrays["page_seen"].flatten(), arrays["page_labels"].shape[1]
            title = f"samples of the base model; framed: {int(unseen.sum())} pairs of {told} never trained on"
            parts[title] = on_white(framed(arrays["page"], across, unseen, UNSEEN))
        beside = zip(arrays["truths"].split(COLUMNS), samples.split(COLUMNS), strict=False)
        rows = [row for pair in list(beside)[: 1 if paged else 3] for row in pair]
        parts[f"held-out pictures, and samples of the same {told}"] = strip(*rows)
    parts[f"held-out pictures, and the same {through}"] = strip(arrays["originals"], arrays[f"reconstructions_{calls}"])
    return parts


def main(run: Path, out: Path) -> None:
    """Draw the sheets of a run, one below the other."""
    parts = sheets(run)
    heights = [picture.shape[0] / picture.shape[1] for picture in parts.values()]
    figure, axes = plt.subplots(
        len(parts),
        1,
        figsize=(6.4, 6.4 * sum(heights) + 0.37 * len(parts)),
        height_ratios=heights,
        layout="constrained",
    )
    for axis, (title, picture) in zip(axes, parts.items(), strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title, fontsize=9, loc="left")
        axis.axis("off")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
