"""A preset for a GPU, from photographs to report on a CPU: a few steps, streamed, in micro-batches, by the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unilat
from unilat.cli import main
from unilat.run import parts
from unilat.run.folder import RunFolder
from unilat.training import micro

NARROW = (
    "--autoencoder.encoder.channels 16 32 --autoencoder.prior.channels 64 --autoencoder.prior.blocks 1 "
    "--autoencoder.decoder.channels 16 32 --autoencoder.decoder.width 64 --autoencoder.decoder.depth 1 "
    "--base.vit.channels 64 64 --base.vit.blocks 2 1"
)
"""Everything of the preset but its widths and depths, which a CPU would take minutes for."""
SHORT = (
    "--stage1.samples 24 --stage1.batch 8 --stage1.settle 16 --stage1.settle-batch 8 --stage1.calibrate-every 8 "
    "--stage1.ema-halflife 2 --stage2.samples 16 --stage2.batch 8 --data.calibration 8 --evaluation.pictures 6 "
    "--evaluation.samples 8 --evaluation.rate-levels 2 --evaluation.base-steps 4"
)


def photographs(folder: Path, count: int = 60) -> Path:
    """JPEGs in colour of many shapes, none smaller than 64 pixels, in two sub-folders; no two alike."""
    random = np.random.Generator(np.random.PCG64(3))
    for index in range(count):
        high, wide = (int(side) for side in random.integers(70, 140, 2))
        y, x = np.mgrid[:high, :wide]
        waves = [127 + 80 * np.sin(x / (5 + index % 7) + c) + 40 * np.cos(y / (4 + index % 5)) for c in range(3)]
        pixels = np.stack(waves, -1) + random.integers(-20, 20, (high, wide, 3))
        place = folder / "ab"[index % 2] / f"{index:03}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place)
    return folder


@pytest.mark.parametrize("widths", [NARROW, pytest.param("", marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_photographs_become_a_report(
    widths: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: a shape of the preset that no network takes, streams that only small presets were tried with, a stage that
    forgets its micro-batches, a phase whose time or memory nobody is told."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parts, "BUDGETS", {None: 0, True: 0, False: 2**60})  # nothing fits into memory
    seen: list[list[int]] = []
    cut = micro.MicroBatch.parts

    def watched(self: micro.MicroBatch, *rows: int) -> list[tuple[int, int]]:
        found = list(cut(self, *rows))
        seen.append([end - begin for begin, end in found])
        return found

    monkeypatch.setattr(micro.MicroBatch, "parts", watched)
    source, folder = photographs(tmp_path / "photos"), tmp_path / "run"
    words = ["train", str(source), "--preset", "photo-64", "--out", str(folder), "--micro-batch", "3"]
    assert main([*words, *SHORT.split(), *widths.split()]) == 0, capsys.readouterr().err
    assert seen == 7 * [[2, 3, 3]]  # 3 steps of stage 1, 2 of settling, 2 of stage 2
    files = RunFolder(folder)
    assert (folder / "report.html").stat().st_size > 100_000
    phases = json.loads(files.phases.read_text())
    assert [row["name"] for row in phases] == ["read pictures", "stage 1", "encode", "stage 2", "evaluate"]
    assert all(row["peak_memory_mib"] > 100 for row in phases)
    assert json.loads(files.manifest.read_text())["micro_batch"] == 3
    run = unilat.load(folder)
    assert run.data.streamed and run.data.size == (64, 64) and run.data.channels == 3
    assert run.latent_shape == (8, 16, 16) and run.config.stage1.target_bpp == 0.2
    assert {one.steps for one in (run.results.reconstruction, *run.results.other_steps)} == {1, 4, 16}
    assert run.sample(2).images.shape == (2, 3, 64, 64)
