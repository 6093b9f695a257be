"""``docs/scale.md`` is what ``benchmarks/scale.py`` writes, and its numbers by hand."""

from pathlib import Path
from types import ModuleType

import pytest

from unilat.recipe import presets
from unilat.recipe.build import describe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scale

    return scale


def test_the_page_is_what_the_script_writes(scale: ModuleType) -> None:
    """Kills: a network, a rate or a formula that changes while the page goes on telling the old one."""
    assert (ROOT / "docs" / "scale.md").read_text("utf-8") == scale.page(), "run: python benchmarks/scale.py"


def test_the_paper_s_step_by_hand(scale: ModuleType) -> None:
    """3 passes of 1,262.1 GFLOPs; 283.6 M parameters. Kills: a pass for three, another stage's networks, gradients in
    bf16, a ring that sends them once, a node's speed between nodes, a batch that is not shared out."""
    one, two = scale.jobs("x", presets.get("imagenet-512"))
    assert one.flops == pytest.approx(3 * 1262.1e9, rel=1e-4) and two.flops == pytest.approx(3 * 161.2e9, rel=1e-3)
    assert (one.parameters, two.parameters) == (283_647_820, 238_401_056)
    assert one.kept == pytest.approx(2.99, rel=0.01)
    alone, node, racks = (scale.step(one, gpus) for gpus in (1, 8, 64))
    assert [each.rows for each in (alone, node, racks)] == [1024, 128, 16]
    assert [each.micro for each in (alone, node, racks)] == [16, 16, 16]
    assert {each.way for each in (alone, node, racks)} == {"replicas"}
    assert alone.gib == pytest.approx(58.8, rel=0.01) and alone.sent == 0
    assert alone.teraflops == pytest.approx(1024 * 3.7864, rel=1e-4)
    assert alone.seconds == alone.computing == pytest.approx(1024 * 3.7864e12 / 160e12, rel=1e-4)
    assert node.sent == pytest.approx(2 * 7 / 8 * 4 * 283_647_820) and node.sending == pytest.approx(node.sent / 450e9)
    assert racks.sent == pytest.approx(2 * 63 / 64 * 4 * 283_647_820) and racks.sending == pytest.approx(
        racks.sent / 50e9
    )
    many = scale.step(one, 1024)
    assert (many.rows, many.micro, many.seconds, many.bound) == (1, 1, 0.061, "launching")
    assert scale.step(two, 64).gib == pytest.approx((26 * 238_401_056) / 2**30 + 32 * two.kept)


def test_what_does_not_fit_is_sharded_and_computed_again(scale: ModuleType) -> None:
    """2e9 parameters, 48.4 GiB of state, 3 GiB an example. Kills: shards where replicas fit, a trip a step instead of
    one a micro-batch, states that are sharded by the square, memory told as enough where not one row fits."""
    job = scale.Job(name="x", parameters=2 * 10**9, flops=1e12, kept=3.0, workspaces=4.0, batch=64, samples=640)
    fits = scale.step(job, 8)
    assert (fits.way, fits.micro) == ("replicas", 4) and fits.gib == pytest.approx(26 * 2e9 / 2**30 + 4 + 12)
    job = scale.replace(job, parameters=4 * 10**9)
    split = scale.step(job, 8)
    assert (split.way, split.rows, split.micro) == ("sharded", 8, 8)
    assert split.gib == pytest.approx(26 * 4e9 / 8 / 2**30 + 4 + 24) and split.sent == pytest.approx(8 * 7 / 8 * 4e9)
    split = scale.step(scale.replace(job, kept=10.0), 8)
    assert (split.way, split.micro) == ("sharded", 4) and split.sent == pytest.approx(2 * 8 * 7 / 8 * 4e9)
    assert split.computing == pytest.approx(8 * 1e12 / 160e12)
    again = scale.step(scale.replace(job, kept=60.0), 8)
    assert (again.way, again.micro) == ("sharded, again", 1) and again.gib == pytest.approx(26 * 4e9 / 8 / 2**30 + 34)
    assert again.computing == pytest.approx(461.1 / 360.1 * 8 * 1e12 / 160e12)
    never = scale.step(job, 1)
    assert (never.micro, never.sent) == (0, 0) and never.gib > 70
    row = scale.line(job, never)
    assert "**" in row and row.endswith("| memory | – |") and row.count("|") == scale.line(job, split).count("|") == 13


def test_ten_times_wider_is_a_hundred_times_the_weights(scale: ModuleType) -> None:
    """Kills: a network left as it was, depths that grow too."""
    paper, wide = (
        describe(config).parts for config in (presets.get("imagenet-512"), scale.wider(presets.get("imagenet-512"), 10))
    )
    for name, part in paper.items():
        assert 85 < wide[name].parameters / part.parameters < 101, name
        assert 60 < wide[name].forward_flops / part.forward_flops < 101, name


def test_days_by_hand(scale: ModuleType) -> None:
    """Kills: hours, or a step of one example."""
    job = scale.Job(name="x", parameters=10, flops=160e12, kept=0.0, workspaces=0.0, batch=10, samples=864_000)
    row = scale.line(job, scale.step(job, 1))
    assert row == "| x | 1 | 10 | 10 | replicas | 0 | 1,600 | 0 | 10 | 0 | computing | 10 |"
