"""What `unilat verify` tells of a run, each number by another way: closed forms, cases by hand, sets that are
marked."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from measured import measured, written
from unilat.cli.tables import verify_table
from unilat.files import read_json
from unilat.maths.levels import Table, rate_table
from unilat.maths.oracle import Gaussian
from unilat.maths.rate import LN2
from unilat.nets.vit import ViTConfig
from unilat.run.evaluate import bound
from unilat.run.folder import RunFolder
from unilat.run.rate import measure_rate
from unilat.studies import verify
from unilat.studies.prior import PriorPlan

SHAPE, PIXELS, ENTROPY = (3, 2, 4), 20, 0.35
"""Of one latent; a picture has fewer pixels than a latent numbers, and the learned variance gives this back of each."""
LAW = Gaussian(torch.tensor([0.5, 3.0, 1.0]).repeat_interleave(8), torch.tensor([1.0, -2.0, 0.0]).repeat_interleave(8))
TRUTH = LAW.rate_nats(-8.0, 4.0)


class Exact(torch.nn.Module):
    """The denoiser of a Gaussian, with so many parameters that do nothing."""

    def __init__(self, law: Gaussian, parameters: int):
        super().__init__()
        self.law, self.idle = law, torch.nn.Parameter(torch.zeros(parameters))

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: Any = None) -> Tensor:
        return self.law.denoise(x_t.flatten(1), logsnr).view_as(x_t)


def exact(x_t: Tensor, logsnr: Tensor, cond: Any = None) -> Tensor:
    """The denoiser of ``LAW``."""
    return LAW.denoise(x_t.flatten(1), logsnr).view_as(x_t)


def known() -> tuple[Any, verify.HeldOut]:
    """A run whose prior is exact, and 400 of its latents with an entropy: their bits are a closed form."""
    z = LAW.sample(400, torch.Generator().manual_seed(1)).view(400, *SHAPE)
    table = rate_table(-8.0, 4.0)

    def rate(z: Tensor, levels: int, seed: int = 0, entropy: Tensor | None = None) -> list[Any]:
        found = measure_rate(z, exact, table, -8.0, levels=levels, seed=seed, device=z.device)
        return [terms.less(entropy) for terms in found]

    run = SimpleNamespace(
        config=SimpleNamespace(
            autoencoder=SimpleNamespace(lambda_0=4.0, lambda_min=-8.0, price="diffusion"),
            evaluation=SimpleNamespace(rate_levels=5),
        ),
        autoencoder=SimpleNamespace(prior=exact, rate_levels=SimpleNamespace(table=table)),
        pixels=PIXELS,
        rate=rate,
        folder=Path("nowhere"),
    )
    return run, verify.HeldOut(z, torch.full((400, *SHAPE), ENTROPY))


def test_bits_of_known_latents_are_their_closed_form() -> None:
    """Bits per pixel of 24 numbers on 20 pixels. Kills: nats, bits a number, an entropy that is added or left out,
    means over pictures for means over levels, and the same bits under any prior."""
    run, held = known()
    bits = verify._bits(run, held, exact, 7, run.autoencoder.rate_levels.table)
    truth = (TRUTH - 24 * ENTROPY) / (LN2 * PIXELS)
    assert tuple(bits.shape) == (verify.LEVELS, 400)
    error = float(bits.mean(0).std()) / 20
    assert error < 0.02 * truth and float(bits.mean()) == pytest.approx(truth, abs=4 * error)
    every = verify.estimates(run, held, run.autoencoder.rate_levels.table, [7, 8])
    assert tuple(every.shape) == (2, verify.LEVELS) and torch.allclose(every[0], bits.mean(1))
    assert verify._reported(run, held) == pytest.approx(truth, abs=4 * error)
    none = verify._reported(run, verify.HeldOut(held.z, None))
    assert none - verify._reported(run, held) == pytest.approx(24 * ENTROPY / (LN2 * PIXELS), rel=1e-5)


def test_reported_bits_are_those_of_as_many_pictures(tmp_path: Path) -> None:
    """Kills: a report of other pictures or noise levels that is compared with these, and one that is not looked at."""
    run, held = known()
    run.folder = tmp_path
    run.results = measured(0.125, target=9.0, n=400)
    written(tmp_path, run.results)
    assert verify._reported(run, held) == 0.125
    run.results = measured(0.125, target=9.0, n=399)
    assert verify._reported(run, held) > 1
    for levels, told in ((5, True), (8, False)):  # the run is set to 5
        row = replace(run.results.bits.measured, n=400, protocol=bound(run).replace(" 5 noise", f" {levels} noise"))
        run.results = replace(run.results, bits=replace(run.results.bits, measured=row))
        assert (verify._reported(run, held) == 0.125) is told


def test_noise_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 × 8 other estimates of mean 2 and spread 0.4, uniform ones of mean 2.1 and spread 0.8, a report of 5 levels.

    Kills: standard errors of another count, one placing told for the other, a report that may lie eight times as far
    off, and estimates that share their seeds.
    """
    run, held = known()
    shape = torch.linspace(-1, 1, 32, dtype=torch.float64).view(4, 8)
    shape = shape / shape.std()
    asked: list[tuple[Table, list[int]]] = []

    def estimates(run: Any, held: Any, table: Table, seeds: list[int]) -> Tensor:
        asked.append((table, seeds))
        return 2 + 0.4 * shape if table is run.autoencoder.rate_levels.table else 2.1 + 0.8 * shape

    monkeypatch.setattr(verify, "estimates", estimates)
    noise, own = 0.4 / math.sqrt(32), 0.4 / math.sqrt(5)
    limit = 3 * math.hypot(noise, own)
    for apart, holds in ((0.99, True), (-0.99, True), (1.01, False), (-1.01, False)):
        monkeypatch.setattr(verify, "_reported", lambda run, held, at=2 + apart * limit: at)
        others, reported, placing = verify._noise(run, held, 3)
        assert reported.holds is holds
    assert asdict(reported) == pytest.approx(
        {"value": 2 - 1.01 * limit, "noise": own, "difference": -1.01 * limit, "stderr": limit / 3, "holds": False}
    )
    assert others.value == pytest.approx(2.0) and others.n == 400
    assert others.noise == pytest.approx(noise)
    assert others.each == pytest.approx(tuple((2 + 0.4 * shape).mean(1).tolist()))
    assert placing.value == pytest.approx(2.1) and placing.difference == pytest.approx(0.1)
    assert placing.noise == pytest.approx(2 * noise)
    assert placing.stderr == pytest.approx(noise * math.sqrt(5)) and placing.holds
    (_, seeds), (flat, more) = asked[-2:]
    assert len({*seeds, *more}) == 8
    assert torch.equal(flat.mass, torch.ones(1)) and [float(edge) for edge in flat.edges] == [-8.0, 4.0]


def test_paired_slack_by_hand() -> None:
    """Three pictures. Kills: the spread for its error, residuals of the plain difference, an error that is no share,
    and the run's bits told as the refit's."""
    sizes = verify.Sizes(run=10, refitted=53)
    found = verify.paired_slack(torch.tensor([3.0, 5.0, 4.0]), torch.tensor([2.0, 4.0, 4.0]), sizes, 640)
    error = math.sqrt((0.6**2 + 0.2**2 + 0.8**2) / 2) / math.sqrt(3) / (10 / 3)
    told = (found.value, found.stderr, found.n, found.run, found.refitted)
    assert told == pytest.approx((0.2, error, 3, 4.0, 10 / 3))
    assert (found.parameters, found.samples, found.limit, found.holds) == (sizes, 640, 0.02, False)
    one = verify.paired_slack(torch.tensor([3.0]), torch.tensor([2.0]), sizes, 640)
    assert (one.value, one.stderr, one.n) == (0.5, None, 1)


def test_agreement_by_hand() -> None:
    """Kills: a difference with the other sign, and an error that is not the root of two squares."""
    found = verify.agreement(1.5, 0.3, 1.0, 0.4)
    assert asdict(found) == pytest.approx({"value": 1.5, "noise": 0.3, "difference": 0.5, "stderr": 0.5, "holds": True})


def test_the_refit_is_twice_as_wide() -> None:
    """Kills: a refit of the run's own width, and one whose averaging or warm-up outlasts what it sees."""
    vit = ViTConfig(channels=(16, 24), blocks=(1, 2), head_width=8)
    plan = verify.refit_plan(vit, 640, 9)
    assert plan.vit.channels == (32, 48) and plan.vit.blocks == (1, 2) and plan.vit.head_width == 8
    assert (plan.samples, plan.batch, plan.seed, plan.warmup, plan.ema_halflife) == (640, 64, 9, 80, 80)
    assert (verify.refit_plan(vit, 10**6, 9).warmup, verify.refit_plan(vit, 10**6, 9).ema_halflife) == (5000, 5000)
    assert verify.refit_plan(vit, 40, 9).batch == 40


def slack_of(value: float, reported: float = 0.0) -> verify.Verification:
    """What verifying found: a slack, and a report that lies this many standard errors off."""
    one = verify.Agreement(value=0.3, noise=0.1, difference=-0.1 * reported, stderr=0.1, holds=abs(reported) <= 3)
    slack = verify.Slack(
        value=value,
        stderr=0.001,
        n=9,
        run=0.3123,
        refitted=0.2987,
        parameters=verify.Sizes(run=10, refitted=53),
        samples=640,
        limit=0.02,
        holds=value <= 0.02,
    )
    return verify.Verification(
        run="r",
        seed=0,
        unit="bits per pixel",
        other_seeds=verify.Repeated(value=0.3, noise=0.1, each=(0.3,), n=9),
        reported=one,
        placing=replace(one, holds=True),
        slack=slack,
    )


def test_sentences_carry_the_numbers() -> None:
    """Kills: the run's bits and the refit's changed over, the sizes' ratio upside down, a gap in bits, and a warning of
    a refit that learned by heart where the slack is within its noise."""
    found = slack_of(0.0312, reported=4.2)
    told = found.words
    assert "0.3123 per pixel under the run's prior" in told[0]
    assert "5.3 times as large" in told[1] and "(640 seen), needs 0.2987" in told[1] and "3.12% ± 0.10%" in told[1]
    assert "disagree by 4.2 standard errors" in found.failures[0]
    assert "3.12% is above 2%" in found.failures[1] and len(found.failures) == 2
    for value, warned in ((-0.0021, True), (-0.0019, False), (0.0021, False)):
        assert any("by heart" in line for line in slack_of(value).words) is warned


def test_one_picture_has_a_slack_without_an_error() -> None:
    """Kills: "± nan%" in a sentence or verify.json, and a warning from a comparison with NaN."""
    one = verify.paired_slack(torch.tensor([3.0]), torch.tensor([2.0]), verify.Sizes(run=1, refitted=2), 9)
    assert (one.value, one.stderr, one.n) == (0.5, None, 1)
    for value in (0.5, -0.5):
        found = replace(slack_of(value), slack=replace(one, value=value))
        told = " ".join(found.words)
        assert (
            f"pays at least {value:.2%} (one picture) too much" in told and "nan" not in told and "by heart" not in told
        )
        assert "nan" not in verify_table(found)


def divergence(lambda_t: float) -> float:
    """What a prior that takes each variance for half as large pays too much down to ``lambda_t``, nats a latent."""
    alpha = 1 / (1 + math.exp(-lambda_t))
    one, two = (alpha * each.double() + 1 - alpha for each in (LAW.variances, LAW.variances / 2))
    return float(0.5 * (one / two - 1 - (one / two).log()).sum())


def test_each_set_of_pictures_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refit sees the training pictures' latents and nothing else, bits are of held-out ones and nothing else; the
    run's prior pays a divergence that is known.

    Kills: training or calibration pictures measured for held-out ones, a prior refitted on what it is measured on, a
    slack of the wrong one of two priors or of two draws of noise, a refit of another seed, a limit of another size,
    copies that count as pictures of their own.
    """
    run, held = known()
    start, refitted = Exact(replace(LAW, variances=LAW.variances / 2), 10), Exact(LAW, 53)
    train, calibration, test = torch.arange(150), torch.arange(150, 180), torch.arange(180, 430)  # 30 copies
    run.split = lambda pictures: (train, calibration, test)
    drawn = SimpleNamespace(entropy=lambda lambda_0: torch.full((220, *SHAPE), ENTROPY))
    run.encoded = lambda images: (images, drawn)
    run.latents = lambda images: images
    run.folder, run.device, run.autoencoder.prior = tmp_path, torch.device("cpu"), start
    run.config.autoencoder.prior = ViTConfig(channels=(16,))
    run.config.evaluation.pictures = 1000
    monkeypatch.setattr(verify, "own_pictures", lambda run: SimpleNamespace(images=torch.cat([held.z, held.z[370:]])))
    fitted: list[Tensor] = []
    measured: list[Tensor] = []
    real = verify.measure

    def fit_prior(z: Tensor, plan: PriorPlan, folder: Path, *, start: Any, **options: Any) -> Exact:
        fitted.append(z)
        assert (plan.seed, plan.samples, folder) == (3, 32, RunFolder(tmp_path).refits / "32-3")
        assert (options["lambda_0"], options["lambda_min"]) == (4.0, -8.0) and start is run.autoencoder.prior
        return refitted

    def measure(z: Tensor, *rest: Any, **options: Any) -> Any:
        measured.append(z)
        return real(z, *rest, **options)

    monkeypatch.setattr(verify, "fit_prior", fit_prior)
    monkeypatch.setattr(verify, "measure", measure)
    found = verify.verify_run(run, samples=32, seed=3)
    assert len(fitted) == 1 and torch.equal(fitted[0], held.z[:150])
    rows = {tuple(row) for row in held.z[180:].flatten(1).tolist()}
    assert all({tuple(row) for row in z.flatten(1).tolist()} == rows for z in measured) and len(measured) == 10
    slack, extra = found.slack, divergence(4.0) - divergence(-8.0)
    truth = TRUTH - 24 * ENTROPY
    assert slack.value == pytest.approx(extra / truth, abs=4 * slack.stderr) and slack.stderr < 0.1 * extra / truth
    assert slack.run > slack.refitted and slack.n == 220
    assert slack.parameters == verify.Sizes(run=10, refitted=53) and slack.samples == 32
    assert slack.limit == 0.02 and slack.holds is False and slack.value < 0.2 and not found.holds
    assert found.unit == "bits per pixel" and read_json(tmp_path / "verify.json")["slack"] == asdict(slack)
