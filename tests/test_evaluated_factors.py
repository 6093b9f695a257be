"""What is sampled and judged where a class is a combination of labels, beside answers made by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from planted import BASE, CLASSES, Judge, PlantedRun, coloured, measured, numbers, planted_config
from unilat.files import read_safetensors, write_json
from unilat.run import classes
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


def test_a_label_of_one_value_has_no_judge(run: PlantedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hue in three shades. Kills: a classifier of one class, which is refused and ends the evaluation."""
    one = Factors(("hue", "shade"), (("red",), ("dark", "middle", "light")), torch.tensor([[0, 2], [0, 0], [0, 1]]))
    run.data = replace(run.data, factors=one)
    Judge().instead(monkeypatch)
    found, _ = measured(run, run.source)
    assert [judge.of for judge in found.judged] == ["shade"]


def test_factors_are_remembered(tmp_path: Path) -> None:
    """Kills: a run that forgets what its classes are made of, a file of other runs that changes."""
    facts = Facts(channels=3, classes=tuple(CLASSES), sha256="", source="planted", factors=FACTORS)
    path = RunFolder(tmp_path).data
    write_json(path, facts.to_json())
    found = read(path)
    assert found.factors is not None and found.factors.names == FACTORS.names and found.table is not None
    assert torch.equal(found.table, FACTORS.table)
    assert "factors" not in replace(facts, factors=None).to_json() and replace(facts, factors=None).table is None


def test_a_page_has_one_factor_down_and_one_across(run: PlantedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of values that occur with all others, those that the set shows first. Kills: factors exchanged, a pair that is no
    class, values in another order, framed pairs that were trained on."""
    pairs = [(a, b) for a in range(5) for b in range(2) if (a, b) != (1, 1)]
    factors = Factors(("letter", "face"), (tuple("abcde"), ("thin", "bold")), torch.tensor(pairs), ("d", "b", "c"))
    facts = replace(run.data, classes=tuple(map(str, pairs)), factors=factors)
    page = classes.page(facts)
    assert page is not None and [[pairs[k] for k in row] for row in page.tolist()] == [
        [(3, 0), (2, 0)],
        [(3, 1), (2, 1)],
    ]
    every = classes.page(replace(facts, factors=replace(factors, shown=())))
    assert every is not None and [pairs[k][0] for k in every[1].tolist()] == [0, 2, 3, 4]
    assert classes.page(replace(facts, factors=None)) is None
    less = classes.page(replace(facts, factors=replace(factors, shown=()), untrained=(str((3, 1)),)))
    assert less is not None and [pairs[k][0] for k in less[1].tolist()] == [0, 2, 4], "nothing is known of d in bold"
    one = replace(factors, names=("letter",))
    assert classes.page(replace(facts, factors=one)) is None
    Judge().instead(monkeypatch)
    run.config = replace(run.config, evaluation=replace(run.config.evaluation, samples=4))
    three = replace(factors, shown=("c",), table=torch.tensor([[2, 0], [2, 1], [0, 0]]))
    run.data = replace(facts, classes=tuple(CLASSES), factors=three)
    parts = torch.tensor([1, 5]), torch.tensor([2]), torch.tensor([4, 8, 12])
    monkeypatch.setattr(run, "split", lambda pictures: parts)
    _, rows = measured(run, run.source)
    arrays, _ = read_safetensors(run.folder / "evaluation.safetensors")
    trained = set(run.source.labels[[1, 5]].tolist())
    assert arrays["page_labels"].tolist() == [[0], [1]] and len(arrays["page"]) == 2
    assert arrays["page_seen"].tolist() == [[0 in trained], [1 in trained]] and len(trained) < 3
    assert torch.equal(run.labels[1], torch.tensor([0, 1]))
    assert torch.equal(arrays["truths"], run.source.images[rows])
    table, values = torch.tensor([[2, 0, 0], [2, 1, 0], [0, 0, 0]]), (*three.values, ("x",))
    more = replace(three, names=("letter", "face", "tone"), values=values, table=table)
    run.data = replace(run.data, factors=more)
    _, rows = measured(run, run.source)
    arrays, _ = read_safetensors(run.folder / "evaluation.safetensors")
    assert torch.equal(arrays["truths"], run.source.images[rows]) and "page" not in arrays
