"""How the cost of a step grows with GPUs and width, on paper: writes docs/scale.md.

    python benchmarks/scale.py

No step of more than one GPU has been measured. What one GPU does is (RATE, KEPT, WORKSPACES of ``recipe/predict.py``;
the host's time of a step of `small`; what checkpointing saves); what lies between GPUs is the data sheet's. With p
parameters, N GPUs, r rows a GPU in k micro-batches, what a GPU sends in a step is

    replicas:  2 (N − 1) / N · 4 p            the gradients, once, in float32
    sharded:   k (N − 1) / N · (2 + 2 + 4) p  weights in bf16 forwards and backwards, gradients in float32, each time

and a step takes at least the longest of computing, sending and launching, where each hides behind the others.
"""

import math
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

from unilat.maths.seeds import ROWS
from unilat.recipe import presets
from unilat.recipe.build import describe
from unilat.recipe.config import RunConfig
from unilat.recipe.predict import GIB, KEPT, RATE, ROOM, STATE, WORKSPACES

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
GPUS = (1, 8, 64, 1024)
NODE = 8
INSIDE, BETWEEN = 450e9, 50e9
"""Bytes a second that a GPU sends: to others of its node (NVLink, H100 and H200) and beyond it (400 Gb/s each)."""
HOST = 0.061
"""Seconds that the host takes to launch a step of `small`, measured; deeper networks take longer."""
AGAIN, SAVED = 461.1 / 360.1, (58.8 - 34.9) / 16 / ((58.8 - 34.9) / 8)
"""Checkpointing: time of a step over the plain step's, and kept bytes over the plain one's; both measured."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage of a configuration."""

    name: str
    parameters: int
    flops: float
    """Of training on one example."""
    kept: float
    """GiB that one example keeps for its backward pass, in bf16."""
    workspaces: float
    batch: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one GPU does in a step; ``rows`` in micro-batches of ``micro``, 0 where not one row fits."""

    gpus: int
    rows: int
    micro: int
    way: str
    gib: float
    teraflops: float
    computing: float
    """Seconds."""
    sent: float
    """Bytes."""
    sending: float
    """Seconds."""

    @property
    def seconds(self) -> float:
        """Of the step, at the least."""
        return max(self.computing, self.sending, HOST)

    @property
    def bound(self) -> str:
        """What takes longest."""
        return {self.computing: "computing", self.sending: "sending", HOST: "launching"}[self.seconds]


def jobs(name: str, config: RunConfig) -> tuple[Job, Job]:
    """Both stages of ``config``."""
    parts, one, two = describe(config).parts, config.stage1, config.stage2
    made = []
    for stage, networks, plan in (("1", ("encoder", "prior", "decoder"), one), ("2", ("base",), two)):
        costs = [parts[network] for network in networks]
        kept = sum(cost.memory_mib * 2**20 - 20 * cost.parameters for cost in costs) / plan.batch
        job = Job(
            name=f"{name}, {stage}",
            parameters=sum(cost.parameters for cost in costs),
            flops=3.0 * sum(cost.forward_flops for cost in costs),
            kept=KEPT * kept / GIB,
            workspaces=WORKSPACES if stage == "1" else 0.0,
            batch=plan.batch,
            samples=plan.samples,
        )
        made.append(job)
    return made[0], made[1]


def wider(config: RunConfig, times: int) -> RunConfig:
    """``config`` with every width of its networks ``times`` as large."""

    def wide(widths: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(times * width for width in widths)

    ae, base = config.autoencoder, config.base
    encoder = replace(ae.encoder, channels=wide(ae.encoder.channels))
    prior = replace(ae.prior, channels=wide(ae.prior.channels))
    decoder = replace(ae.decoder, channels=wide(ae.decoder.channels), width=times * ae.decoder.width)
    ae = replace(ae, encoder=encoder, prior=prior, decoder=decoder)
    return replace(config, autoencoder=ae, base=replace(base, vit=replace(base.vit, channels=wide(base.vit.channels))))


def step(job: Job, gpus: int) -> Step:
    """The first way that fits: replicas, sharded, sharded and computed again; the last one where none does."""
    rows, state = -(-job.batch // gpus), STATE * job.parameters / GIB
    ways = [
        _step(job, gpus, rows, "replicas", state, 1.0, 1.0),
        _step(job, gpus, rows, "sharded", state / gpus, 1.0, 1.0),
        _step(job, gpus, rows, "sharded, again", state / gpus, SAVED, AGAIN),
    ]
    return next((way for way in ways if way.micro), ways[-1])


def _step(job: Job, gpus: int, rows: int, way: str, state: float, kept: float, longer: float) -> Step:
    """With ``state`` GiB a GPU, ``kept`` of the activations and ``longer`` times the computing."""
    fixed, micro = state + job.workspaces, rows
    while micro and fixed + kept * job.kept * micro > ROOM:
        micro = micro // 2
    trips = 8 * -(-rows // micro) if micro else 0  # bytes a parameter
    others = (gpus - 1) / gpus * job.parameters
    sent = others * (trips if way != "replicas" else 2 * 4 if micro else 0)
    return Step(
        gpus=gpus,
        rows=rows,
        micro=micro,
        way=way,
        gib=fixed + kept * job.kept * max(1, micro),
        teraflops=job.flops * rows / 1e12,
        computing=longer * job.flops * rows / RATE,
        sent=sent,
        sending=sent / (INSIDE if gpus <= NODE else BETWEEN),
    )


COLUMNS = (
    *("stage", "GPUs", "rows a GPU", "at a time", "way", "GiB", "TFLOPs a GPU", "GB sent", "s computing"),
    *("s sending", "bound by", "days"),
)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def line(job: Job, one: Step) -> str:
    """A row of the table; bold is memory that no card has."""
    fits, days = one.micro > 0, job.samples / job.batch * one.seconds / 86400
    cells = [job.name, f"{one.gpus:,}", f"{one.rows:,}", f"{one.micro:,}", one.way, f"{one.gib:,.0f}"]
    cells += [number(one.teraflops), number(one.sent / 1e9), number(one.computing), number(one.sending)]
    cells += [one.bound, number(days)]
    if not fits:
        cells[3], cells[5], cells[7:] = "–", f"**{cells[5]}**", ["–", cells[8], "–", "memory", "–"]
    return "| " + " | ".join(cells) + " |"


def head() -> list[str]:
    """What the table stands on."""
    return [
        "On paper, for `imagenet-512` and the same ten times wider (a hundred times the parameters), both stages, "
        "at the presets' batches of 1,024 and 2,048; written by `python benchmarks/scale.py`, which has the formulas. "
        f"**No step of more than one GPU has been measured.** One H200 has: {RATE / 1e12:.0f} TFLOP/s of training in "
        f"bf16, a fifth of its matrix products; {KEPT:.2f} of the float32 bytes that we count are kept for a backward "
        f"pass; checkpointing takes {AGAIN:.2f} of the time for {SAVED:.1f} of them; the host launches a step of "
        f"`small` in {1e3 * HOST:.0f} ms. Between GPUs we take data sheets: {INSIDE / 1e9:.0f} GB/s in a node of "
        f"{NODE}, {BETWEEN / 1e9:.0f} GB/s a GPU beyond it.",
        f"A stage that fits {ROOM:.0f} GiB is replicated: each GPU sends its gradients once a step. One that does not "
        "is sharded: each micro-batch fetches all weights twice and sends all gradients; where that does not fit "
        "either, activations are computed again. A step takes at least the longest of computing, sending and "
        "launching; days are those of the preset's examples at that pace.",
    ]


def broken(paper: Job, wide: Job) -> list[str]:
    """What breaks first and what then helps, with the table's numbers."""
    one, eight, many, all_of = (step(paper, gpus) for gpus in GPUS)
    node, racks = step(wide, NODE), step(wide, 64)
    state, pace = STATE * wide.parameters / GIB, paper.batch / HOST
    room = ROOM - (racks.gib - wide.kept * racks.micro)
    some = math.floor(room / (SAVED * wide.kept))
    fewer = math.ceil(racks.rows / some) / racks.rows
    share, at_most = many.sending / many.computing, paper.batch * paper.flops / RATE / HOST
    return [
        f"**One GPU: memory, then patience.** {paper.batch:,} pictures would keep {paper.kept * paper.batch:,.0f} GiB; "
        f"micro-batches of {one.micro} take {one.gib:.0f}, and steps of {one.seconds:.0f} s make "
        f"{paper.samples / paper.batch * one.seconds / 86400:.0f} days. What helps is the card's own rate: at 0.40 of "
        "its products, the goal, half the days.",
        f"**8 GPUs: nothing.** Gradients are {eight.sent / 1e9:.1f} GB a step, {1e3 * eight.sending:.0f} ms beside "
        f"{eight.computing:.1f} s.",
        f"**64 GPUs: the network between nodes shows.** {1e3 * many.sending:.0f} ms of sending, {share:.0%} of the "
        "computing, must hide behind the backward pass (DDP's buckets do that); at twice the card's rate "
        f"{2 * share:.0%}.",
        f"**1,024 GPUs: the batch is too small.** One picture a GPU computes for {1e3 * all_of.computing:.0f} ms, its "
        f"gradients travel for {1e3 * all_of.sending:.0f} and its launches take {1e3 * HOST:.0f} or more; {ROWS} rows "
        f"of noise are drawn for the one that is used. Beyond {at_most:.0f} GPUs this batch gains nothing. Then helps: "
        "a captured step, gradients in bf16 (half the bytes), sums inside the node first (an eighth of them beyond "
        "it), and above all larger batches, whose learning rates nobody has measured.",
        f"**Ten times wider: memory at once.** The state alone is {state:,.0f} GiB; a node of {NODE} needs "
        f"{node.gib:.0f} a GPU even sharded and computed again. 64 GPUs hold it, a picture at a time, and then the "
        f"network breaks: {racks.sent / 1e12:.1f} TB a GPU and step, {racks.sending:.0f} s beside "
        f"{racks.computing:.0f} of computing; more GPUs change nothing of that. Then helps whatever computes more "
        f"between two trips: {some} pictures at a time, computed again ({fewer * racks.sending:.0f} s beside "
        f"{AGAIN * racks.computing:.0f}), and parts of each product within a node (tensor parallelism), where bytes "
        f"are {INSIDE / BETWEEN:.0f} times cheaper.",
        f"**Beside the step.** At {pace:,.0f} pictures of 512² a second (1,024 GPUs) {pace / 250:.0f} cores decode, if "
        "a pixel costs what it does at 256² (1,000 a second and core, measured). A checkpoint of `imagenet-512` is "
        f"{20 * paper.parameters / 1e9:.1f} GB, of the wider one {20 * wide.parameters / 1e9:,.0f}: all must write it, "
        "in shards.",
    ]


def page() -> str:
    """The whole of docs/scale.md."""
    paper = presets.get("imagenet-512")
    every = [*jobs("`imagenet-512`", paper), *jobs("10 × wider", wider(paper, 10))]
    rule = "|" + "|".join("---" if name in ("stage", "way", "bound by") else "---:" for name in COLUMNS) + "|"
    table = ["| " + " | ".join(COLUMNS) + " |", rule, *(line(job, step(job, gpus)) for job in every for gpus in GPUS)]
    text = "\n\n".join(textwrap.fill(part, 120, break_on_hyphens=False) for part in head())
    points = "\n".join(
        textwrap.fill(f"- {part}", 120, subsequent_indent="  ", break_on_hyphens=False)
        for part in broken(every[0], every[2])
    )
    body = "\n".join(table)
    return f"# How cost grows\n\n{text}\n\n{body}\n\n## What breaks first, and what then helps\n\n{points}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
