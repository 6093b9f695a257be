"""Few calls: quality against calls before and after `unilat distill`, and pictures a second.

    make bench-decoder                       a run, its calls and its students for each data set and seed; goes on
    python benchmarks/decoder.py speed       pictures a second beside a diffusers pipeline (quiet machine, a minute)
    python benchmarks/decoder.py report      what is there

32×32 pictures (20,000 of Fashion-MNIST at 0.2 bits per pixel, 3,391 emoji at 0.3), `small` networks, stage 1 of
16,000 pictures, stage 2 of 24,000 latents, one thread. Kernel distances of 500 held-out pictures (emoji: 339) to as
many, equal counts in every row of a data set, guidance 1.5; never comparable with a published FID. Temperature:
standard deviation of the noise that a picture is decoded from, 1 as trained, 0.2 our default. Students: 8,000
pictures (decoder, teacher of 8 calls, the picture itself with weight 1) and 4,000 latents (base model, teacher of 20
guided calls); control of equal training: the student of one call on the pictures alone (weight 1e6, so that the
teacher counts for nothing), as many of them, the same optimizer; consistency students of the base model
(``consistency.py``) 30,000 latents, about the same time.
Generation is shown by the full decoder in one call, but where both networks are distilled. Speed: 64 pictures at a
time, one thread, A B B A in blocks with a matrix product around each; the diffusers side calls the same networks from
DPMSolverMultistepScheduler and DDIMScheduler, 8 guided calls and 1 of the decoder, which are the best of both sides
(one solver, one network), with guidance by doubled batches, as its pipelines do, or by two calls: the faster of them.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import ROOT, Rows, error, mean, row, unilat, write

WORK = ROOT / "runs" / "bench-decoder"
SEEDS = (0, 1, 2)
CALLED = 8
"""Guided calls of the base model beside diffusers: the default, and as near as 20 (LOG.md)."""
CALLS = (1, 2, 4, 8, 16, 50)
SETS = {"fashion-mnist": "0.2", "emoji": "0.3"}
SCALE = (
    "--data.at-most 20000 --stage1.settle 0 --stage1.samples 16000 --stage2.samples 24000 "
    "--evaluation.classifier-samples 0 --evaluation.pictures 500 --evaluation.samples 500 --evaluation.step-counts 1"
).split()
CONTROL = "control of equal training, 1 call"
Found = dict[str, dict[str, float]]


def one(name: str, seed: int) -> None:
    """Everything about one data set and seed, into ``WORK/NAME-sSEED.json``."""
    import torch
    from consistency import student

    from unilat.metrics.distances import compare
    from unilat.metrics.features import feature_network
    from unilat.metrics.quality import psnr
    from unilat.run.distill import DEFAULTS, distill
    from unilat.run.evaluate import chosen, held_out
    from unilat.run.trained import Run, load

    torch.set_num_threads(1)
    folder = WORK / f"{name}-s{seed}"
    words = ("train", name, "--bpp", SETS[name], *SCALE, "--seed", f"{seed}", "--out", str(folder))
    if unilat(*words, threads=1, log=folder.with_suffix(".log")).wait():
        raise SystemExit(f"{folder} failed: see its log")
    run = load(folder)
    test = chosen(held_out(run)[0], run.config.evaluation.pictures)
    features = feature_network("auto")
    assert features is not None
    real, found = features(test), dict[str, dict[str, float]]()

    def decoded(what: str, by: Run, steps: int | None = None) -> None:
        made = by.reconstruct(test, steps=steps).images
        distance = compare(real, features(made), protocol="").kernel.value
        found[what] = {"PSNR": float(psnr(test, made).mean()), "distance": distance}

    def sampled(what: str, by: Run, steps: int | None = None) -> None:
        made = by.sample(len(test), steps=steps).images
        found[what] = {"generation": compare(real, features(made), protocol="").kernel.value}

    for tau in (1.0, run.config.evaluation.decoder_temperature):
        run.config = replace(run.config, evaluation=replace(run.config.evaluation, decoder_temperature=tau))
        for calls in CALLS:
            decoded(f"temperature {tau:g}, {_calls(calls)}", run, calls)
    for calls in (1, 2, 4, 8, 20):
        sampled(f"base of {_calls(calls)} (guided: twice)", run, calls)
    control = replace(DEFAULTS["decoder"], steps=1, truth=1e6)
    found["control of equal training"] = {"time": distill(folder, control).seconds}
    decoded(CONTROL, load(folder, decoder="fast"))
    for steps in (2, 1):
        done = distill(folder, replace(DEFAULTS["decoder"], steps=steps))
        decoded(f"distilled, {_calls(steps)}", load(folder, decoder="fast"))
        found[f"distilling the decoder to {_calls(steps)}"] = {"time": done.seconds}
    for steps in (1, 4):
        done = distill(folder, replace(DEFAULTS["base"], steps=steps))
        sampled(f"base distilled to {_calls(steps)}", load(folder, base="fast"))
        found[f"distilling the base to {_calls(steps)}"] = {"time": done.seconds}
        run.few_base, seconds = student(run, steps, 30_000, folder / "consistency")
        sampled(f"base of {_calls(steps)} by consistency", run)
        found[f"consistency to {_calls(steps)}"] = {"time": seconds}
        run.few_base = None
    sampled("base distilled to 4 calls, decoder to 1", load(folder, decoder="fast", base="fast"))
    stage1 = [one["seconds"] for one in json.loads((folder / "phases.json").read_text()) if one["name"] == "stage 1"]
    found["stage 1"] = {"time": sum(stage1)}
    folder.with_suffix(".json").write_text(json.dumps(found, indent=1))


def _calls(count: int) -> str:
    return f"{count} call{'s' * (count > 1)}"


UNITS = {"PSNR": "dB", "distance": "kernel distance", "generation": "kernel distance", "time": "seconds"}


def quality() -> Rows:
    """Means over the seeds that are there, and what few calls lose on 50."""
    rows: Rows = []
    for name in SETS:
        seeds: list[Found] = [json.loads(path.read_text()) for path in sorted(WORK.glob(f"{name}-s?.json"))]
        for what in seeds[0] if seeds else ():
            for measure, unit in UNITS.items():
                values = [one[what][measure] for one in seeds if measure in one[what]]
                if values:
                    told = f"{name}, {what}: {measure}"
                    rows.append(row(told, mean(values), unit, stderr=error(values), n=len(values)))
        if seeds:
            rows += _losses(name, seeds)
    return rows


def _losses(name: str, seeds: Sequence[Found]) -> Rows:
    """Few calls beside 50 of the same decoder, at the temperature where those 50 are best, and beside 50 as trained."""
    rows: Rows = []
    for few in ("temperature 0.2, 2 calls", "distilled, 2 calls", "distilled, 1 call"):
        for many in ("temperature 1, 50 calls", "temperature 0.2, 50 calls"):
            lost = [one[many]["PSNR"] - one[few]["PSNR"] for one in seeds]
            far = [100 * (one[few]["distance"] / one[many]["distance"] - 1) for one in seeds]
            what, n = f"{name}, {few} against {many}", len(seeds)
            rows.append(row(f"{what}: PSNR lost", mean(lost), "dB", goal=0.3, stderr=error(lost), n=n))
            rows.append(row(f"{what}: distance above", mean(far), "%", goal=10.0, stderr=error(far), n=n))
    rows += _controlled(name, seeds)
    return rows + [_least(name, seeds, kind) for kind in ("temperature 0.2", "distilled")]


def _controlled(name: str, seeds: Sequence[Found]) -> Rows:
    """What distilling to one call gives over as much training on the pictures alone, of the seeds that have both."""
    both, rows = [one for one in seeds if CONTROL in one], Rows()
    for measure, unit in (("PSNR", "dB"), ("distance", "kernel distance")):
        gains = [one["distilled, 1 call"][measure] - one[CONTROL][measure] for one in both]
        if gains:
            what = f"{name}, distilled less control of equal training, 1 call: {measure}"
            rows.append(row(what, mean(gains), unit, stderr=error(gains), n=len(gains)))
    return rows


def _least(name: str, seeds: Sequence[Found], kind: str) -> dict[str, Any]:
    """Fewest calls whose means lie within 0.1 dB and 2 % of distance of 50 calls at temperature 0.2, or None."""

    def average(what: str, measure: str) -> float:
        return mean([one[what][measure] for one in seeds])

    best, fewest = "temperature 0.2, 50 calls", None
    for calls in CALLS:
        what = f"{kind}, {_calls(calls)}"
        if what not in seeds[0] or average(what, "PSNR") < average(best, "PSNR") - 0.1:
            continue
        if average(what, "distance") <= 1.02 * average(best, "distance"):
            fewest = calls
            break
    goal = 2.0 if kind == "distilled" else 8.0
    return row(f"{name}, {kind}: fewest calls within 0.1 dB and 2 % of 50", fewest, "calls", goal=goal, n=len(seeds))


def speed() -> Rows:
    """Pictures a second over a diffusers pipeline's, each at its own best calls."""
    import torch
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
    from step import ratios, told

    from unilat.maths.noise import diffuse
    from unilat.nets.condition import Condition
    from unilat.run.trained import load
    from unilat.signals import to_bytes

    torch.set_num_threads(1)
    folder = WORK / "fashion-mnist-s0"
    full, fast = load(folder), load(folder, decoder="fast", base="fast")
    assert full.base is not None
    base, decoder, guidance = full.base, full.autoencoder.decoder, full.config.evaluation.guidance
    betas = {"num_train_timesteps": 1000, "prediction_type": "sample"}
    generator, labels = torch.Generator().manual_seed(0), torch.arange(64) % len(full.classes)

    def level(scheduler: Any, t: Any, count: int) -> Any:
        return torch.logit(scheduler.alphas_cumprod[int(t)].double()).float().expand(count)

    @torch.no_grad()
    def pipeline(doubled: bool) -> float:
        begun = time.perf_counter()
        latents = torch.randn(64, *full.latent_shape, generator=generator)
        solver = DPMSolverMultistepScheduler(**betas)
        solver.set_timesteps(CALLED)
        both = Condition(torch.cat([labels, labels]), torch.arange(128) >= 64)
        alone = Condition(labels)
        for t in solver.timesteps:
            if doubled:
                told, null = base.denoise(torch.cat([latents] * 2), level(solver, t, 128), both).chunk(2)
            else:
                told, null = (base.denoise(latents, level(solver, t, 64), cond) for cond in (alone, alone.null()))
            latents = solver.step(null + guidance * (told - null), t, latents).prev_sample
        z_0 = diffuse(latents, torch.randn(latents.shape, generator=generator), torch.full((64,), 5.0))
        x = torch.randn(64, full.data.channels, 32, 32, generator=generator)
        walker = DDIMScheduler(clip_sample=False, **betas)
        walker.set_timesteps(1)
        for t in walker.timesteps:
            x = walker.step(decoder(x, level(walker, t, 64), z_0), t, x).prev_sample
        to_bytes(x)
        return time.perf_counter() - begun

    def ours(run: Any, decoder_steps: int | None) -> float:
        begun = time.perf_counter()
        run.sample(64, steps=None if run.few_base else CALLED, decoder_steps=decoder_steps)
        return time.perf_counter() - begun

    for _ in range(2):
        pipeline(True), pipeline(False), ours(full, 1), ours(fast, None)
    faster = min((True, False), key=lambda doubled: sorted(pipeline(doubled) for _ in range(5))[2])
    way = "doubled batches" if faster else "two calls"
    equal = ratios(lambda: pipeline(faster), lambda: ours(full, 1), 10)
    short = ratios(lambda: pipeline(faster), lambda: ours(fast, None), 10)
    beside = f"diffusers, {CALLED} calls guided by {way} + 1"
    return [
        *told(f"pictures a second, ours ({CALLED} guided calls + 1) / {beside}", equal),
        *told(f"pictures a second, ours distilled (4 + 1 calls) / {beside}", short),
    ]


def main() -> None:
    """Make what is missing, two workers at a time, then write what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="speed, report, `seeds 0 1`, or (by itself) `one NAME SEED`")
    words = parser.parse_args().words
    WORK.mkdir(parents=True, exist_ok=True)
    if words[:1] == ["one"]:
        return one(words[1], int(words[2]))
    if words[:1] in ([], ["seeds"]):
        wanted = [int(word) for word in words[1:]] or SEEDS
        for seed in wanted:
            missing = [name for name in SETS if not (WORK / f"{name}-s{seed}.json").is_file()]
            started = [subprocess.Popen([sys.executable, str(Path(__file__)), "one", n, f"{seed}"]) for n in missing]
            if sum(process.wait() for process in started):
                raise SystemExit("a worker failed: see above")
    path = WORK / "speed.rows"
    if words in ([], ["speed"]):
        path.write_text(json.dumps(speed()))
    rows = quality() + (json.loads(path.read_text()) if path.is_file() else [])
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
    print(write("decoder", protocol, rows).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
