"""PSNR and SSIM against closed forms and a slow SSIM written straight from the paper, window by window."""

import math

import numpy as np
import pytest
import torch

from unilat.metrics import PSNR_CAP, PSNR_PROTOCOL, SSIM_PROTOCOL, psnr, ssim
from unilat.types import UserError


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth random uint8 pictures with some contrast, so that SSIM is neither 0 nor 1."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(shape, generator=generator)
    return (255 * (0.6 * noise.mean(-1, keepdim=True) + 0.4 * noise)).to(torch.uint8)


def test_psnr_of_a_constant_shift_is_its_closed_form() -> None:
    """Kills a mean over the batch, a peak of 1 and a base-e logarithm: each picture has its own shift."""
    first = torch.full((3, 2, 5, 7), 100, dtype=torch.uint8)
    second = first + torch.tensor([1, 5, 50], dtype=torch.uint8)[:, None, None, None]
    expected = [20 * math.log10(255 / shift) for shift in (1, 5, 50)]
    assert psnr(first, second).tolist() == pytest.approx(expected, abs=1e-4)


def test_psnr_does_not_wrap_around_bytes_and_is_symmetric() -> None:
    """Kills a difference taken in uint8, where 0 - 255 is 1."""
    first, second = torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    assert psnr(first, second).item() == pytest.approx(0.0, abs=1e-6)
    assert psnr(second, first).item() == pytest.approx(0.0, abs=1e-6)


def test_psnr_averages_the_error_over_channels_before_the_logarithm() -> None:
    """Kills a mean of per-channel decibels."""
    first = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    second = first.clone()
    second[:, 0] = 4
    assert psnr(first, second).item() == pytest.approx(10 * math.log10(255**2 / 8), abs=1e-4)


def test_identical_pictures_stand_at_the_cap_and_the_cap_is_rounding_noise() -> None:
    """Kills inf, and a cap at an arbitrary figure: rounding uniform values to bytes must land on it."""
    same = pictures(3, 1, 8, 8)
    assert psnr(same, same).tolist() == pytest.approx([PSNR_CAP] * 3)
    exact = np.random.default_rng(0).uniform(10, 240, 1_000_000)
    assert 10 * math.log10(255**2 / np.mean((exact - exact.round()) ** 2)) == pytest.approx(PSNR_CAP, abs=0.02)


@pytest.mark.parametrize("axes", [(9,), (4, 5), (2, 3, 4)])
def test_psnr_reads_one_two_and_three_axes(axes: tuple[int, ...]) -> None:
    """Kills a mean over fewer axes than a picture has."""
    first, second = pictures(3, 2, *axes), pictures(3, 2, *axes, seed=1)
    by_hand = (first.double() - second.double()).square().flatten(1).mean(1)
    assert psnr(first, second).tolist() == pytest.approx((10 * (255**2 / by_hand).log10()).tolist(), rel=1e-5)


def slow_ssim(first: np.ndarray, second: np.ndarray, width: int) -> float:
    """Wang et al. 2004, one window after the other, weighted moments about the weighted mean; ``[H, W]`` each."""
    place = np.arange(width) - (width - 1) / 2
    window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    window /= window.sum()
    c_1, c_2, values = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for top in range(first.shape[0] - width + 1):
        for left in range(first.shape[1] - width + 1):
            a, b = (x[top : top + width, left : left + width].astype(float) for x in (first, second))
            mu_a, mu_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mu_a) ** 2).sum(), (window * (b - mu_b) ** 2).sum()
            cov = (window * (a - mu_a) * (b - mu_b)).sum()
            values.append(
                (2 * mu_a * mu_b + c_1) * (2 * cov + c_2) / ((mu_a**2 + mu_b**2 + c_1) * (var_a + var_b + c_2))
            )
    return float(np.mean(values))


def test_ssim_is_the_papers() -> None:
    """Kills a box window, another sigma, padding, population against window moments, and axes taken for one another."""
    first = pictures(3, 2, 14, 19)
    second = (0.7 * first + 0.3 * pictures(3, 2, 14, 19, seed=1)).to(torch.uint8)
    expected = [np.mean([slow_ssim(first[i, c].numpy(), second[i, c].numpy(), 11) for c in (0, 1)]) for i in range(3)]
    assert 0.1 < min(expected) < max(expected) < 0.99
    assert ssim(first, second).tolist() == pytest.approx(expected, abs=1e-6)


def test_ssim_of_constant_pictures_is_the_brightness_term() -> None:
    """Kills another C1, and a structure that is not 1 where nothing varies."""
    first, second = (
        torch.full((1, 1, 16, 16), 40, dtype=torch.uint8),
        torch.full((1, 1, 16, 16), 200, dtype=torch.uint8),
    )
    c_1 = 2.55**2
    assert ssim(first, second).item() == pytest.approx((2 * 40 * 200 + c_1) / (40**2 + 200**2 + c_1), abs=1e-6)
    assert ssim(first, first).item() == pytest.approx(1.0)


def test_ssim_of_a_negative_is_negative_and_of_itself_one() -> None:
    """Kills an absolute value or a clamp at 0."""
    first = ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 255).to(torch.uint8)[None, None]
    assert ssim(first, 255 - first).item() < -0.9
    assert ssim(first, first).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("height", "width", "window"), [(8, 8, 7), (1, 1, 1)])
def test_small_pictures_are_seen_through_the_largest_odd_window(height: int, width: int, window: int) -> None:
    """Kills an even window, padding, and a smaller one than fits."""
    first, second = pictures(2, 1, height, width), pictures(2, 1, height, width, seed=3)
    expected = [slow_ssim(first[i, 0].numpy(), second[i, 0].numpy(), window) for i in range(2)]
    assert ssim(first, second).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_narrow_picture_has_a_window_of_its_own_on_each_axis() -> None:
    """7 × 11, where 11 fits across and 7 down: moments by hand in one window. Kills one width for both axes."""
    first, second = pictures(1, 1, 7, 11), pictures(1, 1, 7, 11, seed=3)
    down, across = (np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * 1.5**2)) for size in (7, 11))
    window = np.outer(down / down.sum(), across / across.sum())
    a, b = first[0, 0].double().numpy(), second[0, 0].double().numpy()
    mu_a, mu_b = (window * a).sum(), (window * b).sum()
    var_a, var_b = (window * (a - mu_a) ** 2).sum(), (window * (b - mu_b) ** 2).sum()
    covariance, c_1, c_2 = (window * (a - mu_a) * (b - mu_b)).sum(), 2.55**2, 7.65**2
    expected = (2 * mu_a * mu_b + c_1) * (2 * covariance + c_2)
    expected /= (mu_a**2 + mu_b**2 + c_1) * (var_a + var_b + c_2)
    assert ssim(first, second).item() == pytest.approx(expected, abs=1e-6)


def test_protocols_tell_what_is_computed() -> None:
    """Kills a protocol that names another peak, cap, window or constant than the numbers have."""
    assert f"capped at {10 * math.log10(255**2 * 12):.2f} dB; mean of decibels" in PSNR_PROTOCOL
    assert "peak 255" in PSNR_PROTOCOL and "over all channels" in PSNR_PROTOCOL
    for part in ("11×11 (σ 1.5;", "whole windows only", "K 0.01 and 0.03", "mean over windows and channels"):
        assert part in SSIM_PROTOCOL


def test_wrong_pictures_are_refused_in_one_line() -> None:
    """Kills floats taken for bytes and shapes that are broadcast."""
    first = pictures(2, 1, 8, 8)
    for function in (psnr, ssim):
        with pytest.raises(UserError, match="uint8"):
            function(first.float(), first)
        with pytest.raises(UserError, match="differ in shape"):
            function(first, first[:1])  # kills silent broadcasting
    with pytest.raises(UserError, match=r"\[B, C, H, W\]"):
        ssim(first[0], first[0])
