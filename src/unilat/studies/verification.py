"""What `unilat verify RUN` finds, as records, and what it means in sentences."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The bits once more, under other seeds."""

    value: float
    """Mean over all estimates, bits per pixel."""
    noise: float
    """Standard error of that mean by the estimates' noise alone: they see equal pictures."""
    each: tuple[float, ...]
    """Mean of each seed."""
    n: int
    """Pictures."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One estimate against the mean over other seeds."""

    value: float
    noise: float
    """Standard error of ``value`` by noise alone."""
    difference: float
    """``value`` less the other."""
    stderr: float
    """Of the difference."""
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Parameters of the run's prior and of the refitted one."""

    run: int
    refitted: int


@dataclass(frozen=True, kw_only=True)
class Slack:
    """What the run's prior pays too much: bits over those under a larger refitted prior, less one."""

    value: float
    stderr: float | None
    """Paired over pictures; None of a single one."""
    n: int
    run: float
    """Bits per pixel under the run's prior."""
    refitted: float
    parameters: Sizes
    samples: int
    """Latents that the refit saw."""
    limit: float
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All of it; bits per pixel."""

    run: str
    seed: int
    unit: str
    other_seeds: Repeated
    reported: Agreement
    """The bits that the run reports."""
    placing: Agreement
    """Noise levels placed uniformly."""
    slack: Slack

    @property
    def failures(self) -> tuple[str, ...]:
        """What does not hold, one line each."""
        told = []
        for one, what in (
            (self.reported, "the reported bits and other seeds"),
            (self.placing, "the two placings of noise levels"),
        ):
            if not one.holds:
                gap = abs(one.difference) / max(one.stderr, 1e-30)
                told.append(f"{what} disagree by {gap:.1f} standard errors: the estimate is broken or not of this run")
        if not self.slack.holds:
            told.append(
                f"the slack {self.slack.value:.2%} is above {self.slack.limit:.0%}: the run's prior is undertrained or "
                "too small; a longer `stage1.settle` (the prior alone, at the end) or a wider `autoencoder.prior` helps"
            )
        return tuple(told)

    @property
    def holds(self) -> bool:
        """Whether nothing fails."""
        return not self.failures

    @property
    def words(self) -> tuple[str, ...]:
        """What the numbers mean, in sentences."""
        slack = self.slack
        grown = slack.parameters.refitted / slack.parameters.run
        error = "(one picture)" if slack.stderr is None else f"± {slack.stderr:.2%}"
        told = [
            f"The bits are an upper bound on what a latent tells of its picture: {slack.run:.4g} per pixel under the "
            "run's prior.",
            f"A prior {grown:.1f} times as large, refitted on the same latents ({slack.samples:,} seen), needs "
            f"{slack.refitted:.4g}: the run's prior pays at least {slack.value:.2%} {error} too much (its slack; "
            "a longer refit, `samples`, may find more).",
        ]
        if slack.stderr is not None and slack.value < -2 * slack.stderr:
            told.append(
                "The refitted prior is the worse one on held-out pictures: it has learned its training latents by "
                "heart, so this slack is no lower limit of what better priors could save."
            )
        if self.failures:
            return (*told, *(f"FAILED: {failure}" for failure in self.failures))
        return (*told, "Seeds and placings agree within their noise, and the slack is within its limit.")

    def to_json(self) -> dict[str, object]:
        """The tree of ``verify.json``."""
        said = {"failures": list(self.failures), "holds": self.holds, "words": list(self.words)}
        return dataclasses.asdict(self) | said
