"""Tables and progress: what people read while a run goes on and when it has ended."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from measured import cost_of, described, number, step
from unilat.cli.output import plain
from unilat.cli.progress import TrainingProgress, duration
from unilat.cli.tables import description_table, metrics_table
from unilat.results import Bits, Classifier, Costs, Distance, Reconstruction, Results

SPEED = {"samples_per_second": 1234.4, "seconds_left": 3725.0}


def test_the_table_has_every_number():
    """Kills a row that is dropped, and a wanted figure in the measured column."""
    near = Distance(kernel=number(0.5, 0.125, 900), frechet64=number(3.75, None, 900))
    results = Results(
        pictures="",
        features="efficientnet-lite0",
        bits=Bits(target=0.3, measured=number(0.29712, 0.00213, 907)),
        reconstruction=Reconstruction(
            steps=8, psnr=number(24.251, 0.11, 907), ssim=number(0.91, 0.01, 907), distance=near
        ),
        classifier=Classifier(samples=number(0.75, None, 1000), real=number(0.9)),
        costs=Costs(parameters={"encoder": 1234567, "base": 5}, training_flops={"encoder": 2.5e15}),
    )
    lines = metrics_table(results, Path("runs/x")).splitlines()
    words = {line[:42].strip(): line[42:].split() for line in lines if line[:42].strip()}
    table = "\n".join(" ".join(line.split()) for line in lines)
    for row in (
        "bits per pixel 0.3 0.2971 ± 0.0021 907 held-out pictures",
        "PSNR 24.25 dB ± 0.11 907 pictures, 8 decoder calls",
        "reconstruction distance, kernel 0.5 ± 0.12 900 pictures",
        "reconstruction distance, Fréchet, 64 components 3.75 900 pictures",
        "samples named rightly 75.0% real ones 90.0%",
        "encoder 1,234,567 2.50e+15",
        "base 5 –",
        "report: runs/x/report.html",
    ):
        assert row in table
    assert "generation" not in table
    assert words


def test_the_dry_run_has_every_part():
    """Kills a part that is left out, and a figure in another's column."""
    found = described({"encoder": cost_of(1000, 2_000_000, 3 * 10**9, 3.25), "base": cost_of(2000)})
    table = "\n".join(" ".join(line.split()) for line in description_table(found).splitlines())
    assert "picture 3×31×32, latent 4×7×8, capacity 1.81 bits per pixel" in table
    assert "part parameters forward flops training flops memory MiB" in table
    assert "encoder 1,000 2.00e+06 3.00e+09 3.2" in table
    assert "base 2,000 2.00e+00 3.00e+00 4.0" in table


def test_plain_lines_are_few_and_the_last_one_is_there(monkeypatch: pytest.MonkeyPatch):
    """Kills a log file with a line for each of a million steps, and one that never says 100 %."""
    now = iter(float(second) for second in range(1000))
    monkeypatch.setattr("unilat.cli.progress.time.monotonic", lambda: next(now))
    written = io.StringIO()
    with TrainingProgress(Console(file=written, soft_wrap=True)) as progress:
        for done in range(1, 61):
            progress(step("stage1", done, 60, loss=0.25, metrics={"bpp": 0.3, "target": 0.4}, **SPEED))
        progress(step("evaluate", 1, 4))
    lines = written.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [
        f"stage 1, autoencoder, {share}%" for share in (2, 27, 52, 77, 100)
    ]
    assert lines[0].endswith("step 1/60, 1234 samples/s, 1:02:05 left, bits 0.300 of 0.4 wanted, loss 0.25")
    assert lines[-1] == "evaluate, 25%: step 1/4, 10 samples/s, 0:03 left, loss 0.5"


def test_bars_on_a_terminal():
    """Kills bars that leave out the bits, and a target of NaN told as wanted."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=140)
    with TrainingProgress(console) as progress:
        progress(step("stage1", 30, 120, metrics={"bpp": 0.31, "target": float("nan")}, **SPEED))
    assert "stage 1, autoencoder" in written.getvalue()
    assert "25 %" in written.getvalue()
    assert "step 30/120, 1234 samples/s, 1:02:05 left, bits 0.310" in written.getvalue()
    assert "wanted" not in written.getvalue()


def test_durations_are_clocks():
    """Kills minutes that are not filled to two places."""
    assert [duration(seconds) for seconds in (0, 9.6, 61, 3600, 36061)] == [
        "0:00",
        "0:10",
        "1:01",
        "1:00:00",
        "10:01:01",
    ]


def test_plain_values_are_json():
    """Kills NaN, tensors, numpy numbers, tuples and paths on the way to JSON."""
    values = {"a": (float("inf"), Path("x")), 3: torch.tensor(2), "n": np.float32(0.5), "t": True, "none": None}
    assert plain(values) == {"a": [None, "x"], "3": 2, "n": 0.5, "t": True, "none": None}
