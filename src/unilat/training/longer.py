"""A stage that is trained longer than it was planned."""

import dataclasses
from collections.abc import Mapping

from unilat.training.plan import Schedule


def lengthened(plan: Schedule, before: Mapping[str, object], seen: int) -> tuple[Schedule, dict[str, object], str]:
    """How a stage goes on of which a checkpoint after ``seen`` samples has the settings ``before``.

    Weights, moments and averages are kept. Where the learning rate of the shorter plan had not begun to fall, the stage
    is the one that was planned so long from the start. Else the rate, which had fallen, rises from 0 again over
    ``warmup`` samples. Returns the plan, the settings that a checkpoint of it would have, and what to say.
    """
    samples, again = before.get("samples"), before.get("again", 0)
    if not isinstance(samples, int) or not isinstance(again, int):
        return plan, dict(before), ""
    plan = dataclasses.replace(plan, again=again)
    if not plan.may_grow or samples >= plan.samples:
        return plan, dict(before), ""
    shorter = dataclasses.replace(plan, samples=samples)
    settings, said = {**before, "samples": plan.samples}, ""
    if shorter.rate(seen) < dataclasses.replace(shorter, decay=0.0).rate(seen):
        plan = dataclasses.replace(plan, again=seen)
        settings["again"] = seen
        said = (
            f"planned for {samples:,} samples and trained on to {plan.samples:,}: the learning rate, which had fallen, "
            f"rises again over {plan.warmup:,} samples; weights, moments and averages are kept"
        )
    return plan, settings, said
