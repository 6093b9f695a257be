"""What training may take for its own in a folder: no run is mixed with another configuration or other pictures.

What is gone of a sealed run is made again: weights from their checkpoints, ``config.json`` and ``data.json`` where they
come out as the seal names them. What is there and is not as it was written is refused, with the way out.
"""

import dataclasses
import hashlib
from dataclasses import replace
from pathlib import Path

from unilat.files import json_bytes
from unilat.recipe.config import RunConfig
from unilat.run import seal
from unilat.run.facts import Facts
from unilat.run.folder import RunFolder
from unilat.training.plan import Saved, Stage
from unilat.types import UserError


def ready(config: RunConfig, folder: Path) -> bool:
    """Seal a new folder, check what lies in an older one; whether it holds anything that another run would mix with.

    Raises :class:`UserError` for a file that is not as it was written, and for one that is gone and cannot be made
    again: which pictures and settings the others are of is then not known.
    """
    files, known = RunFolder(folder), seal.read(folder)
    seal.forget_gone(folder)
    used = (files.manifest, files.data, files.log, files.phases, files.autoencoder, files.base)
    seal.check(*(path for path in used if path.exists()))
    told = files.data.name in (known or {})
    begun = told or any(path.exists() for path in files.trained)
    if files.config.exists():
        if begun and not told and not files.data.exists():
            raise UserError(
                f"{files.data} is gone, so nobody knows which pictures this run was trained on: bring it back, or "
                "choose another `out`"
            )
        return begun
    if known is None and any(path.suffix != ".part" and path.name != ".lock" for path in folder.iterdir()):
        raise UserError(f"{folder} is not empty and no run folder: choose another `out`")
    if begun and not seal.holds(files.config, json_bytes(dataclasses.asdict(config))):
        seal.check(files.config)
    seal.begin(folder)
    return begun


def refuse_other(path: Path, facts: Facts) -> None:
    """Raise :class:`UserError` where ``data.json`` is gone and ``facts`` are not what it held."""
    if not path.exists() and seal.problem(path) and not seal.holds(path, json_bytes(facts.to_json())):
        raise UserError(
            f"{path} is gone, and the pictures of {facts.source} are not those that it told of, or are split in "
            "another way: bring it or the pictures back, or choose another `out`"
        )


def origin(config: RunConfig, pictures: str) -> str:
    """What tells a run's checkpoints from another's: SHA-256 over that of its pictures, its networks and its aim."""
    aim = [config.stage1.target_bpp, config.stage1.loss_factor]
    networks = dataclasses.asdict(config.autoencoder)
    for name, value in {"foreign": None, "tune": "all"}.items():  # which runs of before December 2026 do not know
        if networks[name] == value:
            del networks[name]
    parts = [pictures, networks, dataclasses.asdict(config.base), aim]
    return hashlib.sha256(json_bytes(parts)).hexdigest()


def owned(stage: Stage, origin: str) -> Stage:
    """``stage`` whose checkpoints name their ``origin``: those of another one are refused with a :class:`UserError`.

    Those of before November 2026 name none, and are taken.
    """

    def load_state(state: Saved) -> None:
        if state.get("origin", origin) != origin:
            raise UserError(
                f"the checkpoints of {stage.name} are another run's, of other pictures, networks or bits: bring this "
                "run's back, or delete that folder"
            )
        stage.load_state({name: value for name, value in state.items() if name != "origin"})

    return replace(stage, state=lambda: {**stage.state(), "origin": origin}, load_state=load_state)
