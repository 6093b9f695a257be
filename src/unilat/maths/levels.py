"""Where noise levels fall.

A loss is an integral over lambda; a sampler of levels only says where its samples fall. So each returns ``Levels``:
the levels *and* their density, by which every estimate divides. Any density that is positive on the range is unbiased;
a good one has little variance. Levels are made from ``strata``: numbers in [0, 1), evenly spread over the whole batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unilat.maths.seeds import BELOW_ONE
from unilat.types import UserError


@dataclass(frozen=True, eq=False)
class Levels:
    """Noise levels with the density they were drawn from, one per example."""

    lambda_t: Float[Tensor, " b"]
    """log-SNR, ``[B]``."""
    density: Float[Tensor, " b"]
    """p(lambda_t) in 1 / unit of log-SNR, ``[B]``; integrates to one over the range."""


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
    _there: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = field(init=False, repr=False, default_factory=dict)

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

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Edges and mass on ``device``, brought there once."""
        return self._on(device)[:2]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Edges, mass and the mass up to each edge, added up where the table is: a GPU adds up in any order."""
        if device == self.mass.device:
            return self.edges, self.mass, torch.cumsum(self.mass, 0)
        if device not in self._there:
            kept = self.edges, self.mass, torch.cumsum(self.mass, 0)
            self._there[device] = kept[0].to(device), kept[1].to(device), kept[2].to(device)
        return self._there[device]

    def sample(self, strata: Float[Tensor, " b"]) -> Levels:
        """Levels at the quantiles ``strata`` (in [0, 1)): ``[B]``, in strata's dtype and on its device."""
        edges, mass, upto = self._on(strata.device)
        upto = upto / upto[-1]
        quantile = strata.to(mass.dtype).clamp(0.0, BELOW_ONE)
        bin_index = torch.searchsorted(upto, quantile, right=True)
        within = (quantile - (upto - mass)[bin_index]) / mass[bin_index]
        width = edges.diff()[bin_index]
        lambda_t = edges[bin_index] + within.clamp(0.0, 1.0) * width
        return Levels(lambda_t.to(strata), (mass[bin_index] / width).to(strata))

    def density(self, lambda_t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """p at any levels of the range, ``[B]``."""
        edges, mass = self.on(lambda_t.device)
        return (mass / edges.diff()).to(lambda_t)[self.bins(lambda_t)]

    def bins(self, lambda_t: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Numbers of the bins that levels fall into, ``[B]``."""
        edges, _ = self.on(lambda_t.device)
        return torch.bucketize(lambda_t.detach(), edges[1:-1].to(lambda_t), right=True)


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
