"""What nothing can start from, one line each: the folder, the options, the pictures."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import unilat
from started import SHORT, boxes, save
from unilat.cli import main
from unilat.files import read_json
from unilat.nets.pretrained import WEIGHTS
from unilat.recipe import presets
from unilat.recipe.config import RunConfig, to_json
from unilat.run.begin import configured
from unilat.types import UserError

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxes(tmp_path_factory.mktemp("data") / "boxes.npz")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "vae")


def _spoilt(vae: Path, to: Path, **config: Any) -> Path:
    """The folder again, with entries of config.json changed."""
    shutil.copytree(vae, to)
    (to / "config.json").write_text(json.dumps(json.loads((vae / "config.json").read_text()) | config))
    return to


def _no_model(vae: Path, to: Path) -> Path:
    return _spoilt(vae, to, _class_name="UNet2DModel")


def _missing(vae: Path, to: Path) -> Path:
    tensors = load_file(vae / WEIGHTS)
    tensors.pop("quant_conv.weight")
    save_file(tensors, _spoilt(vae, to) / WEIGHTS)
    return to


def _pickled(vae: Path, to: Path) -> Path:
    (_spoilt(vae, to) / WEIGHTS).unlink()
    (to / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({}))
    return to


def _half_trained(vae: Path, to: Path) -> Path:
    to.mkdir()
    (to / "config.json").write_text(to_json(presets.get("tiny")))
    return to


BAD: list[tuple[Callable[[Path, Path], Path], list[str], str]] = [
    (_no_model, [], "names the class 'UNet2DModel'; read are AutoencoderKL"),
    (_missing, [], "1 weights missing, the first is quant_conv.weight"),
    (_pickled, [], "is a pickle, which can run code, and is not read"),
    (_half_trained, [], "stage 1 is not finished (no autoencoder.safetensors): go on with `unilat train`"),
    (lambda vae, to: vae, ["--data.channels", "3"], "takes pictures of 1 channels, and --data.channels is 3"),
    (
        lambda vae, to: vae,
        ["--size", "17"],
        "shrinks pictures 2 times, which does not divide 17 pixels: take --size 16 or",
    ),
    (lambda vae, to: vae, ["--autoencoder.latent-channels", "5"], "have 3 channels, not 5"),
    (lambda vae, to: vae, ["--autoencoder.encoder.patch", "4", "4"], "shrinks pictures 2 times, and"),
    (lambda vae, to: vae, ["--loss-factor", "2"], "no loss factor moves the bits of an encoder that is kept"),
    (lambda vae, to: vae, ["--tune", "none", "--autoencoder.decoder-loss", "diffusion"], "is called once"),
    (lambda vae, to: vae, ["--autoencoder.price", "normal"], "leave --autoencoder.price diffusion"),
    (lambda vae, to: vae, ["--stage1.autoencoder", "elsewhere"], "give one"),
    (lambda vae, to: to, [], "is not there, and nothing is fetched"),
    (lambda vae, to: vae.parent, [], "is no run folder and none that diffusers saved"),
]


@pytest.mark.parametrize(("make", "words", "told"), BAD, ids=[told[:30] for _, _, told in BAD])
def test_bad_input_is_one_line(
    make: Callable[[Path, Path], Path],
    words: list[str],
    told: str,
    data: Path,
    vae: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Kills: tracebacks, a line without a way out, a run that begins all the same."""
    folder = make(vae, tmp_path / "model")
    line = ["train", str(data), "--preset", "tiny", "--from", str(folder), "--out", str(tmp_path / "run"), *words]
    assert main(line) == 2
    (said,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert told in said and not (tmp_path / "run").exists(), said


def test_a_model_for_colours_reads_grey_pictures_as_colour_and_says_so(data: Path, tmp_path: Path) -> None:
    """Kills: grey pictures that are made colour in silence."""
    folder, said = save(tmp_path / "model", in_channels=3, out_channels=3), list[str]()
    with pytest.raises(unilat.Stopped):
        unilat.train(
            data, preset="tiny", target_bpp=0.5, start=folder, out=tmp_path / "run",
            on_step=lambda record: said.append(getattr(record, "text", "")) or not hasattr(record, "step"), **SHORT,
        )  # fmt: skip
    assert "80 pictures: grey to colour, for the model takes 3 channels" in said
    assert read_json(tmp_path / "run" / "data.json")["channels"] == 3


def test_a_configuration_that_contradicts_the_folder(
    data: Path, vae: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: one of the two models taken in silence; networks of a run that are not those asked, unnamed."""
    other = save(tmp_path / "other", latent_channels=4)
    config: RunConfig = configured(data, preset="tiny", start=other)
    (tmp_path / "config.json").write_text(to_json(config))
    asked = {"--from": str(vae), "--config": str(tmp_path / "config.json")}
    assert main(["train", str(data), *[word for pair in asked.items() for word in pair]]) == 2
    assert f"starts from {other}, and --from from {vae}: give one" in capsys.readouterr().err
    with pytest.raises(UserError, match="of another AutoencoderKL than"):
        configured(replace(config, stage1=replace(config.stage1, start=None)), start=vae)
    with pytest.raises(UserError, match=r"autoencoder.latent_channels: 4 and 8.*leave these fields out"):
        configured(data, preset="small", start=tiny_run)
    with pytest.raises(UserError, match="whose decoder is kept anyway"):
        configured(data, start=tiny_run, keep_decoder=True)
    with pytest.raises(UserError, match="says what is done with `start`"):
        configured(data, tune="none")
    assert main(["train", str(data), "--keep-decoder"]) == 2
    assert "--keep-decoder says what is done with --from" in capsys.readouterr().err


def test_the_weights_may_not_change_before_they_are_taken(data: Path, vae: Path, tmp_path: Path) -> None:
    """Kills: other weights under the name of those that the configuration knows."""
    folder = shutil.copytree(vae, tmp_path / "vae")
    config = configured(data, preset="tiny", target_bpp=0.5, start=folder, **SHORT)
    tensors = load_file(folder / WEIGHTS)
    tensors["conv_norm_out.bias" if "conv_norm_out.bias" in tensors else "quant_conv.bias"] += 1
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError, match="is no longer the AutoencoderKL that this run was begun with"):
        unilat.train(config, out=tmp_path / "run")
