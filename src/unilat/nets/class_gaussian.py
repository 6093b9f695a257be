"""Preconditioning by the means of classes: a denoiser that starts as the exact one of a Gaussian for each class.

The mean of a class is the sum of what its labels add, and all classes share one covariance ``C = U diag(c) Uᵀ``:

    z | k ~ N( m(k), C ),   m(k) = μ + Σ_f a(f, factors[k, f]);   without a class  z ~ N( μ, C₀ )

and with ``v₀ = α² c₀ + σ²``, c₀ the mean of c,

    ẑ = m + U ( α c / (α² c + σ²) · Uᵀ (z_t − α m) ) + σ √(c₀ / v₀) · F( (z_t − α m) / √v₀, (m − μ) / s, λ + ln c₀, k )

so with F = 0 it is the posterior mean of its class (``maths/oracle.py``). What a network would need hundreds of epochs
for where there are many classes of few pictures, the look of each, is known from the first step, also of pairs of
labels that never occurred. C is what classes leave over, C₀ the covariance of all, s² the mean of its eigenvalues. F is
shown the mean of the class, so that what it learns of one letter in a face it can do to another.
"""

import math

import torch
from torch import Tensor, nn

from unilat.maths.noise import alpha, sigma
from unilat.nets.condition import ClassRows, Condition
from unilat.nets.denoiser import call, kept
from unilat.nets.gaussian import LEAST

SWEEPS = 10
"""Rounds in which each factor's part of the means is fitted to what the others leave."""


class ClassGaussian(nn.Module):
    """Wrap ``net(x_t, logsnr, cond)`` for data ``[B, C, *grid]``; it starts with N(0, I), see :meth:`begin`.

    ``classes`` 0: the one Gaussian of all; else ``net`` is shown C more channels, the mean of the class.
    ``factors [classes, F]``: what each class is made of, or None.
    """

    mean: Tensor
    added: Tensor
    values: Tensor
    basis: Tensor

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, ...],
        classes: int,
        factors: Tensor | None = None,
        precision: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.net, self.precision = net, precision
        self.rows = ClassRows(classes, factors)
        size = math.prod(shape)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("added", torch.zeros(self.rows.null + 1, size))  # a(f, value); the null adds nothing
        self.register_buffer("values", torch.ones(2, size))  # c of all, and of what classes leave over
        self.register_buffer("basis", torch.eye(size).repeat(2, 1, 1))

    @torch.no_grad()
    def begin(self, z: Tensor, labels: Tensor) -> None:
        """Take means and covariances of ``z [N, *shape]`` of classes ``labels [N]``.

        What a label adds is ``Σ residuals / (n + 1)`` over its n examples, as if one more stood at the mean; the
        covariance is of residuals as they would be of an example left out: ``r / (1 − Σ_f 1 / (n_f + 1))``.
        """
        flat = z.flatten(1).double().to(self.mean.device)
        centred = flat - flat.mean(0)
        self.mean.copy_(flat.mean(0))
        self._take(0, centred)
        if self.rows.null == 0:
            return
        rows_NF = self.rows(Condition(labels.to(self.mean.device)))
        count = torch.bincount(rows_NF.flatten(), minlength=len(self.added)).double()
        added = torch.zeros_like(self.added, dtype=torch.float64)
        for _ in range(SWEEPS if self.rows.each > 1 else 1):
            for rows_N in rows_NF.T:
                rest = centred - added[rows_NF].sum(1) + added[rows_N]
                total = torch.zeros_like(added).index_add_(0, rows_N, rest)
                there = rows_N.unique()
                added[there] = total[there] / (count[there, None] + 1)
        self.added.copy_(added)
        leverage = (1 / (count[rows_NF] + 1)).sum(1, keepdim=True).clamp(max=0.9)
        self._take(1, (centred - added[rows_NF].sum(1)) / (1 - leverage))

    def _take(self, which: int, centred: Tensor) -> None:
        """The covariance of these rows; of fewer than twice as many as they have numbers, only the variances."""
        covariance = centred.T @ centred / len(centred)
        if len(centred) < 2 * centred.shape[1]:
            covariance = covariance.diagonal().diag()
        values, basis = torch.linalg.eigh(covariance)
        self.values[which] = values.clamp_min(LEAST * covariance.diagonal().mean())
        self.basis[which] = basis

    def forward(
        self, x_t: Tensor, logsnr: Tensor, cond: Condition | None = None, keep_BK: Tensor | None = None
    ) -> Tensor:
        alpha_t, sigma_t = alpha(logsnr)[:, None], sigma(logsnr)[:, None]
        if cond is None:
            mean, named = self.mean, torch.zeros(x_t.shape[0], 1, dtype=torch.bool, device=x_t.device)
        else:
            rows_BF = self.rows(cond)
            mean, named = self.mean + self.added[rows_BF].sum(1), rows_BF[:, :1] != self.rows.null
        centred = x_t.flatten(1) - alpha_t * mean
        exact, typical = (
            torch.where(named, of_class, of_all)
            for of_all, of_class in zip(self._exact(0, centred, logsnr), self._exact(1, centred, logsnr), strict=True)
        )
        scale = torch.rsqrt(alpha_t.square() * typical + sigma_t.square())
        seen = (centred * scale).view_as(x_t)
        if self.rows.null:
            added = (mean - self.mean) / self.values[0].mean().sqrt()
            seen = torch.cat([seen, added.expand(x_t.shape[0], -1).reshape(x_t.shape)], 1)
        output = call(self.net, self.precision, seen, logsnr + typical[:, 0].log(), cond, *kept(keep_BK))
        return (mean + exact + sigma_t * typical.sqrt() * scale * output.flatten(1)).view_as(x_t)

    def _exact(self, which: int, centred: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """``E[z | z_t] − m [B, D]`` under one of the covariances, and the mean c₀ of its eigenvalues ``[1]``."""
        alpha_t, sigma_t = alpha(logsnr)[:, None], sigma(logsnr)[:, None]
        values, basis = self.values[which], self.basis[which]
        share = alpha_t * values / (alpha_t.square() * values + sigma_t.square())
        return ((centred @ basis) * share) @ basis.T, values.mean()[None, None]
