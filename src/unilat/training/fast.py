"""How a stage is computed: choices of the machine that leave its result alone but for rounding.

``RunConfig`` decides the result and has none of them; they are told in ``manifest.json`` and by a line of the run. The
networks change in place while :func:`applied` holds and are plain again after it; their weights keep their names.
"""

import contextlib
import ctypes
import os
import shutil
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import nn

from unilat.nets.class_gaussian import ClassGaussian
from unilat.nets.decoder import Decoder
from unilat.nets.denoiser import Denoiser
from unilat.nets.encoder import Encoder
from unilat.nets.foreign import ForeignDecoder
from unilat.nets.gaussian import GaussianDenoiser
from unilat.nets.layers import ResidualBlock, Stack, Transformer, TransformerBlock
from unilat.nets.products import onednn_is_faster
from unilat.training.plan import interval
from unilat.types import UserError

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The choices; the default is right where nobody says otherwise."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Whether the networks' blocks are compiled; auto: where that pays back within the stage."""
    precision: Literal["auto", "bf16", "tf32", "float32"] = "auto"
    """Of the networks alone; weights, noise coefficients and losses stay float32. tf32: float32 whose products a GPU
    rounds to 10 bits. auto: bf16 on a GPU, float32 on a CPU."""
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"
    """How convolutions' grids lie in memory; auto: channels_last on a GPU where blocks are compiled."""
    capture: Literal["auto", "on", "off"] = "auto"
    """Whether a whole step is captured in a CUDA graph; auto: on a GPU, where launches outlast computing."""
    deterministic: bool = False
    """Whether one device gives the same bits twice: a CPU does anyway, a GPU at some cost."""
    noise: Literal["device", "cpu"] = "device"
    """Where noise is drawn: a GPU draws other numbers than a CPU. cpu: to compare the two, slower."""
    checkpointing: bool = False
    """Whether the inside of the blocks is computed again in the backward pass instead of being kept."""
    workers: int = 0
    """Processes that make batches ahead of the step; 0: each is made when it is needed, right for data in memory."""
    micro_batch: int = 0
    """Examples computed at a time, of a process's share of the batch; 0: all, or on a GPU what is found to fit."""
    save_every: str = ""
    """How often a stage is saved: ``500`` steps, as where nothing is said, or ``300s``, ``5m``, ``1h``."""
    shard: bool = False
    """Whether several processes have one copy of weights, moments and averages between them (training/sharded.py)."""

    def __post_init__(self) -> None:
        for name in ("workers", "micro_batch"):
            if getattr(self, name) < 0:
                raise UserError(f"`{name}` must be 0 or more, not {getattr(self, name)}")


def resolved(choices: Choices, device: torch.device) -> Choices:
    """``choices`` with the precision that ``auto`` is on ``device``; a layout that it cannot compute in is refused."""
    if choices.save_every:
        interval(choices.save_every)
    if choices.layout == "channels_last" and device.type == "cpu":
        raise UserError(
            "layout channels_last: on a CPU it gains nothing, and this torch crashes in it (GroupNorm backward); "
            "leave it at auto"
        )
    if choices.capture == "on" and device.type != "cuda":
        raise UserError(f"capture on: a step is captured on a GPU, and this run is on {device.type}; leave it at auto")
    if choices.precision != "auto":
        return choices
    if device.type != "cuda":
        return replace(choices, precision="float32")
    return replace(choices, precision="bf16" if torch.cuda.is_bf16_supported() else "tf32")


@dataclass(frozen=True)
class Price:
    """What compiling is taken to do on a kind of device: measured on a CPU (benchmarks/step.py), a guess for GPUs."""

    seconds: float
    """Compiling both kinds of blocks, cold."""
    saved: float
    """Share of a step that is saved."""
    flops: float
    """A second, as a small network reaches them plain."""


PRICES = {"cpu": Price(40.0, 0.03, 1e11), "cuda": Price(90.0, 0.25, 2e13)}
"""Constants, not measured in the run: the choice must be the same when the run goes on, or its bits would differ."""
BACKEND = "inductor"


def compiles(choices: Choices, flops: float, device: torch.device) -> tuple[bool, str]:
    """Whether a stage of so many ``flops`` is compiled here, and why, in one line."""
    if choices.compile == "on" and not _compiler(device):
        raise UserError("there is no C++ compiler on this machine: install g++, or leave out `compile='on'`")
    if choices.compile != "auto":
        return choices.compile == "on", "compiled, as asked" if choices.compile == "on" else "not compiled, as asked"
    price = PRICES.get(device.type, PRICES["cpu"])
    saved = price.saved * flops / price.flops
    figures = f"about {saved:.0f} s saved, {price.seconds:.0f} s spent"
    if saved < 1.5 * price.seconds:
        return False, f"not compiled: it would not pay back ({figures}; `compile='on'` does it all the same)"
    if not _compiler(device):
        return False, f"not compiled: there is no C++ compiler here ({figures})"
    return True, f"compiled: it pays back ({figures}; `compile='off'` leaves it)"


def _compiler(device: torch.device) -> bool:
    return device.type == "cuda" or any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++"))


def line(choices: Choices, compiled: bool, why: str, device: torch.device) -> str:
    """What is chosen for networks on ``device``, as a run says it; ``why``: of compiling."""
    ways = []
    if choices.precision == "bf16":
        ways.append("in bf16")
    if _rounds(choices, device):
        ways.append("TF32 where float32 stays")
    if _channels_last(choices, compiled, device):
        ways.append("channels_last")
    if choices.deterministic:
        ways.append("deterministic")
    return ", ".join([*ways, why])


def _rounds(choices: Choices, device: torch.device) -> bool:
    return device.type == "cuda" and choices.precision != "float32"


def _channels_last(choices: Choices, compiled: bool, device: torch.device) -> bool:
    """Eager GroupNorm on a GPU answers in the contiguous layout, so that only compiled blocks gain."""
    return choices.layout == "channels_last" or (choices.layout == "auto" and compiled and device.type == "cuda")


@contextlib.contextmanager
def applied(model: nn.Module, choices: Choices, compiled: bool, device: torch.device = CPU) -> Iterator[None]:
    """``model`` as ``choices`` say, in place, while the context lasts; it will be computed on ``device``."""
    keep_freed_memory(8 if choices.checkpointing else 32)
    low = torch.bfloat16 if resolved(choices, device).precision == "bf16" else torch.float32
    set_parts(model, low, choices.checkpointing, _channels_last(choices, compiled, device))
    blocks = [part for part in model.modules() if isinstance(part, ResidualBlock | TransformerBlock)]
    try:
        if compiled:
            compile_each(blocks)
        with arithmetic(choices, device):
            yield
    finally:
        set_parts(model, torch.float32, False)
        for block in blocks:
            block._compiled_call_impl = None


def compile_each(blocks: Sequence[nn.Module]) -> None:
    """Compile ``blocks`` when they are first called, those of equal weights' shapes together.

    Dynamo keeps what it has compiled by code object and gives one up after eight kinds of input, while one ``forward``
    meets the widths of all levels. So each kind of block gets a ``forward`` of its own, equal but in name.
    """
    copies: dict[tuple[object, ...], types.FunctionType] = {}
    for block in blocks:
        kind = (type(block), *(tuple(weight.shape) for weight in block.parameters()))
        if kind not in copies:
            copies[kind] = _renamed(type(block).forward, f"forward_{len(copies)}")
        forward = types.MethodType(copies[kind], block)
        block._compiled_call_impl = torch.compile(forward, backend=BACKEND, dynamic=False)


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """The compiled blocks of ``model`` as they are written, while the context lasts."""
    kept = [(part, part._compiled_call_impl) for part in model.modules() if part._compiled_call_impl is not None]
    try:
        for part, _ in kept:
            part._compiled_call_impl = None
        yield
    finally:
        for part, call in kept:
            part._compiled_call_impl = call


def _renamed(function: Any, name: str) -> types.FunctionType:
    """A function of the same code under another name."""
    code = function.__code__.replace(co_name=name)
    return types.FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)


def seconds_of_compiling() -> float:
    """Seconds that this process has compiled so far."""
    from torch._dynamo import utils

    return utils.calculate_time_spent().get("total_wall_time", 0.0)


@contextlib.contextmanager
def arithmetic(choices: Choices, device: torch.device) -> Iterator[None]:
    """How a GPU rounds float32 products, and whether it gives the same bits twice, while the context lasts."""
    cudnn = cast(Any, torch.backends.cudnn)
    products, rounded = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    rounds = _rounds(resolved(choices, device), device)
    try:
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if rounds else "highest")
            cudnn.allow_tf32 = rounds
        with same_twice(choices, device):
            yield
    finally:
        if device.type == "cuda":
            torch.set_float32_matmul_precision(products)
            cudnn.allow_tf32 = rounded


@contextlib.contextmanager
def same_twice(choices: Choices, device: torch.device) -> Iterator[None]:
    """A GPU gives the same bits twice where ``choices`` ask for it, while the context lasts."""
    if device.type != "cuda" or not choices.deterministic:
        yield
        return
    cuda, cudnn = torch.backends.cuda, cast(Any, torch.backends.cudnn)
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cuda.mem_efficient_sdp_enabled()
    try:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS begins
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic = True
        cuda.enable_mem_efficient_sdp(False)  # its backward pass adds up in any order
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic = before[1]
        cuda.enable_mem_efficient_sdp(before[2])


def set_parts(model: nn.Module, precision: torch.dtype, checkpointing: bool, channels_last: bool = False) -> None:
    """Give every part of ``model`` that has them these three; the one place from which precision is changed."""
    for part in model.modules():
        if isinstance(part, Encoder | Denoiser | GaussianDenoiser | ClassGaussian | Decoder | ForeignDecoder):
            part.precision = precision
        if isinstance(part, Stack | Transformer | Decoder):
            part.checkpointing = checkpointing
        if isinstance(part, Stack):
            part.channels_last = channels_last


def keep_freed_memory(largest: int) -> None:
    """Let glibc keep what a step frees for the next one: given back, every page of it would be faulted in again.

    Blocks above ``largest`` MiB (32 is the most) are given back all the same: less is slower and leaves fewer holes.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, largest << 20)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def told(model: nn.Module) -> str:
    """How ``model`` is computed at present, for checkpoints: another way of it changes last bits, or more."""
    parts = list(model.modules())
    low = any(getattr(part, "precision", torch.float32) != torch.float32 for part in parts)
    again = any(getattr(part, "checkpointing", False) for part in parts)
    compiled = any(part._compiled_call_impl is not None for part in parts)
    rounded = torch.cuda.is_available() and torch.get_float32_matmul_precision() != "highest"
    ways = {"bf16": low, "TF32": rounded, "checkpointing": again, "compiled": compiled}
    ways |= {"products by oneDNN": onednn_is_faster()}
    return ", ".join(name for name, holds in ways.items() if holds) or "plain"
