"""A latent data set says what it is, and refuses to be taken for another."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unilat.files import read_safetensors, write_safetensors
from unilat.models.latents import LatentSet, fingerprint
from unilat.types import UserError


def latents(noisy: bool = False) -> LatentSet:
    z = torch.randn(7, 5, 2, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6).view(5, 1, 1) + 3
    return LatentSet(z, torch.linspace(10, 40, 7), torch.arange(7) % 3, 5.5, "ab" * 32, 256, noisy)


@pytest.mark.parametrize("noisy", [False, True])
def test_round_trip(tmp_path: Path, noisy: bool) -> None:
    """Kills: a field that is not written, a float rounded on the way, noisy latents read back as clean."""
    one = latents(noisy)
    other = LatentSet.load(one.save(tmp_path / "new" / "latents.safetensors"))
    for name in ("z", "bits", "labels"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    for name in ("lambda_0", "encoder_sha256", "pixels", "noisy"):
        assert getattr(one, name) == getattr(other, name)
    assert len(other) == 7 and [path.name for path in (tmp_path / "new").iterdir()] == ["latents.safetensors"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("converted", "[]"),
        ("converted", '{"cut": Infinity}'),
        ("skipped", "[3]"),
        ("skipped", '[["a"]]'),
        ("classes", "7"),
        ("names", "[" * 100_000),
        ("names", "7"),
        ("lambda_0", "[]"),
        ("pixels", "1e3"),
        ("noisy", "True"),
    ],
)
def test_a_header_of_other_types_is_refused_in_one_line(tmp_path: Path, name: str, text: str) -> None:
    """Kills: a list where an object was, numbers without an end and nesting, which ended in AttributeError."""
    tensors, header = read_safetensors(latents().save(tmp_path / "a.safetensors"))
    header.pop("sha256", None)
    write_safetensors(tmp_path / "b.safetensors", tensors, {**header, name: text})
    with pytest.raises(UserError, match=r"b\.safetensors is a damaged latent data set .* encode again"):
        LatentSet.load(tmp_path / "b.safetensors")


def test_statistics_are_by_channel_and_stand_in_the_header(tmp_path: Path) -> None:
    """Kills: one scale for all channels, a literal instead of the data's own statistics, bits per dimension."""
    one = latents()
    torch.testing.assert_close(one.mean, one.z.mean((0, 2, 3)))
    torch.testing.assert_close(one.std, one.z.std((0, 2, 3)))
    torch.testing.assert_close(one.bpp, one.bits / 256)
    _, header = read_safetensors(one.save(tmp_path / "a.safetensors"))
    assert json.loads(header["mean"]) == one.mean.tolist() and json.loads(header["std"]) == one.std.tolist()
    assert float(header["lambda_0"]) == 5.5


def test_another_encoder_or_noise_is_refused() -> None:
    """Kills: latents decoded with a model that never saw them: noise of another level, another encoder."""
    one = latents()
    one.refuse_other("ab" * 32, 5.5)
    with pytest.raises(UserError, match=r"5\.5.*trained at 5:"):
        one.refuse_other("ab" * 32, 5.0)
    with pytest.raises(UserError, match=r"5\.5.*trained at 6:"):
        one.refuse_other("ab" * 32, 6.0)
    with pytest.raises(UserError, match=r"another encoder \(abababababab, not cdcdcdcdcdcd\)"):
        one.refuse_other("cd" * 32, 5.5)
    with pytest.raises(UserError, match="another encoder"):
        one.refuse_other("ab" * 31 + "ac", 5.5)


def test_what_is_no_latent_set_is_refused(tmp_path: Path) -> None:
    """Kills: a traceback, or other tensors taken for latents."""
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="is not there"):
        LatentSet.load(path)
    for garbage in (b"", b"\x80\x04\x95pickle", b"\xff" * 64, json.dumps({"z": 1}).encode()):
        path.write_bytes(garbage)
        with pytest.raises(UserError, match="no whole safetensors file"):
            LatentSet.load(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="not a latent data set of unilat: make one with `unilat encode"):
        LatentSet.load(path)
    whole = latents().save(path).read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(UserError, match="no whole safetensors file"):
        LatentSet.load(path)


@pytest.mark.parametrize("damage", ["lambda_0", "pixels", "encoder_sha256", "noisy", "bits", "labels", "z"])
def test_a_damaged_header_or_unequal_lengths_are_refused(tmp_path: Path, damage: str) -> None:
    """Kills: KeyError or ValueError shown to a user, and labels of other pictures beside the latents."""
    path = latents().save(tmp_path / "a.safetensors")
    tensors, header = read_safetensors(path)
    if damage in tensors:
        tensors[damage] = tensors[damage][:5] if damage != "z" else tensors["z"].flatten()
    elif damage in ("lambda_0", "pixels"):
        header[damage] = "many"
    else:
        del header[damage]
    write_safetensors(path, tensors, header)
    with pytest.raises(UserError, match="latent data set"):
        LatentSet.load(path)


def test_fingerprint_is_of_every_weight() -> None:
    """Kills: a hash of names, shapes or one layer alone, or one that depends on the memory's layout."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    first = fingerprint(net)
    assert len(first) == 64 and fingerprint(net) == first
    assert fingerprint(net.to(memory_format=torch.channels_last)) == first
    for parameter in net.parameters():
        with torch.no_grad():
            parameter[0] += 1e-3
        assert fingerprint(net) != first
        first = fingerprint(net)


def test_sets_are_frozen() -> None:
    """Kills: a set whose noise or origin is changed under its header."""
    with pytest.raises(AttributeError):
        latents().lambda_0 = 1.0  # type: ignore[misc]
    assert replace(latents(), noisy=True).noisy
