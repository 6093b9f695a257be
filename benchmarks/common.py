"""What every benchmark shares: the machine, the rows, and the two result files."""

import argparse
import dataclasses
import datetime
import json
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unilat.results import Distance, Results, read

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def row(
    what: str,
    value: float | None,
    unit: str,
    *,
    goal: float | tuple[float, float] | None = None,
    at_least: bool = False,
    stderr: float | None = None,
    n: int | None = None,
) -> dict[str, Any]:
    """One line of a result. ``goal``: a largest value (smallest with ``at_least``), an interval, or None to inform."""
    holds = None
    if goal is not None:
        low, high = goal if isinstance(goal, tuple) else (goal, math.inf) if at_least else (-math.inf, goal)
        holds = value is not None and math.isfinite(value) and low <= value <= high
    shown = f">= {goal:g}" if at_least and not isinstance(goal, tuple) and goal is not None else goal
    return {"what": what, "value": value, "unit": unit, "stderr": stderr, "n": n, "goal": shown, "holds": holds}


Rows = list[dict[str, Any]]
Measures = Mapping[str, tuple[str, Callable[[Results], float | None]]]


def kernel(distance: Distance | None) -> float | None:
    """The kernel distance, None where there is none."""
    return None if distance is None or not math.isfinite(distance.kernel.value) else distance.kernel.value


MEASURES: Measures = {
    "bits": ("bits per pixel", lambda found: found.bits.value),
    "base bits": ("bits per pixel", lambda found: found.base_bits.value if found.base_bits else None),
    "PSNR": ("dB", lambda found: found.reconstruction.psnr.value),
    "reconstruction": ("kernel distance", lambda found: kernel(found.reconstruction.distance)),
    "generation": ("kernel distance", lambda found: kernel(found.generation)),
}
"""What is read of a run's results: the unit and where it stands; None where the run has none."""


def over_seeds(work: Path, name: str, seeds: Sequence[int], measures: Measures = MEASURES) -> dict[str, list[float]]:
    """Each measure of the finished runs ``work/name-sSEED``."""
    paths = [work / f"{name}-s{seed}" / "metrics.json" for seed in seeds]
    runs = [read(path) for path in paths if path.is_file()]
    values = {what: [get(run) for run in runs] for what, (_, get) in measures.items()}
    return {what: [value for value in found if value is not None] for what, found in values.items()}


def mean(values: Sequence[float]) -> float:
    """Mean, NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def error(values: Sequence[float]) -> float | None:
    """Standard error over seeds, where there are two or more."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1) / len(values))


def lines(label: str, found: Mapping[str, Sequence[float]], measures: Measures = MEASURES) -> Rows:
    """One row a measure, means over seeds."""
    return [
        row(f"{label}: {what}", mean(values), measures[what][0], stderr=error(values), n=len(values))
        for what, values in found.items()
        if values
    ]


def difference(what: str, left: Sequence[float], right: Sequence[float], unit: str = "", goal: float = 0.0) -> Rows:
    """``mean(left) − mean(right)``, which is to be at least ``goal``, with the error of the difference."""
    if not left or not right:
        return []
    errors = (error(left), error(right))
    spread = math.hypot(*[one for one in errors if one is not None]) if None not in errors else None
    n = min(len(left), len(right))
    return [row(what, mean(left) - mean(right), unit, goal=goal, at_least=True, stderr=spread, n=n)]


def interpolated(wanted: float, points: Sequence[tuple[float, float]]) -> float:
    """``y`` at ``x = wanted`` of the straight lines through the points ``(x, y)``; NaN outside them."""
    ordered = sorted(points)
    for (low, y_low), (high, y_high) in zip(ordered, ordered[1:], strict=False):
        if low <= wanted <= high:
            share = (wanted - low) / (high - low) if high > low else 0.0
            return (1 - share) * y_low + share * y_high
    return math.nan


def machine(device: str = "cpu") -> dict[str, Any]:
    """The hardware and software a result was made on."""
    from unilat.training.machine import manifest

    return {**dataclasses.asdict(manifest(device)), "load": list(os.getloadavg())}


def make_command(name: str, words: Sequence[str]) -> str:
    """How make is told to run `bench-NAME` with these words of the command line."""
    said = shlex.join(words)
    return f"make bench-{name}" + (f' ARGS="{said}"' if len(words) > 1 else f" ARGS={said}" if words else "")


def write(
    name: str,
    protocol: str,
    rows: list[dict[str, Any]],
    device: str = "cpu",
    command: str | None = None,
    commit: str | None = None,
) -> Path:
    """Write ``results/NAME.json`` and the same as ``NAME.md``; ``command`` made them, by default `make bench-NAME`.

    ``commit``: the one that the rows were measured by, where they were kept since; by default today's.
    """
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    today = found or os.environ.get("BENCH_COMMIT", "")  # a copy on a lent machine has no history
    facts = machine(device) | ({"commit": commit} if commit else {})
    if commit and today and commit != today:
        protocol += f" The runs are of this commit; commit {today[:12]} made rows of them."
    commit = commit or today
    result = {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "command": command or f"make bench-{name.replace('_', '-')}",
        "machine": facts,
        "protocol": protocol,
        "rows": rows,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    lines = [
        f"# {name}",
        "",
        f"{result['date']}, commit {commit[:12]}, `{result['command']}`. {protocol}",
        "",
        "Machine: " + ", ".join(f"{key} {value}" for key, value in facts.items()) + ".",
        "",
        "| what | value | unit | standard error | n | goal | holds |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        "| " + " | ".join(_cell(one[key]) for key in ("what", "value", "unit", "stderr", "n", "goal", "holds")) + " |"
        for one in rows
    ]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 or abs(value) >= 1e6 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        return " to ".join(_cell(float(item)) for item in value)
    return str(value)


def one_commit(runs: Iterable[Path]) -> str:
    """The commit that these run folders are all of; refused where there are several, for no result mixes them."""
    found = {json.loads((run / "manifest.json").read_text("utf-8"))["commit"] for run in runs}
    if len(found) != 1:
        raise SystemExit(f"runs of several commits: {', '.join(sorted(found))}; move those of one away")
    return found.pop()


def checked_out(place: Path, commit: str) -> Path:
    """The sources of another commit, in ``place``."""
    if not place.is_dir():
        subprocess.run(["git", "worktree", "add", "--detach", str(place), commit], cwd=ROOT, check=True)
    return place


def unilat(*words: str, threads: int, log: Path) -> subprocess.Popen[bytes]:
    """Start the command line in the background with so many threads; what it says goes to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT / "src")}
    with log.open("ab") as file:
        command = [sys.executable, "-m", "unilat", *words]
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment)


def train_two_at_a_time(work: Path, jobs: Mapping[str, Sequence[str]]) -> None:
    """:func:`train_at_once`, two processes."""
    train_at_once(work, jobs, 2)


def train_at_once(work: Path, jobs: Mapping[str, Sequence[str]], processes: int) -> None:
    """``unilat train`` into ``work/NAME`` for each job that has not finished, so many processes of one thread each."""
    waiting = [(name, words) for name, words in jobs.items() if not (work / name / "report.html").is_file()]
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    while waiting or running:
        while waiting and len(running) < processes:
            name, words = waiting.pop(0)
            print(f"{time.strftime('%H:%M')} {name}", flush=True)
            words = ("train", *words, "--out", str(work / name))
            running.append((name, unilat(*words, threads=1, log=work / f"{name}.log")))
        time.sleep(1)
        for name, process in list(running):
            if process.poll() is not None:
                running.remove((name, process))
                if process.returncode:
                    raise SystemExit(f"{name} ended with {process.returncode}: see {work / name}.log")


def gather(name: str, protocol: str, work: Path, parts: Mapping[str, Callable[[], list[dict[str, Any]]]]) -> None:
    """Command line of a benchmark in parts: run parts without rows (those named anew), write what there is."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("part", nargs="*", choices=[*parts, "report", []])
    chosen = parser.parse_args().part
    work.mkdir(parents=True, exist_ok=True)
    for part in chosen or parts:
        path = work / f"{part}.json"
        if part != "report" and (chosen or not path.is_file()):
            path.write_text(json.dumps(parts[part](), indent=2), "utf-8")
    paths = [work / f"{part}.json" for part in parts]
    rows = [one for path in paths if path.is_file() for one in json.loads(path.read_text("utf-8"))]
    print(write(name, protocol, rows).with_suffix(".md").read_text("utf-8"))
