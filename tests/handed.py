"""Runs to hand over: untrained ones whose every weight is away from zero, of each kind that can be built."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from planted import coloured, planted_config, untrained
from unilat.recipe.config import RunConfig
from unilat.run import evaluate as evaluation
from unilat.run.trained import Run
from unilat.signals import Pictures


def _config(**changed: Any) -> RunConfig:
    config = planted_config()
    return replace(config, autoencoder=replace(config.autoencoder, **changed))


def _kinds(kind: Any) -> RunConfig:
    ae = planted_config().autoencoder
    return _config(encoder=replace(ae.encoder, kind=kind), decoder=replace(ae.decoder, kind=kind))


def _from_prior(**changed: Any) -> RunConfig:
    config = _config(**changed)
    return replace(config, evaluation=replace(config.evaluation, sample_from="prior"))


def _kept(**changed: Any) -> RunConfig:
    config = _config(tune="decoder", **changed)
    return replace(config, stage1=replace(config.stage1, start="another"))


def _by_covariance() -> RunConfig:
    config = planted_config()
    return replace(config, base=replace(config.base, covariance_up_to=1000))


CONFIGS = {
    "plain": planted_config(),
    "kl-vae": _config(price="normal", learned_variance=True, decoder_loss="mse", lambda_0=3.0),
    "noise told": _config(random_end=(0.0, 1.0)),
    "start at the data": _config(decoder_start="data"),
    "vit": _kinds("vit"),
    "uvit": _kinds("uvit"),
    "conv": _kinds("conv"),
    "kept": _kept(),
    "kept, start at the data": _kept(decoder_start="data"),
    "class gaussian": _by_covariance(),
    "prior": _from_prior(),
    "gaussian prior": _from_prior(covariance_up_to=1000),
}


def pictures() -> Pictures:
    return coloured(60, held_out=torch.arange(60) % 4 == 1)


def handed_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run ``CONFIGS[name]`` in ``folder``, whose pictures are :func:`pictures`; its seeds of weights are fixed."""
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(evaluation, "read_pictures", lambda *_: pictures())
    untrained(folder, CONFIGS[name], pictures())
    if CONFIGS[name].evaluation.sample_from == "prior":
        (folder / "base.safetensors").unlink()
    return Run(folder, "cpu")


def close(a: Tensor, b: Tensor, within: float = 1e-5) -> bool:
    """Of one shape, and nowhere further apart."""
    return a.shape == b.shape and bool((a - b).abs().max() <= within)
