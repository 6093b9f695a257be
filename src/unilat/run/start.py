"""Weights that stage 1 starts from: those of a run, or of an autoencoder that diffusers saved.

The folder is read when the run is begun, and once more when stage 1 begins; after that it may go.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unilat.fields import FieldError, Size
from unilat.files import read_safetensors
from unilat.metrics.quality import average, psnr
from unilat.models.autoencoder import Autoencoder
from unilat.models.networks import Tune
from unilat.nets import pretrained
from unilat.nets.decoder import readers
from unilat.nets.foreign import ForeignDecoder, ForeignEncoder, encoded
from unilat.nets.pretrained import Pretrained
from unilat.recipe import config as configuration
from unilat.recipe.config import RunConfig
from unilat.recipe.foreign import with_foreign
from unilat.results import Number, Start
from unilat.run import again, facts, seal
from unilat.run.folder import RunFolder
from unilat.run.records import Note, OnStep
from unilat.run.trained import Run, finished, read_config
from unilat.signals import kind_of
from unilat.signals.pictures import distinct
from unilat.types import UserError

FREE = ("bias", "price", "kl_weight", "decoder_loss", "perceptual", "tune")
"""Fields of the autoencoder that leave its weights what they are."""
SOURCES = {
    "ours": "the diffusion decoder is ours",
    "own": "its own decoder is kept",
    "tuned": "its own decoder is tuned",
}
OWN = "own_psnr", "own_psnr_stderr", "own_psnr_n"
"""In the header of the weights: what the model's own decoder made of latents without noise."""


def started(
    config: RunConfig,
    folder: str | Path,
    tune: Tune | None = None,
    keep_decoder: bool = False,
    *,
    named: bool = False,
    size: Size | None = None,
) -> RunConfig:
    """``config`` that starts from ``folder``; raises :class:`UserError` where the two do not go together.

    ``tune``: what learns beside the prior, by default all of a run and our decoder for somebody else's encoder.
    ``keep_decoder``: its own decoder in place of ours. ``named``: somebody named this configuration, so a run must have
    its networks; else it is the run's own, on the pictures of ``config``, in their ``size`` where it is given.
    """
    folder = Path(folder).absolute()
    if not folder.exists():
        raise UserError(
            f"{folder} is not there, and nothing is fetched: name a run folder, or one that diffusers saved"
        )
    taken = (config.stage1.start, config.stage1.autoencoder)
    if any(one is not None and Path(one).absolute() != folder for one in taken):
        raise UserError(f"the configuration starts from {taken[0] or taken[1]}, and `start` from {folder}: give one")
    if pretrained.is_run(folder) or RunFolder(folder).seal.is_file():
        if keep_decoder:
            raise UserError(f"{folder} is a run, whose decoder is kept anyway: leave out `keep_decoder`")
        return _from_run(config, folder, tune or "all", named, size)
    if not pretrained.is_folder(folder):
        raise UserError(f"{folder} is no run folder and none that diffusers saved (no config.json in it)")
    model, before = pretrained.read(folder).config, config.autoencoder.foreign
    if before is not None and replace(before, decoder=model.decoder) != model:
        raise UserError(f"the configuration is of another {before.kind} than {folder} holds: leave it out, or `start`")
    config = with_foreign(config, model, tune or "decoder", keep_decoder)
    return replace(config, stage1=replace(config.stage1, start=str(folder), autoencoder=None))


def _from_run(config: RunConfig, folder: Path, tune: Tune, named: bool, size: Size | None) -> RunConfig:
    """The same, of a run."""
    other, files = read_config(folder), RunFolder(folder)
    finished(files.autoencoder, "stage 1")
    channels = facts.read(files.data).channels
    if not named:
        data = replace(other.data, source=config.data.source, size=size or other.data.size)
        config = replace(other, data=data, seed=config.seed)
    if config.data.channels not in (None, channels):
        raise FieldError(
            f"{folder} is a run on pictures of {channels} channels, and data.channels is {config.data.channels}: leave "
            "it out"
        )
    data, stage1 = replace(config.data, channels=channels), replace(config.stage1, start=None, autoencoder=None)
    if tune == "none":
        config = replace(config, data=data, stage1=replace(stage1, autoencoder=str(folder)))
        return config if named else replace(config, autoencoder=other.autoencoder)
    config = replace(config, autoencoder=replace(config.autoencoder, tune=tune))
    refuse_other(config, other, folder)
    return replace(config, data=data, stage1=replace(stage1, start=str(folder)))


def refuse_other(config: RunConfig, other: RunConfig, folder: Path) -> None:
    """Raise :class:`UserError` that names each field in which the networks of a run are not those of ``config``."""
    theirs = replace(other.autoencoder, **{name: getattr(config.autoencoder, name) for name in FREE})
    differs = configuration.differences(replace(config, autoencoder=theirs), config)
    if differs:
        shown = "; ".join(one if len(one) < 120 else one.split(":")[0] for one in differs)
        raise UserError(f"the networks of {folder} are not this configuration's ({shown}): leave these fields out")


def begin(
    model: Autoencoder,
    config: RunConfig,
    files: RunFolder,
    x: Tensor,
    held_out: Callable[[], Tensor],
    *,
    device: torch.device,
    tell: OnStep,
    rank: int,
    chosen: Callable[[Tensor, int], Tensor],
) -> dict[str, str]:
    """Give a new ``model`` the weights that it starts from, on ``device``; what is to be kept of them beside the run's.

    ``x``: pictures in [-1, 1] that tell the latents' scale. ``held_out()``: uint8 pictures, on some of which the
    model's own decoder is measured by the first process: those that the run will be, ``chosen`` of the different ones.
    Training that has begun goes on from its checkpoint, also where the folder is gone.
    """
    there = Path(config.stage1.start or "")
    if again.begun(files, "stage1") and not there.exists():
        tell(Note(f"{there} is gone: what this run took over lies in its checkpoints"))
        return {}
    tell(Note(f"starting from {there}"))
    found = fill(model.to(device), config, x[:1024].to(device))
    if found is None or not found.config.whole or rank > 0:
        return {}
    images = held_out()
    return own_quality(found, images[chosen(distinct(images), config.evaluation.pictures)], device)


def colours(config: RunConfig, converted: Mapping[str, int]) -> list[str]:
    """What is done to pictures of other channels than somebody else's model takes, a line each."""
    foreign, kinds = config.autoencoder.foreign, ("grey to colour", "colour to grey")
    if foreign is None:
        return []
    found = [(kind, converted[kind]) for kind in kinds if converted.get(kind)]
    return [f"{count} pictures: {kind}, for the model takes {foreign.channels} channels" for kind, count in found]


@torch.no_grad()
def fill(model: Autoencoder, config: RunConfig, x: Tensor) -> Pretrained | None:
    """Give ``model`` the weights that ``config`` starts from; what they are of, where it is somebody else's.

    ``x``: pictures in [-1, 1] by which its latents are brought to unit scale. Raises :class:`UserError` where the
    folder is no longer what the configuration was made of.
    """
    folder, foreign = Path(config.stage1.start or ""), config.autoencoder.foreign
    if pretrained.is_run(folder) or foreign is None:
        refuse_other(config, read_config(folder), folder)
        _fill_from_run(model, folder)
        return None
    found = pretrained.read(folder)
    if replace(found.config, decoder=foreign.decoder) != foreign:
        raise UserError(f"{folder} is no longer the {foreign.kind} that this run was begun with: bring it back")
    for part in (model.encoder, model.decoder):
        if isinstance(part, ForeignEncoder | ForeignDecoder):
            found.fill(part)
    model.start_at_unit_scale(x)
    return found


def _fill_from_run(model: Autoencoder, folder: Path) -> None:
    """A run's weights; a scale beside its encoder's goes into them where ``model`` has none."""
    path = RunFolder(folder).autoencoder
    seal.check(path)
    tensors, _ = read_safetensors(finished(path, "stage 1"))
    scale = tensors.pop("encoder.scale", None)
    own = model.state_dict()
    if own.keys() - {"encoder.scale"} != tensors.keys() or any(
        own[name].shape != one.shape for name, one in tensors.items()
    ):
        raise UserError(f"{path} does not hold the weights that {RunFolder(folder).config.name} beside it tells of")
    model.load_state_dict({**tensors, **({} if model.encoder.scale is None else {"encoder.scale": torch.ones(())})})
    if scale is None:
        return
    model.encoder.rescale(float(scale))
    if model.encoder.scale is None:
        for layer in readers(model.decoder):
            layer.weight[:, : model.config.latent_channels].div_(scale)


@torch.no_grad()
def own_quality(found: Pretrained, images: Tensor, device: torch.device) -> dict[str, str]:
    """PSNR of uint8 ``images [N, C, H, W]`` through somebody else's encoder and decoder as they were, without noise.

    As the header of the weights keeps it.
    """
    kind, module = kind_of(images.shape), found.module.to(device)
    made = []
    for part in images.split(32):
        z, _ = encoded(module, found.kind, kind.to_unit(part).to(device))
        made.append(kind.from_unit(module.decode(z).sample.float().cpu()))
    reached = average(psnr(images, torch.cat(made)), "dB", "")
    return dict(zip(OWN, (f"{reached.value:.6g}", f"{reached.stderr}", f"{reached.n}"), strict=True))


def price(run: Run) -> Start | None:
    """What the bits of a run cost whose encoder has a scale of its own; None for all others."""
    ae = run.config.autoencoder
    if not (ae.frozen or ae.foreign) or (scale := run.autoencoder.encoder.scale) is None:
        return None
    source = run.config.stage1.start or run.config.stage1.autoencoder or ""
    decoder = ae.foreign.decoder if ae.foreign else "ours"
    return Start(
        what=f"{ae.foreign.kind} of {source}" if ae.foreign else f"run {source}",
        tune=ae.tune,
        decoder="tuned" if decoder == "own" and ae.tune != "none" else decoder,
        scale=float(scale),
        noise=math.exp(-ae.lambda_0 / 2) / float(scale),
        clean=_clean(run.header),
    )


def _clean(header: Mapping[str, str]) -> Number | None:
    """What :func:`own_quality` found, as a number."""
    value, stderr, n = (header.get(name) for name in OWN)
    if value is None:
        return None
    protocol = "its own encoder and decoder as they were, without noise, the same pictures"
    error = None if stderr in (None, "None") else float(stderr)
    return Number(value=float(value), stderr=error, n=int(n or 0), unit="dB", protocol=protocol)
