"""A sweep in its folder: one autoencoder for all base sizes, gone on with, refused and marked."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import unilat
from unilat.recipe import presets
from unilat.recipe.config import RunConfig
from unilat.report.folder import read
from unilat.run import begin, seal
from unilat.run import train as job
from unilat.run.folder import RunFolder
from unilat.studies import sweep as study
from unilat.studies.cells import Estimate, axes_of, estimates, planned
from unilat.studies.points import read_points
from unilat.training.guard import Diverged
from unilat.types import UserError

FOLDER = Path("sweeps")
SHORT = {"stage1__samples": 64, "stage1__warmup": 0, "stage2__samples": 64, "stage1__calibrate_every": 64}
SHORT |= {"evaluation__pictures": 4, "evaluation__samples": 4}


def test_every_combination_is_planned_and_shares_its_autoencoder() -> None:
    """Kills an axis that is left out, seeds that are not counted from the first, a run that shares over bits, grids or
    seeds, and fields that are swept by accident."""
    start = replace(presets.get("tiny"), seed=5)
    axes = axes_of(start, (0.2, 0.4, 0.2), ("medium", "tiny"), ("4x4x4", "8x8x1"), 2)
    assert (axes.target_bpp, axes.seed) == ((0.2, 0.4), (5, 6))
    plan = planned(start, axes, FOLDER)
    assert len({run.name for run in plan}) == len(plan) == 2 * 2 * 2 * 2
    assert [run.name for run in plan[:3]] == ["0.2bpp-4x4x4-medium-seed5", "0.2bpp-4x4x4-tiny-seed5",
                                              "0.4bpp-4x4x4-medium-seed5"]  # fmt: skip
    for run in plan:
        assert run.owner == f"{run.target_bpp:g}bpp-{run.grid}-medium-seed{run.seed}"
        taken = None if run.base == "medium" else str((FOLDER / run.owner).absolute())
        assert run.config.stage1.autoencoder == taken
        assert (run.config.stage1.target_bpp, run.config.seed) == (run.target_bpp, run.seed)
    assert axes_of(start, (0.2,), ("small",), (), 1).grid == ("4x4x4",)
    assert planned(start, axes_of(start, (0.2,), ("small",), (), 1), FOLDER)[0].config == replace(
        start, stage1=replace(start.stage1, target_bpp=0.2)
    )


def test_a_size_of_two_lengths_shares_its_autoencoder_and_is_told_apart() -> None:
    """Kills a length that is lost between the axis and the run, and FLOPs that do not follow it."""
    axes = axes_of(presets.get("tiny"), (0.2,), ("small@1280", "small@5120", "tiny@5120"), (), 1)
    plan = planned(presets.get("tiny"), axes, FOLDER)
    assert [run.name for run in plan] == [f"0.2bpp-4x4x4-{base}-seed0" for base in axes.base]
    assert [run.config.stage2.samples for run in plan] == [1280, 5120, 5120]
    assert {run.owner for run in plan} == {plan[0].name} and plan[1].config.stage1.autoencoder
    first, longer, smaller = (run.base_flops for run in estimates(plan))
    assert longer == pytest.approx(4 * first) and smaller < longer


@pytest.mark.parametrize(
    ("bits", "base", "grid", "seeds", "change", "told"),
    [
        ((0.2, 9.0), ("small",), (), 1, {}, "9bpp-4x4x4-small-seed0: 9 bits per pixel are more than a latent"),
        ((0.2,), ("small",), ("4x4x4", "5x4x2"), 1, {}, "0.2bpp-5x4x2-small-seed0: a `grid` of 5x4x2 does not divide"),
        ((0.2,), ("huge",), (), 1, {}, "no base size 'huge'"),
        ((0.2,), ("small", "small@many"), (), 1, {}, "behind @ stands on how many latents"),
        ((), ("small",), (), 1, {}, "at least one value of target_bpp"),
        ((0.2,), (), (), 1, {}, "at least one value of base"),
        ((-0.2,), ("small",), (), 1, {}, "target_bpp is a positive number"),
        ((0.2,), ("small",), (), 0, {}, "`seeds` must be 1 or more"),
        ((0.2,), ("small",), (), 1, {"stage1__target_bpp": None, "stage1__loss_factor": 2.0}, "leave out loss_factor"),
        ((0.2,), ("small",), (), 1, {"stage1__autoencoder": "x"}, "leave out stage1.autoencoder"),
        ((0.2,), ("small",), (), 1, {"stage2__samples": 0}, "give stage2.samples 1 or more"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    tmp_path: Path, bits: tuple[float, ...], base: tuple[str, ...], grid: tuple[str, ...], seeds: int,
    change: dict[str, object], told: str,
) -> None:  # fmt: skip
    """Kills a mistake in the last cell that is told after hours, or after the folder is there."""
    config = begin.changed(presets.get("tiny"), change)
    with pytest.raises(UserError, match=told):
        unilat.sweep(config, out=tmp_path / "s", target_bpp=bits, base=base, grid=grid, seeds=seeds)
    assert not (tmp_path / "s").exists()


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, tiny_source: Path
) -> tuple[Path, list[str], Callable[..., study.Sweep]]:
    """A sweep of two base sizes that was stopped in its second run and gone on with; the runs whose stage 1 was
    trained."""
    folder, trained = tmp_path_factory.mktemp("sweeps") / "s", list[str]()
    real = job._stage1

    def counted(config: RunConfig, place: Path, *rest: object) -> None:
        trained.append(place.name)
        real(config, place, *rest)  # pyright: ignore[reportArgumentType]

    def go_on(**changes: object) -> study.Sweep:
        asked = {"target_bpp": (0.4,), "base": ("small", "medium"), "preset": "tiny", **SHORT, **changes}
        return unilat.sweep(str(tiny_source), out=folder, **asked)  # pyright: ignore[reportArgumentType]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "_stage1", counted)
        seen: list[object] = []
        with pytest.raises(unilat.Stopped):
            go_on(on_step=lambda record: seen.append(record) or "run 2 of 2" not in str(seen))
        half = json.loads((folder / study.RECORD).read_text())
        assert [run["state"] for run in half["runs"]] == ["done", "waiting"] or half["runs"][0]["state"] == "missed"
        go_on()
    return folder, trained, go_on


def test_stage_1_is_trained_once_and_each_run_stands_alone(swept: tuple[Path, list[str], object]) -> None:
    """Kills a second autoencoder, an autoencoder that is trained again where the sweep goes on, and run folders whose
    seal does not hold or which need each other."""
    folder, trained, _ = swept
    names = ["0.4bpp-4x4x4-medium-seed0", "0.4bpp-4x4x4-small-seed0"]
    assert trained == [names[1]]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == names
    (moved := folder.parent / "alone").mkdir()
    (folder / names[1]).rename(moved / names[1])
    try:
        run = unilat.load(folder / names[0])
        assert seal.wrong(folder / names[0]) == [] and read(folder / names[0]).notes == ()
        assert run.results.base_bits is not None
    finally:
        (moved / names[1]).rename(folder / names[1])
    weights = [RunFolder(folder / name).autoencoder.read_bytes() for name in names]
    assert weights[0] == weights[1]


def test_the_record_holds_what_the_runs_hold(swept: tuple[Path, list[str], object]) -> None:
    """Kills numbers of one run in the other's row, and a page or record that lags behind."""
    folder, _, _ = swept
    tree = json.loads((folder / study.RECORD).read_text())
    points = {point.folder.name: point for point in read_points([folder])}
    assert {run["name"] for run in tree["runs"]} == points.keys()
    for run in tree["runs"]:
        point = points[run["name"]]
        assert (run["base"], run["levels"]) in (("small", "16×2+32×1"), ("medium", "32×3+48×2"))
        assert run["levels"] == point.base and run["base_flops"] == point.base_flops
        assert run["autoencoder_flops"] == point.autoencoder_flops
        assert run["bits"]["value"] == point.bits.value and run["psnr"]["value"] == point.psnr.value
    assert len({point.autoencoder_flops for point in points.values()}) == 1
    assert all(name in (folder / study.PAGE).read_text() for name in points)


def test_finished_runs_are_not_trained_again(
    swept: tuple[Path, list[str], Callable[..., study.Sweep]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a sweep that measures or trains anew what is whole, and one that refuses to grow."""
    folder, _, go_on = swept
    begun: list[str] = []
    monkeypatch.setattr(begin, "train", lambda config, out, **rest: begun.append(Path(out).name))
    assert [row.state != "waiting" for row in go_on().rows] == [True, True] and begun == []
    more = go_on(base=("tiny", "small", "medium"))
    assert begun == ["0.4bpp-4x4x4-tiny-seed0"] and [row.base for row in more.rows] == ["small", "medium", "tiny"]
    (folder / study.RECORD).write_text(json.dumps(json.loads((folder / study.RECORD).read_text()) | {
        "axes": {"target_bpp": [0.4], "grid": ["4x4x4"], "base": ["small", "medium"], "seed": [0]}
    }))  # fmt: skip


def test_a_sweep_of_other_settings_is_refused(
    swept: tuple[Path, list[str], Callable[..., study.Sweep]], tmp_path: Path
) -> None:
    """Kills a folder that holds two sweeps, and a refusal that does not name what differs."""
    folder, _, go_on = swept
    with pytest.raises(UserError, match=r"other settings .stage1.samples: 64 and 96; base: medium no longer in it"):
        go_on(stage1__samples=96, base=("small",))
    (tmp_path / "mine.txt").write_text("mine")
    config = presets.get("tiny")
    for place, told in (
        (tmp_path, "not empty and no folder of a sweep"),
        (tmp_path / "mine.txt", "is a file"),
        (folder / "0.4bpp-4x4x4-small-seed0", "is a run folder"),
        (tmp_path / "mine.txt" / "s", "cannot be written"),
    ):
        with pytest.raises(UserError, match=told):
            unilat.sweep(config, out=place, target_bpp=(0.2,))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / study.RECORD).write_text("{}")
    with pytest.raises(UserError, match=r"sweep.json is damaged"):
        unilat.sweep(config, out=tmp_path / "broken", target_bpp=(0.2,))


def test_a_run_that_diverges_is_marked_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills a sweep that ends with its first bad run, one that trains on a lost autoencoder, and one that goes on
    though every run must fail."""
    begun: list[str] = []

    def train(config: RunConfig, out: Path, **rest: object) -> None:
        begun.append(out.name)
        if config.stage1.target_bpp == 0.2:
            raise Diverged("the loss leapt")

    monkeypatch.setattr(begin, "train", train)
    lines: list[str] = []
    found = unilat.sweep(
        presets.get("tiny"), out=tmp_path / "s", target_bpp=(0.2, 0.4), base=("small", "medium"),
        on_step=lambda record: lines.append(str(record)),
    )  # fmt: skip
    assert begun == [f"{name}-seed0" for name in ("0.2bpp-4x4x4-small", "0.4bpp-4x4x4-small", "0.4bpp-4x4x4-medium")]
    assert [(row.state, row.reason[:14]) for row in found.rows[:2]] == [
        ("diverged", "the loss leapt"),
        ("diverged", "the autoencode"),
    ]
    assert "the loss leapt" in found.page.read_text() and any("is left out: the loss leapt" in one for one in lines)

    def full(config: RunConfig, out: Path, **rest: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(begin, "train", full)
    with pytest.raises(UserError, match="the disk is full"):
        unilat.sweep(presets.get("tiny"), out=tmp_path / "t", target_bpp=(0.2, 0.4))


def test_minutes_follow_from_the_first_runs_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills a shared autoencoder that is counted again, and minutes of one stage at the other's rate."""
    from types import SimpleNamespace

    stages = {"stage1": SimpleNamespace(minutes=6.0), "prior": SimpleNamespace(minutes=2.0),
              "stage2": SimpleNamespace(minutes=3.0)}  # fmt: skip
    way = SimpleNamespace(stages=stages, encode_minutes=0.25, evaluate_minutes=0.75)
    monkeypatch.setattr("unilat.studies.cells.bench", lambda *given: SimpleNamespace(chosen=way))
    start = presets.get("tiny")
    one, other = estimates(planned(start, axes_of(start, (0.2,), ("small", "large"), (), 1), FOLDER))
    assert isinstance(one, Estimate) and one.minutes == pytest.approx(6 + 2 + 3 + 1)
    assert other.minutes == pytest.approx(3 * other.base_flops / one.base_flops + 1)
    assert (other.autoencoder_flops, other.autoencoder_parameters) == (0.0, one.autoencoder_parameters)
    assert one.autoencoder_flops > one.base_flops and other.base_parameters > one.base_parameters
