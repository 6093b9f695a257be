"""The same bits through convolutions, a ViT and a UViT, and mixed pairs of them: what carries over.

    make bench-architectures                      runs of a minute each, one at a time; goes on where it stopped
    python benchmarks/architectures.py report     what the runs that are there say

Fashion-MNIST and glyphs at 0.2 bits per pixel, stage 1 of the `small` networks alone on 4,000 pictures each (equal
samples), a prior that does not settle, one thread, 300 held-out pictures measured, two seeds (n says how many are
done). Encoder and decoder of each kind have about equal FLOPs, told beside them; time is the processor's, of the whole
command: start, training and evaluation. The loss factor is the one that held the bits at the end. Distances to equal n.
"""

import argparse
import itertools
import json
import resource
import time
from collections.abc import Sequence

from common import (
    MEASURES,
    ROOT,
    Measures,
    Rows,
    difference,
    error,
    lines,
    mean,
    one_commit,
    over_seeds,
    row,
    unilat,
    write,
)

from unilat.results import Results

WORK = ROOT / "runs" / "bench-architectures"
SETS, SEEDS = ("fashion-mnist", "glyphs"), (0, 1)
PAIRS = (("conv", "uvit"), ("conv", "conv"), ("vit", "vit"), ("uvit", "uvit"), ("vit", "uvit"), ("conv", "vit"))
"""Encoder and decoder; the first pair is the default."""
WANTED = 0.2
"""Bits per pixel."""
SCALE = (
    f"--bpp {WANTED} --stage1.samples 4000 --stage1.settle 0 --stage2.samples 0 --evaluation.classifier-samples 0 "
    "--evaluation.pictures 300 --evaluation.samples 300 --evaluation.step-counts 1"
).split()


def _flops(found: Results) -> float:
    return sum(found.costs.training_flops[part] for part in ("encoder", "decoder")) / 1e15


def _parameters(found: Results) -> float:
    return float(sum(found.costs.parameters[part] for part in ("encoder", "decoder")))


SHOWN: Measures = {
    **{what: MEASURES[what] for what in ("bits", "PSNR", "reconstruction")},
    "encoder and decoder": ("PFLOP of training", _flops),
    "parameters of both": ("", _parameters),
}


def name(data: str, pair: tuple[str, str]) -> str:
    """The run's, without its seed."""
    return f"{data}-{'-'.join(pair)}"


def train(data: str, pair: tuple[str, str], seed: int) -> None:
    """One run, unless it is done; the seconds that its process computed lie beside it."""
    folder = WORK / f"{name(data, pair)}-s{seed}"
    if (folder / "report.html").is_file() and folder.with_suffix(".seconds").is_file():
        return
    print(f"{time.strftime('%H:%M')} {folder.name}", flush=True)
    kinds = ("--autoencoder.encoder.kind", pair[0], "--autoencoder.decoder.kind", pair[1])
    words = ("train", data, "--preset", "small", *SCALE, *kinds, "--seed", f"{seed}", "--out", str(folder))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code := unilat(*words, threads=1, log=WORK / f"{folder.name}.log").wait():
        raise SystemExit(f"{folder.name} ended with {code}: see its log in {WORK}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    folder.with_suffix(".seconds").write_text(f"{spent:.1f}")


def beside(data: str, pair: tuple[str, str], seeds: Sequence[int]) -> dict[str, list[float]]:
    """What a run's results do not hold: processor seconds, and the loss factor at the end."""
    found: dict[str, list[float]] = {"time": [], "loss factor": []}
    for seed in seeds:
        folder = WORK / f"{name(data, pair)}-s{seed}"
        logged = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
        found["loss factor"].append([line["loss_factor"] for line in logged if line.get("stage") == "stage1"][-1])
        found["time"].append(float(folder.with_suffix(".seconds").read_text()))
    return found


UNITS: Measures = SHOWN | {"time": ("seconds", lambda found: None), "loss factor": ("", lambda found: None)}


def rows() -> Rows:
    """Each pair over the seeds of which all pairs are done, and what it gains over the default."""
    told: Rows = []
    for data in SETS:
        seeds = [s for s in SEEDS if all((WORK / f"{name(data, one)}-s{s}.seconds").is_file() for one in PAIRS)]
        found = {p: over_seeds(WORK, name(data, p), seeds, SHOWN) | beside(data, p, seeds) for p in PAIRS}
        usual = found[PAIRS[0]]
        for pair in PAIRS:
            label = f"{data}, {pair[0]} encoder, {pair[1]} decoder"
            told += lines(label, found[pair], UNITS)
            if off := [abs(one / WANTED - 1) for one in found[pair]["bits"]]:
                what = f"{label}: off the wanted bits"
                told.append(row(what, mean(off), "of wanted", goal=0.05, stderr=error(off), n=len(off)))
            if pair != PAIRS[0]:
                told += difference(f"{label}: PSNR over the default's", found[pair]["PSNR"], usual["PSNR"], "dB")
                nearer = (usual["reconstruction"], found[pair]["reconstruction"])
                told += difference(f"{label}: distance saved over the default", *nearer, "kernel distance")
    return told


def main() -> None:
    """Train what is missing, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["report"])
    if parser.parse_args().part is None:
        WORK.mkdir(parents=True, exist_ok=True)
        for data, seed, pair in itertools.product(SETS, SEEDS, PAIRS):
            train(data, pair, seed)
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
    commit = one_commit(one.parent for one in WORK.glob("*/report.html"))
    print(write("architectures", protocol, rows(), commit=commit).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
