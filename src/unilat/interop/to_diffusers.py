"""A run as a folder for diffusers that needs no ``unilat``: weights, configurations, and the code that reads them.

    model_index.json    the pipeline's class and its parts; not there without a base model
    pipeline.py         draws latents, makes pictures of them
    vae/ base/          config.json, weights in safetensors, and one Python file each

Code is ours alone (``interop/bundle.py``); what is the user's, names of classes for one, stands in JSON.
"""

import dataclasses
import json
import math
from pathlib import Path

from torch import Tensor, nn

from unilat.files import write_json, write_safetensors
from unilat.interop.bundle import bundle
from unilat.interop.folded import folded
from unilat.interop.space import Space
from unilat.nets.class_gaussian import ClassGaussian
from unilat.nets.denoiser import Denoiser
from unilat.nets.foreign import ForeignConfig
from unilat.nets.gaussian import GaussianDenoiser
from unilat.run import classes
from unilat.run.making import making
from unilat.run.start import price
from unilat.run.trained import Run
from unilat.types import UserError

FLOOR = "0.38.0"
"""The diffusers that the configurations name as their writer; older ones are not safe to load code with."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
NEEDS = "torch and diffusers"
LOAD = """```py
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("FOLDER", trust_remote_code=True)
pipe(num_images=4, seed=7).images
```"""
LOAD_ALONE = """```py
import torch
from diffusers import AutoModel

vae = AutoModel.from_pretrained("FOLDER/vae", trust_remote_code=True)
z = vae.encode(torch.zeros(1, vae.config.in_channels, SIZE)).latent_dist.sample()
x = vae.decode(z).sample
```"""


OWN_LOAD = """```py
from diffusers import KIND

vae = KIND.from_pretrained("FOLDER/vae")
```"""
OWN = (
    "The folder vae is the model that the run started from, in its own class, with the weights that the run has: it "
    "takes that model's place. Latents and their scale are that model's; the run's scale, noise, prior and base model "
    "are not in it."
)
HEARD = "The run's decoder learned on latents with noise of {:.2%} of their standard deviation; here none is added."


def write(run: Run, space: Space, folder: Path) -> None:
    """All files but the card; raises :class:`UserError` where diffusers has no words for the run."""
    _write_part(folder / "vae", "vae", vae_config(run, space), _vae_weights(folded(run)))
    if run.base is None:
        return
    _write_part(folder / "base", "base", base_config(run), {f"denoise.{k}": v for k, v in _denoiser(run).items()})
    _write_text(folder / "pipeline.py", bundle("interop/published/pipeline.py", NEEDS))
    index = {
        "_class_name": ["pipeline", "UnilatPipeline"],
        "_diffusers_version": FLOOR,
        "base": ["modeling_unilat_base", "UnilatBase"],
        "vae": ["modeling_unilat_vae", "UnilatAutoencoder"],
    }
    write_json(folder / "model_index.json", index)


def load_text(run: Run) -> str:
    """How the folder is loaded, as Markdown."""
    alone = LOAD_ALONE.replace("SIZE", ", ".join(map(str, run.config.data.size)))
    return f"{LOAD}\n\nThe autoencoder alone:\n\n{alone}" if run.base is not None else alone


def write_own(run: Run, foreign: ForeignConfig, folder: Path) -> None:
    """The model that a run started from as its own class writes it, with the weights of the run."""
    model, halves = foreign.build(), (run.autoencoder.encoder, run.autoencoder.decoder)
    tensors = {name: tensor.cpu() for half in halves for name, tensor in half.state_dict().items()}
    model.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
    model.save_pretrained(folder)


def own_notes(run: Run) -> tuple[str, ...]:
    """What to know of somebody else's model that is written again."""
    found = price(run)
    return (OWN,) if found is None or found.decoder != "tuned" else (OWN, HEARD.format(found.noise))


def vae_config(run: Run, space: Space) -> dict[str, object]:
    """config.json of the autoencoder: what ``published/vae.py`` takes."""
    ae, how, few = run.config.autoencoder, run.config.evaluation, run.few_decoder
    grid = None if few is None else [level for level in few.grid.tolist() if math.isfinite(level)]
    height, width = run.config.data.size
    return {
        "_class_name": "UnilatAutoencoder",
        "_diffusers_version": FLOOR,
        "auto_map": {"AutoModel": "modeling_unilat_vae.UnilatAutoencoder"},
        "in_channels": run.data.channels,
        "out_channels": run.data.channels,
        "latent_channels": ae.latent_channels,
        "block_out_channels": block_out_channels(ae.encoder.factor, ae.encoder.channels),
        "sample_size": height if height == width else [height, width],
        "spatial_compression_ratio": ae.encoder.factor[0],
        "latents_mean": list(space.latents_mean),
        "latents_std": list(space.latents_std),
        "scaling_factor": space.scaling_factor,
        "shift_factor": space.shift_factor,
        "force_upcast": True,
        "encoder_config": dataclasses.asdict(ae.encoder),
        "decoder_config": dataclasses.asdict(ae.decoder),
        "decoder_start": ae.decoder_start,
        "learned_variance": ae.learned_variance,
        "lambda_0": ae.lambda_0,
        "lambda_min": ae.lambda_min,
        "tells_noise": ae.random_end is not None,
        "one_call": ae.decoder_loss == "mse" and few is None,
        "decoder_range": list(how.decoder_range),
        "decoder_temperature": few.temperature if few else how.decoder_temperature,
        "num_inference_steps": run.decoder_steps,
        "decoder_grid": grid,
    }


def base_config(run: Run) -> dict[str, object]:
    """config.json of the base model: what ``published/base.py`` takes."""
    assert run.base is not None
    how, few, base = run.config.evaluation, run.few_base, run.base
    guidance = making(run).guidance
    there = max(1, len(classes.trained(run.data)))
    return {
        "_class_name": "UnilatBase",
        "_diffusers_version": FLOOR,
        "auto_map": {"AutoModel": "modeling_unilat_base.UnilatBase"},
        "in_channels": run.latent_shape[0],
        "sample_size": list(run.latent_shape[1:]),
        "vit": dataclasses.asdict(base.config.vit),
        "kind": _kind(base.denoise),
        "classes": run.classes if base.classes else [],
        "factors": None if run.data.table is None or not base.classes else run.data.table.tolist(),
        "turns": classes.labels_of(run.data, there, None).tolist() if base.classes else [],
        "lambda_min": base.lambda_min,
        "lambda_0": base.lambda_0,
        "num_inference_steps": run.base_steps,
        "guidance_scale": how.guidance if guidance is None else guidance,
        "grid": None if few is None else few.grid.tolist(),
        "temperature": few.temperature if few else 1.0,
    }


def block_out_channels(factor: tuple[int, ...], channels: tuple[int, ...]) -> list[int]:
    """Widths, finest first, one more than the latents are halved: diffusers reads the downsampling off their number.

    Raises :class:`UserError` where ``factor`` is no power of two, the same along both axes.
    """
    halvings = factor[0].bit_length() - 1
    if len(factor) != 2 or len(set(factor)) != 1 or factor[0] != 2**halvings:
        folded = "×".join(map(str, factor))
        raise UserError(
            f"diffusers knows latents that fold 2, 4, 8 … pixels along both axes, these fold {folded}: export to "
            "latents or onnx, or train with autoencoder.encoder.patch and strides of 2"
        )
    inner = list(channels)[-(halvings + 1) :]
    return [inner[0]] * (halvings + 1 - len(inner)) + inner


def _kind(denoise: nn.Module) -> str:
    kinds = {ClassGaussian: "class_gaussian", GaussianDenoiser: "gaussian"}
    return kinds.get(type(denoise), "plain")  # pyright: ignore[reportArgumentType]


def _vae_weights(run: Run) -> dict[str, Tensor]:
    decoder = run.few_decoder.denoise if run.few_decoder else run.autoencoder.decoder
    parts = {"encoder": run.autoencoder.encoder, "decoder": decoder}
    return {f"{part}.{name}": tensor for part, net in parts.items() for name, tensor in net.state_dict().items()}


def _denoiser(run: Run) -> dict[str, Tensor]:
    """Weights of the model of latents; of a prior in its place the one mean and deviation as one a channel."""
    assert run.base is not None
    net = run.few_base.denoise if run.few_base else run.base.denoise
    tensors = net.state_dict()
    if isinstance(net, Denoiser):
        shape = (1, run.latent_shape[0], *[1] * len(run.latent_shape[1:]))
        tensors |= {name: tensors[name].expand(shape) for name in ("mean", "std")}
    return tensors


def _write_part(folder: Path, name: str, config: dict[str, object], weights: dict[str, Tensor]) -> None:
    folder.mkdir()
    json.dumps(config, allow_nan=False)  # a number that JSON does not know would silently become null
    write_json(folder / "config.json", config)
    write_safetensors(folder / WEIGHTS, weights, {"format": "pt"})
    _write_text(folder / f"modeling_unilat_{name}.py", bundle(f"interop/published/{name}.py", NEEDS))


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
