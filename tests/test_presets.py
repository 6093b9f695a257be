"""The paper's presets, built without memory, and docs/presets.md, which ``python tests/test_presets.py`` writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unilat.recipe import presets
from unilat.recipe.build import Description, describe

FILE = Path(__file__).parents[1] / "docs" / "presets.md"
PAPERS = ("imagenet-512", "kinetics-600")
PARTS = ("encoder", "prior", "decoder", "base")
HEAD = """\
# What the presets cost

Counted on the meta device, without memory or data, by `unilat.recipe.build.describe`; written by
`python tests/test_presets.py`. FLOPs are those of linear maps, convolutions and attention, two for each multiply-add;
training is three times the forward pass, times the examples that the preset trains on (UL Sec. 5.1 counts alike, but
leaves out convolutions). The base model stands without classes; presets of no fixed colour are told for grey pictures.
"""


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
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole of docs/presets.md."""
    return "\n".join([HEAD, *map(section, presets.PRESETS)])


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_page_is_what_is_counted(name: str) -> None:
    """Kills: a network that changes its size while the table goes on telling the old one."""
    assert section(name) in FILE.read_text("utf-8"), "run: python tests/test_presets.py"


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
