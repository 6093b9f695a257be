"""Each part of the main job with training left out: what is handed to it, what it keeps, what it writes down."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from measured import cost_of, described, fitted
from planted import Blocks, bare_run, coloured, planted_config, recorded, untrained
from unilat.files import read_json, read_safetensors, write_json
from unilat.maths.rate import RateTerms
from unilat.maths.seeds import Draws, key
from unilat.models.base import Base
from unilat.models.latents import LatentSet, fingerprint
from unilat.models.posterior import Posterior
from unilat.recipe.config import RunConfig
from unilat.run import phases
from unilat.run import train as job
from unilat.run.facts import Facts
from unilat.run.stages import AutoencoderStage, schedule, settling
from unilat.signals import Pictures, to_unit
from unilat.training.fast import Choices
from unilat.training.records import Fitted
from unilat.types import UserError

PARTS = (torch.arange(10, 70), torch.arange(3, 10), torch.tensor([0, 1, 2, 70, 71]))
"""Planted indices of training, calibration and held-out pictures, of unequal counts."""


PRICES = {"encoder": 1, "prior": 20, "decoder": 300, "base": 4000}
PRICES = {
    name: cost_of(training_flops=flops, example_flops=flops, step_flops=7 * flops) for name, flops in PRICES.items()
}
DATA = Facts(channels=3, classes=("a", "b", "c"), sha256="", source="planted")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """72 pictures, those that are not trained on brighter by a hundred."""
    made = coloured(72)
    images = made.images.clone()
    for index in torch.cat(PARTS[1:]).tolist():
        images[index, :, 1:] += 100
    return replace(made, images=images)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of the engine, which trains nothing and returns an average that is not the model's weights."""
    calls: list[Any] = []

    def fit(stage: Any, plan: Any, folder: Path, seed: int, **named: Any) -> Fitted:
        now = {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}
        average = {name: tensor + 0.01 if tensor.is_floating_point() else tensor for name, tensor in now.items()}
        calls.append(
            SimpleNamespace(stage=stage, plan=plan, folder=folder, seed=seed, now=now, average=average, **named)
        )
        return fitted(average, plan.samples + 5)

    monkeypatch.setattr(job, "fit", fit)
    monkeypatch.setattr(job, "describe", lambda *given: described(PRICES))
    monkeypatch.setattr(AutoencoderStage, "trim", lambda stage, model: {})
    return calls


def how(told: list[Any] | None = None) -> Any:
    return job._How((told if told is not None else []).append, "cpu", Choices())


def stage1(config: RunConfig, folder: Path, pictures: Pictures) -> tuple[dict[str, Tensor], dict[str, str]]:
    job._stage1(config, folder, pictures, PARTS, how(), None)
    return read_safetensors(folder / "autoencoder.safetensors")


def test_stage_1_is_given_its_own_pictures(pictures: Pictures, fits: list[Any], tmp_path: Path) -> None:
    """Kills: held-out or calibration pictures trained on, held-out ones calibrated on, another plan, seed or place."""
    config = planted_config()
    stage1(replace(config, seed=7), tmp_path, pictures)
    (call,) = fits
    one = call.stage.batch.__self__  # the object whose methods these are
    assert isinstance(one, AutoencoderStage) and torch.equal(one.pictures, pictures.images[10:70])
    assert torch.equal(one.calibration, pictures.images[3:10])
    assert one.config == config.stage1 and one.aim == 0.35 and not one.flip
    assert (call.plan, call.seed) == (schedule(config.stage1), 7)
    assert (call.folder, call.log.path, call.device) == (tmp_path / "stage1", tmp_path / "log.jsonl", "cpu")
    stage1(replace(config, data=replace(config.data, flip=True)), tmp_path / "flipped", pictures)
    assert fits[1].stage.batch.__self__.flip


def test_pixel_statistics_and_unit_scale_are_of_training_pictures(
    pictures: Pictures, fits: list[Any], tmp_path: Path
) -> None:
    """Channel by channel, by hand. Kills: statistics over all pictures, over all channels, of bytes, a variance;
    latents that do not start at unit scale, or do so on other pictures."""
    config = planted_config()
    stage1(config, tmp_path / "a", pictures)
    x = pictures.images[10:70].double() / 127.5 - 1
    now = fits[0].now
    torch.testing.assert_close(now["decoder.mean"].flatten().double(), x.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(now["decoder.std"].flatten().double(), x.std((0, 2, 3)), rtol=1e-3, atol=1e-5)
    fits[0].stage.model.load_state_dict(now)
    z = fits[0].stage.model.encode(to_unit(pictures.images[10:70])).detach()
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3), rtol=1e-3, atol=0)
    stage1(replace(config, stage1=replace(config.stage1, unit_scale=False)), tmp_path / "b", pictures)
    fits[1].stage.model.load_state_dict(fits[1].now)
    other = fits[1].stage.model.encode(to_unit(pictures.images[10:70])).detach().std((0, 2, 3))
    assert (other - 1).abs().min() > 0.05


def test_a_channel_that_never_varies_gets_a_floor(pictures: Pictures, fits: list[Any], tmp_path: Path) -> None:
    """An empty channel's deviation is 0.05. Kills: no floor, which divides by zero, or one under every channel."""
    images = pictures.images.clone()
    images[:, 1] = 51
    stage1(planted_config(), tmp_path, replace(pictures, images=images))
    std = fits[0].now["decoder.std"].flatten()
    assert float(fits[0].now["decoder.mean"].flatten()[1]) == pytest.approx(51 / 127.5 - 1, abs=1e-5)
    assert float(std[1]) == pytest.approx(0.05) and float(std[[0, 2]].min()) > 0.06


def test_stage_1_keeps_the_averaged_weights(pictures: Pictures, fits: list[Any], tmp_path: Path) -> None:
    """Kills: the last weights saved for the average, a hash of other weights, a count that is the plan's."""
    config = planted_config()
    tensors, header = stage1(config, tmp_path / "a", pictures)
    assert all(torch.equal(tensor, fits[0].average[name]) for name, tensor in tensors.items())
    assert header["samples"] == str(config.stage1.samples + 5) and "scale" not in header
    assert header["encoder_sha256"] == fingerprint(fits[0].stage.model.encoder)
    stage1(replace(config, seed=1), tmp_path / "b", pictures)
    stage1(config, tmp_path / "c", pictures)
    name = "encoder.head.weight"
    assert torch.equal(fits[0].now[name], fits[2].now[name]) and not torch.equal(fits[0].now[name], fits[1].now[name])
    with torch.random.fork_rng():
        torch.manual_seed(key(0, "stage1"))
        fresh = job.build_autoencoder(config, 3).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in fits[0].now.items() if "prior" in name)


def test_settling_and_trimming_come_last_and_are_told(
    pictures: Pictures, fits: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a trim of other weights, before the prior has settled, in training mode or not written down; an aim that
    is the wanted bits though the prior will settle; latents settled on that are not the training pictures'."""
    config = planted_config()
    config = replace(config, stage1=replace(config.stage1, settle=96))
    order: list[Any] = []

    def trim(stage: AutoencoderStage, model: Any) -> dict[str, float]:
        order.append((len(fits), model is stage.model, model.training))
        model.rescale(2.0)
        return {"calibration_bpp": 0.351234567, "untrimmed_bpp": 0.25, "scale": 2.0}

    monkeypatch.setattr(AutoencoderStage, "trim", trim)
    tensors, header = stage1(config, tmp_path, pictures)
    first, second = fits
    told = first.stage.after_step({"bpp": 0.3}, 0)
    assert told["target"] == pytest.approx(0.35 / 0.8) and order == [(2, True, False)]
    assert second.stage.name == "prior" and second.plan == settling(config.stage1) and second.plan.samples == 96
    assert second.stage.count == 60 and second.folder == tmp_path / "prior"
    assert (header["calibration_bpp"], header["untrimmed_bpp"], header["scale"]) == ("0.351235", "0.25", "2")
    assert header["samples"] == str(config.stage1.samples + 5)
    assert header["encoder_sha256"] == fingerprint(first.stage.model.encoder)
    whole = first.stage.model.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors.items())
    head = "encoder.head.weight"
    torch.testing.assert_close(tensors[head], 2 * first.average[head])
    name = next(name for name in second.average if name.endswith("weight"))
    assert torch.equal(tensors[f"prior.{name}"], second.average[name])


def test_what_a_stage_costs_decides_whether_it_is_compiled(
    pictures: Pictures, fits: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: FLOPs of the base model counted for stage 1 or the reverse, of settling counted twice or not at all."""
    asked: list[Any] = []
    monkeypatch.setattr(job, "compiles", recorded(lambda *given: (False, "told"), asked))
    monkeypatch.setattr(job, "describe", recorded(job.describe, counted := []))
    config = planted_config()
    config = replace(config, stage1=replace(config.stage1, settle=95, settle_batch=30))
    stage1(config, tmp_path, pictures)
    latents = LatentSet(torch.randn(9, 3, 4, 4), torch.zeros(9), torch.arange(9) % 3, 4.0, "e" * 64, 256)
    job._stage2(config, tmp_path, latents, SimpleNamespace(data=DATA), how())
    steps = math.ceil(config.stage1.samples / config.stage1.batch)
    both = 321 * (config.stage1.samples + 7 * steps)
    assert [call[0][1] for call in asked] == [both, 20 * (95 + 7 * 4), 4000]
    assert counted[0][0] == (config, 3) and counted[1][0] == (config, 3, 3, None)


def test_the_base_model_is_given_latents_labels_and_their_scale(fits: list[Any], tmp_path: Path) -> None:
    """Kills: the scale of another channel or of all, a variance, labels of other latents, a class too few, the last
    weights saved for the average, a header of another encoder, stage 1's seed or plan."""
    config = replace(planted_config(), seed=3)
    generator = torch.Generator().manual_seed(0)
    z = torch.tensor([2.0, -1.0, 0.5])[:, None, None] + torch.tensor([0.3, 1.5, 3.0])[:, None, None] * torch.randn(
        50, 3, 4, 4, generator=generator
    )
    latents = LatentSet(z, torch.zeros(50), torch.arange(50) % 3, 4.0, "e" * 64, 256)
    job._stage2(config, tmp_path, latents, SimpleNamespace(data=DATA), how())
    (call,) = fits
    rows = call.stage.batch(torch.arange(50))
    assert call.stage.name == "stage2" and torch.equal(rows[0], z) and torch.equal(rows[1], latents.labels)
    learned = call.stage.losses(tuple(part[:4] for part in rows), Draws.keyed(0, 0, 0, 4))[1]
    assert list(learned) == (["levels"] if config.stage2.levels == "learned" else [])
    assert (call.plan, call.seed, call.folder) == (schedule(config.stage2), 3, tmp_path / "stage2")
    by_channel = z.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(call.now["denoise.mean"].flatten().double(), by_channel.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(call.now["denoise.std"].flatten().double(), by_channel.std(1), rtol=1e-4, atol=1e-5)
    assert call.stage.model.classes == 3 and call.stage.model.lambda_0 == 4.0 and call.stage.model.lambda_min == -9.0
    tensors, header = read_safetensors(tmp_path / "base.safetensors")
    assert all(torch.equal(tensor, call.average[name]) for name, tensor in tensors.items())
    assert header["encoder_sha256"] == "e" * 64 and header["samples"] == str(config.stage2.samples + 5)
    job._stage2(replace(config, seed=4), tmp_path / "other", latents, SimpleNamespace(data=DATA), how())
    assert any(not torch.equal(tensor, fits[1].now[name]) for name, tensor in call.now.items())
    with torch.random.fork_rng():
        torch.manual_seed(key(3, "stage2"))
        fresh = job.build_base(config, ["a", "b", "c"]).state_dict()
    assert all(torch.equal(call.now[name], tensor) for name, tensor in fresh.items() if ".net." in name)
    job._stage2(config, tmp_path, latents, SimpleNamespace(data=DATA), how())
    assert len(fits) == 2, "what is finished is not trained again"


def test_training_latents_carry_their_bits_and_labels(pictures: Pictures, tmp_path: Path) -> None:
    """Planted bits. Kills: latents of held-out pictures, labels of others, nats, an entropy dropped, latents that are
    encoded again or taken from another encoder."""
    run, asked = bare_run(planted_config(), Blocks(planted_config(), -1.0), folder=tmp_path), []

    def planted(z: Tensor, levels: int, seed: int = 0, posterior: Posterior | None = None) -> list[RateTerms]:
        less = posterior and posterior.entropy(4.0)
        return [RateTerms(z.square(), z.square(), z[:, 0, 0, 0]).less(less) for _ in range(levels)]

    run.rate = recorded(planted, asked)  # type: ignore[method-assign]
    latents = job._latents(run, pictures, PARTS[0], lambda told: None)
    z, posterior = run.encoded(pictures.images[10:70])
    entropy = posterior and posterior.entropy(4.0)
    assert entropy is not None and torch.equal(latents.z.whole(), z) and asked[0][0][1] == 1
    torch.testing.assert_close(latents.bits, (2 * z.square() - entropy).sum((1, 2, 3)) / math.log(2))
    assert torch.equal(latents.labels, pictures.labels[10:70])
    assert (latents.seal.lambda_0, latents.encoder_sha256, latents.seal.pixels) == (4.0, "f" * 64, 256)
    torch.testing.assert_close(latents.std, z.transpose(0, 1).flatten(1).std(1), rtol=0, atol=0)
    again = job._latents(run, pictures, PARTS[0], lambda told: None)
    assert torch.equal(again.z.whole(), latents.z.whole()) and torch.equal(again.bits, latents.bits) and len(asked) == 1
    with pytest.raises(UserError, match="data_sha256"):
        job._latents(run, pictures, PARTS[2], lambda told: None)
    run.encoder_sha256 = "0" * 64
    with pytest.raises(UserError, match="another encoder"):
        job._latents(run, pictures, PARTS[0], lambda told: None)


def test_the_facts_of_the_data(pictures: Pictures, tmp_path: Path) -> None:
    """Kills: counts of one part told as another's, height for channels, another hash; pictures that no part uses
    (copies of test pictures, say) left out of the count of all."""
    told = replace(pictures, skipped=(("a", "b"), ("c", "d")), converted={"resized": 5})
    job._remember(tmp_path, told, (PARTS[0][:-3], *PARTS[1:]), how())
    facts = {
        "source": "planted",
        "count": 72,
        "train": 57,
        "calibration": 7,
        "test": 5,
        "size": [16, 16],
        "streamed": False,
        "channels": 3,
    }
    facts |= {"classes": ["red", "green", "blue"], "sha256": pictures.sha256, "skipped": 2, "converted": {"resized": 5}}
    assert read_json(tmp_path / "data.json") == facts | {"unreadable": {}, "untrained": []}


def test_phases_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock and a memory by hand. Kills: seconds of the last part alone, the lowest peak, phases of other processes,
    an interrupted phase forgotten."""
    clock, memory = iter([10.0, 12.5, 20.0, 21.25, 30.0, 34.0, 40.0]), iter([700.4, 300.0, 500.0])
    monkeypatch.setattr(phases, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(phases, "peak_memory", lambda: next(memory))
    with phases.phase(tmp_path, "stage 1", 0):
        pass
    with pytest.raises(KeyboardInterrupt), phases.phase(tmp_path, "stage 1", 0):
        raise KeyboardInterrupt
    with phases.phase(tmp_path, "encode", 0):
        pass
    with phases.phase(tmp_path, "encode", 1):
        pass
    rows = [{"name": "stage 1", "seconds": 3.75, "peak_memory_mib": 700}]
    assert read_json(tmp_path / "phases.json") == [*rows, {"name": "encode", "seconds": 4.0, "peak_memory_mib": 500}]


def test_another_runs_autoencoder_is_taken_as_it_is(tmp_path: Path) -> None:
    """Kills: weights that are not the other run's, a header without their hash, pictures of other channels or sizes."""
    other, config, pictures = tmp_path / "other", planted_config(), coloured(30)
    untrained(other, config, pictures)
    config = replace(config, stage1=replace(config.stage1, autoencoder=str(other)))
    (tmp_path / "own").mkdir()
    job._take_over(config, tmp_path / "own", pictures)
    taken, there = (read_safetensors(folder / "autoencoder.safetensors") for folder in (tmp_path / "own", other))
    assert taken[1] == there[1] and all(torch.equal(tensor, there[0][name]) for name, tensor in taken[0].items())
    facts = read_json(other / "data.json")
    write_json(other / "data.json", facts)
    for wrong in (
        replace(pictures, images=pictures.images[:, :1]),
        replace(pictures, images=pictures.images[..., :8, :8]),
    ):
        with pytest.raises(UserError, match="does not fit this run"):
            job._take_over(config, tmp_path / "own", wrong)


def test_pixel_statistics_are_spread_over_all_training_pictures(
    fits: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5,000 pictures, dark ones first: the mean is that of all. Kills: a mean of the first ones of a sorted folder."""
    images = torch.zeros(5000, 3, 16, 16, dtype=torch.uint8)
    images[2500:] = 255
    pictures = replace(coloured(2), images=images, labels=torch.zeros(5000).long())
    asked: list[Any] = []
    monkeypatch.setattr(job, "build_autoencoder", recorded(job.build_autoencoder, asked))
    parts = (torch.arange(5000), torch.arange(0), torch.arange(0))
    job._stage1(planted_config(), tmp_path, pictures, parts, how(), None)
    (_, channels, mean, std, _), _ = asked[0]
    assert channels == 3 and float(mean.abs().max()) < 1e-3 and float((std - 1).abs().max()) < 1e-3


def test_the_base_model_starts_from_latents_evenly_spread(
    fits: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five of nine latents where memory holds no more. Kills: a start that is left out, the first latents alone, labels
    of others."""
    begun: list[Any] = []
    monkeypatch.setattr(Base, "begin", lambda self, z, labels: begun.append((z, labels)))
    monkeypatch.setattr(job, "SAMPLED", 5 * 48)
    latents = LatentSet(torch.randn(9, 3, 4, 4), torch.zeros(9), torch.arange(9) % 3, 4.0, "e" * 64, 256)
    job._stage2(planted_config(), tmp_path, latents, SimpleNamespace(data=DATA), how())
    ((z, labels),) = begun
    assert torch.equal(z, latents.z[::2]) and torch.equal(labels, latents.labels[::2])
