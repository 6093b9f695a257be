"""A whole step of a fixed shape, computed from buffers that stay where they are: on a GPU two CUDA graphs replay it.

    batch, noise, learning rate, what moves in the stage ──► buffers
    graph 1: losses → gradients → means and norm      the host reads them: the one wait of a step
    graph 2: clip → AdamW, Muon → what the stage observes → averages      only where all is finite

A small network's step is some thousand launches, each of which takes the host longer than the GPU; a replayed graph is
one. On a CPU the same functions run as they are, through the same buffers: so a test there shows that this step is the
plain one (``engine.py``), bit by bit. The first :data:`WARM` steps are real ones too, made before anything is captured.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from unilat.maths.seeds import Draws, key
from unilat.training.ema import keep
from unilat.training.fast import Choices
from unilat.training.micro import out_of_memory
from unilat.training.plan import Batch, Schedule, Stage
from unilat.training.state import State

WARM = 3
"""Steps that run as they are before they are captured: libraries begin, and compiled blocks are compiled."""
LAUNCH_BOUND = 2e12
"""FLOPs of a step above which a GPU computes for longer than the host launches: a guess, between the 1e10 of `small`,
which was measured at 0.03 % of an H200, and the 3e13 of eight pictures of `imagenet-512` at 20 %."""


def captures(
    choices: Choices, stage: Stage, plan: Schedule, flops: float, device: torch.device, processes: int = 1
) -> tuple[bool, str]:
    """Whether a stage of ``flops`` in all is captured on ``device``, and what to say of it; nothing on a CPU."""
    if device.type != "cuda":
        return False, ""
    refusal = _refusal(choices, stage, processes)
    if choices.capture == "off":
        return False, "not captured, as asked"
    if refusal:
        return False, f"not captured: {refusal}"
    if choices.capture == "auto" and flops / plan.steps > LAUNCH_BOUND:
        return False, "not captured: a step computes for longer than it launches"
    return True, "steps captured"


def _refusal(choices: Choices, stage: Stage, processes: int) -> str | None:
    """Why a step cannot be captured."""
    if processes > 1:
        return f"{processes} processes exchange gradients in it"
    if choices.micro_batch:
        return "a batch in parts is computed part by part"
    if choices.checkpointing:
        return "what is computed again seeds its dropout anew"
    if choices.deterministic:
        return "deterministic steps are plain ones"
    if stage.uncaptured:
        return stage.uncaptured
    return None if stage.hold else "what moves between its steps is not known"


class Script(Draws):
    """Draws whose numbers lie in buffers: the first pass notes what is asked for, and :meth:`begin` draws it anew."""

    def __init__(self, total: int, place: torch.device):
        super().__init__(0, 0, total)
        self._place, self._calls = place, list[tuple[Callable[[Draws], Tensor], Tensor]]()
        self._next, self._source, self._whole = 0, self, False

    def begin(self, draws: Draws) -> None:
        """Fill the buffers with what ``draws`` gives for the same calls in the same order."""
        self._source, self._next, self._whole = draws, 0, bool(self._calls)
        for call, buffer in self._calls:
            buffer.copy_(call(draws))

    def end(self) -> None:
        """All has been drawn that a step draws; ``ValueError`` where the first one drew another number of times."""
        if self._next != len(self._calls):
            raise ValueError(f"a step drew {self._next} times and the first one {len(self._calls)} times")

    def normal(self, like: Tensor) -> Tensor:
        blank = like.detach().new_empty(()).expand(like.shape)
        return self._buffer(lambda draws: draws.normal(blank))

    def uniform(self, batch: int) -> Tensor:
        return self._buffer(lambda draws: draws.uniform(batch))

    def strata(self, batch: int) -> Tensor:
        return self._buffer(lambda draws: draws.strata(batch))

    def _buffer(self, call: Callable[[Draws], Tensor]) -> Tensor:
        if not self._whole:
            self._calls.append((call, call(self._source).to(self._place).clone()))
        self._next += 1
        return self._calls[self._next - 1][1]


class NoRoom(Exception):
    """A step that did not happen: memory ran out before anything had moved."""


def graphed(call: Callable[[], None], graphs: list[Any], stream: Any) -> Callable[[], None]:
    """What replays ``call`` as it is captured now, on ``stream`` and in the memory of the first of ``graphs``."""
    graph = torch.cuda.CUDAGraph()
    pool = graphs[0].pool() if graphs else None
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        call()
    graphs.append(graph)
    return graph.replay


class Captured:
    """The steps of one fit on one device. ``prepare`` writes what moves in the stage into what it holds, until
    ``release`` has been called."""

    def __init__(
        self,
        state: State,
        prepare: Callable[[], object],
        release: Callable[[], object],
        tell: Callable[[str], None],
    ):
        self.state, self.prepare, self.release, self.tell = state, prepare, release, tell
        device, total = state.device, state.schedule.batch
        self.draws, self.batch = Script(total, device), ()
        # a fused AdamW reads its rate as float32 on a GPU; on a CPU it reads the number that the plain step has
        self.rate = torch.zeros((), device=device, dtype=torch.float32 if device.type == "cuda" else torch.float64)
        self.new = torch.zeros((), device=device)
        self.names, self.told, self.sums = (), torch.zeros(0), dict[str, Tensor]()
        self._done, self._graphs, self._replays = 0, list[Any](), dict[str, Callable[[], None]]()
        self._graphed = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._graphed else None

    @classmethod
    @contextlib.contextmanager
    def holding(cls, state: State, tell: Callable[[str], None]) -> Iterator["Captured | None"]:
        """The steps of ``state``, whose stage holds what moves while the context lasts; None where it cannot."""
        hold = state.stage.hold
        with contextlib.ExitStack() as stack:
            yield hold and cls(state, stack.enter_context(hold(state.device)), stack.close, tell)

    def step(self, rows: Batch) -> dict[str, float]:
        """One step on ``rows``; the means over the batch, as the plain step tells them.

        Raises ``Refused`` and :class:`NoRoom`, and nothing has moved.
        """
        state, schedule = self.state, self.state.schedule
        with self._aside():
            self._write(rows)
            try:
                self._run("losses", self._losses)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise NoRoom from None
            *means, norm = self.told.tolist()  # the one time in a step that the host waits
            state.guard.judge(self.names, means, norm)
            samples = state.samples + schedule.batch
            rate = schedule.rate(samples)
            self.rate.fill_(rate)
            self.new.fill_(1.0 - keep(schedule.batch, samples, schedule.ema_halflife))
            self._run("move", self._move)
        state.step += 1
        state.guard.passed(means[0])
        self._done += 1
        return dict(zip(self.names, means, strict=True)) | {"gradient_norm": norm, "learning_rate": rate}

    def end(self) -> None:
        """No captured steps any more: give back what they hold, and say so."""
        self.release()
        self.batch, self.draws, self.sums = (), Script(0, self.state.device), {}
        self._graphs.clear()
        self._replays.clear()
        name, batch = self.state.stage.name, self.state.schedule.batch
        self.tell(f"{name}: a batch of {batch} does not fit into memory at once, so that steps are not captured")

    def _write(self, rows: Batch) -> None:
        """Everything that a step reads."""
        state = self.state
        if not self.batch:
            self.batch = tuple(tensor.to(state.device).clone() for tensor in rows)
        for buffer, tensor in zip(self.batch, rows, strict=True):
            buffer.copy_(tensor)
        self.draws.begin(Draws.keyed(state.seed, state.step, 0, state.schedule.batch, state.noise))
        torch.manual_seed(key(state.seed, state.step, 0, "modules"))
        self.prepare()

    def _losses(self) -> None:
        """Gradients, and in ``told`` the means over the batch and the gradient's norm."""
        state, total = self.state, self.state.schedule.batch
        state.drop_gradients()
        loss, metrics = state.stage.losses(self.batch, self.draws)
        self.draws.end()
        if loss.shape != (total,):
            raise ValueError(f"{state.stage.name}: losses are [{total}], one per example, not {list(loss.shape)}")
        (loss.sum() / total).backward()
        vectors = {name: metrics.pop(name) for name in [*metrics] if metrics[name].dim() > 1}
        self.names = ("loss", *metrics)
        totals = torch.stack([one.detach() for one in (loss, *metrics.values())]).sum(1, dtype=torch.float64)
        self.sums = {name: one.detach().sum(0, dtype=torch.float64) for name, one in vectors.items()}
        self.told = torch.cat([totals / total, state.gradient().norm().double()[None]])

    def _move(self) -> None:
        """Weights, what the stage observes, and averages, by one step."""
        state, clip = self.state, self.state.schedule.clip
        norm = self.told[-1]
        state.gradient().scale(torch.where(norm > clip, clip / norm, 1.0))
        state.move(self.rate)
        if self.sums:
            state.stage.observe(self.sums)
        state.ema.move(self.new)

    def _run(self, name: str, call: Callable[[], None]) -> None:
        """``call``, or on a GPU that is warm its graph, which is captured the first time."""
        if not self._graphed or self._done < WARM:
            call()
            return
        if name not in self._replays:
            try:
                self._replays[name] = graphed(call, self._graphs, self._stream)
            except RuntimeError as error:
                self._graphed, text = False, " ".join(str(error).split())
                name = self.state.stage.name
                self.tell(f"{name}: steps cannot be captured here ({text:.120}), they go on one by one")
                call()
                return
        self._replays[name]()

    @contextlib.contextmanager
    def _aside(self) -> Any:
        """On a stream of its own, where graphs are captured; after what was asked for before, before what comes."""
        if self._stream is None:
            yield
            return
        around = torch.cuda.current_stream(self.state.device)
        self._stream.wait_stream(around)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            around.wait_stream(self._stream)
