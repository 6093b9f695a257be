"""The decoder's start: the exact denoiser of the Gaussian that its small network draws from the latent."""

import math

import pytest
import torch

from nets.samples import AXES, encoder, shaken, signal, uvit
from unilat.maths.noise import alpha, sigma
from unilat.maths.oracle import Gaussian
from unilat.nets.decoder import START, Decoder, Drawing, hear, readers
from unilat.nets.denoiser import Denoiser
from unilat.nets.encoder import EncoderConfig
from unilat.nets.layers import split_patches

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
        torch.testing.assert_close(found[row].flatten()[None], exact, rtol=1e-4, atol=1e-5)


def test_before_training_it_is_the_data_s_mean_and_a_share_of_its_deviation() -> None:
    """Kills: a start that depends on the latent or forgets the data's statistics."""
    made = decoder()
    mean, std = made.gaussian(made.drawing(signal(2, 5, coarse=True)))
    torch.testing.assert_close(mean, MEAN.view(1, 3, 1, 1).expand_as(mean))
    torch.testing.assert_close(std, STD.view(1, 3, 1, 1).expand_as(std) * torch.tensor(START).exp())


def test_moments_by_hand() -> None:
    """``m = mean + std a``, ``s = std exp(b + ln 0.3)`` with the exponent held in [−6, 1]. Kills: the two halves taken
    for one another, a variance's logarithm, the data's scale forgotten, bounds on b alone or none."""
    drawn = 3 * signal(2, 6)
    drawn[0, 3:, 0, :3], drawn[1, 3:, 2, 4:7] = torch.tensor([-20.0, 1.9, 10.0]), torch.tensor([-4.9, 0.0, 2.5])
    mean, std = decoder().gaussian(drawn)
    for channel in range(3):
        exponent = (drawn[:, 3 + channel].double() + math.log(0.3)).clamp(-6.0, 1.0)
        torch.testing.assert_close(std[:, channel], (STD[channel] * exponent.exp()).float())
        torch.testing.assert_close(mean[:, channel], MEAN[channel] + STD[channel] * drawn[:, channel])


@pytest.mark.parametrize("again", [False, True])
def test_the_network_corrects_in_units_of_what_is_left(again: bool) -> None:
    """``x̂ = m + α s² / v (x_t − α m) + σ s / √v F((x_t − α m) / √v, drawn; λ + 2 ln 0.3 s₀, z_0)``. Kills: a level that
    forgets 0.3 or takes its logarithm once, noisy numbers shown as they are, nothing drawn shown, no latent, F's sign
    or unit."""
    made = shaken(decoder(), scale=0.3)
    assert isinstance(made, Decoder)
    made.checkpointing = again
    x_t, z_0 = signal(2), signal(2, 5, coarse=True)
    drawn = made.drawing(z_0)
    mean, std = made.gaussian(drawn)
    a, s = alpha(LEVELS).view(3, 1, 1, 1), sigma(LEVELS).view(3, 1, 1, 1)
    v = a**2 * std**2 + s**2
    seen = torch.cat([(x_t - a * mean) / v.sqrt(), drawn], dim=1)
    output = made.net(seen, LEVELS + 2 * math.log(0.3) + 2 / 3 * math.log(0.3 * 0.5 * 1.0), z_0)
    assert output.std() > 0.1
    wanted = mean + a * std**2 / v * (x_t - a * mean) + s * std / v.sqrt() * output
    torch.testing.assert_close(made(x_t, LEVELS, z_0), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_drawn_is_the_encoders_mirror() -> None:
    """Coarsest level first, unfolding as the encoder folds, a norm before the last map. Kills: strides or blocks in the
    encoder's own order, a norm on another level."""
    config = EncoderConfig(channels=(16, 20, 24), blocks=(1, 2, 3), strides=((2, 1), (1, 2)), patch=(1, 4))
    net = shaken(Drawing(config, 3, 5))
    assert isinstance(net, Drawing)
    z = signal(2, 5)[:, :, :4, :2]
    coarse, middle, fine = net.levels
    assert [len(level) for level in (coarse, middle, fine)] == [3, 2, 1]
    h = middle(split_patches(net.ups[0](coarse(net.stem(z))), (1, 2)))
    h = net.norm(fine(split_patches(net.ups[1](h), (2, 1))))
    wanted = split_patches(net.ups[2](h), (1, 4))
    assert wanted.shape == (3, 6, 8, 16)
    torch.testing.assert_close(net(z), wanted, rtol=1e-4, atol=1e-4)


def test_the_latent_is_read_eight_times_as_loudly() -> None:
    """torch's start is uniform within 1 / √(inputs of one output). Kills: another factor, which no shape shows."""
    weight, bound = decoder().drawing.stem.weight, 8 / math.sqrt(5 * 9)
    assert 0.98 * bound < float(weight.detach().abs().max()) <= bound
    assert float(weight.detach().square().mean()) == pytest.approx(bound**2 / 3, rel=0.1)


def test_a_latent_is_heard_once_for_many_calls() -> None:
    """Kills: a drawing made anew at each step, or of another row's latent; other denoisers take the latent itself."""
    made, calls = shaken(decoder(), scale=0.1), []
    assert isinstance(made, Decoder)
    x_t, z_0 = signal(2), signal(2, 5, coarse=True)
    wanted = [made(x_t, level.expand(3), z_0) for level in LEVELS]
    made.drawing.register_forward_hook(lambda *rest: calls.append(rest))
    heard = hear(made, z_0)
    found = [made(x_t, level.expand(3), heard) for level in LEVELS]
    assert all(map(torch.equal, found, wanted)) and len(calls) == 1
    assert hear(Denoiser(made.net, 2), z_0) is z_0 and hear(made, None) is None


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
    torch.testing.assert_close(made(x_t, LEVELS, 3 * z_0), before, rtol=1e-4, atol=1e-5)
