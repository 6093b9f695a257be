"""A whole audit: true bits, the right words, files that make a page, and one line for what cannot be audited."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

import unilat
from measured import number
from unilat.cli import main
from unilat.interop.model import CallableModel
from unilat.maths.oracle import Gaussian
from unilat.maths.rate import LN2
from unilat.nets.vit import ViTConfig
from unilat.report import audit as page
from unilat.studies.audit import AuditPlan, audit
from unilat.studies.measures import DiffusionBits, LatentBits, patch
from unilat.studies.prior import PriorPlan
from unilat.types import UserError


def _plan(samples: int = 512) -> AuditPlan:
    """A prior that seconds fit, and that is no good."""
    vit = ViTConfig(channels=(16,), blocks=(1,), head_width=16)
    return AuditPlan(levels=4, prior=PriorPlan(vit=vit, samples=samples, batch=64, warmup=256, ema_halflife=200))


def _halved(x: Tensor) -> tuple[Tensor, Tensor]:
    """An encoder whose third channel is dead and whose second stands at ten times its scale."""
    z = avg_pool2d(x, 4)
    return torch.cat([2 * z, 20 * z.flip(3), 0 * z], 1), torch.full((len(x), 3, 4, 4), -5.0)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """uint8 ``[80, 1, 16, 16]``: smooth noise."""
    noise = torch.rand(80, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return (255 * interpolate(noise, size=16, mode="bicubic", antialias=True).clamp(0, 1)).to(torch.uint8)


def test_bits_of_gaussian_latents_are_the_closed_forms():
    """Kills a noise other than λ₀, latents that are not standardised, nats told as bits and means told as sums.

    The benchmark holds the same to 1 % with correlated latents; seconds of training and 600 latents allow 2 % here.
    """
    variances = torch.tensor([[2.0, 0.5, 0.1, 1.4], [9.0, 4.0, 1.0, 0.2]], dtype=torch.float64).repeat(1, 4)
    law = Gaussian((variances / variances.mean(1, keepdim=True)).flatten(), torch.zeros(32, dtype=torch.float64))
    noise = torch.randn(6000, 2, 16, generator=torch.Generator().manual_seed(3))
    z = torch.tensor([5.0, -1.0]).view(1, 2, 1) + variances.sqrt().float() * noise
    vit = ViTConfig(channels=(32,), blocks=(1,), head_width=16)
    prior = PriorPlan(vit=vit, samples=25_600, batch=64, learning_rate=3e-3, warmup=1000, ema_halflife=1000)
    found = audit(z, size=4, plan=AuditPlan(prior=prior, gaussian_up_to=0))
    truth = law.rate_nats(-10.0, 5.0) / LN2
    bits = found.findings.diffusion.bits
    assert bits.per_pixel is not None
    assert found.bits == pytest.approx(truth, rel=0.02)
    assert bits.per_pixel.value == pytest.approx(found.bits / 16)
    assert bits.per_dimension.value == pytest.approx(found.bits / 32)
    assert found.findings.normal.noisy.per_dimension.value == pytest.approx(3.6116, rel=0.02)
    assert found.findings.normal.posterior is None and found.folder is None


@pytest.mark.parametrize("scales", [[1.0, 1.0, 1500.0, 1.0], [1e-6, 3.0, 1.0, 1e8], [1e-20, 1e-20, 2e-20, 1e-20]])
def test_bits_do_not_depend_on_the_scale_and_the_mean_of_a_channel(scales: list[float]):
    """400 unit Gaussians of 64 numbers carry 230.6 bits at log-SNR 5, however a channel is scaled and shifted. Kills:
    narrow channels told as dead, and bits of the widest alone."""
    z = torch.randn(400, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    scale, shift = torch.tensor(scales).view(1, 4, 1, 1), torch.tensor([3.0, 0.0, -2.0, 0.5]).view(1, 4, 1, 1)
    plan = replace(_plan(), gaussian_up_to=0)
    found, plain = (audit(each, plan=plan).findings for each in (scale * (z + shift), z))
    bits = found.diffusion.bits.per_latent
    law = Gaussian(torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64))
    assert bits.stderr is not None
    assert bits.value == pytest.approx(law.rate_nats(-10.0, 5.0) / LN2, abs=3 * bits.stderr)
    assert bits.value == pytest.approx(plain.diffusion.bits.per_latent.value, rel=1e-4)
    assert [row.bits for row in found.channels] == pytest.approx([row.bits for row in plain.channels], rel=1e-3)
    assert not any(row.dead for row in found.channels)
    assert [fault.kind for fault in found.faults] == ["scale", "mean"] and not plain.faults


def test_copies_are_left_out_and_told(tmp_path: Path):
    """30 unit Gaussians of 64 numbers ten times each, 230.6 bits. Kills: copies that the prior knows by heart, an error
    that takes them for independent, and 'Nothing wrong found'; the page and audit.json have the count."""
    z = torch.randn(30, 4, 4, 4, generator=torch.Generator().manual_seed(0)).repeat_interleave(10, 0)
    found = audit(z, plan=_plan(), out=tmp_path)
    bits = found.findings.diffusion.bits.per_latent
    assert bits.n == 10 and bits.stderr is not None
    assert found.bits == pytest.approx(230.6, abs=3 * bits.stderr) and 3 < bits.stderr < 20
    assert found.sentence.startswith("270 of 300 latents are exact copies of others: these bits are of the 30")
    told = json.loads((tmp_path / "audit.json").read_text())["subject"]
    assert (told["latents"], told["copies"], told["trained_on"], told["held_out"]) == (300, 270, 20, 10)
    assert "270 of 300 latents are exact copies" in (tmp_path / "audit.html").read_text("utf-8")


def test_the_lower_of_two_bounds_counts():
    """Kills: the higher bound told, a Gaussian fitted on held-out latents or where it is forbidden, a word left out."""
    mixing = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(4000, 16, generator=torch.Generator().manual_seed(2))
    correlated = (noise @ mixing).view(4000, 1, 4, 4)
    std = correlated.std()
    law = Gaussian.correlated((mixing.T @ mixing / std**2).double(), torch.zeros(16, dtype=torch.float64))
    truth = law.rate_nats(-10.0, 5.0) / LN2
    found, without = (audit(correlated, plan=replace(_plan(), gaussian_up_to=most)) for most in (16, 15))
    error = found.findings.diffusion.bits.per_latent.stderr or 0.0
    assert found.findings.diffusion.prior == "Gaussian" and found.bits == pytest.approx(truth, abs=4 * error)
    assert without.findings.diffusion.prior == "network" and without.bits > 1.05 * truth
    assert "plain Gaussian" in found.findings.protocol["bits"]
    assert "plain Gaussian" not in without.findings.protocol["bits"]
    spread = torch.exp(1.5 * torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(3)))  # no Gaussian
    plan = replace(_plan(6400), prior=replace(_plan(6400).prior, learning_rate=1e-2))
    assert audit(spread * noise.view(4000, 1, 4, 4), plan=plan).findings.diffusion.prior == "network"
    few = correlated.view(1000, 4, 4, 4)[:100]  # fewer than twice their 64 numbers
    assert audit(few, plan=_plan()).findings.diffusion.prior == "normal"


def test_the_splits_add_up(pictures: Tensor, tmp_path: Path):
    """Kills maps, curves or channels of other bits than those that are told, and a dead channel that costs bits."""
    found = audit(_halved, pictures, out=tmp_path, plan=_plan(), features="none")
    arrays = found.arrays
    curve = float(arrays["curve_bits"].sum() + arrays["terminal_bits"].sum())
    for total in (curve, float(arrays["bit_map"].sum()), float(arrays["channel_bits"].sum())):
        assert total == pytest.approx(found.bits, rel=1e-4)
    assert float(arrays["channel_bits"][2]) == 0.0 and tuple(arrays["channel_bits"].shape) == (3,)
    rows = found.findings.channels
    assert [row.dead for row in rows] == [False, False, True]
    assert [row.bits for row in rows] == pytest.approx(arrays["channel_bits"].tolist())
    assert sum(row.posterior_kl_bits or 0.0 for row in rows) == pytest.approx(
        found.findings.normal.posterior.per_latent.value, rel=0.15
    )


def test_planted_faults_are_told_with_pictures(pictures: Tensor):
    """Kills faults that get lost between measurement and record, and a decoder that is never looked at."""
    found = audit(_halved, pictures, decode=lambda z: interpolate(z[:, :1] / 2, size=16), plan=_plan(), features="none")
    assert [fault.kind for fault in found.faults] == ["dead", "scale"]
    assert found.findings.kept and found.findings.kept.psnr.value > 15 and found.findings.kept.above_mean > 3
    assert any("No feature network" in line for line in found.findings.unknown)
    blind = audit(_halved, pictures, decode=lambda z: torch.zeros(len(z), 1, 16, 16), plan=_plan(), features="none")
    assert "blind" in [fault.kind for fault in blind.faults]


def test_the_plan_and_the_seed_reach_every_part(pictures: Tensor, monkeypatch: pytest.MonkeyPatch):
    """Sixteen channels of which half are dead, a declared scale, a posterior. Kills: a seed, a count of pictures or of
    samples that goes nowhere, bits of a number told as those of a latent, a scale that is not the model's own, and
    patches for channels that the prior never sees."""

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        z = avg_pool2d(x, 4)
        return torch.cat([z] * 8 + [0 * z] * 8, 1), torch.full((len(x), 16, 4, 4), -5.0)

    plans: list[AuditPlan] = []

    def bits(audited: Any, channels: Any, means: Any, beside: Any) -> DiffusionBits:
        plans.append(means.plan)
        beside.arrays["channel_bits"] = torch.zeros(16)
        return DiffusionBits(bits=LatentBits(per_latent=number(24.0), per_dimension=number(0.01)), prior="network")

    monkeypatch.setattr("unilat.studies.audit.diffusion_bits", bits)
    model = CallableModel(encode, declared={"scaling_factor": 0.5, "shift_factor": 3.0})
    found = audit(model, pictures, seed=7, samples=123, limit=55, features="none")
    assert (
        plans[0].seed == 7
        and plans[0].prior.samples == 123
        and plans[0] == replace(AuditPlan(seed=7), prior=plans[0].prior)
    )
    assert found.findings.subject.latents == 55 and found.bits == 24.0
    assert found.faults[0].kind == "collapsed" and "0.01 bits" in found.sentence
    row = found.findings.channels[0]
    assert row.scaled_mean == pytest.approx((row.mean - 3) / 2) and row.own_level is not None
    assert "patch 2," in found.findings.protocol["bits"]


def test_an_audit_goes_on_and_repeats_itself(pictures: Tensor, tmp_path: Path):
    """Kills a second start that trains again, and one that differs from the first."""
    first = audit(_halved, pictures, out=tmp_path, plan=_plan(), features="none")
    stamp = [path.stat().st_mtime_ns for path in sorted((tmp_path / "prior").iterdir())]
    told: list[str] = []
    second = audit(
        _halved, pictures, out=tmp_path, plan=_plan(), features="none", progress=lambda row: told.append(str(row))
    )
    assert second.bits == first.bits and not told
    assert stamp == [path.stat().st_mtime_ns for path in sorted((tmp_path / "prior").iterdir())]


def test_a_folder_of_another_audit_is_refused(pictures: Tensor, tmp_path: Path):
    """Kills a prior of other latents or another plan that is taken for this one's; what differs is named."""
    audit(_halved, pictures, out=tmp_path, plan=_plan(), features="none")
    with pytest.raises(UserError, match=r"another audit \(prior differ"):
        audit(_halved, pictures, out=tmp_path, plan=_plan(1024), features="none")
    with pytest.raises(UserError, match="latents"):
        audit(lambda x: _halved(-x), pictures, out=tmp_path, plan=_plan(), features="none")


def test_a_folder_of_diffusers_is_encoded_once(tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills an audit of diffusers' own class that scales latents, loses the posterior or encodes again on resuming."""
    from diffusers import AutoencoderKL

    from unilat.interop.diffusers import DiffusersModel

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    model = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=2, norm_num_groups=4, block_out_channels=(8, 8), **blocks
    )
    model.save_pretrained(tmp_path / "vae")
    how = {"size": 16, "out": tmp_path / "out", "plan": _plan(), "features": "none"}
    found = audit(tmp_path / "vae", str(tiny_source), **how)
    assert found.findings.subject.kind == "AutoencoderKL" and found.findings.subject.latent == (2, 8, 8)
    assert found.findings.subject.declared == {"scaling_factor": 0.18215}
    posterior, kept = found.findings.normal.posterior, found.findings.kept
    assert posterior and posterior.per_pixel and posterior.per_pixel.value > 0 and kept and kept.psnr.n
    monkeypatch.setattr(DiffusersModel, "encode", None)
    assert audit(tmp_path / "vae", str(tiny_source), **how).bits == found.bits
    with pytest.raises(UserError, match="pictures of 1 channels"):
        audit(tmp_path / "vae", torch.zeros(60, 3, 16, 16, dtype=torch.uint8), plan=_plan())


def test_everything_dead_trains_nothing():
    """Kills a prior on no channels at all, and bits that are told of a constant."""
    found = audit(torch.full((60, 2, 3), 7.0), plan=_plan())
    assert found.bits == 0.0 and [fault.kind for fault in found.faults] == ["collapsed"]


@pytest.mark.parametrize(
    ("count", "spoil", "told"),
    [(0, None, "there are no latents"), (3, None, "3 latents are too few"), (60, torch.nan, "1 of 60 latents are not")],
)
def test_latents_that_cannot_be_audited(count: int, spoil: float | None, told: str, tmp_path: Path, capsys):
    """Kills tracebacks out of the prior, an audit of almost nothing, and NaN that spreads into every number."""
    z = np.random.default_rng(0).normal(size=(count, 2, 3)).astype(np.float32)
    if spoil is not None:
        z[7, 1, 2] = spoil
    np.save(tmp_path / "z.npy", z)
    assert main(["audit", str(tmp_path / "z.npy"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1


def test_mistakes_are_one_line(pictures: Tensor, tmp_path: Path):
    """Kills a model without pictures, counts that do not fit, results of the wrong shape: each says what and why."""
    z = torch.zeros(60, 2, 3)
    for source, shown, told in (
        (_halved, None, "needs pictures"),
        (z, pictures, "60 latents and 80 pictures"),
        (lambda x: x[:3], pictures, "must return float latents"),
        (lambda x: "z", pictures, "must return float latents"),
        (lambda x: (x, x[:, :, :4]), pictures, "of one shape"),
        (_halved, pictures.float(), "must be uint8"),
        (tmp_path, pictures, "no folder of diffusers"),
        (tmp_path / "none.npy", None, "is not there"),
    ):
        with pytest.raises(UserError, match=told) as error:
            audit(source, shown, plan=_plan(), features="none")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="the decoder returned"):
        audit(_halved, pictures, decode=lambda z: z, plan=_plan(), features="none")


def test_the_command_line(tmp_path: Path, capsys):
    """Kills options that go nowhere, output that is no JSON, and a page that is not written."""
    np.save(tmp_path / "z.npy", np.random.default_rng(0).normal(size=(80, 2, 4, 4)).astype(np.float32) * 10)
    words = ["audit", str(tmp_path / "z.npy"), "--out", str(tmp_path / "out"), "--samples", "128", "--size", "8"]
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["subject"]["pixels"] == 64 and values["plan"]["prior"]["samples"] == 128
    assert values["faults"][0]["kind"] == "scale" and Path(values["page"]).is_file()
    assert main(words) == 0
    told = capsys.readouterr().out
    assert values["sentence"] in told and "diffusion prior" in told and "not known: " in told


def test_the_page_says_what_was_found(pictures: Tensor, tmp_path: Path):
    """Kills a page with scripts or outside links, without the sentence or the unknown, or with unescaped names."""
    how = {"out": tmp_path, "plan": _plan(), "features": "none"}
    found = audit(_halved, pictures, decode=lambda z: interpolate(z[:, :1] / 2, size=16), **how)
    text = (tmp_path / "audit.html").read_text("utf-8")
    assert found.sentence.split(".")[0] in text and "could not be drawn" not in text
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")
    for key, _, _ in page.SECTIONS:
        assert f'<section id="{key}">' in text
    values = json.loads((tmp_path / "audit.json").read_text("utf-8"))
    values["subject"]["name"] = "<script>alert(1)</script>"
    values["channels"] = "spoilt"
    (tmp_path / "audit.json").write_text(json.dumps(values))
    again = page.write(tmp_path).read_text("utf-8")
    assert "<script" not in again


@pytest.mark.parametrize(
    ("latent", "side"),
    [
        ((16, 16, 16), 1),  # 256 tokens of 16
        ((4, 16, 16), 2),  # tokens of 4 would be too small
        ((4, 64, 64), 4),  # 1,024 tokens of 16 would be too many
        ((64, 8, 8), 1),
        ((4, 2, 2), 2),
        ((4, 17, 17), 17),  # only 1 and 17 divide
        ((4, 4, 16, 16), 2),
        ((8, 1), 1),
    ],
)
def test_latents_are_folded_into_tokens(latent: tuple[int, ...], side: int):
    """Kills a prior of thousands of tokens, or of tokens so small that it cannot learn what depends on what."""
    assert patch(AuditPlan(), latent) == side
    assert patch(AuditPlan(prior=PriorPlan(vit=ViTConfig(patch=4))), latent) == 4


def test_the_public_name():
    """Kills a name that the package does not offer."""
    assert unilat.audit is audit
