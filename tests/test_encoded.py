"""An encoder that is kept is asked once for each picture: the run is the same to rounding, and bitwise when resumed."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unilat
from started import SHORT, boxes, save
from unilat.maths.seeds import Draws
from unilat.recipe.config import Stage1Config
from unilat.run import encoded
from unilat.run.begin import configured
from unilat.run.encoded import bytes_held, encoded_once
from unilat.run.stages import AutoencoderStage
from unilat.run.trained import Run, read_config
from unilat.signals.stream import Part
from unilat.training.parallel import ALONE

pytest.importorskip("diffusers")
LONG = {**SHORT, "stage1__samples": 160, "stage1__settle": 0, "evaluation__features": "none"}
Maker = Callable[..., tuple[Run, list[str]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxes(tmp_path_factory.mktemp("data") / "boxes.npz")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "vae")


@pytest.fixture(scope="module")
def made(data: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """A run of ten steps on 80 pictures and the lines that it told; ``held``: bytes of latents that it may hold."""
    folder, known = tmp_path_factory.mktemp("runs"), dict[tuple[str, int], tuple[Run, list[str]]]()

    def make(tune: str, held: int = encoded.HELD) -> tuple[Run, list[str]]:
        if (tune, held) not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(encoded, "HELD", held)
                given = {"preset": "tiny", "target_bpp": 0.5, "start": vae, "tune": tune, **LONG}
                told: list[str] = []
                run = unilat.train(
                    data, out=folder / f"{tune}{held}", on_step=lambda one: told.append(str(one)), **given
                )
                known[tune, held] = run, told
        return known[tune, held]

    return make


def logged(run: Run) -> list[dict[str, float]]:
    """The lines of stage 1's log."""
    lines = run.files.log.read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["stage"] == "stage1"]


@pytest.mark.parametrize("tune", ["decoder", "none"])
def test_a_run_is_the_same_to_rounding(made: Maker, tune: str) -> None:
    """Weights, scale, rates and bits of ten steps. Kills: latents of other pictures, latents with the scale of the
    first step, a line that is not told, and an encoder that is not the kept one."""
    (once, told), (always, silent) = made(tune), made(tune, 0)
    assert len(logged(once)) == len(logged(always)) >= 2
    for one, other in zip(logged(once), logged(always), strict=True):
        assert one["bpp"] == pytest.approx(other["bpp"], rel=1e-4) and one["loss"] == pytest.approx(
            other["loss"], rel=1e-4
        )
    ours, theirs = once.autoencoder.state_dict(), always.autoencoder.state_dict()
    assert ours.keys() == theirs.keys() and not torch.equal(ours["encoder.scale"], torch.ones(()))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=2e-3, atol=2e-4)
    assert once.results.bits.value == pytest.approx(always.results.bits.value, rel=1e-3)
    count = once.data.train
    lines = [line for line in told if "made once and held" in line]
    assert len(lines) == 1 and f"latents of {count:,} pictures" in lines[0]
    assert not [line for line in silent if "made once" in line]


def test_what_the_encoder_cost_is_what_it_was_asked(made: Maker) -> None:
    """Kills: FLOPs of a pass at each step where each picture had one, and those of one where each step had its own."""
    (once, _), (always, _) = made("decoder"), made("decoder", 0)
    each = unilat.describe(once.config).parts["encoder"].forward_flops
    assert once.results.costs.training_flops["encoder"] == once.data.train * each
    assert always.results.costs.training_flops["encoder"] == 160 * each and once.data.train < 160
    assert once.header["encoded"] == str(once.data.train) and "encoded" not in always.header


def test_a_resumed_run_is_bitwise_the_unbroken_one(made: Maker, data: Path, vae: Path, tmp_path: Path) -> None:
    """Also where the model's folder has gone. Kills: latents of untrained weights after a resume, blocks of pictures
    that depend on where it stopped."""
    whole, _ = made("decoder")
    gone = shutil.copytree(vae, tmp_path / "vae")
    given = {"preset": "tiny", "target_bpp": 0.5, "out": tmp_path / "run", "tune": "decoder", **LONG}
    with pytest.raises(unilat.Stopped):
        unilat.train(data, start=gone, on_step=lambda record: getattr(record, "step", 0) != 4, **given)
    shutil.rmtree(gone)
    run = unilat.train(read_config(tmp_path / "run"), out=tmp_path / "run")
    ours, theirs = run.autoencoder.state_dict(), whole.autoencoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def stage_of(data: Path, start: Path, flip: bool = False, samples: int = 160, **said: Any) -> AutoencoderStage:
    """Stage 1 on 70 pictures, its latents at some scale."""
    config = configured(data, preset="tiny", target_bpp=0.5, start=start, **said)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = unilat.run.train.build_autoencoder(config, 1)
        if config.autoencoder.frozen:
            model.rescale(1.7)
        pictures = torch.randint(0, 256, (70, 1, 16, 16), dtype=torch.uint8)
    return AutoencoderStage(model, pictures, pictures[:0], Stage1Config(target_bpp=0.5, samples=samples), flip=flip)


@pytest.mark.parametrize("kind", ["AutoencoderKL", "ours"])
def test_a_step_has_the_losses_of_its_own_batch(data: Path, vae: Path, tiny_run: Path, kind: str) -> None:
    """Bit for bit where the pictures are encoded in one block, at whatever scale. Kills: a scale that is forgotten or
    counted twice, rows in another order, pictures in [0, 1]."""
    of = stage_of(data, tiny_run if kind == "ours" else vae, tune="decoder")
    stage = encoded_once(of.stage(), of, ALONE, str)
    stage.prepare()
    indices, block = torch.tensor([31, 2, 40, 7, 69]), torch.arange(32)
    for _ in range(2):
        whole, parts = of.losses(of.batch(block), Draws.keyed(0, 1, 0, 32))
        same, again = stage.losses(stage.batch(block), Draws.keyed(0, 1, 0, 32))
        assert torch.equal(whole, same) and torch.equal(parts["bpp"], again["bpp"])
        one, _ = of.losses(of.batch(indices), Draws.keyed(0, 2, 0, 5))
        other, _ = stage.losses(stage.batch(indices), Draws.keyed(0, 2, 0, 5))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        of.model.rescale(0.6)


def test_where_latents_are_held(data: Path, vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: latents of pictures that look another way each time, of an encoder that learns, more than the bound, of
    pictures that lie on a disk, and of a run that sees a picture once at the most."""
    of = stage_of(data, vae)
    assert bytes_held(of) == 70 * 3 * 8 * 8 * 4
    assert bytes_held(stage_of(data, vae, flip=True)) == bytes_held(stage_of(data, vae, tune="all")) == 0
    assert bytes_held(stage_of(data, vae, samples=70)) == 0 < bytes_held(stage_of(data, vae, samples=71))
    monkeypatch.setattr(encoded, "HELD", 70 * 3 * 8 * 8 * 4 - 1)
    assert bytes_held(of) == 0
    monkeypatch.undo()
    of.pictures = Part.__new__(Part)
    assert bytes_held(of) == 0


def test_the_encoder_is_asked_once(data: Path, vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """70 pictures in three calls of at most 32. Kills: an encoder that is asked at each step all the same, and again
    where training has gone back."""
    of, asked = stage_of(data, vae), list[int]()
    encoder: Any = of.model.encoder
    own = encoder.unscaled

    def unscaled(x: Tensor) -> Tensor:
        asked.append(len(x))
        return own(x)

    monkeypatch.setattr(encoder, "unscaled", unscaled)
    stage = encoded_once(of.stage(), of, ALONE, str)
    for _ in range(2):
        stage.prepare()
        for step in range(3):
            loss, _ = stage.losses(stage.batch(torch.arange(16)), Draws.keyed(0, step, 0, 16))
            assert math.isfinite(float(loss.detach().sum()))
    assert asked == [32, 32, 6]
