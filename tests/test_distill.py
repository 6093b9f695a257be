"""`unilat distill` on a real run of some seconds, and the commands that then take the fast networks."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unilat
from unilat.cli import main
from unilat.files import read_json, read_safetensors, write_json
from unilat.maths.samplers import ddim, uniform_grid
from unilat.maths.seeds import Draws
from unilat.nets.decoder import Decoder
from unilat.nets.denoiser import Denoiser
from unilat.run.distill import DEFAULTS, DistillConfig, distill
from unilat.run.evaluate import own_pictures
from unilat.run.records import Note
from unilat.run.students import decoder_teacher, distill_stage
from unilat.studies.verify import verify_run
from unilat.training.checkpoint import lock
from unilat.training.fast import Choices
from unilat.training.records import Step
from unilat.types import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run with both of its networks distilled by the command line."""
    folder = tmp_path_factory.mktemp("distilled") / "run"
    shutil.copytree(tiny_run, folder)
    assert main(["distill", str(folder), "--steps", "2", "--teacher-steps", "4", "--samples", "960"]) == 0
    words = ["--part", "base", "--steps", "1", "--teacher-steps", "4", "--samples", "96"]
    assert main(["distill", str(folder), *words]) == 0
    return folder


def test_the_fast_networks_are_taken_and_the_full_ones_stay(folder: Path, tiny_run: Path) -> None:
    """Kills: a fast decoder that is the full one, or that replaces it; checkpoints that stay behind."""
    fast, full = unilat.load(folder, decoder="fast", base="fast"), unilat.load(folder)
    before = unilat.load(tiny_run)
    assert (fast.decoder_steps, fast.base_steps) == (2, 1) and fast.distilled and not full.distilled
    latents = full.sample_latents(5, seed=3)
    assert torch.equal(full.decode(latents).images, before.decode(latents).images)
    assert not torch.equal(fast.decode(latents).images, full.decode(latents, steps=2).images)
    assert not torch.equal(fast.sample_latents(5, seed=3).z, full.sample_latents(5, steps=1, guidance=1.0, seed=3).z)
    assert not list(folder.glob("distill-*"))


def test_a_student_is_nearer_to_its_teacher_than_the_full_decoder_is(folder: Path) -> None:
    """Kills: a loss with its sign turned, a target of another picture, a student that is not the one saved."""
    run = unilat.load(folder, decoder="fast")
    pictures = own_pictures(run)
    grid = uniform_grid(*run.config.evaluation.decoder_range, 4, to_clean=True)
    tau = run.config.evaluation.decoder_temperature
    teacher = decoder_teacher(run.autoencoder, pictures.images, grid, tau)
    stage = distill_stage("x", teacher, 2, 1.0, {})
    batch, draws = (
        tuple(rows.to(run.device) for rows in stage.batch(torch.arange(64))),
        Draws.single(torch.Generator().manual_seed(0), 64),
    )
    assert run.few_decoder is not None
    before = stage.losses(batch, draws)[0].mean()
    stage.model.load_state_dict(run.few_decoder.denoise.state_dict())
    after = stage.losses(batch, Draws.single(torch.Generator().manual_seed(0), 64))[0].mean()
    assert after < before


def test_temperature_scales_the_start(folder: Path) -> None:
    """Kills: a temperature that is not the run's own, or that is laid on the latent's noise too."""
    run = unilat.load(folder)
    z_0 = run.sample_latents(3, seed=1)
    made = []

    def watched(z: torch.Tensor, x_1: torch.Tensor, steps: int, span: tuple[float, float]) -> torch.Tensor:
        made.append((z, x_1))
        grid = uniform_grid(*span, steps, to_clean=True)
        return ddim(run.autoencoder.decoder, x_1, grid, generator=(), cond=run.autoencoder.condition(z))

    run.autoencoder.decode = watched  # type: ignore[method-assign]
    run.decode(z_0)
    assert torch.equal(made[0][0].cpu(), z_0.z)
    assert float(made[0][1].std()) == pytest.approx(run.config.evaluation.decoder_temperature, rel=0.05)


def test_evaluate_keeps_both_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: figures of the fast decoder in the report of the full one."""
    before = (folder / "metrics.json").read_bytes()
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--decoder", "fast", "--base", "fast", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == read_json(folder / "metrics-fast.json")
    assert told["reconstruction"]["steps"] == 2 and told["other_steps"] == []
    assert (folder / "metrics.json").read_bytes() == before


def test_an_evaluation_tells_the_guidance_that_made_it(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """Distilled at guidance 1.5, measured when the run is set to 5. Kills: a protocol, a table or JSON with 5; a
    mismatch in silence, where the student is measured and where it is sampled."""
    other = shutil.copytree(folder, tmp_path / "run")
    config = read_json(other / "config.json")
    assert config["evaluation"]["guidance"] == 1.5
    (other / "seal.json").unlink(missing_ok=True)  # an edited configuration is refused otherwise
    write_json(other / "config.json", config | {"evaluation": config["evaluation"] | {"guidance": 5.0}})
    capsys.readouterr()
    assert main(["evaluate", str(other), "--base", "fast", "--json"]) == 0
    told = capsys.readouterr()
    made = json.loads(told.out)["making"]
    assert (made["guidance"], made["base"], made["base_steps"], made["decoder"]) == (1.5, "fast", 1, "full")
    line = "the fast base model was distilled with guidance 1.5 and keeps it; the run's is 5 now"
    assert line in " ".join(told.err.split())
    assert main(["evaluate", str(other), "--base", "fast"]) == 0
    assert "made with guidance 1.5, 1 call of the fast base and" in capsys.readouterr().out
    assert main(["evaluate", str(other)]) == 0
    told = capsys.readouterr()
    assert "made with guidance 5, " in told.out and "distilled" not in told.err
    for words in (["sample", str(other), "-n", "2", "--base", "fast", "--out", str(tmp_path / "s.png")],):
        assert main(words) == 0
        assert line in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sample", "RUN", "--decoder", "fast", "--base", "fast", "--guidance", "2"], "leave both out"),
        (["reconstruct", "RUN", "DATA", "--decoder", "fast", "--steps", "3"], "--steps 2, not 3"),
        (["distill", "RUN", "--steps", "3"], "multiple of --steps 3"),
        (["distill", "RUN", "--steps", "0"], "--steps must be 1 or more, not 0"),
        (["distill", "RUN", "--samples", "0"], "--samples must be 1 or more, not 0"),
        (["distill", "RUN", "--truth", "-1"], "--truth must be 0"),
        (["distill", "RUN", "--part", "base", "--truth", "1"], "--truth is for the decoder"),
        (["sample", "TINY", "--decoder", "fast"], "unilat distill"),
    ],
)
def test_mistakes_end_in_one_line(
    folder: Path, tiny_run: Path, tiny_source: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    """Kills: a traceback, or an option that is taken and ignored."""
    places = {"RUN": str(folder), "TINY": str(tiny_run), "DATA": str(tiny_source)}
    capsys.readouterr()
    assert main([places.get(word, word) for word in words]) == 2
    assert line in capsys.readouterr().err


def test_a_checkpoint_of_other_settings_is_refused(tiny_run: Path) -> None:
    """Kills: half of one distillation and half of another."""
    run = unilat.load(tiny_run)
    teacher = decoder_teacher(run.autoencoder, own_pictures(run).images, uniform_grid(-6.0, 3.0, 4, to_clean=True), 1.0)
    stage = distill_stage("distill-decoder-1", teacher, 4, 1.0, {"truth": 1.0})
    stage.load_state({"truth": 1.0})
    with pytest.raises(UserError, match="other settings"):
        stage.load_state({"truth": 0.0})


@pytest.mark.usefixtures("on_cpu")
def test_the_machines_choices_change_how_it_is_computed_and_not_what(tiny_run: Path, tmp_path: Path) -> None:
    """Kills: choices that are not applied, or that reach the student alone; a second trainer in the same folder."""
    made = {}
    for name, choices in {
        "plain": Choices(),
        "checkpointing": Choices(checkpointing=True),
        "bf16": Choices(precision="bf16"),
    }.items():
        folder = tmp_path / name
        shutil.copytree(tiny_run, folder)
        seen: list[bool] = []

        def watch(module: torch.nn.Module, *_: object, seen: list[bool] = seen) -> None:
            if isinstance(module, Denoiser | Decoder):
                seen.append(module.precision == torch.bfloat16)

        hook = torch.nn.modules.module.register_module_forward_pre_hook(watch)
        distill(folder, DistillConfig(part="base", steps=2, teacher_steps=4, samples=64, truth=0.0), choices=choices)
        hook.remove()
        assert seen and all(seen) if name == "bf16" else not any(seen)
        made[name] = read_safetensors(folder / "fast-base.safetensors")[0]
    plain, again, low = made["plain"], made["checkpointing"], made["bf16"]
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    apart = max(float((plain[name] - low[name]).abs().max()) for name in plain)
    assert 0 < apart < 0.05
    with lock(tmp_path / "plain"), pytest.raises(UserError, match="another process"):
        distill(tmp_path / "plain", DistillConfig(samples=64))


def test_without_a_base_model_there_is_none_to_distil(tiny_run: Path, tmp_path: Path) -> None:
    """Kills: an AttributeError in the user's face."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    (folder / "base.safetensors").unlink()
    (folder / "seal.json").unlink()
    with pytest.raises(UserError, match="no base model"):
        distill(folder, DEFAULTS["base"])
    with pytest.raises(UserError, match="no base model"):
        unilat.load(folder, base="fast")
    with pytest.raises(UserError, match="multiple"):
        distill(folder, DistillConfig(steps=5))


def test_a_stopped_distillation_stands_in_nobodys_way(folder: Path, tmp_path: Path) -> None:
    """Other settings have a folder of their own, told of the one that was stopped; the same settings go on with it.
    Kills: a refusal that another folder is to be chosen, steps that are thrown away, a finished student that goes
    before another is finished, settings that share a folder."""
    run = shutil.copytree(folder, tmp_path / "run")
    student, first = (run / "fast-decoder.safetensors").read_bytes(), DistillConfig(steps=1, samples=128)
    notes, steps = list[str](), list[int]()

    def stop(record: Step | Note) -> bool:
        return not isinstance(record, Step) or record.step < 3

    def listen(record: Step | Note) -> None:
        if isinstance(record, Note):
            notes.append(record.text)
        else:
            steps.append(record.step)

    with pytest.raises(SystemExit):
        distill(run, first, stop)
    assert (run / "fast-decoder.safetensors").read_bytes() == student
    (stopped,) = run.glob("distill-decoder-1-*")
    told = f"{stopped} was stopped: its settings again go on with it; delete it if nobody will"
    other = distill(run, replace(first, samples=64), listen)
    assert (other.samples, steps) == (64, [1, 2]) and told in notes and stopped.is_dir()
    with pytest.raises(SystemExit):
        distill(run, replace(first, learning_rate=2e-3), stop)
    assert len(list(run.glob("distill-decoder-1-*"))) == 2
    steps.clear()
    assert distill(run, first, listen).samples == 128 and steps == [4]
    assert not stopped.exists() and (run / "fast-decoder.safetensors").read_bytes() != student


def test_a_folder_that_cannot_be_written_is_told_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: pictures read, or anything measured, for a run that lies on a disk without rights."""

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    for start in (lambda: distill(folder, DEFAULTS["decoder"], pytest.fail), lambda: verify_run(unilat.load(folder))):
        with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\): take a copy"):
            start()
