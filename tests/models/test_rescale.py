"""Latents times a number: the decoder must see what it knows, and the prior price what is there now."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from nets.samples import KINDS, encoder, shaken, signal, uvit
from unilat.maths.oracle import Gaussian
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder
from unilat.nets.gaussian import GaussianDenoiser
from unilat.nets.kinds import Kind

from .fixed import autoencoder

SCALE = 1.7


@pytest.mark.parametrize("start", ["latent", "data"])
@pytest.mark.parametrize("end", [None, (0.0, 1.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_scaled_latents_are_decoded_as_before(start: str, end: tuple[float, float] | None, kind: Kind) -> None:
    """Kills: readers multiplied where they must be divided, one of them forgotten, the told noise level scaled too."""
    changed = {"encoder": encoder(2, kind), "decoder": uvit(2, kind=kind)}
    model = autoencoder(decoder_start=start, random_end=end, **changed)
    x_t, z_0 = signal(2), signal(2, 5, coarse=True)
    level, told = torch.tensor([-3.0, 0.5, 4.0]), None if end is None else torch.tensor([-2.0, 3.0, 4.5])
    with torch.no_grad():
        before = model.decoder(x_t, level, model.condition(z_0, told))
        model.rescale(SCALE)
        after = model.decoder(x_t, level, model.condition(SCALE * z_0, told))
        assert not torch.allclose(model.decoder(x_t, level, model.condition(z_0, told)), before, atol=1e-3)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_scaled_latents_are_priced_at_the_shifted_level(whole: bool) -> None:
    """The prior of scaled latents is scale times the old one at λ + 2 ln scale, whichever denoiser it is.

    Kills: a prior scaled the other way or not at all, latents scaled twice.
    """
    config = autoencoder(covariance_up_to=1024 if whole else 0).config
    model = Autoencoder(config, 3, grid=(2, 4))
    shaken(model, scale=0.1)
    assert isinstance(model.prior, GaussianDenoiser) == whole
    model.prior.mean.add_(0.3)
    z, noise, level, x = signal(2, 5, coarse=True), signal(2, 5, coarse=True, seed=4), torch.tensor(1.2), signal(2)

    def noised(latent: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(logsnr).sqrt() * latent + torch.sigmoid(-logsnr).sqrt() * noise, logsnr.expand(3)

    with torch.no_grad():
        old, latent = model.prior(*noised(z, level + 2 * math.log(SCALE)), None), model.encode(x)
        model.rescale(SCALE)
        torch.testing.assert_close(model.prior(*noised(SCALE * z, level), None), SCALE * old, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.encode(x), SCALE * latent, rtol=1e-5, atol=1e-6)


def test_scaled_gaussian_latents_have_the_bits_of_their_variance() -> None:
    """½ ln(1 + s² e^λ₀) a dimension and the terminal mismatch. Kills: a scale that moves the bits the wrong way."""
    model = autoencoder(fresh=True)
    model.rescale(SCALE)
    z = SCALE * torch.randn(512, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        nats = model.rate(z, Draws.single(torch.Generator().manual_seed(0), 512)).nats()
    exact = Gaussian(torch.full((160,), SCALE**2), torch.zeros(160)).rate_nats(-10.0, 5.0)
    assert float(nats.mean()) == pytest.approx(exact, rel=0.005)


def test_a_normal_prior_of_scaled_latents_charges_their_own_kl() -> None:
    """Kills: N(0, I) charged where the prior is N(m, s²), a variance for a deviation, the KL at another noise."""
    model = autoencoder(fresh=True, price="normal", lambda_0=2.0)
    model.prior.mean.add_(0.4)
    model.rescale(SCALE)
    z = SCALE * (0.4 + signal(2, 5, coarse=True))
    alpha, sigma = math.sqrt(1 / (1 + math.exp(-2.0))), math.sqrt(1 / (1 + math.exp(2.0)))
    prior = Normal(torch.tensor(alpha * SCALE * 0.4), torch.tensor(math.hypot(alpha * SCALE, sigma)))
    exact = kl_divergence(Normal(alpha * z, torch.tensor(sigma)), prior).flatten(1).sum(1)
    rate = model.rate(z, Draws.single(torch.Generator().manual_seed(0), 3))
    torch.testing.assert_close(rate.nats(), exact, rtol=1e-5, atol=1e-4)
