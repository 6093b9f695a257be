"""An export in a process where unilat, einops and jaxtyping cannot be imported, and in an environment without them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import unilat
from handed import close
from unilat.interop.export import export
from unilat.signals.kind import to_unit

ROOT = Path(__file__).parents[2]
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("unilat", "einops", "jaxtyping"):
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Blocker())
"""
THERE = """
import sys, torch, numpy as np
from diffusers import AutoModel, DiffusionPipeline
from safetensors.torch import load_file, save_file
folder, given, out = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
found = {"pictures": pipe(num_images=5, seed=3, output_type="pt").images}
found["bytes"] = torch.stack([torch.from_numpy(np.array(one)) for one in pipe(num_images=5, seed=3).images])
asked = {"class_labels": "standing", "num_images": 2, "guidance_scale": 3.0, "num_inference_steps": 3}
found["asked"] = pipe(**asked, decoder_steps=1, seed=4, output_type="pt").images
found["latent"] = pipe(**asked, seed=4, output_type="latent", return_dict=False)[0]
two = [pipe(num_images=3, generator=torch.Generator().manual_seed(9), output_type="pt").images for _ in range(2)]
found["generator"], found["again"] = two
rows = pipe(num_images=2, generator=[torch.Generator().manual_seed(s) for s in (1, 2)], output_type="pt").images
alone = pipe(class_labels=[1], generator=torch.Generator().manual_seed(2), output_type="pt").images
found["rows"] = torch.stack([rows[1:], alone])
vae = AutoModel.from_pretrained(folder + "/vae", trust_remote_code=True)
x = load_file(given)["x"]
with torch.no_grad():
    found["mode"] = vae.encode(x).latent_dist.mode()
    found["decoded"] = vae.decode(found["mode"]).sample
    found["forward"] = vae(x).sample
import re
card = open(folder + "/README.md", encoding="utf-8").read()
for block in re.findall(r"^```py\\n(.*?)^```", card, flags=re.M | re.S):
    names = {}
    exec(block.replace("FOLDER", folder), names)
assert names["x"].shape[1:] == found["decoded"].shape[1:]  # the last block's, of the autoencoder alone
pipe.save_pretrained(out + "-again")
assert not {"unilat", "einops", "jaxtyping"} & sys.modules.keys()
save_file({name: tensor.contiguous() for name, tensor in found.items()}, out)
"""


def _there(python: str, code: str, folder: Path, work: Path, x: Tensor) -> dict[str, Tensor]:
    """What ``THERE`` finds out in another process, started with ``code`` in front of it."""
    from safetensors.torch import save_file

    save_file({"x": x}, work / "given.safetensors")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(work / "hf"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = [python, "-P", "-c", code + THERE, folder, work / "given.safetensors", work / "found.safetensors"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=280, env=environment, cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(work / "found.safetensors")


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Any:
    return unilat.load(tiny_run, "cpu")


@pytest.fixture(scope="module")
def folder(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, "diffusers", tmp_path_factory.mktemp("exports") / "tiny").out


@pytest.fixture(scope="module")
def x(run: Any) -> Tensor:
    return to_unit(run.read(run.config.data.source).images[:4])


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory, x: Tensor) -> dict[str, Tensor]:
    return _there(sys.executable, BLOCKER, folder, tmp_path_factory.mktemp("there"), x)


SAME = {"bytes, but for rounding": True, "pictures": True, "latents": True}


def _same(found: dict[str, Tensor], run: Any, x: Tensor) -> dict[str, bool]:
    """Which of what that process made is the run's."""
    made = run.sample(5, seed=3)
    mode = torch.sigmoid(torch.tensor(run.config.autoencoder.lambda_0)).sqrt() * run.autoencoder.encode(x)
    return {
        "bytes, but for rounding": int((found["bytes"].int() - made.images[:, 0].int()).abs().max()) <= 1,
        "pictures": close(found["pictures"], _pictures(run, run.sample_latents(5, seed=3).z, 3), 1e-3),
        "latents": close(found["mode"], mode, 1e-5),
    }


@torch.no_grad()
def _pictures(run: Any, z_0: Tensor, seed: int, steps: int | None = None) -> Tensor:
    """Of latents, in [0, 1], before they are rounded to bytes."""
    from unilat.run.rate import generators, noise_of

    how = run.config.evaluation
    x_1 = how.decoder_temperature * noise_of(generators(seed, "decode", 0, len(z_0)), run.kind.shape)
    made = run.autoencoder.decode(z_0, x_1, steps or run.decoder_steps, how.decoder_range)
    return (made / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def test_the_same_pictures_without_us(found: dict[str, Tensor], run: Any, x: Tensor):
    """``DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)`` where unilat cannot be imported makes the
    pictures of the same seed, to 1e-3. Kills: code that reaches for us, weights that were left out, another sampler,
    guidance, temperature or rounding."""
    assert _same(found, run, x) == SAME


def test_what_the_pipeline_is_asked_is_heard(found: dict[str, Tensor], run: Any):
    """Class, guidance and both numbers of calls against the run's own; generators that give the same twice, and picture
    i its own. Kills: an argument that ends in the pipeline."""
    z_0 = run.sample_latents(2, "standing", guidance=3.0, steps=3, seed=4).z
    assert close(found["latent"], z_0, 1e-5) and close(found["asked"], _pictures(run, z_0, 4, 1), 1e-3)
    assert torch.equal(found["generator"], found["again"]) and not torch.equal(found["generator"][:2], found["asked"])
    assert close(found["rows"][0], found["rows"][1], 1e-5)


@torch.no_grad()
def test_the_autoencoder_loads_alone(found: dict[str, Tensor], run: Any):
    """``AutoModel.from_pretrained(DIR/vae)``. Kills: one that needs its pipeline, a ``forward`` that draws."""
    assert torch.equal(found["forward"], found["decoded"])
    assert close(found["decoded"] / 2 + 0.5, _unclamped(run, found["mode"]), 1e-3)


@torch.no_grad()
def _unclamped(run: Any, z_0: Tensor) -> Tensor:
    from unilat.run.rate import generators, noise_of

    how = run.config.evaluation
    x_1 = how.decoder_temperature * noise_of(generators(0, "decode", 0, len(z_0)), run.kind.shape)
    return run.autoencoder.decode(z_0, x_1, run.decoder_steps, how.decoder_range) / 2 + 0.5


def test_nothing_runs_unless_it_is_trusted(folder: Path, tmp_path: Path):
    """Without ``trust_remote_code`` diffusers refuses. Kills: an export that is run without being asked."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == ["pipeline", "UnilatPipeline"]
    assert index["vae"][0] == "modeling_unilat_vae" and (folder / "vae" / "modeling_unilat_vae.py").is_file()
    assert index["base"][0] == "modeling_unilat_base" and (folder / "base" / "modeling_unilat_base.py").is_file()
    text = (folder / "pipeline.py").read_text(encoding="utf-8")
    assert text.count("(DiffusionPipeline)") == 1  # diffusers wants exactly one
    from diffusers import DiffusionPipeline

    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@torch.no_grad()
def test_an_environment_with_torch_and_diffusers_alone(folder: Path, run: Any, x: Tensor, tmp_path: Path):
    """A new virtual environment that holds what pip brings with torch and diffusers, and no more. Kills: a package of
    ours that stands in this one by chance."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True, timeout=600)
    python = tmp_path / "bare" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", "torch", "diffusers"]
    subprocess.run(install, check=True, timeout=1200)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "diffusers" in listed and "einops" not in listed and "unilat" not in listed
    assert _same(_there(str(python), "", folder, tmp_path, x), run, x) == SAME
