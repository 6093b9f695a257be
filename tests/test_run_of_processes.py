"""`torchrun … -m unilat train`: what two processes encode, measure and make together is what one does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import unilat
from unilat.files import read_safetensors
from unilat.run.folder import RunFolder

ONE_GPU = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes of a run need two GPUs, or none")


def train(source: Path, folder: Path, *words: str) -> str:
    """The command line in two processes of one thread each; what they said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(unilat.__file__).parents[1])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "unilat"]
    command += ["train", str(source), "--preset", "tiny", "--bpp", "0.4", "--out", str(folder)]
    command += ["--stage1.samples", "256", "--stage2.samples", "128", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@ONE_GPU
def test_two_processes_encode_evaluate_and_sample_as_one(tiny_source: Path, tiny_run: Path, tmp_path: Path) -> None:
    """A finished run, encoded and measured again by two. Kills: rows of one process alone, draws that depend on who
    makes them, notes told twice, a file that two processes write."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    ours, theirs = RunFolder(folder), RunFolder(tiny_run)
    shutil.rmtree(ours.latents)
    for path in (ours.metrics, ours.evaluation, ours.report):
        path.unlink()
    said = train(tiny_source, folder)
    assert said.count("encoding ") == 1 and ours.report.is_file()
    shards = sorted(path.name for path in theirs.latents.glob("*.safetensors"))
    assert shards and shards == sorted(path.name for path in ours.latents.glob("*.safetensors"))
    for mine, other in [(ours.latents / name, theirs.latents / name) for name in shards] + [
        (ours.evaluation, theirs.evaluation)
    ]:
        one, two = read_safetensors(mine)[0], read_safetensors(other)[0]
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            within = 1.0 if tensor.dtype == torch.uint8 else 1e-4
            torch.testing.assert_close(tensor.float(), two[name].float(), atol=within, rtol=1e-4, msg=name)

    def numbers(found: object) -> list[float]:
        if isinstance(found, dict):
            return [one for name, value in found.items() if name != "costs" for one in numbers(value)]
        if isinstance(found, list):
            return [one for value in found for one in numbers(value)]
        return [float(found)] if isinstance(found, int | float) else []

    mine, other = (numbers(json.loads(path.read_text())) for path in (ours.metrics, theirs.metrics))
    assert len(mine) > 5 and mine == pytest.approx(other, rel=1e-3, abs=1e-3)


@ONE_GPU
@pytest.mark.slow
def test_two_processes_train_sharded_from_pictures_to_report(tiny_source: Path, tiny_run: Path, tmp_path: Path) -> None:
    """Kills: an encoder, decoder or prior whose weights are not whole where it computes, a stage after the first."""
    train(tiny_source, tmp_path / "run", "--shard", "--checkpointing")
    mine, other = (json.loads(RunFolder(folder).metrics.read_text()) for folder in (tmp_path / "run", tiny_run))
    assert mine["bits"]["measured"]["value"] == pytest.approx(other["bits"]["measured"]["value"], rel=0.02)
