"""The arithmetic of the headline comparison: work to an equal distance, its bounds, PSNR at equal bits."""

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from measured import measured, written


@pytest.fixture
def headline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """``benchmarks/headline.py`` on an empty folder."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    for name in ("headline", "common"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    bench = importlib.import_module("headline")
    monkeypatch.setattr(bench, "WORK", tmp_path)
    return bench


def finished(
    folder: Path, *, bits: float, base_bits: float, psnr: float, generation: float | None, flops: float
) -> None:
    """What a benchmark reads of a run."""
    written(folder, measured(bits, base_bits=base_bits, psnr=psnr, generation=generation, flops=flops))


def test_a_distance_is_reached_between_budgets_on_a_line_in_log_flops(headline: ModuleType) -> None:
    """Halfway down between 1 and 100 is at 10. Kills: a line in FLOPs, and a last crossing in place of the first."""
    curve = [(1.0, 0.8), (100.0, 0.6), (1000.0, 0.65), (10_000.0, 0.6)]
    assert headline.reached(0.7, curve) == (pytest.approx(10.0), 0)
    assert headline.reached(0.9, curve) == (1.0, -1) and headline.reached(0.5, curve) == (10_000.0, 1)


@pytest.mark.parametrize(
    ("wanted", "value", "bound"),
    [(0.6, 10**1.5, ""), (0.5, 10.0, "at least"), (0.75, 10**1.25, "at least"), (0.35, 1.0, "not known")],
)
def test_a_ratio_says_what_it_bounds(headline: ModuleType, wanted: float, value: float, bound: str) -> None:
    """Where the other never comes down, and where ours begins below, the ratio is told as a bound. Kills: the two sides
    exchanged, a bound told as the truth."""
    ours, theirs = [(1.0, 0.7), (10.0, 0.5), (100.0, 0.4)], [(10.0, 0.8), (100.0, 0.6)]
    found = headline.ratio(wanted, {"UL": ours, "KL-VAE": theirs}, {"UL": 0.0, "KL-VAE": 0.0})
    assert found.value == pytest.approx(value) and found.bound.split(",")[0] == bound


def test_stage_1_is_added_to_both_sides(headline: ModuleType) -> None:
    """(100 + 50) / (10 + 40) = 3. Kills: stage 1 added to one side, or to the curve before it is read."""
    curves = {"UL": [(1.0, 0.7), (10.0, 0.5)], "KL-VAE": [(10.0, 0.8), (100.0, 0.5)]}
    assert headline.ratio(0.5, curves, {"UL": 40.0, "KL-VAE": 50.0}).value == pytest.approx(3.0)


def test_only_configurations_near_the_best_are_tried_at_other_budgets(headline: ModuleType) -> None:
    """Kills: `near` measured against the worst, or of one seed alone."""
    for seed in headline.SEEDS:
        for bpp, distance in ((0.05, 0.5), (0.1, 0.4 + 0.1 * seed), (0.2, 0.53)):
            folder = headline.WORK / f"emoji-ul-{2 * bpp:g}-s{seed}"
            finished(folder, bits=bpp, base_bits=bpp, psnr=20.0, generation=distance, flops=1e9)
    assert headline.near("emoji", "UL") == ["emoji-ul-0.1", "emoji-ul-0.2"]
    assert not any("0.4" in name for name in headline.jobs("emoji", 0, [96_000]))
    assert any("0.4" in name for name in headline.jobs("emoji", 0, [headline.OWN]))


def test_psnr_is_compared_at_equal_bits_and_not_beyond_ours(headline: ModuleType) -> None:
    """Ours gains 2 dB a doubling; the KL-VAE at 0.1 · √2 bits stands 3 dB below it, another lies outside. Kills: a
    line in bits, the wrong measure of bits, a sign, a curve that is continued."""
    for seed in headline.SEEDS:
        for bpp, psnr in ((0.05, 18.0), (0.1, 20.0), (0.2, 22.0)):
            finished(headline.WORK / f"fashion-mnist-settled-{bpp:g}-s{seed}",
                     bits=bpp, base_bits=9.0, psnr=psnr, generation=None, flops=0.0)  # fmt: skip
        for factor, bits in ((3, 0.1 * math.sqrt(2.0)), (10, 0.3)):
            finished(headline.WORK / f"fashion-mnist-kl-{factor}-s{seed}",
                     bits=bits, base_bits=0.1, psnr=18.0, generation=0.5, flops=1e9)  # fmt: skip
    inside, outside = headline.psnr_rows("fashion-mnist", "bits", headline.SETTLED)
    assert inside["value"] == pytest.approx(3.0) and inside["n"] == len(headline.SEEDS) and inside["holds"]
    assert outside["value"] is None and outside["holds"] is None
