"""``unilat.train``: a run begun from Python, with what the command line has as options."""

import dataclasses
import difflib
import json
import math
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from unilat.fields import as_size
from unilat.models.networks import Tune
from unilat.models.price import Charge
from unilat.recipe import config as configuration
from unilat.recipe import presets
from unilat.recipe.config import RunConfig
from unilat.run import train as job
from unilat.run.records import Listener, Note, OnStep, Stopped
from unilat.run.start import started
from unilat.run.tracking import Track, closed, tracked
from unilat.run.trained import Run, load
from unilat.signals import located
from unilat.training.fast import Choices
from unilat.types import UserError

Owner = TypeVar("Owner", Run, Stopped)


def train(
    data: str | Path | RunConfig,
    *,
    out: str | Path | None = None,
    target_bpp: float | None = None,
    loss_factor: float | None = None,
    bias: float | None = None,
    size: int | None = None,
    preset: str | None = None,
    start: str | Path | None = None,
    tune: Tune | None = None,
    keep_decoder: bool = False,
    seed: int | None = None,
    on_step: OnStep | None = None,
    device: str = "auto",
    charge: Charge | None = None,
    choices: Choices | None = None,
    features: str | Path | None = None,
    track: Track = (),
    **fields: Any,
) -> Run:
    """Train latents of ``target_bpp`` bits per pixel on pictures, then a diffusion model on them; the finished run.

    >>> run = unilat.train("photos/", target_bpp=0.2, size=64, out="runs/photos", stage1__samples=100_000)

    ``data``: a folder, a file or a name, as for the command line; or a whole configuration. ``preset``: the
    configuration to start from, by default the one named like ``data``, or else ``small``. Every field of the
    configuration is a keyword, sections and names joined by two underscores: ``base__vit__channels=(128, 256)``; they
    have the last word. ``start``: a run folder, or one that diffusers saved, whose weights stage 1 starts from;
    ``tune``, ``all``, ``decoder`` or ``none``: what of them learns; ``keep_decoder``: the model's own (docs/from.md).

    ``out``: the run folder, gone on with where it is one already. Without it the run lies in a temporary folder, which
    goes with the returned run. ``on_step`` is called with each :class:`~unilat.training.records.Step` and
    :class:`~unilat.run.records.Note`; where it returns False the run is saved and :class:`~unilat.run.records.Stopped`
    is raised: the same call again with ``out=stopped.folder`` goes on, to the same last bit. ``charge`` is what stage 1
    minimises in place of the rate (``models/price.py``); ``choices`` are the machine's (``training/fast.py``).
    ``features``: a TorchScript file behind the distances. ``track``: ``"tensorboard"``, ``"trackio"``, ``"wandb"``, a
    function that gets every record (``run/records.py``), or several. Raises :class:`UserError` for a user's mistakes.
    """
    named = {"target_bpp": target_bpp, "loss_factor": loss_factor, "bias": bias, "size": size, "preset": preset}
    named |= {"start": start, "tune": tune, "keep_decoder": keep_decoder, "seed": seed}
    config = configured(data, **named, **fields)
    trackers = tracked(track, lambda line: on_step(Note(line)) if on_step else None)
    folder = Path(tempfile.mkdtemp(prefix="unilat-")) if out is None else Path(out)
    listener = Listener(on_step, folder, trackers)
    try:
        with closed(trackers):
            job.train(config, folder, listener, device, charge, choices, features, shows=bool(trackers))
        run = load(folder, device)
    except SystemExit:
        if listener.stopped_at is None:  # a signal
            raise
        raise _lasting(Stopped(folder, listener.stopped_at), folder, out) from None
    except Stopped as stopped:
        raise _lasting(stopped, folder, out) from None
    except BaseException:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return _lasting(run, folder, out)


def _lasting(owner: Owner, folder: Path, out: str | Path | None) -> Owner:
    """``owner``, with which a temporary folder goes."""
    if out is None:
        weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return owner


def configured(
    data: str | Path | RunConfig,
    *,
    target_bpp: float | None = None,
    loss_factor: float | None = None,
    bias: float | None = None,
    size: int | None = None,
    preset: str | None = None,
    start: str | Path | None = None,
    tune: Tune | None = None,
    keep_decoder: bool = False,
    seed: int | None = None,
    **fields: Any,
) -> RunConfig:
    """The configuration that :func:`train` would train, by the same keywords."""
    if target_bpp is not None and loss_factor is not None:
        raise UserError("target_bpp names the bits and loss_factor the weight that makes them: give one of them")
    if isinstance(data, RunConfig):
        if preset is not None:
            raise UserError("a configuration and a preset both name where to start: give one of them")
        config = data if size is None else replace(data, data=replace(data.data, size=size))
    else:
        name = located(str(data))
        config = presets.get(preset or (str(data) if str(data) in presets.PRESETS else "small"), size=size)
        config = replace(config, data=replace(config.data, source=name))
    if start is not None:
        named = isinstance(data, RunConfig) or preset is not None
        config = started(config, start, tune, keep_decoder, named=named, size=None if size is None else as_size(size))
    elif tune is not None or keep_decoder:
        raise UserError(f"`{'tune' if tune else 'keep_decoder'}` says what is done with `start`: give it")
    if target_bpp is not None:
        if not (math.isfinite(target_bpp) and target_bpp > 0):
            raise UserError(f"target_bpp is a positive number of bits per pixel, 0.2 for example, not {target_bpp}")
        config = replace(config, stage1=replace(config.stage1, target_bpp=target_bpp, loss_factor=None))
    if loss_factor is not None:
        config = replace(config, stage1=replace(config.stage1, target_bpp=None, loss_factor=loss_factor))
    if bias is not None:
        config = replace(config, autoencoder=replace(config.autoencoder, bias=bias))
    if seed is not None:
        config = replace(config, seed=seed)
    return changed(config, fields) if fields else config


def changed(config: RunConfig, fields: Mapping[str, object]) -> RunConfig:
    """``config`` with other values of some fields, named like ``stage1__samples``; an unknown name is a UserError."""
    values = configuration.to_dict(config)
    known = list(_names(RunConfig, ""))
    for name, value in fields.items():
        if name not in known:
            ends = [one for one in known if one.split("__")[-1] == name]
            near = ends or difflib.get_close_matches(name, [*known, *_SHORT], n=1, cutoff=0.5)
            hint = f"perhaps you meant {near[0]}" if near else "unilat.recipe.config.RunConfig has them all"
            raise UserError(f"there is no field {name} in the configuration: {hint}")
        *sections, last = name.split("__")
        place = values
        for section in sections:
            inner = place[section]
            assert isinstance(inner, dict)
            place = inner
        place[last] = str(value) if isinstance(value, Path) else value
    try:
        return configuration.from_json(json.dumps(values))
    except TypeError as error:
        raise UserError(f"the configuration holds numbers, texts and tuples of them ({error})") from None


_SHORT = (
    "target_bpp",
    "loss_factor",
    "bias",
    "size",
    "preset",
    "start",
    "tune",
    "keep_decoder",
    "seed",
    "out",
    "on_step",
    "device",
    "charge",
    "choices",
    "features",
    "track",
)


def _names(kind: Any, place: str) -> list[str]:
    """Names of all fields below a configuration dataclass, sections joined by two underscores."""
    names = []
    for name, hint in get_type_hints(kind).items():
        inner = _names(hint, f"{place}{name}__") if dataclasses.is_dataclass(hint) else [f"{place}{name}"]
        names += inner
    return names
