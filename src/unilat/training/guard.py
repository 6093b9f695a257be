"""Steps that must not happen: the numbers of each are judged after the gradients and before anything moves.

A step is refused where its loss, its gradient's norm or anything that is logged beside the loss is not finite, and
where the loss leaps by more than :data:`SIGMAS` standard deviations of the steps before it. It then changes no weight,
moment, average, controller or table of levels; only the count of steps goes on, so that the next has other examples.
Where these leap too, it is not the examples but the weights: training that had a bad moment finds its way back by
itself (LOG.md), so that such steps are made, where the loss lies among those that steps were made with before.
"""

import math
from collections.abc import Mapping, Sequence

from unilat.types import UserError

SIGMAS = 9.0
"""A leap: so many standard deviations from the mean of the steps before (measured: LOG.md)."""
KNOWN = 32
"""Steps that must have been made before a loss can be called a leap."""
LEAPS = 3
"""Leaps in a row after which they are no longer taken for the examples' fault."""
MEMORY = 32
"""Steps over which mean and variance of the loss are averaged."""
ABSURD = 1e15
"""A loss beyond this is no loss, whatever the steps before."""
STRIKES = 5.0
"""Refused steps in a row after which the run goes back to its last checkpoint."""
FORGIVEN = 0.05
"""Of a strike, by each step that is made: more than one step in twenty refused, for long, is too many as well."""


class Diverged(UserError):
    """Training was given up, since step after step was refused."""


class Refused(Exception):
    """A step that did not happen. ``why`` is empty where loss or norm are not finite: the examples are to be named."""

    def __init__(self, loss: float, norm: float, why: str = ""):
        super().__init__(loss, norm, why)
        self.loss, self.norm, self.why = loss, norm, why


class Guard:
    """What the loss has been like, and how often a step was refused; part of a checkpoint."""

    def __init__(self) -> None:
        self.made, self.mean, self.variance = 0, 0.0, 0.0
        self.skipped, self.strikes = 0, 0.0
        self.leaps, self.best, self.worst = 0, 0.0, 0.0

    @property
    def given_up(self) -> bool:
        """Whether too many of the last steps were refused."""
        return self.strikes >= STRIKES

    def judge(self, names: Sequence[str], means: Sequence[float], norm: float) -> None:
        """Let a step pass, or raise :class:`Refused`. ``means``: of the loss, and of what is logged as ``names``."""
        loss = means[0]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Refused(loss, norm)
        for name, value in zip(names, means, strict=True):
            if not math.isfinite(value):
                raise Refused(loss, norm, f"{name} is not finite ({value})")
        if abs(loss) > ABSURD:
            raise Refused(loss, norm, f"the loss is {loss:.3g}")
        off, usual = abs(loss - self.mean), math.sqrt(self.variance)
        if self.made < KNOWN or off <= SIGMAS * usual + 1e-6 * abs(self.mean):
            self.leaps = 0
        elif self.leaps >= LEAPS and self.best <= loss <= self.worst:
            self.strikes = 0.0
        else:
            self.leaps += 1
            far = f"{off / usual:.3g} standard deviations" if usual else "far"
            raise Refused(loss, norm, f"the loss leapt to {loss:.4g}, {far} from the {self.mean:.4g} of the last steps")

    def passed(self, loss: float) -> None:
        """A step was made, with this loss."""
        self.best, self.worst = (min(self.best, loss), max(self.worst, loss)) if self.made else (loss, loss)
        self.made += 1
        share, off = max(1 / self.made, 1 / MEMORY), loss - self.mean
        self.mean += share * off
        self.variance = (1 - share) * (self.variance + share * off * off)
        self.strikes = max(0.0, self.strikes - FORGIVEN)

    def refused(self) -> None:
        """A step was refused."""
        self.skipped += 1
        self.strikes += 1.0

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return dict(vars(self))

    def load_state(self, state: Mapping[str, object]) -> None:
        """Become what :meth:`state` was; a checkpoint of before has nothing, and begins anew."""
        for name, begun in vars(Guard()).items():
            value = state.get(name, begun)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"the checkpoint is of another unilat (its guard's {name} is {value!r})")
            setattr(self, name, type(begun)(value))
