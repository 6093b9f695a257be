"""Every number of metrics.json and every array of evaluation.safetensors, on a run whose answers were made by hand."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from planted import (
    BASE,
    Judge,
    Means,
    PlantedRun,
    closed_form_bits,
    measured,
    mislabelled,
    numbers,
    planted_config,
    recorded,
)
from unilat import results
from unilat.files import read_safetensors
from unilat.maths.rate import RateTerms
from unilat.metrics.quality import ssim
from unilat.models.base import Base
from unilat.results import Bits, Number
from unilat.run import evaluate as evaluation
from unilat.run import rate
from unilat.run.evaluate import evaluate
from unilat.signals import Pictures


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return mislabelled()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    return Judge().instead(monkeypatch)


def row_of(values: Tensor) -> tuple[float, float, int]:
    """Mean, standard error and count."""
    each = values.double().tolist()
    mean = sum(each) / len(each)
    return mean, math.sqrt(sum((one - mean) ** 2 for one in each) / (len(each) - 1) / len(each)), len(each)


def told_of(row: Number | Bits | None) -> Any:
    assert row is not None
    return pytest.approx((row.value, row.stderr, row.n), rel=1e-4)


def latents_of(pictures: Pictures, rows: list[int]) -> Tensor:
    """Float64 latents of the planted autoencoder, a few lines of its own."""
    x = pictures.images[rows].double() / 127.5 - 1
    return 2 * x.unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5)) + 0.5


def kernel_by_hand(a: Tensor, b: Tensor) -> float:
    """The unbiased squared MMD with ``(x·y/D + 1)³``, pair by pair."""
    a, b = a.double(), b.double()

    def mean(x: Tensor, y: Tensor, apart: bool) -> float:
        found = [
            float((i @ j / len(i) + 1) ** 3) for p, i in enumerate(x) for q, j in enumerate(y) if p != q or not apart
        ]
        return sum(found) / len(found)

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)


@pytest.mark.parametrize("learned", [False, True])
def test_bits_and_their_arrays_by_hand(
    pictures: Pictures, judge: Judge, tmp_path: Path, learned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three estimates of known nats: value, error, count, maps, curve and terminal. Kills: bits per dimension or per
    latent, nats, one estimate for all, a variance's entropy forgotten, a map over the wrong axis."""
    monkeypatch.setattr(rate, "NEAR", 100)  # what levels make of errors stands in test_drawn_bits.py
    run = PlantedRun(planted_config(), pictures, tmp_path, learned=learned)
    metrics, rows = measured(run, pictures)
    z = latents_of(pictures, rows)
    terminal = z.square() - (0.25 + z.abs() if learned else 0)
    bits = (2 * (z + 3).square() + terminal) / math.log(2)  # (1 + 2 + 3) / 3
    row = metrics.bits
    assert row_of(bits.sum((1, 2, 3)) / 256) == told_of(row) and row.n == 15
    assert row.target == 0.35 and row.unit == "bits per pixel"
    assert row.protocol.endswith("under the run's prior, 3 noise levels a picture")
    arrays, _ = read_safetensors(tmp_path / "evaluation.safetensors")
    close = lambda a, b: torch.testing.assert_close(arrays[a].double(), b, rtol=1e-5, atol=1e-5)  # noqa: E731
    close("bit_map", bits.sum(1).mean(0))
    close("channel_bits", bits.sum((2, 3)).mean(0))
    close("terminal_bits", terminal.sum((1, 2, 3)).mean()[None] / math.log(2))
    once = ((z[:8] + 3).square() + terminal[:8]) / math.log(2)
    close("bit_maps", once.sum(1))
    close("bits_each", once.sum((1, 2, 3)))
    close("curve_edges", torch.linspace(-9, 4, 31, dtype=torch.float64))
    levels, curve = torch.linspace(-9, 4, 15, dtype=torch.float64), torch.zeros(30, dtype=torch.float64)
    for k in range(3):
        for picture, level in enumerate(levels.roll(k).tolist()):
            curve[min(29, int((level + 9) / (13 / 30) + 1e-5))] += (1 + k) * (z[picture] + 3).square().sum() / 45
    close("curve_bits", curve / math.log(2))


def test_each_shown_pictures_map_is_of_64_draws_of_its_own(pictures: Pictures, judge: Judge, tmp_path: Path) -> None:
    """The latents asked for are the first eight, 64 times each and one after the other, with their entropy, at one
    level. Kills: ``repeat`` for ``repeat_interleave``, another number of draws than is averaged, an entropy dropped."""
    run, asked = PlantedRun(planted_config(), pictures, tmp_path, learned=True), []
    run.rate = recorded(run.rate, asked)  # type: ignore[method-assign]
    _, rows = measured(run, pictures)
    z = latents_of(pictures, rows).float()
    (first, named), ((shown, levels), shown_named) = asked
    torch.testing.assert_close(first[0], z)
    assert first[1] == 3 and levels == 1 and named["posterior"].mean.shape == z.shape
    torch.testing.assert_close(shown.unflatten(0, (8, 64)), z[:8, None].expand(-1, 64, -1, -1, -1))
    each, every = (one["posterior"].log_variance for one in (shown_named, named))
    torch.testing.assert_close(each.unflatten(0, (8, 64))[:, 5], every[:8])


def test_base_bits_are_the_closed_form_of_each_class(pictures: Pictures, judge: Judge, tmp_path: Path) -> None:
    """An exact denoiser a class: held-out bits are the KL of its Gaussian, within the error of 300 draws. Kills: labels
    of other pictures, no labels, another noise range, bits per latent number."""
    run = PlantedRun(planted_config(rate_levels=300, samples=3), pictures, tmp_path, base=BASE)
    metrics, rows = measured(run, pictures)
    mean = BASE.denoise.mean[pictures.labels[rows]].double()[..., None, None]
    bits = closed_form_bits(latents_of(pictures, rows), mean, BASE.denoise.std.double()[None, :, None, None], -9.0, 4.0)
    assert metrics.base_bits is not None
    assert metrics.base_bits.value == pytest.approx(float(bits.sum((1, 2, 3)).mean()) / 256, rel=0.01)
    assert metrics.base_bits.stderr == pytest.approx(row_of(bits.sum((1, 2, 3)) / 256)[1], rel=0.05)


@pytest.mark.parametrize("case", ["own", "learned", "elsewhere", "one class", "untrained"])
def test_base_bits_by_hand(
    pictures: Pictures, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Planted estimates: mean, error, count, unit, less the entropy; and what the base model is told of each picture:
    its class, none of another source's nor one that it was not trained on, nothing where there are no classes."""
    asked: list[Any] = []

    def planted(z: Tensor, *given: Any, levels: int, **named: Any) -> list[RateTerms]:
        asked.append((z, given, named | {"levels": levels}))
        entropy = named["posterior"] and named["posterior"].log_variance
        found = [RateTerms((2 + k) * z.square(), (z + 1).square(), z[:, 0, 0, 0]) for k in range(levels)]
        return [terms.less(entropy) for terms in found]

    monkeypatch.setattr(rate, "NEAR", 100)
    monkeypatch.setattr(evaluation, "measure_rate", planted)
    made = Base.__new__(Base)  # its conditions alone: no network is needed
    object.__setattr__(made, "classes", 0 if case == "one class" else 3)
    base = SimpleNamespace(denoise="the base", classes=made.classes, lambda_min=-9.0)
    base.condition, base.unlabelled = made.condition, made.unlabelled
    run = PlantedRun(planted_config(samples=3), pictures, tmp_path, learned=case == "learned", base=base)
    if case == "untrained":
        run.data = replace(run.data, untrained=("green",))
    metrics, rows = measured(run, pictures, "elsewhere" if case == "elsewhere" else None)
    z = latents_of(pictures, rows)
    nats = 3 * z.square() + (z + 1).square() - (0.25 + z.abs() if case == "learned" else 0)
    assert row_of(nats.sum((1, 2, 3)) / math.log(2) / 256) == told_of(metrics.base_bits)
    assert metrics.base_bits is not None and metrics.base_bits.unit == "bits per pixel"
    assert "under the base model, 3 noise levels" in metrics.base_bits.protocol
    (given_z, given, named) = asked[0]
    torch.testing.assert_close(given_z, z.float())
    assert given == ("the base", run.autoencoder.rate_levels.table, -9.0)
    assert named["levels"] == 3 and named["seed"] != 0, "the base's noise is not the prior's"
    cond = named["cond"]
    if case == "one class":
        assert cond is None
    elif case == "elsewhere":
        assert len(cond) == 15 and bool(cond.dropped.all())
    else:
        assert torch.equal(cond.rows[~cond.dropped], pictures.labels[rows][~cond.dropped])
        untold = torch.zeros(15, dtype=torch.bool) if case != "untrained" else pictures.labels[rows] == 1
        assert torch.equal(cond.dropped, untold) and 0 <= int(untold.sum()) < 15


def test_reconstructions_by_hand(pictures: Pictures, judge: Judge, tmp_path: Path) -> None:
    """Pictures that come back brighter by a known number: PSNR 20 log10(255 / it), distances pair by pair. Kills:
    numbers of other pictures or steps, a headline of the last row, distances on another share."""
    run = PlantedRun(planted_config(), pictures, tmp_path)
    metrics, rows = measured(run, pictures)
    images, more = pictures.images[rows], torch.tensor([1, 1, 3] * 5)
    arrays, _ = read_safetensors(tmp_path / "evaluation.safetensors")
    assert torch.equal(arrays["originals"], images[:8])
    assert [row.steps for row in metrics.by_steps] == [1, 3, 4] and metrics.reconstruction.steps == 4
    features = images.double().mean((2, 3)) / 255
    for row in metrics.by_steps:
        steps = row.steps
        made = (images.int() + (steps * more)[:, None, None, None]).to(torch.uint8)
        decibels, alike = 20 * torch.log10(255 / (steps * more.double())), ssim(images, made)
        assert row_of(decibels) == told_of(row.psnr) and row.psnr.unit == "dB"
        assert row_of(alike) == told_of(row.ssim) and row.ssim.unit == ""
        assert "mean of decibels" in row.psnr.protocol and "Wang et al. 2004" in row.ssim.protocol
        count = 15 if steps == 4 else 7
        moved = (made.double().mean((2, 3)) / 255)[:count]
        assert row.distance is not None and row.distance.kernel.n == count
        kernel = kernel_by_hand(features[:count], moved)
        assert row.distance.kernel.value == pytest.approx(kernel, rel=1e-4, abs=1e-9)
        assert torch.equal(arrays[f"reconstructions_{steps}"], made[:8])


@pytest.mark.parametrize("once", ["mse", "fast"])
def test_a_decoder_of_one_number_of_calls_is_measured_at_that_alone(
    pictures: Pictures, judge: Judge, tmp_path: Path, once: str
) -> None:
    """Kills: a squared-error or a distilled decoder asked for step counts that it does not have."""
    run = PlantedRun(planted_config(), pictures, tmp_path)
    if once == "mse":
        run.config = replace(run.config, autoencoder=replace(run.config.autoencoder, decoder_loss="mse"))
    else:
        run.few_decoder = SimpleNamespace(temperature=0.75, span=(-4.0, 1.0))  # type: ignore[assignment]
    run.decoder_steps = 2
    metrics, _ = measured(run, pictures)
    assert [row.steps for row in metrics.by_steps] == [2] and metrics.reconstruction.steps == 2


def test_the_distance_of_all_samples_by_hand(
    pictures: Pictures, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a part of the samples, reconstructions for samples, real and made exchanged, another protocol than was
    used; arrays of other pictures or with other labels."""
    asked: list[Any] = []
    monkeypatch.setattr(evaluation, "compare", recorded(evaluation.compare, asked))
    run = PlantedRun(planted_config(), pictures, tmp_path, base=BASE)
    metrics, rows = measured(run, pictures)
    sampled = run.sample(14)
    made, labels = sampled.images, sampled.labels
    assert torch.equal(asked[-1][0][0], Means()(pictures.images[rows])), "the real ones give the directions"
    real, other = (images.double().mean((2, 3)) / 255 for images in (pictures.images[rows][:14], made))
    assert metrics.generation is not None
    kernel, frechet = metrics.generation.kernel, metrics.generation.frechet64
    assert kernel.value == pytest.approx(kernel_by_hand(real, other), rel=1e-5) and kernel.n == 14
    one, two = real.T.cov(), other.T.cov()
    root = torch.linalg.eigvals(one @ two).sqrt().sum().real
    distance = (real.mean(0) - other.mean(0)).square().sum() + one.trace() + two.trace() - 2 * root
    assert frechet.value == pytest.approx(float(distance), rel=1e-4) and frechet.n == 14
    words = "features: means of channels; guidance 2.5, 5 calls of the base and 4 of the decoder at temperature 0.25"
    assert words in kernel.protocol and "classes in turn" in kernel.protocol
    arrays, _ = read_safetensors(tmp_path / "evaluation.safetensors")
    assert torch.equal(arrays["samples"], made) and torch.equal(arrays["sample_labels"], labels)


def test_a_page_of_samples_and_the_fast_decoders_temperature(pictures: Pictures, judge: Judge, tmp_path: Path) -> None:
    """Kills: more or fewer samples shown than 64, labels of others, the full decoder's temperature told of the fast."""
    run = PlantedRun(planted_config(samples=71), pictures, tmp_path, base=BASE)
    run.few_decoder = SimpleNamespace(temperature=0.75, span=(-4.0, 1.0))  # type: ignore[assignment]
    metrics, _ = measured(run, pictures)
    arrays, _ = read_safetensors(tmp_path / "evaluation.safetensors")
    assert torch.equal(arrays["samples"], run.sample(71).images[:64])
    assert arrays["sample_labels"].tolist() == [index % 3 for index in range(64)]
    assert metrics.generation is not None and metrics.generation.kernel.n == 15
    assert "at temperature 0.75" in metrics.generation.kernel.protocol


def test_the_judge_learns_from_training_pictures_and_names_samples(
    pictures: Pictures, judge: Judge, tmp_path: Path
) -> None:
    """Eleven of fourteen samples have their label's colour, and all held-out pictures but the planted ones. Kills: a
    judge trained on what it is tested on, shuffled labels, real and samples exchanged, a ratio upside down."""
    run = PlantedRun(planted_config(), pictures, tmp_path, base=BASE)
    metrics, rows = measured(run, pictures)
    found = metrics.classifier
    assert found is not None
    ((learned, labels, classes, samples),) = judge.seen
    assert judge.places == [run.device, run.device]  # features and judge are where the networks are
    assert numbers(learned) == [index for index in range(200) if index % 4 > 1]
    assert torch.equal(labels, pictures.labels[numbers(learned)]) and (classes, samples) == (3, 640)
    wrong = sum(row % 20 == 0 for row in rows)
    assert 0 < wrong < 8
    real, share = 1 - wrong / 15, 11 / 14
    assert (found.samples.value, found.samples.n) == (pytest.approx(share), 14)
    assert (found.real.value, found.real.n) == (pytest.approx(real), 15)
    assert found.samples.stderr == pytest.approx(math.sqrt(share * (1 - share) / 14))
    assert found.real.stderr == pytest.approx(math.sqrt(real * (1 - real) / 15))
    assert found.ratio == pytest.approx(share / real) and found.samples.protocol == "the brightest channel"
    asked = [(numbers(images), given.tolist()) for images, given in judge.asked[1:]]
    assert asked == [(rows, pictures.labels[rows].tolist())], "the real pictures are those that were measured"


@pytest.mark.parametrize("case", ["another source", "one class", "switched off"])
def test_nobody_is_judged_where_there_is_nothing_to_name(
    pictures: Pictures, judge: Judge, tmp_path: Path, case: str
) -> None:
    """Kills: samples judged by another source's classes or by a single class, and a judge trained on no pictures."""
    base = SimpleNamespace(**{**vars(BASE), "classes": 1}) if case == "one class" else BASE
    config = planted_config(classifier_samples=0 if case == "switched off" else 640)
    run = PlantedRun(config, pictures, tmp_path, base=base)
    metrics, rows = measured(
        run, None if case == "another source" else pictures, "elsewhere" if case == "another source" else None
    )
    assert metrics.classifier is None and not judge.seen
    assert metrics.generation is not None and metrics.generation.kernel.n == 14
    assert min(rows) >= 180 if case == "another source" else max(rows) <= 196


def test_a_chance_choice_of_the_held_out_pictures(pictures: Pictures, judge: Judge, tmp_path: Path) -> None:
    """Kills: pictures measured that were trained or calibrated on, the first ones alone (a sorted folder gives one
    class then), another choice each time, more than were asked for, fewer than there are."""
    rows = measured(PlantedRun(planted_config(), pictures, tmp_path), pictures)[1]
    again = measured(PlantedRun(planted_config(), pictures, tmp_path), pictures)[1]
    everybody = measured(PlantedRun(planted_config(pictures=500), pictures, tmp_path), pictures)[1]
    assert rows == again and len(set(rows)) == 15 and not [row for row in rows if row % 4]
    assert max(rows) > 120 and sorted(everybody) == list(range(0, 200, 4)) and everybody != sorted(everybody)


def test_copies_are_measured_once(pictures: Pictures, judge: Judge, tmp_path: Path) -> None:
    """Of 50 held-out pictures 24 are copies. Kills: a standard error, a distance or a share of right names that takes
    copies for independent, copies chosen before they are left out, labels of other pictures, and a silence about it."""
    images, copied = pictures.images.clone(), range(100, 196, 4)
    for index in copied:
        images[index] = images[index - 100]
    run = PlantedRun(planted_config(pictures=500), replace(pictures, images=images), tmp_path, base=BASE)
    said: list[str] = []
    seen: list[Any] = []
    run.encoded = recorded(run.encoded, seen)  # type: ignore[method-assign]
    found = evaluate(run, None, said.append, run.source)  # type: ignore[arg-type]
    rows = numbers(seen[0][0][0])
    assert sorted(rows) == [*range(0, 100, 4), 196]
    z = latents_of(pictures, rows)
    bits = (2 * (z + 3).square() + z.square()) / math.log(2)
    assert row_of(bits.sum((1, 2, 3)) / 256) == told_of(found.bits) and found.bits.n == 26
    assert found.reconstruction.psnr.n == 26 and found.reconstruction.distance is not None
    assert found.reconstruction.distance.kernel.n == 26
    assert found.classifier is not None and found.classifier.real.n == 26
    assert torch.equal(judge.asked[-1][1], pictures.labels[rows])
    assert found.pictures == "held out of planted, never trained on; 24 exact copies are left out"
    assert "measuring 26 pictures: held out of planted, never trained on; 24 exact copies are left out" in said
    few = measured(PlantedRun(planted_config(pictures=20), run.source, tmp_path), run.source)[1]
    assert len(set(few)) == len(few) == 20


def test_what_pictures_were_made_with_is_kept(pictures: Pictures, judge: Judge, tmp_path: Path) -> None:
    """Kills: a line that says guidance or classes where there are none, and results without what made them."""
    run = PlantedRun(planted_config(), pictures, tmp_path, base=BASE)
    found = evaluate(run, None, pictures=pictures)  # type: ignore[arg-type]
    decoder = "the decoder at temperature 0.25, log-SNR -5 to 2"
    assert found.making is not None and found.making.base == "full"
    assert found.making.line == f"guidance 2.5, 5 calls of the base and 4 of {decoder}"
    assert found.generation is not None and f"{found.making.line}; classes in turn" in found.generation.kernel.protocol
    run.base = SimpleNamespace(**{**vars(BASE), "classes": 0, "denoise": run.autoencoder.prior})
    found = evaluate(run, None, pictures=pictures)  # type: ignore[arg-type]
    assert found.making is not None and found.generation is not None
    assert found.making.line == f"guidance 1, 5 calls of stage 1's prior and 4 of {decoder}"
    assert "classes in turn" not in found.generation.kernel.protocol
    run.base, run.config = None, replace(run.config, stage2=replace(run.config.stage2, samples=0))
    found = evaluate(run, None, pictures=pictures)  # type: ignore[arg-type]
    assert found.making is not None and found.making.line == f"4 calls of {decoder}"
    assert results.read(tmp_path / "metrics.json").making == found.making
