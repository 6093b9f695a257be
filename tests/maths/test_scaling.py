import math

import pytest
import torch

from unilat.maths.scaling import Law, fit_law, kendall_tau
from unilat.types import UserError

from .sources import F64, seeded

TRUTH = (0.01, 0.05, 0.04, 1.2, 0.8, 0.35)
BITS, FLOPS = (0.05, 0.1, 0.2, 0.4), (1e12, 4e12, 1.6e13)


def law(*parameters: float, bits_0: float = 1.0, flops_0: float = 1.0) -> Law:
    return Law(torch.tensor([parameters], dtype=F64).log(), bits_0, flops_0)


def runs(noise: float, seed: int, actual: float = 1.0) -> tuple[Law, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A law; bits, FLOPs and distances of two runs a cell that lie ``actual · noise`` off."""
    bits, flops = (one.flatten() for one in torch.meshgrid(numbers(*BITS * 2), numbers(*FLOPS), indexing="ij"))
    true = law(*TRUTH, bits_0=float(bits.log().mean().exp()), flops_0=float(flops.log().mean().exp()))
    off = actual * noise * torch.randn(len(bits), dtype=F64, generator=seeded(seed))
    return true, bits, flops, true.distance(bits, flops)[0] * off.exp()


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def fitted(noise: float, seed: int, draws: int = 120, actual: float = 1.0) -> tuple[Law, Law]:
    """The law behind some runs, and what was fitted to them."""
    true, bits, flops, distance = runs(noise, seed, actual)
    error = torch.full_like(distance, noise)
    return true, fit_law(bits, flops, distance, error, draws=draws, generator=seeded(seed + 1000))


def width(values: torch.Tensor) -> float:
    low, high = values[1:].log().quantile(numbers(0.05, 0.95)).tolist()
    return high - low


def test_parts_by_hand():
    """1 + 2 · 2⁻² + 3 · 2¹ · 4^-½ = 1 + ½ + 3, and units apart. Kills: a sign, an exponent of another parameter."""
    one = law(1.0, 2.0, 3.0, 2.0, 1.0, 0.5, bits_0=0.5, flops_0=10.0)
    assert one.parts(numbers(1.0), numbers(40.0))[:, 0, 0].tolist() == pytest.approx([1.0, 0.5, 3.0])
    assert one.distance(numbers(1.0, 0.5), numbers(40.0, 10.0))[0].tolist() == pytest.approx([4.5, 6.0])


def test_best_bits_are_the_laws_minimum():
    """Nothing near is lower, for rows of their own. Kills: alpha and beta exchanged, the root of their difference."""
    both = Law(torch.tensor([TRUTH, (0.2, 0.01, 0.3, 0.5, 2.0, 0.9)], dtype=F64).log(), 0.2, 3e12)
    for flops in (1e12, 5e14):
        bits = both.best_bits(flops)
        for row, best in enumerate(bits.tolist()):
            near = both.distance(numbers(best * 0.99, best, best * 1.01), torch.full((3,), flops, dtype=F64))[row]
            assert near[1] < near[0] and near[1] < near[2]


def test_growth_is_the_slope_of_best_bits():
    """d ln b* / d ln C. Kills: beta - alpha in its place."""
    one = law(*TRUTH)
    slope = math.log(float(one.best_bits(10.0 * math.e)[0] / one.best_bits(10.0)[0]))
    assert float(one.growth()[0]) == pytest.approx(slope, rel=1e-12)
    assert float(one.growth()[0]) == pytest.approx(0.35 / 2.0)


def test_distance_falls_with_flops_to_a_floor():
    """More FLOPs are never worse, and E is what is left. Kills: gamma's sign."""
    one = law(*TRUTH)
    found = one.distance(torch.full((4,), 2.0, dtype=F64), numbers(1.0, 10.0, 100.0, 1e30))[0]
    assert bool((found[1:] < found[:-1]).all())
    assert float(found[-1]) == pytest.approx(0.01 + 0.05 * 2.0**-1.2, rel=1e-6)


def test_exact_runs_give_the_law_back():
    """All six parameters and the best bits, also beyond the runs. Kills: a wrong derivative, a start that is kept."""
    true, found = fitted(1e-5, seed=0)
    assert found.theta[0].exp().tolist() == pytest.approx(TRUTH, rel=2e-3)
    assert found.theta.shape == (121, 6)
    for flops in (1e12, 1e15):
        assert float(found.best_bits(flops)[0]) == pytest.approx(float(true.best_bits(flops)[0]), rel=1e-3)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Of 16 seeded sets of runs, 90 % intervals hold the true best bits 12 times or more, and the errors in units of
    their width have a standard deviation near 1. Kills: draws without noise, and errors that are twice too wide."""
    held = {4e12: 0, 2e14: 0}
    scaled: list[float] = []
    for seed in range(16):
        true, found = fitted(0.05, seed)
        for flops in held:
            bits, truth = found.best_bits(flops), float(true.best_bits(flops)[0])
            low, high = bits[1:].quantile(numbers(0.05, 0.95)).tolist()
            held[flops] += low <= truth <= high
        bits = found.best_bits(4e12)
        scaled.append(math.log(float(bits[0]) / float(true.best_bits(4e12)[0])) / (width(bits) / 3.29))
    assert all(12 <= count <= 16 for count in held.values()), held
    spread = math.sqrt(sum(one**2 for one in scaled) / len(scaled))
    assert 0.6 < spread < 1.4  # 1 where intervals are neither too wide nor too narrow


def test_intervals_widen_beyond_the_runs():
    """A hundred times the largest budget is known less well than one of the runs'. Kills: FLOPs that are left out."""
    _, found = fitted(0.05, seed=3)
    assert width(found.best_bits(1.6e15)) > 2 * width(found.best_bits(4e12))


def test_runs_off_the_law_widen_its_errors():
    """Errors told four times too small make intervals as wide as the right ones, half to twice. Kills: chi² unused."""
    _, wrong = fitted(0.02, seed=5, actual=4.0)
    _, right = fitted(0.08, seed=5)
    assert 0.5 < width(wrong.best_bits(4e12)) / width(right.best_bits(4e12)) < 2.0


def test_errors_weigh_runs():
    """A run with a hundred times the error moves nothing. Kills: equal weights."""
    true, bits, flops, distance = runs(1e-4, 0)
    error = torch.full_like(distance, 0.01)
    error[3], distance[3] = 10.0, distance[3] * 3
    found = fit_law(bits, flops, distance, error, draws=1, generator=seeded(1))
    assert float(found.best_bits(4e12)[0]) == pytest.approx(float(true.best_bits(4e12)[0]), rel=0.02)


def test_what_runs_have_in_common_does_not_average_out():
    """Three budgets of one autoencoder are no three autoencoders: the same error widens best bits by more where runs
    of equal bits share it, and not at all where each has its own. Kills: groups by chance, and their error unused."""
    _, bits, flops, distance = runs(1e-4, 0)
    own = torch.full_like(distance, 1e-3)
    each = torch.arange(len(bits))

    def at(group: torch.Tensor | None, group_error: float, error: torch.Tensor = own) -> float:
        given = {"group": group, "group_error": group_error, "draws": 400, "generator": seeded(2)}
        return width(fit_law(bits, flops, distance, error, **given).best_bits(4e12))

    apart, alike = at(each, 0.05), at(each // 3, 0.05)  # each level of bits has three budgets, side by side
    assert alike > 1.3 * apart
    assert apart == pytest.approx(at(None, 0.0, torch.full_like(distance, 0.05)), rel=0.15)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_what_has_no_logarithm_is_refused(wrong: float):
    """Kills: a NaN law of a distance of 0, which an unbiased kernel distance can be."""
    good = numbers(0.1, 0.2, 0.3)
    with pytest.raises(UserError, match="above 0"):
        fit_law(good, good, numbers(0.1, wrong, 0.3), good, generator=seeded(0))


def test_kendall_by_hand():
    """Of the 6 pairs of (1, 2, 3, 4) and (1, 3, 2, 4) five agree: (5 - 1) / 6; a tie is none. Kills: n² pairs."""
    four = numbers(1.0, 2.0, 3.0, 4.0)
    assert kendall_tau(four, numbers(1.0, 3.0, 2.0, 4.0)) == pytest.approx(4 / 6)
    assert kendall_tau(four, four.flip(0)) == -1.0
    assert kendall_tau(four, numbers(1.0, 1.0, 2.0, 3.0)) == pytest.approx(5 / 6)
    with pytest.raises(UserError, match="two or more"):
        kendall_tau(four[:1], four[:1])
