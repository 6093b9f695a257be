"""Trackers: the same run with and without, what they keep, and what is told where one cannot."""

import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unilat
from unilat.files import read_safetensors
from unilat.maths.seeds import seeded
from unilat.run import tracking
from unilat.run.records import Begun, Note, Record, Shown
from unilat.run.tracking import row, scalars, tracked
from unilat.training.records import Step
from unilat.types import UserError

SHORT: dict[str, Any] = {
    "preset": "tiny",
    "target_bpp": 0.4,
    "stage1__samples": 128,
    "stage1__settle": 0,
    "stage2__samples": 64,
    "data__calibration": 8,
    "evaluation__pictures": 4,
    "evaluation__samples": 4,
}


@pytest.fixture(scope="module")
def pair(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, list[Record], list[Any]]:
    """A run without a tracker, the same with two, and what was told to the tracker and to on_step."""
    folder, told, heard = tmp_path_factory.mktemp("tracked"), list[Record](), list[Any]()
    plain = unilat.train(str(tiny_source), out=folder / "plain", **SHORT)
    same = unilat.train(str(tiny_source), out=folder / "same", track=told.append, on_step=heard.append, **SHORT)
    return plain, same, told, heard


def test_a_run_with_a_tracker_is_bitwise_the_run_without(pair: Any) -> None:
    """Weights, and every number of the log. Kills: pictures that draw from the training's noise, an average written
    into the model that is trained, a look that leaves the networks in another mode."""
    plain, same, _, _ = pair
    for name in ("autoencoder", "base"):
        ours, theirs = (read_safetensors(getattr(run.files, name))[0] for run in (plain, same))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    logs = [[json.loads(line) for line in run.files.log.read_text().splitlines()] for run in (plain, same)]
    assert [{**line, "seconds": 0} for line in logs[0]] == [{**line, "seconds": 0} for line in logs[1]]


def test_a_tracker_hears_all_and_on_step_steps_and_notes(pair: Any) -> None:
    """Kills: a configuration that is not the resolved one, a tracker that misses steps, pictures told to on_step, whose
    readers know steps and notes."""
    _, run, told, heard = pair
    assert isinstance(told[0], Begun) and told[0].config == run.config and told[0].folder == run.folder
    assert [one for one in told if isinstance(one, Step | Note)] == heard
    assert [(one.stage, one.step) for one in told if isinstance(one, Step)][-1] == ("stage2", 2)
    assert isinstance(told[0], Begun) and sum(isinstance(one, Begun) for one in told) == 1
    logged = [(one.stage, one.step) for one in told if isinstance(one, Step) and one.logged]
    rows = [json.loads(line) for line in run.files.log.read_text().splitlines()]
    assert logged == [(line["stage"], line["step"]) for line in rows]


def test_pictures_are_of_the_averaged_weights(pair: Any) -> None:
    """Looked at ten times at most; the last samples are what the finished base model makes of this noise, decoded as
    the run decodes. Kills: live weights, another noise each time, one class for all, a decoder without its temperature.
    """
    _, run, told, _ = pair
    shown = [one for one in told if isinstance(one, Shown)]
    assert [(one.stage, one.step) for one in shown if one.stage == "stage1"] == [
        ("stage1", step) for step in (1, 2, 3, 4)
    ]
    first, last = shown[0].pictures, shown[-1]
    assert first.keys() == {"originals", "reconstructions"} and last.stage == "stage2" and last.samples == 64
    assert first["originals"].shape == (8, 1, 16, 16) and first["reconstructions"].dtype == torch.uint8
    assert not torch.equal(first["reconstructions"], shown[3].pictures["reconstructions"])
    makers = [seeded(run.config.seed, "shown", index) for index in range(8)]
    z_1 = torch.stack([torch.randn(run.latent_shape, generator=maker) for maker in makers])
    x_1 = torch.stack([torch.randn((1, 16, 16), generator=maker) for maker in makers])
    how = run.config.evaluation
    z_0 = run.base.sample(z_1, torch.arange(8) % 2, how.base_steps, how.guidance)
    x = run.autoencoder.decode(z_0, how.decoder_temperature * x_1, how.decoder_steps, how.decoder_range)
    assert torch.equal(last.pictures["generated"], run.kind.from_unit(x))


def test_reconstructions_are_what_the_weights_make() -> None:
    """A model that keeps its latent: what is told is its decoding of the encoder's latents with the noise of λ₀.

    Kills: a clean latent for the decoder, originals from the training pictures where some were set aside.
    """
    from unilat.maths.noise import diffuse
    from unilat.recipe import presets
    from unilat.recipe.build import build_autoencoder
    from unilat.run.showing import shown_reconstructions
    from unilat.run.stages import AutoencoderStage

    config, told = presets.get("tiny"), list[Any]()
    torch.manual_seed(0)
    model = build_autoencoder(config, 1).eval()
    pictures = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8)
    of = AutoencoderStage(model, pictures[:30], pictures[30:], config.stage1)
    stage = shown_reconstructions(of.stage(), of, config, told.append)
    assert stage.show is not None and stage.show_every == 4  # of 40 steps
    stage.show(model.state_dict(), 7, 224)
    (one,) = told
    assert (one.stage, one.step, one.samples) == ("stage1", 7, 224)
    assert torch.equal(one.pictures["originals"], pictures[30:38])
    makers = [seeded(config.seed, "shown", index) for index in range(8)]
    with torch.no_grad():
        z = model.encode(pictures[30:38].float() / 127.5 - 1)
        noise = torch.stack([torch.randn(z.shape[1:], generator=maker) for maker in makers])
        x_1 = torch.stack([torch.randn((1, 16, 16), generator=maker) for maker in makers])
        z_0 = diffuse(z, noise, torch.full((8,), config.autoencoder.lambda_0))
        x = model.decode(z_0, config.evaluation.decoder_temperature * x_1, 2, config.evaluation.decoder_range)
    assert torch.equal(one.pictures["reconstructions"], ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))


def test_an_unknown_tracker_and_a_missing_package_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read or made. Kills: a traceback of an import, a line without the way out."""
    with pytest.raises(UserError, match=r"no tracker 'mlflow': `track` is tensorboard, trackio or wandb"):
        tracked("mlflow", print)
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb is not installed: pip install 'unilat\[track\]'"):
        unilat.train("nowhere", track=["wandb"])
    assert tracked((), print) == []


def _step(**changes: Any) -> Step:
    numbers: dict[str, Any] = {"stage": "stage1", "step": 3, "steps": 9, "samples": 96, "loss": 0.5, "seconds": 1.0}
    numbers |= {"metrics": {"loss": 0.5, "bpp": 0.25, "target": float("nan")}, "logged": True}
    return Step(**(numbers | {"samples_per_second": 32.0, "seconds_left": 2.0} | changes))


def test_scalars_are_the_steps_finite_numbers() -> None:
    """Kills: NaN handed to a tracker, the speed left out, the stage left out of a name."""
    assert scalars(_step()) == {"stage1/loss": 0.5, "stage1/bpp": 0.25, "stage1/samples_per_second": 32.0}


def test_a_row_of_pictures_has_a_column_between_two() -> None:
    """Kills: pictures in another order, axes exchanged, no gap, a gap behind the last."""
    grey = torch.arange(2 * 3 * 4, dtype=torch.uint8).view(2, 1, 3, 4)
    found = row(grey)
    assert found.shape == (3, 3, 9) and found.dtype == torch.uint8
    assert torch.equal(found[1, :, :4], grey[0, 0]) and torch.equal(found[2, :, 5:], grey[1, 0])
    assert bool((found[:, :, 4] == 255).all())


class StandIn(types.ModuleType):
    """A tracker's package that notes what it is told; ``breaks``: it fails at that call."""

    def __init__(self, name: str, breaks: str = ""):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self.breaks = breaks
        for call in ("init", "log", "define_metric", "finish"):
            setattr(self, call, self._noting(call))
        self.Image = lambda pixels: ("picture", pixels)

    def _noting(self, call: str) -> Any:
        def note(*given: Any, **named: Any) -> None:
            if call == self.breaks:
                raise ConnectionError("the disk\nis full")
            self.calls.append((call, given[0] if given else None, named))

        return note

    def of(self, call: str) -> list[tuple[Any, dict[str, Any]]]:
        return [(given, named) for name, given, named in self.calls if name == call]


def _begun(folder: Path) -> Begun:
    from unilat.recipe import presets

    return Begun(config=presets.get("tiny"), folder=folder)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_of_dictionaries_keeps_the_same_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers over samples, pictures, the flat configuration; what goes on is the run of before; and it is offline.

    Kills: a new run for each part, steps that are not logged kept, an upload, pictures channels first, a run never
    ended.
    """
    package, told = StandIn(name), list[str]()
    monkeypatch.setitem(sys.modules, name, package)
    pictures = {"generated": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)}
    for _ in range(2):
        (tracker,) = tracked([name, name], told.append)
        tracker(_begun(tmp_path / "run"))
        tracker(_step())
        tracker(_step(logged=False))
        tracker(Note("reading"))
        tracker(Shown(stage="stage2", step=4, samples=128, pictures=pictures))
        tracker.close()
    first, second = (named for _, named in package.of("init"))
    assert first == second and first["resume"] == "allow" and first["config"]["stage1.samples"] == 1280
    assert first["name"].startswith("run") and first["project"] == "unilat"
    if name == "wandb":
        assert first["mode"] == "offline" and first["dir"] == str(tmp_path / "run" / "track" / "wandb") and first["id"]
        assert ("stage2/*", {"step_metric": "stage2/samples"}) in package.of("define_metric")
    logged = [given for given, _ in package.of("log")]
    assert len(logged) == 4 and logged[0] == {"stage1/samples": 96, **scalars(_step())}
    kind, pixels = logged[1]["stage2/generated"]
    assert (logged[1]["stage2/samples"], kind, pixels.shape) == (128, "picture", (4, 9, 3))
    assert len(package.of("finish")) == 2 and told == []


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_fails_ends_and_the_training_does_not(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: hours of training lost with a full disk of a tracker's, the failure told at every step, or not at all."""
    package, told = StandIn("wandb", call), list[str]()
    monkeypatch.setitem(sys.modules, "wandb", package)
    (tracker,) = tracked("wandb", told.append)
    for record in (_begun(tmp_path), _step(), _step()):
        tracker(record)
    tracker.close()
    (line,) = told
    assert line == "wandb keeps nothing from here on, and the training goes on (ConnectionError: the disk is full)"


def test_the_error_of_a_function_goes_through() -> None:
    """It is the user's own. Kills: their mistake swallowed with a package's."""

    def broken(record: Record) -> None:
        raise ZeroDivisionError

    (tracker,) = tracked(broken, print)
    with pytest.raises(ZeroDivisionError):
        tracker(_step())


def test_tensorboards_file_is_read_back(tmp_path: Path) -> None:
    """Scalars over samples, the picture, the configuration; a run that goes on from before takes back what it had told
    beyond. Kills: steps for samples, a part of the run told twice, a configuration left out, colours exchanged."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told, picture = list[str](), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    picture[:, 0] = 255
    for part in ((1, 2, 3), (2, 3, 4)):  # the checkpoint was of step 1
        (tracker,) = tracked("tensorboard", told.append)
        tracker(_begun(tmp_path))
        for step in part:
            tracker(_step(step=step, samples=32 * step, loss=step + len(part) * 0.1 * (4 in part)))
        tracker(Shown(stage="stage1", step=part[-1], samples=32 * part[-1], pictures={"originals": picture}))
        tracker.close()
    assert told == []
    found = EventAccumulator(str(tmp_path / "track" / "tensorboard" / "stage1"))
    found.Reload()
    events = [(event.step, round(event.value, 3)) for event in found.Scalars("stage1/loss")]
    assert events == [(32, 1.0), (64, 2.3), (96, 3.3), (128, 4.3)]
    assert "stage1/bpp" in found.Tags()["scalars"] and "stage1/target" not in found.Tags()["scalars"]
    (image,) = [one for one in found.Images("stage1/originals") if one.step == 128]
    from io import BytesIO

    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(image.encoded_image_string)).convert("RGB"))
    assert pixels.shape == (4, 4, 3) and pixels[0, 0].tolist() == [255, 0, 0]
    text = EventAccumulator(str(tmp_path / "track" / "tensorboard" / "run"))
    text.Reload()
    (config,) = [text.Tensors(tag)[-1] for tag in text.Tags()["tensors"]]
    assert b'"target_bpp"' in config.tensor_proto.string_val[0]
