"""The paper's presets, built without memory, and docs/presets.md, which ``python tests/test_presets.py`` writes."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from unilat.nets.kinds import Kind
from unilat.recipe import presets
from unilat.recipe.build import Description, describe
from unilat.recipe.config import capacity, check, latent_grid
from unilat.recipe.predict import predicted

FILE = Path(__file__).parents[1] / "docs" / "presets.md"
PAPERS = ("imagenet-512", "kinetics-600")
PARTS = ("encoder", "prior", "decoder", "base")
HEAD = """\
# What the presets cost

Counted on the meta device, without memory or data, by `unilat.recipe.build.describe`; written by
`python tests/test_presets.py`. FLOPs are those of linear maps, convolutions and attention, two for each multiply-add;
training is three times the forward pass, times the examples that the preset trains on (UL Sec. 5.1 counts alike, but
leaves out convolutions), and the products of each step of Muon (`unilat.nets.inner`). The base model stands without
classes; presets of no fixed colour are told for grey pictures.

`photo-64`, `photo-128` and `photo-256` are for colour photographs and hours of one large GPU. They are the paper's
recipe, narrower, with our habits where they were measured (`LOG.md`): Muon in stage 1, learned noise levels, latents of
unit scale, a decoder that starts from its latent, a prior that settles, latent grids of 16×16 and finer, at capacities
well above the bits they ask for. Lengths are what 100,000 to 1,000,000 photographs would be seen 4 to 40 times for.
Their learning rates fall with the width and are guesses: none of the three has been trained yet.

**What they need of a GPU is predicted, not measured**: by `unilat.recipe.predict`, in bf16, from the steps of
`imagenet-512` that were measured on one H200 (160 TFLOP/s, a fifth of what its matrix products reach; 2.99 GiB a
picture and 11.0 GiB beside them). Micro-batches are the batch halved until 70 GiB hold it. Minutes are those of the
training steps alone: reading, encoding, evaluation and other people's work come on top, and narrow networks reach less
of a card than wide ones. `unilat bench PRESET` measures all of it where it will run.
"""
STAGES = {"stage1": "stage 1", "prior": "the prior alone", "stage2": "stage 2"}


def section(name: str) -> str:
    """The table of one preset."""
    config = presets.get(name)
    told = describe(config, channels=config.data.channels or 1)
    latent, picture = ("×".join(map(str, shape)) for shape in (told.latent, told.picture))
    settle = f" and {config.stage1.settle:,} of the prior alone" if config.stage1.settle else ""
    examples = f"{config.stage1.samples:,} examples of stage 1{settle}, {config.stage2.samples:,} of stage 2"
    lines = [
        f"## {name}",
        "",
        f"{picture} → {latent}; {examples}.",
        "",
        "| part | parameters | forward GFLOPs, one example | training EFLOPs |",
        "|---|---:|---:|---:|",
    ]
    for part in PARTS:
        if part not in told.parts:  # a normal prior is no network
            continue
        row = told.parts[part]
        forward, training = row.forward_flops / 1e9, row.training_flops / 1e18
        lines.append(f"| {part} | {row.parameters:,} | {forward:,.4g} | {training:,.4g} |")
    if name.startswith("photo") or name == "imagenet-512":  # the others are too small for the rate, or of video
        lines += ["", "| predicted on one GPU | batch | micro-batch | GiB | minutes |", "|---|---:|---:|---:|---:|"]
        batches = {"stage1": config.stage1.batch, "prior": config.stage1.settle_batch, "stage2": config.stage2.batch}
        for stage, one in predicted(config).items():
            numbers = f"{batches[stage]:,} | {one.micro_batch:,} | {one.gib:.0f} | {one.minutes:,.0f}"
            lines.append(f"| {STAGES[stage]} | {numbers} |")
    return "\n".join(lines) + "\n"


def kinds() -> str:
    """The table of `small`'s encoder and decoder in every kind."""
    config = presets.get("small")
    lines = [
        "## small in other kinds",
        "",
        "`--autoencoder.encoder.kind` and `--autoencoder.decoder.kind`, nothing else set; grey pictures, then colour.",
        "",
        "| kind | encoder: parameters | forward GFLOPs | decoder: parameters | forward GFLOPs |",
        "|---|---:|---:|---:|---:|",
    ]
    for channels, kind in itertools.product((1, 3), get_args(Kind)):
        ae = config.autoencoder
        networks = {"encoder": replace(ae.encoder, kind=kind), "decoder": replace(ae.decoder, kind=kind)}
        parts = describe(replace(config, autoencoder=replace(ae, **networks)), channels).parts
        cells = (f"{parts[name].parameters:,} | {parts[name].forward_flops / 1e9:.4g}" for name in networks)
        lines.append(f"| {kind}, {'grey' if channels == 1 else 'colour'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole of docs/presets.md."""
    return "\n".join([HEAD, *map(section, presets.PRESETS), kinds()])


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_page_is_what_is_counted(name: str) -> None:
    """Kills: a network that changes its size while the table goes on telling the old one."""
    assert section(name) in FILE.read_text("utf-8"), "run: python tests/test_presets.py"


def test_kinds_cost_what_the_page_says() -> None:
    """Kills: a kind whose depth changes while the table goes on telling the old one."""
    assert kinds() in FILE.read_text("utf-8"), "run: python tests/test_presets.py"


@pytest.fixture(scope="module")
def told() -> dict[str, Description]:
    return {name: describe(presets.get(name), classes=1000) for name in PAPERS}


def test_latents_have_the_papers_shapes(told: dict[str, Description]) -> None:
    """Kills: another downsampling than UL's: 512² → 32×32×32, 16 frames of 128² → 4×16×16 (4×8×8 down)."""
    assert (told["imagenet-512"].picture, told["imagenet-512"].latent) == ((3, 512, 512), (32, 32, 32))
    assert (told["kinetics-600"].picture, told["kinetics-600"].latent) == ((3, 16, 128, 128), (32, 4, 16, 16))


@pytest.mark.parametrize("name", PAPERS)
def test_transformers_have_the_papers_size(told: dict[str, Description], name: str) -> None:
    """Kills: a width, depth or MLP factor off: blocks of width D hold 12 D² weights, and little else is as large."""
    blocks = {"prior": 8 * 12 * 1024**2, "base": 6 * 12 * 512**2 + 16 * 12 * 1024**2}
    for part, weights in blocks.items():
        assert weights < told[name].parts[part].parameters < 1.2 * weights
    assert told[name].parts["decoder"].parameters > 8 * 12 * 1024**2


def test_flops_follow_from_tokens(told: dict[str, Description]) -> None:
    """Kills: attention or tokens miscounted: the prior's 1024 tokens cost 2·12 D² each and 4 L D for attention."""
    for name in PAPERS:
        tokens = 1024
        blocks = 8 * tokens * (2 * 12 * 1024**2 + 4 * tokens * 1024)
        assert blocks < told[name].parts["prior"].forward_flops < 1.02 * blocks


def test_training_counts_three_passes_of_every_example(told: dict[str, Description]) -> None:
    """Kills: stage 2 counted with stage 1's examples, or a pass forgotten."""
    config = presets.get("imagenet-512")
    for part, row in told["imagenet-512"].parts.items():
        samples = (config.stage2 if part == "base" else config.stage1).samples
        assert row.training_flops == 3 * samples * row.forward_flops


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("name", ["small", "imagenet-512"])
def test_dropped_tokens_save_what_the_middle_blocks_would_cost(name: str, share: float) -> None:
    """Kills: training counted as if nothing were dropped, ends that save too, sampling counted with fewer tokens."""
    config = presets.get(name)
    plain = describe(config).parts
    told = describe(replace(config, base=replace(config.base, token_dropping=share))).parts
    width, blocks = config.base.vit.channels[-1], config.base.vit.blocks[-1]
    tokens = 16 if name == "small" else 256
    kept = max(1, round((1 - share) * tokens))
    saved = (blocks - 2) * sum(
        sign * count * (24 * width**2 + 4 * count * width) for sign, count in ((1, tokens), (-1, kept))
    )
    trained = plain["base"].training_flops - told["base"].training_flops
    assert trained == 3 * config.stage2.samples * saved > 0
    assert told["base"].forward_flops == plain["base"].forward_flops
    assert told["base"].memory_mib < plain["base"].memory_mib
    assert {**told, "base": None} == {**plain, "base": None}


@pytest.mark.parametrize(
    ("name", "side", "width"), [("photo-64", 64, 512), ("photo-128", 128, 640), ("photo-256", 256, 768)]
)
def test_photo_presets_are_for_hours_of_one_gpu(name: str, side: int, width: int) -> None:
    """Hours, not days; Muon's rate falls as the root of the largest width that it moves in stage 1. Kills: a preset of
    another size, bits that its latent hardly carries, a grid coarser than 16×16, a rate of another width, settling in
    steps that a GPU does not feel, the dial's levels on top of its own."""
    config = presets.get(name)
    check(config)
    one = config.stage1
    assert (config.data.size, config.data.channels) == ((side, side), 3)
    assert min(latent_grid(config)) >= 16 and one.target_bpp
    assert 4 * one.target_bpp < capacity(config)
    assert one.learning_rate == pytest.approx(1.5e-3 * (128 / width) ** 0.5, rel=0.05)
    assert width == max(*config.autoencoder.prior.channels, config.autoencoder.decoder.width)
    needs = predicted(config)
    assert 1 < sum(need.minutes for need in needs.values()) / 60 < 8
    assert all(need.gib <= 70 and need.micro_batch >= 64 for need in needs.values())
    assert (one.settle, one.settle_batch, one.optimizer) == (one.samples, 512, "muon")
    assert presets.get(name, size=2 * side).autoencoder == config.autoencoder


def test_counting_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a gigabyte of weights made in order to be counted: nothing large may be drawn off the meta device."""
    real = torch.nn.init.kaiming_uniform_

    def watched(tensor: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        assert tensor.is_meta, "weights were made in memory"
        return real(tensor, *rest, **named)

    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", watched)
    told = describe(presets.get("imagenet-512"))
    assert told.parts["decoder"].memory_mib > 1000


def test_classes_cost_a_table() -> None:
    """Kills: class conditioning that is not counted, or counted without its null class."""
    config = presets.get("tiny")
    with_classes, without = (describe(config, classes=count).parts["base"].parameters for count in (7, 0))
    assert with_classes - without == 8 * config.base.vit.channels[-1]


if __name__ == "__main__":
    FILE.write_text(page(), "utf-8")
