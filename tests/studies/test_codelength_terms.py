"""Each term of a codelength on colour by hand, the latent that a decoder is given, and files beside it."""

import io
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from maths.sources import coarse_reconstruction_nats
from measured import fitted
from unilat.maths.rate import RateTerms
from unilat.studies import codelength as study
from unilat.studies.codelength import bits_each, codelength, train_pixels
from unilat.studies.pixels import PixelDenoiser
from unilat.training.plan import Schedule, Stage
from unilat.training.records import Fitted

COUNT, SHAPE, LATENT = 80, (3, 8, 8), (2, 4, 4)
NUMBERS = 3 * 8 * 8
UNIT = math.log(2) * NUMBERS
LAMBDA_MAX = 6.0
"""Noise of six grey levels, where the last step's bits are a closed form."""


def images() -> Tensor:
    """Colour pictures ``[80, 3, 8, 8]``, far enough from black and white for the closed form."""
    return torch.randint(90, 170, (COUNT, *SHAPE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def latents(pictures: Tensor) -> Tensor:
    """Twenty times the first corner, so that noise of σ(λ₀) is told from none."""
    return 20 * (pictures[:, :2, :4, :4].float() / 127.5 - 1)


class Run:
    """A run whose latents and rates are known: estimate k of latent i costs i + 100 k nats."""

    folder, device, latent_shape = Path("a run"), torch.device("cpu"), LATENT

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.config = SimpleNamespace(
            autoencoder=SimpleNamespace(
                lambda_0=5.0, lambda_min=-10.0, learned_variance=False, random_end=None, decoder_start="latent"
            )
        )

    def read(self, pictures: Tensor) -> SimpleNamespace:
        """Takes all as they are."""
        return SimpleNamespace(images=pictures)

    def latents(self, pictures: Tensor) -> Tensor:
        """See above."""
        return latents(pictures)

    def rate(self, z: Tensor, levels: int, seed: int) -> list[RateTerms]:
        """Half of the nats in the diffusion, half in the terminal KL."""
        self.asked.append((z, levels, seed))
        nats = torch.arange(float(len(z)))[:, None]
        return [RateTerms((nats + 100 * k) / 2, (nats + 100 * k) / 2, nats[:, 0]) for k in range(levels)]


class Model(torch.nn.Module):
    """Answers 0.9 of the clean picture where the latent it is given is noisy, and writes down what it is given."""

    def __init__(self, pictures: Tensor):
        super().__init__()
        self.answers = torch.nn.Parameter(0.9 * (pictures.float() / 127.5 - 1), requires_grad=False)
        self.given: list[tuple[Tensor, Tensor, Tensor]] = []
        self.row = 0

    def forward(self, x_t: Tensor, level: Tensor, z_0: Tensor) -> Tensor:
        self.given.append((x_t, level, z_0))
        rows = (self.row + torch.arange(len(x_t))) % len(self.answers)
        self.row += len(x_t)
        return self.answers[rows]


def measured(**how: Any) -> tuple[dict[str, Tensor], Run, Model]:
    """Bits of the pictures' parts, with what the run was asked and the model given."""
    run, pictures = Run(), images()
    model = Model(pictures)
    return bits_each(run, pictures, model, lambda_max=LAMBDA_MAX, levels=3, seed=4, **how), run, model  # type: ignore[arg-type]


def test_every_term_of_the_codelength_by_hand() -> None:
    """Three levels a picture, bits a number of the colour picture. Kills: bits a pixel, nats, one level for the mean of
    three, a term at another's place, the last step at another noise, and a total without one of its parts."""
    found, run, model = measured()
    ((z, levels, seed),) = run.asked
    assert torch.equal(z, latents(images())) and (levels, seed) == (3, 4)
    assert torch.allclose(found["latent"], (torch.arange(80.0) + 100).double() / UNIT)
    x = images().double() / 127.5 - 1
    # ½ e^λ ‖x − x̂‖² / p, with p by an even spread of 80 levels: its mean over levels is the integral in closed form
    integral = 0.5 * (math.exp(LAMBDA_MAX) - math.exp(-10.0)) * float((0.1 * x).square().flatten(1).sum(1).mean())
    assert float(found["decoder"].mean()) == pytest.approx(integral / UNIT, rel=0.03)
    alpha = 1 / (1 + math.exp(10.0))
    terminal = 0.5 * (alpha * (x.square() - 1) - math.log1p(-alpha)).flatten(1).sum(1)
    assert torch.allclose(found["terminal"], terminal / UNIT, rtol=1e-3, atol=1e-8)
    last = coarse_reconstruction_nats(LAMBDA_MAX) / math.log(2)
    assert float(found["reconstruction"].mean()) == pytest.approx(last, abs=0.02)
    parts = found["latent"] + found["decoder"] + found["terminal"] + found["reconstruction"]
    assert torch.allclose(found["total"], parts) and len(found) == 5
    assert len(torch.cat([level for _, level, _ in model.given])) == 240


def test_the_decoder_is_given_what_was_paid_for() -> None:
    """z_0 = α₀ z + σ₀ ε, whose bits are counted. Kills: the clean latent, whose bits nobody pays, noise of another
    level, another picture's latent, and a picture that is given with less noise than its level says."""
    found, _, model = measured()
    z_0 = torch.cat([each for *_, each in model.given]).view(3, 80, *LATENT)
    alpha, sigma = math.sqrt(1 / (1 + math.exp(-5.0))), math.sqrt(1 / (1 + math.exp(5.0)))
    noise = (z_0 - alpha * latents(images())) / sigma
    assert float(noise.mean()) == pytest.approx(0, abs=0.05) and float(noise.std()) == pytest.approx(1, abs=0.03)
    assert not torch.equal(noise[0], noise[1])
    level = torch.cat([each for _, each, _ in model.given]).view(240, 1, 1, 1)
    x = (images().float() / 127.5 - 1).repeat(3, 1, 1, 1)
    x_t = torch.cat([each for each, *_ in model.given])
    grain = (x_t - level.sigmoid().sqrt() * x) / (-level).sigmoid().sqrt()
    assert float(grain.std()) == pytest.approx(1, abs=0.02) and float(grain.mean()) == pytest.approx(0, abs=0.02)
    assert float(level.min()) >= -10 and float(level.max()) <= LAMBDA_MAX and float(found["decoder"].min()) >= 0


def test_without_a_latent_nothing_is_paid_and_nothing_told() -> None:
    """Kills: a pixel model that hears the picture's latent for nothing, and bits of a latent that nobody sees."""
    found, run, model = measured(latent=False)
    assert run.asked == [] and float(found["latent"].abs().max()) == 0
    assert all(float(z_0.abs().max()) == 0 for *_, z_0 in model.given)
    assert torch.allclose(found["total"], found["decoder"] + found["terminal"] + found["reconstruction"])


def test_rows_are_means_and_errors_over_pictures() -> None:
    """Kills: a spread for its error, and a unit that the numbers do not have."""
    run, pictures = Run(), images()
    rows = codelength(run, pictures, Model(pictures), lambda_max=LAMBDA_MAX, levels=1)  # type: ignore[arg-type]
    assert rows.latent.value == pytest.approx(39.5 / UNIT) and rows.total.n == 80
    each = bits_each(run, pictures, Model(pictures), lambda_max=LAMBDA_MAX, levels=1)["latent"].double()  # type: ignore[arg-type]
    assert rows.latent.stderr == pytest.approx(float(each.std()) / math.sqrt(80))
    assert rows.decoder.unit == "bits per dimension" and "1 noise levels a picture" in rows.decoder.protocol


def test_copies_of_a_picture_are_counted_once() -> None:
    """Kills: an error that takes copies for independent pictures."""
    pictures = images()
    runs = [(each, Run(), Model(pictures)) for each in (pictures, torch.cat([pictures, pictures[:50]]))]
    once, found = (codelength(run, each, model, lambda_max=LAMBDA_MAX, levels=1) for each, run, model in runs)  # type: ignore[arg-type]
    assert found == once and found.total.n == 80


def test_training_sees_its_own_pictures_latents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: a decoder trained on clean latents, or without any; the same for the model of the pixels alone; a range
    that ends elsewhere than where it is measured."""
    stages: dict[bool, tuple[Any, ...]] = {}

    class Network(torch.nn.Linear):
        mean, std = torch.zeros(3), torch.ones(3)

        def __init__(self, *rest: Any) -> None:
            super().__init__(1, 1)
            self.continued = False

        def continue_from(self, old: Any) -> None:
            """Writes down that it was told to."""
            self.continued = True

    def pixel_stage(*given: Any) -> Stage:
        name, model, pictures, _, _, lambda_0 = given
        stages[lambda_0 is not None] = given[2:]
        return Stage(name=name, model=model, count=len(pictures), batch=lambda i: (i,), losses=lambda b, d: (b[0], {}))

    def fit(stage: Stage, plan: Schedule, *rest: Any, **options: Any) -> Fitted:
        return fitted({name: torch.full_like(value, 7.0) for name, value in stage.model.state_dict().items()})

    monkeypatch.setattr(study, "fit", fit)
    monkeypatch.setattr(study, "pixel_stage", pixel_stage)
    monkeypatch.setattr(study, "PixelDenoiser", Network)
    monkeypatch.setattr(study, "Decoder", Network)
    run, pictures = Run(), images()
    run.autoencoder = SimpleNamespace(decoder=Network())  # type: ignore[attr-defined]
    plan = Schedule(batch=4, samples=8, learning_rate=1e-3)
    models = {on: train_pixels(run, pictures, tmp_path, plan, latent=on, lambda_max=9.0) for on in (True, False)}  # type: ignore[arg-type]
    (_, z, _, lambda_0), (_, nothing, _, _) = stages[True], stages[False]
    assert torch.equal(z, latents(pictures)) and lambda_0 == 5.0
    assert float(nothing.abs().max()) == 0 and len(nothing) == COUNT
    for on, model in models.items():
        assert stages[on][2] == (-10.0, 9.0) and torch.equal(stages[on][0], pictures)
        assert model.continued is on and float(model.weight) == 7.0 and not model.training  # type: ignore[union-attr]


def test_waves_of_colour_stand_for_their_own_channel() -> None:
    """Kills: a cosine for a sine, periods in another unit, and one channel's wave at another's place."""
    model = PixelDenoiser.__new__(PixelDenoiser)
    torch.nn.Module.__init__(model)
    x = torch.tensor([[0.25, -0.5, 0.75], [0.1, 0.2, -0.3]], dtype=torch.float64)[:, :, None, None]
    level = torch.tensor([30.0, 14.0], dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelDenoiser.__mro__[1], "shown", lambda self, x_t, logsnr, heard: x_t)
        waves = model.shown(x * level.sigmoid().sqrt()[:, None, None, None], level, None)[:, 3:, 0, 0]  # type: ignore[arg-type]
    assert tuple(waves.shape) == (2, 24)
    place = 0
    for period in (1, 2, 4, 8):
        grey = (x[:, :, 0, 0] + 1) * 127.5
        blur = torch.exp(-0.5 * (2 * math.pi / period * 127.5) ** 2 * torch.exp(-level))[:, None]
        for wave in (torch.sin, torch.cos):
            assert torch.allclose(waves[:, place : place + 3], blur * wave(2 * math.pi * grey / period), atol=1e-6)
            place += 3


def test_files_bytes_are_bits_of_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's PNG beside our bits, on colour. Kills: bytes told as bits, bits a pixel, and a sheet counted as
    one picture."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "codelength", raising=False)
    import codelength as bench

    pictures = torch.randint(0, 256, (50, *SHAPE), generator=torch.Generator().manual_seed(2)).to(torch.uint8)

    pictures[::3, :, 2:] = 7  # some take fewer bytes than others

    def size(picture: Tensor) -> int:
        buffer = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", optimize=True)
        return len(buffer.getvalue())

    rows = {one["what"]: one for one in bench.codecs("x", pictures)}
    each = torch.tensor([8 * size(one) / NUMBERS for one in pictures], dtype=torch.float64)
    alone = rows["x: PNG, file by file (headers included)"]
    assert alone["value"] == pytest.approx(float(each.mean())) and alone["n"] == 50
    assert alone["stderr"] == pytest.approx(float(each.std()) / math.sqrt(50))
    together = rows["x: PNG, one sheet of all pictures"]
    assert together["value"] == pytest.approx(8 * size(bench.sheet(pictures)) / (50 * NUMBERS)) and together["n"] == 50
