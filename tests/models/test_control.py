"""The controller on plants that answer late, each steeper or flatter than the last."""

import math

import pytest

from unilat.models.control import ControlConfig, RateController
from unilat.types import UserError

BATCH = 64


class Plant:
    """``ln rate → ln wanted + slope · ln(c_lf / needed)`` with a lag: encoder and prior answer late (first order)."""

    def __init__(self, slope: float, wanted: float, start: float, needed: float = 10.0, lag: float = 2000.0):
        self.slope, self.lag, self.offset = slope, lag, math.log(wanted) - slope * math.log(needed)
        self.log_rate = math.log(start)

    def step(self, factor: float) -> float:
        aim = self.offset + self.slope * math.log(factor)
        self.log_rate += (1 - math.exp(-BATCH / self.lag)) * (aim - self.log_rate)
        return math.exp(self.log_rate)


@pytest.mark.parametrize("slope", [0.3, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("wanted", [0.1, 0.8])
def test_settles_at_the_wanted_rate(slope: float, wanted: float) -> None:
    """Kills: the sign of the error, a time constant in steps, an integral left out (1 % off), and swings that collapse.

    The rate starts at four times what is wanted, as unit-scale latents do, at a factor above the needed one, and must
    never fall below half of it: below, the latents' early collapse begins (derivation.md).
    """
    control, plant = RateController(wanted, ControlConfig()), Plant(slope, wanted, start=4 * wanted)
    rates = []
    for _ in range(200_000 // BATCH):
        rates.append(plant.step(control.factor))
        control.update(rates[-1], BATCH)
    assert min(rates) > 0.5 * wanted
    assert all(rate == pytest.approx(wanted, rel=0.01) for rate in rates[-400:])
    assert not control.at_limit()


@pytest.mark.parametrize("batch", [16, 256])
def test_time_is_counted_in_samples(batch: int) -> None:
    """Kills: gain or smoothing by the step: the path must not depend on the batch."""
    config, usual, other = ControlConfig(), RateController(0.5, ControlConfig()), RateController(0.5, ControlConfig())
    for _ in range(40):
        usual.update(0.4, 64)
    for _ in range(40 * 64 // batch):
        other.update(0.4, batch)
    assert other.log_factor == pytest.approx(usual.log_factor)
    moved = usual.log_factor - math.log(config.start)
    error = math.log(0.5 / 0.4)
    assert moved == pytest.approx(config.gain * 40 * 64 / 1000 * error + config.proportional * error)


def test_two_batches_by_hand() -> None:
    """The equations of the module's head with numbers. Kills: the old rate kept where the new one is, half-lives for
    time constants, the ratio g with another sign, a proportional part that adds up."""
    control = RateController(0.3, ControlConfig(gain=0.4, proportional=2.0, smoothing=500.0, start=7.0))
    control.log_ratio = 0.1
    first = math.log(0.3) - math.log(0.4) - 0.1
    integral = math.log(7.0) + 0.4 * 0.1 * first
    assert control.update(0.4, 100) == pytest.approx(math.exp(integral + 2.0 * first), rel=1e-9)
    kept = math.exp(-0.3)
    second = math.log(0.3) - (kept * math.log(0.4) + (1 - kept) * math.log(0.25)) - 0.1
    integral += 0.4 * 0.15 * second
    assert control.update(0.25, 150) == pytest.approx(math.exp(integral + 2.0 * second), rel=1e-9)


def test_calibrations_by_hand() -> None:
    """ln g moves halfway to ln(held out / running rate). Kills: its inverse, a sum, all of the way, the wanted rate."""
    control = RateController(0.4, ControlConfig())
    control.update(0.5, BATCH)
    control.calibrate(0.6)
    assert control.log_ratio == pytest.approx(0.5 * math.log(1.2), rel=1e-9)
    control.calibrate(0.45)
    assert control.log_ratio == pytest.approx(0.25 * math.log(1.2) + 0.5 * math.log(0.9), rel=1e-9)
    before = control.log_ratio
    control.calibrate(0.6, weight=0.25)
    assert control.log_ratio == pytest.approx(0.75 * before + 0.25 * math.log(1.2), rel=1e-9)


def test_a_limit_is_the_integrals_and_not_one_batchs() -> None:
    """Kills: a run ended because one batch pushed the factor to its limit for a moment."""
    control = RateController(0.3, ControlConfig(limit=50.0))
    assert control.update(1e-6, BATCH) == pytest.approx(50.0) and not control.at_limit()


def test_too_few_bits_raise_the_factor() -> None:
    """Kills: the sign: more weight on the decoder is what buys bits."""
    low, high = RateController(0.5, ControlConfig()), RateController(0.5, ControlConfig())
    assert low.update(0.4, BATCH) > ControlConfig().start > high.update(0.6, BATCH)


def test_a_fixed_factor_stays() -> None:
    """Kills: a controller that moves what the user fixed."""
    control = RateController(None, ControlConfig(), fixed=1.5)
    for rate in (0.001, 3.0, 0.0):
        assert control.update(rate, BATCH) == pytest.approx(1.5)
    assert not control.at_limit() and control.log_rate is not None


def test_no_single_batch_throws_it() -> None:
    """Kills: an error without bound: a rate of zero, or of a thousand, is ln 0 away."""
    for rate in (0.0, 1e9):
        control = RateController(0.3, ControlConfig())
        control.update(rate, BATCH)
        assert abs(math.log(control.factor / ControlConfig().start)) <= 2.0 * (ControlConfig().proportional + 0.15)


def test_held_out_bits_move_the_aim() -> None:
    """Kills: the sign of the correction: where the kept model needs MORE bits, training must aim lower."""
    config = ControlConfig()
    for held_out, direction in ((0.6, -1), (0.4, +1)):
        control = RateController(0.5, config)
        for _ in range(100):
            control.update(0.5, BATCH)
        before = control.factor
        control.calibrate(held_out)
        after = control.update(0.5, BATCH)
        assert direction * (after - before) > 0
    plant, control = Plant(0.7, 0.5, start=1.0), RateController(0.5, config)
    for step in range(4000):
        rate = plant.step(control.factor)
        control.update(rate, BATCH)
        if step % 100 == 99:
            control.calibrate(1.2 * rate)
    assert 1.2 * rate == pytest.approx(0.5, rel=0.01)


def test_calibration_before_the_first_step_or_absurd_is_harmless() -> None:
    """Kills: a correction from nothing, and one mad measurement that throws the aim."""
    control = RateController(0.5, ControlConfig())
    control.calibrate(0.7)
    assert control.log_ratio == 0.0
    control.update(0.5, BATCH)
    control.calibrate(1e6)
    assert abs(control.log_ratio) <= 0.5


def test_limits_hold_and_are_told() -> None:
    """Kills: a factor that runs away, an integral that winds up beyond it, a limit that is not noticed."""
    control = RateController(0.3, ControlConfig(limit=50.0))
    for _ in range(3000):
        assert 1 / 50.001 <= control.update(0.001, BATCH) <= 50.001
    assert control.at_limit()
    back = 0
    while control.at_limit():
        control.update(0.9, BATCH)
        back += 1
    assert back < 100
    other = RateController(0.3, ControlConfig(limit=50.0))
    for _ in range(3000):
        other.update(100.0, BATCH)
    assert other.at_limit()


def test_state_round_trip() -> None:
    """Kills: a part of the state that a checkpoint forgets: the resumed path must be the same, bit by bit."""
    one = RateController(0.5, ControlConfig())
    for rate in (0.9, 0.7, 0.4):
        one.update(rate, BATCH)
    one.calibrate(0.45)
    other = RateController(0.5, ControlConfig())
    other.load_state(one.state())
    assert [one.update(0.6, BATCH) for _ in range(5)] == [other.update(0.6, BATCH) for _ in range(5)]
    assert one.state() == other.state()
    fresh, again = RateController(0.5, ControlConfig()), RateController(0.5, ControlConfig(start=3.0))
    again.load_state(fresh.state())
    assert again.update(0.6, BATCH) == fresh.update(0.6, BATCH)


@pytest.mark.parametrize("wanted", [0.0, -1.0, math.nan, math.inf])
def test_impossible_wishes_are_refused(wanted: float) -> None:
    """Kills: ln of nothing inside the loop, an hour in."""
    with pytest.raises(UserError, match=r"positive number.*`target_bpp` 0\.2"):
        RateController(wanted, ControlConfig())
