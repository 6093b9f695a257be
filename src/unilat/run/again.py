"""A run folder that is gone on with: what may be other than when it was begun, and where its pictures lie now."""

from dataclasses import replace
from pathlib import Path

from unilat.fields import FieldError
from unilat.files import read_safetensors
from unilat.recipe import config as configuration
from unilat.recipe.config import RunConfig
from unilat.run.folder import RunFolder
from unilat.signals import CATALOGUE, located
from unilat.types import UserError


def placed(config: RunConfig) -> RunConfig:
    """``config`` with its pictures and its other run named so that they are found from every folder."""
    one = config.stage1
    other, start = (None if path is None else str(Path(path).absolute()) for path in (one.autoencoder, one.start))
    return replace(
        config,
        data=replace(config.data, source=located(config.data.source)),
        stage1=replace(one, autoencoder=other, start=start),
    )


def places(source: str, folder: Path) -> list[str]:
    """Where the pictures of the run in ``folder`` may lie, of these places those that are there: as they were named
    and, since names were kept as they were typed until November 2026, below a folder that the run lies in."""
    if source in CATALOGUE:
        return [source]
    named = [located(source), *(str(parent / source) for parent in folder.absolute().parents)]
    return [place for place in dict.fromkeys(named) if Path(place).exists()]


def refuse_other(folder: Path, found: RunConfig, config: RunConfig) -> None:
    """Refuse to go on as ``config`` with the run that was begun as ``found``, naming what differs and the way out.

    What is measured may change, and where the pictures lie, whose content is compared. Stage 2 is free until it has
    begun, and may be longer after that; stage 1 may be longer while nothing rests on it.
    """
    files = RunFolder(folder)
    same = _accepted(found, config, files)
    if same == config:
        return
    differs = configuration.differences(same, config)
    fields = [one.split(":")[0] for one in differs]
    told = f"{folder} holds a run of another configuration ({'; '.join(differs)})"
    if fields == ["stage1.samples"] and config.stage1.samples > same.stage1.samples:
        raise FieldError(
            f"{folder}: stage 1 has ended, and its prior, latents and base model rest on it: train stage1.samples "
            f"{config.stage1.samples} in a folder of its own, `out` {folder}-{config.stage1.samples}, from nothing or "
            f"from these weights, `start` {folder}"
        )
    if all(field.startswith(("base.", "stage2.")) for field in fields):
        parts = " and ".join(str(path) for path in (files.stage("stage2"), files.base) if path.exists())
        raise UserError(f"{told}: choose another `out`, or delete {parts} to train stage 2 anew")
    raise UserError(f"{told}: choose another `out`, or delete it")


def _accepted(found: RunConfig, config: RunConfig, files: RunFolder) -> RunConfig:
    """``found``, with what ``config`` may have otherwise as ``config`` has it."""
    data = replace(found.data, source=config.data.source, unreadable_share=config.data.unreadable_share)
    same = replace(found, evaluation=config.evaluation, data=data)
    if _same_path(found.stage1.autoencoder, config.stage1.autoencoder):
        same = replace(same, stage1=replace(same.stage1, autoencoder=config.stage1.autoencoder))
    if config.autoencoder.foreign is not None and None not in (found.stage1.start, config.stage1.start):
        same = replace(same, stage1=replace(same.stage1, start=config.stage1.start))  # its weights are compared
    if not files.base.exists() and not begun(files, "stage2"):
        same = replace(same, base=config.base, stage2=config.stage2)
    elif config.stage2.samples > found.stage2.samples:
        same = replace(same, stage2=replace(same.stage2, samples=config.stage2.samples))
    on_stage1 = files.autoencoder.exists() or begun(files, "prior")
    if config.stage1.samples > found.stage1.samples and not on_stage1:
        same = replace(same, stage1=replace(same.stage1, samples=config.stage1.samples))
    return same


def standing(found: RunConfig, config: RunConfig, files: RunFolder) -> RunConfig:
    """``config`` as long as a base model of fewer samples lies there: of that one's."""
    if not files.base.is_file():
        return config
    return replace(config, stage2=replace(config.stage2, samples=found.stage2.samples))


def has_base(config: RunConfig, files: RunFolder) -> bool:
    """Whether the base model lies there and has seen the samples that are asked for.

    Raises :class:`UserError` where it has seen fewer and there is nothing to go on from.
    """
    if not files.base.is_file():
        return False
    seen = read_safetensors(files.base)[1].get("samples", "")
    if not seen.isdecimal() or int(seen) >= config.stage2.samples:
        return True
    if not begun(files, "stage2"):
        raise FieldError(
            f"{files.base} has seen {int(seen):,} samples, and its checkpoints are gone, so there is nothing to go on "
            f"from: delete it to train stage2.samples {config.stage2.samples} from the start"
        )
    return False


def begun(files: RunFolder, stage: str) -> bool:
    """Whether a checkpoint of the stage lies there."""
    return any(files.stage(stage).glob("step-*"))


def _same_path(old: str | None, new: str | None) -> bool:
    """Whether a path that was kept as it was typed, until November 2026, may be ``new``."""
    return old is not None and new is not None and Path(new).parts[-len(Path(old).parts) :] == Path(old).parts
