"""A run's bits again: what agrees, what is told where something does not, and the slack of a refit."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unilat
from unilat.cli import main
from unilat.cli.naming import arguments_named
from unilat.files import read_json, write_json
from unilat.run.records import Note
from unilat.run.seal import sealed
from unilat.studies import verify
from unilat.training.records import Step
from unilat.types import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run_folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this file's own to write into."""
    folder = tmp_path_factory.mktemp("verify") / "tiny"
    shutil.copytree(tiny_run, folder)
    return folder


@pytest.fixture(scope="module")
def found(run_folder: Path) -> verify.Verification:
    """What verifying the untouched run finds."""
    return verify.verify_run(unilat.load(run_folder), samples=640)


def test_a_run_agrees_with_itself(run_folder: Path, found: verify.Verification):
    """Kills another unit, another placing that is biased, and seeds that are all the same."""
    reported = unilat.load(run_folder).results.bits
    assert found.reported.value == reported.value
    assert found.reported.holds
    assert found.placing.holds
    assert found.other_seeds.n == reported.n
    assert len(set(found.other_seeds.each)) == verify.SEEDS
    apart = 4 * math.hypot(found.placing.stderr, found.reported.stderr)
    assert found.placing.value == pytest.approx(reported.value, abs=apart)
    assert apart < 0.3 * reported.value
    assert read_json(run_folder / "verify.json") == json.loads(json.dumps(found.to_json()))


def test_the_refit_is_larger_better_and_resumed(run_folder: Path, found: verify.Verification):
    """Kills a refit of the run's own size, one that changes the run's prior, and one that is made again each time."""
    slack = found.slack
    assert slack.parameters.refitted > 3 * slack.parameters.run
    assert slack.run > slack.refitted  # 256 pictures leave a prior much to learn
    notes: list[Step | Note] = []
    again = verify.verify_run(unilat.load(run_folder), samples=640, tell=notes.append)
    assert again == found
    assert notes and all(isinstance(told, Note) for told in notes)


def test_a_false_report_is_found(run_folder: Path, found: verify.Verification, capsys: Capture):
    """Kills a check that does not look at what was reported, and an exit code without it."""
    metrics = read_json(run_folder / "metrics.json")
    true = metrics["bits"]["measured"]["value"]
    off = 10 * found.reported.stderr
    metrics["bits"]["measured"]["value"] = true - off
    write_json(run_folder / "metrics.json", metrics, sealed)
    try:
        assert main(["verify", str(run_folder), "--samples", "640", "--json"]) == 1
    finally:
        metrics["bits"]["measured"]["value"] = true
        write_json(run_folder / "metrics.json", metrics, sealed)
    told = json.loads(capsys.readouterr().out)
    assert not told["reported"]["holds"]
    assert any("reported" in line and "standard errors" in line for line in told["failures"])


def test_the_table_says_what_it_means(run_folder: Path, found: verify.Verification, capsys: Capture):
    """Kills a table without the slack, and sentences that are not printed."""
    assert main(["verify", str(run_folder), "--samples", "640"]) == int(not found.holds)
    out = capsys.readouterr().out
    assert f"{found.slack.value:.2%}" in out
    assert all(arguments_named(sentence) in out for sentence in found.words)


def test_paired_slack_is_a_ratio_with_a_small_error():
    """Kills the inverse ratio, a mean of ratios, and an error that forgets that the noise is the same."""
    generator = torch.Generator().manual_seed(0)
    refitted = 5 + torch.randn(4000, generator=generator)
    own = 1.03 * refitted + 0.01 * torch.randn(4000, generator=generator)
    slack = verify.paired_slack(own, refitted, verify.Sizes(run=1, refitted=2), 3)
    assert slack.value == pytest.approx(0.03, abs=4 * slack.stderr)
    assert slack.stderr == pytest.approx(0.01 / 5 / math.sqrt(4000), rel=0.1)


@pytest.mark.parametrize(("apart", "holds"), [(2.9, True), (-2.9, True), (3.1, False), (-3.1, False)])
def test_agreement_is_three_standard_errors_of_the_difference(apart: float, holds: bool):
    """Kills one side's error alone, and a difference with a sign."""
    assert verify.agreement(1.0 + apart * 0.5, 0.3, 1.0, 0.4).holds is holds


def _found(slack: float, reported: bool = True, placing: bool = True) -> verify.Verification:
    one = verify.Agreement(value=0.5, noise=0.1, difference=0.5, stderr=0.1, holds=True)
    found = verify.Slack(
        value=slack,
        stderr=0.001,
        n=9,
        run=0.3,
        refitted=0.29,
        parameters=verify.Sizes(run=10, refitted=50),
        samples=640,
        limit=0.02,
        holds=slack <= 0.02,
    )
    return verify.Verification(
        run="r",
        seed=0,
        unit="bits per pixel",
        other_seeds=verify.Repeated(value=0.0, noise=0.1, each=(0.0,), n=9),
        reported=replace(one, holds=reported),
        placing=replace(one, holds=placing),
        slack=found,
    )


def test_each_failure_is_told_by_name():
    """Kills a verdict without a cause, and a negative slack that passes for a proof."""
    for found, word in (
        (_found(0.03), "slack"),
        (_found(0.0, reported=False), "reported"),
        (_found(0.0, True, False), "placings"),
    ):
        (line,) = found.failures
        assert word in line and not found.holds
        assert any(f"FAILED: {line}" == told for told in found.words)
    assert _found(0.01).failures == () and _found(0.01).holds
    assert any("by heart" in told for told in _found(-0.01).words)


def test_what_is_gone_is_told_in_one_line(run_folder: Path, tmp_path: Path, capsys: Capture):
    """Kills a traceback for pictures that are gone, latents of another encoder, no run at all, and no samples."""
    gone = tmp_path / "gone"
    shutil.copytree(run_folder, gone, ignore=shutil.ignore_patterns("verify"))
    (gone / "seal.json").unlink()
    config = read_json(gone / "config.json")
    write_json(gone / "config.json", config | {"data": config["data"] | {"source": str(tmp_path / "nowhere")}})
    for words, told in (
        ([gone], "nowhere"),
        ([tmp_path / "none"], "not a run folder"),
        ([run_folder, "--samples", 0], "--samples"),
    ):
        assert main(["verify", *map(str, words)]) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
    write_json(gone / "config.json", config)
    (gone / "latents" / "train-00000.safetensors").write_bytes(b"spoilt")
    with pytest.raises(UserError, match="safetensors"):
        verify.verify_run(unilat.load(gone), samples=640)
    shutil.rmtree(gone / "latents")
    assert verify.verify_run(unilat.load(gone), samples=640).slack.n > 0
