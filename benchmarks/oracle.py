"""Bits against closed forms: an exact denoiser, a prior trained by our own networks, and the estimate's variance."""

import math
from typing import Any

import torch
from common import row

from unilat.maths.levels import Draws, Levels, rate_table, uniform
from unilat.maths.noise import diffuse
from unilat.maths.oracle import Gaussian
from unilat.maths.rate import LN2, rate_terms
from unilat.nets.denoiser import Denoiser
from unilat.nets.vit import ViT, ViTConfig

MINIMUM, LAMBDA_0 = -10.0, 5.0
Rows = list[dict[str, Any]]


def _bits(source: Gaussian, z: torch.Tensor, levels: Levels, noise: torch.Tensor, denoise: Any = None) -> torch.Tensor:
    """Bits per dimension of each row of ``z``, one level each."""
    z_hat = (denoise or source.denoise)(diffuse(z, noise, levels.lambda_t), levels.lambda_t, None)
    return rate_terms(z, z_hat, levels, MINIMUM).nats() / LN2 / z[0].numel()


def exact_denoiser() -> Rows:
    """A unit Gaussian of 1,024 dimensions under its own posterior mean: 3.611582 bits per dimension (derivation.md)."""
    source = Gaussian(torch.ones(1024), torch.zeros(1024))
    table, values = rate_table(MINIMUM, LAMBDA_0), []
    for index in range(400):
        draws = Draws.keyed(0, index, 0, 64)
        z = draws.normal(torch.empty(64, 1024))
        values.append(_bits(source, z, table.sample(draws.strata(64)), draws.normal(z)).mean())
    found = torch.stack(values).double()
    mean, stderr = float(found.mean()), float(found.std() / math.sqrt(len(found)))
    limits = (3.611582 - 3 * stderr, 3.611582 + 3 * stderr)
    return [
        row(
            "unit Gaussian, exact denoiser, λ₀ = 5 (3.611582 within 3 s.e.)",
            mean,
            "bits per dimension",
            goal=limits,
            stderr=stderr,
            n=400 * 64,
        ),
        row("its relative standard error", stderr / mean, "", goal=0.001),
    ]


def correlated_gaussian(steps: int = 3000, batch: int = 256) -> Rows:
    """A prior trained on 16 correlated dimensions (4 positions of 4 channels), held against the closed form."""
    torch.manual_seed(0)
    mixing = torch.randn(16, 16, generator=torch.Generator().manual_seed(1)) / 4
    source = Gaussian.correlated(mixing @ mixing.T + 0.02 * torch.eye(16), torch.zeros(16))
    prior = Denoiser(ViT(ViTConfig(channels=(96,), blocks=(2,), patch=4), 4, 1), 1)
    averaged = {name: value.clone() for name, value in prior.state_dict().items()}
    optimiser = torch.optim.AdamW(prior.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0)
    table, root = rate_table(MINIMUM, LAMBDA_0), torch.linalg.cholesky(mixing @ mixing.T + 0.02 * torch.eye(16))
    for step in range(steps):
        draws = Draws.keyed(2, step, 0, batch)
        z = (draws.normal(torch.empty(batch, 16)) @ root.T).view(batch, 4, 4)
        loss = _bits(source, z, table.sample(draws.strata(batch)), draws.normal(z), prior).mean()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * min(1, 2 * (1 - step / steps))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for name, value in prior.state_dict().items():
            averaged[name].lerp_(value, 0.01)
    prior.load_state_dict(averaged)
    values = []
    with torch.no_grad():
        for index in range(200):
            draws = Draws.keyed(3, index, 0, 1024)
            z = (draws.normal(torch.empty(1024, 16)) @ root.T).view(1024, 4, 4)
            levels, noise = table.sample(draws.strata(1024)), draws.normal(z)
            exact = _bits(source, z.flatten(1), levels, noise.flatten(1)).mean()
            values.append(_bits(source, z, levels, noise, prior).mean() - exact)
    # the exact denoiser on the same draws is a control variate: its own mean is the closed form
    slack = torch.stack(values).double()
    truth = float(source.rate_nats(MINIMUM, LAMBDA_0)) / LN2 / 16
    off, stderr = float(slack.mean()) / truth, float(slack.std() / math.sqrt(len(slack))) / truth
    what = (
        f"prior trained {steps:,} steps on a correlated Gaussian, 16 dimensions: above {truth:.4f} bits a dimension by"
    )
    return [row(what, off, "of it", goal=(-0.005, 0.005), stderr=stderr, n=200 * 1024)]


def variance_ratio(batches: int = 400) -> Rows:
    """Independent uniform levels against ours at equal calls: unit Gaussian, 1,024 dimensions, batches of 64."""
    source, table, found = Gaussian(torch.ones(1024), torch.zeros(1024)), rate_table(MINIMUM, LAMBDA_0), {}
    for name in ("independent", "ours"):
        means = []
        for index in range(batches):
            draws = Draws.keyed(4, index, 0, 64)
            z = draws.normal(torch.empty(64, 1024))
            levels = (
                uniform(draws.uniform(64), MINIMUM, LAMBDA_0)
                if name == "independent"
                else table.sample(draws.strata(64))
            )
            means.append(_bits(source, z, levels, draws.normal(z)).mean())
        found[name] = torch.stack(means).double()
    ratio = float(found["independent"].var() / found["ours"].var())
    share = {name: float(values.std() / values.mean()) for name, values in found.items()}
    return [
        row("relative standard error of one batch, independent uniform levels", share["independent"], "", n=batches),
        row(
            "relative standard error of one batch, low-discrepancy importance levels (ours)",
            share["ours"],
            "",
            n=batches,
        ),
        row(
            "variance of the rate estimate, independent / ours",
            ratio,
            "ratio",
            goal=80.0,
            at_least=True,
            stderr=ratio * math.sqrt(4 / batches),
            n=batches,
        ),
    ]
