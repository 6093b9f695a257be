"""A run on pictures that do not fit into memory: read as they are needed, from files and from shards."""

import io
import itertools
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import unilat
from unilat.files import read_json, read_safetensors
from unilat.recipe import presets
from unilat.recipe.build import build_autoencoder
from unilat.recipe.config import RunConfig
from unilat.run import parts, train
from unilat.run.evaluate import held_out
from unilat.run.records import Note
from unilat.run.stages import AutoencoderStage, schedule
from unilat.signals import Pictures, open_source
from unilat.signals.stream import Part, Streamed
from unilat.training.engine import fit
from unilat.training.fast import Choices
from unilat.training.records import Step
from unilat.types import UserError


def written(folder: Path, count: int = 72) -> Path:
    """PNGs of 20 × 26 in colour, classes by folder; no two alike."""
    random = np.random.Generator(np.random.PCG64(3))
    for index in range(count):
        pixels = (np.arange(20)[:, None, None] * 6 + random.integers(0, 90, (20, 26, 3))).astype(np.uint8)
        place = folder / "abc"[index % 3] / f"{index:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return folder


def configured(source: Path) -> RunConfig:
    """The preset tiny at four steps a stage."""
    config = presets.get("tiny")
    return replace(
        config,
        data=replace(config.data, source=str(source), size=(16, 24), calibration=8),
        stage1=replace(config.stage1, samples=64, batch=16, warmup=16, ema_halflife=8, calibrate_every=32, settle=128),
        stage2=replace(config.stage2, samples=64, batch=16, warmup=16, ema_halflife=8),
        evaluation=replace(config.evaluation, pictures=6, samples=4, classifier_samples=64),
    )


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are kept in a folder of the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fits into memory unless a run has begun with it there."""
    monkeypatch.setattr(parts, "BUDGETS", {None: 0, True: 0, False: 2**60})


def trained(source: Path, folder: Path, workers: int = 0) -> Path:
    train.train(configured(source), folder, choices=Choices(workers=workers))
    return folder


def test_a_streamed_run_is_the_run_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files in memory, streamed, and streamed by two workers: weights, latents and numbers are equal to the
    last bit. Kills: another split, order or picture where they are read one by one."""
    source = written(tmp_path / "photos")
    memory = trained(source, tmp_path / "memory")
    monkeypatch.setattr(parts, "BUDGETS", {None: 0, True: 0, False: 2**60})
    for name, workers in (("streamed", 1), ("workers", 2)):
        streamed = trained(source, tmp_path / name, workers)
        assert (read_json(memory / "data.json")["streamed"], read_json(streamed / "data.json")["streamed"]) == (
            False,
            True,
        )
        for file in ("autoencoder", "base", "latents/train-00000"):
            one, other = (read_safetensors(folder / f"{file}.safetensors")[0] for folder in (memory, streamed))
            assert all(torch.equal(one[key], other[key]) for key in one), file
        results, others = unilat.load(memory).results, unilat.load(streamed).results
        assert (results.bits, results.reconstruction) == (others.bits, others.reconstruction)


@pytest.mark.usefixtures("streaming")
def test_shards_are_trained_on(tmp_path: Path) -> None:
    """Tar shards in WebDataset naming go all the way, with their classes and names. Kills: shards that only open."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as archive:
            for index, path in enumerate(sorted(written(tmp_path / "photos").rglob("*.png"))[shard::3]):
                label = path.parent.name.encode()
                for name, data in ((f"{index:04}.png", path.read_bytes()), (f"{index:04}.cls", label)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    run = unilat.load(trained(folder, tmp_path / "run"))
    assert run.classes == ["a", "b", "c"] and run.data.count == 72 and run.data.streamed
    images, _ = held_out(run)
    assert images.shape[1:] == (3, 16, 24) and run.results.bits.n == min(6, len(images))


@pytest.mark.usefixtures("streaming")
def test_a_run_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run begun in streams is measured and trained in streams where all would fit today. Kills: another hash, and so
    a refusal, because the memory is another."""
    folder = trained(written(tmp_path / "photos"), tmp_path / "run")
    monkeypatch.setattr(parts, "BUDGETS", {None: 2**60, True: 0, False: 2**60})
    shutil.rmtree(folder / "latents")
    train.train(configured(tmp_path / "photos"), folder)
    assert read_json(folder / "data.json")["streamed"]
    assert unilat.evaluate(unilat.load(folder)).bits == unilat.load(folder).results.bits


def test_a_part_is_read_where_it_is_indexed(tmp_path: Path) -> None:
    """Kills: a part that reads all, another picture for a place of the part, pictures of elsewhere that stand in."""
    config = configured(written(tmp_path / "photos"))
    source = parts.read_pictures(config.data, None, True)
    memory = parts.read_pictures(config.data, None, False)
    assert isinstance(source, Streamed)
    indices = torch.tensor([60, 3, 17, 40])
    some = parts.part(source, indices)
    assert isinstance(some, Part) and some.shape == (4, 3, 16, 24) and len(some) == 4
    wanted = parts.rows_of(memory, indices)
    assert torch.equal(some[torch.tensor([2, 0])], wanted[[2, 0]]) and torch.equal(some[1:3], wanted[1:3])
    assert parts.names_of(source, indices) == parts.names_of(memory, indices)
    path = tmp_path / "photos" / str(parts.names_of(source, indices[1:2])[0])  # type: ignore[index]
    assert path.is_file()


def cropped(source: Path, **changes: Any) -> RunConfig:
    """Pictures of 20 × 26 at 16 × 16: four places across; three epochs of stage 1 and a prior that follows."""
    config = configured(source)
    autoencoder = replace(config.autoencoder, covariance_up_to=1024)
    stage1 = replace(config.stage1, samples=160, follow_every=32)
    data = replace(config.data, size=(16, 16), **{"fit": "random-crop"} | changes)
    return replace(config, data=data, autoencoder=autoencoder, stage1=stage1)


def begun(config: RunConfig, folder: Path, workers: int, budget: int, stops: tuple[int | None, ...]) -> Tensor:
    """Stage 1's weights, trained by so many workers in as many goes as there are stops."""
    source = open_source(config.data.source, size=config.data.size, fit=config.data.fit, memory_budget=budget)
    assert isinstance(source, Streamed) and source.resident == (budget > 0)
    train_indices, calibration, _ = parts.split_pictures(config, source)
    source.keep(train_indices)
    for stop_at in stops:
        torch.manual_seed(1)
        images, held = parts.part(source, train_indices, config.seed), source.rows(calibration)
        stage = AutoencoderStage(build_autoencoder(config, 3), images, held, config.stage1)
        done = fit(
            stage.stage(), schedule(config.stage1), folder, config.seed, device="cpu", workers=workers, stop_at=stop_at
        )
    return torch.cat([one.flatten() for one in done.ema.values()])


def test_random_crops_are_a_function_of_seed_epoch_and_picture(tmp_path: Path) -> None:
    """From files and from memory, by 0, 1 and 4 workers and after stops, one of them within an epoch: equal weights to
    the last bit; another seed of the run, or centre crops, give others. Kills: cuts that hang on who makes a batch, how
    much memory there is or when a run was stopped; one cut for all epochs."""
    config = cropped(written(tmp_path / "photos"))
    wanted = begun(config, tmp_path / "0", 0, 0, (None,))
    for name, workers, budget, stops in (
        ("1", 1, 0, (3, None)),
        ("4", 4, 0, (None,)),
        ("memory", 0, 1 << 30, (6, None)),
    ):
        assert torch.equal(begun(config, tmp_path / name, workers, budget, stops), wanted), name
    centre = replace(config, data=replace(config.data, fit="crop"))
    assert not torch.equal(begun(centre, tmp_path / "centre", 0, 0, (None,)), wanted)


def test_training_alone_is_cut_at_random(tmp_path: Path) -> None:
    """A run with random crops keeps what it did, and encodes, calibrates and measures centres. Kills: a cut that is no
    picture's, epochs that see the same; latents of random cuts, a held-out picture that is cut."""
    config = cropped(written(tmp_path / "photos"))
    told: list[str] = []
    train.train(config, tmp_path / "run", lambda record: told.append(str(getattr(record, "text", ""))), device="cpu")
    run = unilat.load(tmp_path / "run", "cpu")
    assert any("72 of 72 pictures leave room" in line for line in told)
    assert not any("do not fit into memory" in line for line in told)
    assert run.config.data.fit == "random-crop" and run.data.converted == {"cropped at random": 72}
    centre = parts.read_pictures(cropped(tmp_path / "photos", fit="crop").data, None)
    source = parts.read_pictures(config.data, None)
    assert isinstance(source, Streamed) and source.resident and isinstance(centre, Pictures)
    train_indices, _, test = run.split(source)
    latents = read_safetensors(tmp_path / "run" / "latents" / "train-00000.safetensors")[0]["z"]
    torch.testing.assert_close(latents, run.latents(centre.images[train_indices]), rtol=1e-3, atol=1e-4)
    assert torch.equal(held_out(run)[0], centre.images[test])
    assert torch.equal(run.read(str(tmp_path / "photos")).images, centre.images)
    images = parts.part(source, train_indices, config.seed)
    stage = AutoencoderStage(run.autoencoder, images, centre.images[:8], config.stage1)
    epochs = [stage.batch(torch.arange(len(images)) + len(images) * epoch)[0] for epoch in range(4)]
    moved = [(one != other).flatten(1).any(1).double().mean() for one, other in itertools.pairwise(epochs)]
    assert all(0.5 < float(share) < 1.0 for share in moved), moved
    plain = AutoencoderStage(run.autoencoder, centre.images, centre.images[:8], config.stage1)
    assert (stage.stage().by_epoch, plain.stage().by_epoch) == (True, False)


@pytest.mark.usefixtures("streaming")
def test_a_picture_lost_while_training_is_told_counted_and_named(tmp_path: Path) -> None:
    """Above the share that the user sets the run stops, and goes on with another share and the file back. Kills: a loss
    that nobody hears of, that a stopped run forgets or that refuses the run for its share."""
    source, folder, notes = written(tmp_path / "photos"), tmp_path / "run", list[str]()
    kept = {path: path.read_bytes() for path in sorted(source.rglob("*.png"))}
    lost = list(kept)[::10]

    def losing(told: object) -> None:
        if isinstance(told, Note):
            notes.append(told.text)
        elif isinstance(told, Step):
            for path in lost:
                path.unlink(missing_ok=True)

    strict = replace(configured(source), data=replace(configured(source).data, unreadable_share=0.0))
    with pytest.raises(UserError, match=r"1 of 72 pictures cannot be read, .* allow a larger data.unreadable_share"):
        train.train(strict, folder, losing)
    (name,) = read_json(folder / "data.json")["unreadable"]
    assert source / name in lost and any(note.startswith("1 of 72 pictures could not be read") for note in notes)
    for path, content in kept.items():
        path.write_bytes(content)
    train.train(configured(source), folder, lambda told: None)
    assert [*read_json(folder / "data.json")["unreadable"]] == [name] and unilat.load(folder).results.bits.n == 6
