"""Who may see what: pictures that carry their number, and everybody who turns one into a network's input, watched.

Training, calibration and held-out pictures are disjoint by content, and each consumer touches its own part only.
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from planted import Judge, Means, coloured, numbers, planted_config, untrained
from unilat.files import read_json
from unilat.models.latents import LatentSet
from unilat.recipe.config import RunConfig
from unilat.run import distill as distillation
from unilat.run import evaluate as evaluation
from unilat.run import reference as referring
from unilat.run import train as job
from unilat.run.parts import read_pictures, split_pictures
from unilat.run.stages import AutoencoderStage, base_stage
from unilat.run.trained import Run
from unilat.signals import Image, Pictures

OFFICIAL = torch.arange(120) % 3 == 1
COPIES = {20: 4, 41: 12, 77: 63, 90: 4, 111: 12, 5: 119, 33: 60, 1: 0, 2: 0, 13: 12}
"""Copies of others; where the source has test pictures of its own, some of them have copies among the rest."""
SOURCES: dict[str, Callable[[], Pictures]] = {
    "own split": lambda: coloured(120),
    "copies": lambda: coloured(120, copies=COPIES),
    "official": lambda: coloured(120, held_out=OFFICIAL),
    "official with copies": lambda: coloured(120, held_out=OFFICIAL, copies=COPIES),
}


def apart(pictures: Pictures, parts: tuple[Tensor, ...]) -> bool:
    """Whether no part is empty and no two hold a picture of the same bytes."""
    one, two, three = ({picture.numpy().tobytes() for picture in pictures.images[rows]} for rows in parts)
    return bool(one and two and three) and not (one & two or one & three or two & three)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("most", [40, 7])
@pytest.mark.parametrize("source", SOURCES)
def test_parts_are_disjoint_by_content(source: str, most: int, seed: int) -> None:
    """No picture, nor an exact copy of one, lies in two of the three parts. Kills: copies on both sides of a split, of
    a source with test pictures of its own too; calibration pictures that are held out or trained on."""
    pictures, config = SOURCES[source](), planted_config()
    config = replace(config, seed=seed, data=replace(config.data, held_out_at_most=most))
    parts = split_pictures(config, pictures)
    assert apart(pictures, parts)
    assert len({*torch.cat(parts).tolist()}) == sum(map(len, parts)) and len(parts[2]) <= most
    if "official" in source:
        assert OFFICIAL[parts[2]].all() and not OFFICIAL[torch.cat(parts[:2])].any()
        assert most < 40 or parts[2].tolist() == list(range(1, 120, 3))
    assert set(pictures.labels[parts[0]].tolist()) == {0, 1, 2}


def test_a_limit_on_the_pictures_keeps_the_parts_apart(tmp_path: Path) -> None:
    """``data.at_most`` thins a source before it is split. Kills: parts of the whole source in a thinned one."""
    made = coloured(120, copies=COPIES)
    np.savez(tmp_path / "a.npz", images=made.images.permute(0, 2, 3, 1).numpy(), labels=made.labels.numpy())
    config = planted_config()
    config = replace(config, data=replace(config.data, source=str(tmp_path / "a.npz"), at_most=60))
    pictures = read_pictures(config.data, None)
    assert numbers(pictures.images[2:4]) == [4, 6] and len(pictures) == 60
    assert apart(pictures, split_pictures(config, pictures))


class Watch:
    """Who has turned which pictures into a network's input: name → numbers, in the order in which they were seen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.now = ["nobody"]
        self.patch = monkeypatch
        real = Image.to_unit

        def to_unit(kind: Image, images: Tensor) -> Tensor:
            module = sys._getframe(1).f_globals["__name__"].removeprefix("unilat.")
            self.seen[f"{self.now[-1]} in {module}"] += numbers(images)
            return real(kind, images)

        monkeypatch.setattr(Image, "to_unit", to_unit)

    def within(self, owner: Any, name: str, called: str) -> None:
        """Call what happens inside of ``owner.name`` by a name."""
        real = getattr(owner, name)

        def watched(*given: Any, **named: Any) -> Any:
            self.now.append(called)
            try:
                return real(*given, **named)
            finally:
                self.now.pop()

        self.patch.setattr(owner, name, watched)


def small(config: RunConfig) -> RunConfig:
    """Two steps of each stage, a calibration after each, a prior that follows and settles, all parts measured."""
    prior = replace(config.autoencoder, covariance_up_to=64)
    stage1 = replace(
        config.stage1, samples=64, batch=32, ema_halflife=1, calibrate_every=32, follow_every=32, settle=128
    )
    stage2 = replace(config.stage2, samples=128, batch=64)
    return replace(config, autoencoder=prior, stage1=stage1, stage2=stage2)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    judge = Judge()
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: Means())
    monkeypatch.setattr(evaluation, "train_classifier", judge.train)
    return judge


@pytest.mark.parametrize("source", ["own split", "official with copies"])
def test_each_consumer_touches_its_own_part_only(
    source: str, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run with every look at a picture written down. Kills: held-out or calibration pictures in training, in
    pixel statistics, unit scale, covariance, settling, stage 2 or the judge; other pictures than the calibration ones
    in its rate and in the trim; measured pictures that are not held out."""
    pictures, watch = SOURCES[source](), Watch(monkeypatch)
    for name in ("losses", "calibration_rate", "follow", "settled"):
        watch.within(AutoencoderStage, name, name)
    for name in ("_latents", "evaluate"):
        watch.within(job, name, name)
    features: list[int] = []
    learnt: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(Means, "__call__", lambda self, images: features.extend(images[:, 0, 0, 0].tolist()) or images.float().mean((2, 3)))  # noqa: E501  # fmt: skip
    monkeypatch.setattr(job, "base_stage", lambda model, z, labels, *more: learnt.append((z, labels)) or base_stage(model, z, labels, *more))  # noqa: E501  # fmt: skip
    monkeypatch.setattr(job, "read_pictures", lambda *_: pictures)
    config = small(planted_config(rate_levels=1, step_counts=(1,), decoder_steps=1, base_steps=1, samples=6))
    job.train(config, tmp_path, device="cpu")
    run = Run(tmp_path, "cpu")
    train, calibration, test = (part.tolist() for part in run.split(pictures))
    name_of = lambda rows: sorted(numbers(pictures.images[rows]))  # noqa: E731  # copies carry another's number
    seen = {name: sorted(set(found)) for name, found in watch.seen.items()}
    assert not set(name_of(train)) & {*name_of(calibration), *name_of(test)}
    assert set(seen["losses in run.stages"]) <= set(name_of(train))
    assert len(watch.seen["losses in run.stages"]) == 64
    assert seen["nobody in run.train"] == sorted(set(name_of(train))), "pixel statistics and unit scale"
    assert seen["calibration_rate in run.stages"] == sorted(set(name_of(calibration)))
    assert len(watch.seen["calibration_rate in run.stages"]) >= 9 * len(calibration), "each calibration, the trim"
    for name in ("follow", "settled"):
        assert seen[f"{name} in run.stages"] == sorted(set(name_of(train)))
    assert watch.seen["_latents in run.rate"] == numbers(pictures.images[train])
    assert set(seen["evaluate in run.rate"]) <= set(name_of(test)) and len(seen["evaluate in run.rate"]) <= 15
    known = {"run.train", "run.stages", "run.rate"}
    assert {name.split(" in ")[1] for name in seen} == known and "nobody in run.stages" not in seen
    assert "nobody in run.rate" not in seen
    latents = LatentSet.load(tmp_path / "latents" / "train-00000.safetensors")
    torch.testing.assert_close(latents.z, run.latents(pictures.images[train]), rtol=1e-3, atol=1e-4)
    assert torch.equal(learnt[0][0].whole(), latents.z) and torch.equal(learnt[0][1], pictures.labels[train])
    ((judged, labels, _, _),) = judge.seen
    assert numbers(judged) == numbers(pictures.images[train]) and torch.equal(labels, pictures.labels[train])
    facts = read_json(tmp_path / "data.json")
    assert [facts[name] for name in ("train", "calibration", "test")] == [len(train), len(calibration), len(test)]


def test_a_student_learns_from_training_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: held-out pictures, or all, in the distillation of the decoder."""
    pictures, config = SOURCES["official with copies"](), planted_config()
    folder, watch = untrained(tmp_path, config, pictures), Watch(monkeypatch)
    monkeypatch.setattr(evaluation, "read_pictures", lambda *_: pictures)
    distillation.distill(folder, distillation.DistillConfig(teacher_steps=2, samples=64), device="cpu")
    train = set(numbers(pictures.images[Run(folder, "cpu").split(pictures)[0]]))
    assert set(watch.seen["nobody in run.students"]) <= train and len(watch.seen) == 1
    assert len(watch.seen["nobody in run.students"]) == 64
