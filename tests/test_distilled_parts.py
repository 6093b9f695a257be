"""What `unilat distill` hands to the engine and what it keeps, with training left out."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from measured import fitted
from planted import coloured, planted_config, untrained
from unilat.files import read_json, read_safetensors, write_json, write_safetensors
from unilat.maths.seeds import Draws
from unilat.nets.condition import Condition
from unilat.results import Making
from unilat.run import distill as distillation
from unilat.run import evaluate as evaluation
from unilat.run.distill import DistillConfig, distill
from unilat.run.making import making, mismatches
from unilat.run.trained import Run
from unilat.signals import Pictures
from unilat.training.plan import Schedule
from unilat.training.records import Fitted
from unilat.types import UserError


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return coloured(60, held_out=torch.arange(60) % 4 == 1)


@pytest.fixture
def folder(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is not trained, whose source is ``pictures``."""
    monkeypatch.setattr(evaluation, "read_pictures", lambda *_: pictures)
    return untrained(tmp_path, planted_config(), pictures)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of the engine, which trains nothing and returns an average that is not the model's weights."""
    calls: list[Any] = []

    def fit(stage: Any, plan: Schedule, folder: Path, seed: int, **named: Any) -> Fitted:
        now = stage.model.state_dict()
        average = {name: tensor + 0.01 if tensor.is_floating_point() else tensor for name, tensor in now.items()}
        teacher, rest = teachers[-1]
        named |= {"teacher": teacher, "rest": rest}
        calls.append(SimpleNamespace(stage=stage, plan=plan, folder=folder, seed=seed, average=average, **named))
        folder.mkdir()
        return fitted(average, plan.samples, 1.234)

    def staged(name: str, teacher: Any, *rest: Any) -> Any:
        teachers.append((teacher, rest))
        return real(name, teacher, *rest)

    teachers, real = list[Any](), distillation.distill_stage
    monkeypatch.setattr(distillation, "distill_stage", staged)
    monkeypatch.setattr(distillation, "fit", fit)
    return calls


DECODER = DistillConfig(steps=2, teacher_steps=6, samples=900, batch=30, learning_rate=2e-3, truth=0.5, seed=8)
BASE = DistillConfig(part="base", steps=1, teacher_steps=4, samples=90, truth=0.0)


def test_a_decoders_teacher_is_the_runs_own(folder: Path, pictures: Pictures, fits: list[Any]) -> None:
    """Kills: held-out pictures in the distillation, another range, temperature, weight of the picture or call."""
    told = distill(folder, DECODER, device="cpu")
    (call,) = fits
    run, teacher = Run(folder, "cpu"), call.teacher
    assert torch.equal(teacher.examples, pictures.images[run.split(pictures)[0]])
    assert len(teacher.grid) == 7 and teacher.grid[-1] == math.inf
    torch.testing.assert_close(teacher.grid[:-1].double(), torch.linspace(-5, 2, 6, dtype=torch.float64))
    start = teacher.start(pictures.images[:40], Draws.keyed(0, 0, 0, 40))
    assert float(start.x_1.std()) == pytest.approx(0.25, rel=0.02)
    assert start.truth is not None and torch.equal(start.truth, pictures.images[:40] / 127.5 - 1)
    assert (*call.rest[:2], call.seed) == (3, 0.5, 8)
    assert re.fullmatch(r"distill-decoder-2-[0-9a-f]{8}", call.folder.name) and call.folder.parent == folder
    assert call.log.path == folder / "log.jsonl"
    assert told.to_json() == {
        "fast": str(folder / "fast-decoder.safetensors"),
        "part": "decoder",
        "steps": 2,
        "teacher_steps": 6,
        "samples": 900,
        "seconds": 1.23,
        "temperature": 0.25,
        "guidance": None,
    }


def test_a_fast_decoder_is_the_average_on_every_third_point(folder: Path, fits: list[Any]) -> None:
    """Kills: the last weights kept for the average, the teacher's whole grid, a temperature of one, no settings."""
    distill(folder, DECODER, device="cpu")
    tensors, header = read_safetensors(folder / "fast-decoder.safetensors")
    assert all(torch.equal(tensor, fits[0].average[name]) for name, tensor in tensors.items())
    run = Run(folder, "cpu", decoder="fast")
    assert run.few_decoder is not None and run.decoder_steps == 2 and run.few_decoder.temperature == 0.25
    assert run.few_decoder.grid.tolist() == pytest.approx([-5.0, -5 + 3 * 7 / 5, math.inf])
    settings = json.loads(header["settings"])
    assert (settings["truth"], settings["temperature"], settings["decoder_range"]) == (0.5, 0.25, [-5.0, 2.0])
    assert settings["guidance"] is run.few_decoder.guidance is None


def test_a_bases_teacher_is_guided_and_asked_for_all_classes(folder: Path, fits: list[Any]) -> None:
    """Kills: an unguided teacher, classes left out, the decoder's range or temperature, a student of the guided sum."""
    distill(folder, BASE, device="cpu")
    (call,) = fits
    teacher, run = call.teacher, Run(folder, "cpu", base="fast")
    assert teacher.examples.tolist() == [index % 3 for index in range(4096)]
    torch.testing.assert_close(teacher.grid.double(), torch.linspace(-9, 4, 5, dtype=torch.float64))
    start = teacher.start(teacher.examples[:60], Draws.keyed(0, 0, 0, 60))
    assert start.x_1.shape == (60, 3, 4, 4) and float(start.x_1.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(start.cond.rows, teacher.examples[:60]) and start.truth is None
    level = torch.full((60,), -1.0)
    with torch.no_grad():
        known = teacher.network(start.x_1, level, start.cond)
        unknown = teacher.network(start.x_1, level, Condition(torch.full((60,), 3)))
        guided = teacher.denoise(start.x_1, level, start.cond)
    assert float((known - unknown).abs().max()) > 1e-3
    torch.testing.assert_close(guided, unknown + 2.5 * (known - unknown), rtol=1e-3, atol=1e-4)
    assert run.few_base is not None and run.few_base.temperature == 1.0 and run.base_steps == 1
    assert run.few_base.grid.tolist() == [-9.0, 4.0]
    tensors, _ = read_safetensors(folder / "fast-base.safetensors")
    assert all(torch.equal(tensor, call.average[name]) for name, tensor in tensors.items())


def _set(folder: Path, **evaluation: Any) -> None:
    """Another evaluation in the run's configuration."""
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"evaluation": config["evaluation"] | evaluation})


def test_a_student_tells_what_it_was_distilled_with(folder: Path, fits: list[Any]) -> None:
    """Distilled at guidance 2.5 and temperature 0.25 from log-SNR −5, set to others since. Kills: the configuration's
    numbers told for the student's, full networks told as fast, a mismatch that nobody tells, and one where none is."""
    told = distill(folder, BASE, device="cpu")
    distill(folder, DECODER, device="cpu")
    assert (told.guidance, told.temperature) == (2.5, 1.0)
    assert mismatches(Run(folder, "cpu", "fast", "fast")) == []
    _set(folder, guidance=5.0, decoder_temperature=0.5, decoder_range=[-4.0, 1.0], base_steps=7, decoder_steps=6)
    full, fast = (Run(folder, "cpu", speed, speed) for speed in ("full", "fast"))
    assert making(full) == Making(
        decoder="full",
        decoder_steps=6,
        decoder_range=(-4.0, 1.0),
        decoder_temperature=0.5,
        base="full",
        base_steps=7,
        guidance=5.0,
    )
    made = making(fast)
    assert made.decoder_range == pytest.approx((-5.0, -5 + 3 * 7 / 5))
    assert replace(made, decoder_range=(0.0, 0.0)) == Making(
        decoder="fast",
        decoder_steps=2,
        decoder_range=(0.0, 0.0),
        decoder_temperature=0.25,
        base="fast",
        base_steps=1,
        guidance=2.5,
    )
    lines = mismatches(fast)
    assert lines == [
        f"the fast {part} was distilled with {name} {own} and keeps it; the run's is {now} now: distil it again for "
        "that"
        for part, name, own, now in (
            ("base model", "guidance", 2.5, "5"),
            ("decoder", "decoder_temperature", 0.25, 0.5),
            ("decoder", "decoder_range, first call,", "-5", "-4"),
        )
    ]
    assert mismatches(full) == [] and mismatches(Run(folder, "cpu", decoder="fast")) == lines[1:]
    assert making(Run(folder, "cpu", base="fast")).decoder == "full"


def test_a_student_whose_file_tells_no_guidance(folder: Path, fits: list[Any]) -> None:
    """Kills: the run's guidance told for one that nobody knows, and a damaged header that is a traceback."""
    distill(folder, BASE, device="cpu")
    path = folder / "fast-base.safetensors"
    tensors, header = read_safetensors(path)
    rest = {
        name: value for name, value in header.items() if name in ("format", "grid", "temperature", "teacher_sha256")
    }
    write_safetensors(path, tensors, rest)
    run = Run(folder, "cpu", base="fast")
    assert making(run).guidance is None and making(run).line.startswith("guidance not known, 1 call of the fast base")
    assert "with guidance that is not known" in mismatches(run)[0]
    run.base.classes = 0  # type: ignore[union-attr]
    assert making(run).guidance == 1.0 and mismatches(run) == []
    for spoilt in ("[]", "{", '{"guidance": "much"}'):
        write_safetensors(path, tensors, rest | {"settings": spoilt})
        with pytest.raises(UserError, match="is damaged: make it again"):
            Run(folder, "cpu", base="fast")


def test_the_plan_of_a_distillation(folder: Path, fits: list[Any]) -> None:
    """A tenth of warm-up, half at the full rate, an average over a twentieth. Kills: a rate that never falls, lengths
    of another distillation."""
    distill(folder, DECODER, device="cpu")
    wanted = Schedule(
        batch=30,
        samples=900,
        learning_rate=2e-3,
        optimizer="muon",
        warmup=90,
        decay=0.5,
        ema_halflife=45.0,
        clip=1.0,
    )
    assert fits[0].plan == wanted and not list(folder.glob("distill-*"))
