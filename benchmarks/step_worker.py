"""One side of ``benchmarks/step.py``: reads counts of steps, makes them, prints seconds a step, losses and memory."""

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from unilat.maths.seeds import Draws, key
from unilat.nets.products import Linear
from unilat.recipe import config as configuration
from unilat.recipe import presets
from unilat.run.stages import AutoencoderStage, base_stage, schedule
from unilat.run.trained import build_autoencoder, build_base
from unilat.training import engine, fast
from unilat.training.ema import keep
from unilat.training.machine import peak_memory
from unilat.training.order import batch_indices
from unilat.training.plan import Schedule, Stage
from unilat.training.state import State

PICTURES, CLASSES, CHANNELS = 512, 10, 3
WARM = 3


def stage_of(spec: dict[str, Any]) -> tuple[Stage, Schedule]:
    """The stage and its schedule, the same on either side."""
    config = presets.get("small", size=spec.get("size", 32))
    torch.manual_seed(0)
    if spec["stage"] == 2:
        base = build_base(config, [str(index) for index in range(CLASSES)])
        z = torch.randn(PICTURES, config.autoencoder.latent_channels, *configuration.latent_grid(config))
        return base_stage(base, z, torch.arange(PICTURES) % CLASSES), schedule(config.stage2)
    # the plain side has nobody to tell it what was seen
    fixed = {"levels": spec.get("levels", "fixed"), "calibrate_every": 10**9}
    one = replace(config.stage1, optimizer=spec.get("optimizer", "adamw"), **fixed)
    one = replace(one, batch=spec.get("batch", one.batch))
    pictures = torch.randint(0, 256, (PICTURES, CHANNELS, *config.data.size), dtype=torch.uint8)
    model = build_autoencoder(config, CHANNELS)
    model.start_at_unit_scale(pictures[:64].float() / 127.5 - 1)
    return AutoencoderStage(model, pictures, pictures[:0], one).stage(), schedule(one)


def plain(stage: Stage, plan: Schedule) -> Callable[[], float]:
    """A training step as one writes it down."""
    model = stage.model.train()
    for part in model.modules():
        if isinstance(part, Linear):
            part.by_onednn = False  # torch.nn.Linear
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, betas=plan.betas, eps=plan.epsilon, weight_decay=plan.weight_decay
    )
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    done = 0

    def step() -> float:
        nonlocal done
        samples = (done + 1) * plan.batch
        batch = stage.batch(batch_indices(stage.count, plan.batch, 0, done))
        torch.manual_seed(key(0, done, 0, "modules"))
        optimizer.zero_grad()
        loss, metrics = stage.losses(batch, Draws.keyed(0, done, 0, plan.batch))
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(samples)
        optimizer.step()
        share = keep(plan.batch, samples, plan.ema_halflife)
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    average[name].mul_(share).add_(value, alpha=1 - share)
        told = {name: value.detach().mean().item() for name, value in (("loss", loss), *metrics.items())}
        stage.after_step(told, samples)
        done += 1
        return told["loss"]

    return step


def ours(stage: Stage, plan: Schedule) -> Iterator[float]:
    """The engine's steps, without the log and without checkpoints."""
    state = State(stage, plan, 0, torch.device("cpu"))
    world = engine.World(0, 1)
    while True:
        told, _ = engine._step(state, world, 0)
        yield engine._after(state, told)[0]["loss"]


def events(spec: dict[str, Any]) -> int:
    """Operator calls of one warm step of ours, those that operators make inside counted too."""
    from torch.profiler import ProfilerActivity, profile

    stage, plan = stage_of(spec)
    state, world = State(stage, plan, 0, torch.device("cpu")), engine.World(0, 1)
    for _ in range(WARM):
        engine._step(state, world, 0)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        engine._step(state, world, 0)
    return sum(event.name.startswith(("aten::", "mkldnn::")) for event in seen.events() or [])


def resident(stage: Stage, plan: Schedule) -> Stage:
    """The stage with one batch for good."""
    batch = stage.batch(torch.arange(plan.batch))
    return replace(stage, batch=lambda indices: batch)


def serve(step: Callable[[], float], before: float) -> None:
    """Answer each line of standard input, a number of steps; ``before``: MiB at the start."""
    for line in sys.stdin:
        losses, begun = [], time.perf_counter()
        for _ in range(int(line)):
            losses.append(step())
        seconds = (time.perf_counter() - begun) / max(1, len(losses))
        answer = {"seconds": seconds, "losses": losses, "growth": peak_memory() - before}
        assert all(map(math.isfinite, losses))
        print(json.dumps(answer), flush=True)


def _resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    """Build the side that the one argument, JSON, asks for, and serve."""
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec.get("threads", 1))
    torch.optim.AdamW([torch.zeros(1)])  # loads what optimisers load, before memory is counted
    before = _resident_mib()
    stage, plan = stage_of(spec)
    if spec.get("resident"):
        stage = resident(stage, plan)
    if spec["side"] == "plain":
        serve(plain(stage, plan), before)
        return
    choices = fast.Choices(**spec.get("choices", {}))
    with fast.applied(stage.model, choices, choices.compile == "on"):
        moves = ours(stage, plan)
        serve(lambda: next(moves), before)


if __name__ == "__main__":
    main()
