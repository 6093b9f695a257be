"""One process of ``torchrun``: trains the toy in ``sys.argv[1]`` and writes what it saw to ``rank-N.json`` there."""

import json
import math
import os
import sys
from pathlib import Path

from toy import Toy, fit, schedule

from unilat.types import UserError


def main(folder: Path) -> None:
    rank, losses = os.environ["RANK"], list[float]()
    stage = Toy(dropout=0.0, mixing=False)
    stage.model.into.weight.data += float(rank)  # process 0 has the say

    def after_step(metrics: dict[str, float], samples: int) -> dict[str, float]:
        losses.append(metrics["loss"])
        return Toy.after_step(stage, metrics, samples)

    stage.after_step = after_step  # type: ignore[method-assign]
    plan = schedule(batch=7, samples=70)
    fit(stage, plan, folder / "run", 7, log=folder / "log.jsonl", stop_at=5)
    result = fit(stage, plan, folder / "run", 7, log=folder / "log.jsonl", stop_at=8)
    weights = {name: tensor.tolist() for name, tensor in stage.model.named_parameters()}
    seen = {
        "losses": losses,
        "batches": stage.batches,
        "weights": weights,
        "calibrated": stage.calibrated,
        "profile": stage.model.profile.tolist(),
    }

    broken = Toy(dropout=0.0, mixing=False)
    broken.data[[2, 20]] = math.inf
    try:
        fit(broken, plan, folder / "broken", 7)
    except UserError as error:
        seen["error"] = str(error)
    (folder / f"rank-{rank}.json").write_text(json.dumps(seen | {"step": result.step}))


main(Path(sys.argv[1]))
