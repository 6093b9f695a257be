"""The classifier that judges samples: it learns what can be learnt, is seeded, and says how sure it is."""

import math

import pytest
import torch

from unilat.metrics import train_classifier
from unilat.types import UserError


def bars(
    count: int, classes: int, *, channels: int = 1, side: int = 32, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures with one bright row whose height tells the class; ``uint8 [N, C, S, S]`` and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    noise = torch.rand(count, channels, side, side, generator=generator) * 120
    rows = (labels * side) // classes + side // (2 * classes)
    noise[torch.arange(count), :, rows] += 130
    return noise.to(torch.uint8), labels


def test_it_learns_and_is_judged_on_pictures_it_has_not_seen() -> None:
    """Kills labels shuffled against pictures, a head of the wrong width and a loop that does not step."""
    classifier = train_classifier(*bars(600, 5), 5, samples=3000)
    result = classifier.accuracy(*bars(300, 5, seed=1))
    assert result.value > 0.95 and result.n == 300
    assert "600 real pictures in 5 classes" in classifier.protocol and "3,000" in classifier.protocol


def test_chance_stays_chance() -> None:
    """Kills an accuracy that knows the answers: random labels are named at 1 in 5, binomial error beside it."""
    pictures, labels = bars(400, 5)
    shuffled = labels[torch.randperm(400, generator=torch.Generator().manual_seed(3))]
    result = train_classifier(pictures, labels, 5, samples=2000).accuracy(pictures, shuffled)
    assert abs(result.value - 0.2) < 5 * result.stderr
    assert result.stderr == pytest.approx(math.sqrt(result.value * (1 - result.value) / 400))


def test_same_seed_same_network_and_the_global_state_untouched() -> None:
    """Kills draws from the global state, and a seed that goes nowhere."""
    data = bars(100, 3)
    before = torch.get_rng_state()
    first = train_classifier(*data, 3, seed=1, samples=500).logits(data[0])
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    assert torch.equal(first, train_classifier(*data, 3, seed=1, samples=500).logits(data[0]))
    assert not torch.equal(first, train_classifier(*data, 3, seed=2, samples=500).logits(data[0]))


def test_a_row_depends_on_its_own_picture_only() -> None:
    """Kills batch norm in training mode and dropout left on."""
    pictures, labels = bars(64, 3)
    classifier = train_classifier(pictures, labels, 3, samples=500)
    assert torch.allclose(classifier.logits(pictures)[10:11], classifier.logits(pictures[10:11]), atol=1e-5)
    assert torch.equal(classifier.predict(pictures), classifier.logits(pictures).argmax(1))


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (64, 3)])
def test_other_sizes_and_colour_are_learnt_too(side: int, channels: int) -> None:
    """Kills a head that fits 32² only."""
    classifier = train_classifier(*bars(300, 4, side=side, channels=channels), 4, samples=2000)
    assert classifier.accuracy(*bars(200, 4, side=side, channels=channels, seed=1)).value > 0.8


def test_hundreds_of_classes_and_fewer_pictures_than_a_batch() -> None:
    """Kills an order shorter than a batch, a head of ten classes and a progress that ends elsewhere."""
    pictures = torch.randint(0, 256, (50, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen: list[tuple[int, int]] = []
    classifier = train_classifier(
        pictures, torch.arange(50) * 8, 400, samples=300, progress=lambda done, all: seen.append((done, all))
    )
    assert classifier.logits(pictures).shape == (50, 400)
    assert seen[-1] == (300, 300) and len(seen) == 3


def test_bad_labels_are_refused() -> None:
    """Kills labels that are cut to the range, and pictures of another kind."""
    pictures, labels = bars(10, 3)
    for wrong, match in (
        (labels[:9], "one label per picture"),
        (labels + 1, "labels from 0 to 2"),
        (labels - 1, "from 0"),
    ):
        with pytest.raises(UserError, match=match):
            train_classifier(pictures, wrong, 3)
    with pytest.raises(UserError, match="at least 2 classes"):
        train_classifier(pictures, labels * 0, 1)
    classifier = train_classifier(pictures, labels, 3, samples=10)
    with pytest.raises(UserError, match=r"\[B, 1, H, W\]"):
        classifier.predict(pictures.expand(-1, 3, -1, -1))
    with pytest.raises(UserError, match="one label per picture"):
        classifier.accuracy(pictures, labels[:3])
