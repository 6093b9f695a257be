"""Where noise levels fall, as a part of the model."""

import copy

import pytest
import torch
from torch import Tensor

from nets.samples import signal, vit
from unilat.maths.levels import rate_table
from unilat.maths.seeds import Draws
from unilat.models.base import Base, BaseConfig
from unilat.models.placing import Placing

from .fixed import autoencoder


def taught(factor: float = 1.0) -> Placing:
    """After 30 batches of an integrand e^(-lambda/2)."""
    one = Placing(rate_table(-8.0, 4.0))
    for step in range(30):
        levels = one.sample(Draws.keyed(0, step, 0, 64).strata(64))
        one.learn(one.observe(levels.lambda_t, factor * (-levels.lambda_t / 2).exp() / levels.density).sum(0))
    return one


def test_what_was_learned_travels_with_the_weights_and_is_used_at_once() -> None:
    """Kills: moments that are no buffer, a table that outlives the moments it was made of."""
    one, other = taught(), Placing(rate_table(-8.0, 4.0))
    assert torch.equal(other.table.mass, other.guess.mass)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.table.mass, one.table.mass) and not torch.equal(one.table.mass, one.guess.mass)
    strata = Draws.keyed(1, 0, 0, 8).strata(8)
    assert torch.equal(copy.deepcopy(one).sample(strata).lambda_t, one.sample(strata).lambda_t)
    assert torch.equal(one.sample(strata).lambda_t, one.table.sample(strata).lambda_t)
    assert not torch.equal(one.sample(strata).lambda_t, one.guess.sample(strata).lambda_t)
    before = one.table
    one.learn(one.observe(torch.full((500,), 3.9), torch.full((500,), 1e4)).sum(0))
    assert float(one.table.mass[-8:].sum()) > 2 * float(before.mass[-8:].sum())


def test_moments_are_of_the_loss_whatever_table_drew_the_levels() -> None:
    """g = f / q, q the guess's density, though the levels fall along another: by hand for f = 3 + λ².

    Kills: what a level drawn from the table in use tells held against the first guess, batches that never fade.
    """
    one = taught()
    levels = one.sample(Draws.keyed(5, 0, 0, 50).strata(50))
    fine = ((levels.lambda_t.double() + 8) * 256 / 12).long()  # the guess has 256 equal bins on [−8, 4]
    f, q = 3 + levels.lambda_t.double().square(), one.guess.mass[fine] * 256 / 12
    wanted = torch.zeros(50, 64, dtype=torch.float64)
    wanted[torch.arange(50), fine // 8] = 1.0
    wanted[torch.arange(50), 32 + fine // 8] = (f / q).square()
    seen = one.observe(levels.lambda_t, f.float() / levels.density)
    torch.testing.assert_close(seen.double(), wanted, rtol=1e-4, atol=0)
    before = one.moments.clone()
    one.learn(seen.sum(0))
    torch.testing.assert_close(one.moments.flatten(), before.flatten() * 0.5 ** (50 / 2000) + seen.sum(0))


def test_each_loss_is_told_with_the_levels_it_was_drawn_at() -> None:
    """Kills: losses told at other examples' levels: what is learned of one level would be another's."""
    model, stage_2 = autoencoder(), Base(BaseConfig(vit=vit()), 5, 2, 0, -10.0, 5.0)
    asked: list[Tensor] = []
    for part in (model.prior, model.decoder, stage_2.denoise):
        part.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1]))
    losses = model.losses(signal(2), Draws.keyed(0, 2, 0, 3))
    _, base_levels = stage_2.losses(
        signal(2, 5, coarse=True), torch.zeros(3, dtype=torch.int64), Draws.keyed(0, 2, 0, 3)
    )
    assert losses.decoder_lambda is not None and len(set(losses.decoder_lambda.tolist())) == 3
    for told, heard in zip((losses.rate.lambda_t, losses.decoder_lambda, base_levels), asked, strict=True):
        assert torch.equal(told, heard) and not torch.equal(told, told.sort().values)


def test_the_scale_of_the_loss_is_nothing() -> None:
    """Kills: a prior count in nats, which a weak loss would never outweigh."""
    torch.testing.assert_close(taught(1e-4).table.mass, taught(1e3).table.mass, rtol=1e-4, atol=0)


def test_weights_saved_before_levels_were_learned_load_and_others_must_be_whole() -> None:
    """Kills: a strictness that shuts old runs out, and a leniency that lets a missing weight pass."""
    model = autoencoder()
    x, draws = signal(2), Draws.keyed(0, 0, 0, 3)
    wanted = model.losses(x, draws).total(2.0)
    old = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("moments")}
    again = autoencoder()
    again.rate_levels.learn(torch.arange(64.0))
    assert not torch.equal(again.rate_levels.table.mass, again.rate_levels.guess.mass)
    again.load_state_dict(old)
    assert torch.equal(again.losses(x, Draws.keyed(0, 0, 0, 3)).total(2.0), wanted)
    del old["encoder.head.weight"]
    with pytest.raises(RuntimeError, match=r"encoder\.head\.weight"):
        again.load_state_dict(old)


def test_bits_are_measured_at_learned_levels_and_stay_the_same_bits() -> None:
    """The rate of 40 batches agrees within 3 s.e. of the two. Kills: a density that is not that of the draw."""
    fixed, moved = autoencoder(), autoencoder()
    moved.load_state_dict(fixed.state_dict())
    z = 0.3 * torch.randn(64, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    for step in range(20):
        terms = moved.rate(z, Draws.keyed(2, step, 0, 64))
        moved.rate_levels.learn(
            moved.rate_levels.observe(terms.lambda_t, terms.diffusion.detach().flatten(1).sum(1)).sum(0)
        )
    assert not torch.equal(moved.rate_levels.table.mass, fixed.rate_levels.table.mass)
    found = [
        torch.stack([one.rate(z, Draws.keyed(seed, step, 0, 64)).nats().detach().mean() for step in range(40)])
        for seed, one in ((3, fixed), (4, moved))
    ]
    error = float((found[0].var() / 40 + found[1].var() / 40).sqrt())
    assert abs(float(found[0].mean() - found[1].mean())) < 3 * error
