"""Rate and error beside Shannon's: units that agree, and a bound that nothing beats."""

import math

import pytest
import torch

from unilat.maths.oracle import rate_distortion_gaussian
from unilat.maths.rate import LN2
from unilat.models.autoencoder import Autoencoder
from unilat.studies.oracle import correlated_gaussian
from unilat.studies.source import NETWORKS, rate_distortion, reached


def test_what_is_reached_is_measured_in_the_sources_units() -> None:
    """Kills: half a squared error, bits of the latent's dimensions for the source's, R(D) at another distortion.

    The untrained decoder answers with the mean, so its error is the variance and R(D) there is 0; at half of it the
    closed form is known.
    """
    source = correlated_gaussian()
    x = source.sample(8192, torch.Generator().manual_seed(0)).view(-1, 4, 4)
    torch.manual_seed(0)
    model = Autoencoder(NETWORKS, 4, 0.0, 1.0).eval()
    model.start_at_unit_scale(x)
    found = reached(model, x, source.variances, 0, estimates=4)
    variance = float(source.variances.mean())
    assert found.distortion == pytest.approx(variance, rel=0.03)
    assert found.shannon == pytest.approx(0, abs=0.02)
    assert found.rate == pytest.approx(3.611582, rel=0.05)  # unit-variance latents under an untrained prior
    half = rate_distortion_gaussian(source.variances.double(), 8 * variance) / LN2 / 16
    assert half > 0.2 and math.isfinite(found.stderr)


def test_training_comes_near_shannon_and_never_below() -> None:
    """Kills: a rate without one of its terms (it would fall below R(D)), a decoder that does not hear the latent."""
    found = rate_distortion(3.0, samples=25_600, measured=8192)
    assert 1.0 < found.ratio < 2.0 and found.rate > 0.2
