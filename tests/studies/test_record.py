"""An audit in plain data and words: each number in its own row, each count of its own set."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from measured import machine
from studies.samples import Model, pictures, subject
from unilat.results import Number
from unilat.studies import record
from unilat.studies.channels import Scaling, channels_of
from unilat.studies.faults import Fault
from unilat.studies.measures import AuditPlan, DiffusionBits, Kept, LatentBits, NormalBits
from unilat.studies.prior import PriorPlan

LOGVAR = torch.tensor([-2.0, -9.0, -4.0]).view(1, 3, 1, 1) + torch.linspace(0, 1, 85 * 24).view(85, 3, 2, 4)


def test_every_row_of_the_channels_table_by_hand() -> None:
    """Kills: a shift after the scale, variance for spread, the log of the noise turned round, nats, means over places
    for sums, and a row of another channel."""
    own = subject(logvar=LOGVAR)
    channels, scaling = channels_of(own.z, LOGVAR), Scaling(torch.tensor(2.0), torch.tensor(0.5), ("scaling_factor",))
    scaling = replace(scaling, shift=scaling.shift.expand(3), factor=scaling.factor.expand(3))
    rows = record.table(channels, scaling, torch.tensor([7.5, 0.0, 3.25]))
    z = own.z.double().numpy()
    for index, row in enumerate(map(asdict, rows)):
        one = z[:, index]
        noise = LOGVAR[:, index].double().exp().mean().item()
        spread = math.sqrt(one.var(0).mean())
        kl = 0.5 * (own.z[:, index].square() + LOGVAR[:, index].exp() - 1 - LOGVAR[:, index]).double()
        expected = {
            "channel": index,
            "mean": one.mean(),
            "std": one.std(),
            "spread": spread,
            "scaled_mean": (one.mean() - 2) / 2,
            "scaled_std": one.std() / 2,
            "bits": [7.5, 0.0, 3.25][index],
            "posterior_kl_bits": float(kl.flatten(1).sum(1).mean()) / math.log(2),
            "capacity_bits_per_number": 0.5 * math.log2(1 + spread**2 / noise),
        }
        level = row.pop("own_level")
        assert row.pop("dead") is (index == 1)
        assert level is None if index == 1 else level == pytest.approx(math.log(one.var() / noise), rel=1e-4)
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_what_was_audited_is_counted() -> None:
    """Kills: latents told as trained on that were held out, and numbers of a latent told as pixels."""
    found = record.about(subject())
    counts = ("latents", "trained_on", "held_out", "dimensions", "pixels")
    assert [getattr(found, name) for name in counts] == [85, 60, 25, 24, 60]
    assert found.latent == (3, 2, 4) and found.sha256 == "beef" and found.kind == "AutoencoderMadeUp"
    assert found.pictures == record.Shown(source="made up", sha256="feed") and found.posterior is False
    assert found.declared == {"scaling_factor": 0.5, "shift_factor": 2.0}
    alone = record.about(subject(known=False))
    assert (alone.kind, alone.pictures, alone.sha256, alone.declared) == ("an array", None, None, {})
    assert isinstance(subject().model, Model) and len(pictures()) == 85


def test_the_protocol_tells_the_plans_own_numbers() -> None:
    """Kills: the highest noise told for the lowest, latents seen told as latents there are, another count of those that
    are measured, and the rule of dead channels without a posterior told where there is one."""
    plan = AuditPlan(lambda_0=4.0, lambda_min=-8.0, levels=3, seed=6, prior=PriorPlan(samples=1640))
    line = record.protocol(plan, subject(logvar=LOGVAR), 2, prior="network")
    for words in (
        "over all 85, with noise of log-SNR 4 added",
        "width 192 and 4 blocks, patch 2, that saw 1,640 latents of 60",
        "on 25 others at 3 noise levels each, down to log-SNR -8; seed 6",
        "(mode of the posterior)",
    ):
        assert words in line["bits"]
    assert "less than 0.01 bits" in line["channels"] and "plain Gaussian" not in line["bits"]
    other = record.protocol(plan, subject(known=False), 2, prior="Gaussian")
    assert "less than 1e-06 of its own size" in other["channels"] and "plain Gaussian" in other["bits"]
    assert "are under N(0, I), which needs" in record.protocol(plan, subject(), 2, prior="normal")["bits"]
    assert set(line) - set(other) == {"normal.posterior", "psnr"}


def test_copies_that_were_left_out_are_told() -> None:
    """Kills: latents that are in neither set and nobody says so, and a line about copies where there are none."""
    whole = subject(known=False)
    channels = channels_of(whole.z)
    assert not any("equal" in line for line in record.unknown(whole, channels))
    less = replace(whole, train=whole.train[:-7], copies=7)
    assert any("7 latents equal another" in line for line in record.unknown(less, channels))
    assert record.about(less).copies == 7 and record.about(whole).copies == 0
    lines = [record.protocol(AuditPlan(), one, 1, prior="network")["bits"] for one in (whole, less)]
    assert "over all 85, with" in lines[0] and "over all 78 that differ, with" in lines[1]


def test_faint_channels_are_told_as_not_known() -> None:
    """Kills: a channel a thousand times narrower than another that passes without a word, another's number, and the
    same where its noise is known."""
    whole = subject(known=False)
    assert not any("widest" in line for line in record.unknown(whole, channels_of(whole.z)))
    z = whole.z * torch.tensor([1.0, 1.0, 1e-4]).view(1, 3, 1, 1)
    (line,) = (line for line in record.unknown(whole, channels_of(z)) if "widest" in line)
    assert line.startswith("Channel 2 varies by less than 0.001 of the widest channel.")
    known = record.unknown(whole, channels_of(z, torch.full_like(z, -30.0)))
    assert not any("widest" in line for line in known)


def test_findings_are_written_under_the_keys_that_readers_know() -> None:
    """audit.json as it was before findings were records. Kills: a number under another's key or in another unit's row,
    a key of what was not measured, a standard error that is lost, and protocols told twice."""
    bits = LatentBits(
        per_latent=Number(value=1.0, stderr=0.1, n=5, unit="a", protocol="p"),
        per_dimension=Number(value=2.0, stderr=0.2, n=6, unit="b", protocol="p"),
        per_pixel=Number(value=3.0, stderr=0.3, n=7, unit="c", protocol="p"),
        seen_per_latent=4.0,
    )
    noisy = LatentBits(per_latent=Number(value=5.0), per_dimension=Number(value=6.0))
    kept = Kept(
        psnr=Number(value=7.0, stderr=0.7, n=8, unit="dB"), above_mean=9.0, kernel=Number(value=10.0, protocol="k")
    )
    own = subject()
    found = record.Findings(
        subject=record.about(own),
        normal=NormalBits(posterior=bits, noisy=noisy),
        diffusion=DiffusionBits(bits=bits, prior="Gaussian"),
        kept=kept,
        faults=(Fault("dead", "says", "change", (1,)),),
        sentence="says change",
        unknown=("a line",),
        channels=(),
        protocol={"bits": "p"},
        plan=AuditPlan(),
        manifest=machine(),
    )
    tree = json.loads(json.dumps(found.to_json()))
    rows = {
        "per_latent": {"value": 1.0, "stderr": 0.1, "n": 5, "unit": "a"},
        "per_dimension": {"value": 2.0, "stderr": 0.2, "n": 6, "unit": "b"},
        "per_pixel": {"value": 3.0, "stderr": 0.3, "n": 7, "unit": "c"},
        "seen_per_latent": 4.0,
    }
    assert tree["bits"] == rows == tree["normal"]["posterior"] and tree["prior"] == "Gaussian"
    assert {name: row["value"] for name, row in tree["normal"]["noisy"].items()} == {
        "per_latent": 5.0, "per_dimension": 6.0
    }  # fmt: skip
    assert tree["psnr"] == {"value": 7.0, "stderr": 0.7, "n": 8, "unit": "dB", "above_mean": 9.0}
    assert (tree["kernel"]["value"], tree["kernel"]["protocol"]) == (10.0, "k")
    assert tree["faults"] == [{"kind": "dead", "says": "says", "change": "change", "channels": [1]}]
    assert (tree["sentence"], tree["unknown"], tree["channels"]) == ("says change", ["a line"], [])
    assert tree["protocol"] == {"bits": "p"} and tree["plan"]["lambda_0"] == 5.0 and tree["manifest"]["threads"] == 1
    assert tree["subject"]["latent"] == [3, 2, 4] and tree["subject"]["pictures"]["sha256"] == "feed"
    less = replace(found, kept=None, normal=NormalBits(posterior=None, noisy=noisy)).to_json()
    assert not {"psnr", "kernel"} & less.keys() and less["normal"]["posterior"] is None  # type: ignore[index]
    line = record.measured_by(bits, "q")
    assert {line.per_latent.protocol, line.per_dimension.protocol, line.per_pixel and line.per_pixel.protocol} == {"q"}
    assert line.per_latent.value == 1.0 and line.seen_per_latent == 4.0
