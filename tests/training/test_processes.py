"""Two processes are one: the same batches, the same losses, and a checkpoint that either can go on from."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import unilat
from unilat.training import checkpoint, checks, engine, parallel
from unilat.training.machine import pick_device
from unilat.training.micro import MicroBatch
from unilat.training.parallel import World
from unilat.training.sharded import Pieces
from unilat.types import UserError

from . import blocks
from .test_muon import Linked
from .test_resume import lines
from .toy import Toy, fit, schedule, written

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": str(Path(unilat.__file__).parents[1]),
}
"""Of each of several processes, which compute on the CPU though there be a GPU: there may be fewer of those."""


def torchrun(play: str, folder: Path, processes: int = 2) -> list[dict[str, Any]]:
    """Gloo processes of ``worker.py``, one thread each: what each has seen."""
    environment = os.environ | ONE_THREAD
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(Path(__file__).with_name("worker.py")), play, str(folder)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def test_two_processes_see_the_batches_and_losses_of_one(tmp_path: Path) -> None:
    """Kills: a mean of means (rows do not divide), one process's sums, rows seen twice, weights that part."""
    ranks = torchrun("toy", tmp_path)

    stage, alone = Toy(dropout=0.0, mixing=False), tmp_path / "alone"
    plan = schedule(batch=7, samples=70)
    fit(stage, plan, alone / "run", 7, log=alone / "log.jsonl", stop_at=8, device="cpu")
    expected = lines(alone / "log.jsonl")

    ours, theirs = (rank["batches"] for rank in ranks)
    assert [a + b for a, b in zip(ours, theirs, strict=True)] == stage.batches
    assert {len(batch) for batch in ours} == {3}
    assert ranks[0]["losses"] == ranks[1]["losses"]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["profile"] == ranks[1]["profile"]
    assert ranks[0]["profile"] == pytest.approx(stage.model.profile.tolist(), rel=1e-5)
    logged = lines(tmp_path / "log.jsonl")
    assert [record["step"] for record in logged] == [record["step"] for record in expected]
    for record, other in zip(logged, expected, strict=True):
        for name in ("loss", "error", "weight", "gradient_norm"):
            assert math.isclose(record[name], other[name], rel_tol=1e-5), (record["step"], name)
    for name, parameter in stage.model.named_parameters():
        assert torch.allclose(torch.tensor(ranks[0]["weights"][name]), parameter, atol=1e-5), name
    assert written(tmp_path / "run") == ["step-0000000005", "step-0000000008"]

    told: list[str] = []
    result = fit(Toy(dropout=0.0, mixing=False), plan, tmp_path / "run", 7, warn=told.append)
    assert (result.resumed, result.finished) == (8, True)
    assert "processes 2 → 1" in told[0]

    for rank in ranks:
        assert rank["error-False"] == rank["error-True"] == ranks[0]["error-True"]
    first = next(step for step, batch in enumerate(stage.batches) if {2, 20} & set(batch))
    bad = [index for index in stage.batches[first] if index in (2, 20)]
    for shard in (False, True):
        told = ranks[0][f"told-{shard}"]
        assert f"step {first + 1}: samples {', '.join(map(str, bad))}: their data are not finite" in told[0]
        assert len(told) > 1 and not ranks[1][f"told-{shard}"]  # all go on, and the first alone tells


Shared = tuple[Path, list[dict[str, Any]]]
"""Where two processes have trained, and what each has said of it."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Two processes that have trained ``blocks.py`` by replicas and sharded, and one process."""
    folder = tmp_path_factory.mktemp("shared")
    with torch.random.fork_rng():
        result, model = blocks.fit(folder / "one")
        keep(folder / "one", model, result.ema)
        blocks.fit(folder / "alone", stop_at=25)
        blocks.fit(folder / "unsplit", schedule=blocks.plan(batch=8, samples=80))
    return folder, torchrun("replicated_and_sharded", folder)


def keep(folder: Path, model: dict[str, Tensor], ema: dict[str, Tensor]) -> None:
    tensors = {f"model.{name}": t for name, t in model.items()} | {f"ema.{name}": t for name, t in ema.items()}
    safetensors.torch.save_file(tensors, folder / "rank-0.safetensors")


def kept(folder: Path, rank: int = 0) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / f"rank-{rank}.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(("way", "first"), [("ddp", 1), ("sharded", 1), ("alone", 26)])
def test_two_processes_train_as_one(shared: Shared, way: str, first: int) -> None:
    """Losses within 1e-5 over 50 steps, weights and averages within 1e-4; also begun by one process and gone on with.

    Kills: gradients summed where the mean is asked for, a row on the wrong process, a norm of the own rows alone,
    moments or averages that are not taken up, Muon's rows mixed up, weights at a stale place in memory.
    """
    folder, _ = shared
    theirs = {record["step"]: record for record in lines(folder / "one" / "log.jsonl")}
    ours = {record["step"]: record for record in lines(folder / way / "log.jsonl")}
    assert [*ours] == [*range(1, 51 if first == 1 else 41)]
    for step in range(first, len(ours) + 1):
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], abs=1e-5, rel=0), step
        for name in ("gradient_norm", "looked", "calibration"):
            assert ours[step].get(name, 0.0) == pytest.approx(theirs[step].get(name, 0.0), rel=1e-3), (step, name)
    if first == 1:
        same(kept(folder / way), kept(folder / "one"), atol=1e-4)
        same(kept(folder / way, 1), kept(folder / way, 0), atol=0)


def test_two_processes_split_their_rows_into_micro_batches(shared: Shared) -> None:
    """Kills: an exchange for each part of one process's where the other has fewer, a size that not all go by, gradients
    of the last part alone."""
    assert [(held["micro-False"], held["micro-True"]) for held in shared[1]] == [(2, 3), (2, 3)]
    theirs = lines(shared[0] / "unsplit" / "log.jsonl")
    for way in ("micro-False", "micro-True"):
        ours = lines(shared[0] / way / "log.jsonl")
        for name in ("loss", "gradient_norm"):
            assert [one[name] for one in ours] == pytest.approx([one[name] for one in theirs], abs=1e-5)


def test_sharded_micro_batches_need_as_many_rows_on_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: processes of other numbers of passes, which would wait for each other for ever."""
    monkeypatch.setattr(checks, "join", lambda device: World(rank=0, size=2))
    with pytest.raises(UserError, match="batch 7 is no multiple of the 2 processes that share the model"):
        engine.fit(blocks.stage(), blocks.plan(), tmp_path, 1, shard=True, micro=MicroBatch(2))


def test_a_sharded_run_in_two_parts_is_the_run_in_one(shared: Shared) -> None:
    """Kills: a tensor that a checkpoint of several files does not hold to the last bit."""
    whole, parts = (shared[0] / name / "run" for name in ("sharded", "parts"))
    (tmp := parts.with_name("whole")).mkdir()
    shutil.copytree(whole / "step-0000000040", tmp / "step-0000000040")
    one, other = checkpoint.load(tmp), checkpoint.load(parts)
    assert one is not None and other is not None and (one.step, other.step) == (40, 40)
    assert one.fingerprint() == other.fingerprint()


def test_two_processes_hold_half_of_the_state_each(shared: Shared) -> None:
    """Kills: gradients, moments or averages of the whole model on each process, whole weights kept beside the rows."""
    held = shared[1][0]
    assert 0.4 < held["sharded"] / held["ddp"] < 0.6


def test_one_process_reads_what_two_have_written(shared: Shared, tmp_path: Path) -> None:
    """Kills: rows joined in the wrong order or left out, a buffer lost, a moment under another weight's name."""
    folder, _ = shared
    shutil.copytree(folder / "sharded" / "run", tmp_path / "run")
    assert written(tmp_path / "run") == [f"step-00000000{step}" for step in (20, 40, 50)]
    assert not list(tmp_path.rglob("*metadata*"))
    last, mine = checkpoint.load(tmp_path / "run"), kept(folder / "sharded")
    alone = checkpoint.load(folder / "one" / "run")
    assert last is not None and alone is not None
    for group in ("model", "ema"):
        same(
            {f"{group}.{name}": t for name, t in last.tensors[group].items()},
            {k: t for k, t in mine.items() if k.startswith(group)},
            0,
        )
    for group in ("model", "ema", "optimizer"):
        same(last.tensors[group], alone.tensors[group], atol=1e-4)
    for step in (40, 50):
        shutil.rmtree(tmp_path / "run" / f"step-00000000{step}")
    told: list[str] = []
    result, model = blocks.fit(tmp_path, warn=told.append)
    assert (result.resumed, result.finished) == (20, True) and "processes 2 → 1" in told[0]
    same(
        {f"model.{name}": t for name, t in model.items()},
        {k: t for k, t in kept(folder / "one").items() if k[0] == "m"},
        1e-4,
    )


@pytest.mark.slow
def test_four_processes_go_on_with_what_two_have_begun(shared: Shared, tmp_path: Path) -> None:
    """Of three, one and five rows some have none. Kills: a process without rows that fails or moves others."""
    shutil.copytree(shared[0] / "sharded" / "run", tmp_path / "run")
    for step in (40, 50):
        shutil.rmtree(tmp_path / "run" / f"step-00000000{step}")
    assert [rank["resumed"] for rank in torchrun("further", tmp_path, 4)] == [20] * 4
    for rank in range(4):
        same(kept(tmp_path, rank), kept(shared[0] / "one"), atol=1e-4)


@pytest.mark.parametrize(("fault", "shard"), [("SIGKILL", "yes"), ("SIGSTOP", "")])
def test_a_process_that_dies_or_hangs_is_noticed(tmp_path: Path, fault: str, shard: str) -> None:
    """With a timeout of 3 s. Kills: an endless wait, a traceback, a whole model asked of those that are gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | ONE_THREAD
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "FAULT": fault, "SHARD": shard}
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), "lost", str(tmp_path)]
    both = [
        subprocess.Popen(command, env=environment | {"RANK": rank}, stderr=subprocess.PIPE, text=True) for rank in "01"
    ]
    try:
        _, said = both[0].communicate(timeout=100)
        took = time.time() - float((tmp_path / "fault").read_text())
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert both[0].returncode == 1
    assert took < (3 if fault == "SIGKILL" else 3 + 5)
    *before, line = [line for line in said.splitlines() if "Warning" not in line and not line.startswith(" ")]
    assert not before or (len(before) == 1 and before[0].startswith("waiting at 127.0.0.1:"))
    assert line.startswith("error: process 0 has lost the others (") and line.endswith("run again to go on")
    result, _ = blocks.fit(tmp_path, stop_at=8)
    assert (result.resumed, result.step) == (5, 8)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"WORLD_SIZE": "2"},
            "WORLD_SIZE is 2, and RANK, MASTER_ADDR, MASTER_PORT not set: start with torchrun, or unset",
        ),
        (
            {"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "WORLD_SIZE is two, and no number",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"},
            "the 2 processes did not find each other",
        ),
    ],
)
def test_processes_without_torchrun_do_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: dict[str, str], line: str
) -> None:
    """Kills: an environment that another program has left taken for a run of many, a rendezvous without an end, or
    without a word while it lasts."""
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel, "MEETING", timedelta(seconds=1))
    begun = time.monotonic()
    with pytest.raises(UserError, match=re.escape(line)):
        parallel.join(torch.device("cpu"))
    assert time.monotonic() - begun < 10
    said = capsys.readouterr().err
    waits = "waiting at 127.0.0.1:9 for 2 processes, as WORLD_SIZE says; unset it for one alone\n"
    assert (waits in said) == (given.get("MASTER_PORT") == "9")


def test_a_round_that_never_ends_is_ended(tmp_path: Path) -> None:
    """Whatever a process waits in, a GPU's exchange for example. Kills: a watch that does not look, or looks at rounds
    that are over, or goes on after the loop."""
    script = tmp_path / "waits.py"
    script.write_text(
        "import sys, time\n"
        "from datetime import timedelta\n"
        "from unilat.training import parallel\n"
        "parallel.TIMEOUT, parallel.GRACE = timedelta(seconds=1), 0.5\n"
        "with parallel.World(0, 2).watched() as beat:\n"
        "    for _ in range(4):\n"
        "        beat()\n"
        "        time.sleep(0.7)\n"
        "time.sleep(2)\n"
        "print('rounds over', flush=True)\n"
        "with parallel.World(1, 2).watched() as beat:\n"
        "    beat()\n"
        "    time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(unilat.__file__).parents[1])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (1, "rounds over\n")
    assert re.fullmatch(r"error: process 1 has lost the others \(nothing for [12] s\): [^\n]*\n", done.stderr)


@pytest.mark.parametrize(("count", "size"), [(7, 3), (2, 3), (4, 2), (3, 1), (0, 2)])
def test_rows_made_by_several_are_the_rows_of_one(count: int, size: int) -> None:
    """Kills: padding among the rows, rows made twice or in the wrong order, a process without rows that fails."""
    made = list[tuple[int, int]]()

    def make(first: int, last: int) -> tuple[Tensor, Tensor]:
        made.append((first, last))
        assert last > first or not count  # a model cannot tell the shape of nothing
        rows = torch.arange(first, last)
        return rows[:, None] * torch.ones(1, 2), rows.to(torch.uint8)

    given, meet = list[Tensor | None]([None] * size), threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        worlds = [Linked(rank, given, meet) for rank in range(size)]
        every = [*pool.map(lambda world: world.by_rows(count, make), worlds)]
    for one in every:
        for mine, whole in zip(one, make(0, count), strict=True):
            assert torch.equal(mine, whole) and mine.dtype == whole.dtype
    assert all(last - first <= -(-count // size) for first, last in made[:-size])


def test_all_pieces_of_a_gradient_are_clipped() -> None:
    """Kills: one left as it was."""
    pieces = Pieces({"a": torch.ones(2), "b": torch.full((3, 1), 4.0)}, World(rank=0, size=1))
    pieces.scale(0.5)
    assert pieces.parts["a"].tolist() == [0.5, 0.5] and pieces.parts["b"].tolist() == [[2.0]] * 3


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: "invalid device ordinal", two processes on one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(pick_device("auto")) == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"process 3 of this machine has no GPU of its own: start 2, as there are GPUs"):
        pick_device("cuda")


@pytest.mark.parametrize("size", ["8"])
def test_more_processes_than_rows_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str) -> None:
    """Kills: a process with no rows, whose empty means are NaN."""
    monkeypatch.setattr(checks, "join", lambda device: World(rank=0, size=int(size)))
    with pytest.raises(UserError, match="batch 6 is smaller than the 8 processes"):
        fit(Toy(), schedule(), tmp_path, 7)
