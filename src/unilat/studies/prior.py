"""A diffusion prior fitted on frozen latents: the bound that these latents carry, as tight as we can make it.

    R(z) = ½ ∫_{λ_min}^{λ₀} e^λ E‖z − ẑ(z_λ, λ)‖² dλ  +  KL[ N(α₁ z, σ₁²) ‖ N(0, 1) ]     weight 1, latents frozen

A better prior can only bring R nearer to I(x; z_0). Fitted from an existing prior, the new one begins exactly there.
"""

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from unilat.maths.levels import Table, rate_table
from unilat.maths.rate import RateTerms
from unilat.maths.seeds import key
from unilat.nets.denoiser import Denoiser
from unilat.nets.gaussian import GaussianDenoiser, LatentDenoiser
from unilat.nets.vit import ViT, ViTConfig
from unilat.run.rate import measure_rate
from unilat.run.records import OnStep
from unilat.run.stages import prior_stage
from unilat.training.engine import fit
from unilat.training.plan import Schedule
from unilat.types import Denoiser as Denoise
from unilat.types import UserError


@dataclass(frozen=True, kw_only=True)
class PriorPlan:
    """A prior and how it is fitted."""

    vit: ViTConfig = field(default_factory=lambda: ViTConfig(channels=(192,), blocks=(4,)))
    """The network; with ``start``, the one that is added to it."""
    covariance_up_to: int = 0
    """Most numbers a latent may have for the prior to begin as the exact denoiser of their whole Gaussian; 0 never."""
    samples: int = 200_000
    """Latents seen."""
    batch: int = 128
    """Latents per step."""
    learning_rate: float = 1e-3
    """Largest learning rate."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """muon: orthogonal steps for the network's inner matrices, AdamW for the rest. adamw: for all."""
    warmup: int = 5_000
    """Latents over which it rises."""
    decay: float = 0.5
    """Share of the fit over which it falls to 0."""
    ema_halflife: float = 5_000
    """Half-life of the averaged weights, in latents."""
    seed: int = 0
    """Seed of weights, order and noise."""

    @property
    def schedule(self) -> Schedule:
        """The engine's schedule."""
        return Schedule(
            batch=self.batch,
            samples=self.samples,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            warmup=self.warmup,
            decay=self.decay,
            ema_halflife=self.ema_halflife,
            clip=1.0,
            save_every=200,
        )


class Both(nn.Module):
    """The sum of two networks behind one denoiser: ``start``, and a ``correction`` whose head starts at zero."""

    def __init__(self, start: nn.Module, correction: nn.Module):
        super().__init__()
        self.start, self.correction = start, correction

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: None = None) -> Tensor:
        return self.start(x_t, logsnr, cond) + self.correction(x_t, logsnr, cond)


def new_prior(z: Tensor, plan: PriorPlan, start: LatentDenoiser | None = None) -> LatentDenoiser:
    """A prior for ``z [N, C, *grid]``, untrained; with ``start`` a larger one that equals it exactly for now."""
    axes, channels = z.dim() - 2, z.shape[1]
    fold = plan.vit.patch * 2 ** (len(plan.vit.channels) - 1)
    if any(side % fold for side in z.shape[2:]):
        raise UserError(f"a prior that folds {fold} positions cannot take latents of {list(z.shape[1:])}: lower patch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(plan.seed, "prior"))
        net = ViT(plan.vit, channels, axes)
    if start is None and math.prod(z.shape[1:]) <= plan.covariance_up_to:
        prior = GaussianDenoiser(net, tuple(z.shape[1:]))
        prior.follow(z)
        return prior
    if start is None:
        flat = z.transpose(0, 1).flatten(1)
        return Denoiser(net, axes, flat.mean(1), flat.std(1).clamp_min(0.01))
    larger = copy.deepcopy(start).to("cpu").requires_grad_(True)
    larger.net = Both(larger.net, net)
    return larger


def fit_prior(
    z: Tensor,
    plan: PriorPlan,
    folder: Path,
    *,
    lambda_0: float = 5.0,
    lambda_min: float = -10.0,
    start: LatentDenoiser | None = None,
    progress: OnStep | None = None,
    device: str = "auto",
) -> LatentDenoiser:
    """Fit a prior on latents ``z`` float32 ``[N, C, *grid]`` of 1, 2 or 3 axes; averaged weights, in eval mode.

    Goes on from the newest checkpoint in ``folder``; a finished fit is only read. With ``start`` the fitted model is
    ``start`` plus a new network that begins at zero, both trained, so the fit begins at start's own bound. ``start``
    itself stays as it is. Raises :class:`UserError` for latents that are not finite or of no known shape, and for a
    folder of another fit.
    """
    if not (3 <= z.dim() <= 5 and len(z) > 1 and z.is_floating_point()):
        raise UserError(f"latents must be float [N, C, *grid] of 1 to 3 axes, not {z.dtype} {list(z.shape)}")
    if not bool(z.isfinite().all()):
        raise UserError("some latents are not finite: leave those out, or look at what made them")
    z = z.float()
    model = new_prior(z, plan, start)
    stage = prior_stage(model, z, lambda_0=lambda_0, lambda_min=lambda_min)
    done = fit(stage, plan.schedule, folder, plan.seed, progress=progress, device=device)
    model.load_state_dict(done.ema)
    return model.eval().requires_grad_(False)


def measure(
    z: Tensor,
    denoise: Denoise,
    *,
    lambda_0: float,
    lambda_min: float = -10.0,
    table: Table | None = None,
    levels: int = 8,
    seed: int = 0,
) -> list[RateTerms]:
    """``levels`` independent estimates of the rate of all of ``z`` under ``denoise``, nats, one level a latent each.

    ``table``: where the noise levels fall, by default by importance. Equal seeds see equal noise, so that two
    denoisers are compared pair by pair.
    """
    table = rate_table(lambda_min, lambda_0) if table is None else table
    device = next(denoise.parameters()).device if isinstance(denoise, nn.Module) else z.device
    return measure_rate(z, denoise, table, lambda_min, levels=levels, seed=seed, device=device)


def uniform_table(lambda_min: float, lambda_0: float) -> Table:
    """The other placing of noise levels: uniform in log-SNR."""
    return Table.proportional(torch.ones_like, lambda_min, lambda_0, bins=1)
