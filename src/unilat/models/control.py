"""From a target rate to a loss factor: the user names the bits, a PI controller finds the weight.

With the measured rate r smoothed over a few batches and the target rate r*, each step

    e = ln(r* / (g r)),   I += gain · samples · e,   ln c_lf = I + proportional · e

where g, the generalisation ratio, is what the averaged weights need on pictures kept out of training over what the
running weights need on training pictures. A rate that is held on training batches alone drifts from the rate of the
model that is kept: averaging the weights lowers it, overfitting raises it.

A PI controller that holds a VAE's KL at a set point is ControlVAE's (Shao et al., ICML 2020, arXiv 2004.05988), which
moves the weight of the KL; that a constraint instead of a weight is what a user means is GECO's (Rezende and Viola,
2018, arXiv 1810.00597), which holds the reconstruction and lets the KL fall. Here the rate is held, as in the first, in
logarithms and per sample seen; the ratio g is ours.
"""

import math
from dataclasses import dataclass

from unilat.fields import FieldError, check_fields
from unilat.types import UserError


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Time constants count samples, so that they do not depend on the batch."""

    gain: float = 0.6
    """Rise of ln c_lf in 1,000 samples for each unit of ln(target / measured), the integral part."""
    proportional: float = 3.0
    """Units of ln c_lf at once for each unit of ln(target / measured): encoder and prior answer late, and the integral
    alone swings (measured: LOG.md)."""
    smoothing: float = 1000.0
    """Samples over which the rate is averaged."""
    start: float = 20.0
    """The loss factor at the first step."""
    limit: float = 1e4
    """Largest loss factor, and one over the smallest."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot steer; ``name`` is the field it stands under."""
        check_fields(self, name, positive=("smoothing", "start"), finite=("gain", "proportional"))
        if not 1 < self.limit < math.inf:
            raise FieldError(f"{name}.limit must be more than 1, not {self.limit}")


class RateController:
    """Holds bits per pixel at ``target``; with ``target`` None the factor stays ``fixed``.

    ``config`` has the time constants. ``log_factor`` is ln c_lf and ``integral`` its part I; ``log_rate`` is ln r,
    smoothed, None before the first batch; ``log_ratio`` is ln g.
    """

    def __init__(self, target: float | None, config: ControlConfig, fixed: float | None = None):
        if target is not None and not (math.isfinite(target) and target > 0):
            raise UserError(f"bits per pixel must be a positive number, not {target}: try `target_bpp` 0.2")
        self.target, self.config = target, config
        self.log_factor = self.integral = math.log(config.start if fixed is None else fixed)
        self.log_rate: float | None = None
        self.log_ratio = 0.0

    @property
    def factor(self) -> float:
        """The loss factor c_lf now."""
        return math.exp(self.log_factor)

    def update(self, rate: float, samples: int) -> float:
        """Take one batch's measured bits per pixel (``samples`` examples), move, and return the loss factor."""
        keep = math.exp(-samples / self.config.smoothing)
        log_rate = math.log(max(rate, 1e-9))
        self.log_rate = log_rate if self.log_rate is None else keep * self.log_rate + (1 - keep) * log_rate
        if self.target is not None:
            error = max(-0.5, min(0.5, math.log(self.target) - self.log_rate - self.log_ratio))
            limit = math.log(self.config.limit)
            self.integral = max(-limit, min(limit, self.integral + self.config.gain * samples / 1000 * error))
            self.log_factor = max(-limit, min(limit, self.integral + self.config.proportional * error))
        return self.factor

    def calibrate(self, held_out_rate: float, weight: float = 0.5) -> None:
        """Take the kept-out pictures' bits per pixel under the averaged weights; ``weight`` is that of the news."""
        if self.log_rate is not None:
            news = math.log(max(held_out_rate, 1e-9)) - self.log_rate
            self.log_ratio += weight * (max(-0.5, min(0.5, news)) - self.log_ratio)

    def at_limit(self) -> bool:
        """Whether the factor can go no further: the target rate is out of this latent's or this decoder's reach."""
        return self.target is not None and abs(self.integral) >= math.log(self.config.limit) - 1e-9

    def state(self) -> dict[str, float | None]:
        """What a checkpoint keeps."""
        return {
            "log_factor": self.log_factor,
            "integral": self.integral,
            "log_rate": self.log_rate,
            "log_ratio": self.log_ratio,
        }

    def load_state(self, state: dict[str, float | None]) -> None:
        """Go on from a checkpoint's state."""
        self.log_factor, self.integral = float(state["log_factor"] or 0), float(state["integral"] or 0)
        rate = state["log_rate"]
        self.log_rate, self.log_ratio = None if rate is None else float(rate), float(state["log_ratio"] or 0)
