"""What is written for diffusers and how its classes compute: every kind of run, against the run itself.

``test_without_us.py`` loads it where unilat is not installed; here its classes are those that are copied there.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from handed import CONFIGS, close, handed_run, pictures
from unilat.files import read_json
from unilat.interop import to_diffusers
from unilat.interop.space import space_of
from unilat.maths.noise import alpha, sigma
from unilat.models.few_steps import FewSteps
from unilat.run.rate import generators, noise_of
from unilat.run.trained import Run
from unilat.signals.kind import to_unit
from unilat.types import UserError


def _opened(folder: Path) -> tuple[Any, Any]:
    """The autoencoder and the base model of an export, by the classes that are published."""
    from unilat.interop.published.base import UnilatBase
    from unilat.interop.published.vae import UnilatAutoencoder

    return UnilatAutoencoder.from_pretrained(folder / "vae"), UnilatBase.from_pretrained(folder / "base")


def _handed(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Any, Any]:
    run = handed_run(name, place / "run", monkeypatch)
    (place / "out").mkdir()
    to_diffusers.write(run, space_of(run), place / "out")
    return run, *_opened(place / "out")


def _float(run: Run, z_0: Tensor, x_1: Tensor) -> Tensor:
    how = run.config.evaluation
    return run.autoencoder.decode(z_0, how.decoder_temperature * x_1, run.decoder_steps, how.decoder_range)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_every_kind_of_run_computes_as_it_did(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Latents, pictures and samples of the export are the run's to 1e-5, with the noise of its seeds. Kills: a field of
    the configuration that is lost, another grid of calls, a temperature or a guidance that is left out, the noise told
    to the decoder left out, another network around the base model's, a posterior without λ₀'s noise, a scale beside the
    encoder that is forgotten on either side of z_0."""
    run, vae, base = _handed(name, tmp_path, monkeypatch)
    x = to_unit(pictures().images[:6])
    ae, level = run.config.autoencoder, torch.tensor(run.config.autoencoder.lambda_0)
    posterior, told = run.autoencoder.posterior(x), vae.encode(x).latent_dist
    assert close(told.mode(), alpha(level) * posterior.mean)
    spread = 0 if posterior.log_variance is None else alpha(level).square() * posterior.log_variance.exp()
    assert close(told.std, (spread + sigma(level).square()).sqrt().expand_as(told.std))
    z_0 = told.sample(torch.Generator().manual_seed(1))
    x_1 = noise_of(generators(0, "decode", 0, len(x)), x.shape[1:])
    assert close(vae.decode(z_0).sample, _float(run, z_0, x_1))
    assert vae.config.latent_channels == ae.latent_channels and vae.config.scaling_factor > 0
    labels = None if not run.base or not run.base.classes else [2, 0, 1]
    drawn = run.sample_latents(3, labels, seed=7)
    z_1 = noise_of(generators(7, "sample", 0, 3), run.latent_shape)
    assert close(base.draw(z_1, base.numbers(labels, 3)), drawn.z)


@torch.no_grad()
def test_a_distilled_run_brings_its_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: the teacher's weights, grid, temperature or guidance in an export of its students; calls that a student
    was not made for."""
    run = handed_run("plain", tmp_path / "run", monkeypatch)
    assert run.base is not None
    grids = torch.tensor([-5.0, -1.0, torch.inf], dtype=torch.float64), torch.tensor([-9.0, 0.0, 4.0]).double()
    nets = (run.autoencoder.decoder, run.base.denoise)
    few = [FewSteps(_moved(net), grid, 0.7, 3.0) for net, grid in zip(nets, grids, strict=True)]
    run.few_decoder, run.few_base = few
    (tmp_path / "out").mkdir()
    to_diffusers.write(run, space_of(run), tmp_path / "out")
    vae, base = _opened(tmp_path / "out")
    z_0, x_1 = torch.randn(2, 3, 4, 4), noise_of(generators(0, "decode", 0, 2), (3, 16, 16))
    assert close(vae.decode(z_0).sample, few[0].sample(x_1, z_0))
    z_1, labels = torch.randn(2, 3, 4, 4), torch.tensor([1, -1])
    assert close(base.draw(z_1, labels), few[1].sample(z_1, run.base.condition(labels)))
    assert base.config.guidance_scale == 3.0 and vae.config.num_inference_steps == 2
    with pytest.raises(ValueError, match="in 2 call"):
        vae.decode(z_0, num_inference_steps=3)
    with pytest.raises(ValueError, match="leave both out"):
        base.draw(z_1, labels, guidance_scale=2.0)


def _moved(net: torch.nn.Module) -> torch.nn.Module:
    import copy

    made = copy.deepcopy(net)
    for parameter in made.parameters():
        parameter.data += 0.05
    return made


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Any, Any]:
    return _handed("plain", tmp_path, monkeypatch)


@torch.no_grad()
def test_steps_guidance_and_generators_are_heard(plain: tuple[Run, Any, Any]):
    """Kills: a number of calls, a scale or a generator that changes nothing; one generator's noise that is the seed's
    own; a class by name that is another."""
    run, vae, base = plain
    z_0, how = torch.randn(3, 3, 4, 4), run.config.evaluation
    own = noise_of(generators(0, "decode", 0, 3), (3, 16, 16))
    seven = run.autoencoder.decode(z_0, how.decoder_temperature * own, 7, how.decoder_range)
    assert close(vae.decode(z_0, num_inference_steps=7).sample, seven)
    given = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    assert close(vae.decode(z_0, torch.Generator().manual_seed(5)).sample, _float(run, z_0, given))
    made = vae.decode(z_0, return_dict=False)
    assert isinstance(made, tuple) and close(made[0], vae.decode(z_0).sample)
    z_1, labels = torch.randn(2, 3, 4, 4), torch.tensor([0, 2])
    assert run.base is not None and base.numbers(["red", "blue"], None).tolist() == [0, 2]
    assert close(base.draw(z_1, labels, guidance_scale=1.0, num_inference_steps=3), run.base.sample(z_1, labels, 3))
    assert close(base(z_1, torch.tensor([1.0, 2.0])).sample, run.base.denoise(z_1, torch.tensor([1.0, 2.0]), _null(2)))


def _null(count: int) -> Any:
    from unilat.nets.condition import Condition

    return Condition(torch.zeros(count, dtype=torch.int64)).null()


def test_classes_that_are_none_are_told(plain: tuple[Run, Any, Any]):
    """Kills: class -5 taken from the end, 3 of three, a wrong number of labels, a name that is near."""
    _, _, base = plain
    for wrong in ("Red", 3, -2, True, 1.0):
        with pytest.raises(ValueError, match="choose one of red, green, blue or 0 to 2"):
            base.numbers(wrong, 1)
    with pytest.raises(ValueError, match="2 class_labels for 3"):
        base.numbers([0, 1], 3)
    assert base.numbers(None, 5).tolist() == [0, 1, 2, 0, 1] and base.numbers("blue", 2).tolist() == [2, 2]
    assert base.numbers(torch.tensor([1, -1]), None).tolist() == [1, -1] and base.numbers(None, None).tolist() == [0]
    for asked in ({"num_inference_steps": 0}, {"num_inference_steps": -1}):
        with pytest.raises(ValueError, match="1 or more"):
            base.draw(torch.randn(1, 3, 4, 4), torch.tensor([0]), **asked)


@torch.no_grad()
def test_low_precision_is_computed_in_full(plain: tuple[Run, Any, Any]):
    """``vae.to(float16)``, as training scripts do it: types in and out are its own. Kills: mixed types inside."""
    _, vae, base = plain
    x = to_unit(pictures().images[:2])
    z, made = vae.encode(x).latent_dist.mode(), vae.decode(torch.ones(2, 3, 4, 4)).sample
    for dtype in (torch.float16, torch.bfloat16):
        vae.to(dtype)
        low, within = vae.encode(x.to(dtype)).latent_dist.mode(), 0.05
        assert low.dtype == dtype and close(low.float(), z, within)
        again = vae.decode(torch.ones(2, 3, 4, 4, dtype=dtype)).sample
        assert again.dtype == dtype and close(again.float(), made, within)
        assert base.to(dtype)(torch.ones(1, 3, 4, 4, dtype=dtype), torch.ones(1)).sample.dtype == dtype
        vae.float(), base.float()


@pytest.mark.parametrize(
    ("factor", "channels", "widths"),
    [((4, 4), (16, 20), [16, 16, 20]), ((2, 2), (8, 12, 16), [12, 16]), ((8, 8), (7,), [7, 7, 7, 7])],
)
def test_widths_tell_the_downsampling(factor: Any, channels: Any, widths: list[int]):
    """``2 ** (len - 1)`` is what diffusers makes of them. Kills: one width too many, a coarse one in front."""
    assert to_diffusers.block_out_channels(factor, channels) == widths and 2 ** (len(widths) - 1) == factor[0]


@pytest.mark.parametrize("factor", [(4, 2), (3, 3), (6, 6), (2, 2, 2)])
def test_other_downsamplings_are_refused(factor: Any):
    """Kills: a configuration by which stock code makes latents of a wrong shape."""
    with pytest.raises(UserError, match="these fold"):
        to_diffusers.block_out_channels(factor, (16, 16))


def test_no_text_of_the_users_gets_into_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Classes whose names are Python: code is the same to the byte, the names stand in JSON and come back. Kills: a
    name in a file that runs."""
    run = handed_run("plain", tmp_path / "run", monkeypatch)
    evil = ('"""\nimport os; os.system("x")  # ', "{}'\"\\", "b\u2028")
    object.__setattr__(run.data, "classes", evil)
    (tmp_path / "out").mkdir()
    to_diffusers.write(run, space_of(run), tmp_path / "out")
    for path, entry in (("vae/modeling_unilat_vae.py", "vae"), ("pipeline.py", "pipeline")):
        text = (tmp_path / "out" / path).read_text(encoding="utf-8")
        assert text == to_diffusers.bundle(f"interop/published/{entry}.py", to_diffusers.NEEDS)
    assert tuple(read_json(tmp_path / "out" / "base" / "config.json")["classes"]) == evil
    kinds = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert kinds == {".py", ".json", ".safetensors"}


def test_numbers_that_json_does_not_know_are_no_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: an infinite log-SNR that becomes null, and something else where it is read."""
    run = handed_run("plain", tmp_path / "run", monkeypatch)
    (tmp_path / "out").mkdir()
    space = space_of(run)
    object.__setattr__(space, "scaling_factor", float("inf"))
    with pytest.raises(ValueError):
        to_diffusers.write(run, space, tmp_path / "out")


def test_their_training_of_a_dit_takes_our_latents(plain: tuple[Run, Any, Any]):
    """One step as their script for DiT takes it, with the frozen autoencoder and its scaling_factor: latents of unit
    variance, a loss that falls on the same batch, no gradient in the autoencoder. Kills: a scale of another space,
    latents that carry gradients."""
    from diffusers import DDPMScheduler, DiTTransformer2DModel

    _, vae, _ = plain
    vae.requires_grad_(False)
    torch.manual_seed(0)
    x, labels = to_unit(pictures().images), pictures().labels
    latents = (vae.encode(x).latent_dist.sample() - vae.config.shift_factor) * vae.config.scaling_factor
    assert not latents.requires_grad and float(latents.std()) == pytest.approx(1, abs=0.1)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": latents.shape[-1]}
    channels = {"in_channels": vae.config.latent_channels, "out_channels": vae.config.latent_channels}
    model = DiTTransformer2DModel(**sizes, **channels, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=1)
    scheduler, optimizer = DDPMScheduler(), torch.optim.AdamW(model.parameters(), lr=3e-3)
    noise, steps = torch.randn_like(latents), torch.randint(0, 1000, (len(latents),))
    noisy, losses = scheduler.add_noise(latents, noise, steps), []
    model.eval()
    for _ in range(3):
        loss = torch.nn.functional.mse_loss(model(noisy, steps, labels).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0] and all(parameter.grad is None for parameter in vae.parameters())


@torch.no_grad()
def test_their_pipelines_decode_what_they_scaled(plain: tuple[Run, Any, Any]):
    """``vae.decode(latents / vae.config.scaling_factor)``, Stable Diffusion's line, those with shift and with means,
    and the whole DiTPipeline with ours as its autoencoder. Kills: factors that are of other latents."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    _, vae, _ = plain
    z = vae.encode(to_unit(pictures().images[:4])).latent_dist.sample()
    made, config = vae.decode(z).sample, vae.config
    mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (config.latents_mean, config.latents_std))
    for latents in (
        z * config.scaling_factor / config.scaling_factor,
        (z - config.shift_factor) * config.scaling_factor / config.scaling_factor + config.shift_factor,
        (z - mean) * config.scaling_factor / std * std / config.scaling_factor + mean,
    ):
        assert close(vae.decode(latents).sample, made, 1e-3)
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 4, "norm_num_groups": 1}
    net = DiTTransformer2DModel(**sizes, in_channels=3, out_channels=3, patch_size=2, num_embeds_ada_norm=1000)
    pipe = DiTPipeline(transformer=net, vae=vae, scheduler=DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    images = pipe([1, 2], num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 16, 16, 3)


def test_the_configuration_tells_the_space(plain: tuple[Run, Any, Any]):
    """Kills: another number under each name that other code reads."""
    run, vae, _ = plain
    space = space_of(run)
    config = json.loads(vae.to_json_string())
    for name in ("latents_mean", "latents_std"):
        assert config[name] == list(getattr(space, name))
    assert (config["scaling_factor"], config["shift_factor"]) == (space.scaling_factor, space.shift_factor)
    assert config["block_out_channels"] == [16, 16, 16] and config["spatial_compression_ratio"] == 4
    assert config["sample_size"] == 16 and config["force_upcast"] is True
