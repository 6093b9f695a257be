"""Where noise levels fall, and the randomness they and everything else of a step are drawn from.

A loss is an integral over lambda; a sampler of levels only says where its samples fall. So each returns ``Levels``:
the levels *and* their density, by which every estimate divides. Any density that is positive on the range is unbiased;
a good one has little variance. Levels are made from ``strata``: numbers in [0, 1), evenly spread over the whole batch.

``Draws`` draws for the *global* batch and hands out its own rows, so the number of processes changes nothing.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unilat.types import UserError

_BELOW_ONE = 1.0 - 2.0**-24


@dataclass(frozen=True, eq=False)
class Levels:
    """Noise levels with the density they were drawn from, one per example."""

    lambda_t: Float[Tensor, " b"]
    """log-SNR, ``[B]``."""
    density: Float[Tensor, " b"]
    """p(lambda_t) in 1 / unit of log-SNR, ``[B]``; integrates to one over the range."""


@dataclass(frozen=True)
class Draws:
    """Randomness for rows ``first .. first + B`` of a global batch of ``total`` examples.

    Each call draws ``total`` rows and returns its own, so processes that make the same calls in the same order get
    together exactly what one process would.
    """

    generator: torch.Generator
    """State that each call advances; the same on every process."""
    first: int
    """Index of the first own row in the global batch."""
    total: int
    """Examples in the global batch."""

    @classmethod
    def single(cls, generator: torch.Generator, batch: int) -> "Draws":
        """Randomness of one process that holds the whole batch."""
        return cls(generator, 0, batch)

    @classmethod
    def keyed(cls, seed: int, step: int, first: int, total: int, device: str = "cpu") -> "Draws":
        """Randomness that is a pure function of ``(seed, step)``, so that a resumed run equals an unbroken one."""
        digest = hashlib.blake2b(f"unilat {seed} {step}".encode(), digest_size=8).digest()
        generator = torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
        return cls(generator, first, total)

    def _own(self, rows: Tensor, batch: int) -> Tensor:
        if self.first < 0 or self.first + batch > self.total:
            raise UserError(f"rows {self.first} to {self.first + batch} are not in a global batch of {self.total}")
        return rows[self.first : self.first + batch]

    def normal(self, like: Float[Tensor, "b *dims"]) -> Float[Tensor, "b *dims"]:
        """Standard normal noise of ``like``'s shape, dtype and device."""
        dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
        shape = (self.total, *like.shape[1:])
        noise = torch.randn(shape, generator=self.generator, device=self.generator.device, dtype=dtype)
        return self._own(noise, like.shape[0]).to(like)

    def uniform(self, batch: int) -> Float[Tensor, " b"]:
        """Independent numbers in [0, 1), ``[batch]``."""
        numbers = torch.rand(self.total, generator=self.generator, device=self.generator.device)
        return self._own(numbers, batch)

    def strata(self, batch: int) -> Float[Tensor, " b"]:
        """Low discrepancy over the global batch: lattice ``u = (u_0 + perm(i)) / total``, folded to ``1 - |1 - 2u|``.

        Each number alone is uniform on [0, 1) and no row is tied to a place; together they leave no gap, 2 in every
        2/total. The fold (the baker's transform) pairs offsets u_0 and 1 - u_0, so that integrands which differ between
        the ends of the range, as all of ours do, lose the lattice's first-order error. The lattice is VDM's, App. I.1.
        Relative standard error of the rate in one batch of 64, unit Gaussian of 1024 dimensions, uniform levels:
        15 % independent, 1.6 % lattice, 0.84 % folded.
        """
        device = self.generator.device
        offset = torch.rand((), generator=self.generator, device=device)
        places = torch.randperm(self.total, generator=self.generator, device=device)
        lattice = (places + offset) / self.total
        return self._own((1.0 - (1.0 - 2.0 * lattice).abs()).clamp(max=_BELOW_ONE), batch)


def _check_range(lambda_min: float, lambda_max: float) -> None:
    if not lambda_min < lambda_max:
        raise UserError(f"the lowest log-SNR {lambda_min} must lie below the highest {lambda_max}")


def uniform(strata: Float[Tensor, " b"], lambda_min: float, lambda_max: float) -> Levels:
    """Uniform on [lambda_min, lambda_max]: ``lambda = lambda_min + u (lambda_max - lambda_min)``."""
    _check_range(lambda_min, lambda_max)
    length = lambda_max - lambda_min
    return Levels(lambda_min + strata * length, torch.full_like(strata, 1.0 / length))


def truncated_logistic(
    strata: Float[Tensor, " b"], location: float, scale: float, lambda_min: float, lambda_max: float
) -> Float[Tensor, " b"]:
    """Quantiles of the logistic distribution cut to [lambda_min, lambda_max], ``[B]`` (UL App. B).

    ``lambda = location + scale logit(F_min + u (F_max - F_min))`` with ``F(lambda) = sigmoid((lambda - location) /
    scale)``; its survival function ``P(lambda_end > lambda)`` is a sigmoid that falls around ``location``.
    """
    _check_range(lambda_min, lambda_max)
    low, high = (1 / (1 + math.exp((location - end) / scale)) for end in (lambda_min, lambda_max))
    share = low + strata.double() * (high - low)
    return (location + scale * torch.logit(share)).clamp(lambda_min, lambda_max).to(strata)


@dataclass(frozen=True, eq=False)
class Table:
    """A density on a range of log-SNR that is constant on each bin; sampled by inverting its distribution function."""

    edges: Float[Tensor, " k_plus_1"]
    """Increasing bin borders, ``[K + 1]``, float64."""
    mass: Float[Tensor, " k"]
    """Probability of each bin, ``[K]``, float64, adds up to one."""

    def __post_init__(self) -> None:
        if self.edges.numel() != self.mass.numel() + 1:
            raise UserError(f"{self.mass.numel()} bins need one border more than that, not {self.edges.numel()}")
        if not bool((self.edges.diff() > 0).all()):
            raise UserError("bin borders must increase")
        if not bool((self.mass >= 0).all()) or abs(float(self.mass.sum()) - 1.0) > 1e-6:
            raise UserError("the bins' probabilities must be at least 0 and add up to 1")

    @classmethod
    def proportional(
        cls,
        function: Callable[[Tensor], Tensor],
        lambda_min: float,
        lambda_max: float,
        bins: int = 64,
        floor: float = 0.1,
    ) -> "Table":
        """Mass of each bin = ``(1 - floor)`` times the share of ``function``'s integral + ``floor / bins``.

        ``function`` maps log-SNR ``[N]`` to non-negative ``[N]``. The floor bounds every weight 1/p by
        ``range / floor``, so that a wrong guess of the integrand costs little.
        """
        _check_range(lambda_min, lambda_max)
        edges = torch.linspace(lambda_min, lambda_max, bins + 1, dtype=torch.float64, device="cpu")
        inside = (torch.arange(8, dtype=torch.float64, device="cpu") + 0.5) / 8
        points = edges[:-1, None] + edges.diff()[:, None] * inside
        share = function(points.flatten()).to(torch.float64).reshape(bins, 8).mean(1)
        return cls(edges, (1.0 - floor) * share / share.sum() + floor / bins)

    def sample(self, strata: Float[Tensor, " b"]) -> Levels:
        """Levels at the quantiles ``strata`` (in [0, 1)): ``[B]``, in strata's dtype and on its device."""
        edges, mass = self.edges.to(strata.device), self.mass.to(strata.device)
        upto = torch.cumsum(mass, 0)
        upto = upto / upto[-1]
        quantile = strata.to(mass.dtype).clamp(0.0, _BELOW_ONE)
        bin_index = torch.searchsorted(upto, quantile, right=True)
        within = (quantile - (upto - mass)[bin_index]) / mass[bin_index]
        width = edges.diff()[bin_index]
        lambda_t = edges[bin_index] + within.clamp(0.0, 1.0) * width
        return Levels(lambda_t.to(strata), (mass[bin_index] / width).to(strata))


def weighted_table(bias: float, lambda_min: float, lambda_max: float) -> Table:
    """For a weight sigmoid(bias - lambda): along its product with the even error of unit-variance data, floored."""
    return Table.proportional(
        lambda lambda_t: torch.sigmoid(bias - lambda_t) * torch.sigmoid(lambda_t), lambda_min, lambda_max
    )


def rate_table(lambda_min: float, lambda_0: float) -> Table:
    """Importance sampling of the rate: density along sigmoid(lambda), floored.

    The integrand of a unit Gaussian is ``e^lambda mmse = e^lambda sigmoid(-lambda) = sigmoid(lambda)``, and the best
    density follows the root mean square of the integrand, which over many dimensions is the integrand itself. The
    floor keeps latents of another scale cheap: without it, standard deviation 10 has 15 times the error.
    """
    return Table.proportional(torch.sigmoid, lambda_min, lambda_0, bins=256)
