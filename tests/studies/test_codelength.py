"""The whole codelength of a run: parts that add up, a network that begins as the decoder, and training that helps."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unilat.maths.levels import rate_table
from unilat.maths.rate import LN2
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.nets.decoder import Heard
from unilat.nets.encoder import EncoderConfig
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViTConfig
from unilat.run.trained import Run, load
from unilat.studies.codelength import codelength, train_pixels
from unilat.studies.pixels import PixelDenoiser, noisy_latents, pixel_stage
from unilat.training.plan import Schedule
from unilat.types import UserError

CONFIG = AutoencoderConfig(
    latent_channels=2,
    encoder=EncoderConfig(channels=(8,), blocks=(1,), strides=(), patch=(4, 4)),
    prior=ViTConfig(channels=(16,), blocks=(1,), head_width=16),
    decoder=UViTConfig(channels=(8,), blocks=(1,), patch=(4, 2), width=16, depth=1, head_width=16),
)
FEW = Schedule(batch=16, samples=320, learning_rate=3e-3, warmup=32, ema_halflife=32)


def shaken(channels: int) -> Autoencoder:
    """An autoencoder whose layers all matter: none is zero."""
    torch.manual_seed(0)
    mean, std = torch.tensor([0.3, -0.2, 0.1])[:channels], torch.tensor([0.5, 0.7, 0.9])[:channels]
    model = Autoencoder(CONFIG, channels, mean, std)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval().requires_grad_(False)


@pytest.fixture
def run(tiny_run: Path) -> Run:
    """The tests' run."""
    return load(tiny_run)


def test_a_decoder_that_starts_from_the_data_is_refused(run: Run, tmp_path: Path) -> None:
    """Kills weights that are taken over by the wrong network."""
    run.config = replace(run.config, autoencoder=replace(run.config.autoencoder, decoder_start="data"))
    with pytest.raises(UserError, match="decoder_start latent"):
        train_pixels(run, torch.zeros(4, 1, 16, 16, dtype=torch.uint8), tmp_path, FEW)


def pictures(run: Run, count: int = 24) -> torch.Tensor:
    """Soft blobs, uint8."""
    size, channels = run.config.data.size, run.data.channels
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    return (torch.nn.functional.interpolate(coarse, size=size, mode="bilinear") * 255).round().to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_begins_as_the_decoder_it_continues(channels: int) -> None:
    """Equal answers at every level, colour and unequal patches included. Kills weights laid into the wrong channels."""
    model = shaken(channels)
    pixels = PixelDenoiser(CONFIG, channels)
    pixels.continue_from(model.decoder)
    x, z = torch.randn(4, channels, 16, 16), torch.randn(4, 2, 4, 4)
    level = torch.tensor([-8.0, 0.0, 6.0, 13.0])
    assert torch.allclose(pixels.eval()(x, level, z), model.decoder(x, level, z), atol=1e-5)


def test_waves_tell_a_tenth_of_a_grey_level() -> None:
    """At high log-SNR pictures that differ by 0.1 grey levels give different waves, whole greys at the finest wave do
    not; in noise all waves vanish. Kills a period that is not one grey level, and the fading."""
    model = PixelDenoiser(CONFIG, 1)
    grey = (torch.tensor([0.0, 77.0, 254.0, 77.1]) / 127.5 - 1.0)[:, None, None, None].double()
    heard = Heard(torch.zeros(4, 2, 1, 1), torch.zeros(4, 2, 1, 1))
    fine, noise = (
        model.shown(grey * torch.sigmoid(at)[:, None, None, None].sqrt(), at, heard)[:, 2:]
        for at in (torch.full((4,), level, dtype=torch.float64) for level in (25.0, 2.0))
    )
    assert torch.allclose(fine[:3, :2].flatten(1), torch.tensor([0.0, 1.0]).double(), atol=1e-3)
    assert abs(float(fine[3, 0]) - math.sin(0.2 * math.pi)) < 1e-3
    assert float(noise.abs().max()) < 1e-6


def test_the_stage_has_weight_one_and_fresh_latent_noise() -> None:
    """Its loss is ½ e^λ ||x − x̂||² / p / D of colour. Kills the sigmoid weight, z of others or without noise, nats a
    pixel."""
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    z = torch.randn(6, 2, 2, 2)
    seen: dict[str, torch.Tensor] = {}

    class Flat(torch.nn.Module):
        def forward(self, x_t: torch.Tensor, level: torch.Tensor, z_0: torch.Tensor) -> torch.Tensor:
            seen.update(level=level, z_0=z_0)
            return torch.zeros_like(x_t)

    stage = pixel_stage("pixels", Flat(), images, z, (-10.0, 13.0), 5.0)  # type: ignore[arg-type]
    rows, own = stage.batch(torch.tensor([4, 1, 3]))
    loss, _ = stage.losses((rows, own), Draws.keyed(0, 0, 0, 3))
    x = rows.float() / 127.5 - 1
    assert torch.equal(rows, images[[4, 1, 3]])
    mass, edges = (table := rate_table(-10.0, 13.0)).mass, table.edges
    place = torch.bucketize(seen["level"].double(), edges[1:-1].contiguous(), right=True)
    density = (mass / edges.diff())[place]
    expected = 0.5 * seen["level"].exp() / density * x.square().flatten(1).sum(1) / 192
    assert torch.equal(own, z[[4, 1, 3]])
    assert torch.allclose(loss.double(), expected.double(), rtol=1e-4)
    away = seen["z_0"] - math.sqrt(1 / (1 + math.exp(-5.0))) * own
    assert 0.04 < float(away.std()) < 0.13
    assert torch.equal(noisy_latents(own, None, Draws.keyed(0, 0, 0, 3)), own)


def test_parts_add_up_and_the_latent_is_the_runs_rate(run: Run) -> None:
    """Kills a part left out of the total, nats told as bits, and bits per pixel told as bits per dimension."""
    images = pictures(run)
    pixels = PixelDenoiser(run.config.autoencoder, images.shape[1])
    pixels.continue_from(run.autoencoder.decoder)
    found = codelength(run, images, pixels.eval(), levels=2, seed=3)
    values = {name: one.value for name, one in vars(found).items()}
    assert sum(values.values()) == pytest.approx(2 * values["total"])
    rate = torch.stack([terms.nats() for terms in run.rate(run.latents(images), 2, 3)]).mean()
    assert values["latent"] == pytest.approx(float(rate) / LN2 / images[0].numel(), rel=1e-4)
    assert 0 < values["reconstruction"] < 0.2 and 0 <= values["terminal"] < 0.01
    assert all(one.n == 24 and one.stderr >= 0 for one in vars(found).values())
    again = codelength(run, images, pixels, levels=2, seed=3)
    assert again == found


def test_training_with_weight_one_shortens_the_code(run: Run, tmp_path: Path) -> None:
    """320 pictures take bits off, with a latent and without, and resuming is the same model. Kills a stage that trains
    nothing, and a model that is not the averaged one."""
    images = pictures(run)
    start = PixelDenoiser(run.config.autoencoder, images.shape[1])
    start.continue_from(run.autoencoder.decoder)
    before = codelength(run, images, start.eval(), levels=2).total.value
    model = train_pixels(run, images, tmp_path, FEW)
    after = codelength(run, images, model, levels=2)
    assert after.total.value < before - 0.2
    again = train_pixels(run, images, tmp_path, FEW)
    assert codelength(run, images, again, levels=2) == after
    alone = train_pixels(run, images, tmp_path, FEW, latent=False)
    found = codelength(run, images, alone, latent=False, levels=2)
    assert found.latent.value == 0.0 and found.total.value < 16
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["pixels", "pixels-given-latent"]


def test_refusals(run: Run) -> None:
    """Pictures that are no bytes, none at all, a range turned round, no levels."""
    images = pictures(run, 3)
    model = PixelDenoiser(run.config.autoencoder, images.shape[1]).eval()
    for wrong, words in (
        ({"pictures": images.float()}, "uint8"),
        ({"pictures": images[:0]}, "no pictures"),
        ({"pictures": images, "lambda_max": -11.0}, "above lambda_min"),
        ({"pictures": images, "levels": 0}, "levels"),
    ):
        with pytest.raises(UserError, match=words):
            codelength(run, model=model, **wrong)  # type: ignore[arg-type]
    run.config = replace(run.config, autoencoder=replace(run.config.autoencoder, learned_variance=True))
    with pytest.raises(UserError, match="fixed at"):
        codelength(run, images, model)


@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_read_back_and_sheets_hold_every_picture(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's codecs: a file that lost a bit is refused, and the sheet's pixels are the pictures'."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "codelength", raising=False)
    import codelength as bench

    images = torch.randint(0, 256, (50, channels, 8, 8), dtype=torch.uint8)
    tiled = bench.sheet(images)
    assert tiled.shape == (channels, 16, 200) and torch.equal(tiled[:, 8:, 8:16], images[26])
    assert bench.file_bits(images[0], "PNG", {"optimize": True}) > 8 * images[0].numel() * 0.9
    with pytest.raises(AssertionError, match="lost"):
        bench.file_bits(images[0], "JPEG", {"quality": 20})
