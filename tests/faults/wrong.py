"""What does not fit or is no number: other configurations, another encoder's latents, NaN and leaps, lost workers."""

import json
import re
import signal
from pathlib import Path

import numpy as np

from .command import run
from .ground import STEPS, Ground, Outcome, bad, chance, clean, contents, leftovers, ok, silent, state_of, stopping
from .planted import losing_a_worker, spoiling

CHANGES = (
    "--autoencoder.lambda-0 4",
    "--autoencoder.lambda-min -9",
    "--autoencoder.latent-channels 3",
    "--autoencoder.encoder.channels 16 24",
    "--autoencoder.prior.channels 48",
    "--autoencoder.decoder.channels 24",
    "--autoencoder.decoder-loss mse",
    "--stage1.learning-rate 0.002",
    "--stage1.batch 16",
    "--stage1.optimizer adamw",
    "--stage1.ema-halflife 99",
    "--data.held-out 0.2",
    "--data.fit pad",
    "--bpp 0.5",
    "--seed 3",
    "--loss-factor 2",
)


def mismatch(ground: Ground, seed: int, folder: Path) -> Outcome:
    """Another configuration is refused before a step, its fields named, and nothing in the folder moves; so are edited
    state files, whose fields are a checkpoint's own."""
    ground.copy(ground.stopped(5), folder)
    if seed % 3 == 2 and (folder / "data.json").is_file():
        (folder / "data.json").unlink()  # what is known of the pictures is gone: still refused
    chosen = [CHANGES[(seed + k * 5) % len(CHANGES)] for k in range(1 + seed % 2)]
    if sum("--bpp" in one or "--loss-factor" in one for one in chosen) > 1:
        chosen = chosen[:1]
    words = ground.words(folder, *" ".join(chosen).split())
    if any("--loss-factor" in one for one in chosen):
        place = words.index("--bpp")
        del words[place : place + 2]
    before = contents(folder)
    ended = run(words, folder.with_suffix(".txt"))
    if ended.bad:
        return bad(f"{chosen}: {ended.bad}")
    if ended.code == 0 or ended.steps:
        return silent(f"{chosen}: {ended.steps} steps done, exit {ended.code}")
    after = contents(folder)
    moved = {name for name in before | after if before.get(name) != after.get(name)} - {"phases.json"}
    if ended.code != 2 or moved:
        return bad(f"{chosen}: exit {ended.code}, changed {sorted(moved)}: {ended.line}")
    names = [re.split(r"[.\- ]+", one.split()[0].strip("-"))[-1] for one in chosen]
    names = [{"bpp": "target_bpp", "factor": "loss_factor"}.get(name, name) for name in names]
    unnamed = [name for name in names if name not in ended.line]
    if unnamed and not (folder / "data.json").is_file():
        return clean(ended.line)
    return bad(f"{unnamed} not named: {ended.line}") if unnamed else clean(ended.line)


def latents(ground: Ground, seed: int, folder: Path) -> Outcome:
    """Latents of another encoder, another lowest noise or another shape are refused by `unilat decode`."""
    from unilat.files import read_safetensors, write_safetensors

    made = ground.work / "latents.safetensors"
    if not made.is_file():
        words = ["encode", str(ground.oracle), str(ground.pictures), "--out", str(made)]
        ended = run(words, ground.work / "encode.txt")
        assert ended.code == 0, ended.said
    tensors, header = read_safetensors(made)
    header = {name: value for name, value in header.items() if name != "sha256"}
    chosen = sorted([*header, *tensors])[seed % (len(header) + len(tensors))]
    if chosen in header:
        header[chosen] = {"lambda_0": "4.0", "pixels": "1024", "encoder_sha256": "0" * 64}.get(chosen, "[]")
    elif seed % 2:
        tensors[chosen] = tensors[chosen][:, :1].clone() if tensors[chosen].dim() > 1 else tensors[chosen][:-1].clone()
    else:
        tensors[chosen] = tensors[chosen] * 0 + (float("nan") if tensors[chosen].is_floating_point() else 10**6)
    folder.mkdir()
    write_safetensors(folder / "changed.safetensors", tensors, header)
    words = ["decode", str(ground.oracle), str(folder / "changed.safetensors"), "--out"]
    ended = run([*words, str(folder / "out")], folder.with_suffix(".txt"))
    if ended.bad or ended.code not in (0, 2):
        return bad(f"{chosen}: {ended.bad or ended.line}")
    if ended.code == 2:
        return clean(f"{chosen}: {ended.line}")
    plain = folder / "plain"
    run([*words[:2], str(made), "--out", str(plain)], folder.with_suffix(".txt"))
    alike = sorted(contents(plain).values()) == sorted(contents(folder / "out").values())
    return ok(f"{chosen}: the same pictures") if alike else silent(f"{chosen}: other pictures, exit 0")


VALUES = {"NaN": float("nan"), "Inf": float("inf"), "1e30": 1e30, "1e3": 1e3, "-1e6": -1e6}


def numbers(ground: Ground, seed: int, folder: Path) -> Outcome:
    """The loss of one example is spoilt in one step, or in all from it on: that step changes nothing and is logged;
    again and again: back to the last good state, then stop."""
    (name, value), lasting = [*VALUES.items()][seed % 5], seed // 5 % 3 == 2
    leap = abs(value) < 1e10  # is known by the 32 steps before
    words = ground.words(folder, *(["--stage1.samples", "1600"] if leap else []))
    step = (34 if leap else 2) + seed % 6
    ended = run(words, folder.with_suffix(".txt"), spoiling(step, 10**9 if lasting else step, value))
    seen = f"{name} in step {step}{' and after' * lasting}"
    if ended.bad:
        return bad(f"{seen}: {ended.bad}")
    told = "changed nothing" in ended.said
    if ended.code:
        if ended.code != 2 or leftovers(folder):
            return bad(f"{seen}: exit {ended.code}, left {leftovers(folder)}: {ended.line}")
        again = run(words, folder.with_suffix(".txt"))
        if again.bad or again.code or leftovers(folder):
            return bad(f"{seen}: {ended.line}; does not go on: {again.bad or again.line}")
        return clean(f"{seen}: {ended.line}")
    if state_of(folder) == ground.state:
        return ok(f"{seen}: the oracle's state")
    skipped = [one for one in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "skipped" in one]
    if told and any(one["step"] == step for one in skipped):
        return clean(f"{seen}: left out and logged")
    return silent(f"{seen}: exit 0, another state, nothing told")


def picture(ground: Ground, seed: int, folder: Path) -> Outcome:
    """NaN, infinity or 1e30 in one pixel of the data: refused, named by its row, before anything is begun."""
    value, dtype = (np.nan, np.inf, 1e30)[seed % 3], (np.float32, np.float64)[seed // 3 % 2]
    random = chance("picture", seed)
    data = np.random.default_rng(seed).random((60, 16, 16, 1)).astype(dtype)
    row = random.randrange(60)
    data[row, random.randrange(16), random.randrange(16)] = value
    folder.mkdir()
    path = folder / ("data.npz" if seed % 2 else "data.npy")
    np.savez(path, images=data) if seed % 2 else np.save(path, data)
    ended = run(["train", str(path), *ground.words(folder)[2:-1], str(folder / "run")], folder.with_suffix(".txt"))
    seen = f"{value} in row {row} of {path.name}"
    if ended.bad:
        return bad(f"{seen}: {ended.bad}")
    if ended.code == 2 and ended.steps == 0:
        return clean(f"{seen}: {ended.line}")
    return silent(f"{seen}: exit {ended.code} after {ended.steps} steps: {ended.line}")


def resume(ground: Ground, seed: int, folder: Path) -> Outcome:
    """Stopped after each step in turn, between the stages too, and gone on with by 0, 1, 2 or 4 workers."""
    steps, workers = 1 + seed % (STEPS - 1), (0, 1, 2, 4)[seed // (STEPS - 1) % 4]
    more = ["--workers", str(workers)] if workers else []
    first = run(ground.words(folder, *more), folder.with_suffix(".txt"), stopping(steps))
    if first.bad or first.code != 128 + signal.SIGUSR1:
        return bad(f"step {steps}: {first.bad or first.line}")
    ended = run(ground.words(folder, *more), folder.with_suffix(".txt"))
    if ended.bad or ended.code or ended.steps != STEPS - steps:
        return bad(f"step {steps}, {workers} workers: {ended.bad or ended.line} after {ended.steps} steps")
    if state_of(folder) != ground.state:
        return silent(f"step {steps}, {workers} workers: another state")
    return ok(f"step {steps}, {workers} workers: the oracle's state")


def worker(ground: Ground, seed: int, folder: Path) -> Outcome:
    """A worker that reads batches is killed or stopped: told within its patience and 5 s, no orphans, nothing lost."""
    number, step = (signal.SIGKILL, signal.SIGSTOP)[seed % 2], 1 + seed % 5
    words = ground.words(folder, "--workers", str(1 + seed % 3))
    ended = run(words, folder.with_suffix(".txt"), losing_a_worker(step, number, 3.0))
    found = ground.survives(folder, ended)
    return Outcome(found.name, f"{signal.Signals(number).name} after step {step}: {found.seen}")
