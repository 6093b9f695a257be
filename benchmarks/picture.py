"""The README's picture, from a finished run: python benchmarks/picture.py runs/glyphs docs/images/results.png"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from torch import Tensor

from unilat import results
from unilat.files import read_safetensors


def strip(pictures: Tensor, columns: int) -> Tensor:
    """Pictures uint8 ``[N, C, H, W]`` side by side in rows of ``columns``, ``[H·rows, W·columns, C]``."""
    count, channels, height, width = pictures.shape
    rows = count // columns
    grid = pictures[: rows * columns].view(rows, columns, channels, height, width)
    return grid.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)


def main(run: Path, out: Path) -> None:
    """Originals above their reconstructions, and samples beside them."""
    arrays, _ = read_safetensors(run / "evaluation.safetensors")
    found = results.read(run / "metrics.json")
    bits, calls = found.bits, found.reconstruction.steps
    parts = {
        "held-out originals": strip(arrays["originals"], 8),
        f"through {bits.value:.3f} bits per pixel and back, {calls} decoder call{'s' * (calls > 1)}": strip(
            arrays[f"reconstructions_{calls}"], 8
        ),
        "samples of the base model": strip(arrays["samples"][:32], 8),
    }
    figure, axes = plt.subplots(3, 1, figsize=(6.4, 5.6), height_ratios=[1, 1, 4], layout="constrained")
    for axis, (title, picture) in zip(axes, parts.items(), strict=True):
        grey = picture.shape[-1] == 1
        axis.imshow(picture.squeeze(-1) if grey else picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title, fontsize=10, loc="left")
        axis.axis("off")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
