"""Planted cases for the classifier and the feature network: inputs whose answer is known without either."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unilat.metrics import Classifier, classifier, train_classifier
from unilat.metrics.features import EfficientNetLite0


def coloured(count: int, seed: int, side: int = 32) -> tuple[Tensor, Tensor]:
    """Pictures whose class is their brightest channel, uint8 ``[count, 3, S, S]``; three classes, unequal in number."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 1, 1, 2, 2, 2])[torch.randint(0, 6, (count,), generator=generator)]
    made = torch.randint(0, 100, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    made[torch.arange(count), labels] += 120
    return made, labels


def test_pictures_whose_class_is_their_colour_are_all_named() -> None:
    """Kills channels that are averaged or swapped between training and judging, and labels of other pictures."""
    judge = train_classifier(*coloured(120, 0), 3, samples=1500)
    pictures, labels = coloured(60, 1)
    assert torch.equal(judge.predict(pictures), labels)
    named = judge.accuracy(pictures, (labels + 1) % 3)
    assert (named.value, named.stderr, named.n) == (0.0, 0.0, 60)


class Brightest(nn.Module):
    """The channel of the largest mean, without any learning."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_accuracy_is_the_share_and_its_binomial_error() -> None:
    """12 of 16 right: 0.75 ± √(0.75 · 0.25 / 16). Kills a variance told as an error, and n − 1 of another count."""
    pictures, labels = coloured(16, 2)
    judge = Classifier(Brightest(), 3, 3, "by hand")
    told = labels.clone()
    told[[1, 4, 9, 15]] = (labels[[1, 4, 9, 15]] + 1) % 3
    found = judge.accuracy(pictures, told)
    assert (found.value, found.n) == (0.75, 16)
    assert found.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 16), rel=1e-12)
    assert judge.logits(pictures.repeat(70, 1, 1, 1)).shape == (1120, 3)  # more than one part


def test_pictures_of_all_sizes_reach_the_network_as_it_says() -> None:
    """By hand for each of four ways. Kills a resize in place of padding, zeros at the border, and a lost −1 … 1."""
    made = torch.randint(0, 256, (2, 3, 29, 31), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    unit = made.double().numpy() / 127.5 - 1
    padded = np.pad(unit, ((0, 0), (0, 0), (1, 2), (0, 1)), mode="edge")
    assert np.allclose(classifier._prepare(made).numpy(), padded, atol=1e-6)
    same = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 32, 32)
    assert classifier._prepare(same)[:, 0, 5, 7].tolist() == [-1.0, 1.0]
    large = torch.randint(0, 256, (2, 1, 64, 96), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    blocks = (large.double() / 127.5 - 1).view(2, 1, 32, 2, 32, 3).mean((3, 5))
    assert torch.allclose(classifier._prepare(large).double(), blocks, atol=1e-6)
    small = torch.tensor([[0, 255], [0, 255]], dtype=torch.uint8)[None, None]
    row = classifier._prepare(small)[0, 0, 3]
    # the centres stand at 1/4 and 3/4 of the width: flat outside of them, a straight line between
    line = torch.linspace(-1, 1, 33)[1::2]
    assert torch.allclose(row[8:24], line, atol=1e-5) and row[:8].eq(-1).all() and row[24:].eq(1).all()


def test_moving_is_by_one_pixel_at_most_and_repeats_the_border() -> None:
    """All nine moves come, each the picture itself. Kills a wrap around the border and moves in one direction."""
    index = torch.arange(32)
    x = (100 * index[:, None] + index).float()[None, None]  # row and column of each pixel in its value
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(60):
        moved = classifier._shifted(x, generator)[0, 0]
        row, column = divmod(int(moved[16, 16]), 100)
        down, right = row - 16, column - 16
        assert abs(down) <= 1 and abs(right) <= 1
        assert torch.equal(moved, x[0, 0][(index + down).clamp(0, 31)][:, (index + right).clamp(0, 31)])
        seen.add((down, right))
    assert len(seen) == 9


def seen_by(monkeypatch: pytest.MonkeyPatch, count: int, samples: int) -> tuple[list[Tensor], list[float]]:
    """Which pictures each batch shows, told by their brightness, and the learning rates, of a network that is none."""
    shown: list[Tensor] = []
    rates: list[float] = []

    class Watcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            shown.append(((x[:, 0, 16, 16] + 1) * 127.5).round().long())
            return self.weight.expand(len(x), 2)

    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    monkeypatch.setattr(classifier, "_network", lambda *_: Watcher())
    pictures = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 32, 32).contiguous()
    train_classifier(pictures, torch.arange(count) % 2, 2, samples=samples)
    return shown, rates


def test_every_epoch_shows_each_picture_once_in_a_new_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """192 pictures, 768 seen: six batches of 128, four epochs. Kills one order for all, and a tail that is dropped."""
    shown, rates = seen_by(monkeypatch, 192, 768)
    assert [len(batch) for batch in shown] == [128] * 6 and len(rates) == 6
    epochs = torch.cat(shown).view(4, 192)
    assert all(torch.equal(epoch.sort().values, torch.arange(192)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[0], torch.arange(192))


def test_the_learning_rate_goes_up_to_its_peak_and_down_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 steps: the peak of 3e-3 at 15 % of the cycle. Kills a rate that is never moved and a cycle of other length."""
    _, rates = seen_by(monkeypatch, 128, 40 * 128)
    assert len(rates) == 40
    assert max(rates) == pytest.approx(3e-3) and rates.index(max(rates)) == 5
    assert rates[0] == pytest.approx(3e-3 / 25) and rates[-1] < 1e-7


def test_weights_that_nothing_moves_fall_by_a_hundredth_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number without a gradient ends at Π (1 − rate / 100). Kills another decay, and none."""

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Parameter(torch.full((2,), 3.0, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (0.0 * self.idle).expand(len(x), 2)

    rates = list(seen_by(monkeypatch, 128, 40 * 128)[1])
    monkeypatch.setattr(classifier, "_network", lambda *_: Idle())
    pictures = torch.zeros(128, 1, 32, 32, dtype=torch.uint8)
    judge = train_classifier(pictures, torch.arange(128) % 2, 2, samples=40 * 128)
    left = 3.0 * math.prod(1 - rate / 100 for rate in rates)
    assert next(judge.network.parameters()).tolist() == pytest.approx([left, left], rel=1e-9)


def test_a_fifth_of_what_the_last_layer_hears_is_dropped_in_training() -> None:
    """Against the same network while it judges: a fifth is 0, the rest 5/4 as large. Kills another share, and another
    size, counted by hand."""
    network = classifier._network(1, 10)
    sizes = (32 * 26, 2 * 32, 64 * (9 * 32 + 1), 128 * (1024 + 1), 10 * (128 + 1))
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(sizes) == 151_882
    heard: list[Tensor] = []
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].detach()))
    pictures = torch.randn(400, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network.train()(pictures)
        network.eval()(pictures)
    kept, whole = (part[heard[1] > 0] for part in heard)
    assert float((kept == 0).float().mean()) == pytest.approx(0.2, abs=0.015)
    assert torch.allclose(kept[kept > 0], 1.25 * whole[kept > 0])


@pytest.mark.parametrize(("samples", "moved"), [(8 * 100, False), (8 * 100 + 1, True)])
def test_only_pictures_seen_more_than_eight_times_are_moved(
    samples: int, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a limit of another count, and pictures moved always or never."""
    calls: list[int] = []
    monkeypatch.setattr(classifier, "_shifted", lambda x, _: calls.append(len(x)) or x)
    seen_by(monkeypatch, 100, samples)
    assert bool(calls) == moved


def test_the_protocol_tells_pictures_classes_and_how_many_were_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills pictures told as seen ones, and the batch's count for the pictures'."""
    monkeypatch.setattr(classifier, "_fit", lambda *_: None)
    judge = train_classifier(*coloured(1234, 0, side=2), 7, samples=56_789, seed=4)
    assert judge.protocol == (
        "small convolutional network trained on 1,234 real pictures in 7 classes (56,789 seen, seed 4), pictures "
        "brought to 32×32"
    )
    assert (judge.channels, judge.classes) == (3, 7)


def seen_by_features(pictures: Tensor, size: int) -> Tensor:
    """What the packaged network would be given: the same object around a network that returns its input."""
    network, parts = object.__new__(EfficientNetLite0), []
    network.size, network._network = size, lambda x: parts.append(x) or x
    features, given = network(pictures), torch.cat(parts)
    assert torch.allclose(features, given.mean((2, 3)), atol=1e-6) and features.dtype == torch.float32
    return given


@pytest.mark.parametrize(("height", "width"), [(20, 33), (50, 41), (32, 32)])
def test_the_feature_network_sees_what_its_protocol_says(height: int, width: int) -> None:
    """Pillow's bicubic of each channel in floats, held to [0, 1]. Kills another resize, an aliased one, and rounding.

    Smaller, larger and equal pictures, 28 of them, so that there are two parts.
    """
    made = torch.randint(0, 256, (28, 3, height, width), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    made[:, :, :8] = 255 * (made[:, :, :8] > 127)  # hard edges, where bicubic runs over
    given = seen_by_features(made, 32)
    assert given.shape == (28, 3, 32, 32)
    for picture in (0, 9, 27):
        for channel in range(3):
            image = Image.fromarray(made[picture, channel].numpy().astype(np.float32) / 255, mode="F")
            resized = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).clip(0, 1)
            assert np.allclose(given[picture, channel].numpy(), (resized - 0.498) / 0.502, atol=2e-5)


def test_grey_is_given_as_three_equal_channels() -> None:
    """Kills grey put into one channel beside zeros."""
    made = torch.randint(0, 256, (3, 1, 32, 32), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    given = seen_by_features(made, 32)
    expected = (made.double() / 255 - 0.498) / 0.502
    assert torch.allclose(given.double(), expected.expand(-1, 3, -1, -1), atol=2e-5)
