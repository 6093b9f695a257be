"""Preconditioning by a whole covariance: a denoiser that starts as the exact one of a correlated Gaussian.

For data of mean m and covariance ``C = U diag(c) Uᵀ``, with ``y = Uᵀ (z_t − α m)`` and c₀ the mean of c,

    ẑ = m + U ( α c / (α² c + σ²) · y ) + σ √(c₀ / v₀) · F( (z_t − α m) / √v₀, λ + ln c₀, cond ),   v₀ = α² c₀ + σ²

so with F = 0 it is the posterior mean of N(m, C) (``maths/oracle.py``); for C = c₀ I it is
:class:`~unilat.nets.denoiser.Denoiser`. What a network would spend its first thousands of steps on, the second moments
of all pairs, is then known from the first. F works on the plain grid: in whitened coordinates it learned less (LOG.md).
"""

import math

import torch
from torch import Tensor, nn

from unilat.maths.noise import alpha, sigma
from unilat.nets.condition import Condition
from unilat.nets.denoiser import Denoiser, call, kept

LEAST = 1e-4
"""Smallest eigenvalue, as a share of their mean."""


class GaussianDenoiser(nn.Module):
    """Wrap ``net(x_t, logsnr, cond)`` for data ``[B, *shape]``; it starts with N(0, I), see :meth:`follow`."""

    mean: Tensor
    covariance: Tensor

    def __init__(self, net: nn.Module, shape: tuple[int, ...], precision: torch.dtype = torch.float32):
        super().__init__()
        self.net, self.precision = net, precision
        size = math.prod(shape)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("covariance", torch.eye(size))
        self._known: tuple[tuple[int, int], Tensor, Tensor] | None = None

    @torch.no_grad()
    def follow(self, z: Tensor, share: float = 1.0) -> None:
        """Move mean and covariance by ``share`` to those of ``z [N, *shape]``; of fewer than 2 D only the variances."""
        flat = z.flatten(1).to(self.mean)
        centred = flat - flat.mean(0)
        covariance = centred.T @ centred / len(z)
        if len(z) < 2 * flat.shape[1]:
            covariance = covariance.diagonal().diag()
        self.mean.lerp_(flat.mean(0).view_as(self.mean), share)
        self.covariance.lerp_(covariance, share)

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Become the denoiser of the same data times ``scale``: the old one at λ + 2 ln scale."""
        self.mean.mul_(scale)
        self.covariance.mul_(scale**2)

    def eigen(self) -> tuple[Tensor, Tensor]:
        """``(c [D], U [D, D])`` of the covariance, computed anew whenever it has changed."""
        state = (self.covariance.data_ptr(), self.covariance._version)
        if self._known is None or self._known[0] != state:
            with torch.no_grad():
                values, basis = torch.linalg.eigh(self.covariance)
                values = values.clamp_min(LEAST * self.covariance.diagonal().mean())
            self._known = state, values, basis
        return self._known[1:]

    def forward(
        self, x_t: Tensor, logsnr: Tensor, cond: Condition | None = None, keep_BK: Tensor | None = None
    ) -> Tensor:
        values, basis = self.eigen()
        typical = values.mean()
        alpha_t, sigma_t = alpha(logsnr)[:, None], sigma(logsnr)[:, None]
        centred = x_t.flatten(1) - alpha_t * self.mean.flatten()
        share = alpha_t * values / (alpha_t.square() * values + sigma_t.square())
        exact = ((centred @ basis) * share) @ basis.T
        scale = torch.rsqrt(alpha_t.square() * typical + sigma_t.square())
        seen = (centred * scale).view_as(x_t)
        output = call(self.net, self.precision, seen, logsnr + typical.log(), cond, *kept(keep_BK))
        return self.mean + (exact + sigma_t * typical.sqrt() * scale * output.flatten(1)).view_as(x_t)


LatentDenoiser = Denoiser | GaussianDenoiser


def denoiser_of(net: nn.Module, axes: int, shape: tuple[int, ...], most: int) -> LatentDenoiser:
    """A :class:`GaussianDenoiser` where latents of ``shape`` have at most ``most`` numbers, else a plain one."""
    if shape and math.prod(shape) <= most:
        return GaussianDenoiser(net, shape)
    return Denoiser(net, axes)
