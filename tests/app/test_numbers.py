"""What the page shows is what a run says: bits, what fewer bits keep, samples; each with its protocol."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import unilat
from unilat.maths.noise import diffuse
from unilat.maths.rate import LN2
from unilat.maths.samplers import dpmpp_2m, uniform_grid
from unilat.maths.seeds import seeded
from unilat.metrics.quality import psnr, ssim
from unilat.report.text import plus_minus
from unilat.run.fewer import LEVELS, by_chance, kept, lifted, spent
from unilat.run.trained import Run
from unilat.types import UserError

from .served import Page


def _pixels(source: str) -> Tensor:
    """The picture of an ``<img>``, uint8 ``[C, H, W]``."""
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    array = np.asarray(Image.open(io.BytesIO(data)))
    return torch.from_numpy(array[None].copy() if array.ndim == 2 else array.transpose(2, 0, 1).copy())


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Run:
    return unilat.load(tiny_run)


@pytest.fixture(scope="module")
def file(tiny_source: Path) -> bytes:
    return (tiny_source / "lying" / "44.png").read_bytes()


@pytest.fixture(scope="module")
def image(run: Run, tiny_source: Path) -> Tensor:
    return run.read([tiny_source / "lying" / "44.png"]).images


@pytest.fixture(scope="module")
def dropped(page: Page, file: bytes) -> Any:
    return page.post("picture?run=0", file)


def test_bits_are_the_runs_own(run: Run, image: Tensor, dropped: Any) -> None:
    """The mean over 64 levels of the run's rate of this latent; the map adds up to it.

    Kills: nats for bits, bits per pixel over channels or over the latent's positions, a map of other axes, a protocol
    of another count.
    """
    z, _ = run.encoded(image)
    (terms,) = run.rate(z.repeat(LEVELS, 1, 1, 1), 1)
    bits = float(terms.nats().double().mean()) / LN2
    assert dropped["bits"] == pytest.approx(bits, rel=1e-6)
    assert dropped["amount"][1].split(" ± ")[0] in (f"{bits / 256:.{digits}f}" for digits in range(6))
    assert (
        "64 noise levels" in dropped["protocol"]
        and "64 noise levels" in dropped["rungs"]
        and "upper bound" in dropped["protocol"]
    )
    by_position = terms.dimension_map().sum(0) / LN2
    assert dropped["top"] == pytest.approx(float(by_position.max()), rel=1e-5)
    assert dropped["grid"] == list(z.shape[2:])
    assert torch.equal(_pixels(dropped["original"]), image[0])
    assert _pixels(dropped["map"]).shape == (3, 16, 16)
    found = spent(run, image)
    assert torch.allclose(found.map, by_position) and float(found.map.sum()) == pytest.approx(bits, rel=1e-5)


def test_bits_have_the_error_of_their_estimate(run: Run, image: Tensor, dropped: Any) -> None:
    """Of 60 seeds the spread is the error that each tells of itself; fewer levels add less. Kills: nats for bits, what
    differs between levels told as error, an error that is not over √n, one error for every rung, other pixels."""
    found = [spent(run, image, seed) for seed in range(60)]
    values, told = (torch.tensor([getattr(one.bits, name) for one in found]) for name in ("value", "stderr"))
    assert float(told.square().mean().sqrt()) == pytest.approx(float(values.std()), rel=0.3)
    own = dropped["errors"]
    assert dropped["stderr"] == own[-1] == pytest.approx(found[0].bits.stderr) and own == sorted(own) and own[0] > 0
    assert own == pytest.approx(found[0].errors.tolist()) and "± is the standard error" in dropped["protocol"]
    rows = [(dropped["bits"], dropped["stderr"], dropped["amount"])]
    rows += zip(dropped["up_to"], own, dropped["amounts"], strict=True)
    for bits, error, (all_of_it, each) in rows:
        assert all_of_it == plus_minus(bits, error) and each == plus_minus(bits / 256, error / 256)


def test_what_differs_between_levels_is_no_error() -> None:
    """Noise of standard deviation 2 on a line, at uneven levels. Kills: the line's own rise, weights of the wrong
    neighbour, a variance without what the neighbours add."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.rand(4000, generator=generator).double().sort().values
    line = 1e4 * levels - 30
    assert float(by_chance(levels, line).max()) < 1e-12
    noise = 2 * torch.randn(4000, generator=generator).double()
    found = by_chance(levels, line + noise)
    assert found.shape == (4000,) and float(found.mean()) == pytest.approx(4.0, rel=0.1)
    assert found[0] == found[1] and found[-1] == found[-2]


def test_the_ladder_ends_with_all_bits_and_each_rung_costs_the_levels_below(run: Run, image: Tensor, dropped: Any):
    """R(λ) is the mean of the estimates' terms up to λ. Kills: levels in another order, the terminal term left out or
    counted for each rung, a last rung below λ₀, rungs even in log-SNR where most of them keep nothing."""
    levels, up_to = dropped["levels"], dropped["up_to"]
    z, _ = run.encoded(image)
    (terms,) = run.rate(z.repeat(LEVELS, 1, 1, 1), 1)
    for level, bits in zip(levels, up_to, strict=True):
        inside = terms.up_to(torch.full((LEVELS,), level + 1e-6))
        assert bits == pytest.approx(float(inside.nats().double().mean()) / LN2, rel=1e-5)
    assert levels[-1] == run.config.autoencoder.lambda_0 and up_to[-1] == pytest.approx(dropped["bits"], rel=1e-6)
    assert levels == sorted(set(levels)) and up_to == sorted(up_to) and len(levels) > 8
    steps = np.diff([0.0, *up_to])
    assert max(steps) < 0.35 * dropped["bits"]


def test_all_bits_keep_what_the_run_reconstructs(page: Page, run: Run, image: Tensor, dropped: Any) -> None:
    """Bit for bit, with its PSNR and SSIM. Kills: another seed, other calls, a second noise, quality against another
    picture."""
    made = page.post("reconstruct", {"picture": dropped["picture"], "level": 5.0, "calls": 2, "seed": 3})
    expected = run.reconstruct(image, steps=2, seed=3).images
    assert torch.equal(_pixels(made["image"]), expected[0])
    assert made["psnr"] == pytest.approx(float(psnr(image, expected)[0]))
    assert made["ssim"] == pytest.approx(float(ssim(image, expected)[0]))
    assert made["protocol"].startswith("2 decoder calls, seed 3. PSNR per picture") and 0 < made["seconds"] < 60
    other = page.post("reconstruct", {"picture": dropped["picture"], "level": 5.0, "calls": 2, "seed": 4})
    assert other["image"] != made["image"]


def test_fewer_bits_are_lifted_by_the_prior(page: Page, run: Run, image: Tensor, dropped: Any) -> None:
    """z_λ with the noise of the same seed, through the prior up to λ₀, decoded. Kills: noise of another level, the
    clean latent lifted, noise added a second time, the base model for the prior that the bits were counted under."""
    level = dropped["levels"][3]
    made = page.post("reconstruct", {"picture": dropped["picture"], "level": level, "calls": 1, "seed": 5})
    z, _ = run.encoded(image)
    noise = torch.randn(z.shape[1:], generator=seeded(5, "decode", 0))[None]
    z_t = diffuse(z, noise, torch.tensor([level]))
    with torch.no_grad():
        z_0 = dpmpp_2m(run.autoencoder.prior, z_t, uniform_grid(level, 5.0, 8), generator=(), cond=None)
    found = lifted(run, z, level, 5)
    assert torch.allclose(found.z, z_0) and found.noisy
    assert torch.equal(_pixels(made["image"]), run.decode(found, 1, 5).images[0])
    assert f"lifted from λ = {level:.2f} by 8 calls of the prior" in made["protocol"]
    near, whole = lifted(run, z, 4.999, 5).z, diffuse(z, noise, torch.tensor([5.0]))
    assert float((near - whole).abs().max()) < 0.01  # the noise is the decoder's own, so the slider has no jump
    with pytest.raises(UserError, match="a log-SNR above -10"):
        kept(run, spent(run, image), -10.0)


def test_samples_are_the_runs_own(page: Page, run: Run) -> None:
    """Kills: another seed, guidance or number of calls, classes by other names, one picture for all."""
    asked = {"run": 0, "count": 3, "label": "standing", "guidance": 2.0, "steps": 3, "seed": 11}
    made = page.post("sample", asked)
    expected = run.sample(3, "standing", 2.0, 3, 11)
    assert [torch.equal(_pixels(one), own.image) for one, own in zip(made["images"], expected, strict=True)] == [
        True
    ] * 3
    assert made["labels"] == ["standing"] * 3
    assert made["protocol"].startswith("guidance 2, 3 calls of the base model and 2 of the decoder, seed 11;")
    turns = page.post("sample", asked | {"label": ""})
    assert turns["labels"] == ["lying", "standing", "lying"]


def test_runs_are_told_as_they_are(page: Page, run: Run, tiny_source: Path) -> None:
    """Kills: the size of another run, calls that the decoder was evaluated with left out, wanted bits of stage 2."""
    told = page.get("runs")
    (one,) = told["runs"]
    assert (one["state"], one["size"], one["pixels"], one["wanted"]) == ("ready", "16 × 16, grey", 256, 0.4)
    assert one["calls"] == [1, 2, 4, 8] and (one["decoder_steps"], one["base_steps"]) == (2, 4)
    assert one["classes"] == ["lying", "standing"] and one["guidance"] == run.config.evaluation.guidance
    assert told["data"] == [str(tiny_source)] and told["training"] is None


def test_watching_tells_the_logs_numbers(page: Page) -> None:
    """Kills: a stage of other steps, curves of another run, a run that is done told as stopped."""
    told = page.get("watch?run=0")
    assert told["state"] == "finished" and [(one["step"], one["steps"]) for one in told["stages"]] == [(8, 8), (4, 4)]
    assert told["planned"] == ["stage1", "stage2"] and told["wanted"] == 0.4


def test_a_learned_variance_and_a_normal_price(tiny_source: Path, tmp_path: Path) -> None:
    """A KL-VAE's bits are its KL in closed form, its decoder answers in one call. Kills: a noise level's estimate in
    its place, a protocol that is cut off, the draw of another seed decoded."""
    named = {"autoencoder__learned_variance": True, "autoencoder__price": "normal", "autoencoder__decoder_loss": "mse"}
    named |= {"stage1__samples": 32, "stage2__samples": 0, "evaluation__pictures": 4, "data__calibration": 4}
    run = unilat.train(str(tiny_source), preset="tiny", loss_factor=10.0, **named)
    image = run.read([tiny_source / "lying" / "44.png"]).images
    found = spent(run, image)
    assert found.bits.value == pytest.approx(float(run.encode(image).bits[0]), rel=1e-5)
    assert "in closed form" in found.bits.protocol and "±" not in found.bits.protocol and found.bits.stderr is None
    assert float(found.errors[-1]) > 0
    assert torch.equal(kept(run, found, 10.0).image, run.reconstruct(image).images)
