"""A run's encoding, bits, pictures and samples, on networks that are closed forms."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from planted import Blocks, ExactPrior, bare_run, closed_form_bits, coloured, planted_config, recorded, untrained
from unilat.maths.rate import LN2, RateTerms
from unilat.models.latents import LatentSet
from unilat.models.posterior import Posterior
from unilat.nets.condition import Condition
from unilat.recipe.config import DataConfig
from unilat.run import classes, given, parts, rate, trained
from unilat.run.parts import read_pictures, split_pictures
from unilat.run.rate import measure_rate
from unilat.run.trained import Run
from unilat.signals.memory import InMemory

ALPHA, SIGMA = math.sqrt(1 / (1 + math.exp(-4.0))), math.sqrt(1 / (1 + math.exp(4.0)))
"""Of the planted configuration's λ₀ = 4."""


@pytest.fixture
def run() -> Run:
    return bare_run(planted_config(), Blocks(planted_config()))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return coloured(40).images


def some_latents(count: int = 40) -> Tensor:
    """Latents with another mean and spread than the planted prior's."""
    spread = torch.tensor([0.7, 0.4, 1.5])[:, None, None]
    return 0.6 - spread * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(5))


def means_of(images: Tensor) -> Tensor:
    """The planted latents of pictures, before any draw."""
    return 2 * (images.double() / 127.5 - 1).unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5)) + 0.5


def test_bits_under_the_prior_are_the_closed_form(run: Run) -> None:
    """Channel by channel the rate of given latents under an exact denoiser is its KL. Kills: a table or a range of
    other levels, noise of other rows, a prior asked at another level than the noise's."""
    z, prior = some_latents(), run.autoencoder.prior
    found = run.rate(z, 60)
    assert len(found) == 60
    wanted = closed_form_bits(
        z.double(), prior.mean.double()[:, None, None], prior.std.double()[:, None, None], -9.0, 4.0
    )
    bits = torch.stack([terms.dimension_map() for terms in found]).mean(0).sum((1, 2)) / LN2
    torch.testing.assert_close(bits.double(), wanted.mean(0).sum((1, 2)), rtol=0.02, atol=0)
    one, other = run.rate(z, 2), run.rate(z, 2, seed=1)
    torch.testing.assert_close(one[0].diffusion, found[0].diffusion)
    assert not torch.equal(one[0].lambda_t, one[1].lambda_t) and not torch.equal(one[0].lambda_t, other[0].lambda_t)


def test_a_drawn_latents_entropy_is_taken_off_every_estimate(run: Run) -> None:
    """Kills: a learned variance's bits kept, added, or taken off the first estimate alone."""
    posterior = Posterior(some_latents(), torch.full_like(some_latents(), -1.0))
    z = posterior.draw(lambda like: torch.randn(like.shape, generator=torch.Generator().manual_seed(3)))
    entropy = posterior.entropy(4.0)
    assert entropy is not None
    for full, less in zip(run.rate(z, 3), run.rate(z, 3, posterior=posterior), strict=True):
        gone = float((full.nats() - less.nats()).mean())
        assert gone == pytest.approx(float(entropy.sum((1, 2, 3)).mean()), rel=0.2)


def test_levels_lie_evenly_over_the_whole_set_whatever_the_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of forty levels in each tenth of the table's probability, also in parts of seven, and the same numbers.
    Kills: strata drawn for each part, rows of one part used for another, conditions that stay behind."""
    z, table = some_latents(), run.autoencoder.rate_levels.table
    base = ExactPrior(torch.tensor([[0.5, 0.0, -1.0], [-0.5, 1.0, 0.0]]), torch.tensor([0.5, 0.8, 1.2]), [])
    labels = torch.arange(40) // 3 % 2

    def measured() -> RateTerms:
        return measure_rate(z, base, table, -9.0, levels=1, seed=3, device=torch.device("cpu"), cond=Condition(labels))[
            0
        ]

    whole = measured()
    upto = torch.cat([torch.zeros(1, dtype=torch.float64), table.mass.cumsum(0)])
    place = torch.searchsorted(table.edges, whole.lambda_t.double()) - 1
    share = upto[place] + table.mass[place] * (whole.lambda_t - table.edges[place]) / table.edges.diff()[place]
    assert torch.bincount((share * 10).long(), minlength=10).tolist() == [4] * 10
    monkeypatch.setattr(rate, "BATCH", 7)
    parts = measured()
    for name in ("diffusion", "terminal", "lambda_t"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
    assert torch.cat([cond.rows for cond in base.heard[1:]]).tolist() == labels.tolist()


def test_a_learned_variance_is_drawn_for_each_picture_by_its_number(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a mean in place of the draw, a variance taken for a deviation, noise that two pictures share or that the
    parts decide, entropy at another noise than λ₀."""
    run = bare_run(planted_config(), Blocks(planted_config(), math.log(0.25)))
    z, posterior = run.encoded(images)
    noise = (z - means_of(images)) / 0.5
    assert float(noise.std()) == pytest.approx(1, abs=0.05) and abs(float(noise.mean())) < 0.05
    assert (noise[0] - noise[1]).abs().max() > 0.5
    assert posterior is not None and posterior.log_variance is not None
    torch.testing.assert_close(posterior.mean.double(), means_of(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(posterior.log_variance, torch.full_like(z, math.log(0.25)))
    monkeypatch.setattr(rate, "BATCH", 6)
    again, also = run.encoded(images)
    torch.testing.assert_close(again, z)
    assert also is not None and len(also.mean) == 40
    torch.testing.assert_close(run.encoded(images[:3])[0], z[:3])
    assert (run.encoded(images, seed=1)[0] - z).abs().amax((1, 2, 3)).min() > 0.3
    assert torch.equal(run.latents(images), z)


def test_encoding_without_a_variance_is_the_mean(run: Run, images: Tensor) -> None:
    """Kills: bytes that are not brought to [-1, 1], a posterior for points."""
    z, posterior = run.encoded(images)
    torch.testing.assert_close(z.double(), means_of(images), rtol=1e-5, atol=1e-5)
    assert posterior is None


def test_encode_tells_the_mean_of_all_estimates_in_bits(
    run: Run, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted estimates. Kills: nats for bits, one estimate for the mean, an entropy or a seed not passed on, labels of
    zeros for a source that has some, pixels times channels."""
    run.autoencoder.log_variance = -1.0
    asked: list[Any] = []

    def planted(z: Tensor, levels: int, seed: int = 0, posterior: Posterior | None = None) -> list[RateTerms]:
        asked.append((levels, seed, posterior))
        return [RateTerms((1 + k) * z.square(), z.square(), z[:, 0, 0, 0]) for k in range(levels)]

    run.rate = planted  # type: ignore[method-assign]
    labels = torch.arange(40) % 3
    found = replace(coloured(40), images=images, labels=labels)
    monkeypatch.setattr(given, "load_pictures", lambda *_, **__: found)
    latents = run.encode("somewhere", seed=4)
    z, posterior = run.encoded(images, 4)
    assert torch.equal(latents.z, z) and asked[0][:2] == (3, 4) and posterior is not None
    assert torch.equal(asked[0][2].mean, posterior.mean)
    torch.testing.assert_close(latents.bits, 3 * z.square().sum((1, 2, 3)) / math.log(2))
    torch.testing.assert_close(latents.bpp, latents.bits / 256)
    assert torch.equal(latents.labels, labels) and not latents.noisy
    assert (latents.lambda_0, latents.encoder_sha256, latents.pixels) == (4.0, "f" * 64, 256)


def test_decoding_by_hand(run: Run, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the decoder is given: z_0 with its noise once, a start of the configured temperature, steps and span; and
    the bytes of what it returns. Kills: another temperature, range or count, noise shared by z_0 and x_1."""
    latents = LatentSet(run.latents(images), torch.zeros(40), torch.zeros(40).long(), 4.0, "f" * 64, 256)
    made = run.decode(latents).images
    ((z_0, x_1, steps, span),) = run.autoencoder.decoded
    assert (steps, span) == (4, (-5.0, 2.0))
    noise, start = (z_0 - ALPHA * latents.z) / SIGMA, x_1 / 0.25
    for one in (noise, start):
        assert float(one.std()) == pytest.approx(1, abs=0.05) and abs(float(one.mean())) < 0.05
    assert not torch.allclose(noise.flatten(1)[:, :48], start.flatten(1)[:, :48], atol=1e-3)
    means = ((z_0 / ALPHA - 0.5) / 2).repeat_interleave(4, 2).repeat_interleave(4, 3) + 0.1 * x_1
    wanted = ((means + 1) * 127.5).round().clamp(0, 255)
    assert made.dtype == torch.uint8 and (made.int() - wanted.int()).abs().max() <= 1
    assert (made != wanted.to(torch.uint8)).double().mean() < 1e-3
    monkeypatch.setattr(rate, "BATCH", 7)
    assert (run.decode(latents).images.int() - made.int()).abs().max() <= 1
    assert run.decode(replace(latents, noisy=True), steps=7, seed=2).images.shape == made.shape
    z_0, x_1, steps, _ = run.autoencoder.decoded[-1]
    assert torch.equal(z_0, latents.z[-5:]) and steps == 7
    assert not torch.equal(x_1, run.autoencoder.decoded[-2][1][-5:])


def test_a_drawn_latent_and_its_noise_are_independent(run: Run, images: Tensor) -> None:
    """Kills: a learned variance's draw from the numbers that z_0's noise is made of: z_0 would vary by
    (α s + σ)² in place of α² s² + σ²."""
    mean = run.latents(images)
    run.autoencoder.log_variance = 0.0
    z, _ = run.encoded(images, seed=3)
    run.decode(LatentSet(z, torch.zeros(40), torch.zeros(40).long(), 4.0, "f" * 64, 256), seed=3)
    drawn, noise = z - mean, (run.autoencoder.decoded[0][0] - ALPHA * z) / SIGMA
    assert float(drawn.std()) == pytest.approx(1, abs=0.06)
    assert abs(float(torch.corrcoef(torch.stack([drawn.flatten(), noise.flatten()]))[0, 1])) < 0.1


def test_the_seed_of_a_reconstruction_is_the_decoders(run: Run, images: Tensor) -> None:
    """Where a variance is learned, too. Kills: other latents for another seed, though `encode`, without one of its own,
    and the figures of a run have the first."""
    run.autoencoder.log_variance = 0.0
    latents = LatentSet(run.latents(images), torch.zeros(40), torch.zeros(40).long(), 4.0, "f" * 64, 256)
    assert torch.equal(run.reconstruct(images, steps=3, seed=5).images, run.decode(latents, 3, seed=5).images)
    (z_0, x_1, steps, _), (other, _, _, _) = run.autoencoder.decoded
    assert steps == 3 and torch.equal(z_0, other) and z_0.shape == latents.z.shape and len(x_1) == 40


def test_a_fast_decoder_keeps_its_own_temperature(run: Run, images: Tensor) -> None:
    """Kills: a start that is made smaller twice, once by the run and once by the student."""
    given: list[Any] = []
    few: Any = SimpleNamespace(calls=2, sample=recorded(lambda x_1, z_0: x_1, given))
    run.few_decoder = few
    latents = LatentSet(run.latents(images), torch.zeros(40), torch.zeros(40).long(), 4.0, "f" * 64, 256, noisy=True)
    run.decode(latents)
    (x_1, z_0), _ = given[0]
    assert float(x_1.std()) == pytest.approx(1, abs=0.03) and torch.equal(z_0, latents.z)
    assert run.decoder_steps == 2 and run.distilled and not run.autoencoder.decoded


def test_reconstruct_is_encode_and_decode(run: Run, images: Tensor) -> None:
    """Kills: steps or a seed that are not passed on, a clean latent for the decoder, pictures in another order."""
    made = run.reconstruct(images, steps=3, seed=5).images
    z_0, _, steps, _ = run.autoencoder.decoded[-1]
    noise = (z_0 - ALPHA * run.latents(images)) / SIGMA
    assert steps == 3 and float(noise.std()) == pytest.approx(1, abs=0.05)
    latents = LatentSet(run.latents(images), torch.zeros(40), torch.zeros(40).long(), 4.0, "f" * 64, 256)
    assert torch.equal(made, run.decode(latents, steps=3, seed=5).images)
    assert not torch.equal(made, run.reconstruct(images, steps=3).images)
    coarse = images.float().unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5))
    again = made.float().unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5))
    assert float((again - coarse).abs().mean()) < 9


def base_of(asked: list[Any]) -> Any:
    """A base model whose sample is its start, moved by its label."""
    sample = recorded(lambda z_1, labels, steps, guidance: z_1 + 10 * labels[:, None, None, None], asked)
    return SimpleNamespace(sample=sample, condition=lambda labels: labels, classes=3)


def test_samples_are_drawn_as_configured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: guidance or calls that are another network's, labels in blocks, noise of a part of the batch, a clean
    latent's flag, the noise of sampling given to the decoder again."""
    asked: list[Any] = []
    run.base = base_of(asked)
    latents = run.sample_latents(7, seed=3)
    (z_1, labels, steps, guidance), _ = asked[0]
    assert labels.tolist() == latents.labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and (steps, guidance) == (5, 2.5)
    assert z_1.shape == (7, 3, 4, 4) and latents.noisy and latents.lambda_0 == 4.0 and latents.pixels == 256
    torch.testing.assert_close(latents.z, z_1 + 10 * labels[:, None, None, None])
    monkeypatch.setattr(rate, "BATCH", 4)
    torch.testing.assert_close(run.sample_latents(7, seed=3).z, latents.z)
    run.sample_latents(2, label="blue", guidance=0.0, steps=9)
    (_, labels, steps, guidance), _ = asked[-1]
    assert labels.tolist() == [2, 2] and (steps, guidance) == (9, 0.0)
    many = run.sample_latents(120, label=0, seed=1).z
    assert float(many.std()) == pytest.approx(1, abs=0.03) and abs(float(many.mean())) < 0.03
    sampled = run.sample(4, seed=3, decoder_steps=6)
    made = sampled.images
    assert run.autoencoder.decoded[-1][2] == 6 and sampled.labels.tolist() == [0, 1, 2, 0]
    assert torch.equal(made, run.decode(run.sample_latents(4, seed=3), 6, seed=3).images)
    start = run.autoencoder.decoded[-1][1].flatten(1)[:, :48] / 0.25
    assert not torch.allclose(start, z_1[:4].flatten(1), atol=1e-3)


def test_a_fast_base_is_told_the_class(run: Run) -> None:
    """Kills: a student that samples without its labels or from noise that is not unit, and the full model's calls."""
    given: list[Any] = []
    run.base = base_of([])
    few: Any = SimpleNamespace(calls=2, sample=recorded(lambda z_1, cond: 2 * z_1, given))
    run.few_base = few
    latents = run.sample_latents(40)
    (z_1, cond), _ = given[0]
    assert cond.tolist() == [index % 3 for index in range(40)] and torch.equal(latents.z, 2 * z_1)
    assert run.base_steps == 2 and run.distilled and float(z_1.std()) == pytest.approx(1, abs=0.05)


def test_calls_and_sizes_of_a_run(run: Run) -> None:
    """Kills: calls of the other network, a squared error's decoder called often, pixels times channels."""
    assert (run.decoder_steps, run.base_steps, run.pixels, run.latent_shape) == (4, 5, 256, (3, 4, 4))
    assert not run.distilled
    run.config = replace(run.config, autoencoder=replace(run.config.autoencoder, decoder_loss="mse"))
    assert run.decoder_steps == 1
    run.data = replace(run.data, classes=())
    assert classes.labels_of(run.data, 3, None).tolist() == [0, 0, 0]


def test_pictures_are_read_in_the_runs_size_and_channels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: another source in its own size or colours; a limit or labels of the configuration that are not
    kept."""
    asked: list[Any] = []
    monkeypatch.setattr(given, "load_pictures", recorded(lambda *_, **__: coloured(7), asked))
    monkeypatch.setattr(parts, "open_source", recorded(lambda *_, **__: InMemory(coloured(7)), asked))
    run.config = replace(run.config, data=replace(run.config.data, labels=("a", "b")))
    assert run.pictures("elsewhere")[1].tolist() == [0, 1, 2, 0, 1, 2, 0]
    read_pictures(DataConfig(source="here", size=24, at_most=11, labels=("c", "d")), 1, False)
    wanted = {"size": (16, 16), "channels": 3, "fit": "crop", "labels": ("a", "b"), "unlabelled": True}
    assert asked[0] == (("elsewhere",), wanted)
    assert asked[1] == (
        ("here",),
        {
            "size": (24, 24),
            "channels": 1,
            "fit": "crop",
            "limit": 11,
            "labels": ("c", "d"),
            "memory_budget": sys.maxsize,
            "unreadable_share": 0.05,
        },
    )


def test_calibration_is_an_eighth_of_training_at_most_and_a_choice_of_the_seed() -> None:
    """Kills: calibration pictures taken from the held-out ones or left in training, in the order of the source, more
    than asked for or than an eighth, the same for every seed."""
    pictures, config = coloured(200), planted_config()
    train, calibration, test = split_pictures(config, pictures)
    assert (len(train), len(calibration), len(test)) == (152, 9, 39)
    assert sorted([*train.tolist(), *calibration.tolist(), *test.tolist()]) == list(range(200))
    assert calibration.tolist() != sorted([*train.tolist(), *calibration.tolist()])[:9] and int(calibration.max()) > 100
    more = split_pictures(replace(config, data=replace(config.data, calibration=500)), pictures)
    assert [len(part) for part in more] == [141, 20, 39] and torch.equal(more[2], test)
    assert [
        len(part) for part in split_pictures(replace(config, data=replace(config.data, calibration=0)), pictures)
    ] == [161, 0, 39]
    other = split_pictures(replace(config, seed=1), pictures)
    assert not torch.equal(other[1], calibration) and not torch.equal(other[2], test)
    official = coloured(200, held_out=torch.arange(200) < 40)
    one, two = (split_pictures(replace(config, seed=seed), official) for seed in (0, 1))
    assert torch.equal(one[2], two[2]) and len(one[1]) == len(two[1]) == 9 and not torch.equal(one[1], two[1])
    fewer = replace(config, data=replace(config.data, held_out=0.4, held_out_at_most=13))
    assert len(split_pictures(fewer, pictures)[2]) == 13


def test_a_classs_only_copy_takes_its_whole_group_back_to_training() -> None:
    """Class 2 has one picture, a copy of one of class 0. Kills: it alone taken back, its copy left to calibrate on."""
    pictures, config = coloured(60, held_out=torch.arange(60) < 10), planted_config()
    labels, groups = torch.arange(60) % 2, torch.arange(60)
    labels[41], groups[41] = 2, groups[40]
    pictures = replace(pictures, labels=labels, groups=groups)
    for seed in range(40):  # in 4 of them the pair would be calibrated on
        train, calibration, _ = split_pictures(replace(config, seed=seed), pictures)
        assert len(calibration) and {40, 41} <= set(train.tolist())


def test_a_folders_networks_are_those_of_its_files(tmp_path: Path) -> None:
    """Kills: weights that are not filled in, a base model built for another count of classes, networks in training."""
    run = Run(untrained(tmp_path, planted_config(), coloured(30)), "cpu")
    again = trained.read_safetensors(tmp_path / "autoencoder.safetensors")[0]
    assert all(torch.equal(tensor, again[name]) for name, tensor in run.autoencoder.state_dict().items())
    assert run.base is not None and run.base.classes == 3 and not run.base.training and not run.autoencoder.training
    again = trained.read_safetensors(tmp_path / "base.safetensors")[0]
    assert all(torch.equal(tensor, again[name]) for name, tensor in run.base.state_dict().items())
    assert run.encoder_sha256 == trained.fingerprint(run.autoencoder.encoder)
    (tmp_path / "base.safetensors").unlink()
    assert Run(tmp_path, "cpu").base is None
    config = planted_config(sample_from="prior")
    single = Run(untrained(tmp_path / "single", config, coloured(30)), "cpu")
    assert single.base is not None and single.base.denoise is not single.autoencoder.prior
    (tmp_path / "single" / "base.safetensors").unlink()
    single = Run(tmp_path / "single", "cpu")
    assert single.base is not None and single.base.denoise is single.autoencoder.prior
