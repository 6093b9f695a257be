"""The graphs of an export to onnx, run by onnxruntime beside torch."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handed import close, handed_run
from unilat.files import read_json
from unilat.interop import to_onnx
from unilat.interop.export import export
from unilat.maths.noise import alpha, sigma
from unilat.maths.samplers import ddim, uniform_grid
from unilat.models.few_steps import FewSteps
from unilat.nets.condition import Condition
from unilat.nets.decoder import hear

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def _ran(path: Path, **given: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    made = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    return [torch.from_numpy(np.asarray(one)) for one in made]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("noise told", "vit", "gaussian prior")]


@pytest.mark.parametrize("name", ["plain", "kl-vae", "class gaussian", "kept", *SLOW])
@torch.no_grad()
def test_the_graphs_are_the_networks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On three rows, traced with two. Kills: a batch that is fixed, places of another grid, a decoder at another level,
    a temperature left out, a null class that is class 0, a deviation without λ₀'s noise."""
    run = handed_run(name, tmp_path / "run", monkeypatch)
    found = export(run, "onnx", tmp_path / "out")
    assert found.difference is not None and found.difference < 1e-4 and found.notes == ()
    x, (noise, z) = torch.rand(3, 3, 16, 16), (torch.randn(3, 3, 16, 16), torch.randn(3, *run.latent_shape))
    ae, how, level = run.config.autoencoder, run.config.evaluation, torch.tensor(run.config.autoencoder.lambda_0)
    mean, std = _ran(tmp_path / "out" / "encoder.onnx", x=x)
    posterior = run.autoencoder.posterior(x)
    spread = 0 if posterior.log_variance is None else alpha(level).square() * posterior.log_variance.exp()
    assert close(mean, alpha(level) * posterior.mean, 1e-4)
    assert close(std, (spread + sigma(level).square()).sqrt().expand_as(std), 1e-4)
    heard = {} if ae.decoder_loss == "mse" else {"noise": noise}
    (made,) = _ran(tmp_path / "out" / "decoder.onnx", z_0=z, **heard)
    assert close(made, run.autoencoder.decode(z, how.decoder_temperature * noise, 1, how.decoder_range), 1e-4)
    assert run.base is not None
    label, logsnr = torch.tensor([1, -1, 2]), torch.tensor([-2.0, 1.0, 3.0])
    given: dict[str, Any] = {"z_t": z, "logsnr": logsnr}
    (z_hat,) = _ran(tmp_path / "out" / "base.onnx", **(given | ({"label": label} if run.base.classes else {})))
    cond = Condition(label.clamp_min(0)).drop(label < 0) if run.base.classes else None
    assert close(z_hat, run.base.denoise(z, logsnr, cond), 1e-4)
    told = read_json(tmp_path / "out" / "config.json")
    said = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert ("noise = np" in said) == ('"noise": noise' in said) == (ae.decoder_loss != "mse")
    (block,) = re.findall(r"^```py\n(.*?)^```", said, flags=re.M | re.S)
    names: dict[str, Any] = {}
    exec(compile(block.replace("FOLDER", str(tmp_path / "out")), "card", "exec"), names)
    assert names["made"].shape == (2, 3, 16, 16)
    assert told["picture"] == [3, 16, 16] and told["latent"] == list(run.latent_shape) and told["decoder_calls"] == 1
    assert told["classes"] == (run.classes if run.base.classes else [])


@torch.no_grad()
def test_a_distilled_decoder_of_a_kept_encoder_hears_its_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: a student that reads z_0 at another scale than its teacher, and a run that is changed by its export."""
    run = handed_run("kept", tmp_path / "run", monkeypatch)
    grid = torch.tensor([-5.0, torch.inf], dtype=torch.float64)
    run.few_decoder, before = FewSteps(copy.deepcopy(run.autoencoder.decoder), grid, 0.7), run.autoencoder.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    export(run, "onnx", tmp_path / "out")
    z, noise = torch.randn(3, *run.latent_shape), torch.randn(3, 3, 16, 16)
    (made,) = _ran(tmp_path / "out" / "decoder.onnx", z_0=z, noise=noise)
    assert close(made, run.few_decoder.sample(noise, run.autoencoder.condition(z)), 1e-4)
    after = run.autoencoder.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def test_a_distilled_decoder_is_unrolled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: the teacher in the student's place, one call of two, the run's temperature."""
    run = handed_run("plain", tmp_path / "run", monkeypatch)
    grid = torch.tensor([-5.0, -1.0, torch.inf], dtype=torch.float64)
    for parameter in run.autoencoder.decoder.parameters():
        parameter.data += 0.02
    run.few_decoder, run.base = FewSteps(run.autoencoder.decoder, grid, 0.7), None
    found = export(run, "onnx", tmp_path / "out")
    assert "base.onnx" not in found.files and "in 2 calls" in (tmp_path / "out" / "README.md").read_text("utf-8")
    z, noise = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 16, 16)
    (made,) = _ran(tmp_path / "out" / "decoder.onnx", z_0=z, noise=noise)
    heard = hear(run.autoencoder.decoder, z)
    assert close(made, ddim(run.autoencoder.decoder, 0.7 * noise, grid, generator=(), cond=heard), 1e-4)
    assert read_json(tmp_path / "out" / "config.json")["decoder_calls"] == 2


def test_a_difference_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Outputs that are 0.25 apart are told as 0.25. Kills: a mean difference, one of the first output alone, of torch
    from itself; graphs that were not looked at told as equal."""
    run = handed_run("plain", tmp_path / "run", monkeypatch)
    encoder = to_onnx._Encoder(run.autoencoder.encoder, 4.0)
    x = torch.rand(2, 3, 16, 16)
    to_onnx._graph(tmp_path / "e.onnx", encoder, {"x": x}, ["mean", "std"])
    with torch.no_grad():
        mean, std = encoder(x)
    std[1, 2, 3, 1] += 0.25
    assert to_onnx._difference(tmp_path / "e.onnx", {"x": x}, (mean, std)) == pytest.approx(0.25, abs=1e-5)
    real = to_onnx.find_spec
    monkeypatch.setattr(to_onnx, "find_spec", lambda name: None if name == "onnxruntime" else real(name))
    found = export(run, "onnx", tmp_path / "out")
    assert found.difference is None and "onnxruntime is not installed" in found.notes[0]
    assert uniform_grid(-5.0, 2.0, 1, to_clean=True).tolist() == [-5.0, float("inf")]
