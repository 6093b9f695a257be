"""What a GPU will need, predicted: against what was measured on one, and by hand."""

import functools
import math
from dataclasses import replace

import pytest

from unilat.recipe import predict, presets
from unilat.recipe.build import describe
from unilat.recipe.predict import predicted

PAPER = presets.get("imagenet-512")


@functools.lru_cache
def batches(one: int, two: int) -> dict[str, predict.Prediction]:
    """``imagenet-512`` in batches of these."""
    stage1, stage2 = replace(PAPER.stage1, batch=one), replace(PAPER.stage2, batch=two)
    return predicted(replace(PAPER, stage1=stage1, stage2=stage2))


@pytest.mark.parametrize(("batch", "gib"), [(8, 34.9), (16, 58.8)])
def test_memory_is_what_was_measured_where_it_was(batch: int, gib: float) -> None:
    """On an H200, bf16, shared/gpu.md; stage 2 was not calibrated on. Kills: bytes of float32 or of one network alone,
    weights forgotten, a batch's bytes told as a picture's, GB for GiB."""
    assert batches(batch, 64)["stage1"].gib == pytest.approx(gib, rel=0.01)
    assert batches(batch, 64)["stage2"].gib == pytest.approx(34.6, rel=0.08)


def test_minutes_are_what_was_measured_where_it_was() -> None:
    """A step of 16 pictures took 360.1 ms, one of 64 latents 191.3. Kills: one pass for three, another stage's FLOPs or
    examples, seconds for minutes."""
    found = predicted(PAPER)
    assert found["stage1"].minutes == pytest.approx(PAPER.stage1.samples / 16 * 0.3601 / 60, rel=0.06)
    assert found["stage2"].minutes == pytest.approx(PAPER.stage2.samples / 64 * 0.1913 / 60, rel=0.06)


def test_the_papers_batch_fits_one_gpu_in_parts() -> None:
    """Kills: a micro-batch beyond the room, and one that wastes half of it."""
    found = predicted(PAPER)
    assert (found["stage1"].micro_batch, found["stage2"].micro_batch) == (16, 128)
    assert all(35 < one.gib <= 70 for one in found.values())
    double = {16: batches(32, 64)["stage1"], 128: batches(16, 256)["stage2"]}
    assert [one.micro_batch for one in double.values()] == [16, 128]
    assert predicted(PAPER, room=300)["stage1"].micro_batch == 64
    assert predicted(PAPER, room=50)["stage1"].micro_batch == 8
    assert predicted(PAPER, room=1)["stage1"].micro_batch == 1


def test_each_stage_by_hand() -> None:
    """Stage 1's prior sees stage 1's examples, settling the rest, and trains alone. Kills: settling counted twice or
    not at all, its memory with the encoder's, a batch of stage 1, workspaces of convolutions where there are none."""
    config = presets.get("small")
    config = replace(config, stage1=replace(config.stage1, settle_batch=96))
    parts, found = describe(config, 3).parts, predicted(config, 3)
    one = config.stage1
    once = {name: 3 * row.forward_flops / 160e12 / 60 for name, row in parts.items()}
    step = {name: row.step_flops / 160e12 / 60 for name, row in parts.items()}
    three = ("encoder", "prior", "decoder")
    passes, moves = sum(once[name] for name in three), sum(step[name] for name in three)
    assert moves > 0.2 * 32 * passes
    assert found["stage1"].minutes == pytest.approx(one.samples * passes + one.samples / 32 * moves)
    settled = one.settle * once["prior"] + math.ceil(one.settle / 96) * step["prior"]
    assert found["prior"].minutes == pytest.approx(settled)
    assert found["stage2"].minutes == pytest.approx(config.stage2.samples * once["base"])
    assert [one.micro_batch for one in found.values()] == [32, 96, 64]
    each = {name: (row.memory_mib * 2**20 - 20 * row.parameters) for name, row in parts.items()}
    prior = 26 * parts["prior"].parameters + 0.71 * each["prior"] * 96 / 32
    assert found["prior"].gib == pytest.approx(prior / 2**30)
    base = 26 * parts["base"].parameters + 0.71 * each["base"]
    assert found["stage2"].gib == pytest.approx(base / 2**30)
    stage1 = sum(26 * parts[name].parameters + 0.71 * each[name] for name in three)
    assert found["stage1"].gib == pytest.approx(stage1 / 2**30 + 4.1)


def test_stages_that_are_not_trained_need_nothing() -> None:
    """Kills: a prior that does not settle, or a normal one; a base model of a run without stage 2."""
    small = presets.get("small")
    assert set(predicted(presets.get("kl-vae"))) == {"stage1", "stage2"}
    assert set(predicted(replace(small, stage1=replace(small.stage1, settle=0)))) == {"stage1", "stage2"}
    assert set(predicted(replace(small, stage2=replace(small.stage2, samples=0)))) == {"stage1", "prior"}
