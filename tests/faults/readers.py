"""Files of strangers: odd pictures against a table of pixels, and pickles in the place of everything that is read."""

import functools
import io
import os
import pickle
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .command import run
from .ground import Ground, Outcome, bad, clean, ok, silent

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from signals import zoo


@functools.cache
def _menagerie(work: Path) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, np.ndarray], dict[str, str]]:
    """Expected pixels and reasons by name, and what was read."""
    from unilat.signals import load
    from unilat.signals.decode import printable

    folder = work / "zoo"
    shutil.rmtree(folder, ignore_errors=True)  # of trials that were stopped
    pictures, texts = zoo.build(folder)
    expected = {printable(name): pixels for name, pixels in pictures.items()}
    reasons = {printable(name): reason for name, reason in texts.items()}
    found = load(str(folder), size=zoo.SIDE)
    pixels = {name: image.permute(1, 2, 0).numpy() for name, image in zip(found.names, found.images, strict=True)}
    return expected, reasons, pixels, dict(found.skipped)


def odd(ground: Ground, seed: int, folder: Path) -> Outcome:
    """One odd file: its pixels are the table's, or it is skipped by name with the reason."""
    expected, reasons, pixels, skipped = _menagerie(ground.work)
    names = sorted([*expected, *reasons])
    name = names[seed % len(names)]
    if name in expected:
        if name not in pixels:
            return bad(f"{name!r} not read: {skipped.get(name)}")
        wanted = expected[name] if expected[name].ndim == 3 else np.dstack([expected[name]] * 3)
        read = pixels[name] if pixels[name].shape[2] == 3 else np.dstack([pixels[name]] * 3)
        return ok(f"{name!r}: pixels as in the table") if np.array_equal(read, wanted) else silent(f"{name!r}: pixels")
    if name in pixels:
        return silent(f"{name!r} was read")
    told = skipped.get(name)
    if told is None or not told.startswith(reasons[name]):
        return bad(f"{name!r}: told {told!r}, not {reasons[name]!r}")
    return clean(f"{name!r}: {told}")


def bomb(ground: Ground, seed: int, folder: Path) -> Outcome:
    """30,000 × 30,000 pixels in a few bytes beside real pictures, through `unilat data look`: refused by its header."""
    name, content = [*zoo.bombs().items()][seed % len(zoo.bombs())]
    folder.mkdir()
    for k in range(3):
        shutil.copy(ground.pictures / "lying" / "00.png", folder / f"a{k}.png")
    (folder / name).write_bytes(content)

    def plant() -> None:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), used + (256 << 20)))

    ended = run(
        ["data", "look", str(folder), "--size", "16", "--out", str(folder) + ".png"], folder.with_suffix(".txt"), plant
    )
    if ended.bad or ended.code:
        return bad(f"{name}: {ended.bad or ended.line}")
    return clean(f"{name}: told") if name in ended.said else silent(f"{name}: not told: {ended.line}")


class _Call:
    """Unpickles into ``function(*arguments)``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def payloads(canary: Path) -> dict[str, bytes]:
    """Twelve ways to make a canary when unpickled: protocols, functions, torch's, numpy's and joblib's wrappings."""
    text = f"import os; os.mkdir({str(canary)!r})"
    mkdir = _Call(os.mkdir, str(canary))
    found = {f"mkdir {protocol}": pickle.dumps(mkdir, protocol) for protocol in (0, 2, 5)}
    found |= {"eval": pickle.dumps(_Call(eval, f"__import__('os').mkdir({str(canary)!r})"))}
    found |= {"exec": pickle.dumps(_Call(exec, text)), "system": pickle.dumps(_Call(os.system, f"mkdir {canary}"))}
    found["in a dict"] = pickle.dumps({"model": {"weight": mkdir}})
    array = io.BytesIO()
    np.save(array, np.array([mkdir], object), allow_pickle=True)
    found["npy"] = array.getvalue()
    several = io.BytesIO()
    np.savez(several, images=np.array([mkdir], object), labels=np.arange(1))
    found["npz"] = several.getvalue()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:  # as torch.save writes it
        file.writestr("archive/data.pkl", found["mkdir 2"])
        file.writestr("archive/version", "3\n")
    found["torch zip"] = archive.getvalue()
    found["torch legacy"] = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + found["mkdir 2"]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for name in ("../canary.png", "pickle", "0.cls"):
            entry = tarfile.TarInfo(name)
            entry.size = len(found["mkdir 2"])
            file.addfile(entry, io.BytesIO(found["mkdir 2"]))
    found["tar"] = packed.getvalue()
    return found


CHECKPOINT = ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "manifest.json")
OF_A_RUN = ("autoencoder.safetensors", "base.safetensors", "evaluation.safetensors", "config.json", "data.json",
            "metrics.json", "manifest.json", "phases.json", "log.jsonl", "seal.json", "fast-decoder.safetensors",
            "latents/index.json", "latents/train-00000.safetensors")  # fmt: skip
DATA = ("data.npy", "data.npz", "data.parquet", "data.tar", "data.pt", "data.pkl", "picture.png", "latents.safetensors",
        "set/dataset_info.json", "set/state.json", "charge.json")  # fmt: skip
PLACES = [*(f"stage1/{name}" for name in CHECKPOINT), *OF_A_RUN, *DATA]


def pickles(ground: Ground, seed: int, folder: Path) -> Outcome:
    """A payload in the place of a file: the canary never appears, and the command ends as with any damaged file."""
    canary = folder.with_suffix(".canary")
    made = payloads(canary)
    name, place = [*made][seed % len(made)], PLACES[(seed // len(made) + seed) % len(PLACES)]
    content, seen = made[name], f"{name} as {place}"
    folder.mkdir()
    target = folder / "run"
    if place.startswith("stage1/"):
        ground.copy(ground.stopped(5), target)
        (target / "stage1" / "step-0000000005" / Path(place).name).write_bytes(content)
        words = ground.words(target)
    elif place in OF_A_RUN:
        ground.copy(ground.oracle, target)
        (target / place).write_bytes(content)
        commands = (["evaluate", str(target)], ["report", str(target)], ground.words(target))
        words = commands[(seed // 2) % 3]
        if place.startswith("fast"):
            words = ["sample", str(target), "-n", "1", "--decoder", "fast", "--out", str(folder / "sample.png")]
    else:
        path = folder / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        data = path.parent if path.name in ("dataset_info.json", "state.json", "picture.png") else path
        commands = (["data", "look", str(data), "--out", str(folder / "sheet.png")], ["audit", str(data)],
                    ["train", str(data), *ground.words(target)[2:]], ["decode", str(ground.oracle), str(data)],
                    ["train", str(ground.pictures), "--config", str(path), "--dry-run"])  # fmt: skip
        words = commands[(seed // 2) % 5]
    outside = set(os.listdir(folder.parent))
    ended = run(words, folder.with_suffix(".txt"))
    more = set(os.listdir(folder.parent)) - outside - {folder.with_suffix(".txt").name}
    if canary.exists() or more:
        return silent(f"{seen}: {words[0]} ran it" if canary.exists() else f"{seen}: written outside: {more}")
    if ended.bad:
        return bad(f"{seen}: {words[0]}: {ended.bad}")
    return clean(f"{seen}: {words[0]}: {ended.line}") if ended.code else ok(f"{seen}: {words[0]}: {ended.line}")
