"""Train latents of 0.4 bits per pixel on a folder of pictures, from Python, and look at what each picture costs.

python examples/train_from_python.py photos/ runs/photos
python examples/train_from_python.py photos/ runs/tiny tiny     # the smallest preset: a check, not a result
"""

import sys

import unilat


def show(record: unilat.Step | unilat.Note) -> None:
    """A line for each note, and for every hundredth step. To return False would stop the run, saved."""
    if isinstance(record, unilat.Note):
        print(record.text)
    elif record.step % 100 == 0:
        print(f"{record.stage}: step {record.step} of {record.steps}, {record.seconds_left:.0f} s left")


def main(source: str, folder: str, preset: str = "small") -> None:
    """Both stages, then the dearest and the cheapest picture in bits."""
    run = unilat.train(source, target_bpp=0.4, out=folder, preset=preset, on_step=show)
    bits = run.results.bits
    print(f"wanted 0.4 bits per pixel, measured {bits.value:.3f} ± {bits.stderr:.3f}")

    each = run.encode(source).bits
    print(f"dearest: picture {each.argmax()}, {each.max():.0f} bits; cheapest: {each.argmin()}, {each.min():.0f} bits")


if __name__ == "__main__":
    main(*sys.argv[1:])
