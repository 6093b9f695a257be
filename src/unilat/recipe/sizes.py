"""Changes of a configuration that a sweep makes: named sizes of the base model, and another grid of latents.

Both leave everything else as it is, so that runs differ in nothing but what is swept.
"""

import math
import re
from dataclasses import dataclass, replace

from unilat.fields import FieldError
from unilat.nets.encoder import EncoderConfig
from unilat.nets.vit import ViTConfig
from unilat.recipe.config import RunConfig, latent_grid
from unilat.types import UserError

Grid = tuple[int, int, int]
"""``(height, width, channels)`` of a latent, as it is written: ``8x8x8``."""


@dataclass(frozen=True)
class BaseSize:
    """Width and depth of a base model, as factors of the configuration's own."""

    width: float
    depth: float


# fmt: off
BASES = {
    "tiny":   BaseSize(0.5, 1.0),
    "small":  BaseSize(1.0, 1.0),
    "medium": BaseSize(1.5, 4 / 3),
    "large":  BaseSize(2.0, 2.0),
}
# fmt: on
"""Sizes by name: ``small`` is the configuration's own base model; FLOPs are about 1/4, 1, 3 and 8 times its."""


def with_base(config: RunConfig, name: str) -> RunConfig:
    """``config`` with its base model in the size ``name``; raises :class:`UserError` for what is none.

    ``small@150000`` is trained on 150,000 latents; without ``@`` as long as ``config`` says. Widths are rounded to
    whole attention heads. Wider models take a peak learning rate that is smaller by as much as they are wider (the rule
    of Adam for equal steps of activations, arXiv 2203.03466); narrower ones keep it.
    """
    named, long, samples = name.partition("@")
    if named not in BASES:
        raise UserError(f"there is no base size {named!r}: `base` is one or more of {', '.join(BASES)}")
    if long and not re.fullmatch(r"[1-9]\d{0,17}", samples):
        raise UserError(f"`base` {name}: behind @ stands on how many latents it is trained, {named}@150000 for example")
    size, vit = BASES[named], config.base.vit
    widths = tuple(_heads(size.width * width, vit.head_width) for width in vit.channels)
    blocks = tuple(math.ceil(size.depth * count) for count in vit.blocks)
    wider = max(1.0, widths[-1] / vit.channels[-1])
    base = replace(config.base, vit=replace(vit, channels=widths, blocks=blocks))
    stage2 = replace(config.stage2, learning_rate=config.stage2.learning_rate / wider)
    if long:
        stage2 = replace(stage2, samples=int(samples))
    return replace(config, base=base, stage2=stage2)


def _heads(width: float, head: int) -> int:
    """The multiple of ``head`` nearest to ``width``, one at least."""
    return max(1, math.floor(width / head + 0.5)) * head


def as_grid(text: str) -> Grid:
    """``8x8x8`` is height × width × channels of a latent; raises :class:`UserError`."""
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5}){2}", text):
        raise UserError(f"a `grid` is height x width x channels of a latent, 16x16x2 for example, not {text!r}")
    height, width, channels = map(int, text.split("x"))
    return height, width, channels


def grid_of(config: RunConfig) -> Grid:
    """The grid that a configuration has."""
    height, width = latent_grid(config)[-2:]
    return height, width, config.autoencoder.latent_channels


def spelled(grid: Grid) -> str:
    """A grid as :func:`as_grid` reads it."""
    return "x".join(map(str, grid))


def with_grid(config: RunConfig, grid: Grid) -> RunConfig:
    """``config`` with latents of ``grid``; raises :class:`~unilat.fields.FieldError` where that cannot be.

    The encoder folds as many pixels as a cell has, in its patch; of levels that leave no patch of 2 the finest go. The
    decoder stays: it lays any grid on its own, and what it costs is set by its patch. Prior and base model take the
    smallest patch that leaves them no more tokens than they had, for tokens are what they cost.
    """
    size, before = config.data.size, latent_grid(config)[-2:]
    sides = grid[:2]
    if any(pixels % side for pixels, side in zip(size, sides, strict=True)):
        near = [
            min(_divisors(pixels), key=lambda one, side=side: (abs(one - side), one))
            for pixels, side in zip(size, sides, strict=True)
        ]
        raise FieldError(
            f"a `grid` of {spelled(grid)} does not divide pictures of {size[0]}x{size[1]} pixels: the nearest that "
            f"does is {spelled((near[0], near[1], grid[2]))}"
        )
    ae = config.autoencoder
    encoder = folding(ae.encoder, (size[0] // sides[0], size[1] // sides[1]))
    prior, vit = (fitting(net, before, sides, name) for net, name in ((ae.prior, "prior"), (config.base.vit, "base")))
    autoencoder = replace(ae, encoder=encoder, prior=prior, latent_channels=grid[2])
    return replace(config, autoencoder=autoencoder, base=replace(config.base, vit=vit))


def _divisors(number: int) -> list[int]:
    return [side for side in range(1, number + 1) if number % side == 0]


def folding(encoder: EncoderConfig, cell: tuple[int, int]) -> EncoderConfig:
    """``encoder`` with cells of so many pixels."""
    for drop in range(len(encoder.channels)):
        strides = encoder.strides[drop:]
        folds = [math.prod(stride[axis] for stride in strides) for axis in (0, 1)]
        whole = all(side % fold == 0 for side, fold in zip(cell, folds, strict=True))
        last = drop == len(encoder.channels) - 1
        if whole and (last or all(side // fold > 1 for side, fold in zip(cell, folds, strict=True))):
            patch = (cell[0] // folds[0], cell[1] // folds[1])
            channels, blocks = encoder.channels[drop:], encoder.blocks[drop:]
            return replace(encoder, patch=patch, channels=channels, blocks=blocks, strides=strides)
    raise AssertionError


def fitting(vit: ViTConfig, before: tuple[int, ...], grid: tuple[int, int], name: str) -> ViTConfig:
    """``vit`` with the smallest patch that leaves no more tokens on ``grid`` than there were."""
    step = 2 ** (len(vit.channels) - 1)
    fits = [patch for patch in range(1, min(grid) + 1) if all(side % (patch * step) == 0 for side in grid)]
    if not fits:
        raise FieldError(
            f"a `grid` of {grid[0]}x{grid[1]} is not divided by the {len(vit.channels)} levels of the {name}: take "
            f"multiples of {step}"
        )
    few = [patch for patch in fits if replace(vit, patch=patch).tokens(grid) <= vit.tokens(before)]
    return replace(vit, patch=few[0] if few else fits[-1])
