"""Stage 2: the weighted loss, classes that get lost on purpose, and samples that keep the noise σ(λ₀)."""

import math

import pytest
import torch
from torch import Tensor

from nets.samples import shaken, vit
from unilat.maths.denoising import denoising_loss
from unilat.maths.noise import diffuse
from unilat.maths.oracle import Gaussian
from unilat.maths.seeds import Draws
from unilat.maths.weighting import sigmoid_weight
from unilat.models.base import Base, BaseConfig
from unilat.nets.condition import Condition
from unilat.nets.vit import ViTConfig

MEAN, STD = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.05, 0.3, 2.0])


def base(classes: int = 0, lambda_0: float = 5.0, mean: Tensor = MEAN, std: Tensor = STD, **changed: float) -> Base:
    torch.manual_seed(0)
    config = BaseConfig(vit=vit(), **changed)  # type: ignore[arg-type]
    return Base(config, 3, 2, classes, lambda_min=-10.0, lambda_0=lambda_0, mean=mean, std=std).eval()


def draws(batch: int) -> Draws:
    return Draws.single(torch.Generator().manual_seed(0), batch)


@pytest.mark.parametrize("lambda_0", [2.0, 5.0])
def test_samples_keep_the_noise_that_the_decoder_was_trained_with(lambda_0: float) -> None:
    """Kills: ẑ returned instead of z_0 (standard deviation 0.05 instead of 0.097), a grid that ends elsewhere than λ₀.

    The untrained base is exact for N(m, s²), so its samples must be z_0 ~ N(α m, α² s² + σ²) at λ₀.
    """
    z_1 = torch.randn(128, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    z_0 = base(lambda_0=lambda_0).sample(z_1, None, steps=80)
    alpha_2 = 1 / (1 + math.exp(-lambda_0))
    expected = (alpha_2 * STD.square() + 1 - alpha_2).sqrt()
    torch.testing.assert_close(z_0.std((0, 2, 3)), expected, rtol=0.015, atol=0)
    torch.testing.assert_close(z_0.mean((0, 2, 3)), math.sqrt(alpha_2) * MEAN, rtol=0, atol=0.015)
    tokens = z_1.movedim(1, -1).reshape(-1, 3)
    exact = Gaussian(STD.square(), MEAN).probability_flow(tokens, -10.0, lambda_0)
    torch.testing.assert_close(z_0.movedim(1, -1).reshape(-1, 3), exact, rtol=0, atol=0.005)


def test_loss_of_gaussian_latents_is_its_integral() -> None:
    """Kills: a weight that rises with λ, e^λ or the density left out, a mean over dimensions, levels beyond λ₀."""
    z = MEAN.view(3, 1, 1) + STD.view(3, 1, 1) * torch.randn(512, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss, levels = base(bias=1.0).losses(z, torch.zeros(512, dtype=torch.int64), draws(512))
    assert 4.5 < float(levels.max()) <= 5.0
    level = torch.linspace(-10, 5, 4001, dtype=torch.float64)
    mmse = sum(
        s2 * torch.sigmoid(-level) / (torch.sigmoid(level) * s2 + torch.sigmoid(-level)) for s2 in STD.double().square()
    )
    exact = 64 * 0.5 * torch.trapezoid(torch.sigmoid(1.0 - level) * level.exp() * mmse, level)
    assert loss.shape == (512,)
    assert float(loss.mean()) == pytest.approx(float(exact), rel=0.02)


def _told(model: Base) -> list[Tensor | None]:
    """The classes that the network is given, call by call; 7 for the null of 7 classes."""
    calls: list[Tensor | None] = []

    def watch(module: torch.nn.Module, inputs: tuple[Tensor, Tensor, Condition | None]) -> None:
        cond = inputs[2]
        calls.append(None if cond is None else cond.rows if cond.dropped is None else cond.rows.where(~cond.dropped, 7))

    model.denoise.net.register_forward_pre_hook(watch)
    return calls


@pytest.mark.parametrize(("dropout", "low", "high"), [(0.0, 0, 0), (0.25, 0.22, 0.28), (1.0, 1, 1)])
def test_so_many_examples_lose_their_class(dropout: float, low: float, high: float) -> None:
    """Kills: the share of those that keep it, class 0 for null, or classes shuffled among examples."""
    model, labels = base(classes=7, label_dropout=dropout), torch.arange(2000) % 7
    calls = _told(model)
    with torch.no_grad():
        model.losses(torch.zeros(2000, 3, 2, 2), labels, draws(2000))
    (cond,) = calls
    assert cond is not None
    lost = cond == 7
    assert low <= float(lost.float().mean()) <= high
    assert torch.equal(cond[~lost], labels[~lost])
    assert dropout in (0.0, 1.0) or set(labels[lost].tolist()) == set(range(7))


def test_without_classes_there_is_no_condition() -> None:
    """Kills: labels of zeros taken for a class where the data have none."""
    model = base()
    calls = _told(model)
    model.losses(torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64), draws(4))
    model.sample(torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64), steps=1, guidance=3.0)
    assert calls == [None, None]


@pytest.mark.parametrize(("guidance", "calls_a_step"), [(1.0, 1), (2.0, 2), (0.0, 2)])
def test_guidance_costs_what_it_says(guidance: float, calls_a_step: int) -> None:
    """Kills: a second call where the scale is 1, a null class that is another class, a step more or less."""
    model, labels = base(classes=7), torch.tensor([0, 3, 6])
    calls = _told(model)
    model.sample(torch.randn(3, 3, 2, 2), labels, steps=5, guidance=guidance)
    told = [call.tolist() for call in calls if call is not None]
    assert len(calls) == len(told) <= 5 * calls_a_step
    assert guidance == 0.0 or len(calls) == 5 * calls_a_step
    assert [0, 3, 6] in told and all(call in ([0, 3, 6], [7, 7, 7]) for call in told)


def test_guidance_moves_away_from_the_null_class() -> None:
    """Kills: a guidance scale that is not handed on, and its sign: 1 must lie between 0 and 2 (they are one line)."""
    model, labels, z_1 = base(classes=7), torch.tensor([0, 3, 6]), torch.randn(3, 3, 2, 2)
    shaken(model.denoise.net, scale=0.1)
    none, one, two = (model.sample(z_1, labels, steps=1, guidance=scale) for scale in (0.0, 1.0, 2.0))
    torch.testing.assert_close(two - one, one - none, rtol=1e-4, atol=1e-5)
    assert (one - none).abs().amax() > 1e-4
    torch.testing.assert_close(none, model.sample(z_1, None, steps=1))


def test_one_class_is_guided_too() -> None:
    """Kills: guidance that begins with the second class: one class and the null class are two."""
    model, z_1 = base(classes=1), torch.randn(3, 3, 2, 2)
    shaken(model.denoise.net, scale=0.1)
    one, two = (model.sample(z_1, torch.zeros(3, dtype=torch.int64), steps=1, guidance=scale) for scale in (1.0, 2.0))
    torch.testing.assert_close(two - one, one - model.sample(z_1, None, steps=1), rtol=1e-4, atol=1e-5)
    assert (two - one).abs().amax() > 1e-4


def test_classes_change_samples() -> None:
    """Kills: labels lost on the way to the network, or one label for the whole batch."""
    model, z_1 = base(classes=7), torch.randn(1, 3, 2, 2).expand(2, -1, -1, -1)
    shaken(model.denoise.net, scale=0.1)
    made = model.sample(z_1, torch.tensor([1, 5]), steps=3)
    assert (made[0] - made[1]).abs().amax() > 1e-4


def test_labels_are_lost_by_row_of_the_global_batch() -> None:
    """Kills: dropout of labels that differs between one process and two."""
    model, z, labels = base(classes=7, label_dropout=0.5), torch.randn(6, 3, 2, 2), torch.arange(6)
    shaken(model.denoise.net, scale=0.1)
    whole, _ = model.losses(z, labels, Draws.keyed(0, 3, 0, 6))
    part, _ = model.losses(z[4:], labels[4:], Draws.keyed(0, 3, 4, 6))
    torch.testing.assert_close(part, whole[4:], rtol=1e-5, atol=1e-4)


def _dropping(share: float) -> Base:
    """A base of one level of 4 blocks that drops a share of its 16 tokens in training, weights shaken."""
    config = BaseConfig(vit=ViTConfig(channels=(16,), blocks=(4,), head_width=16, patch=2), token_dropping=share)
    model = Base(config, 3, 2, 7, lambda_min=-10.0, lambda_0=5.0, mean=MEAN, std=STD).eval()
    shaken(model.denoise.net, scale=0.1)
    return model


LATENTS = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(6)


def test_without_dropping_the_loss_is_what_it_was() -> None:
    """Kills: a draw more or earlier than before, a network called otherwise: equal to the last bit, written out."""
    model, by_hand = _dropping(0.0), draws(6)
    loss, _ = model.losses(LATENTS, LABELS, own := draws(6))
    levels = model.levels.sample(by_hand.strata(6))
    z_t = diffuse(LATENTS, by_hand.normal(LATENTS), levels.lambda_t)
    cond = Condition(torch.where(by_hand.uniform(6) < 0.1, 7, LABELS))
    z_hat = model.denoise(z_t, levels.lambda_t, cond)
    weight = sigmoid_weight(levels.lambda_t, model.config.bias)
    assert torch.equal(loss, denoising_loss(LATENTS, z_hat, levels, weight))
    assert torch.equal(own.generator.get_state(), by_hand.generator.get_state())


def test_dropping_so_little_that_all_stay_changes_no_loss() -> None:
    """Kills: places drawn before noise or labels, or tokens put back elsewhere: blocks do not see an order."""
    plain, all_kept, half = (_dropping(share).losses(LATENTS, LABELS, draws(6))[0] for share in (0.0, 0.03, 0.5))
    torch.testing.assert_close(all_kept, plain, rtol=1e-4, atol=1e-4)
    assert (half - plain).abs().amin() > 1e-4


@pytest.mark.parametrize(("share", "kept"), [(0.25, 12), (0.5, 8), (0.9, 2), (1.0, 1)])
def test_kept_places_are_drawn_by_row_of_the_global_batch(share: float, kept: int) -> None:
    """Kills: places that two halves of a batch share, or draw from elsewhere, and the share kept for that dropped."""
    model = _dropping(share)
    calls: list[Tensor] = []
    model.denoise.net.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[3]))
    model.losses(LATENTS, LABELS, Draws.keyed(0, 3, 0, 6))
    for first, last in ((0, 3), (3, 6)):
        model.losses(LATENTS[first:last], LABELS[first:last], Draws.keyed(0, 3, first, 6))
    whole, *halves = calls
    assert whole.shape == (6, kept) and torch.equal(torch.cat(halves), whole)
    assert all(len(set(row)) == kept and set(row) <= set(range(16)) for row in whole.tolist())
    assert not torch.equal(whole[0], whole[3])
    model.losses(LATENTS, LABELS, Draws.keyed(0, 4, 0, 6))
    assert not torch.equal(calls[-1], whole)


def test_sampling_drops_nothing() -> None:
    """Kills: tokens dropped where a latent is made."""
    one, other = _dropping(0.75), _dropping(0.0)
    z_1, labels = torch.randn(3, 3, 8, 8), torch.tensor([1, 5, 0])
    assert torch.equal(one.sample(z_1, labels, steps=3), other.sample(z_1, labels, steps=3))
