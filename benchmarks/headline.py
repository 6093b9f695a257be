"""Unified Latents (UL) against the KL-VAE latents of latent diffusion, each as its users would have it: who needs less?

    make bench-headline                         both data sets (six hours of a core each; goes on where it stopped)
    make bench-headline ARGS=fashion-mnist      one data set, written into a file of its own
    make bench-headline ARGS=--quick            a quarter of the training, fewer weights and budgets (2 hours)
    python benchmarks/headline.py fashion-mnist --report   nothing is run: what is there is told
    python benchmarks/headline.py --rehearse    minutes, tiny, written into the run folder alone

32×32, the `small` networks. Choices (bits or KL weight, learning rates, settling, perceptual term, noise weighting of
the base model, guidance, calls) are made on a validation part of the held-out pictures and told on a test part.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import Rows, error, make_command, mean, row, write
from headline_rows import Point, by_second, chosen, farther, point_rows, work_rows
from headline_study import FULL, PRESETS, QUICK, REHEARSAL, WORK, Scale, Setting, Study, best, words

GOALS = (2.0, 1.2)
"""Of the base model's FLOPs to equal distance, and of all."""


def search(study: Study, method: str, run: bool) -> Setting | None:
    """Choose a method's settings one after another, each against the best so far: bits, or the KL weight, under the
    first perceptual weight, then the rest. None where nothing has been judged."""
    scale = study.scale
    strongest, *others = scale.perceptual
    name, values = ("weight", scale.factors) if method == "KL-VAE" else ("bpp", scale.bits)
    first: list[Setting] = [((name, one), ("perceptual", strongest)) for one in values]
    steps = [[("perceptual", one) for one in others], [("lr", one) for one in scale.lr]]
    if method == "UL":
        steps.append([("settle", f"{scale.settle}")])
    steps += [[("bias", one) for one in scale.bias], [("baselr", one) for one in scale.baselr]]
    if run:
        study.make(method, first, [scale.middle], scale.search)
    if (now := best(study, method, first)) is None:
        return None
    for step in steps:
        tried = [tuple((dict(now) | {name: value}).items()) for name, value in step]
        if run:
            study.make(method, tried, [scale.middle], scale.search)
        now = best(study, method, [now, *tried]) or now
    return now


def long_runs(study: Study, ours: Setting, theirs: Setting, method: str) -> dict[str, Setting]:
    """The other method's setting with as long a stage 1 as ours has: in FLOPs, and in seconds."""
    scale, pairs = study.scale, (("UL", ours), (method, theirs))
    names = [study.autoencoder(one, setting, scale.search[0]) for one, setting in pairs]
    phases = [study.results(name).costs.phases for name in names]
    seconds = [sum(phase.seconds for phase in each if phase.name == "stage 1") for each in phases]
    flops = [study.stage1_flops(name) for name in names]
    longer = {"FLOPs": flops[0] / flops[1], "seconds": seconds[0] / seconds[1]}
    counts = {what: max(1, round(scale.samples * by / 32)) * 32 for what, by in longer.items()}
    return {f"{method}, stage 1 of equal {what}": (*theirs, ("n", f"{count}")) for what, count in counts.items()}


def rivals(scale: Scale, setting: Setting) -> list[Setting]:
    """What goes to every budget beside the chosen setting, which was chosen at the middle one: the next more bits, or
    the next weaker KL weight, and the other learning rate of the base model."""
    known = dict(setting)
    name, values = ("weight", scale.factors) if "weight" in known else ("bpp", scale.bits)
    more = values[values.index(known[name]) + 1 :][:1]
    rates = [{"baselr": one} for one in scale.baselr]
    bare = {key: value for key, value in known.items() if key != "baselr"}
    others = [known | {name: one} for one in more] + ([bare] if "baselr" in known else [bare | one for one in rates])
    return [tuple(one.items()) for one in others]


def families(study: Study, run: bool = False) -> dict[str, tuple[str, list[Setting]]]:
    """The curves by name: each the preset of its runs, its setting, and the rivals of that. What has not been searched
    is left out."""
    with ThreadPoolExecutor(2) as pool:
        settings = dict(zip(PRESETS, pool.map(lambda method: search(study, method, run), PRESETS), strict=True))
    if not (ours := settings["UL"]):
        return {}
    found = {"UL": ("UL", ours)}
    for method in ("KL-VAE", "equal decoders"):
        if theirs := settings[method]:
            longer = long_runs(study, ours, theirs, method)
            for name in list(longer)[: 2 if method == "KL-VAE" else 1]:
                found[name] = (method, longer[name])
    return {name: (method, [one, *rivals(study.scale, one)]) for name, (method, one) in found.items()}


def curves(study: Study, run: bool) -> dict[str, list[Point]]:
    """Of each method the point of each budget, which the validation part chooses among its setting and the rivals of
    that; what is not there is left out. Two runs at a time, of one thread each."""
    scale, found, known = study.scale, families(study, run), dict[str, list[Point]]()
    for part in (slice(1), slice(1, None)) if run else ():  # every method's chosen setting before anybody's rivals
        with ThreadPoolExecutor(2) as pool:
            jobs = [(method, settings[part], scale.budgets, scale.seeds) for method, settings in found.values()]
            list(pool.map(lambda one: study.make(*one), jobs))
    for name, (method, settings) in found.items():
        tried = [[study.point(method, one, budget, scale.seeds) for one in settings] for budget in scale.budgets]
        known[name] = [chosen([one for one in each if one]) for each in tried if any(each)]
    return known


def without(study: Study) -> dict[str, tuple[str, Setting]]:
    """The best of ours without each of its parts: the preset and the setting of each."""
    if not (now := search(study, "UL", False)):
        return {}
    bare, plain = (tuple(one for one in now if one[0] != part) for part in ("settle", "perceptual"))
    return {
        "without a perceptual term": ("UL", plain),
        "without the trained prior (a KL to N(0, I) under a learned variance)": ("equal decoders", bare),
        "without the diffusion decoder (a squared error in one call)": ("UL", (*now, ("decoder", "mse"))),
        "without the controller (a fixed loss factor of 1.5)": ("UL", (("weight", "1.5"), *now[1:])),
        **({"without settling": ("UL", bare)} if bare != now else
           {"with settling": ("UL", (*bare, ("settle", f"{study.scale.settle}")))}),
    }  # fmt: skip


def removed(study: Study, run: bool) -> Rows:
    """What each part of ours is worth: the best of ours without it, after the middle budget."""
    scale, rows, others = study.scale, Rows(), without(study)
    if run:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: study.make(one[0], [one[1]], [scale.middle], scale.seeds), others.values()))
    now = search(study, "UL", False)
    reference = study.point("UL", now, scale.middle, scale.seeds) if now else None
    for name, (method, setting) in others.items():
        point = study.point(method, setting, scale.middle, scale.seeds)
        if point and reference:
            rows += farther(f"{study.data}, {scale.middle:,} latents, {name}", reference, point)
    return rows


def missing(study: Study) -> str:
    """A sentence that names what of the study was not run; nothing where all was."""
    scale, lost = study.scale, list[str]()
    for name, (method, settings) in families(study).items():
        for one in settings:
            gone = [f"{budget:,}" for budget in scale.budgets if not study.point(method, one, budget, scale.seeds)]
            lost += [f"{name} with {words(one)} after {', '.join(gone)} latents"] if gone else []
    others = without(study).items()
    lost += [name for name, (method, one) in others if not study.point(method, one, scale.middle, scale.seeds)]
    return f" Not run: {'; '.join(lost)}." if lost else ""


def report(study: Study, run: bool) -> Rows:
    """All rows of a data set."""
    rows, found, network = Rows(), curves(study, run), study.scale.networks[1]
    for name, points in found.items():
        for point in points:
            what = f"{study.data}, {name}, base model of {point.base_flops:.3g} FLOPs, {point.label}"
            rows += point_rows(what, {"generation": point.test, f"generation, {network}": point.second})
            rows.append(
                row(f"{what}: PSNR, test part", mean(point.psnr), "dB", stderr=error(point.psnr), n=len(point.psnr))
            )
            rows.append(row(f"{what}: stage 1", point.stage1_flops, "FLOP"))
    ours = found.pop("UL", [])
    for name, points in found.items():
        if len(points) > 1 and len(ours) > 1:
            rows += work_rows(study.data, name, ours, points, GOALS)
        same = {one.base_flops: one for one in ours}
        for right in points:
            if left := same.get(right.base_flops):
                what = f"{study.data}, equal base FLOPs ({left.base_flops:.3g})"
                rows += farther(what, left, right, 0.0)
                rows += farther(f"{what}, {network}", by_second(left), by_second(right))
    return [*rows, *removed(study, run), *details(study)]


def details(study: Study) -> Rows:
    """Of every setting that the search tried, on its first seed: bits, PSNR, reconstructions, the second network."""
    rows: Rows = []
    for path in sorted(study.work.glob(f"{study.data}-*.cell.json")):
        name, cell = path.name.removesuffix(".cell.json"), json.loads(path.read_text("utf-8"))
        if f"-s{study.scale.search[0]}-" not in name or f"-base{study.scale.middle}" not in name:
            continue
        results = study.results(name)
        bits = results.base_bits
        if bits is not None:
            rows.append(row(f"{name}: bits under the base model", bits.value, "bits per pixel", stderr=bits.stderr))
        rows.append(row(f"{name}: bits by its own price", results.bits.value, "bits per pixel"))
        rows.append(row(f"{name}: PSNR, test part", cell["psnr"], "dB", n=cell["pictures"]))
        for network, told in cell["test"].items():
            for what, numbers in told.items():
                text = f"{name}: {what}, test part, {network}"
                kernel, stderr = numbers["kernel"], numbers["stderr"]
                rows.append(row(text, kernel, "kernel distance", stderr=stderr, n=cell["pictures"]))
                for share in ("precision", "recall"):
                    rows.append(row(f"{text}, {share}", numbers[share], "share", n=cell["pictures"]))
    return rows


def commits(work: Path) -> set[str]:
    """The commits that the runs of a folder were made by, ``+`` behind those of a changed tree."""
    found = (json.loads(path.read_text("utf-8")).get("commit") for path in work.glob("*/manifest.json"))
    return {str(one) for one in found}


def protocol(scale: Scale) -> str:
    """What the rows are."""
    seeds, searched = (", ".join(map(str, some)) for some in (scale.seeds, scale.search))
    weights, perceptual = ", ".join(f"1/{one}" for one in scale.factors), ", ".join(scale.perceptual)
    first, second = scale.networks
    return (
        f"32×32 pictures (at most {scale.at_most:,} read), `small` networks, stage 1 of {scale.samples:,} pictures, "
        f"two runs at a time, one thread each, seeds {seeds}. The held-out pictures (a tenth; of emoji a fifth) "
        f"are dealt into a validation and a test part of at most {scale.pictures} each. Settings are chosen one after "
        f"another by the validation part after {scale.middle:,} latents (seed {searched}), guidance "
        f"({scale.guidance}) and calls ({scale.calls}) of each run by its own samples for that part. "
        f"All: bits, or KL weights, under a perceptual weight of {scale.perceptual[0]}, then perceptual weight "
        f"({perceptual}) and learning rate; UL settling. Beside the chosen setting the next more bits (or weaker KL "
        "weight) and the other learning rate of the base model go to every budget, and the validation part chooses for "
        f"each. Rows tell other samples against the test part. UL: preset `small`, bits {', '.join(scale.bits)}. "
        f"KL-VAE: preset `kl-vae`, squared error in one call, KL weights {weights}, no adversarial term; its stage 1 "
        "then as long as UL's in FLOPs, and as long in seconds. "
        "`equal decoders`: its encoder and price with UL's controller and decoder, stage 1 of equal FLOPs. Of all: the "
        "base model's noise weighting (bias b of sigmoid(b − λ), which shifts its levels) and learning rate; latents "
        f"scaled and shifted a channel. Kernel distances of {first}; {second} beside it, which the perceptual term "
        "has seen. They compare among the rows of one data set only, never with a published FID. Errors: √(spread of "
        "the seeds² / n + mean squared jackknife), pictures being the same for all seeds; of ratios: half of the "
        "middle 68 % of curves drawn within these errors. FLOPs: training as `costs` counts it; encoding the latents "
        "and measuring are not counted. Equal distance: the nearest that both methods come, curves joined straight in "
        "ln FLOPs."
    )


def main() -> None:
    """Train what is missing and write what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", choices=[*(name for name, _ in FULL.data), []], help="all when left out")
    for name in ("--quick", "--rehearse", "--report"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--work", type=Path, help="folder of the runs")
    asked = parser.parse_args()
    name, scale = ("rehearsal", REHEARSAL) if asked.rehearse else ("quick", QUICK) if asked.quick else ("full", FULL)
    for data, channels in scale.data:
        if not asked.data or data in asked.data:
            study = Study(scale, data, channels, (asked.work or WORK) / name / data)
            study.work.mkdir(parents=True, exist_ok=True)
            tell(study, name, report(study, not asked.report))


def tell(study: Study, scale: str, rows: Rows) -> None:
    """Write one data set's results; of a rehearsal, print them."""
    if scale == "rehearsal":
        return print("\n".join(f"{one['value']!s:>24} {one['stderr']!s:>24} {one['what']}" for one in rows))
    made = commits(study.work)
    if len(made) != 1 or any(one.endswith("+") for one in made):
        raise SystemExit(f"not written: the runs in {study.work} are of {sorted(made)}, not of one unchanged commit")
    file = "headline_quick" if scale == "quick" else f"headline_{study.data.replace('-', '_')}"
    asked = ["--quick"] if scale == "quick" else [study.data]
    told = protocol(study.scale) + missing(study)
    path = write(file, told, rows, command=make_command("headline", asked), commit=made.pop())
    print(path.with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
