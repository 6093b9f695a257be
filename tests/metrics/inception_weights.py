"""Weights in the shape of the published Inception's, made in a line: no package has the real ones."""

import torch
from torch import Tensor

from unilat.metrics.inception import InceptionV3


def weights(seed: int = 0) -> dict[str, Tensor]:
    """Every tensor away from zero and one, scaled so that pictures stay apart through all layers."""
    with torch.device("meta"):
        wanted = InceptionV3().state_dict()
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, one in sorted(wanted.items()):
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(one.shape, generator=generator)
        if name.endswith("running_var"):
            found[name] = 0.5 + noise.abs()
        elif name.endswith("bn.weight"):
            found[name] = 1.0 + 0.2 * noise
        elif one.ndim == 4:
            found[name] = noise * (2.0 / one[0].numel()) ** 0.5
        else:
            found[name] = 0.1 * noise
    return found


def pictures(count: int = 2, side: int = 40) -> Tensor:
    """Noise of other means and of a height that is no width, uint8."""
    generator = torch.Generator().manual_seed(3)
    low = torch.randint(0, 180, (count, 3, 1, 1), generator=generator)
    return (low + torch.randint(0, 75, (count, 3, side, side + 9), generator=generator)).to(torch.uint8)
