"""The tables of verify, bench, compare and audit against numbers known by hand, each of them another."""

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from measured import machine, number, step
from studies.samples import subject
from unilat.cli.output import Output
from unilat.cli.progress import TrainingProgress, detail
from unilat.cli.tables import (
    _number,
    audit_table,
    bench_table,
    comparison_table,
    metrics_table,
    oracle_table,
    verify_table,
)
from unilat.report.comparison import Apart, Cell, Column, Comparison, Member
from unilat.results import Bits, Classifier, Costs, Distance, Number, Reconstruction, Results
from unilat.run.records import Note
from unilat.studies.bench import PartTime, StageTime, Timing, Way
from unilat.studies.measures import AuditPlan, DiffusionBits, Kept, LatentBits, NormalBits
from unilat.studies.oracle import Row, Suite
from unilat.studies.record import Findings, about
from unilat.studies.verification import Agreement, Repeated, Sizes, Slack, Verification


def words(text: str) -> list[str]:
    """Lines with single spaces, without the empty ones."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_oracles_table_tells_measured_and_known_bits_apart() -> None:
    """Kills the closed form in the measured column, a sign that is lost and a verdict of another row."""
    shared: dict[str, Any] = {"closed_form": 3.61158, "limit": 0.01, "n": 5, "seconds": 1.0}
    rows = (
        Row(**shared, what="one", measured=3.60123, stderr=0.00456, holds=True),
        Row(**shared, what="two", measured=3.70234, stderr=0.00567, holds=False),
        Row(**shared, what="three", measured=3.61345, stderr=0.00678, holds=True),
    )
    table = oracle_table(Suite(rows=rows, unit="bits per number", seconds=12.6))
    assert words(table) == [
        "measured closed form standard error off allowed verdict",
        "one 3.60123 3.61158 0.00456 -0.287% 1.000% holds",
        "two 3.70234 3.61158 0.00567 +2.513% 1.000% FAILS",
        "three 3.61345 3.61158 0.00678 +0.052% 1.000% holds",
        "bits per number; 2 of 3 hold, 13 seconds",
    ]


def test_verify_tells_each_estimate_with_its_own_noise_and_verdict() -> None:
    """Kills one noise for another, the difference's error as the estimate's, and verdicts that are swapped."""
    found = Verification(
        run="r",
        seed=0,
        unit="bits per pixel",
        other_seeds=Repeated(value=0.40123, noise=0.00012, each=(1, 2, 3, 4, 5), n=9),
        reported=Agreement(value=0.40234, noise=0.00034, difference=9.0, stderr=0.00036, holds=True),
        placing=Agreement(value=0.41345, noise=0.00056, difference=0.00171, stderr=0.00057, holds=False),
        slack=Slack(
            value=0.01234,
            stderr=0.00321,
            n=9,
            run=0.4,
            refitted=0.39678,
            parameters=Sizes(run=10, refitted=20),
            samples=5,
            limit=0.02,
            holds=True,
        ),
    )
    assert words(verify_table(found)) == [
        "bits per pixel noise allowed verdict",
        "5 other seeds 0.40123 0.00012",
        "reported 0.40234 0.00034 3 × 0.00036 apart holds",
        "levels placed uniformly 0.41345 0.00056 3 × 0.00057 apart FAILS",
        "larger refitted prior 0.39678",
        "slack 1.23% 0.32% at most 2% holds",
        *found.words,
    ]
    assert len(found.words) == 3 and "3.0 standard errors" in found.words[-1]
    single = replace(found, slack=replace(found.slack, value=-0.5, stderr=None, n=1))
    assert words(verify_table(single))[5] == "slack -50.00% – at most 2% holds"
    assert "pays at least -50.00% (one picture) too much" in single.words[1] and "heart" not in "".join(single.words)
    assert "pays at least 1.23% ± 0.32% too much" in found.words[1] and "nan" not in verify_table(single)


def test_a_number_without_an_error_has_none() -> None:
    """Kills: "± nan", and an error of one picture that reads as none at all."""
    told = [Number(value=0.25, stderr=error) for error in (math.nan, None, math.inf, 0.0, 0.125)]
    assert [_number(one, " dB") for one in told] == ["0.25 dB"] * 4 + ["0.25 dB ± 0.12"]
    assert _number(Number(value=math.nan, stderr=0.1)) == "–"


@pytest.mark.parametrize(("stderr", "told"), [(0.25, "20 ± 0.25"), (0.0, "20"), (math.nan, "20"), (None, "20")])
def test_an_error_of_nothing_is_not_told(stderr: float | None, told: str) -> None:
    """Kills: "± nan", and "± 0" of numbers that happen to be equal, which says that they are sure."""
    assert _number(number(20.0, stderr)) == told


def timed(ms: float, speed: float, minutes: float, share: float, micro: int, mib: float) -> StageTime:
    """A row of a stage."""
    return StageTime(ms=ms, examples_per_second=speed, minutes=minutes, share=share, micro_batch=micro, peak_mib=mib)


def test_bench_tells_parts_phases_and_the_machine() -> None:
    """Kills milliseconds for FLOPs, a share without its hundred, a minute of another phase, one way under the name of
    the other, phases out of their order, and a plain way that is told twice."""
    stages = {
        "stage1": timed(812.0, 78.8, 51.25, 0.314, 16, 1357.8),
        "prior": timed(55.5, 640.0, 2.25, 0.1, 64, 1234.5),
    }
    stages["stage2"] = timed(256.0, 499.0, 12.75, 0.126, 1024, 2222.2)
    other = {"stage1": timed(999.0, 64.1, 66.6, 0.25, 8, 1999.0)}
    found = Timing(
        machine=machine(threads=2),
        product="bf16",
        matrix_gflops=123456.7,
        parts={
            "encoder": PartTime(ms=1.234, gflops=0.567, share=0.31),
            "decoder": PartTime(ms=8.912, gflops=3.456, share=0.52),
        },
        trained=8968,
        chosen=Way(name="bf16, compiled", stages=stages, encode_minutes=1.5, evaluate_minutes=3.25),
        plain=Way(name="plain", stages=other, encode_minutes=0.0, evaluate_minutes=4.75),
    )
    networks = [
        "network ms an example GFLOPs an example share",
        "encoder 1.23 0.567 31%",
        "decoder 8.91 3.46 52%",
    ]
    chosen = [
        "ms a step examples/s share at a time MiB minutes",
        "stage 1 812 78.8 31% 16 1,358 51.2",
        "the prior alone 55.5 640 10% 64 1,234 2.2",
        "encode 8,968 1.5",
        "stage 2 256 499 13% 1,024 2,222 12.8",
        "evaluate 3.2",
        "in all 71.0",
    ]
    last = "share: of a bf16 matrix product, 123,457 GFLOP/s on 2 threads of cpu"
    assert words(bench_table(found)) == [
        *networks,
        f"as chosen: bf16, compiled {chosen[0]}",
        *chosen[1:],
        f"the plain way, float32 {chosen[0]}",
        "stage 1 999 64.1 25% 8 1,999 66.6",
        "evaluate 4.8",
        "in all 71.3",
        last,
    ]
    alone = replace(found, plain=None)
    assert words(bench_table(alone)) == [*networks, f"as chosen: the plain way, float32 {chosen[0]}", *chosen[1:], last]


def column(key: str, title: str, unit: str, *values: Any, group: str = "bits") -> Column:
    """A column of a comparison; a value alone has no error."""
    cells = tuple(None if v is None else Cell(value=v[0], stderr=v[1], n=5) for v in values)
    return Column(key=key, title=title, unit=unit, group=group, protocol={}, values=cells)


def test_a_comparison_has_each_runs_number_under_its_head() -> None:
    """Six columns of one group, the last in a table of its own. Kills another run's cell, and a lost one."""
    words_of = {"a": "", "b": "stage 2 is not finished"}
    table = Comparison(
        runs=tuple(Member(name=name, folder="", source=None, missing=missing) for name, missing in words_of.items()),
        columns=(
            column("bits", "measured", "bits per pixel", (0.41234, 0.0021), (0.52345, 0.0032)),
            *(column(f"k{n}", f"title {n}", "", (n + 0.25, None), (n + 0.5, None)) for n in range(4)),
            column("psnr", "PSNR, dB", "dB", None, (21.375, 0.14)),
            column("parameters_all", "parameters, in all", "", (1234567.0, None), (89012.0, None), group="cost"),
        ),
        apart=(Apart(keys=(), titles=("PSNR", "SSIM"), columns=(("a",), ("b",)), why="calls: 2 | 4"),),
        charts={},
        differences={"stage1.target_bpp": (0.4, 0.5)},
        page="page.html",
    )
    assert words(comparison_table(table)) == [
        "b is not whole: stage 2 is not finished",
        "run measured, bits per pixel title 0 title 1 title 2 title 3",
        "a 0.4123 ± 0.0021 0.25 1.25 2.25 3.25",
        "b 0.5234 ± 0.0032 0.5 1.5 2.5 3.5",
        "run PSNR, dB",
        "a –",
        "b 21.38 ± 0.14",
        "run parameters, in all",
        "a 1,234,567",
        "b 89,012",
        "PSNR, SSIM in 2 columns: calls: 2 | 4",
        "set differently a b",
        "stage1.target_bpp 0.4 0.5",
        "page: page.html",
    ]


def test_an_audit_tells_bits_by_prior_and_unit() -> None:
    """Kills another prior's row, a column of another unit, and the posterior's KL as the normal prior's bits."""

    def group(latent: float, dimension: float, pixel: float | None = None) -> LatentBits:
        one, other = number(latent, latent / 100), number(dimension, dimension / 100)
        return LatentBits(
            per_latent=one, per_dimension=other, per_pixel=None if pixel is None else number(pixel, pixel / 100)
        )

    found = Findings(
        subject=about(subject()),
        normal=NormalBits(noisy=group(240.0, 1.8, 0.6), posterior=group(300.0, 2.2)),
        diffusion=DiffusionBits(bits=group(200.0, 1.5, 0.5), prior="network"),
        kept=Kept(psnr=number(27.5, 0.2), above_mean=3.0, kernel=number(0.045, 0.003)),
        faults=(),
        sentence="It is well.",
        unknown=("this", "that"),
        channels=(),
        protocol={},
        plan=AuditPlan(),
        manifest=machine(),
    )
    lines = words(audit_table(found, Path("audit.html")))
    assert lines[:4] == [
        "what bits per pixel bits per latent bits per number",
        "diffusion prior, held out 0.5 ± 0.005 200 ± 2 1.5 ± 0.015",
        "N(0, I), same latents and noise 0.6 ± 0.006 240 ± 2.4 1.8 ± 0.018",
        "KL of the model's posterior, its own noise – 300 ± 3 2.2 ± 0.022",
    ]
    assert "PSNR of reconstructions, dB: 27.5 ± 0.2" in lines and "their kernel distance: 0.045 ± 0.003" in lines
    assert lines[-4:] == ["It is well.", "not known: this", "not known: that", "page: audit.html"]


def test_the_table_of_a_run_has_every_row_of_its_own() -> None:
    """Whole rows, each number another. Kills SSIM in decibels, generation for reconstruction, and real for made."""
    near = Distance(kernel=number(0.0123, 0.0011, 804), frechet64=number(math.nan, None, 807))
    results = Results(
        pictures="",
        features="a network",
        bits=Bits(target=0.5, measured=number(0.51234, 0.0041, 801)),
        reconstruction=Reconstruction(
            steps=1, psnr=number(22.345, 0.067, 802), ssim=number(0.81234, 0.0089, 803), distance=near
        ),
        generation=Distance(
            kernel=number(0.0456, 0.0022, 805),
            frechet64=number(6.789, None, 806),
            precision=number(0.7654, 0.0151, 807),
            recall=number(0.5432, 0.0172, 808),
        ),
        classifier=Classifier(samples=number(0.6543), real=number(0.9321)),
        costs=Costs(parameters={"base": 7, "encoder": 1_200_000}, training_flops={"encoder": 3.5e13, "base": 4.5e12}),
    )
    assert words(metrics_table(results, Path("here"))) == [
        "wanted measured on",
        "bits per pixel 0.5 0.5123 ± 0.0041 801 held-out pictures",
        "PSNR 22.34 dB ± 0.067 802 pictures, 1 decoder call",
        "SSIM 0.8123 ± 0.0089 803 pictures, 1 decoder call",
        "reconstruction distance, kernel 0.0123 ± 0.0011 804 pictures",
        "generation distance, kernel 0.0456 ± 0.0022 805 pictures",
        "generation distance, Fréchet, 64 components 6.789 806 pictures",
        "generation precision 76.5% ± 1.5% 807 pictures",
        "generation recall 54.3% ± 1.7% 808 pictures",
        "samples named rightly 65.4% real ones 93.2%",
        "part parameters training FLOPs",
        "encoder 1,200,000 3.50e+13",
        "base 7 4.50e+12",
        "report: here/report.html",
    ]
    few = replace(results, bits=Bits(target=None, measured=number(0.25, None, 3)))
    assert words(metrics_table(few))[1] == "bits per pixel – 0.25 3 held-out pictures"


def test_details_of_a_step_are_the_records() -> None:
    """Kills the target told as the bits, a step of another count and a speed in steps."""
    metrics = {"bpp": 0.45678, "target": 0.5}
    record = step("stage1", 3, 7, samples_per_second=12.4, seconds_left=75.0, loss=0.12346, metrics=metrics)
    assert detail(record) == "step 3/7, 12 samples/s, 1:15 left, bits 0.457 of 0.5 wanted, loss 0.1235"
    assert detail(step("stage2", 2, 2)) == "step 2/2, 10 samples/s, loss 0.5"


def test_stages_have_plain_lines_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills one clock for all stages, and a stage under another's name."""
    monkeypatch.setattr("unilat.cli.progress.time.monotonic", lambda: 100.0)
    written = io.StringIO()
    with TrainingProgress(Console(file=written, soft_wrap=True)) as progress:
        for stage in ("stage1", "stage2", "prior", "stage1"):
            progress(step(stage, 1, 8))
        progress(Note("what is done between [both]"))
    assert written.getvalue().splitlines() == [
        "stage 1, autoencoder, 12%: step 1/8, 10 samples/s, 0:07 left, loss 0.5",
        "stage 2, base model, 12%: step 1/8, 10 samples/s, 0:07 left, loss 0.5",
        "prior on frozen latents, 12%: step 1/8, 10 samples/s, 0:07 left, loss 0.5",
        "what is done between [both]",
    ]


def test_notes_come_now_and_then_and_the_last_one_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """One a second: each other one is told. Kills a line a step, and an end that is never told."""
    now = iter(float(second) for second in range(100, 110))
    monkeypatch.setattr("unilat.cli.output.time.monotonic", lambda: next(now))
    output, written = Output(False), io.StringIO()
    output.console = Console(file=written, soft_wrap=True)
    for done in (1, 2, 3, 4, 6):
        output.note(done, 6, "reading")
    output.note(9, 0, "counting")
    output.note(11, 0, "counting")
    assert written.getvalue().splitlines() == ["reading: 1/6", "reading: 3/6", "reading: 6/6", "counting: 11"]
