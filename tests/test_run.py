"""The main job on 60 pictures: what it leaves, how it goes on, what it refuses."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from unilat.files import read_json, read_safetensors, write_json
from unilat.recipe import presets
from unilat.recipe.config import RunConfig, to_json
from unilat.run import train as run
from unilat.run.facts import read as read_facts
from unilat.run.parts import read_pictures
from unilat.run.records import Note
from unilat.run.stages import AutoencoderStage
from unilat.signals import Pictures
from unilat.training.fast import Choices
from unilat.training.records import Step
from unilat.types import UserError

SOURCE = Path(__file__).parents[1] / "src"


def write_pictures(path: Path, count: int = 60, labels: Any = None, channels: int = 1, seed: int = 0) -> Path:
    """An .npz of grey or coloured pictures of 16 × 16, a bright box in the dark, in three classes."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 40, (count, 16, 16, channels), dtype=np.uint8)
    for picture in pictures:
        row, column, height, width = random.integers(2, 9, 4)
        picture[row : row + height, column : column + width] = random.integers(120, 256, channels)
    np.savez(path, images=pictures, labels=np.arange(count) % 3 if labels is None else labels)
    return path


def small(source: Path) -> RunConfig:
    """The preset tiny at six steps a stage, with a calibration in the middle."""
    config = presets.get("tiny")
    return replace(
        config,
        data=replace(config.data, source=str(source), calibration=8),
        stage1=replace(config.stage1, samples=96, batch=16, warmup=16, ema_halflife=8, calibrate_every=48),
        stage2=replace(config.stage2, samples=96, batch=16, warmup=16, ema_halflife=8),
        evaluation=replace(config.evaluation, pictures=8, samples=6, decoder_steps=2, step_counts=(1, 2), base_steps=2),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "boxes.npz")


EXACT = Choices(deterministic=True)
"""What gives the same bits twice on a GPU too."""


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    results = run.train(small(source), folder, choices=EXACT)
    assert results == run.load(folder).results and (folder / "report.html").is_file()
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    """Logged steps, without what the clock says."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def weights(folder: Path) -> dict[str, tuple[dict[str, torch.Tensor], dict[str, str]]]:
    """Tensors and headers of what a run is kept for."""
    names = ("autoencoder.safetensors", "base.safetensors", "latents/train-00000.safetensors")
    return {name: read_safetensors(folder / name) for name in names}


def assert_same(a: Path, b: Path) -> None:
    for name, (tensors, header) in weights(a).items():
        others, other_header = weights(b)[name]
        assert header == other_header, name
        assert tensors.keys() == others.keys()
        for key, tensor in tensors.items():
            assert torch.equal(tensor.nan_to_num(7.0), others[key].nan_to_num(7.0)), (name, key)


def test_a_run_leaves_every_file(whole: Path, source: Path) -> None:
    """Kills: a file that the report, the tables or other tools look for and that nobody writes."""
    files = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    wanted = {"config.json", "manifest.json", "data.json", "log.jsonl", "phases.json", "metrics.json", "report.html"}
    wanted |= {f"{name}.safetensors" for name in ("autoencoder", "base", "evaluation", "latents/train-00000")}
    assert wanted <= files and not [name for name in files if name.endswith((".part", ".tmp"))]
    assert (whole / "config.json").read_text("utf-8").strip() == to_json(small(source))
    data = read_json(whole / "data.json")
    assert (data["count"], data["channels"], data["size"], len(data["classes"])) == (60, 1, [16, 16], 3)
    assert data["train"] + data["calibration"] + data["test"] == 60 and data["calibration"] > 0
    assert {"unilat", "torch", "python", "threads", "cpu", "date", "commit"} <= read_json(
        whole / "manifest.json"
    ).keys()


def test_metrics_and_arrays_are_the_contracts(whole: Path) -> None:
    """Kills: a number without its error, count and unit; an array of another shape than the report reads."""
    results = run.load(whole).results
    bits = results.bits
    assert bits.unit == "bits per pixel" and bits.n == 6 and (bits.stderr or 0) > 0 and bits.target == 0.3
    assert "upper bound" in bits.protocol
    assert results.reconstruction.steps == 2 and [row.steps for row in results.by_steps] == [1, 2]
    for counted in (results.costs.parameters, results.costs.training_flops):
        assert all(counted[part] > 0 for part in ("encoder", "prior", "decoder", "base"))
    phases = {row.name: row for row in results.costs.phases}
    assert {"read pictures", "stage 1", "encode", "stage 2", "evaluate"} <= phases.keys()
    assert all(row.seconds >= 0 and row.peak_memory_mib > 50 for row in phases.values())
    arrays, _ = read_safetensors(whole / "evaluation.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in arrays.items()}
    assert shapes["originals"] == shapes["reconstructions_1"] == shapes["reconstructions_2"] == (6, 1, 16, 16)
    assert (shapes["samples"], shapes["sample_labels"]) == ((6, 1, 16, 16), (6,))
    assert (shapes["bit_map"], shapes["bit_maps"], shapes["bits_each"]) == ((4, 4), (6, 4, 4), (6,))
    assert shapes["channel_bits"] == (4,) and shapes["curve_edges"][0] == shapes["curve_bits"][0] + 1


def test_the_log_tells_both_stages(whole: Path) -> None:
    """Kills: a stage that is not logged, and a controller or a calibration of which nothing is seen."""
    rows = lines(whole)
    assert [row["stage"] for row in rows] == sorted(row["stage"] for row in rows)
    assert {row["stage"] for row in rows} == {"stage1", "stage2"}
    assert all(
        {"bpp", "target", "loss_factor", "decoder", "loss"} <= row.keys() for row in rows if row["stage"] == "stage1"
    )
    assert any("calibration_bpp" in row for row in rows)
    last = {row["stage"]: (row["step"], row["samples"]) for row in rows}
    assert last == {"stage1": (6, 96), "stage2": (6, 96)}


def test_run_again_trains_nothing(whole: Path, source: Path) -> None:
    """Kills: a finished stage begun anew, latents or weights written again, other numbers from the same weights."""
    names = ("autoencoder.safetensors", "base.safetensors", "latents/train-00000.safetensors", "log.jsonl")
    before = [((whole / name).stat().st_mtime_ns, (whole / name).read_bytes()) for name in names]
    numbers = read_json(whole / "metrics.json")
    told: list[Step | Note] = []
    again = run.train(small(source), whole, told.append)
    assert not [one for one in told if isinstance(one, Step)]
    assert before == [((whole / name).stat().st_mtime_ns, (whole / name).read_bytes()) for name in names]
    assert again is not None
    for name in ("bits", "reconstruction", "other_steps"):
        assert again.to_json()[name] == numbers[name]


def test_interrupted_in_both_stages_is_bitwise_the_same(whole: Path, source: Path, tmp_path: Path) -> None:
    """Kills: any state that an interruption loses: the controller's, noise, order, average, calibration."""
    folder, config = tmp_path / "interrupted", small(source)

    def stop_at(stage: str, step: int) -> Callable[[Step | Note], None]:
        def progress(told: Step | Note) -> None:
            if isinstance(told, Step) and (told.stage, told.step) == (stage, step):
                os.kill(os.getpid(), signal.SIGTERM)

        return progress

    for stage, step, done in (("stage1", 2, []), ("stage1", 4, []), ("stage2", 3, ["autoencoder.safetensors"])):
        with pytest.raises(SystemExit) as stopped:
            run.train(config, folder, stop_at(stage, step), choices=EXACT)
        assert stopped.value.code == 143
        assert [path.name for path in folder.glob("*.safetensors")] == done
    run.train(config, folder, choices=EXACT)
    assert_same(folder, whole)
    ours, undisturbed = lines(folder), lines(whole)
    assert {(row["stage"], row["step"]): row for row in undisturbed}.items() <= {
        (row["stage"], row["step"]): row for row in ours
    }.items()
    assert len({(row["stage"], row["step"]) for row in ours}) == len(ours)


def test_a_prior_settles_before_the_trim_and_goes_on_where_it_stopped(
    whole: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a prior that settles before its encoder, weights or samples that go missing, a scale trimmed before it,
    a stop in it that begins it anew, FLOPs that nobody counts."""
    old = small(source)
    config = replace(old, stage1=replace(old.stage1, settle=512), stage2=replace(old.stage2, samples=0))
    first, second = tmp_path / "first", tmp_path / "second"
    run.train(config, first, choices=EXACT)
    told = lines(first)
    assert [row["stage"] for row in told] == sorted((row["stage"] for row in told), reverse=True)
    assert (told[-1]["stage"], told[-1]["samples"]) == ("prior", 512)
    flops = [run.describe(one, 1).parts["prior"].training_flops for one in (config, old)]
    assert flops[0] / flops[1] == pytest.approx((96 + 512) / 96) and run.load(first).results.bits.target == 0.3
    before, after = (read_safetensors(folder / "autoencoder.safetensors") for folder in (whole, first))
    assert before[1]["untrimmed_bpp"] != after[1]["untrimmed_bpp"]
    assert all(row["target"] == pytest.approx(0.3 / 0.8) for row in told if row["stage"] == "stage1")
    made, pictures = run.load(first), read_pictures(config.data, None)
    assert isinstance(pictures, Pictures)
    train, calibration = (pictures.images[indices] for indices in made.split(pictures)[:2])
    one = AutoencoderStage(made.autoencoder, train, calibration, config.stage1)
    assert one.calibration_rate(made.autoencoder, 8, 0) == pytest.approx(float(after[1]["calibration_bpp"]), rel=1e-3)
    same = {name for name in before[0] if torch.equal(before[0][name], after[0][name])}
    assert len([name for name in same if name.startswith("decoder.")]) > 10
    assert not [name for name in same if name.startswith("prior.net.blocks")]
    real = run.fit

    def interrupted(stage: Any, *rest: Any, **named: Any) -> Any:
        if stage.name != "prior":
            return real(stage, *rest, **named)
        real(stage, *rest, **named, stop_at=3)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.train(config, second, choices=EXACT)
    monkeypatch.undo()
    assert not (second / "autoencoder.safetensors").exists() and run.train(config, second, choices=EXACT)
    again = read_safetensors(second / "autoencoder.safetensors")
    assert again[1] == after[1] and all(torch.equal(again[0][name], after[0][name]) for name in after[0])


def test_another_configuration_is_refused_by_name(whole: Path, source: Path) -> None:
    """Kills: a run that goes on with other settings than it began with, or a refusal that does not say which."""
    config = small(source)
    before = {path: path.read_bytes() for path in whole.rglob("*.json")}
    other = replace(config, seed=5, stage1=replace(config.stage1, target_bpp=0.2))
    with pytest.raises(
        UserError, match=r"another configuration \(stage1.target_bpp: 0.3 and 0.2; seed: 0 and 5\).*`out`"
    ):
        run.train(other, whole)
    assert before == {path: path.read_bytes() for path in whole.rglob("*.json")}


def test_only_the_evaluation_may_change(whole: Path, source: Path, tmp_path: Path) -> None:
    """Kills: a finished run that must be trained again to be measured with more steps."""
    folder, config = shutil.copytree(whole, tmp_path / "copy"), small(source)
    more = replace(config, evaluation=replace(config.evaluation, decoder_steps=3, samples=2))
    run.train(more, folder)
    assert run.load(folder).results.reconstruction.steps == 3
    assert_same(folder, whole)


def test_changed_pictures_are_refused(whole: Path, source: Path) -> None:
    """Kills: held-out pictures that slip into training when a folder grows between two parts of a run."""
    before, numbers = source.read_bytes(), (whole / "data.json").read_bytes()
    try:
        write_pictures(source, count=61)
        with pytest.raises(UserError, match=r"boxes\.npz has changed since .* choose another `out`"):
            run.train(small(source), whole)
    finally:
        source.write_bytes(before)
    assert (whole / "data.json").read_bytes() == numbers


def test_stage_1_alone_on_a_class_of_one_picture_in_colour(tmp_path: Path) -> None:
    """Kills: stage 2 that cannot be left out, a split that needs two of each class, grey taken for granted, and a
    base model whose absence is a traceback; the loss factor that the user fixed must stay."""
    labels = np.array([0] * 12 + [1] * 11 + [2])
    config = small(write_pictures(tmp_path / "few.npz", 24, labels, channels=3))
    stage1 = replace(config.stage1, target_bpp=None, loss_factor=1.5, samples=32, unit_scale=False)
    config = replace(config, stage1=stage1, stage2=replace(config.stage2, samples=0))
    folder = tmp_path / "run"
    run.train(config, folder)
    results = run.load(folder).results
    assert not (folder / "base.safetensors").exists() and results.generation is None
    assert results.bits.target is None and math.isfinite(results.bits.value)
    assert {row["loss_factor"] for row in lines(folder)} == {1.5}
    assert (folder / "report.html").stat().st_size > 1000
    done = run.load(folder)
    assert done.pictures(str(tmp_path / "few.npz"))[0].shape == (24, 3, 16, 16)
    with pytest.raises(UserError, match="has no base model: train stage 2"):
        done.sample(1)


def test_a_base_of_other_latents_is_refused(whole: Path, tmp_path: Path) -> None:
    """Kills: a base model beside an autoencoder that was trained again: its samples would be noise."""
    folder = shutil.copytree(whole, tmp_path / "copy")
    tensors, header = read_safetensors(folder / "base.safetensors")
    (folder / "seal.json").unlink()
    run.write_safetensors(folder / "base.safetensors", tensors, header | {"encoder_sha256": "0" * 64})
    with pytest.raises(UserError, match="another encoder's latents; train stage 2 again"):
        run.load(folder)


def test_the_header_names_the_weights_that_lie_in_the_file(whole: Path) -> None:
    """Kills: a hash taken before the last change of the weights (average, trim of the scale)."""
    done = run.load(whole)
    with safe_open(whole / "autoencoder.safetensors", framework="pt") as file:
        assert file.metadata()["encoder_sha256"] == run.fingerprint(done.autoencoder.encoder) == done.encoder_sha256


PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from unilat.run import train as run
from unilat.recipe.config import from_json
folder = Path(sys.argv[1])
run.train(from_json((folder / "wanted.json").read_text()), folder / "run")
"""


@pytest.mark.slow
def test_two_processes_train_what_one_does(whole: Path, source: Path, tmp_path: Path) -> None:
    """Kills: noise, labels or losses that depend on the process; a controller that moves differently on each; two
    processes that both claim the folder. Both real stages, by torchrun, at equal global batch: losses within 1e-5."""
    (tmp_path / "wanted.json").write_text(to_json(small(source)))
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "program.py"), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, alone = lines(tmp_path / "run"), lines(whole)
    assert [(row["stage"], row["step"]) for row in ours] == [(row["stage"], row["step"]) for row in alone]
    for row, other in zip(ours, alone, strict=True):
        for name in {"loss", "bpp", "decoder", "loss_factor", "calibration_bpp"} & other.keys():
            assert row[name] == pytest.approx(other[name], rel=1e-5), (row["stage"], row["step"], name)


def test_no_class_is_lost_to_calibration(tmp_path: Path) -> None:
    """Kills a calibration that is drawn without a look at the classes: a lone picture must be trained on."""
    labels = np.concatenate([np.arange(20), np.full(180, 20)])
    path = write_pictures(tmp_path / "lone.npz", 200, labels)
    config = small(path)
    config = replace(config, data=replace(config.data, calibration=100))
    pictures = run.read_pictures(config.data, None)
    train, calibration, test = run.split_pictures(config, pictures)
    assert set(pictures.labels[train].tolist()) == set(range(21))
    assert len(calibration) > 5 and not set(train.tolist()) & {*calibration.tolist(), *test.tolist()}


def test_two_trainings_on_one_folder(whole: Path, source: Path) -> None:
    """Kills a lock around the stages alone: reading, trimming and measuring belong to the run, too."""
    from unilat.training.checkpoint import lock

    with lock(whole), pytest.raises(UserError, match="another process"):
        run.train(small(source), whole)


def test_the_facts_of_a_run_are_read_as_they_were_written(whole: Path) -> None:
    """Kills: a count under another's name, and a file of before, which says less, that is refused."""
    facts, tree = run.load(whole).data, read_json(whole / "data.json")
    assert json.loads(json.dumps(facts.to_json())) == tree and facts.size == (16, 16)
    assert (facts.train, facts.calibration, facts.test) == (tree["train"], tree["calibration"], tree["test"])
    before = whole / "before.json"
    write_json(before, {name: tree[name] for name in ("source", "classes", "channels", "sha256")})
    found = read_facts(before)
    assert (found.count, found.size, found.streamed, found.channels) == (0, (), False, facts.channels)
    before.unlink()
