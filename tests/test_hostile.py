"""Files of a run folder that somebody has made up, or that a disk has: every reader reads them or refuses in one line.

Seeded, so a case that fails is the same tomorrow. More of them: ``HOSTILE=2000 pytest tests/test_hostile.py``.
"""

import contextlib
import copy
import hashlib
import json
import math
import os
import random
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unilat import results
from unilat.cli import main
from unilat.files import read_json
from unilat.models import shards
from unilat.models.few_steps import FewSteps
from unilat.models.latents import LatentSet
from unilat.recipe import config as configuration
from unilat.recipe.build import describe
from unilat.report import folder as report_folder
from unilat.report import page
from unilat.run import facts, seal
from unilat.run.trained import Run, read_config_file
from unilat.training import checkpoint
from unilat.training.journal import Journal
from unilat.types import UserError

TRIALS = int(os.environ.get("HOSTILE", "16"))
"""Made-up files for each reader."""
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64 + 1, 10**400, -(10**400), 0.5, -0.0, 1e308, 1e-320),
    *(math.nan, math.inf, -math.inf, "", "a", "1", "x" * 5000, "\ud800", "../../etc/passwd", "\x00", [], {}, [[]]),
    *([1, 2, 3], [0.5] * 50, ["a", None], {"a": {"b": [1]}}, {"": None}),
]


def nested(depth: int) -> Any:
    """Lists in lists."""
    tree: Any = []
    for _ in range(depth):
        tree = [tree]
    return tree


def spoilt(tree: Any, chance: random.Random) -> Any:
    """One place of a tree of JSON as something else, gone, doubled, or one key too many."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    holder, key = chance.choice(places)
    how = chance.randrange(8)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder[key], list):
        holder[key] = (2 * holder[key])[: chance.randrange(2 * len(holder[key]) + 1)]
    elif how == 2 and isinstance(holder[key], dict):
        holder[key]["unknown"] = 1
    elif how == 3:
        holder[key] = nested(chance.choice((3, 300, 900)))
    elif how == 4 and isinstance(holder[key], int | float):
        holder[key] = -holder[key]
    else:
        holder[key] = chance.choice(VALUES)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def dumped(tree: Any) -> bytes:
    """JSON as Python writes it: NaN, Infinity and lone surrogates too."""
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def noise(content: bytes, chance: random.Random) -> bytes:
    """Bytes that are no file of anybody's."""
    place = chance.randrange(len(content) + 1)
    kinds = (
        content[:place],
        content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :],
        content[:place] + chance.randbytes(9) + content[place:],
        b"",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b"\xff\xfe" + content,
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        chance.randbytes(200),
    )
    return kinds[chance.randrange(len(kinds))]


def config(path: Path) -> None:
    """As far as a command goes with it before it reads a picture."""
    found = read_config_file(path)
    configuration.check(found)
    describe(found, 1, 2)


def log(path: Path) -> None:
    report_folder._lines(path, [])
    Journal(path, "stage1", 5).close()


def reported(path: Path) -> None:
    page.page(page.read(path.parent))


def stage_state(path: Path) -> None:
    found = checkpoint.load(path.parent.parent, warn=lambda line: None)
    if found is not None:
        for name in ("settings", "stage", "clock"):
            found.part(name)


JSON_READERS: dict[str, tuple[Callable[[Path], Any], ...]] = {
    "config.json": (config, reported),
    "data.json": (facts.read, reported),
    "metrics.json": (results.read, reported),
    "phases.json": (results.read_phases,),
    "manifest.json": (read_json, reported),
    "seal.json": (lambda path: seal.read(path.parent), lambda path: seal.wrong(path.parent)),
}


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a whole run that is not sealed, so that what is in its files is looked at."""
    copied = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (copied / "seal.json").unlink()
    return copied


def refused_or_read(read: Callable[[Path], Any], path: Path, case: object) -> bool:
    """True where nothing but a UserError of one line comes out, soon; fails with the case otherwise."""
    begun = time.monotonic()
    try:
        read(path)
    except UserError as error:
        assert str(error) and len(str(error)) < 20_000, case
    except BaseException as error:
        raise AssertionError(f"{path.name}: {type(error).__name__}: {error}: {case!r:.400}") from error
    assert time.monotonic() - begun < 20, case
    return True


@pytest.mark.parametrize("name", JSON_READERS)
def test_readers_of_json(name: str, folder: Path) -> None:
    """Kills: a KeyError, TypeError, OverflowError or RecursionError for a file of other types, lengths or numbers."""
    chance, path = random.Random(name), folder / name
    if name == "seal.json":
        seal.begin(folder)
        seal.grown(folder / "log.jsonl")
    whole = path.read_bytes()
    tree = json.loads(whole)
    for trial in range(TRIALS):
        content = noise(whole, chance) if trial % 4 == 0 else dumped(spoilt(tree, chance))
        if name == "seal.json" and trial % 4:
            body = {key: value for key, value in spoilt(tree, chance).items() if key != "sha256"}
            with contextlib.suppress(ValueError):
                content = dumped(body | {"sha256": seal._checksum(body)})
        path.write_bytes(content)
        for read in JSON_READERS[name]:
            assert refused_or_read(read, path, content)


def test_readers_of_the_log(folder: Path) -> None:
    """Kills: a line of another type that ends a report or a training that goes on."""
    chance, path = random.Random("log"), folder / "log.jsonl"
    lines = path.read_bytes().splitlines()
    for trial in range(TRIALS):
        made = [dumped(spoilt(json.loads(line), chance)) for line in lines[: 1 + trial % 5]]
        path.write_bytes(b"\n".join([*made, noise(lines[0], chance), b""]))
        for read in (log, reported):
            assert refused_or_read(read, path, made)


def test_readers_of_checkpoints(folder: Path) -> None:
    """The manifest and the state made up, with checksums that are right. Kills: a checkpoint believed for its hash."""
    chance, place = random.Random("checkpoint"), next((folder / "stage1").glob("step-*"))
    manifest, state = (json.loads((place / name).read_bytes()) for name in ("manifest.json", "state.json"))
    for trial in range(TRIALS):
        told, content = copy.deepcopy(manifest), dumped(spoilt(state, chance) if trial % 2 else {})
        (place / "state.json").write_bytes(content)
        told["files"]["state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        told = told if trial % 2 else spoilt(told, chance)
        if isinstance(told, dict):
            body = {key: value for key, value in told.items() if key != "sha256"}
            with contextlib.suppress(ValueError):
                told = body | {"sha256": hashlib.sha256(checkpoint._json(body)).hexdigest()}
        (place / "manifest.json").write_bytes(json.dumps(told, sort_keys=True).encode("utf-8", "surrogatepass"))
        assert refused_or_read(stage_state, place / "manifest.json", told)
        assert refused_or_read(lambda path: checkpoint.looked_at(path.parent.parent), place / "manifest.json", told)


@pytest.mark.parametrize(
    "stage",
    [
        None,
        {},
        {"controller": {}, "samples": 8, "stuck": 0},
        {"controller": {"log_factor": "x"}, "samples": 8, "stuck": 0},
    ],
)
def test_training_goes_on_from_no_made_up_state(
    stage: object, folder: Path, tiny_source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole checkpoints whose state is none, by the real command. Kills: a KeyError of the controller's."""
    (place,) = (folder / "stage1").glob("step-*")
    manifest, state = (json.loads((place / name).read_bytes()) for name in ("manifest.json", "state.json"))
    content = checkpoint._json({} if stage is None else state | {"stage": stage})
    (place / "state.json").write_bytes(content)
    manifest["files"]["state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    del manifest["sha256"]
    manifest["sha256"] = hashlib.sha256(checkpoint._json(manifest)).hexdigest()
    (place / "manifest.json").write_bytes(checkpoint._json(manifest))
    (folder / "autoencoder.safetensors").unlink()
    words = ["train", str(tiny_source), "--preset", "tiny", "--bpp", "0.4", "--out", str(folder)]
    assert main([*words, "--stage1.samples", "256", "--stage2.samples", "128"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and ("stage1" in line or "stage 1" in line), line


def test_readers_of_the_latents_index(folder: Path) -> None:
    """Kills: an index believed for its own checksum, and a shard whose name leads out of its folder."""
    chance, path = random.Random("index"), folder / "latents" / "index.json"
    tree = json.loads(path.read_bytes())
    for _ in range(TRIALS):
        body = spoilt({key: value for key, value in tree.items() if key != "sha256"}, chance)
        with contextlib.suppress(ValueError):
            path.write_bytes(dumped(body | {"sha256": shards._checksum(body)}))
        assert refused_or_read(lambda path: shards.open_shards(path.parent), path, body)
        assert refused_or_read(lambda path: shards.take_shards(path.parent, folder / "taken", _seal(tree)), path, body)
    (name,) = (one["name"] for one in tree["shards"])
    for wrong in ("../autoencoder.safetensors", str(folder / "base.safetensors"), "index.json", f"x/{name}"):
        body = {key: value for key, value in tree.items() if key != "sha256"}
        body["shards"] = [body["shards"][0] | {"name": wrong}]
        path.write_bytes(dumped(body | {"sha256": shards._checksum(body)}))
        with pytest.raises(UserError, match="is the name of no shard"):
            shards.open_shards(path.parent)


def _seal(tree: Any) -> shards.Seal:
    return shards.Seal(**tree["seal"])


def tensors_file(header: bytes, data: bytes, chance: random.Random) -> bytes:
    """A safetensors file of this header, whose length may lie."""
    length = len(header) if chance.random() < 0.9 else chance.choice((0, 2**40, 2**64 - 1, len(header) + 7))
    return struct.pack("<Q", length) + header + data


SAFETENSORS: dict[str, Callable[[Path], Any]] = {
    "autoencoder.safetensors": lambda path: Run(path.parent, "cpu"),
    "base.safetensors": lambda path: Run(path.parent, "cpu"),
    "evaluation.safetensors": reported,
    "fast-decoder.safetensors": lambda path: FewSteps.load(path, Run(path.parent, "cpu").autoencoder.decoder),
    "latents.safetensors": LatentSet.load,
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_readers_of_safetensors(name: str, folder: Path) -> None:
    """Shapes, types, offsets and metadata of the header made up. Kills: a number in metadata taken as it is."""
    chance, path = random.Random(name), folder / name
    if name == "fast-decoder.safetensors":
        decoder = Run(folder, "cpu").autoencoder.decoder
        FewSteps(decoder, torch.tensor([-6.0, 3.0], dtype=torch.float64)).save(path, decoder)
    elif name == "latents.safetensors":
        shutil.copy(folder / "latents" / "train-00000.safetensors", path)
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    tree, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    few = TRIALS if name in ("latents.safetensors", "evaluation.safetensors") else max(10, TRIALS // 4)
    for trial in range(few):
        made = copy.deepcopy(tree)
        if trial % 2 and "__metadata__" in made:
            made["__metadata__"] = spoilt(made["__metadata__"], chance)
            made["__metadata__"].pop("sha256", None)
        else:
            made = spoilt(made, chance)
        content = noise(whole, chance) if trial % 5 == 4 else tensors_file(dumped(made), data, chance)
        path.write_bytes(content)
        assert refused_or_read(SAFETENSORS[name], path, made)


NO_FILES = ("pipe", "folder", "endless", "long")


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_regular_file_is_refused_at_once(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a reader that waits for a pipe for ever, that fills memory from /dev/zero or with a file of holes."""
    place = next((folder / "stage1").glob("step-*"))
    readers: dict[Path, Callable[[Path], Any]] = {
        **{folder / name: read for name, (read, *_) in JSON_READERS.items()},
        folder / "log.jsonl": log,
        place / "manifest.json": stage_state,
        place / "state.json": stage_state,
        folder / "latents" / "index.json": lambda path: shards.open_shards(path.parent),
        **{folder / name: read for name, read in SAFETENSORS.items()},
    }
    for path, read in readers.items():
        kept = path.read_bytes() if path.is_file() else None
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "endless":
            path.symlink_to("/dev/zero")
        else:
            with open(path, "wb") as file:
                file.truncate(2**37)
        assert refused_or_read(read, path, kind)
        shutil.rmtree(path) if kind == "folder" else path.unlink()
        if kept is not None:
            path.write_bytes(kept)


def test_configurations_whose_lists_differ_in_length(folder: Path) -> None:
    """Each list of a configuration one shorter and one longer. Kills: an IndexError in a network or in a check."""
    tree = json.loads((folder / "config.json").read_bytes())
    for holder, key in _places(tree):
        if isinstance(holder[key], list):
            kept = holder[key]
            for other in (kept[:-1], [*kept, *kept[-1:]], []):
                holder[key] = other
                (folder / "config.json").write_bytes(dumped(tree))
                assert refused_or_read(config, folder / "config.json", (key, other))
                assert refused_or_read(lambda path: Run(path.parent, "cpu"), folder / "config.json", (key, other))
            holder[key] = kept


def test_a_configuration_has_no_number_beyond_64_bits() -> None:
    """Kills: 2⁶³ steps, NaN or an infinity taken for numbers."""
    for number in ("9223372036854775808", "-9223372036854775809", "NaN", "Infinity", "1e999"):
        with pytest.raises(UserError, match=r"beyond 64 bits|is no number|without an end"):
            configuration.from_json(f'{{"stage1": {{"samples": {number}}}}}')
    assert configuration.from_json('{"stage1": {"samples": 9223372036854775807}}').stage1.samples == 2**63 - 1


def test_the_fuzzer_spoils_what_it_is_given() -> None:
    """Kills: trials that leave the files as they are, or that all do the same."""
    chance, tree = random.Random(0), {"a": [1, 2], "b": {"c": "x"}}
    made = [json.dumps(spoilt(tree, chance), sort_keys=True) for _ in range(200)]
    assert len(set(made)) > 40 and sum(one == json.dumps(tree, sort_keys=True) for one in made) < 20
