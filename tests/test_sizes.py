"""Named sizes of the base model and grids of latents: what they change, and that they change nothing else."""

import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from unilat.recipe import presets
from unilat.recipe.build import describe
from unilat.recipe.config import capacity, differences, latent_grid
from unilat.recipe.sizes import BASES, as_grid, grid_of, spelled, with_base, with_grid
from unilat.types import UserError


def test_sizes_are_a_factor_of_two_to_four_apart() -> None:
    """Kills width and depth the other way round, a size out of order, and a small that is not the preset's own."""
    start = presets.get("small")
    assert with_base(start, "small") == start and list(BASES) == ["tiny", "small", "medium", "large"]
    flops = [describe(with_base(start, name)).parts["base"].training_flops for name in BASES]
    assert all(2 <= wider / narrower <= 4 for narrower, wider in zip(flops, flops[1:], strict=False))
    medium = with_base(start, "medium")
    assert (medium.base.vit.channels, medium.base.vit.blocks) == ((192,), (8,))
    assert medium.stage2.learning_rate == pytest.approx(start.stage2.learning_rate / 1.5)
    assert with_base(start, "tiny").stage2 == start.stage2
    told = [one.split(":")[0] for one in differences(start, medium)]
    assert told == ["base.vit.channels", "base.vit.blocks", "stage2.learning_rate"]


def test_widths_are_whole_heads() -> None:
    """Kills a width that the heads do not divide: 1.5 × 96 and half of 32 in heads of 32."""
    start = presets.get("small")
    odd = replace(start, base=replace(start.base, vit=replace(start.base.vit, channels=(32, 96), blocks=(1, 2))))
    assert with_base(odd, "medium").base.vit.channels == (64, 160)
    assert with_base(odd, "tiny").base.vit.channels == (32, 64)
    with pytest.raises(UserError, match=r"no base size 'huge'.*tiny, small, medium, large"):
        with_base(start, "huge")


def test_a_size_may_say_its_own_length() -> None:
    """Kills a length that is another field's, one that changes width or rate, and one that is no count."""
    start = presets.get("small")
    longer = with_base(start, "small@600000")
    assert longer == replace(start, stage2=replace(start.stage2, samples=600_000))
    medium = with_base(start, "medium")
    assert with_base(start, "medium@9000") == replace(medium, stage2=replace(medium.stage2, samples=9_000))
    for wrong in ("small@", "small@0", "small@-5", "small@1e5", "small@5@5"):
        with pytest.raises(UserError, match="behind @ stands on how many latents it is trained, small@150000"):
            with_base(start, wrong)
    with pytest.raises(UserError, match="no base size 'huge'"):
        with_base(start, "huge@5")


@pytest.mark.parametrize(
    ("size", "grid", "patch", "levels", "tokens"),
    [
        (32, "16x16x2", (2, 2), 1, 4),
        (32, "4x4x32", (8, 8), 1, 1),
        (64, "16x16x8", (2, 2), 2, 4),
        (64, "32x32x2", (2, 2), 1, 8),
        ("32x48", "16x24x2", (2, 2), 1, 4),
    ],
)
def test_a_grid_keeps_tokens_and_what_it_does_not_name(
    size: int | str, grid: str, patch: tuple[int, int], levels: int, tokens: int
) -> None:
    """Kills height and width exchanged, an encoder of another factor, more tokens, and a decoder that is changed."""
    start = presets.get("small", size=size)
    made = with_grid(start, as_grid(grid))
    height, width, channels = as_grid(grid)
    assert latent_grid(made) == (height, width) and made.autoencoder.latent_channels == channels
    assert grid_of(made) == (height, width, channels) and spelled(grid_of(made)) == grid
    assert (made.autoencoder.encoder.patch, len(made.autoencoder.encoder.channels)) == (patch, levels)
    assert (made.autoencoder.prior.patch, made.base.vit.patch) == (tokens, tokens)
    assert made.base.vit.tokens(latent_grid(made)) == start.base.vit.tokens(latent_grid(start))
    assert made.autoencoder.decoder == start.autoencoder.decoder
    latent = describe(made).latent
    assert latent == (channels, height, width)
    numbers = channels * height * width / math.prod(grid_of(start))
    assert capacity(made) == pytest.approx(capacity(start) * numbers)


def test_the_own_grid_changes_nothing() -> None:
    """Kills a run of the preset's own grid that is not the preset's."""
    for name, size in (("small", 32), ("small", 128), ("tiny", 16)):
        start = presets.get(name, size=size)
        assert with_grid(start, grid_of(start)) == start


def test_grids_that_cannot_be_name_the_way_out() -> None:
    """Kills a grid that is rounded in silence, and one that ends in a traceback."""
    start = presets.get("small")
    for text in ("8x8", "8x8x0", "axbxc", "8x8x8x8", "", "-1x8x8"):
        with pytest.raises(UserError, match="height x width x channels"):
            as_grid(text)
    with pytest.raises(
        UserError, match="7x7x8 does not divide pictures of 32x32 pixels: the nearest that does is 8x8x8"
    ):
        with_grid(start, (7, 7, 8))
    with pytest.raises(UserError, match="levels of the base: take multiples of 2"):
        with_grid(presets.get("tiny"), (1, 1, 8))


def test_the_documented_sizes_are_those_of_the_table() -> None:
    """Kills a row of docs/sweep.md whose width, blocks or FLOPs are not those that `small` has."""
    page = (Path(__file__).parents[1] / "docs" / "sweep.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d/]+) \| ([\d/]+) \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    assert [row[0] for row in rows] == list(BASES)
    start = presets.get("small")
    own = describe(start).parts["base"].training_flops
    for name, width, blocks, share in rows:
        assert (float(Fraction(width)), float(Fraction(blocks))) == (BASES[name].width, BASES[name].depth)
        assert f"{describe(with_base(start, name)).parts['base'].training_flops / own:.2g}" == share
