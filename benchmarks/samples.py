"""Samples that one would show, of pictures that are not letters: clothing, and emoji in colour.

    make bench-samples                   all, one after another, both cores (goes on where it stopped)
    make bench-samples ARGS=emoji-32     one of them: fashion-mnist, fashion-mnist-short, equal-fashion-mnist, emoji-32,
                                         emoji-64

`unilat train` with the settings below, which were chosen on held-out pictures that are not told here (LOG.md): of
Fashion-MNIST 600 others, of emoji another seed's split. Emoji are the 1,911 of three vendors in up to 31 skin tones,
where they have any: what is held out is a vendor's picture of an emoji in a tone whose vendor, emoji and tone each have
other pictures. Samples are of the labels of the held-out pictures. What classifiers of the training pictures name
rightly of the samples is told over what they name of the held-out pictures. FLOPs are training FLOPs, Muon's products
among them. Goals of Fashion-MNIST: 0.95 of real pictures' share, 0.6 of the distance of 0.31 that a base model of
1.13e13 FLOPs had on 25 November 2026 (headline.md), and 40 minutes on two cores; `fashion-mnist-short` is another base
model, of equal FLOPs, on the same latents; `equal-fashion-mnist`, in a file of its own, a narrower one, of equal FLOPs
too, on an autoencoder of the same settings.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import picture
from common import ROOT, Rows, make_command, one_commit, row, write

from unilat.results import Results, read
from unilat.signals.catalogue import find, get

WORK = ROOT / "runs" / "bench-samples"
IMAGES = ROOT / "docs" / "images"
EMOJI = WORK / "emoji"
BEFORE_FLOPS, BEFORE = 1.128e13, 0.31
"""Of the base model of `make bench-headline`, 25 November 2026, and the distance of its samples."""
FINE = (
    "--autoencoder.latent-channels 2 --autoencoder.encoder.channels 48 --autoencoder.encoder.patch 2 2 "
    "--autoencoder.prior.patch 4 --base.vit.patch 4"
)
"""Latents of 16×16×2, as in the preset `glyphs`."""
CLOTHES = f"fashion-mnist --target-bpp 0.4 {FINE} --evaluation.guidance 3"
THREE = (
    f"{EMOJI} --seed 1 --data.labels vendor emoji tone --preset glyphs --autoencoder.latent-channels 4 "
    "--stage1.samples 40000 --stage1.settle 60000 --stage2.samples 240000"
)
SETTINGS = {
    "fashion-mnist": f"{CLOTHES} --stage1.samples 64000 --stage1.settle 96000 --stage2.samples 1100000",
    "fashion-mnist-short": f"{CLOTHES} --stage1.autoencoder {WORK / 'fashion-mnist'} --stage2.samples 96000",
    "equal-fashion-mnist": (
        f"{CLOTHES} --stage1.samples 64000 --stage1.settle 96000 --base.vit.channels 96 --stage2.samples 168960"
    ),
    "emoji-32": f"{THREE} --size 32 --target-bpp 0.4",
    "emoji-64": f"{THREE} --size 64 --target-bpp 0.2",
}
"""Words after `unilat train`."""
TONES = {"1f3fb": "light", "1f3fc": "medium light", "1f3fd": "medium", "1f3fe": "medium dark", "1f3ff": "dark"}
VENDORS = {"fluent": "emoji", "noto": "emoji-google", "twemoji": "emoji-twitter"}
"""The folders' names, and the data sets' in the catalogue."""


def code(name: str) -> tuple[str, ...]:
    """The code points of an emoji, without the one that only asks for colour."""
    return tuple(point for point in name.lower().split("-") if point != "fe0f")


def named(entries: list[dict[str, Any]]) -> dict[tuple[str, ...], tuple[str, str]]:
    """Emoji and skin tone of each code in `emoji.json`; "none" where an emoji has no tone."""
    found = {}
    for entry in entries:
        for one in (entry, *entry.get("skin_variations", {}).values()):
            points = code(one["unified"])
            tones = [TONES[point] for point in points if point in TONES]
            found[points] = (entry["short_name"], " and ".join(tones) or "none")
    return found


def dealt(out: Path) -> None:
    """The pictures of all vendors as ``out/VENDOR/EMOJI/TONE/picture``, for ``--data.labels vendor emoji tone``."""
    folders = {vendor: find(name) or get(name) for vendor, name in VENDORS.items()}
    entries = json.loads((folders["noto"] / "package" / "emoji.json").read_text("utf-8"))
    names, part = named(entries), out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for vendor, folder in folders.items():
        for file in sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".webp")):
            if code(file.stem) in names:
                to = part.joinpath(vendor, *names[code(file.stem)])
                to.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to / f"picture{file.suffix}")
    part.rename(out)


def group_of(name: str) -> str:
    """Which result file tells of a run: those of one data set stand together."""
    return name.split("-")[0]


def rows(name: str, found: Results, threads: int) -> Rows:
    """What is told of one run of so many threads, with the errors over its pictures."""
    bits, made, sampled = found.bits, found.reconstruction, found.generation
    assert made.distance is not None and sampled is not None
    told = [
        row(f"{name}: bits", bits.value, f"bits per pixel, {bits.target:g} wanted", stderr=bits.stderr, n=bits.n),
        row(f"{name}: PSNR", made.psnr.value, "dB", stderr=made.psnr.stderr, n=made.psnr.n),
    ]
    near = 0.6 * BEFORE if "fashion" in name else None
    for what, distance, goal in (("reconstruction", made.distance, None), ("generation", sampled, near)):
        one = distance.kernel
        told.append(row(f"{name}: {what}", one.value, "kernel distance", goal=goal, stderr=one.stderr, n=one.n))
    for what, share in (("precision", sampled.precision), ("recall", sampled.recall)):
        assert share is not None
        told.append(row(f"{name}: {what} of samples", share.value, "share", stderr=share.stderr, n=share.n))
    for one in found.judged:
        what, goal = (f", {one.of}" if found.factors else ""), 0.95 if name == "fashion-mnist" else None
        what = f"{name}: samples named rightly over real ones{what}"
        told.append(row(what, one.ratio, "share", goal=goal, at_least=True))
    costs, goal = found.costs, 40.0 if name == "fashion-mnist" else None
    unit = f"minutes, {threads} thread{'s' * (threads > 1)}"
    told.append(row(f"{name}: minutes of all phases", costs.seconds / 60, unit, goal=goal))
    if "fashion" in name:
        ratio, goal = costs.training_flops["base"] / BEFORE_FLOPS, 1.0 if name.startswith("equal") else None
        what = f"{name}: training FLOPs of the base model over those of 25 November"
        told.append(row(what, ratio, "ratio", goal=goal))
    return [*told, row(f"{name}: training FLOPs in all", sum(costs.training_flops.values()), "FLOPs")]


def main() -> None:
    """Train what is missing, draw the sheets, then write the rows of the runs that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETTINGS))
    names = parser.parse_args().names or list(SETTINGS)
    if unknown := set(names) - set(SETTINGS):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(SETTINGS)}")
    for name in names:
        if name.startswith("emoji") and not EMOJI.is_dir():
            dealt(EMOJI)
        if not (WORK / name / "metrics.json").is_file():
            words = ("train", *SETTINGS[name].split(), "--out", str(WORK / name))
            subprocess.run([sys.executable, "-m", "unilat", *words], check=True)
    for group in sorted({group_of(name) for name in names}):
        told = [name for name in SETTINGS if group_of(name) == group and (WORK / name / "metrics.json").is_file()]
        facts = {name: json.loads((WORK / name / "manifest.json").read_text("utf-8")) for name in told}
        commit = one_commit(WORK / name for name in told)
        runs = {name: read(WORK / name / "metrics.json") for name in told}
        made = [line for name, found in runs.items() for line in rows(name, found, facts[name]["threads"])]
        protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
        command = make_command("samples", told)
        path = write(f"samples_{group}", protocol, made, commit=commit, command=command)
        print(path.with_suffix(".md").read_text("utf-8"))
    for name in names:  # last: what is drawn into docs/ changes the tree
        if not name.endswith("short") and not name.startswith("equal"):
            picture.main(WORK / name, IMAGES / f"samples_{name.replace('-', '_')}.png")


if __name__ == "__main__":
    main()
