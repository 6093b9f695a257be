"""What a finished run does and how it is measured: bits that add up, samples that depend on their own seed only."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unilat
from unilat.files import read_safetensors
from unilat.metrics.quality import psnr
from unilat.models.latents import LatentSet
from unilat.recipe.config import RunConfig
from unilat.run import rate, trained
from unilat.run.evaluate import evaluate, held_out
from unilat.run.trained import Run
from unilat.types import UserError


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Run:
    return unilat.load(tiny_run)


@pytest.fixture(scope="module")
def pictures(run: Run) -> torch.Tensor:
    """The held-out pictures, in the order in which they were measured."""
    test, _ = held_out(run)
    return test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))]


def test_bits_add_up(run: Run, pictures: torch.Tensor) -> None:
    """Kills: a map, a curve, a channel sum or a headline that is of another quantity than the bits of the latents."""
    arrays, _ = read_safetensors(run.folder / "evaluation.safetensors")
    told = run.results.bits
    bits = run.encode(pictures).bits
    whole = float(bits.mean())
    assert told.value * run.pixels == pytest.approx(whole, rel=1e-4) and told.n == len(pictures)
    assert float(arrays["bit_map"].sum()) == pytest.approx(whole, rel=1e-4)
    assert float(arrays["channel_bits"].sum()) == pytest.approx(whole, rel=1e-4)
    assert float(arrays["curve_bits"].sum() + arrays["terminal_bits"]) == pytest.approx(whole, rel=1e-4)
    torch.testing.assert_close(arrays["bits_each"], arrays["bit_maps"].flatten(1).sum(1))
    stderr = float((bits / run.pixels).double().std() / math.sqrt(len(bits)))
    assert told.stderr == pytest.approx(stderr, rel=1e-3)


def test_quality_is_of_what_reconstruct_returns(run: Run, pictures: torch.Tensor) -> None:
    """Kills: numbers of other pictures, steps or seeds than those that the user gets."""
    arrays, _ = read_safetensors(run.folder / "evaluation.safetensors")
    for row in run.results.by_steps:
        made = run.reconstruct(pictures, steps=row.steps).images
        assert row.psnr.value == pytest.approx(float(psnr(pictures, made).double().mean()), rel=1e-5)
        seen = arrays[f"reconstructions_{row.steps}"]
        assert torch.equal(made[: len(seen)], seen)
    assert torch.equal(arrays["originals"], pictures[: len(arrays["originals"])])


def test_held_out_pictures_were_never_trained_on(run: Run) -> None:
    """Kills: a split that is another one when it is measured than it was in training."""
    test, _ = held_out(run)
    kept, _ = run.pictures(run.data.source)
    trained_on = LatentSet.load(run.folder / "latents" / "train-00000.safetensors")
    assert len(test) == run.data.test and len(trained_on) == run.data.train
    assert len(kept) == run.data.test + run.data.train + run.data.calibration

    def distance(images: torch.Tensor) -> torch.Tensor:
        return (run.latents(images).flatten(1)[:, None] - trained_on.z.flatten(1)).abs().amax(2)

    assert float(distance(test).min()) > 1e-4
    assert float(distance(kept).amin(0).max()) < 1e-5


def test_another_source_is_measured_without_touching_the_run(run: Run, tmp_path: Path, tiny_source: Path) -> None:
    """Kills: a report overwritten by the numbers of other pictures, and a judge asked for classes they do not have."""
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    run.config = replace(run.config, evaluation=replace(run.config.evaluation, classifier_samples=64, samples=2))
    metrics = evaluate(run, str(tiny_source / "lying"))
    assert metrics.bits.n == min(48, run.config.evaluation.pictures)
    assert metrics.pictures.startswith(f"{tiny_source / 'lying'}, ")
    assert "that the run was trained on" in metrics.pictures and "none of its own" not in metrics.pictures
    assert metrics.classifier is None
    assert before == {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    run.config = trained.read_config(run.folder)


def test_pictures_of_a_changed_source_are_not_called_held_out(run: Run) -> None:
    """Kills: bits of pictures that may have been trained on, told as held out."""
    data = run.data
    run.data = replace(data, sha256="0" * 64)
    try:
        with pytest.raises(UserError, match="has changed since this run was trained"):
            held_out(run)
    finally:
        run.data = data


def test_sample_i_depends_on_its_seed_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: noise drawn for the batch: 5 and 3 samples, or batches of 2, must begin alike; other seeds must not."""
    five, three = run.sample_latents(5, seed=3), run.sample_latents(3, seed=3)
    torch.testing.assert_close(five.z[:3], three.z, rtol=1e-4, atol=1e-4)
    assert (run.sample_latents(3, seed=4).z - three.z).abs().amin((1, 2, 3)).max() > 0
    assert (five.z[0] - five.z[2]).abs().max() > 0.1
    made, again = run.decode(five, seed=3).images, run.decode(replace(three, z=five.z[:3]), seed=3).images
    assert (made[:3].int() - again.int()).abs().max() <= 1
    monkeypatch.setattr(rate, "BATCH", 2)
    torch.testing.assert_close(run.sample_latents(5, seed=3).z, five.z, rtol=1e-4, atol=1e-4)
    assert (run.decode(five, seed=3).images.int() - made.int()).abs().max() <= 1
    sampled = run.sample(3, seed=3)
    assert (sampled.images.int() - made[:3].int()).abs().max() <= 1 and sampled.labels.tolist() == [0, 1, 0]
    assert [one.label for one in sampled] == ["lying", "standing", "lying"] and sampled.names is None


def test_encoding_does_not_depend_on_the_batch(
    run: Run, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: bits or latents that change with the size of the parts in which pictures pass."""
    whole = run.encode(pictures)
    monkeypatch.setattr(rate, "BATCH", 3)
    parts = run.encode(pictures)
    torch.testing.assert_close(parts.z, whole.z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.bits, whole.bits, rtol=1e-4, atol=1e-3)
    assert whole.pixels == 256 and whole.lambda_0 == run.config.autoencoder.lambda_0 and not whole.noisy


def test_decoding_adds_the_encoders_noise_to_clean_latents_only(run: Run, pictures: torch.Tensor) -> None:
    """Kills: the decoder given a clean z, which it never saw, or a sampled z_0 corrupted a second time."""
    given: list[torch.Tensor] = []
    hook = run.autoencoder.decoder.net.register_forward_pre_hook(lambda module, inputs: given.append(inputs[2]))
    latents = run.encode(pictures)
    run.decode(latents, steps=1)
    run.decode(replace(latents, noisy=True), steps=1)
    hook.remove()
    sigma = 1 / (1 + math.exp(latents.lambda_0))
    rest = given[0].cpu() - math.sqrt(1 - sigma) * latents.z
    assert float(rest.std()) == pytest.approx(math.sqrt(sigma), rel=0.05)
    assert torch.equal(given[1].cpu(), latents.z)
    assert run.sample_latents(1).noisy


def test_latents_of_another_run_are_refused(run: Run, pictures: torch.Tensor, tmp_path: Path) -> None:
    """Kills: latents decoded by a model that did not make them, also after a journey through a file."""
    latents = LatentSet.load(run.encode(pictures[:3]).save(tmp_path / "a.safetensors"))
    assert run.decode(latents).images.shape == (3, 1, 16, 16)
    with pytest.raises(UserError, match="of another encoder"):
        run.decode(replace(latents, encoder_sha256="0" * 64))
    with pytest.raises(UserError, match="noise at log-SNR 4"):
        run.decode(replace(latents, lambda_0=4.0))
    with pytest.raises(UserError, match=r"latents must be float \[N, 4, 4, 4\], not float32 \[3, 4, 4, 5\]"):
        run.decode(replace(latents, z=torch.zeros(3, 4, 4, 5)))


def test_classes_by_name_and_by_number(run: Run) -> None:
    """Kills: a class counted from 1, a name taken for a number, and a wrong one that is answered with class 0."""
    assert run.classes == ["lying", "standing"]
    assert run.sample_latents(3, "standing").labels.tolist() == [1, 1, 1]
    assert run.sample_latents(2, 0).labels.tolist() == run.sample_latents(2, "0").labels.tolist() == [0, 0]
    torch.testing.assert_close(run.sample_latents(2, "standing", seed=1).z, run.sample_latents(2, 1, seed=1).z)
    for wrong in ("hanging", 2, "-1", "²", ""):
        with pytest.raises(UserError, match="choose one of lying, standing or 0 to 1"):
            run.sample_latents(2, wrong)


def test_impossible_counts_are_refused(run: Run, pictures: torch.Tensor) -> None:
    """Kills: 0 steps taken for the default, and a traceback for no pictures."""
    with pytest.raises(UserError, match="`steps` must be 1 or more, not 0"):
        run.reconstruct(pictures[:2], steps=0)
    with pytest.raises(UserError, match="`steps` must be 1 or more, not 0"):
        run.sample_latents(1, steps=0)
    with pytest.raises(UserError, match="`count` must be 1 or more, not 0"):
        run.sample(0)


def test_five_lines_of_python(tiny_run: Path, tiny_source: Path) -> None:
    """Kills: the public names, and bits that are not those of each picture."""
    run = unilat.load(tiny_run)
    latents = run.encode(str(tiny_source))
    assert latents.bits.shape == (96,) and bool((latents.bits > 0).all())
    assert torch.equal(latents.bpp, latents.bits / 256)
    assert run.decode(latents).images.dtype == torch.uint8
    made = run.sample(3, guidance=2.0, seed=7)
    assert made.images.shape == (3, 1, 16, 16) and made.labels.shape == (3,)


def test_a_run_is_read_back_as_it_was_configured(run: Run) -> None:
    """Kills: a resolved configuration that is not the one in the folder."""
    assert (
        isinstance(run.config, RunConfig) and run.config.data.size == (16, 16) and run.config.stage1.target_bpp == 0.4
    )
    assert json.loads((run.folder / "config.json").read_text())["stage1"]["samples"] == 256
