"""Which latents a prior is trained on and which it is measured on, and how latents get where they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unilat.interop.model import CallableModel
from unilat.signals.pictures import pack
from unilat.signals.split import split
from unilat.studies import subject
from unilat.studies.audit import AuditPlan, audit
from unilat.studies.prior import PriorPlan
from unilat.types import UserError

WHO = {"seed": 4}


def of_array(z: Tensor, folder: Path, seed: int = 4, size: tuple[int, int] | None = None) -> subject.Subject:
    """Latents in memory as an audit takes them."""
    return subject.of_array(z, folder / str(seed), {"seed": seed}, seed, size, None)


def test_an_array_is_measured_on_what_its_prior_never_saw(tmp_path: Path) -> None:
    """A tenth is held out, the seed says which. Kills: one set for the other, sets that share latents, latents that
    stand in none, the first tenth of an ordered file, and pixels that are a side."""
    z = torch.randn(230, 2, 3, generator=torch.Generator().manual_seed(0))
    found, other = of_array(z, tmp_path, size=(12, 10)), of_array(z, tmp_path, seed=5)
    assert (len(found.train), len(found.test)) == (207, 23) and found.pixels == 120
    assert torch.equal(torch.cat([found.train, found.test]).sort().values, torch.arange(230))
    assert not torch.equal(found.test, torch.arange(23)) and not torch.equal(found.test, other.test)
    assert torch.equal(found.test, found.test.sort().values) and torch.equal(found.train, found.train.sort().values)
    assert len(of_array(z[:60], tmp_path / "few").test) == 10
    assert len(of_array(torch.randn(25_000, 1, 1), tmp_path / "many").test) == 2000


def test_copies_of_a_latent_stand_on_one_side_and_count_once(tmp_path: Path) -> None:
    """30 latents ten times each: 10 are measured, once each, and the prior sees the 20 others. Kills: a prior that
    knows what it is measured on by heart, and a standard error that takes copies for independent latents."""
    z = torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(0)).repeat(10, 1, 1)
    for seed in range(3):
        found = of_array(z, tmp_path, seed)
        number = torch.arange(300) % 30
        measured, seen = number[found.test], number[found.train]
        assert len(measured) == len(set(measured.tolist())) == 10
        assert len(seen) == len(set(seen.tolist())) == 20 and not set(measured.tolist()) & set(seen.tolist())
        assert found.copies == 270 and torch.equal(found.used, torch.arange(30))


def test_an_audit_of_copies_is_not_fooled(tmp_path: Path) -> None:
    """A prior fitted on copies of what is measured spends far fewer bits than on latents it never saw. Kills: the same
    as above, at the end of the whole way; the standard error is that of 10 latents."""
    z = torch.randn(30, 4, 2, generator=torch.Generator().manual_seed(1))
    plan = AuditPlan(levels=4, gaussian_up_to=8, prior=PriorPlan(samples=64, batch=64, warmup=8, ema_halflife=8))
    found = audit(z.repeat(10, 1, 1), plan=plan).findings
    bits = found.diffusion.bits.per_latent
    assert bits.n == 10 and bits.value > 8 * 3.4  # unit Gaussians of 8 numbers carry 28.9 at the least
    assert any("270 latents equal another" in line for line in found.unknown)
    assert [fault.kind for fault in found.faults] == ["copies"] and "of the 30 that differ" in found.sentence
    assert "over all 30 that differ" in found.protocol["bits"]
    other = audit(z.repeat(2, 1, 1) + torch.rand(60, 1, 1) - 0.5, plan=plan).findings
    assert not other.faults and not any("equal" in line for line in other.unknown)


def test_statistics_are_those_of_different_latents(tmp_path: Path) -> None:
    """One latent a thousand times beside 60 others. Kills: a scale that copies set, by which the others' bits are
    measured."""
    z = torch.randn(60, 4, 2, generator=torch.Generator().manual_seed(1))
    plan = AuditPlan(levels=4, gaussian_up_to=8, prior=PriorPlan(samples=64, batch=64, warmup=8, ema_halflife=8))
    alone, among = (audit(torch.cat([z, z[:1].repeat(n, 1, 1)]), plan=plan) for n in (0, 1000))
    assert among.bits == alone.bits and among.findings.channels == alone.findings.channels
    assert [fault.kind for fault in among.faults] == ["copies"]


def test_one_latent_that_differs_is_told(tmp_path: Path) -> None:
    """Kills: a line about axes, or a prior of one latent, where there are two kinds."""
    z = torch.zeros(60, 2, 3)
    z[7] = 1
    with pytest.raises(UserError, match="60 latents, and only 2 differ"):
        of_array(z, tmp_path)


@pytest.mark.parametrize("kinds", [1, 3, 7])
def test_few_kinds_of_latent_are_still_split(kinds: int, tmp_path: Path) -> None:
    """Half of the kinds at most is held out, and something to measure is always left. Kills: a prior without latents,
    and a measurement of none."""
    z = torch.arange(kinds).float().repeat(60)[:60].view(60, 1, 1).expand(60, 2, 3)
    found = of_array(z, tmp_path)
    assert len(found.test) == max(1, kinds // 2) and set(found.train.tolist()).isdisjoint(found.test.tolist())
    assert kinds == 1 or {*z[found.train, 0, 0].tolist()}.isdisjoint(z[found.test, 0, 0].tolist())
    assert bool(len(found.train)) is (kinds > 1)


def shown(count: int = 70, copies: int = 1) -> Any:
    """Colour pictures, each ``copies`` times."""
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), np.uint8)
    return pack(np.repeat(images, copies, 0), None, "made up")


def encode(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance that are told apart, of unequal sides."""
    return x[:, :, ::2, ::4].flip(1), x[:, :, ::2, ::4] - 9


def test_a_models_latents_are_those_of_its_pictures_in_order(tmp_path: Path) -> None:
    """More pictures than a batch. Kills: mean and log-variance changed over, a batch that is lost or turned round,
    pictures in bytes, pixels that count channels, and a split that is not the data's."""
    pictures = shown()
    found = subject.of_model(CallableModel(encode), pictures, tmp_path, WHO, 4, "cpu", lambda line: None)
    x = pictures.images.float() / 127.5 - 1
    assert torch.allclose(found.z, x[:, :, ::2, ::4].flip(1), atol=1e-6)
    assert found.logvar is not None and torch.allclose(found.logvar, x[:, :, ::2, ::4] - 9, atol=1e-6)
    train, test = split(pictures, fraction=0.1, at_most=2000, seed=4)
    assert torch.equal(found.train, train) and torch.equal(found.test, test) and len(test) == 7
    assert found.pixels == 64 and not set(train.tolist()) & set(test.tolist())


def test_copies_of_a_picture_are_measured_once(tmp_path: Path) -> None:
    """70 pictures five times each. Kills: a standard error that takes copies of a picture for independent ones."""
    pictures = shown(copies=5)
    found = subject.of_model(CallableModel(encode), pictures, tmp_path, WHO, 4, "cpu", lambda line: None)
    numbers = torch.arange(350) // 5
    measured, seen = numbers[found.test].tolist(), numbers[found.train].tolist()
    assert len(measured) == len(set(measured)) == 7 and not set(measured) & set(seen)
    assert len(seen) == len(set(seen)) == 63 and found.copies == 280
