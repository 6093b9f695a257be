"""What a run came to, as aligned text: the numbers of ``metrics.json`` and of the dry run."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unilat.cli.naming import options_named
from unilat.recipe.build import Description, PartCost
from unilat.report.comparison import Cell, Column, Comparison
from unilat.report.text import start_line
from unilat.results import Costs, Measure, Number, Results
from unilat.run.folder import RunFolder
from unilat.studies.bench import Timing, Way
from unilat.studies.doctor import Diagnosis
from unilat.studies.oracle import Suite
from unilat.studies.record import Findings
from unilat.studies.verification import Verification

_PARTS = ("encoder", "prior", "decoder", "base")


def metrics_table(results: Results, folder: Path | None = None, kind: str = "held-out pictures") -> str:
    """The table that ends ``train`` and ``evaluate``; rows whose numbers are not there are left out."""
    bits, pictures = results.bits, results.reconstruction
    target = f"{bits.target:.4g}" if bits.target else "–"
    rows: list[Sequence[str]] = [
        ("", "wanted", "measured", "on"),
        ("bits per pixel", target, _number(bits.measured), f"{bits.n} {kind}"),
    ]
    for name, row, unit in (("PSNR", pictures.psnr, " dB"), ("SSIM", pictures.ssim, "")):
        calls = f"{pictures.steps} decoder call{'s' if pictures.steps > 1 else ''}"
        rows.append((name, "", _number(row, unit), f"{row.n} pictures, {calls}"))
    for name, distance in (("reconstruction", pictures.distance), ("generation", results.generation)):
        if distance is None:
            continue
        for row, shown in ((distance.kernel, "kernel"), (distance.frechet64, "Fréchet, 64 components")):
            if math.isfinite(row.value):
                rows.append((f"{name} distance, {shown}", "", _number(row), f"{row.n} pictures"))
        for row, shown in ((distance.precision, "precision"), (distance.recall, "recall")):
            if row is not None and math.isfinite(row.value):
                rows.append((f"{name} {shown}", "", _share(row), f"{row.n} pictures"))
    for judge in results.judged:
        shares = (f"{judge.samples.value:.1%}", f"real ones {judge.real.value:.1%}")
        rows.append((f"samples named rightly{'' if judge.of == 'class' else f', {judge.of}'}", "", *shares))
    text = align(rows)
    if results.making:
        text += f"\nmade with {results.making.line}"
    if results.start:
        text += f"\n{start_line(results.start, pictures.psnr)}"
    if results.against:
        text += f"\n\nagainst the reference\n{align([(_against(one), one.name) for one in results.against])}"
    costs = _costs(results.costs)
    if costs:
        text += f"\n\n{costs}"
    if kind == "pictures":
        text += f"\n\nmeasured on {results.pictures}"
    if results.outcome and results.outcome.reason:
        text += f"\n\n{results.outcome.verdict}: {options_named(results.outcome.reason)}"
    if folder is not None:
        text += f"\n\nreport: {RunFolder(folder).report}"
    return text


def description_table(description: Description) -> str:
    """What ``--dry-run`` tells: shapes and the latent's capacity, then parameters, FLOPs and memory of every part."""
    kept = [name for name, part in description.parts.items() if not part.trained]
    columns = [one.name for one in dataclasses.fields(PartCost) if one.name != "trained"]
    rows: list[Sequence[str]] = [("part", *(name.replace("_", " ").replace("mib", "MiB") for name in columns))]
    for name, part in description.parts.items():
        rows.append((name, *(_amount(column, getattr(part, column)) for column in columns)))
    picture, latent = ("×".join(map(str, shape)) for shape in (description.picture, description.latent))
    capacity = f"{description.capacity_bpp:.3g} bits per pixel"
    told = f"\n\nkept as it is, and not trained: {', '.join(kept)}" if kept else ""
    return f"picture {picture}, latent {latent}, capacity {capacity}\n\n{align(rows)}{told}"


def oracle_table(found: Suite) -> str:
    """What `verify` without a run ends with: measured against known bits, and the verdicts."""
    rows: list[Sequence[str]] = [("", "measured", "closed form", "standard error", "off", "allowed", "verdict")]
    for row in found.rows:
        numbers = (f"{row.measured:.5f}", f"{row.closed_form:.5f}", f"{row.stderr:.5f}")
        shares = (f"{row.off:+.3%}", f"{row.limit:.3%}")
        rows.append((row.what, *numbers, *shares, "holds" if row.holds else "FAILS"))
    passed = sum(row.holds for row in found.rows)
    last = f"{found.unit}; {passed} of {len(found.rows)} hold, {found.seconds:.0f} seconds"
    return f"{align(rows)}\n\n{last}"


def verify_table(found: Verification) -> str:
    """What `verify RUN` ends with: the estimates, the slack and what they mean."""
    others, slack = found.other_seeds, found.slack

    def verdict(holds: bool) -> str:
        return "holds" if holds else "FAILS"

    rows: list[Sequence[str]] = [
        ("", found.unit, "noise", "allowed", "verdict"),
        (f"{len(others.each)} other seeds", f"{others.value:.5f}", f"{others.noise:.5f}", "", ""),
    ]
    for name, row in (("reported", found.reported), ("levels placed uniformly", found.placing)):
        allowed = f"3 × {row.stderr:.5f} apart"
        rows.append((name, f"{row.value:.5f}", f"{row.noise:.5f}", allowed, verdict(row.holds)))
    rows.append(("larger refitted prior", f"{slack.refitted:.5f}", "", "", ""))
    allowed = f"at most {slack.limit:.0%}"
    noise = "–" if slack.stderr is None else f"{slack.stderr:.2%}"
    rows.append(("slack", f"{slack.value:.2%}", noise, allowed, verdict(slack.holds)))
    return "\n".join([align(rows), "", *found.words])


PHASES = {"stage1": "stage 1", "prior": "the prior alone", "stage2": "stage 2"}


def bench_table(found: Timing) -> str:
    """What `bench` ends with: the networks, the phases the way that is chosen and the plain one, and minutes of all."""
    rows: list[Sequence[str]] = [("network", "ms an example", "GFLOPs an example", "share")]
    for name, part in found.parts.items():
        rows.append((name, f"{part.ms:.3g}", f"{part.gflops:.3g}", f"{part.share:.0%}"))
    threads = found.machine.threads
    last = (
        f"share: of a {found.product} matrix product, {found.matrix_gflops:,.0f} GFLOP/s on {threads} "
        f"thread{'' if threads == 1 else 's'} of {found.machine.device}"
    )
    chosen = "as chosen: " + ("the plain way, float32" if found.plain is None else found.chosen.name)
    texts = [align(rows), _phases_table(chosen, found.chosen, found.trained)]
    if found.plain is not None:
        texts.append(_phases_table("the plain way, float32", found.plain, found.trained))
    return "\n\n".join([*texts, last])


def _phases_table(title: str, way: Way, trained: int) -> str:
    """One row a phase."""
    rows: list[Sequence[str]] = [(title, "ms a step", "examples/s", "share", "at a time", "MiB", "minutes")]
    for name, stage in way.stages.items():
        if name == "stage2":
            rows.append((f"encode {trained:,}", *[""] * 5, f"{way.encode_minutes:.1f}"))
        numbers = (f"{stage.ms:.3g}", f"{stage.examples_per_second:.3g}", f"{stage.share:.0%}")
        memory = (f"{stage.micro_batch:,}", f"{stage.peak_mib:,.0f}", f"{stage.minutes:.1f}")
        rows.append((PHASES[name], *numbers, *memory))
    rows.append(("evaluate", *[""] * 5, f"{way.evaluate_minutes:.1f}"))
    rows.append(("in all", *[""] * 5, f"{way.minutes:.1f}"))
    return align(rows)


def comparison_table(table: Comparison) -> str:
    """The tables of ``unilat compare``: one row a run, one column a quantity and protocol."""
    names = table.names
    texts = [f"{run.name} is not whole: {run.missing}" for run in table.runs if run.missing]
    kinds = [f"{run.name}, {run.encoder or '–'} encoder, {run.decoder or '–'} decoder" for run in table.runs]
    texts += _columned(table.glance, kinds)
    for group in dict.fromkeys(column.group for column in table.columns):
        texts += _columned([column for column in table.columns if column.group == group], names)
    apart = [f"{', '.join(one.titles)} in {len(one.columns)} columns: {one.why}" for one in table.apart]
    if apart:
        texts.append("\n".join(apart))
    if table.differences:
        rows = [("set differently", *names)]
        rows += [(name, *map(str, values)) for name, values in table.differences.items()]
        texts.append(align(rows))
    if table.page is not None:
        texts.append(f"page: {table.page}")
    return "\n\n".join(texts)


def _columned(columns: Sequence[Column], names: Sequence[str]) -> list[str]:
    """Tables of five columns each, one row a run."""
    texts = []
    for start in range(0, len(columns), 5):
        part = columns[start : start + 5]
        rows: list[Sequence[str]] = [("run", *(_headed(column) for column in part))]
        rows += [(name, *(_compared(one, one.values[index]) for one in part)) for index, name in enumerate(names)]
        texts.append(align(rows))
    return texts


def _headed(column: Column) -> str:
    unit = column.unit
    return f"{column.title}, {unit}" if unit and unit not in column.title else column.title


def _compared(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if column.key.startswith("parameters"):
        return f"{cell.value:,.0f}"
    return _number(Number(value=cell.value, stderr=cell.stderr))


def _costs(costs: Costs) -> str:
    parameters, flops = costs.parameters, costs.training_flops
    names = [name for name in dict.fromkeys((*_PARTS, *parameters)) if name in parameters or name in flops]
    if not names:
        return ""
    rows: list[Sequence[str]] = [("part", "parameters", "training FLOPs")]
    rows += [(name, _amount("parameters", parameters.get(name)), _amount("flops", flops.get(name))) for name in names]
    return align(rows)


def _number(row: Number, unit: str = "") -> str:
    """Value and standard error, which is left out where it is not known, of a single picture for example."""
    if not math.isfinite(row.value):
        return "–"
    return f"{row.value:.4g}{unit}" + (f" ± {row.stderr:.2g}" if row.stderr and math.isfinite(row.stderr) else "")


def _against(one: Measure) -> str:
    return (_share if one.name.startswith(("precision", "recall")) else _number)(one.number)


def _share(row: Number) -> str:
    """A share in per cent, with its standard error where there is one."""
    return f"{row.value:.1%}" + (f" ± {row.stderr:.1%}" if row.stderr and math.isfinite(row.stderr) else "")


def _amount(name: str, value: Any) -> str:
    """A count as people read it: FLOPs with a power, MiB with one decimal, parameters in full."""
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    if name.endswith("mib"):
        return f"{value:,.1f}"
    if "flops" in name.lower():
        return f"{value:.2e}"
    return f"{value:,}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first to the left, the others to the left as well but two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def doctor_table(found: Diagnosis) -> str:
    """One line for each thing that was looked at, and what to do; the last line says whether all is whole."""
    lines = [
        f"{one.state:<5}  {one.what}: {options_named(one.said)}" + (f"; to do: {one.todo}" if one.todo else "")
        for one in found.findings
    ]
    wrong = sum(one.state == "wrong" for one in found.findings)
    verdict = "whole" if found.whole else f"not whole: {wrong} thing{'s are' if wrong > 1 else ' is'} wrong"
    return "\n".join([*lines, "", f"{found.source} is {verdict}"])


def audit_table(found: Findings, page: Path | None = None) -> str:
    """The rows of ``unilat audit``, what is wrong, and what cannot be known."""
    rows: list[Sequence[str]] = [("what", "bits per pixel", "bits per latent", "bits per number")]
    for name, bits in (
        ("diffusion prior, held out", found.diffusion.bits),
        ("N(0, I), same latents and noise", found.normal.noisy),
        ("KL of the model's posterior, its own noise", found.normal.posterior),
    ):
        if bits is not None:
            cells = (bits.per_pixel, bits.per_latent, bits.per_dimension)
            rows.append((name, *("–" if cell is None else _number(cell) for cell in cells)))
    lines = [align(rows), "", found.sentence]
    if found.kept is not None:
        kept = (("PSNR of reconstructions, dB", found.kept.psnr), ("their kernel distance", found.kept.kernel))
        for what, number in kept:
            if number is not None and math.isfinite(number.value):
                lines.insert(1, f"{what}: {_number(number)}")
    lines += ["", *(f"not known: {line}" for line in found.unknown)]
    return "\n".join([*lines, *([f"\npage: {page}"] if page else [])])
