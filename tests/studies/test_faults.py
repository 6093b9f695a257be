"""Every fault is found where it was planted, and none where there is none."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unilat.maths.rate import LN2
from unilat.studies.channels import Channels, channels_of, scaling_of
from unilat.studies.faults import Fault, Given, find, sentence


def _clean(seed: int = 0) -> Tensor:
    """Latents ``[3000, 4, 3, 2]``, mean within 0.2 of 0, standard deviation 0.8 to 1.3, channels correlated by 0.5."""
    noise = torch.randn(3000, 5, 3, 2, generator=torch.Generator().manual_seed(seed))
    z = math.sqrt(0.5) * noise[:, :4] + math.sqrt(0.5) * noise[:, 4:]
    scale, mean = torch.tensor([0.8, 1.0, 1.3, 0.9]), torch.tensor([0.1, -0.2, 0.0, 0.05])
    return z * scale.view(1, 4, 1, 1) + mean.view(1, 4, 1, 1)


def _found(z: Tensor, logvar: Tensor | None = None, declared: dict | None = None, **more: Any) -> list[Fault]:
    return find(channels_of(z, logvar), scaling_of(declared or {}, z.shape[1]), **more)


def _kinds(faults: list[Fault]) -> list[str]:
    return [fault.kind for fault in faults]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_in_clean_latents(seed: int):
    """Kills limits that sound latents break, with and without a posterior and a scale that fits."""
    z = _clean(seed)
    assert _found(z, bits_per_dimension=2.0, psnr_above_mean=8.0) == []
    assert _found(z * 5.5, torch.full_like(z, -3.0), {"scaling_factor": 1 / 5.5}) == []
    assert sentence([]) == "Nothing wrong found."


@pytest.mark.parametrize("posterior", [False, True])
@pytest.mark.parametrize("level", [0.0, 3.0])
def test_a_dead_channel(posterior: bool, level: float):
    """Kills a dead channel that is told as a fault of scale or mean as well, or whose number is not told."""
    z = _clean()
    z[:, 2] = level + (0.0 if not posterior and not level else 1e-7) * z[:, 2]
    faults = _found(z, torch.full_like(z, -6.0) if posterior else None)
    assert _kinds(faults) == ["dead"] and faults[0].channels == (2,)
    assert "Channel 2 of 4 is dead" in sentence(faults) and "Train with one channel fewer" in sentence(faults)


@pytest.mark.parametrize(
    ("times", "declared"), [(10.0, {"scaling_factor": 1.0}), (0.1, {}), (1.0, {"scaling_factor": 0.1})]
)
def test_a_scale_off_by_ten(times: float, declared: dict):
    """Kills a scale that is judged without the model's factor, and advice that does not bring it to 1."""
    z = _clean() * times
    faults = _found(z, declared=declared)
    assert _kinds(faults) == ["scale"] and not faults[0].channels
    advised = float(faults[0].change.split("by ")[-1].split(",")[0].split("to ")[-1])
    assert float((z * advised).std((0, 2, 3)).square().mean().sqrt()) == pytest.approx(1.0, rel=1e-3)
    assert ("Set scaling_factor" in faults[0].change) == bool(declared)


def test_one_channel_at_another_scale():
    """Kills a scale that is judged over all channels together only."""
    z = _clean()
    z[:, 3] *= 0.3
    faults = _found(z)
    assert _kinds(faults) == ["scale"] and faults[0].channels == (3,) and "latents_std" in faults[0].change


@pytest.mark.parametrize("times", [1500.0, 1e-6, 1e9])
def test_channels_of_very_different_scales(times: float):
    """Kills: narrow channels told as dead, one factor for all as advice, and the wrong channel or ratio named."""
    z = _clean()
    z[:, 2] *= times
    faults = _found(z)
    assert _kinds(faults) == ["scale"] and faults[0].channels == (2,) and "latents_std" in faults[0].change
    std = z.double().std((0, 2, 3))
    wide, narrow = (2, 0) if times > 1 else (1, 2)  # 0.8 and 1.0 are the ends of the others
    assert f"Channel 2 has standard deviation {float(std[2]):.2g} instead of 1 as they are." in faults[0].says
    ratio = float(std[wide] / std[narrow])
    assert f"Channel {wide} varies {ratio:,.4g} times as much as channel {narrow}." in faults[0].says
    both = z.clone()
    both[:, 1] *= 30
    assert _found(both)[0].channels == (1, 2) and "Channels 1 and 2 have" in _found(both)[0].says
    ready = _found(z * 3, declared={"latents_mean": [0.0] * 4, "latents_std": (3 * std).tolist()})
    assert _kinds(ready) == []


@pytest.mark.parametrize(("copies", "told"), [(0, False), (9, False), (10, True), (900, True)])
def test_exact_copies(copies: int, told: bool):
    """A hundredth of what was given. Kills: another share, and counts turned round."""
    faults = _found(_clean(), given=Given(1000, copies, "pictures"))
    assert _kinds(faults) == (["copies"] if told else [])
    if told:
        assert f"{copies} of 1,000 pictures are exact copies" in faults[0].says
        assert f"these bits are of the {1000 - copies} that differ" in faults[0].says
    assert _kinds(_found(torch.full((100, 3, 2, 2), 4.2), given=Given(100, 99))) == ["collapsed"]


def test_a_mean_far_from_zero():
    """Kills a mean that is judged in raw units: 3 standard deviations at any scale, with the shift that mends it."""
    z = _clean() * 20.0
    z[:, 1] += 60.0
    faults = _found(z, declared={"scaling_factor": 0.05})
    assert _kinds(faults) == ["mean"] and faults[0].channels == (1,)
    mean = float(z[:, 1].mean())
    assert f"{mean:.3g} in raw latents" in faults[0].change
    z = _clean() * 20.0 + 60.0
    assert _kinds(_found(z, declared={"scaling_factor": 0.05, "shift_factor": 60.0})) == []


def test_two_channels_that_say_the_same():
    """Kills correlation by its sign, and the diagonal told as a pair."""
    z = _clean()
    z[:, 3] = -0.9 * z[:, 0] + 0.02 * z[:, 3]
    faults = _found(z)
    assert _kinds(faults) == ["correlated"] and faults[0].channels == (0, 3) and "-" in faults[0].says


def test_a_collapsed_posterior():
    """Kills a collapse that is told as dead channels or as scale: the posterior is the prior, the means are noise."""
    z = _clean() * 1e-3
    assert _kinds(_found(z, torch.zeros_like(z), {"scaling_factor": 1000.0})) == ["collapsed"]
    faint = _clean() * 0.15  # alive, each channel just above the limit of a dead one, and useless together
    assert _kinds(_found(faint, torch.zeros_like(faint), {"scaling_factor": 7.0})) == ["collapsed"]


def test_a_collapse_that_only_values_or_bits_show():
    """Kills a collapse that is looked for in a posterior alone."""
    assert _kinds(_found(torch.full((100, 3, 2, 2), 4.2))) == ["collapsed"]
    assert _kinds(_found(_clean(), bits_per_dimension=0.01)) == ["collapsed"]


def test_a_decoder_that_learns_nothing():
    """Kills reconstructions that are never compared with the one mean picture."""
    assert _kinds(_found(_clean(), psnr_above_mean=0.1)) == ["blind"]


def test_several_faults_come_worst_first_and_all():
    """Kills an audit that stops at the first fault."""
    z = _clean() * 10.0
    z[:, 0] = 0.0
    z[:, 1] += 100.0
    faults = _found(z)
    assert _kinds(faults) == ["dead", "scale", "mean"]
    assert sentence(faults).count(".") >= 6


def _made(mean: float = 0.0, std: float = 1.0, correlation: float = 0.0, noise: float | None = None) -> Channels:
    """Three channels by hand: the second has this mean and spread, and correlates with the third."""
    means, stds = torch.tensor([0.0, mean, 0.0]).double(), torch.tensor([1.0, std, 1.0]).double()
    table = torch.eye(3).double()
    table[1, 2] = table[2, 1] = correlation
    own = None if noise is None else torch.full((3,), noise).double()
    return Channels(means, stds, stds, own, None, table)


_CAPACITY = 0.02 * 2 * LN2
"""``ln(1 + spread² / noise)`` where a number's noise lets 0.02 bits through."""


@pytest.mark.parametrize(
    ("channels", "kinds"),
    [
        (_made(mean=0.97, std=2 * 0.97), []),  # half a standard deviation, of 1.94
        (_made(mean=-1.01, std=1.98), ["mean"]),
        (_made(std=1.98), []),
        (_made(std=2.02), ["scale"]),
        (_made(std=0.51), []),
        (_made(std=0.49), ["scale"]),
        (_made(correlation=0.94), []),
        (_made(correlation=-0.96), ["correlated"]),
        (_made(noise=0.99 / math.expm1(_CAPACITY)), []),
        (_made(noise=1.01 / math.expm1(_CAPACITY)), ["collapsed"]),
    ],
)
def test_where_the_limits_lie(channels: Channels, kinds: list[str]):
    """Just inside and just outside. Kills: a limit in raw units or of another size, a mean or correlation with a
    sign."""
    assert _kinds(find(channels, scaling_of({}, 3))) == kinds


@pytest.mark.parametrize(("bits", "above", "kinds"), [(0.021, 0.51, []), (0.019, None, ["collapsed"])])
def test_where_the_limits_of_measurements_lie(bits: float, above: float | None, kinds: list[str]):
    """Kills: a limit of another size, and reconstructions that nobody has seen told as blind."""
    assert _kinds(find(_made(), scaling_of({}, 3), bits, above)) == kinds
    assert _kinds(find(_made(), scaling_of({}, 3), bits, 0.49)) == [*kinds, "blind"]


def test_advice_brings_the_latents_where_they_should_be():
    """What a sentence says to do is done. Kills: the inverse factor, one that counts the model's own factor twice, a
    mean in standard deviations or of another channel, and channels named by their place among the live ones."""
    noise = torch.randn(4000, 3, 5, generator=torch.Generator().manual_seed(0))
    z = torch.tensor([4.0, 9.0, -30.0]).view(1, 3, 1) + torch.tensor([8.0, 0.0, 10.0]).view(1, 3, 1) * noise
    faults = {fault.kind: fault for fault in _found(z, declared={"scaling_factor": 1.0})}
    assert list(faults) == ["dead", "scale", "mean"] and faults["dead"].channels == (1,)
    advised = float(faults["scale"].change.split("scaling_factor to ")[1].split(",")[0])
    overall = float(z[:, [0, 2]].var((0, 2)).mean().sqrt())
    assert advised == pytest.approx(1 / overall, rel=1e-3)
    assert f"standard deviation {overall:.3g} instead of 1" in faults["scale"].says
    assert faults["mean"].channels == (2,) and "a mean of -3 standard" in faults["mean"].says
    assert f"({float(z[:, 2].mean()):.3g} in raw latents)" in faults["mean"].change
    halved = _found(z / 8, declared={"latents_mean": [0.5, 0.0, -3.75], "latents_std": [1.0, 1.0, 5.0]})
    assert _kinds(halved) == ["dead", "scale"] and halved[1].channels == (2,) and "0.25 instead of 1" in halved[1].says
