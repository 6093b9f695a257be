"""Cells, fronts and the page of a sweep, against examples by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from measured import number
from unilat.report import sweep as page
from unilat.report.swept import Cell, Row, Swept, cells, front, mean

from .test_page import Checker


def row(bits: float, base: str, seed: int, generation: float | None, flops: float, **changes: object) -> Row:
    """A finished run of pictures of 32 × 32; its autoencoder costs 100 on the coarse grid and 500 on the fine one."""
    grid = str(changes.pop("grid", "8x8x8"))
    known = {
        "name": f"{bits:g}bpp-{grid}-{base}-seed{seed}",
        "levels": "128×6",
        "state": "done",
        "bits": number(bits + 0.01 * seed, 0.002),
        "psnr": number(20 + 10 * bits, 0.5),
        "reconstruction": number(1 - bits, 0.01),
        "generation": None if generation is None else number(generation, 0.03),
        "base_flops": flops,
        "autoencoder_flops": 500.0 if grid == "16x16x2" else 100.0,
        "protocol": "as ever",
    }
    return Row(target_bpp=bits, grid=grid, base=base, seed=seed, **{**known, **changes})  # pyright: ignore[reportArgumentType]


ROWS = [
    row(0.1, "small", 0, 0.50, 10.0),
    row(0.2, "small", 0, 0.40, 10.0),
    row(0.1, "medium", 0, 0.45, 30.0),
    row(0.2, "medium", 0, 0.30, 30.0),
    row(0.2, "small", 0, 0.35, 10.0, grid="16x16x2"),
]


def test_the_front_by_hand() -> None:
    """Kills a front of the farthest or dearest, one that an equal cost or distance does not beat, and a point that is
    not there on it; equal points stay both."""
    points = [(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (3.0, 3.0), None, (4.0, 1.0), (0.5, 6.0), (2.0, 3.0)]
    assert front(points) == [True, True, False, False, False, True, True, True]
    assert front([]) == [] and front([None]) == [False]


def test_fronts_of_base_and_of_the_whole_differ() -> None:
    """Kills one cost for both fronts: the finer grid's autoencoder takes it off the whole's, not off the base's."""
    found = {(cell.target_bpp, cell.base, cell.grid): cell for cell in cells(ROWS)}
    assert [key for key, cell in found.items() if cell.front] == [(0.2, "medium", "8x8x8"), (0.2, "small", "16x16x2")]
    assert [key for key, cell in found.items() if cell.front_whole] == [
        (0.2, "small", "8x8x8"),
        (0.2, "medium", "8x8x8"),
    ]
    assert found[0.2, "small", "16x16x2"].whole_flops == 510.0


def test_a_mean_joins_both_errors() -> None:
    """Kills an error that falls with seeds where pictures are the same few, and one that forgets the spread between
    seeds or divides it wrongly: 1, 2, 6 have a variance of 7, their errors a mean square of 14/3."""
    found = mean([number(1.0, 1.0), number(2.0, 2.0), None, number(6.0, 3.0)])
    assert found is not None and found.value == 3.0 and found.each == (1.0, 2.0, 6.0)
    assert found.stderr == pytest.approx(math.sqrt(14 / 3 + 7 / 3))
    alone = mean([number(4.0, 0.5)])
    assert alone is not None and (alone.value, alone.stderr) == (4.0, 0.5)
    assert mean([None, number(math.nan)]) is None


def test_cells_join_seeds_and_leave_out_what_came_to_nothing() -> None:
    """Kills seeds of other cells in a mean, and numbers of a run that diverged or waits."""
    rows = [row(0.1, "small", 0, 0.5, 10.0), row(0.1, "small", 1, 0.7, 10.0), row(0.2, "small", 0, 0.1, 10.0)]
    rows += [row(0.1, "small", 2, 9.0, 10.0, state="diverged"), row(0.4, "small", 0, None, 10.0, state="waiting")]
    rows += [row(0.1, "small", 3, 0.6, 10.0, state="missed")]
    one, other, none = cells(rows)
    assert one.runs == tuple(f"0.1bpp-8x8x8-small-seed{seed}" for seed in (0, 1, 3))
    assert one.generation is not None and one.generation.each == (0.5, 0.7, 0.6)
    assert other.generation is not None and other.generation.value == 0.1
    assert none.runs == () and none.bits is None and not none.front and none.whole_flops is None


def test_the_best_bits_and_what_cannot_be_told_from_them() -> None:
    """Kills the worst for the best, and bits that are near in the sum of errors' place of their root: 0.03 and 0.03 are
    0.0424 together, twice that 0.0849."""
    rows = [row(0.1, "small", 0, 0.50, 1.0), row(0.2, "small", 0, 0.42, 1.0), row(0.3, "small", 0, 0.51, 1.0)]
    swept = Swept(name="s", data="d", rows=tuple(rows), cells=cells(rows))
    [(first, near)] = page.best(swept)
    assert first.target_bpp == 0.2 and [cell.target_bpp for cell in near] == [0.1]


def drawn(rows: list[Row]) -> tuple[str, str]:
    """Source and text of the page, after the checks that every page has to pass."""
    found: tuple[Cell, ...] = cells(rows)
    samples = {cell.runs[0]: torch.zeros(9, 1, 16, 16, dtype=torch.uint8) for cell in found if cell.runs}
    source = page.page(Swept(name="letters", data="glyphs 0123", rows=tuple(rows), cells=found), dict(samples))
    checker = Checker()
    checker.feed(source)
    checker.close()
    assert checker.open == [] and len(checker.ids) == len(set(checker.ids)) and "http" not in source
    assert not {tag for tag, _ in checker.tags} & {"script", "link", "iframe", "object"}
    for _, attributes in checker.tags:
        assert "href" not in attributes or (attributes["href"] or "")[1:] in checker.ids
    return source, "".join(checker.text)


def test_the_page_tells_every_number() -> None:
    """Kills numbers in the wrong column, a base size or grid without its curve, and a sweep told as finished."""
    lost = row(0.4, "small", 0, None, 10.0, state="diverged", reason="the <loss> leapt")
    rows = [*ROWS, replace(lost, bits=None)]
    source, text = drawn(rows)
    assert "6 runs of glyphs 0123: 0.1, 0.2, 0.4 bits per pixel, latents of 8x8x8, 16x16x2" in text
    assert "5 are finished." in text and "diverged" in text and "the <loss> leapt" in text and "<loss>" not in source
    assert (
        "0.2bpp-8x8x8-medium-seed0finished0.200 ± 0.00222.0 ± 0.50.800 ± 0.0100.30 ± 0.0330.00100.0base, whole" in text
    )
    assert "0.2bpp-16x16x2-small-seed0finished0.200 ± 0.00222.0 ± 0.50.800 ± 0.0100.35 ± 0.0310.00500.0base" in text
    assert "medium at 0.2 bits, 8x8x8: 0.30 ± 0.03 for 30.00 FLOPs" in text
    assert source.count("<h3>latents of") == 2 and source.count('class="strip"') == 5
    assert "All are finished." in drawn(ROWS)[1] and "protocols:" not in text
    assert "2 protocols:" in drawn([*ROWS, row(0.4, "small", 0, 0.3, 1.0, protocol="another")])[1]


def test_a_sweep_without_numbers_has_a_page(tmp_path: Path) -> None:
    """Kills a page that cannot be drawn before the first run, or where no distances are measured."""
    waiting = Row(
        name="a", target_bpp=0.1, grid="8x8x8", base="small", levels="128×6", seed=0, state="waiting", protocol=""
    )
    assert "0 are finished." in drawn([waiting])[1]
    source, text = drawn([row(0.1, "small", 0, None, 10.0), row(0.2, "small", 0, None, 10.0)])
    assert "No run has samples with a distance yet." in text and "PSNR" in source
    swept = Swept(name="s", data="d", rows=(waiting,), cells=cells([waiting]))
    assert page.write(tmp_path / "sweep.html", swept, {}).read_text() == page.page(swept, {})
