"""What `unilat advise` tells: plain records, and their JSON."""

from dataclasses import asdict, dataclass

from unilat.studies.scaling import Interval


@dataclass(frozen=True, kw_only=True)
class Change:
    """What other bits would change."""

    bits: float
    """Per pixel."""
    distance: Interval
    """Generation distance at ``bits`` less that at the advised ones; below 0 is better."""


@dataclass(frozen=True, kw_only=True)
class GridAdvice:
    """What the runs of one latent grid tell of the budget."""

    grid: tuple[int, ...]
    """``(C, *grid)`` of a latent."""
    best_bits: Interval
    """Per pixel, wherever the law has its minimum."""
    bits: float
    """Those of ``best_bits`` that lie within the runs' own."""
    distance: Interval
    """Generation distance expected at ``bits``."""
    growth: Interval
    """``d ln best bits / d ln FLOPs``."""
    runs: int
    levels_of_bits: tuple[float, ...]
    budgets: tuple[float, ...]
    """FLOPs of training the base model."""


@dataclass(frozen=True, kw_only=True)
class SizeAdvice:
    """How a base model's runs near the budget lie to the law of their grid."""

    base: str
    """Widths and blocks, ``128×6``."""
    parameters: int
    off: float
    """Mean of ``ln`` distance less the law's: below 0 is better than this grid's runs are at equal bits and FLOPs."""
    stderr: float
    runs: int
    flops: float
    """Of the run nearest to the budget."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to take for a budget, and how sure that is. Intervals hold 90 %."""

    flops: float
    """The budget: FLOPs of training the base model."""
    data: str
    size: tuple[int, int]
    """``(height, width)`` of the pictures that the advice is for."""
    chosen: GridAdvice
    base: SizeAdvice
    samples: int
    """Latents that the base model is trained on to use the budget up."""
    more: Change
    """A tenth more bits."""
    fewer: Change
    """A tenth fewer."""
    seed_noise: float | None
    """Standard deviation between seeds as a share of the distance; None where no two runs differ in it alone."""
    grids: tuple[GridAdvice, ...]
    """All, the lowest distance first."""
    bases: tuple[SizeAdvice, ...]
    """Of the chosen grid."""
    notes: tuple[str, ...]
    """What the reader must know, a sentence each."""
    left_out: tuple[str, ...]
    """Runs and grids that say nothing, a line each."""
    command: str
    """Ready to paste."""

    def to_json(self) -> dict[str, object]:
        """As ``--json`` prints it."""
        return asdict(self)
