import torch

from unilat.maths.levels import Levels, Table, rate_table, weighted_table
from unilat.maths.moments import FLOOR, HALFLIFE, averaged, learned, observed
from unilat.maths.seeds import Draws

from .sources import F64, seeded

LOW, HIGH, BINS, SIZE, STD = -10.0, 5.0, 32, 64, 12.0
GUESS = rate_table(LOW, HIGH)


def estimates(levels: Levels, seed: int) -> torch.Tensor:
    """``½ e^lambda ||z - z_hat||² / p`` of the exact denoiser of N(0, STD²), ``[B]``; its error's law is known."""
    variance = STD**2 / (1 + STD**2 * levels.lambda_t.exp())
    squares = torch.randn(len(variance), SIZE, generator=seeded(seed), dtype=F64).square().sum(1)
    return 0.5 * levels.lambda_t.exp() * variance * squares / levels.density


def after(steps: int, batch: int = 64) -> tuple[torch.Tensor, list[float]]:
    """The moments that so many batches leave, and each batch's estimate."""
    moments, found = torch.zeros(2, BINS, dtype=F64), []
    for step in range(steps):
        table = learned(GUESS, moments)
        levels = table.sample(Draws.keyed(0, step, 0, batch).strata(batch).double())
        terms = estimates(levels, step)
        found.append(float(terms.mean()))
        moments = averaged(moments, observed(levels.lambda_t, terms, table, GUESS, BINS).sum(0))
    return moments, found


def best() -> torch.Tensor:
    """Each bin's mass along sigmoid(lambda + 2 ln STD), where E[f²] is least: f² is its square times SIZE² + 2 SIZE."""
    softplus = torch.nn.functional.softplus(
        torch.linspace(LOW, HIGH, BINS + 1, dtype=F64) + 2 * torch.tensor(STD).log()
    )
    return softplus.diff() / (softplus[-1] - softplus[0])


def second_moment(table: Table) -> float:
    """E[f² / p²] in closed form by quadrature, up to the constant ¼ (SIZE² + 2 SIZE)."""
    levels = table.sample((torch.arange(40_000, dtype=F64) + 0.5) / 40_000)
    return float((torch.sigmoid(levels.lambda_t + 2 * torch.tensor(STD).log()) / levels.density).square().mean())


def test_a_gaussians_density_is_learned():
    """The optimal density, in closed form, floored. Kills: mass along E[g²], not its root; the estimate taken for g."""
    moments, _ = after(120)
    coarse = GUESS.mass.view(BINS, -1).sum(1)
    wanted = (1 - FLOOR) * best() + FLOOR * coarse
    found = learned(GUESS, moments).mass.view(BINS, -1).sum(1)
    assert float((coarse - wanted).abs().sum()) > 0.5
    assert float((found - wanted).abs().sum()) < 0.05


def test_the_second_moment_falls_to_the_least():
    """E[f² / p²] of the guess is 2.35 times the least; learned, 1.03 times. Kills: the guess's own mass left out."""
    integral = float(torch.trapezoid(torch.sigmoid(line() + 2 * torch.tensor(STD).log()), line()))
    moments, _ = after(120)
    assert second_moment(GUESS) > 2.3 * integral**2
    assert second_moment(learned(GUESS, moments)) < 1.05 * integral**2


def line() -> torch.Tensor:
    return torch.linspace(LOW, HIGH, 20_001, dtype=F64)


def test_estimates_are_unbiased_while_the_density_moves():
    """The mean over 400 batches of 8 within 3 s.e. of ``½ D ln(...)``. Kills: bins that lose mass to the floor."""
    found = torch.tensor(after(400, batch=8)[1], dtype=F64)
    ends = 1 + STD**2 * torch.tensor([LOW, HIGH], dtype=F64).exp()
    expected = 0.5 * SIZE * float((ends[1] / ends[0]).log())
    assert abs(float(found.mean()) - expected) < 3 * float(found.std()) / 20


def test_nothing_seen_is_the_guess_and_an_even_g_leaves_it():
    """Bitwise before the first batch, also where f is 0. Kills: bins not seen taken for empty, or for g = 1."""
    moments = torch.zeros(2, BINS)
    assert learned(GUESS, moments) is GUESS
    moments[0, 3] = 40.0
    assert learned(GUESS, moments) is GUESS
    moments[1, 3] = 40.0 * 9e4  # g = 300 wherever anything was seen
    torch.testing.assert_close(learned(GUESS, moments).mass, GUESS.mass)


def test_whatever_is_learned_a_share_of_the_guess_stays():
    """p >= FLOOR q, so at most 1 / FLOOR times the guess's second moment. Kills: no floor."""
    moments = torch.full((2, BINS), 1e9)
    moments[1, 7] = 1e22
    table = learned(GUESS, moments)
    assert bool((table.mass >= FLOOR * GUESS.mass * (1 - 1e-12)).all())
    assert float(table.mass.view(BINS, -1).sum(1)[7]) > 0.85


def test_examples_count_half_after_the_half_life():
    """Counted in examples, whatever the batch. Kills: a half-life in steps."""
    row = torch.cat([torch.ones(BINS), torch.full((BINS,), 5.0)])
    first, later = averaged(torch.zeros(2, BINS), row), torch.zeros(2 * BINS)
    for batch in (HALFLIFE - 700, 600.0, 100.0):
        later[2] = batch
        first = averaged(first, later)
    torch.testing.assert_close(first[1], torch.full((BINS,), 2.5))
    torch.testing.assert_close(first[0, 3:], torch.full((BINS - 3,), 0.5))


def test_each_example_tells_of_its_own_bin():
    """1 and g² = (f / q)² where its level fell. Kills: the neighbour's bin, moments of another guess's bins."""
    guess = weighted_table(0.5, LOW, HIGH)
    moments = torch.rand(2, BINS, generator=seeded(1), dtype=F64) + 0.5
    table = learned(guess, moments)
    levels = table.sample(torch.rand(500, generator=seeded(2), dtype=F64))
    f = torch.rand(500, generator=seeded(3), dtype=F64)
    count, squares = observed(levels.lambda_t, f / levels.density, table, guess, BINS).view(500, 2, BINS).unbind(1)
    place = ((levels.lambda_t - LOW) / (HIGH - LOW) * BINS).long()
    assert torch.equal(count.argmax(1), place) and torch.equal(count.sum(1), torch.ones(500, dtype=F64))
    q = guess.mass[((levels.lambda_t - LOW) / (HIGH - LOW) * 64).long()] * 64 / (HIGH - LOW)
    torch.testing.assert_close(squares.sum(1), (f / q).square())
    torch.testing.assert_close(squares, count * squares)


def test_a_wild_example_leaves_the_density_finite():
    """An estimate of 1e25 nats in float32. Kills: an infinite sum, after which no level could be drawn."""
    levels = GUESS.sample(torch.rand(4, generator=seeded(1)))
    seen = observed(levels.lambda_t, torch.tensor([1.0, 1e25, 2.0, 0.5]), GUESS, GUESS, BINS).sum(0)
    moments = averaged(torch.zeros(2, BINS), seen)
    table = learned(GUESS, moments)
    assert bool(moments.isfinite().all()) and table is not GUESS
    assert bool(table.mass.isfinite().all()) and bool((table.mass > 0).all())


def test_a_bin_of_few_examples_leans_to_the_average():
    """By hand, four unequal bins: (Σ g² + mean g²) / (n + 1), mass along Q √ of it, floored. Kills: two examples'
    weight for one's, a mean over bins for one over examples."""
    guess = Table(torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0], dtype=F64), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64))
    count, squares = [9.0, 0.0, 4.0, 1.0], [18.0, 0.0, 100.0, 0.5]
    mean = sum(squares) / sum(count)
    root = [((s + mean) / (n + 1)) ** 0.5 for s, n in zip(squares, count, strict=True)]
    along = [q * r for q, r in zip((0.1, 0.2, 0.3, 0.4), root, strict=True)]
    wanted = [0.9 * a / sum(along) + 0.1 * q for a, q in zip(along, (0.1, 0.2, 0.3, 0.4), strict=True)]
    found = learned(guess, torch.tensor([count, squares], dtype=F64)).mass
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=F64), rtol=1e-9, atol=0)
