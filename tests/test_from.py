"""Runs that start from somebody's weights: what is kept, what learns, where the bits go, what is refused."""

import html
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import unilat
from started import SHORT, boxes, save
from unilat.files import read_safetensors
from unilat.interop.export import MARK
from unilat.nets.foreign import ForeignEncoder
from unilat.nets.pretrained import WEIGHTS
from unilat.recipe import presets
from unilat.report.text import start_line
from unilat.run import start
from unilat.run.begin import configured
from unilat.run.trained import Run, read_config
from unilat.types import UserError

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxes(tmp_path_factory.mktemp("data") / "boxes.npz")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "vae")


Maker = Callable[..., Run]


@pytest.fixture(scope="module")
def made(data: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Runs by what is said of them, each trained once."""
    folder, known = tmp_path_factory.mktemp("runs"), dict[str, Run]()

    def make(name: str, **said: Any) -> Run:
        if name not in known:
            given = {"preset": "tiny", "target_bpp": 0.5, "start": vae, **SHORT} | said
            known[name] = unilat.train(data, out=folder / name, **given)
        return known[name]

    return make


def own(vae: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """Diffusers' own latents of uint8 pictures, and its pictures of these latents."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(vae)
    with torch.no_grad():
        z = model.encode(images.float() / 127.5 - 1).latent_dist.mean
        return z, model.decode(z).sample


def images_of(data: Path) -> Tensor:
    return torch.from_numpy(np.load(data)["images"]).permute(0, 3, 1, 2)


def weights(vae: Path, run: Run, half: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The folder's weights of one half and the run's, by the folder's names."""
    there = load_file(vae / WEIGHTS) if vae.is_dir() else {}
    here = {k.removeprefix("net."): v for k, v in getattr(run.autoencoder, half).state_dict().items() if "net." in k}
    return {name: there[name] for name in here}, here


def test_an_encoder_that_is_kept_is_theirs_to_the_last_bit(made: Maker, data: Path, vae: Path) -> None:
    """z = s (E − m) / d of diffusers' own mode E. Kills: weights that moved or were averaged with others, a posterior
    that is drawn from, a standard deviation or a mean of all channels, a scale that only one of z and prior has."""
    run, images = made("decoder"), images_of(data)
    theirs, ours = weights(vae, run, "encoder")
    assert ours and all(torch.equal(theirs[name], ours[name]) for name in ours)
    z, _ = own(vae, images)
    encoder = run.autoencoder.encoder
    assert encoder.scale is not None and float(encoder.scale) != 1.0
    found = run.latents(images)
    torch.testing.assert_close(found, encoder.scale * (z - encoder.mean) / encoder.std, rtol=1e-4, atol=1e-4)
    unit = found / encoder.scale
    assert float(unit.mean((0, 2, 3)).abs().max()) < 0.2
    assert unit.std((0, 2, 3)) == pytest.approx([1.0] * 3, rel=0.2)
    assert float(run.autoencoder.prior.std) == pytest.approx(float(encoder.scale), rel=1e-4)


def test_a_run_with_our_decoder_hands_over_latents_and_graphs(made: Maker, tmp_path: Path) -> None:
    """Kills: half of somebody else's networks written as if they were ours, a refusal of latents too."""
    run = made("decoder")
    for to in ("diffusers", "comfyui"):
        with pytest.raises(UserError, match=f"AutoencoderKL, which is not written `to` {to}: hand that folder over"):
            unilat.export(run, to, out=tmp_path / to)
        assert not (tmp_path / to).exists()
    assert (unilat.export(run, "latents", out=tmp_path / "latents").out / "README.md").is_file()


def test_a_tuned_model_is_handed_over_in_its_own_class(made: Maker, data: Path, vae: Path, tmp_path: Path) -> None:
    """Diffusers alone reads it, in the place of the model it was: encoder and configuration are that model's, and its
    decoder is the run's. Kills: the decoder as it was before, the run's scale in it, a half left at random, a base
    model's pipeline beside it, other words than its class's."""
    run, images = made("tuned", keep_decoder=True), images_of(data)[:6]
    found = unilat.export(run, "diffusers", out=tmp_path / "out")
    assert found.files == ("README.md", "vae/config.json", f"vae/{WEIGHTS}", MARK)
    before, after = (json.loads((one / "config.json").read_text()) for one in (vae, tmp_path / "out" / "vae"))
    assert {**before, "_name_or_path": 0} == {**after, "_name_or_path": 0}
    z, pictures = own(tmp_path / "out" / "vae", images)
    torch.testing.assert_close(z, own(vae, images)[0], rtol=0, atol=0)
    alpha = (1 + np.exp(-run.config.autoencoder.lambda_0)) ** -0.5
    clean = run.autoencoder.decode(alpha * run.latents(images), torch.zeros(6, 1, 16, 16), 1)
    torch.testing.assert_close(clean, pictures, rtol=1e-3, atol=1e-4)
    assert float((pictures - own(vae, images)[1]).abs().max()) > 1e-2
    text, start = (found.out / "README.md").read_text(), run.results.start
    assert 'AutoencoderKL.from_pretrained("FOLDER/vae")' in text and "trust_remote_code" not in text
    assert start is not None and f"with noise of {start.noise:.2%} of their standard deviation" in text
    with pytest.raises(UserError, match="not written `to` comfyui: `to` diffusers writes it again, as it was tuned"):
        unilat.export(run, "comfyui", out=tmp_path / "nodes")
    plain = unilat.export(made("none", tune="none", target_bpp=1.0), "diffusers", out=tmp_path / "plain")
    assert "takes that model's place" in plain.notes[0] and len(plain.notes) == 1


def test_its_own_decoder_makes_of_clean_latents_what_diffusers_makes(made: Maker, data: Path, vae: Path) -> None:
    """Kills: a decoder that hears scaled latents, one that is told of another mean, the noise's α left in."""
    run, images = made("none", tune="none", target_bpp=1.0), images_of(data)[:6]
    for half in ("encoder", "decoder"):
        theirs, ours = weights(vae, run, half)
        assert ours and all(torch.equal(theirs[name], ours[name]) for name in ours)
    _, pictures = own(vae, images)
    alpha = (1 + np.exp(-run.config.autoencoder.lambda_0)) ** -0.5
    clean = run.autoencoder.decode(alpha * run.latents(images), torch.zeros(6, 1, 16, 16), 1)
    torch.testing.assert_close(clean, pictures, rtol=1e-3, atol=1e-4)
    assert run.decoder_steps == 1 and run.config.autoencoder.decoder_loss == "mse"


def test_the_wanted_bits_are_held_by_the_scale(made: Maker) -> None:
    """Pictures set aside carry the wanted bits, more of them at a larger scale. Kills: a scale that nobody moves, or
    the wrong way; a loss factor that steers nothing."""
    few, more = made("decoder"), made("none", tune="none", target_bpp=1.0)
    for run, wanted in ((few, 0.5), (more, 1.0)):
        assert float(run.header["calibration_bpp"]) == pytest.approx(wanted, rel=0.02)
        rows = [json.loads(line) for line in run.files.log.read_text().splitlines()]
        assert {row["loss_factor"] for row in rows if row["stage"] == "stage1"} == {1.0}
    assert few.autoencoder.encoder.scale is not None and more.autoencoder.encoder.scale is not None
    assert more.autoencoder.encoder.scale > 1.3 * few.autoencoder.encoder.scale


def test_what_the_bits_cost_is_told(made: Maker, data: Path, vae: Path) -> None:
    """Noise σ₀ / (α₀ s) of a latent's deviation, and decibels below the own decoder without noise, on the pictures
    that the run is measured on. Kills: α or the scale left out, training pictures, a loss with its sign turned."""
    run = made("none", tune="none", target_bpp=1.0)
    told = run.results.start
    assert told is not None and told.clean is not None
    scale, lambda_0 = float(run.autoencoder.encoder.scale or 0), run.config.autoencoder.lambda_0
    assert told.noise == pytest.approx(np.exp(-lambda_0 / 2) / scale) and told.scale == pytest.approx(scale)
    images = images_of(data)
    shown = images[[int((images == one).flatten(1).all(1).nonzero()[0]) for one in run_pictures(run)]]
    _, pictures = own(vae, shown)
    errors = ((pictures.clamp(-1, 1) * 127.5 + 127.5).round() - shown.float()).square().mean((1, 2, 3))
    decibels = 10 * torch.log10(255**2 / errors)
    assert told.clean.value == pytest.approx(float(decibels.mean()), abs=0.02) and told.clean.n == len(shown) == 8
    reached = run.results.reconstruction.psnr
    for off, said in ((0.5, "cost 0.50 dB"), (-0.63, "gain 0.63 dB")):
        value = reached.value + off
        line = start_line(replace(told, clean=replace(told.clean, value=value)), reached)
        assert f"noise of {told.noise:.1%}" in line
        assert line.endswith(f"{said}: {value:.2f} dB by its own decoder without noise")
    line = start_line(told, reached)
    assert (told.tune, told.decoder) == ("none", "own") and str(vae) in told.what
    assert line[1:] in html.unescape(run.files.report.read_text())
    assert unilat.load(run.folder).results == run.results


def run_pictures(run: Run) -> Tensor:
    """The held-out pictures that a run was measured on."""
    from unilat.run.evaluate import chosen, held_out
    from unilat.signals.pictures import distinct

    images = held_out(run)[0]
    return images[chosen(distinct(images), run.config.evaluation.pictures)]


def test_all_may_be_tuned(made: Maker, vae: Path) -> None:
    """Kills: an encoder that is kept where it should learn; a loss factor that stands still where it can steer."""
    run = made("all", tune="all", stage1__samples=32)
    theirs, ours = weights(vae, run, "encoder")
    assert not any(torch.equal(theirs[n], ours[n]) for n in ours if n.endswith("conv.weight"))
    rows = [json.loads(line) for line in run.files.log.read_text().splitlines()]
    assert len({row["loss_factor"] for row in rows if row["stage"] == "stage1"}) > 1
    assert float(run.header["calibration_bpp"]) == pytest.approx(0.5, rel=0.02)
    assert run.results.start is not None and "encoder tuned" in start_line(run.results.start, run.results.bits.measured)


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderDC"])
@torch.no_grad()
def test_the_two_models_without_a_posterior(kind: str, data: Path, tmp_path: Path) -> None:
    """Kills: a reader of ``latent_dist``, a half that lacks what the other half had."""
    import diffusers

    folder, x = save(tmp_path / "model", kind), images_of(data)[:8].float() / 127.5 - 1
    config = configured(data, preset="tiny", start=folder, tune="none")
    model = unilat.run.train.build_autoencoder(config, 1).eval()
    start.fill(model, config, x)
    theirs = getattr(diffusers, kind).from_pretrained(folder)
    z = theirs.encode(x)[0]
    encoder = model.encoder
    assert isinstance(encoder, ForeignEncoder)
    torch.testing.assert_close(model.encode(x) * encoder.std + encoder.mean, z, rtol=1e-4, atol=1e-4)
    alpha = (1 + np.exp(-config.autoencoder.lambda_0)) ** -0.5
    made = model.decode(alpha * model.encode(x), torch.zeros_like(x), 1)
    torch.testing.assert_close(made, theirs.decode(z).sample, rtol=1e-3, atol=1e-3)


def test_the_folder_may_vanish_and_a_tuned_decoder_moves(data: Path, vae: Path, tmp_path: Path) -> None:
    """Before stage 1 has ended its checkpoint is enough, and after it the run alone. Kills: a run that needs the folder
    again, a second start from other weights than the first; a decoder that is kept where it should learn."""
    gone, out, seen = shutil.copytree(vae, tmp_path / "vae"), tmp_path / "run", list[str]()
    given = {"preset": "tiny", "target_bpp": 0.5, "out": out, "keep_decoder": True, **SHORT}

    def stop(record: Any) -> bool:
        return getattr(record, "step", 0) != 3

    with pytest.raises(unilat.Stopped):
        unilat.train(data, start=gone, on_step=stop, **given)
    shutil.rmtree(gone)
    run = unilat.train(read_config(out), out=out, on_step=lambda record: seen.append(str(record)))
    assert any("is gone: what this run took over lies in its checkpoints" in line for line in seen)
    theirs, ours = weights(vae, run, "encoder")
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    theirs, ours = weights(vae, run, "decoder")
    assert ours and not any(torch.equal(theirs[n], ours[n]) for n in ours if n.endswith("weight"))
    assert run.results.start is not None and (run.results.start.decoder, run.results.start.clean) == ("tuned", None)
    assert len(run.reconstruct(data)) == 80
    with pytest.raises(UserError, match="is not there, and nothing is fetched"):
        unilat.train(data, start=gone, **given)


def test_a_second_stage_and_another_start_rest_on_the_run(made: Maker, data: Path, tmp_path: Path) -> None:
    """By ``none`` a run's autoencoder is taken as it is and stage 2 is trained; by ``all`` and ``decoder`` its weights
    are where stage 1 begins. Kills: networks begun anew, a scale that is lost or counted twice on the way."""
    run, images = made("decoder"), images_of(data)
    short = {**SHORT, "stage2__samples": 32, "stage2__batch": 16}
    second = unilat.train(data, start=run.folder, tune="none", out=tmp_path / "second", evaluation__samples=4, **short)
    assert second.base is not None and second.encoder_sha256 == run.encoder_sha256
    config = start.started(configured(data), run.folder, "decoder")
    for tune in ("decoder", "all"):
        model = replace(config, autoencoder=replace(config.autoencoder, tune=tune))
        built = unilat.run.train.build_autoencoder(model, 1)
        assert start.fill(built, model, torch.zeros(1)) is None
        with torch.no_grad():
            torch.testing.assert_close(built.eval().encode(images.float() / 127.5 - 1), run.latents(images))


def test_a_run_of_ours_keeps_its_latents_whether_or_not_its_encoder_is_kept(
    tiny_run: Path, tiny_source: Path, tmp_path: Path
) -> None:
    """The scale moves between the encoder's weights and beside them, and encoder, prior and decoder all agree on it.

    Kills: a decoder that hears latents at another scale than before, a scale that is forgotten or counted twice.
    """
    short = {**SHORT, "evaluation__samples": 4}
    kept = unilat.train(tiny_source, start=tiny_run, tune="decoder", target_bpp=0.8, out=tmp_path / "kept", **short)
    first, tuned = unilat.load(tiny_run), kept.autoencoder.encoder
    before, after = first.autoencoder.encoder.state_dict(), tuned.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before) and set(after) - set(before) == {"scale"}
    assert float(kept.header["calibration_bpp"]) == pytest.approx(0.8, rel=0.02)
    freed = start.started(configured(tiny_source), kept.folder, "all")
    model = unilat.run.train.build_autoencoder(freed, 1).eval()
    start.fill(model, freed, torch.zeros(1))
    assert model.encoder.scale is None
    x = torch.linspace(-1, 1, 4 * 256).view(4, 1, 16, 16)
    with torch.no_grad():
        z = kept.autoencoder.encode(x)
        torch.testing.assert_close(model.encode(x), z, rtol=1e-4, atol=1e-5)
        noise, level = torch.randn_like(x), torch.tensor([-2.0, 0.0, 1.0, 4.0])
        heard = (
            model.decoder(noise, level, model.condition(z)),
            kept.autoencoder.decoder(noise, level, kept.autoencoder.condition(z)),
        )
        torch.testing.assert_close(*heard, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.prior(z, level, None), kept.autoencoder.prior(z, level, None))


def test_a_run_is_gone_on_with_at_other_bits(tiny_run: Path, tiny_source: Path, tmp_path: Path) -> None:
    """Kills: a start that is not the run's weights, and a longer schedule that needs the same bits."""
    config = configured(tiny_source, start=tiny_run, target_bpp=0.6, stage1__samples=512, stage2__samples=0)
    first = read_config(tiny_run)
    assert config.autoencoder == first.autoencoder and config.stage1.start == str(tiny_run)
    assert (config.stage1.samples, config.stage1.target_bpp, config.data.channels) == (512, 0.6, 1)
    model = unilat.run.train.build_autoencoder(config, 1)
    start.fill(model, config, torch.zeros(1))
    tensors, _ = read_safetensors(tiny_run / "autoencoder.safetensors")
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in tensors.items())


def test_what_follows_from_the_model_is_derived(vae: Path, data: Path) -> None:
    """Kills: channels, grid or tokens of the preset on the latents of another; a decoder that is not the one asked."""
    config = configured(data, preset="small", size=32, start=vae)
    ae = config.autoencoder
    assert (ae.latent_channels, ae.encoder.factor, config.data.channels) == (3, (2, 2), 1)
    before = presets.get("small", size=32)
    assert ae.prior.tokens((16, 16)) <= before.autoencoder.prior.tokens((8, 8)) and ae.prior.patch == 4
    assert ae.foreign is not None and (ae.tune, ae.foreign.decoder, ae.decoder_loss) == ("decoder", "ours", "diffusion")
    kept = configured(data, preset="small", size=32, start=vae, tune="none").autoencoder
    assert kept.foreign is not None and (kept.tune, kept.foreign.decoder, kept.decoder_loss) == ("none", "own", "mse")


def test_kept_networks_cost_no_training(vae: Path, data: Path) -> None:
    """A forward pass where training asks one, and none where not. Kills: three passes, FLOPs of Muon, a decoder that is
    not asked counted once."""
    plain = {"preset": "tiny", "start": vae}
    kept = unilat.describe(configured(data, **plain, tune="none")).parts
    tuned = unilat.describe(configured(data, **plain, tune="all", keep_decoder=True)).parts
    samples = configured(data, **plain).stage1.samples
    assert not kept["encoder"].trained and kept["encoder"].training_flops == samples * kept["encoder"].forward_flops
    assert not kept["decoder"].trained and kept["decoder"].training_flops == 0 and kept["decoder"].forward_flops > 0
    assert tuned["encoder"].trained and tuned["encoder"].training_flops >= 3 * samples * tuned["encoder"].forward_flops
    assert kept["prior"].trained and kept["prior"] == tuned["prior"]
    names = load_file(vae / WEIGHTS)
    assert kept["encoder"].parameters + kept["decoder"].parameters == sum(one.numel() for one in names.values())


@pytest.mark.parametrize("tune", ["decoder", "none"])
def test_the_graphs_of_a_started_run_are_its_networks(made: Maker, data: Path, tmp_path: Path, tune: str) -> None:
    """Kills: a scale that is left out, or applied by encoder or decoder twice; m and d of another channel."""
    onnxruntime = pytest.importorskip("onnxruntime")
    run = made(tune, tune=tune)
    assert unilat.export(run, "onnx", out=tmp_path / "out").difference is not None
    x, noise = images_of(data)[:3].float() / 127.5 - 1, torch.randn(3, 1, 16, 16)

    def ran(name: str, **given: Tensor) -> list[Tensor]:
        session = onnxruntime.InferenceSession(tmp_path / "out" / name, providers=["CPUExecutionProvider"])
        return [torch.from_numpy(one) for one in session.run(None, {key: one.numpy() for key, one in given.items()})]

    mean, _ = ran("encoder.onnx", x=x)
    with torch.no_grad():
        z_0 = run.autoencoder.corrupt(run.autoencoder.encode(x), torch.zeros_like(mean))
    torch.testing.assert_close(mean, z_0, rtol=1e-4, atol=1e-4)
    how = run.config.evaluation
    (pictures,) = ran("decoder.onnx", z_0=z_0, **({} if tune == "none" else {"noise": noise}))
    expected = run.autoencoder.decode(z_0, how.decoder_temperature * noise, 1, how.decoder_range)
    torch.testing.assert_close(pictures, expected, rtol=1e-3, atol=1e-3)
