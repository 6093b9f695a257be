"""The decoder's start: the exact denoiser of the Gaussian that its small network draws from the latent."""

import pytest
import torch

from nets.samples import AXES, encoder, shaken, signal, uvit
from unilat.maths.oracle import Gaussian
from unilat.nets.decoder import START, Decoder, readers

LEVELS = torch.tensor([-9.0, 0.3, 4.0])
MEAN, STD = torch.tensor([0.4, -0.2, 0.0]), torch.tensor([0.3, 0.5, 1.0])


def decoder(axes: int = 2) -> Decoder:
    """A small one as it is before training."""
    torch.manual_seed(0)
    return Decoder(uvit(axes), encoder(axes), 3, 5, MEAN, STD).eval()


@pytest.mark.parametrize("axes", AXES)
def test_with_a_silent_network_it_is_the_exact_denoiser_of_what_is_drawn(axes: int) -> None:
    """Kills: a variance for a deviation, α left out, or the data's mean in the place of the drawn one."""
    made = decoder(axes)
    shaken(made.drawing, scale=0.3)
    x_t, z_0 = signal(axes), signal(axes, 5, coarse=True)
    mean, std = made.gaussian(made.drawing(z_0))
    assert mean.std() > 0.05
    assert (std / std.mean()).std() > 0.05
    found = made(x_t, LEVELS, z_0)
    for row, level in enumerate(LEVELS):
        exact = Gaussian(std[row].flatten().square(), mean[row].flatten()).denoise(
            x_t[row].flatten()[None], level[None]
        )
        torch.testing.assert_close(found[row].flatten()[None], exact, rtol=1e-3, atol=1e-4)


def test_before_training_it_is_the_data_s_mean_and_a_share_of_its_deviation() -> None:
    """Kills: a start that depends on the latent or forgets the data's statistics."""
    made = decoder()
    mean, std = made.gaussian(made.drawing(signal(2, 5, coarse=True)))
    torch.testing.assert_close(mean, MEAN.view(1, 3, 1, 1).expand_as(mean))
    torch.testing.assert_close(std, STD.view(1, 3, 1, 1).expand_as(std) * torch.tensor(START).exp())


def test_the_noisiest_level_returns_what_is_drawn() -> None:
    """Kills: a picture that must be read out of noise: one call at the noisiest level is the latent's own word."""
    made = decoder()
    shaken(made.drawing, scale=0.3)
    x_t, z_0 = signal(2), signal(2, 5, coarse=True)
    torch.testing.assert_close(made(x_t, torch.full((3,), -40.0), z_0), made.gaussian(made.drawing(z_0))[0])


def test_readers_are_all_layers_that_see_the_latent() -> None:
    """Kills: one path forgotten when the scale of latents changes: the answer would no longer be the same."""
    made = decoder()
    shaken(made, scale=0.1)
    x_t, z_0 = signal(2), signal(2, 5, coarse=True)
    before = made(x_t, LEVELS, z_0)
    with torch.no_grad():
        for layer in readers(made):
            layer.weight.div_(3.0)
    torch.testing.assert_close(made(x_t, LEVELS, 3 * z_0), before, rtol=1e-3, atol=1e-4)
