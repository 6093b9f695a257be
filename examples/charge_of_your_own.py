"""A task-specific regulariser: latents that turn with the picture, at the bits you name.

python examples/charge_of_your_own.py photos/ runs/mirrored
python examples/charge_of_your_own.py photos/ runs/mirrored tiny     # the smallest preset: a check, not a result

Stage 1 minimises `charge + c L(x | z_0)`, and Unified Latents charge the rate. Here a mirrored picture should have the
mirrored latent besides; the controller holds the bits all the same.
"""

import sys

from torch import Tensor

import unilat
from unilat.maths.rate import RateTerms
from unilat.models.autoencoder import Autoencoder

WEIGHT = 0.1


def charge(model: Autoencoder, x: Tensor, z: Tensor, rate: RateTerms) -> Tensor:
    """``R + weight ‖E(mirrored x) − mirrored E(x)‖²``, nats per example ``[B]``."""
    away = model.encode(x.flip(-1)) - z.flip(-1)
    return rate.nats() + WEIGHT * away.square().flatten(1).sum(1)


def main(source: str, folder: str, preset: str = "small") -> None:
    """The main job with a charge of our own."""
    bits = unilat.train(source, preset=preset, out=folder, charge=charge).results.bits
    print(f"wanted {bits.target:.3f} bits per pixel, measured {bits.value:.3f} ± {bits.stderr:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
