"""The nodes of ComfyUI by its documented interface, called as ComfyUI calls them; it is not installed here.

A custom node is a folder under ``custom_nodes`` whose ``__init__.py`` has NODE_CLASS_MAPPINGS; a node has INPUT_TYPES,
RETURN_TYPES, FUNCTION and CATEGORY; IMAGE is float32 ``[B, H, W, C]`` in [0, 1], LATENT ``{"samples": [B, C, h, w]}``.
"""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from handed import close, handed_run, pictures
from unilat.interop.export import export
from unilat.maths.noise import alpha, sigma
from unilat.run.rate import generators, noise_of
from unilat.run.trained import Run
from unilat.signals.kind import to_unit


def _loaded(folder: Path) -> ModuleType:
    """The module as ComfyUI loads it: by its file, under the name of its path."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Graph:
    """What ComfyUI does with nodes: it checks what is wired, and calls the function that a node names."""

    def __init__(self, module: ModuleType):
        nodes = module.NODE_CLASS_MAPPINGS
        self.nodes = {name.split(" ")[0].removeprefix("Unilat"): node for name, node in nodes.items()}
        assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)

    def call(self, name: str, **given: Any) -> tuple[Any, ...]:
        node = self.nodes[name]
        asked = node.INPUT_TYPES()["required"]
        assert set(inspect.signature(getattr(node, node.FUNCTION)).parameters) >= {"self", *asked}
        values = {}
        for key, (kind, *options) in asked.items():
            chosen = given.pop(key, options[0]["default"] if options else None)
            if isinstance(kind, list):
                chosen = kind[0] if chosen is None else chosen
                assert chosen in kind
            elif kind in ("INT", "FLOAT"):
                assert isinstance(chosen, int if kind == "INT" else float)
                assert options[0]["min"] <= chosen <= options[0]["max"]
            values[key] = chosen
        assert not given and isinstance(node.CATEGORY, str)
        made = getattr(node(), node.FUNCTION)(**values)
        assert isinstance(made, tuple) and len(made) == len(node.RETURN_TYPES)
        for kind, one in zip(node.RETURN_TYPES, made, strict=True):
            if kind == "IMAGE":
                assert one.dtype == torch.float32 and one.shape[-1] == 3 and one.min() >= 0 and one.max() <= 1
            if kind == "LATENT":
                assert set(one) == {"samples"} and one["samples"].dtype == torch.float32
        return made


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return handed_run("plain", tmp_path / "run", monkeypatch)


@torch.no_grad()
def test_the_nodes_make_the_runs_pictures(run: Run, tmp_path: Path):
    """Load, sample, decode, and there and back; ComfyUI's own nodes for a VAE get one. Kills: channels first in an
    IMAGE, a range of [-1, 1], a class or a seed that is not heard, latents without their noise, weights that were not
    loaded, a need of diffusers."""
    folder = export(run, "comfyui", tmp_path / "custom_nodes" / "my-run.v1").out
    module = _loaded(folder)
    assert "diffusers" not in (folder / "__init__.py").read_text(encoding="utf-8").split('"""', 2)[2]
    graph = Graph(module)
    assert set(graph.nodes) == {"Load", "Sample", "Decode", "Encode"}
    model, vae = graph.call("Load")
    (latent,) = graph.call("Sample", model=model, count=3, seed=7, label="blue", steps=4, guidance=2.0)
    own = run.sample_latents(3, "blue", guidance=2.0, steps=4, seed=7)
    assert close(latent["samples"], own.z)
    (image,) = graph.call("Decode", model=model, samples=latent, seed=7, steps=5)
    bytes_ = (image.movedim(-1, 1) * 255).round().to(torch.uint8)
    assert int((bytes_.int() - run.decode(own, steps=5, seed=7).images.int()).abs().max()) <= 1
    (turns,) = graph.call("Sample", model=model, count=4, seed=7)
    assert close(turns["samples"], run.sample_latents(4, seed=7).z)
    x = to_unit(pictures().images[:2])
    (encoded,) = graph.call("Encode", model=model, pixels=(x / 2 + 0.5).movedim(1, -1), seed=3)
    level = torch.tensor(run.config.autoencoder.lambda_0)
    eps = noise_of(generators(3, "encode", 0, 2), run.latent_shape)
    mean = alpha(level) * run.autoencoder.encode(x)
    assert close(encoded["samples"], mean + sigma(level) * eps)
    assert close(vae.encode((x / 2 + 0.5).movedim(1, -1)), mean)
    assert close(vae.decode(latent["samples"]), graph.call("Decode", model=model, samples=latent, seed=0)[0])


@torch.no_grad()
def test_pictures_that_do_not_divide_lose_their_border(run: Run, tmp_path: Path):
    """19 × 18 pixels of 4 × 4 a latent: 16 × 16 from the second row and column on. Kills: a corner in the place of the
    middle, an error of a convolution."""
    model, _ = Graph(_loaded(export(run, "comfyui", tmp_path / "one").out)).call("Load")
    pixels = torch.rand(1, 19, 18, 3)
    assert close(model.encode(pixels), model.encode(pixels[:, 1:17, 1:17]))


@torch.no_grad()
def test_two_exports_stand_side_by_side(run: Run, tmp_path: Path):
    """Kills: node names and types of one export that take those of another; nodes that a run cannot have."""
    one = _loaded(export(run, "comfyui", tmp_path / "one").out)
    object.__setattr__(run, "base", None)
    two = _loaded(export(run, "comfyui", tmp_path / "two").out)
    assert not set(one.NODE_CLASS_MAPPINGS) & set(two.NODE_CLASS_MAPPINGS)
    assert set(Graph(two).nodes) == {"Load", "Decode", "Encode"}
    types = [set(Graph(module).nodes["Decode"].INPUT_TYPES()["required"]["model"]) for module in (one, two)]
    assert not types[0] & types[1]


@torch.no_grad()
def test_grey_pictures_go_in_and_out_as_colour(tiny_run: Path, tmp_path: Path):
    """Kills: one channel where ComfyUI wants three, a mean of the colours that is not their luminance."""
    import unilat

    run = unilat.load(tiny_run)
    model, _ = Graph(_loaded(export(run, "comfyui", tmp_path / "grey").out)).call("Load")
    pixels = torch.zeros(1, 16, 16, 3)
    pixels[..., 1] = 1.0
    grey = torch.full((1, 16, 16, 1), 0.587)
    assert close(model.encode(pixels), model.encode(grey))
    assert close(model.encode(grey), model.encode(grey.expand(-1, -1, -1, 3)))
    image = model.decode(torch.zeros(2, *run.latent_shape))
    assert image.shape == (2, 16, 16, 3) and torch.equal(image[..., 0], image[..., 2])


def test_it_computes_where_comfyui_does(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: a CPU beside a GPU that ComfyUI has chosen."""
    management = ModuleType("comfy.model_management")
    management.get_torch_device = lambda: torch.device("meta")  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "comfy", ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    module = _loaded(export(run, "comfyui", tmp_path / "there").out)
    assert module.Model().device.type == "meta"
