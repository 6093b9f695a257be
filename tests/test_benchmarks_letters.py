"""What ``benchmarks/letters.py`` makes of finished runs, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark_samples import opener
from measured import measured, number
from unilat.results import Classifier, Distance, Phase


def test_shares_over_real_ones_and_minutes_of_all_phases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: factors exchanged, a share upside down, seconds for minutes, a phase left out, a goal that holds for one
    seed and not for the mean, a slack of the first run alone, one without its error."""
    script = opener(monkeypatch, tmp_path)("letters")

    def run(character: float, face: float, kernel: float, seconds: float):
        judged = tuple(
            Classifier(samples=number(share), real=number(0.8), of=of)
            for of, share in (("character", character), ("face", face))
        )
        far, near = (Distance(kernel=number(at, 0.02, 9), frechet64=number(9.0)) for at in (kernel, 0.04))
        found = measured(0.2, target=0.2, stderr=0.004, n=9, psnr=number(32.0, 0.1, 9), near=near, generation=far)
        costs = replace(
            found.costs,
            phases=(
                Phase(name="stage 1", seconds=seconds, peak_memory_mib=1),
                Phase(name="evaluate", seconds=60.0, peak_memory_mib=1),
            ),
        )
        return replace(found, factors=judged, costs=costs)

    slacks = [{"value": 0.015, "stderr": 0.001}, {"value": 0.029, "stderr": 0.001}]
    told = {row["what"]: row for row in script.rows([run(0.8, 0.6, 0.3, 300.0)], slacks[:1])}
    assert (told["slack"]["value"], told["slack"]["stderr"], told["slack"]["holds"]) == (0.015, 0.001, True)
    assert told["samples named rightly over real ones, character"]["value"] == pytest.approx(1.0)
    assert told["the same, face"]["value"] == pytest.approx(0.75) and told["the same, face"]["holds"] is False
    assert told["minutes"]["value"] == pytest.approx(6.0) and told["minutes"]["holds"] is True
    assert (told["generation"]["value"], told["generation"]["stderr"]) == (0.3, 0.02)
    assert told["reconstruction"]["value"] == 0.04 and told["bits"]["stderr"] == 0.004
    both = {row["what"]: row for row in script.rows([run(0.8, 0.6, 0.3, 300.0), run(0.4, 0.8, 0.4, 660.0)], slacks)}
    assert both["slack"]["value"] == pytest.approx(0.022) and both["slack"]["holds"] is False
    assert both["slack"]["stderr"] == pytest.approx(0.007) and both["slack"]["n"] == 2
    assert both["generation"]["value"] == pytest.approx(0.35) and both["generation"]["holds"] is False
    assert both["generation"]["stderr"] == pytest.approx(0.05) and both["generation"]["n"] == 2
    assert both["minutes"]["value"] == pytest.approx(9.0) and both["minutes"]["holds"] is False
    assert both["samples named rightly over real ones, character"]["holds"] is False
