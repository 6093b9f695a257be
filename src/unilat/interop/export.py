"""A finished run handed over to other people's tools: one folder, whole or not at all.

unilat.export("runs/photos", "diffusers", out="export/")
unilat.export("runs/photos", "latents", out="latents/", data="more-photos/", format="npy")
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from unilat.files import read_json, whole_folder, write_json
from unilat.interop import card, hub, to_comfyui, to_diffusers, to_latents, to_onnx
from unilat.interop.space import space_of
from unilat.nets.foreign import ForeignConfig
from unilat.run.folder import RunFolder
from unilat.run.trained import Run, Source, load
from unilat.types import UserError

Target = Literal["diffusers", "onnx", "comfyui", "latents"]
Format = Literal["safetensors", "npy"]
FORMAT = "unilat export 1"
MARK = "unilat.json"
"""The file by which an export is known as one, and the files of which are ours."""
Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    out: Path
    to: Target
    files: tuple[str, ...]
    """Paths below ``out``."""
    notes: tuple[str, ...] = ()
    """What its user should know, a sentence each."""
    difference: float | None = None
    """Largest difference of what onnxruntime and torch make of the same, of numbers in about [-1, 1]; None elsewhere,
    and where onnxruntime is not installed."""

    pushed: str | None = None
    """Where on the hub it lies too."""

    def to_json(self) -> dict[str, object]:
        """As ``--json`` prints it."""
        return asdict(self)


def export(
    run: Run | str | Path,
    to: Target,
    out: str | Path,
    *,
    data: Source | None = None,
    format: Format = "safetensors",
    licence: str = card.UNKNOWN,
    push: str | None = None,
    say: Say = lambda line: None,
) -> Exported:
    """Write ``run`` to the folder ``out`` for another tool; `unilat distill`'s networks where the run was loaded so.

    ``data``: of latents, pictures in place of those that the run was trained on; ``format``: their files. ``licence``:
    a name as model cards have it. ``push``: a repository of the Hugging Face hub, ``name`` or ``owner/name``, that gets
    the folder too; one that is not there is made, private. Raises :class:`UserError` for a run that is not finished, a
    format that is none, an ``out`` with anything in it that is not an older export, and packages that are missing.
    """
    out = Path(out)
    if to not in get_args(Target):
        raise UserError(f"`to` must be one of {', '.join(get_args(Target))}, not {to!r}")
    if format not in get_args(Format):
        raise UserError(f"`format` must be one of {', '.join(get_args(Format))}, not {format!r}")
    if to != "latents" and (data is not None or format != "safetensors"):
        raise UserError(
            f"pictures and a `format` are of an export to latents: leave them out, or give `to` latents, not {to}"
        )
    card.check_licence(licence)
    if push is not None:
        hub.check_name(push)
    check_place(out)
    if to == "onnx":
        to_onnx.check_packages()
    run = run if isinstance(run, Run) else load(run)
    if (foreign := run.config.autoencoder.foreign) is not None:
        _check_foreign(run, foreign, to)
    try:
        with whole_folder(out) as folder:
            found = _written(run, to, folder, data, format, licence, say)
            files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
            told = {"to": to, "encoder_sha256": run.encoder_sha256, "files": files}
            write_json(folder / MARK, {"format": FORMAT, **told})
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}): choose another `out`") from None
    place = None if push is None else hub.push(out, push)
    return Exported(out=out, to=to, files=(*files, MARK), notes=found[0], difference=found[1], pushed=place)


def _check_foreign(run: Run, foreign: ForeignConfig, to: Target) -> None:
    """Raise :class:`UserError` for what is not written of a run that started from somebody's autoencoder."""
    own = foreign.decoder == "own"
    if to in ("latents", "onnx") or (to == "diffusers" and own):
        return
    way = (
        "`to` diffusers writes it again, as it was tuned"
        if own
        else "hand that folder over, and what was trained on it as `to` latents or onnx, or train with keep_decoder"
    )
    raise UserError(f"{run.folder} started from an {foreign.kind}, which is not written `to` {to}: {way}")


def _written(
    run: Run, to: Target, folder: Path, data: Source | None, format: Format, licence: str, say: Say
) -> tuple[tuple[str, ...], float | None]:
    """Write the files of one format; notes, and the difference that onnxruntime makes."""
    notes, difference, foreign = _notes(run, to), None, run.config.autoencoder.foreign
    if to == "latents":
        space, load_text, more = to_latents.write(run, folder, data, format, say)
        notes += more
    elif to == "diffusers" and foreign is not None:
        space, load_text = None, to_diffusers.OWN_LOAD.replace("KIND", foreign.kind)
        to_diffusers.write_own(run, foreign, folder / "vae")
    else:
        space = space_of(run)
        if to == "onnx":
            difference = to_onnx.write(run, space, folder)
            load_text = to_onnx.load_text(run, difference)
            notes += () if difference is not None else (to_onnx.UNCHECKED,)
        else:
            to_diffusers.write(run, space, folder)
            load_text = to_diffusers.load_text(run)
        if to == "comfyui":
            to_comfyui.write(folder)
            load_text = f"{to_comfyui.LOAD}\n\nThe folder is one for diffusers too:\n\n{load_text}"
    library = "onnx" if to == "onnx" else "diffusers"
    (folder / "README.md").write_bytes(card.card(run, space, licence, library, load_text, notes).encode())
    for line in notes:
        say(line)
    return notes, difference


def _notes(run: Run, to: Target) -> tuple[str, ...]:
    if run.config.autoencoder.foreign is not None and to == "diffusers":
        return to_diffusers.own_notes(run)
    if run.base is not None or to == "latents":
        return ()
    return ("The run has no base model (stage 2 was not trained), so this is its autoencoder alone.",)


def check_place(out: Path) -> None:
    """Raise :class:`UserError` unless ``out`` is new, empty, or an older export with nothing else in it."""
    place = out.resolve()
    owner = next((folder for folder in place.parents if RunFolder(folder).owns(place)), None)
    if owner is not None:
        raise UserError(f"{out} belongs to the run {owner}: choose another `out`")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose another `out`")
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} if out.exists() else set()
    there = {name for name in there if "__pycache__" not in name.split("/")}
    if not there:
        return
    mark = _mark(out)
    if mark is None:
        raise UserError(f"{out} is not empty and no export of unilat: choose another `out`")
    if others := sorted(there - mark):
        raise UserError(f"{out} holds files beside an older export ({others[0]}): choose another `out`")


def _mark(out: Path) -> set[str] | None:
    """The files of an older export in ``out``; None where it is none."""
    try:
        tree = read_json(out / MARK)
    except UserError:
        return None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT or not isinstance(tree.get("files"), list):
        return None
    return {MARK, *(name for name in tree["files"] if isinstance(name, str))}
