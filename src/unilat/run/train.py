"""The main job: from pictures to an autoencoder of the wanted bits, a base model on its latents, figures and a report.

    load → split → stage 1 → encode → stage 2 → evaluate → report

Every step leaves its result in the run folder, whole or not at all; run again, the job goes on where it stopped.
"""

import contextlib
import dataclasses
import functools
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unilat.fields import FieldError
from unilat.files import read_json, read_safetensors, sweep, write_json, write_safetensors
from unilat.maths.rate import LN2
from unilat.maths.seeds import key
from unilat.models.latents import LatentSet, fingerprint
from unilat.models.price import Charge
from unilat.models.shards import LatentShards, Seal, of_data, open_shards, take_shards, write_shards
from unilat.recipe import config as configuration
from unilat.recipe.build import build_autoencoder, build_base, describe
from unilat.recipe.config import RunConfig
from unilat.report import page
from unilat.results import Results
from unilat.run import again, start
from unilat.run.claim import origin, owned, ready, refuse_other
from unilat.run.encoded import bytes_held, encoded_once
from unilat.run.evaluate import chosen, evaluate
from unilat.run.facts import Facts
from unilat.run.folder import RunFolder
from unilat.run.parts import names_of, part, read_pictures, rows_of, split_pictures
from unilat.run.phases import phase
from unilat.run.rate import latent_nats
from unilat.run.records import Begun, Note, Tell, ignore
from unilat.run.reference import network_of
from unilat.run.seal import forget_gone, grown, remark, sealed
from unilat.run.showing import shown_reconstructions, shown_samples
from unilat.run.stages import AutoencoderStage, base_stage, schedule, settling
from unilat.run.trained import Run, load, read_config
from unilat.run.unreadable import unreadable_told
from unilat.signals import Pictures, kind_of, located
from unilat.signals.factors import untrained
from unilat.signals.stream import Streamed
from unilat.training import checkpoint
from unilat.training.capture import captures
from unilat.training.checkpoint import lock
from unilat.training.engine import fit
from unilat.training.fast import Choices, applied, compiles, line, resolved, same_twice, seconds_of_compiling
from unilat.training.journal import Log
from unilat.training.machine import Manifest, manifest, pick_device
from unilat.training.micro import MicroBatch
from unilat.training.parallel import ALONE, World, join
from unilat.training.plan import Schedule, Stage
from unilat.types import UserError

__all__ = ["LatentSet", "Run", "describe", "evaluate", "load", "train"]

READERS = max(1, (os.cpu_count() or 1) - 1)
"""Processes that read streamed pictures where nobody says how many."""
SAMPLED = 2**26
"""Numbers of pictures, 256 MiB in float32, that the range and scale which stage 1 starts from are taken of."""


def train(
    config: RunConfig,
    folder: Path,
    progress: Tell = ignore,
    device: str = "auto",
    charge: Charge | None = None,
    choices: Choices | None = None,
    features: str | Path | None = None,
    shows: bool = False,
) -> Results | None:
    """Run the main job in ``folder`` and return its results, also in ``metrics.json``; None from torchrun's others.

    ``progress`` gets every record (``run/records.py``), with ``shows`` also pictures. ``charge`` is what
    stage 1 minimises in place of the rate (``models/price.py``); give the same when you go on. ``choices`` are the
    machine's (``training/fast.py``). ``features``: as :func:`~unilat.run.evaluate.evaluate` takes it. Raises
    :class:`UserError` for anything a user can mend, among it a folder that holds a run of another configuration, and
    training that has diverged, whose results are kept with that mark.
    """
    config = again.placed(config)
    configuration.check(config)
    if len(config.autoencoder.encoder.patch) != 2:
        raise UserError("this configuration is for video, and only pictures are read so far: take another `preset`")
    network_of(config, features, None)  # a mistake in its name is told now, not after the training
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another `out`")
    place = pick_device(device)
    chosen = resolved(choices or Choices(), place)
    world = join(place)
    with contextlib.ExitStack() as stack:
        if world.rank == 0:
            stack.enter_context(lock(folder))
            _claim(config, folder, manifest(str(place)), chosen)
            if unsealed := remark(folder):
                progress(Note(unsealed))
        world.meet()  # the others begin when the folder is claimed
        how = _How(progress if world.rank == 0 else ignore, device, chosen, world, features=features, shows=shows)
        how.tell(Begun(config=config, folder=folder))
        return _train(config, folder, how, charge)


@dataclass(frozen=True)
class _How:
    """What every stage needs besides what it is about."""

    tell: Tell
    device: str
    choices: Choices
    world: World = ALONE
    origin: str = ""
    """What the run's checkpoints are of."""
    features: str | Path | None = None
    """Network behind the distances, in place of the configuration's."""
    shows: bool = False
    """Whether pictures are told while networks train."""


def _train(config: RunConfig, folder: Path, how: _How, charge: Charge | None) -> Results | None:
    tell, device, world = how.tell, how.device, how.world
    _phase = functools.partial(phase, rank=world.rank)
    with _phase(folder, "read pictures"):
        tell(Note(f"reading {config.data.source}"))
        before = read_json(files.data) if (files := RunFolder(folder)).data.is_file() else {}
        streamed = before.get("streamed", False) if isinstance(before, dict) and before else None
        pictures = read_pictures(config.data, config.data.channels, streamed)
        if isinstance(pictures, Streamed) and not pictures.resident:
            tell(Note(f"{len(pictures):,} pictures do not fit into memory: read as they are needed"))
        for note in (*pictures.notes, *start.colours(config, pictures.converted)):
            tell(Note(note))
        indices = split_pictures(config, pictures)
        _remember(folder, pictures, indices, how)
        how = replace(how, origin=origin(config, pictures.sha256))
        if world.rank == 0:
            standing = again.standing(read_config(folder), config, files)
            write_json(files.config, configuration.to_dict(standing), sealed)
    with unreadable_told(folder, pictures, tell, world.rank):
        with same_twice(how.choices, pick_device(device)):
            with _phase(folder, "stage 1"):
                if config.stage1.autoencoder is None:
                    _stage1(config, folder, pictures, indices, how, charge)
                else:
                    _take_over(config, folder, pictures, world)
            world.meet()  # the first has written
            if config.stage2.samples > 0:
                run = load(folder, device)
                run.world = world
                with _phase(folder, "encode"):
                    latents = _latents(run, pictures, indices[0], tell)
                with _phase(folder, "stage 2"):
                    _stage2(config, folder, latents, run, how)
                if world.rank == 0:
                    write_json(files.config, configuration.to_dict(config), sealed)
            world.meet()
        run = load(folder, device)
        run.world = world
        with _phase(folder, "evaluate"):
            results = evaluate(run, say=lambda text: tell(Note(text)), pictures=pictures, features=how.features)
        if world.rank > 0:
            return None  # the first process reports
        page.write(folder)
        if results.outcome and results.outcome.verdict == "diverged":
            raise FieldError(f"{results.outcome.reason} (what it came to is in {folder}, marked as diverged)")
        return results


def _claim(config: RunConfig, folder: Path, machine: Manifest, choices: Choices) -> None:
    """Make the run folder, or refuse one of another configuration, naming what differs.

    A folder in which no pictures were read yet has nothing to lose: after a mistake in the first command the mended one
    may take it.
    """
    files, begun = RunFolder(folder), ready(config, folder)
    if files.config.is_file():
        found = read_config(folder)
        if begun:
            again.refuse_other(folder, found, config)
    if not (begun and files.config.is_file()):  # else it stays until the pictures are known to be the same
        write_json(files.config, configuration.to_dict(config), sealed)  # first: it makes the folder a run folder
    sweep(folder)
    for name in ("stage1", "prior", "stage2"):  # those that have ended are not opened again
        checkpoint.sweep(files.stage(name))
    if not files.manifest.is_file():
        write_json(files.manifest, dataclasses.asdict(machine) | dataclasses.asdict(choices), sealed)


def _remember(folder: Path, pictures: Pictures | Streamed, indices: tuple[Tensor, Tensor, Tensor], how: "_How") -> None:
    """What was read, or a refusal where it is not what this run began with."""
    bare = untrained(pictures.labels[indices[0]], len(pictures.classes), pictures.factors)
    facts = Facts(
        source=pictures.source,
        count=len(pictures),
        train=len(indices[0]),
        calibration=len(indices[1]),
        test=len(indices[2]),
        classes=tuple(pictures.classes),
        untrained=tuple(pictures.classes[number] for number in bare),
        factors=pictures.factors,
        size=pictures.size,
        channels=pictures.channels,
        streamed=isinstance(pictures, Streamed),
        sha256=pictures.sha256,
        skipped=len(pictures.skipped),
        converted=pictures.converted,
    )
    path = RunFolder(folder).data
    before = read_json(path) if path.is_file() else {}
    if isinstance(before, dict) and before.get("sha256", pictures.sha256) != pictures.sha256:
        raise UserError(
            f"{pictures.source} has changed since {folder} was begun: choose another `out`, or bring the pictures back"
        )
    known = before.get("unreadable") if isinstance(before, dict) else None
    place = before.get("source") if isinstance(before, dict) else None
    if isinstance(place, str) and pictures.source not in (place, located(place)):
        how.tell(Note(f"the pictures lie in {pictures.source} now, no longer in {place}; their content is the same"))
    facts = replace(facts, unreadable=known if isinstance(known, dict) else {})
    refuse_other(path, facts)
    how.world.meet()  # all have read what was there
    if how.world.rank == 0:
        write_json(path, facts.to_json(), sealed)


def _stage1(
    config: RunConfig,
    folder: Path,
    pictures: Pictures | Streamed,
    indices: tuple[Tensor, Tensor, Tensor],
    how: _How,
    charge: Charge | None,
) -> None:
    path = (files := RunFolder(folder)).autoencoder
    if path.is_file():
        return
    reads = isinstance(pictures, Streamed) and not pictures.resident
    if isinstance(pictures, Streamed):
        pictures.keep(indices[0])
    images = part(pictures, indices[0], config.seed)
    some = min(len(images), 4096, max(256, SAMPLED // images.shape[1:].numel()))
    sample = kind_of(images.shape).to_unit(images[torch.linspace(0, len(images) - 1, some).long()])
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp_min(0.05)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, "stage1"))
        model = build_autoencoder(config, images.shape[1], mean, std, charge)
    aim, own = configuration.aim(config), dict[str, str]()
    calibration = rows_of(pictures, indices[1], indices[1])
    if config.stage1.start is None:
        if config.stage1.unit_scale:
            model.start_at_unit_scale(sample[:256])
    else:
        test = functools.partial(rows_of, pictures, indices[2], indices[2])
        at = {"device": pick_device(how.device), "tell": how.tell, "rank": how.world.rank, "chosen": chosen}
        own = start.begin(model, config, files, sample, test, **at)
    stage = AutoencoderStage(model, images, calibration, config.stage1, aim, config.data.flip)
    if model.encoder.scale is not None and not again.begun(files, "stage1"):
        stage.trim(model.eval(), target=aim)  # so that training begins near the wanted bits
    counted = describe(config, images.shape[1]).parts
    seen, each = config.stage1.samples, config.stage1.batch
    flops = sum(counted[part].training(seen, each) for part in ("encoder", "prior", "decoder") if part in counted)
    named = replace(stage.stage(), names=lambda some: names_of(pictures, indices[0][some]))
    once = 0 if how.choices.shard else bytes_held(stage)  # where weights are shared out nobody has the encoder alone
    named = encoded_once(named, stage, how.world, lambda text: how.tell(Note(text))) if once else named
    named = shown_reconstructions(named, stage, config, how.tell) if how.shows else named
    samples = _fit(named, schedule(config.stage1), folder, config.seed, how, flops, READERS if reads else 0)
    if config.stage1.settle and config.autoencoder.price != "normal":
        flops = counted["prior"].training(config.stage1.settle, config.stage1.settle_batch)
        _fit(stage.settled(), settling(config.stage1), folder, config.seed, how, flops)
    how.tell(Note("trimming the latents' scale to the wanted bits"))
    trimmed = {name: f"{value:.6g}" for name, value in stage.trim(model.eval()).items()}
    header = {"encoder_sha256": fingerprint(model.encoder), "samples": str(samples), **trimmed, **own}
    header |= {"encoded": f"{stage.count}"} if once else {}
    if how.world.rank == 0:
        write_safetensors(path, model.state_dict(), header, sealed)


def _take_over(config: RunConfig, folder: Path, pictures: Pictures | Streamed, world: World = ALONE) -> None:
    """Another run's autoencoder as it is; refused where its networks or pictures are of another kind."""
    other = load(Path(config.stage1.autoencoder or ""), "cpu")
    differs = configuration.differences(replace(config, autoencoder=other.config.autoencoder), config)
    if pictures.kind != other.kind:
        differs.append(f"pictures: {list(other.kind.shape)} and {list(pictures.kind.shape)}")
    if differs:
        raise UserError(f"the autoencoder of {other.folder} does not fit this run ({'; '.join(differs)})")
    path = RunFolder(folder).autoencoder
    if world.rank == 0 and not path.is_file():
        write_safetensors(path, *read_safetensors(other.files.autoencoder), sealed)


def _fit(stage: Stage, plan: Schedule, folder: Path, seed: int, how: _How, flops: float, workers: int = 0) -> int:
    """Train a stage in its part of the run folder, leave the averaged weights in its model, return the samples seen."""
    files, place, workers = RunFolder(folder), pick_device(how.device), how.choices.workers or workers
    compiled, why = compiles(how.choices, flops, place)
    capture, of_capture = captures(how.choices, stage, plan, flops, place, how.world.size)
    why = f"{of_capture}, {why}" if of_capture else why
    how.tell(Note(f"{stage.name}: networks {line(how.choices, compiled, why, place)}"))
    micro = _micro_batch(stage.name, folder, how, place.type == "cuda")
    machine = {"device": how.device, "workers": workers, "capture": capture, "noise": how.choices.noise}
    machine |= {"shard": how.choices.shard}
    before = seconds_of_compiling() if compiled else 0.0
    with applied(stage.model, how.choices, compiled, place):
        path, log = files.stage(stage.name), Log(files.log, sealed, grown)
        plan = plan.saved_every(how.choices.save_every)
        ours = owned(stage, how.origin) if how.origin else stage
        done = fit(ours, plan, path, seed, log=log, progress=how.tell, micro=micro, **machine)
        if compiled:
            how.tell(Note(f"{stage.name}: compiling took {seconds_of_compiling() - before:.0f} s of it"))
    stage.model.load_state_dict(done.ema)
    return done.samples


def _micro_batch(stage: str, folder: Path, how: _How, search: bool) -> MicroBatch:
    """What is computed at a time: as asked, else as the manifest remembers it, else on a GPU what is found to fit."""
    path = RunFolder(folder).manifest
    tree = read_json(path) if path.is_file() else {}
    tree = tree if isinstance(tree, dict) else {}
    there = tree.get("micro_batches")
    kept = {name: size for name, size in there.items() if type(size) is int} if isinstance(there, dict) else {}

    def found(size: int) -> None:
        how.tell(Note(f"{stage}: in micro-batches of {size}, which fit into memory"))
        if os.environ.get("RANK", "0") == "0":
            write_json(path, tree | {"micro_batches": kept | {stage: size}}, sealed)

    asked = how.choices.micro_batch
    return MicroBatch(asked or kept.get(stage, 0), search and not asked, found)


def _latents(run: Run, pictures: Pictures | Streamed, train_indices: Tensor, tell: Tell) -> LatentShards:
    """Training pictures' latents: those in the folder, another run's where they are the same, the rest made now."""
    seal = Seal(
        encoder_sha256=run.encoder_sha256,
        data_sha256=of_data(pictures.sha256, train_indices),
        lambda_0=run.config.autoencoder.lambda_0,
        pixels=run.pixels,
        count=len(train_indices),
    )
    folder, other = RunFolder(run.folder).latents, run.config.stage1.autoencoder
    first = run.world.rank == 0
    if other is not None and first and take_shards(RunFolder(Path(other)).latents, folder, seal):
        tell(Note(f"the latents of {other} are of these pictures and this encoder: taken from there"))
    run.world.meet()
    if (there := open_shards(folder, seal)) is not None:
        return there

    def make(first: int, last: int) -> LatentSet:
        tell(Note(f"encoding {last - first} pictures of {len(train_indices)}"))
        rows = train_indices[first:last]
        z, posterior = run.encoded(rows_of(pictures, rows, train_indices), start=first)
        bits = latent_nats(run.config.autoencoder, z, run.rate(z, 1, first, posterior), posterior) / LN2
        names = names_of(pictures, rows)
        origin = (seal.lambda_0, seal.encoder_sha256, seal.pixels)
        found = LatentSet(z, bits, pictures.labels[rows], *origin, names=names, classes=pictures.classes)
        return found if posterior is None else replace(found, moments=posterior.moments())

    return write_shards(folder, seal, make, writes=first, wait=run.world.meet)


def _spread(latents: LatentSet | LatentShards) -> tuple[Tensor, Tensor]:
    """Latents and classes, all of them or as many, evenly spread, as :data:`SAMPLED` numbers hold."""
    some = min(len(latents.z), max(1, SAMPLED // math.prod(latents.z.shape[1:])))
    rows = torch.linspace(0, len(latents.z) - 1, some).round().long()
    return latents.z[rows], latents.labels[rows]


def _stage2(config: RunConfig, folder: Path, latents: LatentSet | LatentShards, run: Run, how: _How) -> None:
    path, data = RunFolder(folder).base, run.data
    if again.has_base(config, RunFolder(folder)):
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, "stage2"))
        model = build_base(config, list(data.classes), latents.mean, latents.std.clamp_min(0.01), data.table)
    model.begin(*_spread(latents))
    if config.autoencoder.learned_variance and latents.moments is None:
        how.tell(Note("these latents were encoded by an earlier unilat: one draw a picture for all of stage 2"))
    stage = base_stage(model, latents.z, latents.labels, config.stage2.levels, latents.moments)
    stage = shown_samples(stage, run, config, how.tell) if how.shows else stage
    counted = describe(config, data.channels, len(data.classes), data.table).parts
    flops = counted["base"].training_flops if "base" in counted else 0.0
    samples = _fit(stage, schedule(config.stage2), folder, config.seed, how, flops)
    header = {"encoder_sha256": latents.encoder_sha256, "samples": str(samples)}
    if how.world.rank == 0:
        write_safetensors(path, model.state_dict(), header, sealed)
        RunFolder(folder).metrics_fast.unlink(missing_ok=True)  # of the base model that was shorter trained
        forget_gone(folder)
