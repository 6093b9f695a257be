"""`make bench-audit`: does an audit of somebody else's latents tell the truth, and does it find what is wrong?

An ``AutoencoderKL`` of diffusers' own class is trained here on Fashion-MNIST with latent diffusion's loss (squared
error and a small KL term). Three faults are planted in copies of it, through weights alone, and every copy is audited
as a user would: the folder that ``save_pretrained`` wrote. Gaussian latents, whose rate is known, are audited
beside them.
"""

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from common import ROOT, row, write
from torch import Tensor
from torch.nn.functional import mse_loss

from unilat.maths.oracle import Gaussian
from unilat.maths.rate import LN2
from unilat.nets.vit import ViTConfig
from unilat.signals import load, to_unit
from unilat.studies.audit import Audit, AuditPlan, audit
from unilat.studies.prior import PriorPlan
from unilat.training.order import batch_indices

RUNS = ROOT / "runs" / "bench-audit"
KL_WEIGHT = 1e-3
PLANTED = ("dead", "scale", "collapsed")
SIZES = {"block_out_channels": (16, 32, 32), "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 8}


def trained(steps: int, batch: int, train: Tensor) -> Path:
    """The folder of the unspoilt model: squared error and KL, sums over each picture, one Adam."""
    from diffusers import AutoencoderKL

    folder = RUNS / "clean"
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(0)
    model = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=False,
        **SIZES,
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, step / 100, 2.0 * (1.0 - step / steps))
        x = to_unit(train[batch_indices(len(train), batch, 0, step)])
        posterior = model.encode(x).latent_dist
        made = model.decode(posterior.sample(torch.Generator().manual_seed(step))).sample
        loss = 0.5 * mse_loss(made, x, reduction="sum") / batch + KL_WEIGHT * posterior.kl().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        if step % 100 == 0:
            nats = float(posterior.kl().detach().mean())
            print(f"step {step} of {steps}: loss {float(loss.detach()):.4g}, KL {nats:.4g} nats")
    with torch.no_grad():  # latent diffusion's scaling factor: one number, from all of the data it has at hand
        z = torch.cat([model.encode(to_unit(part)).latent_dist.mode() for part in train[:4000].split(250)])
    model.register_to_config(scaling_factor=float(1.0 / z.std()))
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def spoilt(clean: Path, kind: str) -> Path:
    """A copy of the model with one fault; the decoder is told of a scale, so that its pictures stay the same."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(clean)
    channels = model.config.latent_channels
    weight, bias = model.quant_conv.weight, model.quant_conv.bias
    mean, logvar = slice(0, channels), slice(channels, 2 * channels)
    if kind == "dead":  # channel 1 becomes its own prior, N(0, 1), whatever the picture
        for index in (1, channels + 1):
            weight[index], bias[index] = 0.0, 0.0
    elif kind == "scale":
        weight[mean] *= 10.0
        bias[mean] *= 10.0
        bias[logvar] += 2.0 * math.log(10.0)
        model.post_quant_conv.weight /= 10.0
    else:  # the posterior is the prior: means near 0, variance 1
        weight[mean] *= 1e-3
        bias[mean] *= 1e-3
        weight[logvar], bias[logvar] = 0.0, 0.0
    shutil.rmtree(RUNS / kind, ignore_errors=True)
    model.save_pretrained(RUNS / kind)
    return RUNS / kind


def gaussian(correlated: bool, count: int) -> tuple[Tensor, Gaussian]:
    """Gaussian latents ``[count, 4, 4, 4]`` with channel means and scales, and the law of their standardised ones."""
    generator = torch.Generator().manual_seed(7)
    dimensions = 64
    spectrum = torch.logspace(0.8, -1.6, dimensions, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64)).Q
    covariance = basis @ torch.diag(spectrum) @ basis.T if correlated else torch.diag(spectrum.flip(0))
    mean = torch.tensor([0.0, 3.0, -1.0, 0.5], dtype=torch.float64).repeat_interleave(16)
    z = Gaussian.correlated(covariance, mean).sample(count, generator)
    scale = covariance.diagonal().reshape(4, 16).mean(1).sqrt().repeat_interleave(16)
    law = Gaussian.correlated(covariance / torch.outer(scale, scale), torch.zeros_like(mean))
    return z.float().reshape(count, 4, 4, 4), law


def one_token(samples: int) -> AuditPlan:
    """A prior that sees each Gaussian latent as one token of 64 numbers."""
    vit = ViTConfig(channels=(256,), blocks=(2,), patch=4)
    return AuditPlan(
        gaussian_up_to=0,
        prior=PriorPlan(vit=vit, samples=samples, batch=256, learning_rate=2e-3, warmup=10_000, decay=0.7),
    )


def informed(name: str, found: Audit) -> list[dict[str, Any]]:
    """Bits under both priors and PSNR of one model."""
    findings, rows = found.findings, []
    posterior, kept = findings.normal.posterior, findings.kept
    for what, one in (
        ("bits per pixel, diffusion prior", findings.diffusion.bits.per_pixel),
        ("bits per pixel, N(0, I) at the same noise", findings.normal.noisy.per_pixel),
        ("bits per pixel, KL of its posterior", posterior and posterior.per_pixel),
        ("PSNR", kept and kept.psnr),
        ("kernel distance", kept and kept.kernel),
    ):
        if one is not None and math.isfinite(one.value):
            rows.append(row(f"{name}: {what}", one.value, one.unit, stderr=one.stderr, n=one.n))
    print(f"{name}: {found.sentence}")
    return rows


def main() -> None:
    """Train, spoil, audit, write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--samples", type=int, default=60_000, help="latents that each prior sees")
    parser.add_argument("--gaussian-samples", type=int, default=100_000, help="the same for Gaussian latents")
    parser.add_argument("--pictures", type=int, default=5000)
    how = parser.parse_args()
    torch.set_num_threads(1)
    pictures = load("fashion-mnist", limit=how.pictures)
    held_out = pictures.held_out
    assert held_out is not None
    started = time.monotonic()
    clean = trained(how.steps, how.batch, pictures.images[~held_out])
    print(f"trained or read in {time.monotonic() - started:.0f} s")
    folders = {"clean": clean, **{kind: spoilt(clean, kind) for kind in PLANTED}}
    audits = {
        name: audit(folder, pictures, out=RUNS / f"audit-{name}", samples=how.samples, say=print)
        for name, folder in folders.items()
    }
    kinds = {name: [fault.kind for fault in found.faults if fault.kind in PLANTED] for name, found in audits.items()}
    rows = [
        row(f"planted fault found: {kind}", float(kind in kinds[kind]), "1 is found", goal=1, at_least=True)
        for kind in PLANTED
    ]
    channel = [fault.channels for fault in audits["dead"].faults if fault.kind == "dead"]
    rows.append(
        row("the dead channel is named, and no other", float(channel == [(1,)]), "1 is so", goal=1, at_least=True)
    )
    rows.append(row("unspoilt model: faults of these three kinds told", float(len(kinds["clean"])), "faults", goal=0))
    wrong = sum(len(set(kinds[kind]) - {kind}) for kind in PLANTED)
    rows.append(row("spoilt models: faults of these kinds that were not planted", float(wrong), "faults", goal=0))
    for correlated, how_fitted in ((False, None), (True, None), (True, one_token(how.gaussian_samples))):
        z, law = gaussian(correlated, 20_000)
        kind = "correlated" if correlated else "independent, unequal variances"
        prior = "one-token prior" if how_fitted else "default prior"
        where = RUNS / f"gaussian-{correlated}-{prior.split()[0]}"
        found = audit(z, out=where, plan=how_fitted, samples=None if how_fitted else how.gaussian_samples, say=print)
        truth = law.rate_nats(-10.0, 5.0) / LN2
        bits = found.findings.diffusion.bits.per_latent
        name = f"Gaussian latents, 64 dimensions, {kind}, {prior}"
        off, error = bits.value / truth - 1, (bits.stderr or 0.0) / truth
        rows.append(row(f"{name}: bits / closed form − 1", off, "", goal=(-0.01, 0.01), stderr=error, n=bits.n))
        rows.append(row(f"{name}: closed form", truth, "bits per latent"))
    for name, found in audits.items():
        rows += informed(name, found)
    for name, found in audits.items():
        print(name, json.dumps([fault.says for fault in found.faults], ensure_ascii=False))
    print(write("audit", protocol(how, audits["clean"]), rows))


def protocol(how: argparse.Namespace, clean: Audit) -> str:
    """What was done, for the head of the result."""
    return (
        f"AutoencoderKL of diffusers ({SIZES['block_out_channels']} channels, latent 4 × 8 × 8), trained on "
        f"Fashion-MNIST 32 × 32 with ½ squared error + {KL_WEIGHT:g} KL (sums over a picture) for {how.steps:,} steps "
        f"of {how.batch}; scaling_factor = 1 / standard deviation of its latents. Faults planted in copies through "
        "quant_conv and post_quant_conv: channel 1 made N(0, 1); means ten times as large and the decoder "
        "told; means × 0.001 with variance 1. "
        f"Audits: {how.pictures:,} pictures. Bits: {clean.findings.protocol['bits']}. Gaussian latents: 20,000 of "
        f"4 × 4 × 4, the same defaults with {how.gaussian_samples:,} samples, "
        "or one-token: a ViT of width 256, 2 blocks, patch 4, and no Gaussian beside it; closed form of the "
        "standardised law (maths.oracle.Gaussian)."
    )


if __name__ == "__main__":
    main()
