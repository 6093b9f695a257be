"""Tables 2 to 6 of the paper at the scale of two cores: do its trends hold here?

    make bench-paper-tables                       everything: hours on two cores, goes on where it stopped
    python benchmarks/paper_tables.py table2      one table alone: table2 table3 table4 table5 table6 medium; or report

Fashion-MNIST, 32×32 grey, the `small` networks, single runs of a few minutes. Runs have one thread each and go two at a
time. Distances are kernel distances of the packaged network: they compare among these rows, never with a published FID.
"""

import argparse
import math
from collections.abc import Iterable, Sequence

from common import (
    ROOT,
    Rows,
    difference,
    error,
    interpolated,
    lines,
    mean,
    one_commit,
    over_seeds,
    row,
    train_two_at_a_time,
    write,
)

WORK = ROOT / "runs" / "bench-paper-tables"
SEEDS = (0, 1)
SCALE = (
    "--data.at-most 20000 --stage1.settle 0 --stage1.samples 16000 --stage2.samples 24000 "
    "--evaluation.classifier-samples 0 --evaluation.step-counts 2 --evaluation.guidance 1 "
    "--evaluation.pictures 600 --evaluation.samples 600"
).split()
TARGETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
NORMAL = (1.5, 1.7)
"""Bits of the KL to N(0, I), between 1.448 for an empty latent of these networks and 1.81, their capacity."""
AT = 0.2
"""Bits per pixel at which everything but the bits is varied."""
WITH_MEDIUM = TARGETS[:4]
"""Those that the larger base model is tried with."""
MEDIUM = "--base.vit.channels 192 --base.vit.blocks 8".split()
CHANNELS = (2, 4, 16, 32)
SINGLE = "--stage2.samples 0 --evaluation.sample-from prior --autoencoder.prior.blocks 6".split()
GRIDS = {"16": (2, 2, 4), "4": (8, 32, 1)}
"""Side of the latent: the encoder's patch, the channels that keep the capacity, the patch that keeps 16 tokens."""
Jobs = dict[str, Sequence[str]]


def jobs(table: str) -> Jobs:
    """Names and options of a table's runs; those of table 2 are shared by the others."""
    found: Jobs = {}
    for seed in SEEDS:
        ends = (*SCALE, "--seed", str(seed))
        fashion = ("fashion-mnist", "--bpp", f"{AT:g}", *ends)
        if table == "table2":
            found |= {f"ul-{bpp:g}-s{seed}": ("fashion-mnist", "--bpp", f"{bpp:g}", *ends) for bpp in TARGETS}
        elif table == "medium":
            for bpp in WITH_MEDIUM:
                taken = ("--stage1.autoencoder", str(WORK / f"ul-{bpp:g}-s{seed}"), *MEDIUM)
                found[f"medium-{bpp:g}-s{seed}"] = ("fashion-mnist", "--bpp", f"{bpp:g}", *ends, *taken)
        elif table == "table5":
            found[f"mse-s{seed}"] = (*fashion, "--autoencoder.decoder-loss", "mse")
            for bpp in NORMAL:
                words = ("fashion-mnist", "--bpp", f"{bpp:g}", *ends, "--autoencoder.price", "normal")
                found[f"normal-{bpp:g}-s{seed}"] = words
        elif table == "table6":
            found[f"stopped-s{seed}"] = (*fashion, "--autoencoder.price", "stopped")
            found[f"lambda10-s{seed}"] = (*fashion, "--autoencoder.lambda-0", "10")
            found[f"variance-s{seed}"] = (*fashion, "--autoencoder.learned-variance")
            found[f"shifted-s{seed}"] = (*fashion, *SINGLE, "--bias", "-2")
            found[f"random-end-s{seed}"] = (*fashion, *SINGLE, "--autoencoder.random-end", "2", "1")
            alike = ("glyphs", "--preset", "small")  # the networks of the other runs
            found[f"glyphs-s{seed}"] = (*alike, "--bpp", f"{AT:g}", *ends, "--stage2.samples", "0")
        elif table == "table6c":
            found[f"foreign-s{seed}"] = (*fashion, "--stage1.autoencoder", str(WORK / f"glyphs-s{seed}"))
        elif table == "table3" and seed == 0:
            found |= {f"channels-{c}-s0": (*fashion, "--autoencoder.latent-channels", str(c)) for c in CHANNELS}
        elif table == "table4" and seed == 0:
            for side, (cell, channels, patch) in GRIDS.items():
                shape = f"--autoencoder.encoder.patch {cell} {cell} --autoencoder.latent-channels {channels}".split()
                tokens = f"--autoencoder.prior.patch {patch} --base.vit.patch {patch}".split()
                found[f"grid-{side}-s0"] = (*fashion, *shape, *tokens)
    return found


def measured(name: str, seeds: Sequence[int] = SEEDS) -> dict[str, list[float]]:
    """Each measure of the finished runs ``name-sSEED``."""
    return over_seeds(WORK, name, seeds)


def trend(text: str, left: Sequence[float], right: Sequence[float]) -> Rows:
    """``mean(left) − mean(right)``, which the paper's trend says is positive."""
    return difference(f"TREND {text}", left, right)


def table2() -> Rows:
    """Bits against size of the base model."""
    rows: Rows = []
    small = {bpp: measured(f"ul-{bpp:g}") for bpp in TARGETS}
    medium = {bpp: measured(f"medium-{bpp:g}") for bpp in WITH_MEDIUM}
    for bpp in TARGETS:
        rows += lines(f"Table 2, {bpp:g} bits per pixel, small base", measured(f"ul-{bpp:g}"))
        if found := medium.get(bpp, {}).get("generation"):
            what = f"Table 2, {bpp:g} bits per pixel, medium base: generation"
            rows.append(row(what, mean(found), "kernel distance", stderr=error(found), n=len(found)))
    for low, high in zip(TARGETS, TARGETS[1:], strict=False):
        rows += trend(
            f"T2 (paper: yes): {high:g} bits reconstruct nearer than {low:g}, distance",
            small[low]["reconstruction"], small[high]["reconstruction"],
        )  # fmt: skip
    best = {
        size: min(
            (bpp for bpp in found if found[bpp]["generation"]),
            key=lambda b, f=found: mean(f[b]["generation"]),
            default=None,
        )
        for size, found in (("small", small), ("medium", medium))
    }
    if best["small"] and best["medium"]:
        what = (
            f"TREND T2 (paper: 1.3 small, 1.5 medium): the best bits of the medium base ({best['medium']:g}) over "
            f"those of the small one ({best['small']:g})"
        )
        rows.append(row(what, best["medium"] / best["small"], "ratio", goal=1.0, at_least=True))
    return rows


def table5() -> Rows:
    """Prior against decoder."""
    rows = lines("Table 5, diffusion prior, MSE decoder", measured("mse"))
    normal = {bpp: measured(f"normal-{bpp:g}") for bpp in NORMAL}
    for bpp in NORMAL:
        rows += lines(f"Table 5, normal prior, {bpp:g} bits of KL, diffusion decoder", measured(f"normal-{bpp:g}"))
    ours, mse = measured(f"ul-{AT:g}"), measured("mse")
    for what, paper in (("reconstruction", "1.1 against 0.86"), ("generation", "2.4 against 1.4")):
        rows += trend(
            f"T5 (paper: {paper}): the MSE decoder is farther than the diffusion decoder, {what}", mse[what], ours[what]
        )
    curve = [
        (math.log(bits), distance, psnr)
        for bpp in TARGETS
        for found in [measured(f"ul-{bpp:g}")]
        for bits, distance, psnr in zip(found["bits"], found["reconstruction"], found["PSNR"], strict=True)
    ]
    nearer, clearer = [(distance, bits) for bits, distance, _ in curve], [(bits, psnr) for bits, _, psnr in curve]
    most = max(clearer, default=(0.0, math.nan))[0]
    for bpp, found in normal.items():
        each = list(zip(found["bits"], found["reconstruction"], found["PSNR"], strict=True))
        ratios = [bits / math.exp(interpolated(distance, nearer)) for bits, distance, _ in each]
        gains = [interpolated(min(math.log(bits), most), clearer) - psnr for bits, _, psnr in each]
        for what, values, unit, goal in (
            (
                f"(paper: 4.9): KL bits of the normal prior at {bpp:g} over ours at equal reconstruction",
                ratios,
                "ratio",
                1.0,
            ),
            (
                f"(no more bits: at most {math.exp(most):.3g}): PSNR, ours less the normal prior's at {bpp:g}",
                gains,
                "dB",
                2.0,
            ),
        ):
            kept = [value for value in values if math.isfinite(value)]
            if kept:
                told, spread = f"TREND T5 {what}", error(kept)
                rows.append(row(told, mean(kept), unit, goal=goal, at_least=True, stderr=spread, n=len(kept)))
    return rows


ABLATIONS = {
    "stopped": ("A, prior's gradient stopped, small KL", "7.80 against 1.54"),
    "lambda10": ("B, λ₀ = 10", "collapsed to 0.008 bits"),
    "foreign": ("C, autoencoder of another data set (glyphs)", "1.63 against 1.54"),
    "variance": ("D, learned variance", "1.81 against 1.54"),
    "shifted": ("App. B, one stage, decoder shifted to noisier data", "over 2 against 1.54"),
    "random-end": ("App. B, one stage, random lowest noise", "about 4 at 400k steps"),
}


def table6() -> Rows:
    """Ablations at equal bits."""
    ours, rows = measured(f"ul-{AT:g}"), []
    for name, (label, paper) in ABLATIONS.items():
        rows += lines(f"Table 6, {label}", measured(name))
        rows += trend(
            f"T6 (paper: {paper}): {label} generates farther than ours",
            measured(name)["generation"],
            ours["generation"],
        )
    return rows


def table3() -> Rows:
    """Channels of the latent at equal bits, one seed."""
    rows: Rows = []
    ours = measured(f"ul-{AT:g}", (0,))
    for count in CHANNELS:
        rows += lines(f"Table 3, {count} channels at 8×8", measured(f"channels-{count}"))
    few = measured("channels-2", (0,))
    return rows + trend(
        "T3 (paper: yes): 2 channels reconstruct farther than 8", few["reconstruction"], ours["reconstruction"]
    )


def table4() -> Rows:
    """Grids of the latent at equal bits and equal numbers, one seed."""
    rows: Rows = []
    ours = measured(f"ul-{AT:g}", (0,))
    for side in GRIDS:
        rows += lines(f"Table 4, grid of {side}×{side}", measured(f"grid-{side}"))
        rows += trend(
            f"T4 (paper: yes): a grid of {side} generates farther than 8",
            measured(f"grid-{side}", (0,))["generation"],
            ours["generation"],
        )
    return rows


TABLES = {"table2": table2, "table5": table5, "table6": table6, "table3": table3, "table4": table4}
ORDER = ("table2", "table5", "table6", "table6c", "table3", "table4", "medium")
PROTOCOL = (
    "Fashion-MNIST 32×32, 20,000 pictures read; stage 1 of 16,000 pictures, stage 2 of 24,000 latents, one thread; "
    "`small` preset (medium base: 192 channels, 8 blocks); 600 held-out pictures, 600 samples, guidance 1, "
    "one decoder call; the prior is trained with the autoencoder alone (no settling); "
    "kernel distance of efficientnet-lite0 features at 128×128. Means over seeds, standard error over seeds. "
    "TREND rows are differences that the paper's trend says are positive; a goal of 0 tests the sign only."
)


def main(chosen: Iterable[str]) -> None:
    """Train what is missing and write what there is."""
    for name in chosen or ORDER:
        if name != "report":
            train_two_at_a_time(WORK, jobs(name))
    rows = [one for table in TABLES.values() for one in table()]
    commit = one_commit(one.parent for one in WORK.glob("*/report.html"))
    print(write("paper_tables", PROTOCOL, rows, commit=commit).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*ORDER, "report", []])
    main(parser.parse_args().part)
