"""Preconditioning: what the untrained denoiser is, and where precision changes."""

import pytest
import torch
from torch import Tensor, nn

from unilat.maths.noise import alpha, diffuse, expand, sigma
from unilat.maths.oracle import Gaussian
from unilat.nets.denoiser import Denoiser, call

LEVELS = torch.tensor([-9.0, -1.5, 0.3, 4.0, 9.0])
MEAN, STD = torch.tensor([0.4, -1.2]), torch.tensor([0.3, 2.5])


class Constant(nn.Module):
    """Answers the same numbers whatever it is asked, and remembers the question."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer, self.seen = answer, torch.empty(0)

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: object) -> Tensor:
        self.seen = x_t
        return self.answer.expand_as(x_t)


class Recorder(nn.Module):
    """An affine answer to what it sees, its level and its condition, which it remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: tuple[Tensor, object] | None = None

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: object) -> Tensor:
        self.asked = logsnr, cond
        return 0.5 * x_t + 0.1 * logsnr.view(-1, *[1] * (x_t.dim() - 1)) + 0.2


def test_zero_output_is_the_posterior_mean_of_gaussian_data() -> None:
    """Kills: any slip in the skip's coefficient, in the mean, or in their order (statistics differ by channel)."""
    x_t = torch.randn(5, 2, 3, 4)
    x_hat = Denoiser(Constant(torch.zeros(())), 2, MEAN, STD)(x_t, LEVELS)
    tokens = x_t.movedim(1, -1).reshape(-1, 2)
    expected = Gaussian(STD.square(), MEAN).denoise(tokens, LEVELS.repeat_interleave(12))
    torch.testing.assert_close(x_hat.movedim(1, -1).reshape(-1, 2), expected, rtol=1e-4, atol=1e-5)


def test_output_is_minus_v_for_unit_data() -> None:
    """``x̂ = α x_t − σ v̂``. Kills: a sign or a factor of the network's share."""
    answer, x_t = torch.randn(5, 2, 6), torch.randn(5, 2, 6)
    denoise = Denoiser(Constant(answer), 1)
    torch.testing.assert_close(
        denoise(x_t, LEVELS), expand(alpha(LEVELS), x_t) * x_t + expand(sigma(LEVELS), x_t) * answer
    )


@pytest.mark.parametrize("level", [-6.0, 0.0, 6.0])
def test_inputs_and_targets_have_unit_variance(level: float) -> None:
    """Kills: scales that fit one another and are wrong: the network would be asked for targets of any size."""
    x = MEAN.view(1, 2, 1) + STD.view(1, 2, 1) * torch.randn(1, 2, 40_000)
    lambda_t = torch.full((1,), level)
    x_t, net = diffuse(x, torch.randn_like(x), lambda_t), Constant(torch.zeros(()))
    denoise = Denoiser(net, 1, MEAN, STD)
    without = denoise(x_t, lambda_t)
    torch.testing.assert_close(net.seen.std(2), torch.ones(1, 2), rtol=0.02, atol=0)
    torch.testing.assert_close(net.seen.mean(2), torch.zeros(1, 2), rtol=0, atol=0.02)
    net.answer = torch.ones(())
    target = (x - without) / (denoise(x_t, lambda_t) - without)
    torch.testing.assert_close(target.std(2), torch.ones(1, 2), rtol=0.02, atol=0)
    assert (target * net.seen).mean().abs() < 0.02


@pytest.mark.parametrize("cond", [None, torch.tensor([1, 0, 2, 2, 1])])
def test_the_network_hears_its_own_level_and_the_condition(cond: Tensor | None) -> None:
    """λ + 2 ln s, s the geometric mean 0.75 ** ½ of 0.3 and 2.5. Kills: one ln s for two, its sign, the logarithm of
    the deviations' mean, a condition that ends at the wrapper."""
    net = Recorder()
    Denoiser(net, 2, MEAN, STD)(torch.randn(5, 2, 3, 4), LEVELS, cond)
    assert net.asked is not None and net.asked[1] is cond
    torch.testing.assert_close(net.asked[0], LEVELS + torch.tensor(0.75).log())


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_rescaled_it_denoises_scaled_data(scale: float) -> None:
    """Scaled data at λ are the old ones at λ + 2 ln scale, up to size. Kills: a mean left as it was, a variance's
    factor for a deviation's, the caller's own statistics changed."""
    mean, std = MEAN.clone(), STD.clone()
    made, other = Denoiser(Recorder(), 1, MEAN, STD), Denoiser(Recorder(), 1, mean, std)
    other.rescale(scale)
    noisier = LEVELS + 2 * torch.tensor(scale).log()
    x_t = torch.randn(5, 2, 6)
    size = (sigma(noisier) / sigma(LEVELS)).view(-1, 1, 1)
    torch.testing.assert_close(other(x_t, LEVELS), scale * made(size * x_t, noisier), rtol=1e-4, atol=1e-5)
    assert torch.equal(mean, MEAN) and torch.equal(std, STD)


def test_ends_are_exact() -> None:
    """Kills: 0/0 at the ends: no noise returns the input, no signal returns the mean."""
    x_t = torch.randn(2, 2, 4)
    denoise = Denoiser(Constant(torch.ones(())), 1, MEAN, STD)
    out = denoise(x_t, torch.tensor([torch.inf, -torch.inf]))
    torch.testing.assert_close(out[0], x_t[0])
    torch.testing.assert_close(out[1], (MEAN + STD)[:, None].expand(2, 4))


def test_precision_changes_in_one_place() -> None:
    """Kills: coefficients in low precision, a network left in float32, and autocast that outlives the call."""
    inside: list[tuple[torch.dtype, torch.dtype]] = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv1d(2, 2, 3, padding=1)

        def forward(self, x_t: Tensor, logsnr: Tensor, cond: object) -> Tensor:
            out = self.layer(x_t)
            inside.append((x_t.dtype, out.dtype))
            return out

    net, x_t = Net(), torch.randn(5, 2, 16)
    fine = Denoiser(net, 1, MEAN, STD)(x_t, LEVELS)
    coarse = Denoiser(net, 1, MEAN, STD, precision=torch.bfloat16)(x_t, LEVELS)
    assert inside == [(torch.float32, torch.float32), (torch.float32, torch.bfloat16)]
    assert fine.dtype == coarse.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
    assert not torch.equal(fine, coarse)
    assert call(net, torch.bfloat16, x_t, LEVELS, None).dtype == torch.float32
    torch.testing.assert_close(coarse, fine, rtol=0, atol=0.05)
    sharp = torch.full((5,), 12.0)  # here the answer weighs next to nothing: float32 coefficients must show
    torch.testing.assert_close(
        Denoiser(net, 1, precision=torch.bfloat16)(x_t, sharp), Denoiser(net, 1)(x_t, sharp), rtol=0, atol=1e-4
    )


def test_statistics_travel_with_the_weights() -> None:
    """Kills: mean and std that are not saved: a loaded model would be preconditioned for other data."""
    made = Denoiser(Constant(torch.zeros(())), 2, MEAN, STD)
    other = Denoiser(Constant(torch.zeros(())), 2, torch.zeros(2), torch.ones(2))
    other.load_state_dict(made.state_dict())
    x_t = torch.randn(5, 2, 3, 4)
    assert torch.equal(made(x_t, LEVELS), other(x_t, LEVELS))
