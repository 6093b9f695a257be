"""Mirror images as augmentation of stage 1: by the toss of a coin where they are wanted, and nowhere else."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from planted import planted_config
from unilat.maths.rate import RateTerms
from unilat.maths.seeds import Draws
from unilat.recipe.build import build_autoencoder
from unilat.run.stages import AutoencoderStage, mirrored
from unilat.signals import to_unit


def test_each_picture_is_mirrored_or_not_by_a_coin() -> None:
    """Kills: pictures stood on their heads, one toss for all, a crooked coin, tosses that depend on the processes."""
    x = torch.rand(400, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    made = mirrored(x, Draws.keyed(3, 5, 0, 400))
    same, other = ((made == one).flatten(1).all(1) for one in (x, x.flip(-1)))
    assert bool((same ^ other).all()) and 160 < int(other.sum()) < 240
    part = mirrored(x[100:], Draws.keyed(3, 5, 100, 400))
    assert torch.equal(part, made[100:])
    assert not torch.equal(mirrored(x, Draws.keyed(3, 6, 0, 400)), made)


def test_training_alone_is_mirrored() -> None:
    """What the model is given, and the next toss after it. Kills: a toss without a flip, which would move every number
    of a run; flips that are asked for and not made; a batch of the stage that is flipped already."""
    pictures = torch.randint(0, 256, (40, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    config, given = planted_config(), list[Any]()

    def losses(x: Tensor, draws: Draws, rate_share: float) -> Any:
        given.append((x, float(draws.uniform(1))))
        rate = RateTerms(torch.ones(len(x), 1), torch.ones(len(x), 1), torch.zeros(len(x)))
        return SimpleNamespace(
            rate=rate, decoder=torch.ones(len(x)), decoder_lambda=None, total=lambda factor: x.mean()
        )

    for flip in (False, True):
        stage = AutoencoderStage(build_autoencoder(config, 3), pictures, pictures[:8], config.stage1, 0.3, flip)
        stage.model.losses = losses
        batch = stage.batch(torch.arange(40))
        assert torch.equal(batch[0], pictures)
        stage.losses(batch, Draws.keyed(3, 5, 0, 40))
    (plain, first), (flipped, second) = given
    assert torch.equal(plain, to_unit(pictures)) and first == float(Draws.keyed(3, 5, 0, 40).uniform(1))
    assert torch.equal(flipped, mirrored(to_unit(pictures), Draws.keyed(3, 5, 0, 40))) and second != first
