"""Train latents of 0.4 bits per pixel on a folder of pictures, from Python, and look at what each picture costs.

python examples/train_from_python.py photos/ runs/photos
python examples/train_from_python.py photos/ runs/tiny tiny     # the smallest preset: a check, not a result
"""

import sys
from dataclasses import replace
from pathlib import Path

import unilat
from unilat.recipe import presets
from unilat.run.train import train


def main(source: str, folder: str, preset: str = "small") -> None:
    """Both stages, then the dearest and the cheapest picture in bits."""
    config = presets.get(preset)
    config = replace(
        config,
        data=replace(config.data, source=source),
        stage1=replace(config.stage1, target_bpp=0.4),
    )
    train(config, Path(folder))
    run = unilat.load(folder)
    measured = run.results.bits
    print(f"wanted 0.4 bits per pixel, measured {measured.value:.3f} ± {measured.stderr:.3f}")

    bits = run.encode(source).bits
    print(f"dearest: picture {bits.argmax()}, {bits.max():.0f} bits; cheapest: {bits.argmin()}, {bits.min():.0f} bits")


if __name__ == "__main__":
    main(*sys.argv[1:])
