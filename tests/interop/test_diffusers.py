"""Folders that diffusers wrote: read whole and exactly, or refused in one line. Nothing in them is ever run."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unilat.interop import diffusers
from unilat.types import UserError

SMALL = {"in_channels": 1, "out_channels": 1, "latent_channels": 3, "norm_num_groups": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AutoencoderKL as ``save_pretrained`` writes it; it halves pictures once."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(
        **SMALL,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.7,
    )
    path = tmp_path_factory.mktemp("kl")
    model.save_pretrained(path)
    return path


def _copy(folder: Path, to: Path, **config: Any) -> Path:
    """The folder again, with entries of config.json changed."""
    (to / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
    save_file(load_file(folder / diffusers.WEIGHTS), to / diffusers.WEIGHTS)
    return to


def _refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        diffusers.load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_latents_and_pictures_are_those_of_diffusers(folder: Path):
    """Kills a sample instead of the mode, a lost log-variance, latents that are scaled before they are decoded."""
    from diffusers import AutoencoderKL

    ours, theirs = diffusers.load(folder), AutoencoderKL.from_pretrained(folder)
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    found = ours.encode(x)
    with torch.no_grad():
        expected = theirs.encode(x).latent_dist
        assert torch.allclose(found.z, expected.mean, atol=1e-6)
        assert found.logvar is not None and torch.allclose(found.logvar, expected.logvar, atol=1e-5)
        made = ours.decode(found.z)
        assert made is not None and torch.allclose(made, theirs.decode(expected.mean).sample, atol=1e-5)
    assert ours.declared == {"scaling_factor": 0.7} and ours.channels == 1 and ours.factor == 2


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderDC"])
def test_the_two_models_without_a_posterior(kind: str, tmp_path: Path):
    """Kills a reader that looks for ``latent_dist`` or a wrong factor in the classes that have other fields."""
    import diffusers as theirs

    torch.manual_seed(0)
    if kind == "AutoencoderTiny":
        blocks = {"num_encoder_blocks": (1, 1, 1), "num_decoder_blocks": (1, 1, 1)}
        sides = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
        model = theirs.AutoencoderTiny(in_channels=1, out_channels=1, latent_channels=3, **blocks, **sides)
    else:
        widths = {"encoder_block_out_channels": (8, 16, 32), "decoder_block_out_channels": (8, 16, 32)}
        layers = {"encoder_layers_per_block": (1, 1, 1), "decoder_layers_per_block": (1, 1, 1)}
        scales = {"encoder_qkv_multiscales": ((), (), ()), "decoder_qkv_multiscales": ((), (), ())}
        model = theirs.AutoencoderDC(
            in_channels=1, latent_channels=8, attention_head_dim=8, **widths, **layers, **scales
        )
    model.save_pretrained(tmp_path)
    ours = diffusers.load(tmp_path)
    found = ours.encode(torch.rand(2, 1, 16, 16) * 2 - 1)
    assert found.logvar is None and tuple(found.z.shape[2:]) == (4, 4) and ours.factor == 4
    made = ours.decode(found.z)
    assert made is not None and tuple(made.shape) == (2, 1, 16, 16)


def test_attention_names_of_old_files_are_known(folder: Path, tmp_path: Path):
    """Kills a reader that calls Stable Diffusion 1's own files incomplete."""
    copy = _copy(folder, tmp_path)
    back = {new: old for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))}
    renamed = {}
    for name, tensor in load_file(copy / diffusers.WEIGHTS).items():
        for new, old in back.items():
            name = name.replace(f".{new}.", f".{old}.") if ".attentions." in name else name
        renamed[name] = tensor
    assert any(".query." in name for name in renamed)
    save_file(renamed, copy / diffusers.WEIGHTS)
    assert diffusers.load(copy).sha256 == diffusers.load(folder).sha256


@pytest.mark.parametrize("name", ["os.system", "UNet2DModel", "AutoencoderKLWan", "", None, 3, ["a"]])
def test_a_configuration_chooses_no_code(folder: Path, tmp_path: Path, name: Any):
    """Kills ``getattr(diffusers, _class_name)``: only three names are ever looked up."""
    assert "AutoencoderKL, AutoencoderTiny, AutoencoderDC" in _refused(_copy(folder, tmp_path, _class_name=name))


def test_missing_weights_are_no_warning(folder: Path, tmp_path: Path):
    """Kills ``from_pretrained``, which leaves missing weights random: the audit would be of noise."""
    copy = _copy(folder, tmp_path)
    weights = load_file(copy / diffusers.WEIGHTS)
    weights.pop("quant_conv.weight")
    save_file(weights, copy / diffusers.WEIGHTS)
    assert "1 weights missing, the first is quant_conv.weight" in _refused(copy)
    save_file(load_file(folder / diffusers.WEIGHTS) | {"extra": torch.zeros(1)}, copy / diffusers.WEIGHTS)
    assert "of another model" in _refused(copy)


def test_weights_of_another_size_and_of_no_number(folder: Path, tmp_path: Path):
    """Kills a reader that does not compare shapes, and one that audits NaN."""
    assert "config.json asks for" in _refused(_copy(folder, tmp_path, latent_channels=5))
    copy = _copy(folder, tmp_path, latent_channels=3)
    weights = load_file(copy / diffusers.WEIGHTS)
    weights["quant_conv.bias"][0] = torch.nan
    save_file(weights, copy / diffusers.WEIGHTS)
    assert "not finite" in _refused(copy)


def test_a_pickle_is_not_opened(folder: Path, tmp_path: Path):
    """Kills a fall back from safetensors to torch.load: the payload's file must never appear."""
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (canary,))

    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    assert "pickle" in _refused(tmp_path)
    (tmp_path / diffusers.WEIGHTS).write_bytes(pickle.dumps(Payload()))
    assert "safetensors" in _refused(tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"block_out_channels": [10**7, 10**7]}, "config.json asks for"),
        ({"block_out_channels": "eight"}, "fits no AutoencoderKL"),
        ({"norm_num_groups": 0}, "fits no AutoencoderKL"),
        ({"down_block_types": ["os", "sys"]}, "fits no AutoencoderKL"),
        ({"scaling_factor": "1; import os"}, "scaling_factor must be a number"),
        ({"latents_mean": [0.0, "x", 1.0]}, "latents_mean must be a number"),
    ],
)
def test_hostile_configurations(folder: Path, tmp_path: Path, config: dict[str, Any], told: str):
    """Kills memory that a configuration asks for, and tracebacks out of diffusers' constructors."""
    assert told in _refused(_copy(folder, tmp_path, **config))


def test_no_model_a_pipeline_a_run(folder: Path, tmp_path: Path):
    """Kills lines that do not say what to name instead."""
    (tmp_path / "config.json").write_text("[1, 2")
    assert "no whole JSON" in _refused(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"autoencoder": {}, "stage1": {}}))
    assert "unilat evaluate" in _refused(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "model_index.json").write_text("{}")
    assert str(tmp_path / "vae") in _refused(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert "no weights" in _refused(tmp_path)


def test_pictures_that_the_strides_do_not_divide(folder: Path):
    """Kills latents of a silently padded picture."""
    with pytest.raises(UserError, match="shrinks pictures 2 times"):
        diffusers.load(folder).encode(torch.zeros(1, 1, 9, 9))


def test_without_diffusers_the_line_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills a bare ImportError."""
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install 'unilat[diffusers]'" in _refused(folder)
