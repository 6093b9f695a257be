"""What is sampled and judged where a class is a combination of labels, beside answers made by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from planted import BASE, CLASSES, Judge, PlantedRun, coloured, measured, numbers, planted_config
from unilat.files import write_json
from unilat.run.facts import Facts, read
from unilat.run.folder import RunFolder
from unilat.signals.factors import Factors

FACTORS = Factors(
    ("hue", "shade"), (("red", "green"), ("dark", "middle", "light")), torch.tensor([[0, 2], [1, 0], [0, 1]])
)


@pytest.fixture
def run(tmp_path: Path) -> PlantedRun:
    """Three classes of two hues and three shades; a fifth of the pictures is held out."""
    made = PlantedRun(planted_config(), coloured(200), tmp_path, base=BASE)
    made.data = replace(made.data, factors=FACTORS)
    return made


def test_samples_are_of_what_is_held_out(run: PlantedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample i is of the class of the i-th picture measured, and begins again after the last. Kills: classes in turn,
    labels of all held-out pictures instead of those that were measured, a protocol that says something else."""
    Judge().instead(monkeypatch)
    found, rows = measured(run, run.source)
    (given,) = run.labels
    wanted = run.source.labels[rows].tolist()
    assert given.tolist() == (wanted + wanted)[: run.config.evaluation.samples] and len(given) == 14
    assert found.generation is not None
    assert found.generation.kernel.protocol.count("; of the hue and shade of each held-out picture") == 1
    assert "in turn" not in found.generation.kernel.protocol


def test_each_factor_has_a_judge(run: PlantedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judges learn training pictures by the values of their own factor and are asked for those of samples and of
    the pictures measured. Kills: factors exchanged, class numbers for values, the judge of one asked for the other's,
    shares exchanged."""
    judge = Judge().instead(monkeypatch)
    found, rows = measured(run, run.source)
    labels = run.source.labels
    for one, (learned, values, count, _) in enumerate(judge.seen):
        assert torch.equal(values, FACTORS.table[labels[numbers(learned)]][:, one])
        assert count == len(FACTORS.values[one])
    asked = [values.tolist() for _, values in judge.asked]
    of_samples = FACTORS.table[run.labels[0]]
    of_real = FACTORS.table[labels[rows]]
    assert asked == [
        of_samples[:, 0].tolist(),
        of_real[:, 0].tolist(),
        of_samples[:, 1].tolist(),
        of_real[:, 1].tolist(),
    ]
    assert found.classifier is None and found.judged == found.factors
    assert [one.of for one in found.factors] == ["hue", "shade"]
    (_, real_of_hue), (made, of_made) = judge.asked[1], judge.asked[2]
    brightest = made.float().mean((2, 3)).argmax(1)
    assert found.factors[1].samples.value == pytest.approx(float((brightest == of_made).double().mean()))
    assert found.factors[0].real.n == len(real_of_hue)


def test_factors_are_remembered(tmp_path: Path) -> None:
    """Kills: a run that forgets what its classes are made of, a file of other runs that changes."""
    facts = Facts(channels=3, classes=tuple(CLASSES), sha256="", source="planted", factors=FACTORS)
    path = RunFolder(tmp_path).data
    write_json(path, facts.to_json())
    found = read(path)
    assert found.factors is not None and found.factors.names == FACTORS.names and found.table is not None
    assert torch.equal(found.table, FACTORS.table)
    assert "factors" not in replace(facts, factors=None).to_json() and replace(facts, factors=None).table is None
