"""Whose the checkpoints of a folder are: those of other pictures, networks or bits are not gone on from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unilat.run import claim
from unilat.run.claim import owned
from unilat.run.trained import read_config
from unilat.training.plan import Stage
from unilat.types import UserError


def test_checkpoints_of_another_run_are_refused() -> None:
    """Kills: a stage that goes on from the weights of other pictures, networks or bits; old checkpoints refused."""
    seen: list[object] = []
    stage = Stage(
        name="stage1",
        model=torch.nn.Linear(1, 1),
        count=1,
        batch=lambda rows: (rows,),
        losses=lambda batch, draws: (batch[0], {}),
        state=lambda: {"x": 1},
        load_state=seen.append,
    )
    ours = owned(stage, "abc")
    assert ours.state() == {"x": 1, "origin": "abc"}
    ours.load_state(ours.state())
    ours.load_state({"x": 2})
    assert seen == [{"x": 1}, {"x": 2}]
    with pytest.raises(UserError, match="checkpoints of stage1 are another run's"):
        ours.load_state({"x": 1, "origin": "abd"})


def test_the_origin_tells_pictures_networks_and_bits_apart(tiny_run: Path) -> None:
    """Kills: an origin that is the same for other pictures, noise or bits, or another after a longer training."""
    config = read_config(tiny_run)
    own, stage1 = claim.origin(config, "a"), config.stage1
    others = [
        claim.origin(config, "b"),
        claim.origin(replace(config, autoencoder=replace(config.autoencoder, lambda_0=4.5)), "a"),
        claim.origin(replace(config, base=replace(config.base, bias=0.5)), "a"),
        claim.origin(replace(config, stage1=replace(stage1, target_bpp=0.2)), "a"),
        claim.origin(replace(config, stage1=replace(stage1, target_bpp=None, loss_factor=1.5)), "a"),
        claim.origin(replace(config, stage1=replace(stage1, target_bpp=None, loss_factor=1.7)), "a"),
    ]
    assert len({own, *others}) == 7
    longer = replace(config, stage1=replace(stage1, samples=2 * stage1.samples), seed=config.seed)
    assert claim.origin(replace(longer, evaluation=replace(config.evaluation, guidance=3.0)), "a") == own
