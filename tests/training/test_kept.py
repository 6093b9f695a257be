"""Stage 1 on an encoder that is kept: its scale alone holds the bits, and latents, prior and decoder agree on it."""

import copy
import math

import pytest
import torch

from unilat.fields import FieldError
from unilat.maths.seeds import Draws
from unilat.models.control import ControlConfig
from unilat.run.stages import AutoencoderStage

from .pictured import Known, pictures, stage
from .test_bits import bits_at

FAST = ControlConfig(gain=12.0, proportional=3.0, smoothing=10.0)


def kept(wanted: float, **changed: object) -> tuple[AutoencoderStage, torch.Tensor]:
    """A stage with the kept encoder :class:`Known` and an exact prior, and latents of unit scale."""
    one = stage(pictures(32, seed=1) // 4 + 160, target_bpp=wanted, tune="decoder", covariance_up_to=0, control=FAST)
    one.model.encoder = Known()  # pyright: ignore[reportAttributeAccessIssue]
    one.model.encoder.scale = torch.ones(())
    return one, one.model.encode(one.pictures[torch.arange(8)].float() / 127.5 - 1)


@pytest.mark.parametrize("away", [0.9, -0.7])
def test_the_controller_finds_the_scale_that_a_closed_form_asks_for(away: float) -> None:
    """Of Gaussian bits, an integral: what is measured at each scale moves the next, until the wanted bits stand.

    Kills: a scale that moves the wrong way or twice, a loss factor that moves with it, bits that are left off.
    """
    one, z = kept(0.3)
    wanted = bits_at(z, away)
    one, _ = kept(wanted)
    encoder = one.model.encoder
    assert isinstance(encoder, Known)
    told: dict[str, float] = {}
    for step in range(240):
        told = one.after_step({"bpp": bits_at(z, math.log(encoder.gain))}, 8 * (step + 1))
        assert told["loss_factor"] == one.loss_factor == 1.0
        assert told["scale"] == pytest.approx(encoder.gain, rel=1e-4)
    assert math.log(encoder.gain) == pytest.approx(away, abs=0.02)
    assert float(one.model.prior.std) == pytest.approx(encoder.gain, rel=1e-4)


def test_bits_beyond_the_limit_are_refused_by_the_scale() -> None:
    """Kills: a line about a loss factor that nobody moves."""
    one, _ = kept(0.3)
    one.stuck, one.controller.integral = 20_000, math.log(FAST.limit)
    with pytest.raises(FieldError, match=r"with the scale at its limit .* fewer bits, or more autoencoder.latent_ch"):
        one.after_step({"bpp": 0.01}, 8)


def test_a_kept_encoder_has_no_gradients_and_its_decoder_hears_no_scale() -> None:
    """At any scale the decoder hears the same latent, with other noise. Kills: gradients of what is kept, a latent that
    is divided twice or never."""
    one = stage(tune="decoder", covariance_up_to=0)
    loss, _ = one.losses(one.batch(torch.arange(3)), Draws.keyed(0, 0, 0, 3))
    loss.sum().backward()
    grads = {name: weight.grad for name, weight in one.model.named_parameters()}
    assert all(grad is None for name, grad in grads.items() if name.startswith("encoder"))
    assert all(grad is not None for name, grad in grads.items() if name.startswith("decoder.drawing"))
    z = one.model.encode(one.pictures[torch.arange(3)].float() / 127.5 - 1)
    heard, weights = one.model.condition(z), copy.deepcopy(one.model).state_dict()
    one.model.rescale(3.0)
    moved = {name for name, tensor in one.model.state_dict().items() if not torch.equal(tensor, weights[name])}
    assert moved == {"encoder.scale", "prior.std"}
    again = one.model.encode(one.pictures[torch.arange(3)].float() / 127.5 - 1)
    torch.testing.assert_close(again, 3 * z)
    torch.testing.assert_close(one.model.condition(again), heard)


def test_what_trims_may_ask_for_other_bits_than_the_wanted() -> None:
    """A prior that settles later is begun at more bits. Kills: the wanted bits where the aim is due."""
    one, _ = kept(0.3)
    one.calibration = pictures(256, seed=1) // 4 + 160
    z = one.model.encode(one.calibration.float() / 127.5 - 1)
    told = one.trim(one.model, target=bits_at(z, 0.4))
    assert math.log(told["scale"]) == pytest.approx(0.4, abs=0.03) and one.config.target_bpp == 0.3
