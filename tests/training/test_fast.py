"""The machine's choices against the plain path: the same result but for rounding, and nothing left behind."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nets.samples import encoder, signal, uvit, vit
from unilat.cli.configure import parse_train
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.nets.kinds import Kind
from unilat.nets.layers import ResidualBlock, TransformerBlock
from unilat.recipe import presets
from unilat.run import train as run
from unilat.run.records import Note
from unilat.training import fast
from unilat.training.fast import Choices, applied, compiles, resolved, told
from unilat.training.plan import Stage
from unilat.training.records import Fitted, Step
from unilat.types import UserError

CPU = torch.device("cpu")


def model(dropout: float = 0.0, kinds: tuple[Kind, Kind] = ("conv", "uvit")) -> Autoencoder:
    """Every kind of block and denoiser, with weights without zeros."""
    networks = {"encoder": encoder(2, kinds[0]), "decoder": uvit(2, dropout, kinds[1])}
    config = AutoencoderConfig(latent_channels=5, prior=vit(dropout), **networks)
    one = Autoencoder(config, 3, grid=(2, 4)).train()
    generator = torch.Generator().manual_seed(0)
    for parameter in one.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return one


def losses(one: Autoencoder) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 1's loss of three pictures, and the gradient of every weight."""
    torch.manual_seed(5)  # dropout
    total = one.losses(signal(2), Draws.keyed(0, 3, 0, 3)).total(2.0)
    one.zero_grad()
    total.sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in one.named_parameters() if weight.grad is not None}
    return total.detach(), gradients


def agree(found: tuple[Tensor, dict[str, Tensor]], wanted: tuple[Tensor, dict[str, Tensor]], share: float) -> None:
    """Losses within ``share``; each gradient within ``share`` of the largest norm of all."""
    torch.testing.assert_close(found[0], wanted[0], rtol=share, atol=0)
    assert found[1].keys() == wanted[1].keys()
    scale = max(float(gradient.norm()) for gradient in wanted[1].values())
    for name, gradient in wanted[1].items():
        assert float((found[1][name] - gradient).norm()) <= share * scale, name


@pytest.mark.parametrize("kinds", [("conv", "uvit"), ("uvit", "vit")])
def test_checkpointing_changes_nothing_but_what_is_kept(kinds: tuple[Kind, Kind]) -> None:
    """Kills: dropout drawn anew in the backward pass, a block left out of the gradient, checkpoints that keep all."""
    one, kept = model(0.3, kinds), []

    def keep(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.untyped_storage().nbytes()
        return tensor

    found = []
    for checkpointing in (False, True):
        kept.append(0)
        with applied(one, Choices(checkpointing=checkpointing), False):
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                one.losses(signal(2), Draws.keyed(0, 3, 0, 3)).total(2.0)
            found.append(losses(one))
    agree(found[1], found[0], 1e-6)
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.parametrize("kinds", [("conv", "uvit"), ("uvit", "vit"), ("vit", "conv")])
def test_bf16_is_near_and_of_the_networks_alone(kinds: tuple[Kind, Kind]) -> None:
    """Kills: losses or weights in bf16, a network left out, one that is told bf16 and computes float32.

    bf16 has 8 bits of mantissa: losses within 2 %, gradients within 5 % of the largest.
    """
    one, seen = model(kinds=kinds), {}
    for name in ("encoder.stem", "prior.net.stem", "decoder.net.stem", "decoder.drawing.stem"):
        layer = one.get_submodule(name)
        layer.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output.dtype}))
    wanted = losses(one)
    assert set(seen.values()) == {torch.float32} and len(seen) == 4
    with applied(one, Choices(precision="bf16"), False):
        found = losses(one)
        assert one.encode(signal(2)).dtype == torch.float32
    assert set(seen.values()) == {torch.bfloat16}
    assert found[0].dtype == torch.float32 and {gradient.dtype for gradient in found[1].values()} == {torch.float32}
    agree(found, wanted, 0.05)
    torch.testing.assert_close(found[0], wanted[0], rtol=0.02, atol=0)
    assert not torch.equal(found[0], wanted[0])


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("onednn", "kinds"), [(True, ("conv", "uvit")), (False, ("uvit", "vit"))])
def test_compiled_blocks_compute_the_same(
    backend: str, onednn: bool, kinds: tuple[Kind, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: weights under other names, a compiled net left compiled, a linear layer that cannot be compiled."""
    monkeypatch.setattr(fast, "BACKEND", backend)
    one = model(kinds=kinds)
    for part in one.modules():
        if hasattr(part, "by_onednn"):
            part.by_onednn = onednn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    names, wanted = list(one.state_dict()), losses(one)
    with applied(one, Choices(), True):
        assert "compiled" in told(one)
        agree(losses(one), wanted, 1e-5)
        assert list(one.state_dict()) == names
    assert "compiled" not in told(one)
    agree(losses(one), wanted, 1e-7)
    torch._dynamo.reset()


@pytest.fixture
def eight_kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dynamo as it is, but for a limit that is an error where it would fall back to plain calls in silence."""
    torch._dynamo.reset()
    monkeypatch.setattr(fast, "BACKEND", "eager")
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=True):
        yield
    torch._dynamo.reset()


def blocks_of_ten_widths() -> list[nn.Module]:
    """Each width once alone and once told of a noise level, twenty kinds of block."""
    widths = [16 * index for index in range(1, 11)]
    return [ResidualBlock(2, width, told) for told in (0, 8) for width in widths]


def called(block: nn.Module) -> None:
    """Forward and backward through a block."""
    assert isinstance(block, ResidualBlock)
    x = torch.randn(2, block.conv_in.in_channels, 2, 2)
    block(x, torch.randn(2, 8) if block.modulate is not None else None).sum().backward()


def test_no_width_is_one_too_many(eight_kinds: None) -> None:
    """Twenty kinds of block, one code. Kills: a ninth width that is computed plainly after minutes of compiling."""
    blocks = blocks_of_ten_widths()
    fast.compile_each(blocks)
    for block in (*blocks, *blocks):
        called(block)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        for block in blocks_of_ten_widths():
            block.compile(backend="eager", dynamic=False)
            called(block)


def test_the_papers_networks_are_compiled_whole(eight_kinds: None) -> None:
    """Encoder and decoder of imagenet-512, on a small grid. Kills: the limit hit by its widths, a kind compiled anew
    for each block that has it."""
    config = presets.get("imagenet-512").autoencoder
    with torch.device("meta"):
        one = Autoencoder(config, 3)
    blocks = [part for part in one.modules() if isinstance(part, ResidualBlock | TransformerBlock)]
    kinds = {(type(block), *(weight.shape for weight in block.parameters())) for block in blocks}
    assert len(blocks) > 25 and 6 <= len(kinds) <= 10
    counters = torch._dynamo.utils.counters
    counters.clear()
    with applied(one, Choices(), True), torch.device("meta"):
        x = torch.randn(2, 3, 32, 32)
        one.decoder(x, torch.zeros(2), one.encode(x)).sum().backward()
    assert len(kinds) <= counters["frames"]["ok"] <= 2 * len(kinds)


def test_everything_is_plain_again_after_a_failure() -> None:
    """Kills: evaluation in bf16 after a training that was stopped."""
    one = model()
    before = told(one)
    with pytest.raises(KeyboardInterrupt), applied(one, Choices(precision="bf16", checkpointing=True), False):
        assert told(one).startswith("bf16, checkpointing")
        raise KeyboardInterrupt
    assert told(one) == before


def test_compiling_is_for_long_runs_and_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a minute of compiling before a run of minutes; a choice against what was asked; one without a compiler."""
    monkeypatch.setattr(fast, "_compiler", lambda device: True)
    short, long = compiles(Choices(), 1e12, CPU), compiles(Choices(), 1e18, CPU)
    assert not short[0] and "would not pay back" in short[1] and "`compile='on'`" in short[1]
    assert long[0] and "pays back" in long[1] and "`compile='off'`" in long[1]
    assert compiles(Choices(compile="on"), 0, CPU)[0] and not compiles(Choices(compile="off"), 1e20, CPU)[0]
    assert all("\n" not in why for _, why in (short, long))
    monkeypatch.setattr(fast, "_compiler", lambda device: False)
    assert not compiles(Choices(), 1e18, CPU)[0]
    with pytest.raises(UserError, match="no C\\+\\+ compiler"):
        compiles(Choices(compile="on"), 1e18, CPU)


def test_the_seconds_that_compiling_saves_and_costs_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of ``flops / speed`` is saved, and must be 1.5 times what compiling takes.

    Kills: all of the step's time told as saved, the CPU's prices on a GPU, one figure for both, a margin left out.
    """
    prices = {"cpu": fast.Price(40.0, 0.03, 1e11), "cuda": fast.Price(100.0, 0.25, 2e13)}
    monkeypatch.setattr(fast, "PRICES", prices)
    monkeypatch.setattr(fast, "_compiler", lambda device: True)
    for flops, saved, pays in ((1.9e14, 57, False), (2.1e14, 63, True)):
        chosen, why = compiles(Choices(), flops, CPU)
        assert chosen == pays and f"about {saved} s saved, 40 s spent" in why
    chosen, why = compiles(Choices(), 1.28e16, torch.device("cuda"))
    assert chosen and "about 160 s saved, 100 s spent" in why
    assert not compiles(Choices(), 1.12e16, torch.device("cuda"))[0]


def test_the_command_line_names_them() -> None:
    """Kills: an option that goes nowhere, or into the configuration, which decides results."""
    plain = parse_train(["glyphs"])
    assert plain.choices() == Choices()
    words = "--precision tf32 --checkpointing --no-compile --layout contiguous --capture off --deterministic"
    named = parse_train(["glyphs", *words.split()])
    fixed = {"checkpointing": True, "deterministic": True, "layout": "contiguous", "capture": "off"}
    assert named.choices() == Choices(compile="off", precision="tf32", **fixed)  # type: ignore[arg-type]
    assert named.settings == plain.settings
    assert parse_train(["glyphs", "--compile"]).choices().compile == "on"
    with pytest.raises(UserError, match="contradict"):
        parse_train(["glyphs", "--compile", "--no-compile"]).choices()


@pytest.mark.usefixtures("on_cpu")
def test_a_run_uses_and_tells_them(tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: choices that never reach a stage, or that last into the evaluation; a manifest that is silent."""
    config = presets.get("tiny")
    config = replace(
        config,
        data=replace(config.data, source=str(tiny_source)),
        stage1=replace(config.stage1, samples=96),
        stage2=replace(config.stage2, samples=64),
    )
    seen: list[str] = []
    fit = run.fit

    def watched(stage: Stage, *arguments: Any, **named: Any) -> Fitted:
        seen.append(f"{stage.name}: {told(stage.model)}")
        return fit(stage, *arguments, **named)

    monkeypatch.setattr(run, "fit", watched)
    said: list[Step | Note] = []
    choices = Choices(precision="bf16", checkpointing=True)
    run.train(
        config,
        tmp_path / "run",
        said.append,
        choices=choices,
    )
    assert run.load(tmp_path / "run").results.reconstruction.psnr.value > 0
    assert [line[:27] for line in seen] == ["stage1: bf16, checkpointing", "stage2: bf16, checkpointing"]
    notes = [one.text for one in said if isinstance(one, Note)]
    assert sum("networks in bf16, not compiled: it would not pay back" in note for note in notes) == 2
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["precision"], manifest["checkpointing"], manifest["compile"]) == ("bf16", True, "auto")


def test_a_run_tells_what_compiling_took(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eight_kinds: None
) -> None:
    """Kills: the seconds of the stage before counted again, minutes of silence that nobody explains."""
    clock = iter([3.0, 10.0])
    monkeypatch.setattr(run, "seconds_of_compiling", lambda: next(clock))
    monkeypatch.setattr(fast, "_compiler", lambda device: True)
    config = presets.get("tiny")
    config = replace(
        config,
        data=replace(config.data, source=str(tiny_source)),
        stage1=replace(config.stage1, samples=64),
        stage2=replace(config.stage2, samples=0),
    )
    said: list[Step | Note] = []
    run.train(config, tmp_path / "run", said.append, choices=Choices(compile="on"))
    assert "stage1: compiling took 7 s of it" in [one.text for one in said if isinstance(one, Note)]


def test_every_kind_of_denoiser_changes_its_precision() -> None:
    """Kills: one kind left in float32, and so a stage whose time and memory are told as bf16's."""
    plain = model()
    whole = Autoencoder(replace(plain.config, covariance_up_to=1024, decoder_start="data"), 3, grid=(2, 4))
    parts = [part for one in (plain, whole) for part in (one.encoder, one.prior, one.decoder)]
    assert len({type(part) for part in parts}) == 4
    with applied(plain, Choices(precision="bf16"), False), applied(whole, Choices(precision="bf16"), False):
        assert {part.precision for part in parts} == {torch.bfloat16}
    assert {part.precision for part in parts} == {torch.float32}


GPU = torch.device("cuda")


@pytest.mark.parametrize(("able", "wanted"), [(True, "bf16"), (False, "tf32")])
def test_a_gpu_takes_the_fast_way_and_a_cpu_the_plain_one(
    able: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: bf16 on a CPU, or on a GPU that has none; a user's choice passed over; what a CPU cannot do done."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: able)
    assert resolved(Choices(), CPU) == Choices(precision="float32")
    assert resolved(Choices(), GPU) == Choices(precision=wanted)  # type: ignore[arg-type]
    for asked in ("float32", "tf32", "bf16"):
        assert {resolved(Choices(precision=asked), place).precision for place in (CPU, GPU)} == {asked}
    for choices in (Choices(layout="channels_last"), Choices(capture="on")):
        assert resolved(choices, GPU).precision == wanted
        with pytest.raises(UserError, match="leave it at auto"):
            resolved(choices, CPU)


def test_one_line_says_what_was_chosen() -> None:
    """Kills: a way that is taken and not told, one told of a CPU that only a GPU has, TF32 told of the plain path."""
    bf16, plain = Choices(precision="bf16"), Choices(precision="float32")
    assert fast.line(plain, False, "why", CPU) == "why" == fast.line(plain, False, "why", GPU)
    assert fast.line(bf16, True, "why", CPU) == "in bf16, why"
    assert fast.line(bf16, False, "why", GPU) == "in bf16, TF32 where float32 stays, why"
    assert fast.line(bf16, True, "why", GPU) == "in bf16, TF32 where float32 stays, channels_last, why"
    whole = Choices(precision="tf32", layout="channels_last", deterministic=True)
    assert fast.line(whole, False, "why", GPU) == "TF32 where float32 stays, channels_last, deterministic, why"
    assert fast.line(replace(bf16, layout="contiguous"), True, "why", GPU) == "in bf16, TF32 where float32 stays, why"


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(("precision", "rounds"), [("bf16", True), ("tf32", True), ("float32", False)])
def test_a_gpus_arithmetic_is_as_chosen_and_as_before_afterwards(
    precision: str, rounds: bool, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: TF32 on the plain path or left on after it, sums in any order, a CPU's arithmetic moved."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def now() -> tuple[Any, ...]:
        cudnn = torch.backends.cudnn
        strict, efficient = (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
        )
        return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.deterministic, strict, efficient

    before, choices = now(), Choices(precision=precision, deterministic=deterministic)  # type: ignore[arg-type]
    with fast.arithmetic(choices, CPU):
        assert now() == before
    with pytest.raises(KeyboardInterrupt), fast.arithmetic(choices, GPU):
        assert now() == ("high" if rounds else "highest", rounds, deterministic, deterministic, not deterministic)
        assert deterministic == (os.environ.get("CUBLAS_WORKSPACE_CONFIG") == ":4096:8")
        raise KeyboardInterrupt
    assert now() == before


def test_channels_last_is_another_layout_and_the_same_numbers() -> None:
    """Kills: a layout that reaches no convolution, or is left behind; numbers that move with it."""
    one, seen = model(), list[bool]()
    one.get_submodule("decoder.net.down_blocks.0.0.conv_in").register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    wanted = losses(one)
    fast.set_parts(one, torch.float32, False, channels_last=True)
    agree(losses(one), wanted, 1e-5)
    with applied(one, Choices(), False):
        pass
    losses(one)
    assert seen == [False, True, False]


def test_modules_outside_are_left_alone() -> None:
    """Kills: a precision set on any module that has a field of that name."""
    other = nn.Linear(2, 2)
    other.precision = "mine"  # type: ignore[assignment]
    fast.set_parts(other, torch.bfloat16, True)
    assert other.precision == "mine" and not hasattr(other, "checkpointing")
