"""The oracle suite: our bits against closed forms, with exact denoisers and with priors that our own networks learn.

    exact     bits measured with the source's posterior mean         must lie within 3 standard errors, s.e. ≤ 0.1 %
    trained   closed form + E[prior's bits − exact bits]             must lie within 0.5 % (Gaussian), 1 % (mixture)

Both see the same draws, so the exact denoiser is a control variate: its own mean is known, and most noise cancels.
"""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from unilat.maths.levels import Levels, rate_table
from unilat.maths.oracle import Gaussian, GaussianMixture, Independent, Source, rate_estimates
from unilat.maths.rate import LN2
from unilat.maths.seeds import Draws, key
from unilat.nets.vit import ViTConfig
from unilat.studies.prior import PriorPlan, fit_prior, measure

LAMBDA_0, LAMBDA_MIN = 5.0, -10.0
STDERR_LIMIT = 0.001
"""Largest relative standard error of a row with an exact denoiser."""
GAUSSIAN_LIMIT, MIXTURE_LIMIT = 0.005, 0.01
"""How far a trained prior may lie from the closed form."""
TRAINED_ON = 131_072
"""Draws that a trained prior sees, each several times."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the suite, bits per dimension."""

    what: str
    measured: float
    closed_form: float
    stderr: float
    n: int
    """Latents measured, one noise level each."""
    limit: float
    """Largest ``|off|``: 3 standard errors of an exact denoiser, a fixed share for a trained prior."""
    holds: bool
    seconds: float

    @property
    def off(self) -> float:
        """Measured above the closed form, as a share of it."""
        return self.measured / self.closed_form - 1.0


def unit_gaussian(dimensions: int = 1024) -> Gaussian:
    """N(0, I): 3.611582 bits per dimension at λ₀ = 5."""
    return Gaussian(torch.ones(dimensions), torch.zeros(dimensions))


def correlated_gaussian() -> Gaussian:
    """16 correlated dimensions, variances from 0.02 to about 4."""
    mixing = torch.randn(16, 16, generator=torch.Generator().manual_seed(1)) / 4
    return Gaussian.correlated(mixing @ mixing.T + 0.02 * torch.eye(16), torch.zeros(16))


def mixture(places: int = 4) -> Independent:
    """4 channels of ``places`` dimensions each: two peaks apart, three, a narrow one on a wide one, a lopsided pair."""
    channels = (
        GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.2], [0.6]]), torch.tensor([0.25, 0.4])),
        GaussianMixture(
            torch.tensor([0.2, 0.5, 0.3]), torch.tensor([[-1.5], [0.1], [1.3]]), torch.tensor([0.2, 0.3, 0.25])
        ),
        GaussianMixture(torch.tensor([0.6, 0.4]), torch.tensor([[0.2], [0.2]]), torch.tensor([0.15, 1.2])),
        GaussianMixture(torch.tensor([0.9, 0.1]), torch.tensor([[-0.3], [2.2]]), torch.tensor([0.5, 0.3])),
    )
    return Independent(tuple(channel for channel in channels for _ in range(places)))


def exact(what: str, source: Source, dimensions: int, *, batch: int, repeats: int, seed: int) -> Row:
    """The rate with the exact denoiser: mean and standard error over ``repeats`` independent batches."""
    start, table = time.perf_counter(), rate_table(LAMBDA_MIN, LAMBDA_0)

    def pick(draws: Draws, count: int) -> Levels:
        return table.sample(draws.strata(count))

    found = rate_estimates(source, pick, LAMBDA_MIN, batch=batch, repeats=repeats, seed=seed).double()
    unit = LN2 * dimensions
    truth, mean = _closed_form(source) / unit, float(found.mean()) / unit
    stderr = float(found.std()) / math.sqrt(repeats) / unit
    limit = 3 * stderr / truth
    holds = abs(mean - truth) <= 3 * stderr and stderr <= STDERR_LIMIT * truth
    return Row(what, mean, truth, stderr, batch * repeats, limit, holds, time.perf_counter() - start)


def trained(
    what: str, source: Source, shape: tuple[int, ...], plan: PriorPlan, limit: float, *, blocks: int, seed: int
) -> Row:
    """A prior fitted on draws of ``source`` laid out as ``shape`` (C, *grid), measured on fresh ones."""
    start, dimensions = time.perf_counter(), math.prod(shape)

    def draw(count: int, *purpose: object) -> Tensor:
        generator = torch.Generator().manual_seed(key(seed, what, *purpose))
        return source.sample(count, generator).float().view(count, *shape)

    def known(x_t: Tensor, logsnr: Tensor, cond: None = None) -> Tensor:
        return source.denoise(x_t.flatten(1), logsnr).view_as(x_t)

    with tempfile.TemporaryDirectory(prefix="unilat-verify-") as folder:
        z = draw(TRAINED_ON, "train")
        prior = fit_prior(z, plan, Path(folder), lambda_0=LAMBDA_0, lambda_min=LAMBDA_MIN, device="cpu")
    slack, count = [], 16_384
    for block in range(blocks):
        z, again = draw(count, "test", block), key(seed, block)
        learnt, truly = (
            measure(z, denoise, lambda_0=LAMBDA_0, lambda_min=LAMBDA_MIN, levels=1, seed=again)[0].nats().double()
            for denoise in (prior, known)
        )
        slack.append((learnt - truly).mean())
    unit, above = LN2 * dimensions, torch.stack(slack)
    truth = _closed_form(source) / unit
    mean, stderr = truth + float(above.mean()) / unit, float(above.std()) / math.sqrt(blocks) / unit
    holds = abs(mean / truth - 1.0) <= limit
    return Row(what, mean, truth, stderr, blocks * count, limit, holds, time.perf_counter() - start)


def _closed_form(source: Source) -> float:
    return source.rate_nats(LAMBDA_MIN, LAMBDA_0)


def gaussian_plan(seed: int) -> PriorPlan:
    """One token of all 16 dimensions."""
    vit = ViTConfig(channels=(96,), blocks=(2,), patch=4)
    return PriorPlan(vit=vit, samples=200_000, batch=256, learning_rate=2e-3, warmup=10_000, decay=0.7, seed=seed)


def mixture_plan(seed: int) -> PriorPlan:
    """Four tokens of 4 channels; one wide block learns these better than two narrow ones."""
    vit = ViTConfig(channels=(96,), blocks=(1,))
    return PriorPlan(vit=vit, samples=130_000, batch=128, learning_rate=3e-3, warmup=10_000, decay=0.7, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """All rows of the suite."""

    rows: tuple[Row, ...]
    seconds: float
    unit: str = "bits per dimension"

    @property
    def holds(self) -> bool:
        """Whether every row does."""
        return all(row.holds for row in self.rows)

    def to_json(self) -> dict[str, object]:
        """As ``--json`` prints it."""
        rows = [asdict(row) | {"off": row.off} for row in self.rows]
        return {"unit": self.unit, "rows": rows, "holds": self.holds, "seconds": self.seconds}


def suite(seed: int = 0, say: Say = lambda line: None) -> Suite:
    """All five rows. The same seed gives the same rows."""
    cases: dict[str, Callable[[str], Row]] = {
        "unit Gaussian, exact denoiser": lambda what: exact(
            what, unit_gaussian(), 1024, batch=64, repeats=400, seed=seed
        ),
        "correlated Gaussian, exact denoiser": lambda what: exact(
            what, correlated_gaussian(), 16, batch=2048, repeats=300, seed=seed
        ),
        "mixture, exact denoiser": lambda what: exact(what, mixture(), 16, batch=2048, repeats=300, seed=seed),
        "correlated Gaussian, trained prior": lambda what: trained(
            what, correlated_gaussian(), (4, 4), gaussian_plan(seed), GAUSSIAN_LIMIT, blocks=6, seed=seed
        ),
        "mixture, trained prior": lambda what: trained(
            what, mixture(), (4, 2, 2), mixture_plan(seed), MIXTURE_LIMIT, blocks=6, seed=seed
        ),
    }
    rows, start = [], time.perf_counter()
    for what, case in cases.items():
        say(f"measuring: {what}")
        rows.append(case(what))
    return Suite(rows=tuple(rows), seconds=time.perf_counter() - start)
