"""Where the encoder puts a latent: a point, or a normal distribution whose variance is learned (UL Table 6, D)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unilat.maths.rate import added_entropy


@dataclass(frozen=True, eq=False)
class Posterior:
    """``q(z | x)``: the point ``mean``, or ``N(mean, exp(log_variance))``; both ``[B, C, *grid]``."""

    mean: Tensor
    log_variance: Tensor | None = None

    def draw(self, normal: Callable[[Tensor], Tensor]) -> Tensor:
        """A latent z; ``normal(like)`` gives standard normal noise, asked for only where a variance is learned."""
        if self.log_variance is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.log_variance) * normal(self.mean)

    def moments(self) -> Tensor | None:
        """Mean and standard deviation ``[B, 2, C, *grid]``; None of a point."""
        return None if self.log_variance is None else torch.stack([self.mean, (0.5 * self.log_variance).exp()], 1)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Posterior":
        """The same with both tensors changed alike: rows taken, repeated, moved."""
        return Posterior(change(self.mean), None if self.log_variance is None else change(self.log_variance))

    def entropy(self, lambda_0: float) -> Tensor | None:
        """What the learned variance adds to the entropy of z_0, nats per dimension; None for a point."""
        return None if self.log_variance is None else added_entropy(self.log_variance, lambda_0)
