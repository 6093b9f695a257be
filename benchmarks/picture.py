"""The README's picture, from a finished run: python benchmarks/picture.py runs/glyphs docs/images/results.png"""

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

COLUMNS = 16


def on_white(page: Tensor) -> Tensor:
    """uint8 ``[H, W, 4]`` with see-through gaps as ``[H, W, 3]``."""
    return torch.where(page[..., 3:] > 0, page[..., :3], 255)


def strip(*rows: Tensor) -> Tensor:
    """The first pictures of each of ``rows``, uint8 ``[N, C, H, W]``, one row below the other, ``[H, W, 3]``."""
    shown = torch.cat([row[:COLUMNS] for row in rows])
    return on_white(framed(shown, min(COLUMNS, len(rows[0])), torch.zeros(len(shown), dtype=torch.bool), UNSEEN))


def main(run: Path, out: Path) -> None:
    """A page of samples, held-out pictures above samples of the same classes, and reconstructions."""
    arrays, _ = read_safetensors(run / "evaluation.safetensors")
    found = results.read(run / "metrics.json")
    bits, calls = found.bits, found.reconstruction.steps
    page, unseen = arrays["page"], ~arrays["page_seen"].flatten()
    through = f"through {bits.value:.3f} bits per pixel and back, {calls} decoder call{'s' * (calls > 1)}"
    parts = {
        f"samples of the base model; framed: {int(unseen.sum())} pairs of letter and face never trained on": on_white(
            framed(page, arrays["page_labels"].shape[1], unseen, UNSEEN)
        ),
        "held-out pictures, and samples of the same letter and face": strip(arrays["truths"], arrays["samples"]),
        f"held-out pictures, and the same {through}": strip(arrays["originals"], arrays[f"reconstructions_{calls}"]),
    }
    heights = [picture.shape[0] / picture.shape[1] for picture in parts.values()]
    figure, axes = plt.subplots(
        3, 1, figsize=(6.4, 6.4 * sum(heights) + 1.1), height_ratios=heights, layout="constrained"
    )
    for axis, (title, picture) in zip(axes, parts.items(), strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title, fontsize=9, loc="left")
        axis.axis("off")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
