"""Unified Latents (UL) against the KL-VAE latents of latent diffusion, on equal footing: which need less work?

    make bench-headline                           everything: 92 runs, 90 minutes on two cores, goes on where it stopped
    python benchmarks/headline.py fashion-mnist   one data set alone: fashion-mnist or emoji; or report (nothing is run)

32×32, the `small` networks. Each autoencoder's own run trains a base model on 24,000 latents; more runs take that
autoencoder, where it stands near its method's best, and train a base model on 6,000 and on 96,000. Runs have one thread
each and go two at a time. Distances are kernel distances of the packaged network: they compare among these rows, never
with a published FID.
"""

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import (
    MEASURES,
    ROOT,
    Measures,
    Rows,
    difference,
    error,
    interpolated,
    lines,
    mean,
    over_seeds,
    row,
    train_two_at_a_time,
    write,
)

WORK = ROOT / "runs" / "bench-headline"
SEEDS = (0, 1)
SCALE = (
    "--data.at-most 20000 --stage1.samples 16000 --evaluation.classifier-samples 0 "
    "--evaluation.guidance 1 --evaluation.pictures 600 --evaluation.samples 600 --evaluation.step-counts 1"
).split()
BUDGETS = (6_000, 24_000, 96_000)
OWN = 24_000
"""Latents that a base model sees in training, and how many in the autoencoder's own run."""
NEAR = 1.15
"""How much farther than its method's best a configuration may generate after ``OWN`` to be tried at other budgets."""
DATA = {"fashion-mnist": (), "emoji": ("--data.channels", "3")}
BITS = {"fashion-mnist": (0.05, 0.1, 0.2), "emoji": (0.1, 0.2, 0.4)}
FACTORS = (1, 3, 10)
"""One over the KL-VAE's KL weights."""
METHODS = ("UL", "KL-VAE")
SETTLED = "UL, prior settled"
"""UL with a prior that goes on alone, stage 1 only: to compare pictures at the bits that each method names."""
CONTROL = "KL-VAE, diffusion decoder"
"""The KL-VAE's encoder and price, with UL's bits (of KL) and UL's decoder: what of a difference the decoder makes."""
BASE_GOAL, WHOLE_GOAL, PSNR_GOAL = 2.0, 1.2, 2.0
Jobs = dict[str, Sequence[str]]
SHOWN: Measures = {what: how for what, how in MEASURES.items() if what != "generation"}


def configurations(data: str, method: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Of each autoencoder, by the name of its runs, the words for it in a row and its options."""
    if method != "KL-VAE":
        short, words = {
            "UL": ("ul", ("--stage1.settle", "0")),
            SETTLED: ("settled", ("--stage1.settle", "50000")),
            CONTROL: ("control", ("--preset", "kl-vae", "--autoencoder.decoder-loss", "diffusion")),
        }[method]
        bits = {bpp: ("--bpp", f"{bpp:g}", *words) for bpp in BITS[data]}
        return {f"{data}-{short}-{bpp:g}": (f"{method} {bpp:g} bits per pixel", words) for bpp, words in bits.items()}
    factors = {factor: ("--preset", "kl-vae", "--loss-factor", f"{factor}") for factor in FACTORS}
    return {f"{data}-kl-{factor}": (f"KL-VAE weight 1/{factor}", words) for factor, words in factors.items()}


def of_budget(name: str, budget: int) -> str:
    """Name of the runs of an autoencoder with a base model of ``budget`` latents (0: none), without the seed."""
    return name if budget in (0, OWN) else f"{name}-base{budget}"


def jobs(data: str, seed: int, budgets: Iterable[int], methods: Iterable[str] = METHODS) -> Jobs:
    """Names and options of the runs of all autoencoders of a data set and seed with base models of these budgets, but
    for ``OWN`` and 0 (none) those of :func:`near` alone."""
    found: Jobs = {}
    for budget in budgets:
        for method in methods:
            first = budget in (0, OWN)
            for name in configurations(data, method) if first else near(data, method):
                words = configurations(data, method)[name][1]
                taken = () if first else ("--stage1.autoencoder", str(WORK / f"{name}-s{seed}"))
                ends = (*SCALE, "--stage2.samples", f"{budget}", "--seed", f"{seed}", *taken)
                found[f"{of_budget(name, budget)}-s{seed}"] = (data, *DATA[data], *words, *ends)
    return found


def near(data: str, method: str) -> list[str]:
    """The configurations of a method that generate within ``NEAR`` of its best after ``OWN`` latents."""
    measures = {"generation": MEASURES["generation"]}
    found = {name: mean(over_seeds(WORK, name, SEEDS, measures)["generation"]) for name in configurations(data, method)}
    return [name for name, distance in found.items() if distance <= NEAR * min(found.values())]


def whole(data: str, budgets: Sequence[int]) -> list[int]:
    """Seeds whose runs of these budgets are all done, so that means are over equal seeds; where none, all seeds."""
    found = [s for s in SEEDS if all((WORK / name / "metrics.json").is_file() for name in jobs(data, s, budgets))]
    return found or list(SEEDS)


def run_flops(parts: Sequence[str]) -> Measures:
    """What reads the training FLOPs of these parts of a run; a KL-VAE has no prior that is trained."""
    return {"FLOPs": ("FLOP", lambda found: float(sum(found.costs.training_flops.get(part, 0) for part in parts)))}


def stage1_flops(data: str, method: str) -> float:
    """Training FLOPs of encoder, prior and decoder in the autoencoders' own runs, which are equal within a method."""
    return mean(
        [
            one
            for name in configurations(data, method)
            for one in over_seeds(WORK, name, SEEDS, run_flops(("encoder", "prior", "decoder")))["FLOPs"]
        ]
    )


@dataclass(frozen=True)
class Best:
    """The configuration of a method that generates nearest with a base model of one budget."""

    label: str
    flops: float
    """Training FLOPs of the base model."""
    distances: list[float]
    """One a seed."""


Envelope = dict[int, Best]


def envelope(data: str, method: str, seeds: Sequence[int], budgets: Sequence[int] = BUDGETS) -> Envelope:
    """The method at its best, the lowest mean distance over ``seeds``, by the budget of the base model."""
    measures = {"generation": MEASURES["generation"], **run_flops(("base",))}
    found: Envelope = {}
    for budget in budgets:
        each = [
            Best(label, mean(values["FLOPs"]), values["generation"])
            for name, (label, _) in configurations(data, method).items()
            for values in [over_seeds(WORK, of_budget(name, budget), seeds, measures)]
            if values["generation"]
        ]
        if each:
            found[budget] = min(each, key=lambda one: mean(one.distances))
    return found


def reached(wanted: float, points: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """FLOPs at which a curve ``(FLOPs, distance)`` first comes down to ``wanted``, linear in ln FLOPs, and the sign of
    what they may be off by: −1 where it begins below (they are at most these), 1 where it never does (they are more).
    """
    for index, (flops, distance) in enumerate(points):
        if distance <= wanted:
            last = points[max(index - 1, 0) : index + 1]
            crossing = [(height, math.log(place)) for place, height in last]
            return (math.exp(interpolated(wanted, crossing)), 0) if index else (flops, -1)
    return points[-1][0], 1


@dataclass(frozen=True)
class Ratio:
    """FLOPs of the KL-VAE over those of UL at one distance."""

    value: float
    bound: str
    """What the value is of the truth; empty where it is the truth."""

    def __str__(self) -> str:
        return f"{self.bound} {self.value:.3g}".strip()


def ratio(wanted: float, curves: Mapping[str, Sequence[tuple[float, float]]], added: Mapping[str, float]) -> Ratio:
    """The ratio at ``wanted`` with ``added`` FLOPs each; a curve that begins below or ends above bounds it."""
    (ours, below), (theirs, above) = (reached(wanted, curves[method]) for method in METHODS)
    signs = {above, -below} - {0}
    bound = {(): "", (1,): "at least", (-1,): "at most"}.get(tuple(signs), "not known, smallest budgets give")
    return Ratio((theirs + added["KL-VAE"]) / (ours + added["UL"]), bound)


def at_equal_distance(data: str, seeds: Sequence[int], added: Mapping[str, float]) -> dict[str, Ratio]:
    """By the words for a distance, the ratio there: what the KL-VAE reaches with its largest budget, and, where UL
    never does, the lowest that UL reaches. Nothing where the methods share fewer than two budgets."""
    best = {method: envelope(data, method, seeds) for method in METHODS}
    shared = [budget for budget in BUDGETS if all(budget in found for found in best.values())]
    if len(shared) < 2:
        return {}
    curves = {m: [(found[b].flops, mean(found[b].distances)) for b in shared] for m, found in best.items()}
    target, lowest = curves["KL-VAE"][-1][1], min(distance for _, distance in curves["UL"])
    last = best["KL-VAE"][shared[-1]].label
    found = {f"the KL-VAE's after {shared[-1]:,} latents ({last}, {target:.3g})": ratio(target, curves, added)}
    if lowest > target:
        found[f"UL's lowest, as it never comes down to the KL-VAE's ({lowest:.3g})"] = ratio(lowest, curves, added)
    return found


def work_rows(data: str, what: str, goal: float, added: Mapping[str, float]) -> Rows:
    """Ratios of work: of the mean curves, with the goal, and the mean of what each seed alone says, with its error."""
    rows: Rows = []
    seeds = whole(data, BUDGETS)
    alone = {seed: list(at_equal_distance(data, (seed,), added).values()) for seed in seeds}
    for index, (distance, found) in enumerate(at_equal_distance(data, seeds, added).items()):
        each = {seed: ratios[index] for seed, ratios in alone.items() if len(ratios) > index}
        text = f"{data}: {what} to equal distance, KL-VAE over UL, at {distance}"
        text += f": {found.bound} this" if found.bound else ""
        aim = None if index else goal
        rows.append(row(text, found.value, "ratio", goal=aim, at_least=aim is not None, n=len(seeds)))
        values = [one.value for one in each.values()]
        if values:
            told = ", ".join(f"seed {seed} {one}" for seed, one in each.items())
            text = f"{data}: {what}, the same ratio seed by seed, each at its own such distance ({told}), mean"
            rows.append(row(text, mean(values), "ratio", stderr=error(values), n=len(values)))
    return rows


def psnr_rows(data: str, bits: str, ours: str) -> Rows:
    """PSNR of UL (its runs ``ours``) less that of each KL-VAE at equal ``bits``, a measure of both, seed by seed, where
    UL's range holds them."""
    rows: Rows = []
    curves = {
        seed: [
            (math.log(max(value, 1e-9)), psnr)
            for name in configurations(data, ours)
            for found in [over_seeds(WORK, name, (seed,), SHOWN)]
            for value, psnr in zip(found[bits], found["PSNR"], strict=True)
        ]
        for seed in SEEDS
    }
    for name, (label, _) in configurations(data, "KL-VAE").items():
        gains, told = [], []
        for seed, curve in curves.items():
            found = over_seeds(WORK, name, (seed,), SHOWN)
            for value, psnr in zip(found[bits], found["PSNR"], strict=True) if curve else ():
                gain = interpolated(math.log(max(value, 1e-9)), curve) - psnr
                ends = [math.exp(end) for end in (min(curve)[0], max(curve)[0])]
                outside = "" if math.isfinite(gain) else ", outside: left out"
                told.append(f"seed {seed} at {value:.3g}, UL has {ends[0]:.3g} to {ends[1]:.3g}{outside}")
                gains += [gain] if math.isfinite(gain) else []
        if told:
            text = f"{data}: PSNR at equal {bits}, {ours} less {label} ({'; '.join(told)})"
            value, aim = (mean(gains), PSNR_GOAL) if gains else (None, None)
            rows.append(row(text, value, "dB", goal=aim, at_least=True, stderr=error(gains), n=len(gains)))
    if rows and all(one["value"] is None for one in rows):
        text = f"{data}: PSNR at equal {bits}, no KL-VAE lies in the range of {ours}"
        rows.append(row(text, None, "dB", goal=PSNR_GOAL, at_least=True, n=0))
    return rows


def at_each_budget(data: str) -> Rows:
    """Generation distance of the best KL-VAE less that of the best UL."""
    rows: Rows = []
    for method, budget in [*(("KL-VAE", budget) for budget in BUDGETS), (CONTROL, OWN)]:
        best = [envelope(data, one, whole(data, [budget]), [budget]).get(budget) for one in ("UL", method)]
        ours, theirs = best
        if ours and theirs:
            pair = f"best {method} ({theirs.label}) less best UL ({ours.label})"
            text = f"{data}: generation after {budget:,} latents, {pair}"
            rows += difference(text, theirs.distances, ours.distances, "kernel distance")
    return rows


def report(data: str) -> Rows:
    """All rows of a data set, of whatever runs there are."""
    rows: Rows = []
    for method in METHODS:
        for name, (label, _) in configurations(data, method).items():
            rows += lines(f"{data}, {label}", over_seeds(WORK, name, SEEDS, SHOWN), SHOWN)
            for budget in BUDGETS:
                measure = f"generation after {budget:,} latents"
                measures: Measures = {measure: MEASURES["generation"]}
                found = over_seeds(WORK, of_budget(name, budget), SEEDS, measures)
                rows += lines(f"{data}, {label}", found, measures)
    added = {method: stage1_flops(data, method) for method in METHODS}
    for method, flops in added.items():
        rows += [row(f"{data}, {method}: training FLOPs, stage 1", flops, "FLOP")] if math.isfinite(flops) else []
        for budget, one in envelope(data, method, SEEDS).items():
            rows.append(row(f"{data}, {method}: training FLOPs, base, {budget:,} latents", one.flops, "FLOP"))
    rows += at_each_budget(data)
    rows += work_rows(data, "base FLOPs", BASE_GOAL, dict.fromkeys(METHODS, 0.0))
    rows += work_rows(data, "base and stage 1 FLOPs", WHOLE_GOAL, added)
    for method, measures in ((SETTLED, SHOWN), (CONTROL, MEASURES)):
        for name, (label, _) in configurations(data, method).items():
            rows += lines(f"{data}, {label}", over_seeds(WORK, name, SEEDS, measures), measures)
    return [*rows, *psnr_rows(data, "bits", SETTLED), *psnr_rows(data, "base bits", "UL")]


PROTOCOL = (
    "32×32 pictures (20,000 read at most; emoji has 3,391), `small` networks, stage 1 of 16,000 pictures, one thread. "
    "UL: diffusion prior and decoder, λ₀ = 5, wanted bits. KL-VAE: preset `kl-vae`, squared error in one decoder call, "
    "no perceptual or adversarial term, λ₀ = 10, three KL weights; equal encoder (plus outputs for its variance) and "
    "decoder, no trained prior. Both: one base model, trained with EMA and its own learning rate decay at each budget; "
    f"but for {OWN:,} latents only with autoencoders within {NEAR:g} of their method's best there. "
    "Up to 600 held-out pictures (emoji: a tenth of all) against as many samples, guidance 1, one decoder call; "
    "kernel distance of efficientnet-lite0 features at 128×128, comparable among the rows of one data set only. "
    "UL's prior is trained with the autoencoder alone; in the rows `UL, prior settled` on 50,000 latents more. "
    f"`{CONTROL}`: a control, base models of {OWN:,} latents alone. "
    "`bits`: by the run's own price (UL: its prior; KL-VAE: its KL term). `base bits`, one measure for both: the "
    "bound on what the noisy latent tells under the base model of 24,000 latents; a base model that fits worse makes "
    "it looser, and the λ₀ differ, so PSNR at equal base bits favours the side with the tighter bound. UL's PSNR is "
    "linear in ln base bits between its configurations and not continued beyond them. FLOPs are those of linear "
    "projections, convolutions and attention (two a multiply-add), training = 3 × forward; encoding the latents and "
    "measuring are not counted. 'Best' is the lowest mean distance of a method at a budget, chosen on the "
    "samples that are reported. FLOPs to a distance: where these best points, joined straight in ln FLOPs, first come "
    "down to it, stage 1 added afterwards. A curve that begins below the distance counts with its smallest budget, one "
    "that never reaches it with its largest: the ratio is then a bound, its row says so, and means over seeds contain "
    "such bounds as they are. Standard errors are over seeds; of two seeds they have one degree of freedom. "
    "Comparisons of distances use seeds whose runs are complete, where there are any."
)


def main(chosen: Iterable[str]) -> None:
    """Train what is missing and write what there is."""
    chosen = list(chosen) or list(DATA)
    for data in [name for name in DATA if name in chosen]:
        for budget in sorted(BUDGETS, key=lambda budget: budget != OWN):  # the autoencoders come first
            train_two_at_a_time(WORK, {name: job for s in SEEDS for name, job in jobs(data, s, [budget]).items()})
        for method, budget in ((SETTLED, 0), (CONTROL, OWN)):
            more = {name: job for s in SEEDS for name, job in jobs(data, s, [budget], [method]).items()}
            train_two_at_a_time(WORK, more)
    rows = [one for data in DATA for one in report(data)]
    print(Path(write("headline", PROTOCOL, rows).with_suffix(".md")).read_text("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*DATA, "report", []])
    main(parser.parse_args().part)
