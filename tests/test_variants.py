"""Ablations and baselines through the whole job: every one trains, is measured, reported and loaded again."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from test_run import small, write_pictures
from unilat.files import read_json, read_safetensors
from unilat.maths.rate import RateTerms
from unilat.maths.seeds import key
from unilat.models.autoencoder import Autoencoder
from unilat.models.control import RateController
from unilat.models.shards import open_shards
from unilat.recipe import presets
from unilat.recipe.config import RunConfig, check, from_json, to_json
from unilat.run import train as run
from unilat.run.evaluate import chosen, own_pictures
from unilat.studies.verify import LEVELS, verify_run
from unilat.types import UserError

VARIANTS: dict[str, dict[str, Any]] = {
    "kl-vae": {"price": "normal", "learned_variance": True, "lambda_0": 10.0, "decoder_loss": "mse"},
    "stopped": {"price": "stopped"},
    "learned variance": {"learned_variance": True},
    "random end": {"random_end": (2.0, 1.0)},
    "transformers": {
        "encoder": replace(presets.get("tiny").autoencoder.encoder, kind="vit"),
        "decoder": replace(presets.get("tiny").autoencoder.decoder, kind="vit"),
    },
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "boxes.npz")


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Unified Latents."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    run.train(small(source), folder)
    return folder


def varied(source: Path, **changed: Any) -> RunConfig:
    config = small(source)
    return replace(config, autoencoder=replace(config.autoencoder, **changed))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_runs_from_pictures_to_report(name: str, source: Path, tmp_path: Path) -> None:
    """Kills: a variant that trains and cannot be measured, saved, loaded or read in its own configuration."""
    config = varied(source, **VARIANTS[name])
    assert from_json(to_json(config)) == config
    run.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()
    found = run.load(tmp_path / "run")
    for measure in (found.results.bits, found.results.base_bits, found.results.reconstruction.psnr):
        assert measure is not None and math.isfinite(measure.value) and measure.n == 6
    latents = found.encode(str(source))
    assert float((latents.bits[0] - found.encode(str(source)).bits[0]).abs()) == 0
    assert found.decode(latents).images.shape == (60, 1, 16, 16) and found.sample(3).images.shape == (3, 1, 16, 16)


def test_a_kl_vae_is_trained_as_latent_diffusion_does(source: Path, tmp_path: Path) -> None:
    """Wanted bits with the price of N(0, I): its prior stays that, its latents keep what they are drawn from, bits are
    the KL in closed form. Kills: a trim that moves the prior, latents drawn once for all of stage 2."""
    config = varied(source, **VARIANTS["kl-vae"])
    run.train(config, tmp_path / "run")
    found = run.load(tmp_path / "run")
    prior = found.autoencoder.prior
    assert not bool(prior.mean.any()) and bool((prior.std == 1).all()) and "scale" not in found.header
    shards = open_shards(tmp_path / "run" / "latents")
    assert shards is not None and shards.moments is not None
    mean, std = shards.moments[torch.arange(len(shards))].unbind(1)
    deviations = (shards.z.whole() - mean) / std
    assert float(deviations.std()) == pytest.approx(1, abs=0.1) and float(deviations.abs().max()) < 6
    assert "KL divergence to N(0, I) in closed form" in found.results.bits.protocol


@pytest.mark.parametrize("factor", [1.0, 1e6])
def test_kl_weights_from_a_millionth_to_one_are_taken(factor: float) -> None:
    """The preset, with a perceptual term. Kills: a limit of the controller's on a factor that nobody moves."""
    config = presets.get("kl-vae")
    one = replace(config.stage1, loss_factor=factor)
    config = replace(config, stage1=one, autoencoder=replace(config.autoencoder, perceptual=1.0))
    check(config)
    controller = RateController(None, one.control, one.loss_factor)
    for _ in range(3):
        controller.update(0.5, 32)
    assert controller.factor == pytest.approx(factor) and not controller.at_limit()


def test_the_baseline_counts_what_it_trains(source: Path, tmp_path: Path) -> None:
    """Kills: a prior counted that a normal price never trains, decoder calls told where there is one."""
    run.train(varied(source, **VARIANTS["kl-vae"]), tmp_path / "run")
    results = run.load(tmp_path / "run").results
    assert list(results.costs.parameters) == ["encoder", "decoder", "base"]
    assert [row.steps for row in results.by_steps] == [1]


def test_one_stage_draws_from_its_prior(source: Path, tmp_path: Path) -> None:
    """Kills: samples of nothing, classes named that the prior does not know, a base model counted that is not there."""
    config = small(source)
    alone = replace(config, stage2=replace(config.stage2, samples=0))
    with pytest.raises(UserError, match="sample_from prior"):
        run.train(alone, tmp_path / "none")
        run.load(tmp_path / "none").sample(2)
    config = replace(alone, evaluation=replace(config.evaluation, sample_from="prior", classifier_samples=100))
    run.train(config, tmp_path / "run")
    found = run.load(tmp_path / "run")
    assert found.results.classifier is None and "base" not in found.results.costs.parameters
    assert found.base is not None and found.base.denoise is found.autoencoder.prior
    arrays, _ = read_safetensors(tmp_path / "run" / "evaluation.safetensors")
    assert len(arrays["samples"]) == 6


def test_another_runs_autoencoder_is_taken_as_it_is(plain: Path, source: Path, tmp_path: Path) -> None:
    """Kills: an encoder trained after all, a base trained on latents of other weights."""
    config = small(source)
    config = replace(config, stage1=replace(config.stage1, autoencoder=str(plain)))
    run.train(config, tmp_path / "run")
    assert run.load(tmp_path / "run").encoder_sha256 == run.load(plain).encoder_sha256
    assert '"stage": "stage1"' not in (tmp_path / "run" / "log.jsonl").read_text()
    ours, _ = read_safetensors(tmp_path / "run" / "base.safetensors")
    theirs, _ = read_safetensors(plain / "base.safetensors")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_an_autoencoder_of_another_kind_is_refused(plain: Path, source: Path, tmp_path: Path) -> None:
    """Kills: weights of another shape or noise taken over in silence; the line must name what differs."""
    config = varied(source, lambda_0=6.0)
    with pytest.raises(UserError, match=r"autoencoder\.lambda_0: 5\.0 and 6\.0"):
        run.train(replace(config, stage1=replace(config.stage1, autoencoder=str(plain))), tmp_path / "run")
    coloured = small(write_pictures(tmp_path / "colour.npz", channels=3))
    with pytest.raises(UserError, match="pictures"):
        run.train(replace(coloured, stage1=replace(coloured.stage1, autoencoder=str(plain))), tmp_path / "second")
    config = small(source)
    with pytest.raises(UserError, match="is not a run folder"):
        run.train(replace(config, stage1=replace(config.stage1, autoencoder=str(tmp_path))), tmp_path / "third")


def test_a_charge_of_your_own_reaches_stage_1(source: Path, tmp_path: Path) -> None:
    """Kills: an argument that is passed on to nobody."""
    asked = []

    def charge(model: Autoencoder, x: Tensor, z: Tensor, rate: RateTerms) -> Tensor:
        asked.append(len(x))
        return rate.nats()

    config = small(source)
    run.train(replace(config, stage2=replace(config.stage2, samples=0)), tmp_path / "run", charge=charge)
    assert asked == [16] * 6


def test_a_part_of_the_pictures_is_read(source: Path, tmp_path: Path) -> None:
    """Kills: a limit that holds in training and not in the evaluation, whose held-out pictures would be others."""
    config = small(source)
    config = replace(config, data=replace(config.data, at_most=40), stage2=replace(config.stage2, samples=0))
    run.train(config, tmp_path / "run")
    assert read_json(tmp_path / "run" / "data.json")["count"] == 40
    run.evaluate(run.load(tmp_path / "run"))


def test_a_learned_variance_is_verified_with_its_entropy(source: Path, tmp_path: Path) -> None:
    """Bits under the run's prior are its rate with the slack's own noise, less the entropy of the variance. Kills: bits
    measured again without what eq. 5 gives back, which would disagree with the reported ones, and those of other
    pictures."""
    run.train(varied(source, learned_variance=True), tmp_path / "run")
    trained = run.load(tmp_path / "run")
    found = verify_run(trained, samples=64)
    assert found.reported.holds and found.placing.holds
    pictures = own_pictures(trained)
    _, _, test = trained.split(pictures)
    z, posterior = trained.encoded(chosen(pictures.images[test], 6))
    entropy = posterior and posterior.entropy(trained.config.autoencoder.lambda_0)
    plain, less = (
        torch.stack([terms.less(given).nats() for terms in trained.rate(z, LEVELS, key(0, "slack"))]).double().mean()
        for given in (None, entropy)
    )
    unit = math.log(2) * 16 * 16
    assert found.slack.run == pytest.approx(float(less) / unit, rel=1e-5)
    assert entropy is not None and float(plain - less) == pytest.approx(float(entropy.sum()) / 6, rel=1e-3)
    assert found.slack.run < 0.98 * float(plain) / unit


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kl_weight": 0.0}, "autoencoder.kl_weight must be a positive number"),
        ({"perceptual": -1.0}, "autoencoder.perceptual must be 0 or"),
        ({"random_end": (0.0, 0.0)}, "autoencoder.random_end is a log-SNR and a positive scale"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, Any], said: str, source: Path) -> None:
    """Kills: a setting that nothing listens to, or that ends in infinities."""
    with pytest.raises(UserError, match=said):
        check(varied(source, **changed))
