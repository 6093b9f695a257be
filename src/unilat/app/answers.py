"""What the page may ask for, and what it is told: each request's fields are read here, by kind and by range."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from unilat.app.desk import MOST_CALLS, MOST_SAMPLES, Desk
from unilat.app.jobs import LENGTHS, SIZES, Jobs, Order
from unilat.recipe.config import to_dict
from unilat.report import compare as comparing
from unilat.report import training
from unilat.report.folder import Contents
from unilat.report.folder import read as read_folder
from unilat.run.folder import RunFolder
from unilat.run.trained import read_config
from unilat.run.watching import log_rows, watch
from unilat.studies.compare import compare
from unilat.types import UserError

Reply = Mapping[str, object]
"""An answer, as JSON has it."""


class Wrong(Exception):
    """There is no such request."""


class Answers:
    """The requests of the page."""

    def __init__(self, desk: Desk, jobs: Jobs):
        self.desk, self.jobs = desk, jobs

    def get(self, what: str, query: dict[str, str]) -> Reply:
        """What is only looked at."""
        if what == "runs":
            lists = {"data": self.jobs.data, "sizes": SIZES, "lengths": LENGTHS}
            return {"runs": [asdict(one) for one in self.desk.about()], "training": self._training(), **lists}
        if what == "watch":
            return self._watched(_run(query))
        if what == "compare":
            return {"html": self._compared(query.get("runs", ""))}
        raise Wrong("there is no such question")

    def post(self, what: str, query: dict[str, str], body: bytes) -> Reply:
        """What computes or acts."""
        if what == "picture":
            return asdict(self.desk.drop(_run(query), body))
        order = _object(body)
        if what == "reconstruct":
            picture, calls = _whole(order, "picture", 0, 2**53), _whole(order, "calls", 1, MOST_CALLS)
            return asdict(self.desk.reconstruct(picture, _number(order, "level", -100, 100), calls, _seed(order)))
        if what == "sample":
            index, count = _whole(order, "run", 0, 2**31), _whole(order, "count", 1, MOST_SAMPLES)
            guidance = None if order.get("guidance") is None else _number(order, "guidance", -100, 100)
            steps = _whole(order, "steps", 1, MOST_CALLS)
            return asdict(self.desk.sample(index, count, _text(order, "label"), guidance, steps, _seed(order)))
        if what == "train":
            return self._train(order)
        if what == "stop":
            self.jobs.stop()
            return {"training": self._training()}
        raise Wrong("there is no such order")

    def _train(self, order: Mapping[str, object]) -> Reply:
        asked = Order(
            data=_text(order, "data"),
            bpp=_number(order, "bpp", 1e-4, 100),
            size=_text(order, "size"),
            length=_text(order, "length"),
            seed=_seed(order),
        )
        folder = self.jobs.start(asked)
        return {
            "run": self.desk.add(folder, self.jobs),
            "command": " ".join(["unilat", *self.jobs.words(asked, folder)]),
        }

    def _training(self) -> Reply | None:
        """The training that the page has begun, as it stands."""
        if (folder := self.jobs.folder) is None:
            return None
        number = next(index for index, one in enumerate(self.desk.entries) if one.folder == folder)
        state = {"running": self.jobs.running, "code": self.jobs.code, "said": list(self.jobs.said)}
        return {"run": number, "folder": str(folder), **state}

    def _watched(self, index: int) -> Reply:
        """How far a run is, with its curves as the report draws them."""
        entry = self.desk.refresh(index)
        folder = entry.folder
        if not RunFolder(folder).config.is_file():  # the page began it, and it has no file yet
            return {"state": entry.state, "stages": [], "html": "", "way_out": entry.why}
        seen = watch(folder)
        rows = log_rows(RunFolder(folder).log)
        run = Contents(name=folder.name, config=to_dict(read_config(folder)), log=rows, results=seen.results)
        parts = (("How the bits were held", training.rate), ("Losses", training.losses))
        html = "".join(f"<h3>{title}</h3>{part(run)}" for title, part in parts) if len(rows) > 2 else ""
        stages = [
            {"name": one.name, "step": one.step, "steps": one.steps, "left": one.seconds_left}
            | {"speed": one.samples_per_second, "latest": dict(one.latest)}
            for one in seen.stages
        ]
        told = {"state": seen.state, "process": seen.process, "wanted": seen.target_bpp, "way_out": seen.way_out}
        return told | {"stages": stages, "planned": list(seen.planned), "html": html}

    def _compared(self, chosen: str) -> str:
        """The tables, curves and pictures of `unilat compare`, for the page."""
        numbers = [int(one) for one in chosen.split(",") if one.isdecimal()]
        folders = [self.desk.entry(number).folder for number in dict.fromkeys(numbers)]
        if len(folders) < 2:
            raise UserError("choose two runs or more to put side by side")
        return comparing.inner(compare(folders), [read_folder(Path(folder)) for folder in folders])


def _run(query: dict[str, str]) -> int:
    text = query.get("run", "")
    if not text.isdecimal():
        raise UserError("the run is missing from the request")
    return int(text[:9])


def _object(body: bytes) -> Mapping[str, object]:
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise UserError("the request is no JSON object")
    return tree


def _number(order: Mapping[str, object], name: str, low: float, high: float) -> float:
    value = order.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN among them
        raise UserError(f"{name} is a number from {low:g} to {high:g}")
    return float(value)


def _whole(order: Mapping[str, object], name: str, low: int, high: int) -> int:
    value = _number(order, name, low, high)
    if not math.isfinite(value) or value != int(value):
        raise UserError(f"{name} is a whole number from {low} to {high}")
    return int(value)


def _seed(order: Mapping[str, object]) -> int:
    return _whole(order, "seed", 0, 2**31 - 1)


def _text(order: Mapping[str, object], name: str) -> str:
    value = order.get(name)
    if not isinstance(value, str) or len(value) > 300:
        raise UserError(f"{name} is a text of the page's lists")
    return value
