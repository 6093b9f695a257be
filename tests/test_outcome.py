"""A run comes to what was wanted, or ends by saying that it did not, why, and what to do."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from test_run import EXACT, lines, small, write_pictures
from unilat import results as results_of
from unilat.cli.tables import metrics_table
from unilat.files import read_json
from unilat.recipe.config import RunConfig
from unilat.report import page
from unilat.results import Bits, Number, Outcome, Results
from unilat.run import train as job
from unilat.run.outcome import grey_psnr, judged
from unilat.run.seal import sealed
from unilat.run.trained import load
from unilat.types import UserError

HEADER = {"scale": "1.2", "calibration_bpp": "0.2001", "untrimmed_bpp": "0.17"}


def judge(
    found: float, target: float | None = 0.2, base: float | None = None, psnr: float = 20.0, **header: Any
) -> Outcome:
    """The outcome of a run whose latents carry 2 bits per pixel at most, one grey picture having 12 dB."""
    bits = Bits(target=target, measured=Number(value=found, stderr=0.002, n=100, unit="bits per pixel"))
    under = None if base is None else Number(value=base)
    return judged(bits, under, Number(value=psnr), 12.0, 2.0, {**HEADER, **header})


@pytest.mark.parametrize("found", [0.2, 0.1901, 0.2099])
def test_bits_within_three_percent_and_two_standard_errors_are_reached(found: float) -> None:
    """0.006 + 0.004. Kills: a band that is narrower, wider or one-sided."""
    assert judge(found) == Outcome(verdict="reached")


@pytest.mark.parametrize("found", [0.1899, 0.2101])
def test_bits_beyond_are_missed_and_the_numbers_told(found: float) -> None:
    """Kills: the same, less for more."""
    missed = judge(found)
    assert missed.verdict == "missed"
    assert missed.reason == (
        f"0.2 bits per pixel were wanted and held-out pictures carry {found:.4g}: the pictures set aside carry 0.2001, "
        f"these {'less' if found < 0.2 else 'more'}, for they are few or of another kind; raise data.calibration, or "
        "take more pictures"
    )


def test_the_reason_is_the_one_that_holds() -> None:
    """A trim that did not get there, one that could not be. Kills: one reason for all, the numbers before for after."""
    short = judge(0.17, scale="7.36", calibration_bpp="0.171", untrimmed_bpp="0.1166").reason
    assert "ended at 0.1166 and the latents' scale, trimmed by 7.36, brought the pictures set aside to 0.171;" in short
    assert short.endswith("raise stage1.samples")
    bits = Bits(target=0.2, measured=Number(value=0.3))
    assert "could be set aside" in judged(bits, None, Number(value=20.0), 12.0, 2.0, {}).reason
    assert judge(0.7, target=None) == Outcome(verdict="done")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"found": 36_571.0}, r"\(3\.657e\+04 bits per pixel of a latent that carries 2 at most\): lower stage1"),
        ({"found": 20.01}, r"\(20\.01 bits"),
        ({"found": math.nan}, r"\(nan bits"),
        ({"found": 20.01, "target": None}, r"\(20\.01 bits"),
        ({"found": 0.2, "psnr": 7.9}, r"\(reconstructions have 7\.9 dB, one grey picture for all 12\): lower stage1\."),
        ({"found": 0.2, "psnr": math.nan}, r"\(reconstructions have nan dB"),
        ({"found": 0.2, "base": 20.01}, r"\(20\.01 bits per pixel under the base model\): lower stage2\.learning_rate"),
        ({"found": 0.2, "base": math.nan}, r"\(nan bits per pixel under the base model\)"),
    ],
)
def test_a_run_that_has_diverged_is_called_so(values: dict[str, Any], said: str) -> None:
    """Kills: nonsense that is only "missed", the other stage's learning rate."""
    found = judge(**values)
    assert found.verdict == "diverged" and re.search(said, found.reason), found


def test_young_runs_have_not_diverged() -> None:
    """Kills: bits at ten times capacity, a PSNR 4 dB below grey, a base above its prior taken for the end."""
    assert judge(19.9, psnr=8.1, base=19.9).verdict == "missed"
    assert judge(0.2, psnr=8.1, base=0.4).verdict == "reached"


def test_grey_is_the_mean_colour_of_all_pictures() -> None:
    """Two channels by hand: means 50 and 100, errors of 50 and 0, 10 log10(255² / 1250) for each picture.

    Kills: a mean over channels or of each picture by itself, which would be perfect here.
    """
    pictures = torch.zeros(2, 2, 3, 4, dtype=torch.uint8)
    pictures[1, 0], pictures[:, 1] = 100, 100
    assert grey_psnr(pictures) == pytest.approx(10 * math.log10(255**2 / 1250), abs=1e-4)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path]:
    """A run of six steps without stage 2: its configuration and folder."""
    place = tmp_path_factory.mktemp("outcome")
    config = small(write_pictures(place / "boxes.npz"))
    config = replace(config, stage2=replace(config.stage2, samples=0))
    job.train(config, place / "run", choices=EXACT)
    return config, place / "run"


def test_a_run_that_missed_says_so_everywhere(ran: tuple[RunConfig, Path]) -> None:
    """In metrics.json, the table, the report. Kills: a verdict that nobody reads, one that is lost on the way."""
    folder = ran[1]
    found = load(folder).results
    assert found.outcome and read_json(folder / "metrics.json")["outcome"]["verdict"] == found.outcome.verdict
    missed = replace(found, outcome=judge(0.3, calibration_bpp="0.3"))
    assert missed.outcome and missed.outcome.verdict == "missed"
    assert Results.from_json(missed.to_json()) == missed
    assert "missed: 0.2 bits per pixel were wanted" in metrics_table(missed, folder)
    assert "raise --stage1.samples" in metrics_table(missed)
    results_of.write(folder / "metrics.json", missed, sealed)
    page.write(folder)
    assert "<strong>Missed: </strong>0.2 bits per pixel were wanted" in (folder / "report.html").read_text("utf-8")
    reached = replace(found, outcome=Outcome(verdict="reached"))
    assert metrics_table(reached) == metrics_table(replace(found, outcome=None))


def test_results_of_before_have_no_outcome(ran: tuple[RunConfig, Path]) -> None:
    """Kills: metrics.json of finished runs refused because a newer unilat tells more."""
    tree = load(ran[1]).results.to_json()
    tree.pop("outcome")
    assert Results.from_json(tree).outcome is None


def test_a_diverged_run_ends_with_an_error_and_keeps_its_results(
    ran: tuple[RunConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: exit 0 of a run worth nothing, results thrown away, a message without the way out."""
    config, folder = ran
    monkeypatch.setattr("unilat.run.evaluate.grey_psnr", lambda pictures: 200.0)
    with pytest.raises(UserError, match=r"^training has diverged \(reconstructions have .*lower stage1\.learning_rate"):
        job.train(config, folder, choices=EXACT)
    kept = load(folder).results.outcome
    assert kept and kept.verdict == "diverged"
    assert "<strong>Diverged: </strong>" in (folder / "report.html").read_text("utf-8")


def test_a_charge_whose_rate_is_not_finite_ends_in_one_line(ran: tuple[RunConfig, Path], tmp_path: Path) -> None:
    """Kills: a controller fed with NaN, and the JSON writer's traceback at the first save."""

    def charge(model: Any, x: torch.Tensor, z: torch.Tensor, rate: Any) -> torch.Tensor:
        paid = rate.nats()
        rate.diffusion.data.fill_(math.nan)
        return paid

    with pytest.raises(UserError, match=r"^stage1, step 5: bpp is not finite \(nan\); too many steps") as error:
        job.train(ran[0], tmp_path / "run", charge=charge, choices=EXACT)
    assert "\n" not in str(error.value)
    assert [row["step"] for row in lines(tmp_path / "run") if "skipped" in row] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("std::bad_alloc")]
)
def test_memory_that_ends_between_the_steps_is_told(
    error: Exception, ran: tuple[RunConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is measured. Kills: a traceback that names neither what to lower nor what is kept."""

    def evaluate(*given: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(job, "evaluate", evaluate)
    with pytest.raises(UserError, match=r"^evaluate: out of memory; .* kept.*batch.*micro_batch.*checkpointing"):
        job.train(ran[0], ran[1], choices=EXACT)
    assert "evaluate" in {row["name"] for row in read_json(ran[1] / "phases.json")}
