"""One thread for every test, and one small run that those tests share which need a finished one.

One thread, whatever OMP_NUM_THREADS says: on a shared machine two busy processes of two threads each run up to 8
times slower, and OpenMP's threads do not survive a fork, so that a child of a test which computes with two hangs.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from PIL import Image

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """A test that pins torch's threads, as benchmarks do, pins them for itself: they decide the last bits."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On a CPU, this test and the processes that it starts, though there be a GPU: it forks, which CUDA does not
    survive, counts on a step's speed, or starts more processes than there may be GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gc.collect()
    gc.freeze()  # what other tests have left on a GPU must not be given back by a child
    yield
    gc.unfreeze()


@pytest.fixture
def in_a_child(on_cpu: None) -> None:
    """The same for a test that computes gradients in a child."""
    if torch.cuda.is_initialized():
        pytest.skip("torch's autograd does not survive a fork once it has used a GPU: run this file alone")


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 96 grey pictures of 16 × 16 in two classes, bars that lie and bars that stand."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(96):
        picture = Image.new("L", (16, 16), 255 - index % 7)
        place, lying = index // 8, index % 2 == 0
        bar = (2, place, 14, place + 4) if lying else (place, 2, place + 4, 14)
        picture.paste(index // 2, bar)
        (folder / ("lying" if lying else "standing")).mkdir(exist_ok=True)
        picture.save(folder / ("lying" if lying else "standing") / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run of some seconds on ``tiny_source``, made by the real command line."""
    from unilat.cli import main

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    words = ["train", str(tiny_source), "--preset", "tiny", "--bpp", "0.4", "--out", str(folder)]
    assert main([*words, "--stage1.samples", "256", "--stage2.samples", "128"]) == 0
    return folder
