"""Every number of an audit on colour, by hand: which latents are measured, in which unit, split how."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from studies.samples import LATENT, TEST, TRAIN, latents, pictures, subject
from unilat.maths.rate import RateTerms
from unilat.metrics import compare
from unilat.results import Number
from unilat.studies import measures
from unilat.studies.channels import Channels, channels_of
from unilat.studies.measures import AuditPlan, Beside, LatentBits, Means
from unilat.studies.prior import PriorPlan

LN2 = math.log(2)
PLAN = AuditPlan(lambda_0=4.0, lambda_min=-8.0, levels=3, gaussian_up_to=0, prior=PriorPlan(samples=640))


def means(tmp_path: Path, plan: AuditPlan = PLAN) -> Means:
    """What a measurement works with."""
    return Means(plan=plan, folder=tmp_path, features="none", device="cpu", say=lambda line: None, progress=None)


def unit(z: Tensor) -> Tensor:
    """Live channels with mean 0 and variance 1 over all 85 latents, by numpy's own words."""
    array = z.double().numpy()[:, [0, 2]]
    array = (array - array.mean((0, 2, 3), keepdims=True)) / array.std((0, 2, 3), keepdims=True)
    return torch.from_numpy(array)


def told(row: Number | None, each: Tensor, unit: str) -> None:
    """Value, standard error and count of a row are those of ``each [N]``."""
    each = each.double()
    error = math.sqrt(float((each - each.mean()).square().sum()) / (len(each) - 1) / len(each))
    assert row is not None and row.value == pytest.approx(float(each.mean()), rel=1e-5)
    assert row.stderr == pytest.approx(error, rel=1e-5)
    assert (row.n, row.unit) == (len(each), unit)


def bits_of(rows: LatentBits | None, nats: Tensor) -> None:
    """Bits of ``nats [N]`` for a latent, one of its 24 numbers and one of the picture's 60 pixels."""
    assert rows is not None
    told(rows.per_latent, nats / LN2, "bits per latent")
    told(rows.per_dimension, nats / LN2 / 24, "bits per number")
    told(rows.per_pixel, nats / LN2 / 60, "bits per pixel")


def test_bits_under_the_normal_prior_are_divergences_of_normals() -> None:
    """Of the held-out posteriors, and of held-out standardised latents with noise of log-SNR 4. Kills: training
    latents, nats, the noise of λ_min, a posterior of standard deviation e^logvar, and numbers counted for pixels."""
    logvar = torch.linspace(-3, 1, 85 * 24).view(85, *LATENT)
    own = subject(logvar=logvar)
    into = Beside()
    channels = channels_of(own.z, logvar)
    found = measures.normal_bits(own, channels, PLAN, into)
    posterior = kl_divergence(Normal(own.z.double(), (0.5 * logvar.double()).exp()), Normal(0.0, 1.0))
    bits_of(found.posterior, posterior[TEST].flatten(1).sum(1))
    by_channel = posterior.sum((2, 3)).mean(0) / LN2
    assert torch.allclose(into.arrays["channel_kl_bits"].double(), by_channel, rtol=1e-5)
    array, alpha = subject(known=False), 1 / (1 + math.exp(-4.0))
    found = measures.normal_bits(array, channels_of(array.z), PLAN, into)
    noise = torch.tensor(1 - alpha).sqrt().double()
    noisy = kl_divergence(Normal(math.sqrt(alpha) * unit(array.z), noise), Normal(0.0, 1.0))
    bits_of(found.noisy, noisy[TEST].flatten(1).sum(1))
    assert found.posterior is None


class Planted:
    """Stands for fitting and measuring: estimate k of a latent costs (k + 1) z² + ¼ nats a number, and is written
    down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.fitted: list[Tensor] = []
        self.measured: list[Tensor] = []
        self.options: list[dict[str, Any]] = []
        self.normal = 1e3
        """What N(0, I) spends on z²."""
        monkeypatch.setattr(measures, "fit_prior", self.fit_prior)
        monkeypatch.setattr(measures, "measure", self.measure)

    def fit_prior(self, z: Tensor, plan: PriorPlan, folder: Path, **options: Any) -> str:
        """Writes down what it is given."""
        self.fitted.append(z)
        self.options.append(options | {"seed": plan.seed, "samples": plan.samples})
        return "a prior"

    def measure(self, z: Tensor, denoise: Any, *, levels: int, **options: Any) -> list[RateTerms]:
        """Estimates that are known; the noise levels rise from −8 to 4."""
        if denoise is measures.unit_normal:
            return [RateTerms(z.square() * self.normal, 0 * z, torch.linspace(-8, 4, len(z)))] * levels
        assert denoise == "a prior"
        self.measured.append(z)
        self.options.append(options)
        at = torch.linspace(-8, 4, len(z))
        return [RateTerms((k + 1) * z.square(), torch.full_like(z, 0.25), at) for k in range(levels)]


def test_bits_under_the_diffusion_prior_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three estimates: 2 z² + ¼ a number. Kills: bits of what the prior was trained on, a prior trained on what is
    measured or on all, a dead channel that is shown to it, one estimate for the mean of three, and another noise."""
    planted, own, into = Planted(monkeypatch), subject(), Beside()
    found = measures.diffusion_bits(own, channels_of(own.z), means(tmp_path), into)
    z = unit(own.z)
    assert len(planted.fitted) == 1 and torch.allclose(planted.fitted[0].double(), z[TRAIN], atol=1e-5)
    assert torch.allclose(planted.measured[0].double(), z[TEST], atol=1e-5)
    assert torch.allclose(planted.measured[1].double(), z[TRAIN[:25]], atol=1e-5)
    for options in planted.options:
        assert (options["lambda_0"], options["lambda_min"]) == (4.0, -8.0)
    nats = 2 * z.square() + 0.25
    bits_of(found.bits, nats[TEST].flatten(1).sum(1))
    assert found.prior == "network"


def test_bits_are_split_by_channel_place_and_noise_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a channel's bits at another channel's place, a map without the terminal KL or with it in the curve, means
    over places for sums, nats, and the bits of single latents taken from other latents."""
    Planted(monkeypatch)
    own, into = subject(), Beside()
    measures.diffusion_bits(own, channels_of(own.z), means(tmp_path), into)
    z = unit(own.z)[TEST]
    nats = 2 * z.square() + 0.25
    close = {"rtol": 1e-4, "atol": 1e-5}
    by_channel = nats.sum((2, 3)).mean(0) / LN2
    expected = torch.stack([by_channel[0], torch.zeros(()).double(), by_channel[1]])
    assert torch.allclose(into.arrays["channel_bits"].double(), expected, **close)
    assert torch.allclose(into.arrays["bit_map"].double(), nats.sum(1).mean(0) / LN2, **close)
    assert into.arrays["terminal_bits"].tolist() == pytest.approx([16 * 0.25 / LN2])
    edges = into.arrays["curve_edges"]
    assert torch.allclose(edges, torch.linspace(-8, 4, 31))
    curve, at = torch.zeros(30).double(), torch.linspace(-8, 4, 25)
    for level, cost in zip(at.tolist(), 2 * z.square().flatten(1).sum(1), strict=True):
        curve[min(29, int((level + 8) / 0.4 + 1e-4))] += cost / 25 / LN2
    assert torch.allclose(into.arrays["curve_bits"].double(), curve, **close)
    assert torch.allclose(into.arrays["bit_maps"].double(), (z[:8].square() + 0.25).sum(1) / LN2, **close)
    assert torch.allclose(into.arrays["bits_each"], into.arrays["bit_maps"].sum((1, 2)), **close)


def test_bits_that_the_prior_learned_by_heart_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out latents are three times as wide. Kills: the share upside down, held-out bits told as those that were
    seen, and a sentence that comes always or never."""
    Planted(monkeypatch)
    own, into = subject(), Beside()
    found = measures.diffusion_bits(own, channels_of(own.z), means(tmp_path), into)
    each = (2 * unit(own.z).square() + 0.25).flatten(1).sum(1) / LN2
    seen, held_out = float(each[TRAIN[:25]].mean()), float(each[TEST].mean())
    assert found.bits.seen_per_latent == pytest.approx(seen, rel=1e-5)
    (line,) = into.unknown
    assert "saw 60 latents" in line and f"spends {100 * (held_out / seen - 1):.0f} % more bits" in line
    alike = SimpleNamespace(**(vars(own) | {"train": TEST, "pictures": None}))
    measures.diffusion_bits(alike, channels_of(own.z), means(tmp_path), again := Beside())  # type: ignore[arg-type]
    assert again.unknown == [] and "bit_maps" not in again.arrays


def test_the_plain_normal_bounds_what_a_network_cannot_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a network that has learned its few latents by heart and whose bits are told all the same, bits of the one
    with maps of the other, and a silence about it."""
    planted, own, into = Planted(monkeypatch), subject(), Beside()
    planted.normal = 1.0
    found = measures.diffusion_bits(own, channels_of(own.z), means(tmp_path), into)
    each = unit(own.z)[TEST].square().flatten(1).sum(1)
    assert found.prior == "normal"
    bits_of(found.bits, each)
    assert float(into.arrays["channel_bits"].sum()) == pytest.approx(float(each.mean()) / LN2, rel=1e-5)
    lost = float((2 * each + 4).mean() / each.mean()) - 1
    lines = [line for line in into.unknown if "The network" in line]
    assert len(lines) == 1 and f"spends {100 * lost:.0f} % more bits on held-out latents than N(0, I)" in lines[0]
    assert "60 latents are too few" in lines[0]
    planted.normal = float((2 * each + 4).mean() / each.mean()) * 0.97  # within what is told
    measures.diffusion_bits(own, channels_of(own.z), means(tmp_path), again := Beside())
    assert not any("The network" in line for line in again.unknown)


def test_the_denoiser_of_a_unit_normal() -> None:
    """``α z_t``, any shape. Kills: α², σ, and a level of another example."""
    x_t = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    made = measures.unit_normal(x_t, torch.tensor([-2.0, 0.0, 5.0]))
    alphas = [(1 / (1 + math.exp(-level))) ** 0.5 for level in (-2.0, 0.0, 5.0)]
    assert torch.allclose(made, x_t * torch.tensor(alphas).view(3, 1, 1, 1))


def test_the_gaussian_is_that_of_the_training_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a Gaussian of the held-out latents (its bits would be too few), one of too few latents, and the higher
    bound."""
    planted, own = Planted(monkeypatch), subject()
    asked: list[Tensor] = []

    class Cheap:
        def eval(self) -> "Cheap":
            return self

    def measure(z: Tensor, denoise: Any, **options: Any) -> list[RateTerms]:
        found = planted.measure(z, "a prior", **options)
        share = cost if isinstance(denoise, Cheap) else 1.0
        return [RateTerms(share * one.diffusion, one.terminal, one.lambda_t) for one in found]

    def new_prior(z: Tensor, plan: PriorPlan) -> Cheap:
        asked.append(z)
        assert plan.covariance_up_to == 16
        return Cheap()

    monkeypatch.setattr(measures, "measure", measure)
    monkeypatch.setattr(measures, "new_prior", new_prior)
    plan = AuditPlan(lambda_0=4.0, lambda_min=-8.0, levels=3, gaussian_up_to=16, prior=PriorPlan(samples=640))
    each = unit(own.z)[TEST].square().flatten(1).sum(1)
    for cost, name in ((0.5, "Gaussian"), (1.5, "network")):
        found = measures.diffusion_bits(own, channels_of(own.z), means(tmp_path, plan), Beside())
        expected = float((2 * min(1.0, cost) * each + 4).mean()) / LN2
        assert found.prior == name
        assert found.bits.per_latent.value == pytest.approx(expected, rel=1e-5)
    assert all(torch.allclose(z.double(), unit(own.z)[TRAIN], atol=1e-5) for z in asked) and len(asked) == 2
    few = SimpleNamespace(**(vars(own) | {"train": TRAIN[:31]}))  # fewer than twice 16
    measures.diffusion_bits(few, channels_of(own.z), means(tmp_path, plan), Beside())  # type: ignore[arg-type]
    assert len(asked) == 2


def test_reconstructions_are_those_of_held_out_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: pictures that were trained on, decibels of the mean error, a mean picture of the held-out ones (it is no
    guess then), its decibels told for the gain, distances of other sets, and pictures in another order."""
    own, into = subject(), Beside()

    class Flat:
        protocol = "bytes as they are"

        def __call__(self, images: Tensor) -> Tensor:
            return images.flatten(1).float() / 50

    monkeypatch.setattr(measures, "feature_network", lambda spec: Flat())
    found = measures.reconstructions(own, means(tmp_path), into)
    images = pictures().images
    wrong = 1 + TEST % 4
    decibels = 10 * (255**2 / (wrong.double().square() / 3)).log10()
    mean = images[TRAIN].double().mean(0).round()
    alone = (images[TEST].double() - mean).square().flatten(1).mean(1)
    assert found is not None and found.kernel is not None
    assert found.above_mean == pytest.approx(float((decibels - 10 * (255**2 / alone).log10()).mean()), rel=1e-5)
    told(found.psnr, decibels, "dB")
    assert torch.equal(into.arrays["originals"], images[TEST[:8]])
    made = own.model.answer(TEST)  # type: ignore[union-attr]
    assert torch.equal(into.arrays["reconstructions"], made[:8])
    expected = compare(images[TEST].flatten(1).float() / 50, made.flatten(1).float() / 50).kernel
    assert found.kernel.value == pytest.approx(expected.value, rel=1e-5)
    assert found.kernel.n == 25


@pytest.mark.parametrize(
    ("shape", "rows"), [((5, 4), (1, 4)), ((5, 2, 4), (2, 4)), ((5, 3, 2, 4), (2, 4))], ids=["line", "plane", "video"]
)
def test_maps_of_any_grid_are_drawn_as_planes(shape: tuple[int, ...], rows: tuple[int, int]) -> None:
    """Kills: frames that are averaged or left out, and a line that stands upright."""
    maps = torch.rand(shape)
    found = measures._grid(maps)
    assert tuple(found.shape) == (5, *rows) and torch.allclose(found.sum((1, 2)), maps.flatten(1).sum(1))


def test_one_latent_has_no_standard_error() -> None:
    """Kills: NaN in audit.json, and a standard error of 0 that would say the value is sure."""
    one = measures._per(torch.tensor([[2.0]]), subject()).per_latent
    assert one == Number(value=pytest.approx(2 / LN2), stderr=None, n=1, unit="bits per latent")


def test_all_channels_dead_are_no_bits_of_as_many_latents(tmp_path: Path) -> None:
    """Kills: bits of a constant, and a count of something else."""
    still = SimpleNamespace(**(vars(subject()) | {"z": torch.full((85, *LATENT), 3.0)}))
    channels: Channels = channels_of(still.z)
    found = measures.diffusion_bits(still, channels, means(tmp_path), into := Beside())  # type: ignore[arg-type]
    assert found.bits.per_pixel == Number(value=0.0, stderr=0.0, n=25, unit="bits per pixel") and found.prior is None
    assert into.arrays["channel_bits"].tolist() == [0.0, 0.0, 0.0] and len(latents()) == 85
