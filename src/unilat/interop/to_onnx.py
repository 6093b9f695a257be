"""A run as ONNX graphs: encoder, decoder in one call, and the denoiser of its latents; each checked where it can be.

    encoder.onnx    x [B, C, H, W] in [-1, 1]                  -> mean, std of z_0 [B, c, h, w]
    decoder.onnx    z_0, noise ~ N(0, I) [B, C, H, W]          -> x; of a decoder without noise z_0 alone
    base.onnx       z_t, logsnr [B], label [B] (-1 is none)    -> z, the expected clean latent; label with classes only
    config.json     shapes, noise, and the numbers to scale latents by

The batch is free, the grid is the run's. By torch's tracing exporter: the newer one took 50 s for a network that this
one writes in one (LOG.md), and needs a package more.
"""

import copy
import dataclasses
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unilat.files import write_json
from unilat.interop.folded import folded
from unilat.interop.space import Space
from unilat.maths.noise import alpha, sigma
from unilat.maths.samplers import ddim, uniform_grid
from unilat.nets.condition import Condition
from unilat.nets.decoder import hear
from unilat.nets.encoder import Encoder
from unilat.nets.foreign import ForeignEncoder
from unilat.nets.layers import Positions
from unilat.nets.products import Linear
from unilat.run.trained import Run
from unilat.types import UserError

OPSET = 18
LOAD = """```py
import json
from pathlib import Path

import numpy as np
import onnxruntime

told = json.loads(Path("FOLDER/config.json").read_text())
encoder = onnxruntime.InferenceSession("FOLDER/encoder.onnx")
decoder = onnxruntime.InferenceSession("FOLDER/decoder.onnx")
x = np.zeros((2, *told["picture"]), np.float32)
mean, std = encoder.run(None, {"x": x})
z_0 = mean + std * np.random.randn(*mean.shape).astype(np.float32)
noise = np.random.randn(*x.shape).astype(np.float32)
(made,) = decoder.run(None, {"z_0": z_0, "noise": noise})
```"""
WITHOUT_NOISE = (', "noise": noise}', "}"), ("noise = np.random.randn(*x.shape).astype(np.float32)\n", "")
UNCHECKED = "The graphs were not checked: onnxruntime is not installed."


def check_packages() -> None:
    """Raise :class:`UserError` where what writes the graphs is not installed."""
    if not _installed("onnx"):
        raise UserError("an export to onnx needs the package onnx: pip install 'unilat[onnx]'")


def _installed(package: str) -> bool:
    """Whether a package is there; a folder of its name, which Python would take for one, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


class _Encoder(nn.Module):
    """Mean and standard deviation of z_0."""

    def __init__(self, encoder: Encoder | ForeignEncoder, lambda_0: float):
        super().__init__()
        level = torch.tensor(lambda_0)
        self.encoder, self.alpha, self.sigma = encoder, float(alpha(level)), float(sigma(level))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder.posterior(x)
        if log_variance is None:
            return self.alpha * mean, torch.full_like(mean, self.sigma)
        return self.alpha * mean, (self.alpha**2 * log_variance.exp() + self.sigma**2).sqrt()


class _Decoder(nn.Module):
    """Pictures of z_0 from noise, in one call or in those of a distilled decoder."""

    def __init__(self, run: Run):
        super().__init__()
        few, how, ae = run.few_decoder, run.config.evaluation, run.config.autoencoder
        self.decoder = few.denoise if few else run.autoencoder.decoder
        self.grid = few.grid if few else uniform_grid(*how.decoder_range, 1, to_clean=True)
        self.temperature = few.temperature if few else how.decoder_temperature
        self.level = None if ae.random_end is None else ae.lambda_0 / 10
        self.answers_at, self.picture = ae.lambda_min if hears_no_noise(run) else None, run.kind.shape

    def forward(self, z_0: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.level is not None:
            z_0 = torch.cat([z_0, torch.full_like(z_0[:, :1], self.level)], dim=1)
        if noise is None:
            empty = z_0.new_zeros(z_0.shape[0], *self.picture)
            return self.decoder(empty, torch.full_like(z_0[:, 0, 0, 0], self.answers_at or 0.0), z_0)
        return ddim(self.decoder, self.temperature * noise, self.grid, generator=(), cond=hear(self.decoder, z_0))


class _Base(nn.Module):
    """The denoiser of latents, with class numbers where there are classes."""

    def __init__(self, run: Run):
        super().__init__()
        assert run.base is not None
        self.denoise = run.few_base.denoise if run.few_base else run.base.denoise

    def forward(self, z_t: Tensor, logsnr: Tensor, label: Tensor | None = None) -> Tensor:
        cond = None if label is None else Condition(label.clamp_min(0)).drop(label < 0)
        return self.denoise(z_t, logsnr, cond)


class _Places(nn.Module):
    """What :class:`Positions` gives for one grid, which a graph has anyway."""

    where: Tensor

    def __init__(self, where: Tensor):
        super().__init__()
        self.register_buffer("where", where)

    def forward(self, grid: tuple[int, ...], like: Tensor) -> Tensor:
        return self.where


def write(run: Run, space: Space, folder: Path) -> float | None:
    """All files but the card; the largest difference of onnxruntime from torch, or None where that is not installed."""
    picture, latent = (run.data.channels, *run.config.data.size), run.latent_shape
    x, z = torch.rand(2, *picture) * 2 - 1, torch.randn(2, *latent)
    noise = {} if hears_no_noise(run) else {"noise": torch.randn(2, *picture)}
    run = folded(run)
    encoder = _Encoder(run.autoencoder.encoder, run.config.autoencoder.lambda_0)
    graphs: list[tuple[str, nn.Module, dict[str, Tensor], list[str]]] = [
        ("encoder", encoder, {"x": x}, ["mean", "std"]),
        ("decoder", _Decoder(run), {"z_0": z, **noise}, ["x"]),
    ]
    if run.base is not None:
        label = {"label": torch.tensor([0, -1])} if run.base.classes else {}
        graphs.append(("base", _Base(run), {"z_t": z, "logsnr": torch.randn(2), **label}, ["z"]))
    differences = [_graph(folder / f"{name}.onnx", net, given, made) for name, net, given, made in graphs]
    calls = run.few_decoder.calls if run.few_decoder else 1
    told = {
        "picture": list(picture),
        "latent": list(latent),
        "classes": run.classes if run.base is not None and run.base.classes else [],
        "decoder_calls": calls,
        "lambda_0": run.config.autoencoder.lambda_0,
        "lambda_min": run.config.autoencoder.lambda_min,
        **dataclasses.asdict(space),
    }
    write_json(folder / "config.json", told)
    known = [one for one in differences if one is not None]
    return max(known) if known else None


def load_text(run: Run, difference: float | None) -> str:
    """How the graphs are run, and how far they were seen to be from torch, as Markdown."""
    calls = run.few_decoder.calls if run.few_decoder else 1
    told = f"The decoder makes a picture in {calls} call{'' if calls == 1 else 's'}."
    if difference is not None:
        told += f" The graphs were run by onnxruntime and differ from torch by {difference:.2g} at the most."
    load = LOAD
    for with_noise, without in WITHOUT_NOISE if hears_no_noise(run) else ():
        load = load.replace(with_noise, without)
    return f"{load}\n\n{told}"


def hears_no_noise(run: Run) -> bool:
    """Whether the decoder was trained by a squared error, and answers to an empty picture."""
    return run.config.autoencoder.decoder_loss == "mse" and run.few_decoder is None


def _graph(path: Path, net: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> float | None:
    """Write one network, then let onnxruntime run it on more rows than it was traced with."""
    net = copy.deepcopy(net).cpu().eval().requires_grad_(False)
    for one in net.modules():
        if isinstance(one, Linear):
            one.by_onednn = False
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every Python number, and of being the older way
        expected = net(*inputs.values())
        _fix_places(net, inputs)
        torch.onnx.export(
            net,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
        if not _installed("onnxruntime"):
            return None
        more = {name: torch.cat([tensor, tensor.flip(0), tensor[:1]]) for name, tensor in inputs.items()}
        expected = net(*more.values())
    return _difference(path, more, expected if isinstance(expected, tuple) else (expected,))


def _fix_places(net: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Put each grid's places where they are computed from its size, which no operator of ONNX does."""
    seen: dict[nn.Module, Tensor] = {}
    parts = {one: place for place in net.modules() for one in place.children() if isinstance(one, Positions)}

    def see(module: nn.Module, _: object, made: Any) -> None:
        seen[module] = made

    hooks = [one.register_forward_hook(see) for one in parts]
    net(*inputs.values())
    for hook in hooks:
        hook.remove()
    for one, above in parts.items():
        for name, child in above.named_children():
            if child is one:
                setattr(above, name, _Places(seen[one]))


def _difference(path: Path, inputs: dict[str, Tensor], expected: tuple[Tensor, ...]) -> float:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    made = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    pairs = zip(made, expected, strict=True)
    return max(float((torch.from_numpy(one) - other).abs().max()) for one, other in pairs)
