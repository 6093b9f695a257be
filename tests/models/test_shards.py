"""Latents on disk: the same rows and statistics in one shard or in many, after a kill, and in another run."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unilat.models.latents import LatentSet
from unilat.models.shards import SHARD, LatentShards, Seal, of_data, open_shards, pooled, take_shards, write_shards
from unilat.types import UserError

SEAL = Seal(encoder_sha256="e" * 64, data_sha256="d" * 64, lambda_0=5.0, pixels=64, count=23)
SCALE = torch.tensor([0.1, 30.0, 2.0])[:, None, None]
Z = (
    torch.randn(23, 3, 2, 4, generator=torch.Generator().manual_seed(3)) * SCALE
    + 7 * torch.arange(23.0)[:, None, None, None]
)
LABELS = torch.arange(23) % 4


def make(first: int, last: int, made: list[Any] | None = None) -> LatentSet:
    """Rows of the planted latents; notes that it was called."""
    if made is not None:
        made.append((first, last))
    names = tuple(f"{row}.png" for row in range(first, last))
    bits = torch.arange(23.0)[first:last]
    return LatentSet(Z[first:last], bits, LABELS[first:last], 5.0, "e" * 64, 64, names=names)


def same(one: LatentShards, other: LatentShards) -> bool:
    parts = ((one.z.whole(), other.z.whole()), (one.bits, other.bits), (one.labels, other.labels))
    return all(torch.equal(*pair) for pair in (*parts, (one.mean, other.mean), (one.std, other.std)))


def test_rows_are_read_from_the_shards(tmp_path: Path) -> None:
    """Kills: a row of another shard, a last shard that is cut or filled up, an order that is not the indices', rows
    held in memory, statistics of one shard for all."""
    found = write_shards(tmp_path, SEAL, make, shard=5)
    names = [f"train-0000{number}.safetensors" for number in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", *names]
    assert len(found) == len(found.z) == 23 and found.z.shape == Z.shape
    chosen = torch.tensor([22, 0, 4, 5, 0, 19, 20])
    assert torch.equal(found.z[chosen], Z[chosen]) and torch.equal(found.z.whole(), Z)
    assert torch.equal(found.bits, torch.arange(23.0)) and torch.equal(found.labels, LABELS)
    torch.testing.assert_close(found.mean, Z.double().mean((0, 2, 3)).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.std, Z.double().transpose(0, 1).flatten(1).std(1).float(), rtol=1e-6, atol=0)
    assert type(found.z._parts[0]).__name__ == "memmap"
    assert LatentSet.load(tmp_path / "train-00004.safetensors").names == ("20.png", "21.png", "22.png")


def test_what_latents_were_drawn_from_lies_beside_them(tmp_path: Path) -> None:
    """Kills: means of other rows, moments that damage or a cut passes by, and such as are made up where none are."""
    moments = torch.stack([Z + 1, Z.abs()], 1)
    found = write_shards(tmp_path, SEAL, lambda a, b: replace(make(a, b), moments=moments[a:b]), shard=5)
    assert found.moments is not None and torch.equal(found.z.whole(), Z)
    chosen = torch.tensor([22, 0, 4, 5, 0])
    assert torch.equal(found.moments[chosen], moments[chosen]) and found.moments.shape == moments.shape
    last = LatentSet.load(tmp_path / "train-00004.safetensors")
    assert last.moments is not None and torch.equal(last[[1]].moments, moments[[21]])  # type: ignore[arg-type]
    replace(last, moments=last.moments + 1).save(tmp_path / "train-00004.safetensors")
    with pytest.raises(UserError, match="is not the shard that was written"):
        open_shards(tmp_path, SEAL)
    assert write_shards(tmp_path / "points", SEAL, make).moments is None


def test_statistics_of_one_part_are_its_own() -> None:
    """Kills: a last digit that moves where everything fits one shard."""
    means, stds = torch.randn(1, 64).exp(), torch.randn(1, 64).exp()
    mean, std = pooled([8191 * 64], means, stds)
    assert torch.equal(mean, means[0]) and torch.equal(std, stds[0])


def test_a_killed_encoder_goes_on_with_the_next_shard(tmp_path: Path) -> None:
    """Kills: shards encoded again or left out after a kill, statistics of what was encoded before lost, half a file
    left behind, half a set taken for the whole."""
    whole = write_shards(tmp_path / "whole", SEAL, make, shard=5)
    made: list[Any] = []

    def killed(first: int, last: int) -> LatentSet:
        if first == 15:
            (tmp_path / "parts" / ".train-00003.safetensors.1.part").write_text("half")
            raise KeyboardInterrupt
        return make(first, last, made)

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path / "parts", SEAL, killed, shard=5)
    assert open_shards(tmp_path / "parts", SEAL) is None and len(made) == 3
    parts = write_shards(tmp_path / "parts", SEAL, lambda first, last: make(first, last, made))
    assert made == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)] and same(whole, parts)
    assert (tmp_path / "whole" / "index.json").read_text() == (tmp_path / "parts" / "index.json").read_text()
    assert not list((tmp_path / "parts").glob(".*"))
    again = write_shards(tmp_path / "parts", SEAL, lambda first, last: pytest.fail("encoded again"))
    assert same(whole, again)


@pytest.mark.parametrize(
    "change",
    [{"encoder_sha256": "0" * 64}, {"data_sha256": "0" * 64}, {"lambda_0": 4.0}, {"pixels": 65}, {"count": 22}],
)
def test_other_latents_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Kills: latents of another encoder, of other pictures or of another noise that a stage is trained on."""
    write_shards(tmp_path / "a", SEAL, make)
    other = replace(SEAL, **change)
    for call in (lambda: open_shards(tmp_path / "a", other), lambda: write_shards(tmp_path / "a", other, make)):
        with pytest.raises(UserError, match=next(iter(change))):
            call()
    assert not take_shards(tmp_path / "a", tmp_path / "b", other) and not (tmp_path / "b").exists()


def test_damage_is_noticed(tmp_path: Path) -> None:
    """Kills: a flipped bit in a shard, one shard in the place of another, an index that was edited."""
    write_shards(tmp_path, SEAL, make, shard=5)
    index = json.loads((tmp_path / "index.json").read_text())
    second = (tmp_path / "train-00001.safetensors").read_bytes()
    (tmp_path / "train-00001.safetensors").write_bytes((tmp_path / "train-00002.safetensors").read_bytes())
    with pytest.raises(UserError, match="not the shard that was written"):
        open_shards(tmp_path, SEAL)
    flipped = bytearray(second)
    flipped[-9] ^= 4
    (tmp_path / "train-00001.safetensors").write_bytes(bytes(flipped))
    with pytest.raises(UserError, match="damaged"):
        open_shards(tmp_path, SEAL)
    (tmp_path / "train-00001.safetensors").write_bytes(second)
    assert open_shards(tmp_path, SEAL) is not None
    (tmp_path / "index.json").write_text(json.dumps(index | {"mean": [0.0, 0.0, 0.0]}))
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        open_shards(tmp_path, SEAL)


def test_another_run_takes_the_same_latents(tmp_path: Path) -> None:
    """Kills: half a set taken, a set taken that lies there already, a link that dies with the other run."""
    whole = write_shards(tmp_path / "a", SEAL, make, shard=5)
    assert take_shards(tmp_path / "a", tmp_path / "b", SEAL) and not take_shards(tmp_path / "a", tmp_path / "b", SEAL)
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    taken = open_shards(tmp_path / "b", SEAL)
    assert taken is not None and same(whole, taken)
    assert not take_shards(tmp_path / "a", tmp_path / "c", SEAL)
    one, other = torch.tensor([1, 2]), torch.tensor([2, 1])
    assert len({of_data("x", one), of_data("x", other), of_data("y", one)}) == 3
    for count in (0, 1, 3, SHARD, SHARD + 1, 2 * SHARD + 5):  # in parts as at once
        rows = torch.arange(count) * 3
        assert of_data("x", rows) == hashlib.sha256(f"x {rows.tolist()}".encode()).hexdigest()
