"""What the benchmarks of whole runs make of their runs: main, verify, before, training, tokens; cases by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark_samples import Opener, finished, found, opener, says
from measured import measured, number, shares
from unilat.cli.configure import parse_train
from unilat.recipe.presets import PRESETS
from unilat.results import Distance, Results


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Opener:
    """Scripts that train nothing and find what the test has laid into its folder."""
    opened = opener(monkeypatch, tmp_path)

    def of(name: str) -> Any:
        made = opened(name)
        if hasattr(made, "train_two_at_a_time"):
            monkeypatch.setattr(made, "train_two_at_a_time", lambda work, jobs: None)
        return made

    return of


def metrics(bits: float, decibels: float, kernel: float, **more: Any) -> Results:
    """A run's results with their errors."""
    near, far = (
        Distance(kernel=number(value, 0.03, 600, "p"), frechet64=number(9.0)) for value in (kernel, 2 * kernel)
    )
    psnr = number(decibels, 0.2, 800)
    found = measured(bits, target=0.2, stderr=0.004, n=900, psnr=psnr, near=near, generation=far, **more)
    costs = replace(found.costs, parameters={"encoder": 11, "base": 22}, training_flops={"encoder": 1e9, "base": 2e9})
    return replace(found, reconstruction=replace(found.reconstruction, steps=1), costs=costs)


def test_main_bits_are_off_by_a_share_of_what_was_wanted(script: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.049 at 0.05 is off by 2 %, 0.22 at 0.2 by 10 % with an error of 0.004 / 0.2; PSNR gains 3 and 1 dB, the
    distance shrinks by 0.2 and grows by 0.1. Kills: off in bits, by sign, or of what was measured; the largest gain for
    the least; a distance that should grow."""
    main = script("main")
    runs = {0.05: metrics(0.049, 20, 0.5), 0.2: metrics(0.22, 23, 0.3), 0.8: metrics(0.8, 24, 0.4)}
    monkeypatch.setattr(main, "TARGETS", tuple(runs))
    monkeypatch.setattr(main, "metrics", lambda name: runs[float(name.rsplit("-", 1)[1])])
    rows = [row for row in main.bits() if row["what"].startswith("glyphs")]
    assert len(rows) == 5 and says(rows[0], 0.02, 0.08, 900, True)
    assert says(found(rows, "wanted 0.2", "0.2200"), 0.1, 0.004 / 0.2, 900, False)
    assert says(found(rows, "wanted 0.8"), 0.0, 0.005, 900, True)
    assert says(found(rows, "psnr", "20, 23, 24"), 1.0, None, 800, True)
    assert says(found(rows, "reconstruction", "0.5, 0.3, 0.4"), -0.1, None, 800, False)


def test_main_counts_the_mutants_of_maths_alone(script: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: mutants of all rooms told as those of maths/, survivors for dead, nothing found that counts as all."""
    main, asked = script("main"), []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        asked.append(command[1:])
        return SimpleNamespace(stdout="survived: x\n147 of 150 mutants died, 2 change nothing (9 s)\n")

    monkeypatch.setattr(main.subprocess, "run", run)
    (row,) = main.mutants()
    assert says(row, 0.98, None, 150, False) and asked == [["tests/mutants.py", "maths/"]]
    monkeypatch.setattr(main.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="died"))
    assert says(main.mutants()[0], 0.0, None, 1, False)


def test_verify_tells_shares_of_the_closed_form(script: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 bits for 2.5: an error of 0.01 is 0.4 % of the closed form; off by −20 % fails ±0.5 %. Kills: an error of what
    was measured, an interval with one side, the goal of exact denoisers for trained ones."""
    verify = script("verify")
    from unilat.studies import oracle, source

    shared: dict[str, Any] = {"closed_form": 2.5, "stderr": 0.01, "n": 300, "holds": True, "seconds": 1.0}
    rows = (
        oracle.Row("exact denoiser", 2.51, limit=0.005, **shared),
        oracle.Row("trained prior", 2.0, limit=0.01, **shared),
    )
    monkeypatch.setattr(oracle, "suite", lambda say: oracle.Suite(rows=rows, seconds=71.0))
    made = verify.suite()
    assert says(found(made, "exact", "off by"), 0.004, 0.004, 300, True) and len(made) == 4
    assert says(found(made, "trained", "2.00000", "2.50000"), -0.2, 0.004, 300, False)
    assert says(found(made, "relative standard error"), 0.004, None, None, oracle.STDERR_LIMIT >= 0.004)
    law = SimpleNamespace(rate=1.1, distortion=0.2, shannon=1.0, ratio=1.1001, stderr=0.02, n=64)
    monkeypatch.setattr(source, "rate_distortion", lambda factor: law if factor == 3.0 else
                        SimpleNamespace(**{**vars(law), "shannon": 2.0, "ratio": 0.55}))  # fmt: skip
    made = verify.source()
    assert says(found(made, "factor 3:"), 1.1001, 0.02, 64, False)
    assert says(found(made, "factor 50:"), 0.55, 0.01, 64, True)


def test_verify_tells_slack_in_standard_errors(script: Opener, tmp_path: Path) -> None:
    """A difference of −0.006 with an error of 0.003 is 2 apart, one of 0.008 with 0.002 is 4. Kills: a difference that
    keeps its sign (and so holds), the error of the other, the slack's own figures exchanged."""
    verify = script("verify")
    told = {
        "slack": {"run": 0.204, "refitted": 0.2, "value": 0.02, "stderr": 0.001, "n": 908, "samples": 5_000,
                  "parameters": {"run": 10, "refitted": 30}},
        "reported": {"value": 0.21, "difference": -0.006, "stderr": 0.003},
        "placing": {"value": 0.19, "difference": 0.008, "stderr": 0.002},
        "other_seeds": {"n": 4},
    }  # fmt: skip
    (tmp_path / "verify.json").write_text(json.dumps(told))
    reported, placing, slack = verify._slack_rows("run", tmp_path)
    assert says(reported, 2.0, None, 4, True) and says(placing, 4.0, None, 4, False)
    assert says(slack, 0.02, 0.001, 908, True) and "0.2040" in slack["what"] and "prior of 30 " in slack["what"]


def test_before_tells_todays_time_over_that_of_then(script: Opener, tmp_path: Path) -> None:
    """Ratios 0.4 and 0.5 by seed: 0.45 ± 0.05, where the ratio of the means is 0.457. Kills: before over today, means
    before ratios, a gain in distance that has the sign of a gain in PSNR."""
    before = script("before")
    for side, psnr, distance, seconds, right in (
        ("before", 20.0, 0.5, (300, 400), 0.9),
        ("today", 21, 0.4, (120, 200), 0.8),
    ):
        for seed, time in enumerate(seconds):
            finished(tmp_path / f"{side}-s{seed}", psnr=psnr + seed, distance=distance, generation=2 * distance,
                     classifier=shares(right))  # fmt: skip
            (tmp_path / f"{side}-s{seed}.seconds").write_text(f"{time}")
    rows = before.rows()
    assert says(found(rows, "time, today / before"), 0.45, 0.05, 2, True)
    assert says(found(rows, "PSNR, today less before"), 1.0, math.sqrt(0.5), 2, True)
    assert says(found(rows, "named rightly, today less"), -0.1, 0.0, 2, False)
    assert says(found(rows, "reconstruction, before less today"), 0.1, 0.0, 2, True)
    assert says(found(rows, "generation, before less today"), 0.2, 0.0, 2, True)
    assert says(found(rows, "`make run`, today", "time"), 160.0, 40.0, 2, None)


def test_training_tells_the_cost_to_equal_quality(
    script: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe stands at 18, 20, 21 dB after 10, 20, 40 minutes; an arm at 20.5 dB after 60 minutes: the recipe needs
    20 √2, so 60 / 28.28. Its distance falls by 0.1 from 0.5. Kills: the recipe over the arm, a line in minutes, the
    curve of one seed for another, FLOPs of the base model, a distance saved with the wrong sign."""
    training = script("training")
    monkeypatch.setattr(training.levels, "rows", lambda folder: [])
    monkeypatch.setattr(training.tokens, "rows", lambda work, seeds: [])
    curve = {"recipe-4000": (18, 0.5, 10), "recipe-8000": (20, 0.4, 20), "recipe": (21, 0.3, 40)}
    for seed in training.SEEDS[:2]:
        for arm in (*curve, *training.LESS, *training.MORE):
            psnr, distance, minutes = curve.get(arm, (20.5, 0.45, 60))
            finished(tmp_path / f"{arm}-s{seed}", psnr=psnr + seed, distance=distance, stage1=60 * minutes * (1 + seed),
                     flops=minutes * 1e15, stage2=7.0)  # fmt: skip
    rows = training.rows()
    assert says(found(rows, "AdamW: minutes", "equal PSNR"), 60 / (20 * math.sqrt(2)), 0.0, 2, None)
    flops = 67 / math.exp((math.log(27) + math.log(47)) / 2)  # 7 PFLOP of encoder, prior and decoder besides
    assert says(found(rows, "AdamW: FLOPs", "equal PSNR"), flops, 0.0, 2, None)
    assert says(found(rows, "AdamW: minutes", "equal distance"), 60 / (10 * math.sqrt(2)), 0.0, 2, None)
    assert says(found(rows, "recipe over AdamW: PSNR"), 0.5, math.sqrt(0.5), 2, True)
    assert says(found(rows, "recipe over AdamW: distance"), 0.15, 0.0, 2, True)
    assert says(found(rows, "settles", "PSNR gained"), -0.5, math.sqrt(0.5), 2, False)
    assert says(found(rows, "settles", "distance saved"), -0.15, 0.0, 2, False)
    assert says(found(rows, "recipe, 4,000 pictures: stage 1"), 15.0, 5.0, 2, None)
    assert says(found(rows, "recipe, 4,000 pictures: training"), 17.0, 0.0, 2, None)
    beyond = {"recipe-4000": (18.0, 1.0), "recipe-8000": (20.0, 2.0), "recipe": (21.0, 3.0), "arm": (25.0, 2.0)}
    all_of = {arm: {"PSNR": [psnr], "stage 1": [cost]} for arm, (psnr, cost) in beyond.items()}
    assert training._saved("arm", all_of, "arm", "PSNR", "stage 1")["value"] is None


def test_tokens_compare_at_equal_time(script: Opener, tmp_path: Path) -> None:
    """Half of the tokens take 0.9 and 1.1 of the time of all. Kills: all over half, stage 1 among the minutes, a
    comparison at equal latents."""
    tokens = script("tokens")
    times = {"whole": (100, 100), "whole-less": (70, 70), "half": (77, 63), "half-longer": (90, 110)}
    distance = {"whole": 0.5, "whole-less": 0.6, "half": 0.55, "half-longer": 0.52}
    for arm, seconds in times.items():
        for seed, time in enumerate(seconds):
            finished(tmp_path / f"{arm}-s{seed}", stage2=time, generation=distance[arm], base_bits=0.3)
    rows = tokens.rows(tmp_path, (0, 1, 2))
    assert says(found(rows, "the longer time, dropped"), 1.0, 0.1, 2, None)
    assert says(found(rows, "the shorter time, dropped"), 1.0, 0.1, 2, None)
    assert says(found(rows, "dropping, the longer"), -0.02, 0.0, 2, False)
    assert says(found(rows, "dropping, the shorter"), 0.05, 0.0, 2, True)
    assert says(found(rows, "half dropped, 24,000", "stage 2"), 70 / 60, 7 / 60, 2, None)
    assert says(found(rows, "half dropped, 24,000", "training"), 8.0, 0.0, 2, None)


def test_architectures_are_compared_over_seeds_that_all_have(script: Opener, tmp_path: Path) -> None:
    """Pair k has 20 + k dB and a distance of 0.5 + k / 10; only seed 0 of Fashion-MNIST is whole. Kills: a sign, the
    base model counted with the networks, a factor of the start or of another stage, seeds that some pairs lack."""
    bench = script("architectures")
    for seed in (0, 1):
        for k, pair in enumerate(bench.PAIRS[: None if seed == 0 else 3]):
            folder = tmp_path / f"{bench.name('fashion-mnist', pair)}-s{seed}"
            finished(folder, 0.19 if k else 0.21, psnr=20.0 + k, distance=0.5 + k / 10)
            folder.with_suffix(".seconds").write_text(f"{30 + k}.5")
            logged = [("stage1", 1.0), ("stage1", 2.0 + k), ("stage2", 9.0)]
            lines = (json.dumps({"stage": stage, "loss_factor": factor}) for stage, factor in logged)
            (folder / "log.jsonl").write_text("\n".join(lines))
    rows = bench.rows()
    assert all(row["what"].startswith("fashion-mnist") and row["n"] == 1 for row in rows)
    usual, other = "fashion-mnist, conv encoder, uvit decoder: ", "fashion-mnist, vit encoder, vit decoder: "
    assert says(found(rows, usual, "off the wanted"), 0.05, None, 1, True)
    assert says(found(rows, f"{other}time"), 32.5, None, 1, None)
    assert says(found(rows, f"{other}loss factor"), 4.0, None, 1, None)
    assert says(found(rows, f"{other}encoder and decoder"), 5.0, None, 1, None)
    assert says(found(rows, f"{other}parameters of both"), 10.0, None, 1, None)
    assert says(found(rows, f"{other}PSNR over"), 2.0, None, 1, True)
    assert says(found(rows, f"{other}distance saved"), -0.2, None, 1, False)


def test_architectures_are_compared_by_the_same_networks_on_both_sets(
    script: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: letters through the preset of letters, whose grid and patch are others; an encoder's kind as a decoder's,
    options that `unilat train` does not know."""
    bench, tried = script("architectures"), []

    def trained(*words: str, threads: int, log: Path) -> SimpleNamespace:
        tried.append(parse_train(words[1:]).settings.autoencoder)
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(bench, "unilat", trained)
    for data in bench.SETS:
        for pair in bench.PAIRS:
            bench.train(data, pair, 0)
    first, second = tried[: len(bench.PAIRS)], tried[len(bench.PAIRS) :]
    assert first == second and first[0] == PRESETS["small"].autoencoder
    assert [(one.encoder.kind, one.decoder.kind) for one in first] == list(bench.PAIRS)
