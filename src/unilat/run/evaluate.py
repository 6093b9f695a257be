"""What a finished run is worth: bits on held-out pictures, reconstructions, samples, and what each cost."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unilat import results
from unilat.files import writable, write_safetensors
from unilat.maths.rate import LN2
from unilat.metrics.classifier import train_classifier
from unilat.metrics.distances import compare
from unilat.metrics.features import FeatureNetwork
from unilat.metrics.quality import average, qualities
from unilat.metrics.reference import Looked, Reference
from unilat.recipe import config as configuration
from unilat.recipe.build import describe
from unilat.results import Bits, Classifier, Costs, Distance, Measure, Number, Outcome, Phase, Reconstruction, Results
from unilat.run import classes
from unilat.run.again import places
from unilat.run.folder import RunFolder
from unilat.run.given import PictureSet
from unilat.run.making import making, mismatches
from unilat.run.outcome import grey_psnr, judged
from unilat.run.parts import read_pictures, rows_of
from unilat.run.rate import latent_nats, measure_rate, nats_of
from unilat.run.records import Unkept
from unilat.run.reference import against, look, network_of
from unilat.run.seal import check, sealed
from unilat.run.seen import seen
from unilat.run.start import price
from unilat.run.trained import Run, Source
from unilat.signals import Pictures
from unilat.signals.pictures import distinct
from unilat.signals.stream import Streamed
from unilat.training.machine import peak_memory
from unilat.types import UserError

CURVE_BINS = 30
SHOWN = 8
JUDGED = 20_000
"""Training pictures that the classifier sees at most of a set that does not fit into memory."""
OTHER_COUNTS = 500
"""Pictures behind the distance at step counts other than the chosen one."""
Say = Callable[[str], object]


def evaluate(
    run: Run,
    source: Source | None = None,
    say: Say = lambda line: None,
    pictures: Pictures | Streamed | None = None,
    features: str | Path | None = None,
    reference: str | Path | None = None,
) -> Results:
    """Measure a run on its own held-out pictures, or on those of ``source``; ``evaluation.pictures`` of them at most.

    Copies, equal bit for bit, are measured once: an error over pictures takes them for independent. ``pictures``: what
    the run was trained from, where it is at hand already. ``features``: the feature network, in place of the
    configuration's; only here it may be a file. ``reference``: statistics of ``stats``, or a reference batch of ADM's
    (.npz), to measure samples and reconstructions against, too.

    On its own pictures, ``metrics.json`` and ``evaluation.safetensors`` are written to the run folder for the report;
    where a network is distilled, ``metrics-fast.json`` alone. Of several processes (``run.world``) all call this, and
    process 0 writes. Raises ``Unkept``, which has the results, where they cannot be kept or the base model is gone.
    """
    begun = time.perf_counter()
    for line in [*_foretold(run, source is None), *mismatches(run)]:
        say(line)
    if source is None and pictures is None:
        pictures = own_pictures(run)
    given = None if source is None else _given(run, source, say)
    test, labels = held_out(run, pictures) if given is None else (given.images, given.labels)
    test, labels, copies = _different(run, test, labels)
    arrays: dict[str, Tensor] = {"originals": test[:SHOWN]}
    network, known = network_of(run.config, features, reference, run.device)
    real = look(network, test, run.world).rows if network else None
    about = _about(run, given, test, pictures) + (f"; {copies} exact copies are left out" if copies else "")
    say(f"measuring {len(test)} pictures: {about}")
    bits = _bits(run, test, arrays)
    base_bits = None if run.base is None else _base_bits(run, test, labels if source is None else None)
    reconstruction, other_steps, made = _reconstructions(run, test, network, real, arrays)
    generation, judged, measures = None, (), against(run, known, network, made, "reconstructions", about)
    if run.base is not None:
        sampled = _samples(run, labels, say)
        generation, others = _generation(run, sampled.images, network, real, known)
        measures += others
        judged = _judged(run, sampled, pictures, (test, labels)) if source is None and pictures else ()
        arrays |= _shown(run, sampled, pictures if source is None else None, test)
    found = Results(
        pictures=about,
        features=network.protocol if network else None,
        bits=bits,
        base_bits=base_bits,
        reconstruction=reconstruction,
        other_steps=other_steps,
        generation=generation,
        classifier=judged[0] if judged and run.data.factors is None else None,
        factors=judged if run.data.factors is not None else (),
        against=measures,
        costs=_costs(run, begun),
        making=making(run),
        outcome=_outcome(run, test, bits, base_bits, reconstruction) if source is None else None,
        start=price(run) if source is None else None,
    )
    _keep(run, found, arrays, own=source is None)
    return found


def _given(run: Run, source: Source, say: Say) -> PictureSet:
    """Other pictures, and what is to be told of them."""
    given = run.read(source)
    for line in given.lines():
        say(line)
    return given


def _samples(run: Run, labels: Tensor, say: Say) -> PictureSet:
    """The samples that are measured."""
    for line in filter(None, (f"making {run.config.evaluation.samples} pictures", classes.told(run.data))):
        say(line)
    return run.sample(run.config.evaluation.samples, _of_samples(run, labels))


def _different(run: Run, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """As many of the pictures as are measured, none twice, with their labels; and how many were copies."""
    different = distinct(images)
    keep = chosen(different, run.config.evaluation.pictures)
    return images[keep], labels[keep], len(images) - len(different)


def _foretold(run: Run, own: bool) -> list[str]:
    """What is known to be missing before anything is measured."""
    lines = [_lost(run)] if _lost(run) else []
    if own and run.world.rank == 0:
        try:
            writable(run.folder)
        except UserError as error:
            lines.append(f"what is measured will be told and not kept: {error}")
    return lines


def _lost(run: Run) -> str:
    """Why there is no base model where there should be one; nothing where all is well."""
    if run.base is not None or run.config.stage2.samples == 0:
        return ""
    return (
        f"{RunFolder(run.folder).base} is not there, so nothing is sampled: bring it back, or go on with `unilat train`"
    )


def _keep(run: Run, found: Results, arrays: dict[str, Tensor], own: bool) -> None:
    """Write what belongs into the run folder; what was measured with a base model that is gone stays there."""
    if run.world.rank > 0:
        return
    files, lost = RunFolder(run.folder), _lost(run)
    try:
        if own and run.distilled:
            results.write(files.metrics_fast, found, sealed)
        elif own and not (lost and _knows_base(files.metrics)):
            write_safetensors(files.evaluation, arrays, {}, sealed)
            results.write(files.metrics, found, sealed)
    except UserError as error:
        raise Unkept(f"what was measured is not kept: {error}", found) from None
    if lost:
        raise Unkept(f"not all was measured: {lost}", found)


def _knows_base(path: Path) -> bool:
    """Whether results were measured with a base model; such as cannot be read were not."""
    try:
        return path.is_file() and results.read(path).base_bits is not None
    except UserError:
        return False


def _outcome(run: Run, test: Tensor, bits: Bits, base_bits: Number | None, reached: Reconstruction) -> Outcome:
    """Whether the run has come to what was wanted; the pictures of an autoencoder that is kept are not its doing."""
    grey = -math.inf if run.config.autoencoder.tune == "none" else grey_psnr(test)
    capacity = configuration.capacity(run.config)
    return judged(bits, base_bits, reached.psnr, grey, capacity, run.header)


def _about(run: Run, given: PictureSet | None, measured: Tensor, own: Pictures | Streamed | None) -> str:
    """What the ``measured`` pictures are to the run: held out, or of another source trained on, held out or neither."""
    if given is None:
        return f"held out of {run.data.source}, never trained on"
    try:
        own = own or own_pictures(run)
    except UserError:
        known = f"whether the run was trained on them is not known: {run.data.source} is not what it was"
    else:
        if isinstance(own, Streamed):
            known = "whether the run was trained on them was not looked at, as its own do not fit into memory"
        else:
            known = str(seen(measured, own, run.split(own)))
    return f"{given.source or 'in memory'}, {known}"


def own_pictures(run: Run) -> Pictures | Streamed:
    """What the run was trained from, read again; raises :class:`UserError` where it is no longer that."""
    data, problems = run.config.data, list[UserError]()
    found = places(data.source, run.folder)
    for place in found or [data.source]:
        try:
            pictures = read_pictures(replace(data, source=place), run.data.channels, run.data.streamed)
        except UserError as problem:  # something else of this name, unless nothing is better
            problems.append(problem)
            continue
        if pictures.sha256 == run.data.sha256:
            return pictures
    if problems and len(problems) == len(found):
        raise problems[0]
    lost = problems and not found
    what = "is no longer there" if lost else "has changed since this run was trained, so what was held out is lost"
    raise UserError(
        f"{data.source} {what}; if the pictures lie elsewhere now, train this run again with them, `out` {run.folder} "
        f"and the configuration {RunFolder(run.folder).config}: it looks whether they are the same, and remembers. "
        f"Others are measured by `unilat evaluate {run.folder} DATA`"
    )


def held_out(run: Run, pictures: Pictures | Streamed | None = None) -> tuple[Tensor, Tensor]:
    """Pictures and labels that the run was never trained on."""
    pictures = pictures or own_pictures(run)
    _, _, test = run.split(pictures)
    return rows_of(pictures, test, test), pictures.labels[test]


def chosen(rows: Tensor, wanted: int) -> Tensor:
    """``wanted`` of the rows at most, by chance but always the same."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:wanted]]


def bound(run: Run, under: str = "under the run's prior", levels: int | None = None) -> str:
    """The protocol of bits: what they bound, and at how many noise levels they were measured, by default the run's."""
    levels = run.config.evaluation.rate_levels if levels is None else levels
    if run.config.autoencoder.price == "normal" and under == "under the run's prior":
        return "upper bound on what a latent tells of its picture, its KL divergence to N(0, I) in closed form"
    return f"upper bound on what a latent tells of its picture, {under}, {levels} noise levels a picture"


def _bits(run: Run, test: Tensor, arrays: dict[str, Tensor]) -> Bits:
    """Held-out rate with its error, its map over the latent grid and its curve over noise levels."""
    ae, levels = run.config.autoencoder, run.config.evaluation.rate_levels
    z, posterior = run.encoded(test)
    estimates = run.rate(z, levels, posterior=posterior)
    closed = ae.price == "normal"
    bits = (latent_nats(ae, z, estimates, posterior) if closed else nats_of(estimates, posterior)) / LN2
    edges = torch.linspace(ae.lambda_min, ae.lambda_0, CURVE_BINS + 1)
    arrays["curve_edges"] = edges
    arrays["curve_bits"] = torch.stack([terms.curve(edges) for terms in estimates]).mean(0) / LN2
    arrays["terminal_bits"] = (
        torch.stack([terms.terminal.flatten(1).sum(1).mean() for terms in estimates]).mean()[None] / LN2
    )
    dimensions = torch.stack([terms.dimension_map() for terms in estimates]).mean(0) / LN2
    arrays["bit_map"], arrays["channel_bits"] = dimensions.sum(0), dimensions.flatten(1).sum(1)

    def repeated(rows: Tensor) -> Tensor:
        return rows[:SHOWN].repeat_interleave(64, 0)

    each = run.rate(repeated(z), 1, posterior=posterior and posterior.each(repeated))[0]
    arrays["bit_maps"] = (each.diffusion + each.terminal).unflatten(0, (-1, 64)).mean(1).sum(1) / LN2
    arrays["bits_each"] = arrays["bit_maps"].flatten(1).sum(1)
    measured = average(bits / run.kind.units, f"bits per {run.kind.unit}", bound(run))
    return Bits(target=run.config.stage1.target_bpp, measured=measured)


def _base_bits(run: Run, test: Tensor, labels: Tensor | None) -> Number:
    """The same bound under the base model, which knows the class where there are any (UL Table 5, "bpd, base").

    Its weighted training spends less on fine levels than the bound does, so this may lie above the prior's bits.
    """
    base = run.base
    assert base is not None
    z, posterior = run.encoded(test)
    table, count = run.autoencoder.rate_levels.table, run.config.evaluation.rate_levels
    cond = base.unlabelled(len(z)) if labels is None else base.condition(classes.known(run.data, labels))
    least, device, world = base.lambda_min, run.device, run.world
    given = functools.partial(measure_rate, cond=cond, posterior=posterior, device=device, world=world)
    found = given(z, base.denoise, table, least, levels=count, seed=1)
    nats = nats_of(found, posterior)
    under = "under the base model" + (" as it was before it was distilled" if run.few_base else "")
    return average(nats / LN2 / run.kind.units, f"bits per {run.kind.unit}", bound(run, under))


def _reconstructions(
    run: Run, test: Tensor, features: FeatureNetwork | None, real: Tensor | None, arrays: dict[str, Tensor]
) -> tuple[Reconstruction, tuple[Reconstruction, ...], Looked | None]:
    """PSNR, SSIM and distance with ``decoder_steps`` calls, and with the other step counts; features of the first."""
    once = run.config.autoencoder.decoder_loss == "mse" or run.few_decoder is not None  # its own number of calls
    chosen = run.decoder_steps
    rows, seen_as = dict[int, Reconstruction](), None
    for steps in sorted({chosen} if once else {*run.config.evaluation.step_counts, chosen}):
        made, distance = run.reconstruct(test, steps=steps).images, None
        if features is not None and real is not None:
            some = made if steps == chosen else made[:OTHER_COUNTS]
            looked = look(features, some, run.world, spatial=steps == chosen)
            distance = compare(real, looked.rows, protocol=features.protocol)
            seen_as = looked if steps == chosen else seen_as
        rows[steps] = Reconstruction(
            steps=steps,
            **qualities(run.kind, test, made),
            distance=distance,
        )
        arrays[f"reconstructions_{steps}"] = made[:SHOWN]
    return rows.pop(chosen), tuple(rows.values()), seen_as


def _generation(
    run: Run, made: Tensor, network: FeatureNetwork | None, real: Tensor | None, known: Reference | None
) -> tuple[Distance | None, tuple[Measure, ...]]:
    """Distance of samples to held-out pictures, and to a reference."""
    if network is None or real is None:
        return None, ()
    turns = "; classes in turn" if run.base is not None and run.base.classes else ""
    if run.data.factors is not None:
        turns = f"; of the {' and '.join(run.data.factors.names)} of each held-out picture"
    looked, how = look(network, made, run.world, spatial=True), f"{making(run).line}{turns}"
    found = compare(real, looked.rows, protocol=f"{network.protocol}; {how}")
    return found, against(run, known, network, looked, "samples", how)


def _of_samples(run: Run, labels: Tensor) -> Tensor | None:
    """Classes of the samples that are measured: in turn; of factors, those of the held-out pictures, again and again.

    So each held-out combination, of which nothing was trained on, stands beside its sample.
    """
    if run.data.factors is None:
        return None
    return classes.known(run.data, labels)[torch.arange(run.config.evaluation.samples) % len(labels)]


def _shown(run: Run, sampled: PictureSet, own: Pictures | Streamed | None, test: Tensor) -> dict[str, Tensor]:
    """The samples that a report shows, with their classes; of factors ``truths``, the pictures that they are of.

    Of two a page too: ``page`` uint8 ``[R C, ...]``, ``page_labels`` int64 ``[R, C]``, ``page_seen``: trained on.
    """
    shown = {"samples": sampled.images[:64], "sample_labels": sampled.labels[:64]}
    if run.data.factors is not None:
        shown["truths"] = test[:64].clone()
    if own is not None and (labels := classes.page(run.data)) is not None:
        made = run.sample(labels.numel(), labels.flatten()).images
        seen = torch.isin(labels, own.labels[run.split(own)[0]])
        shown |= {"page": made, "page_labels": labels, "page_seen": seen}
    return shown


def _judged(
    run: Run, sampled: PictureSet, pictures: Pictures | Streamed, real: tuple[Tensor, Tensor]
) -> tuple[Classifier, ...]:
    """The share of samples, and of ``real`` held-out pictures, whose class a classifier of the training ones names.

    Where classes are combinations of factors, a classifier for each factor that has two values or more.
    """
    seen = run.config.evaluation.classifier_samples
    named = run.base is not None and run.base.classes > 1 and len(classes.trained(run.data)) > 1
    if not named or seen <= 0 or run.world.rank > 0:
        return ()
    train, _, _ = run.split(pictures)
    known = classes.known(run.data, real[1]) >= 0
    real = (real[0][known], real[1][known])
    if isinstance(pictures, Streamed):
        train = chosen(train, JUDGED)
    images = rows_of(pictures, train, train)
    table, factors = torch.arange(len(run.classes))[:, None], run.data.factors
    names, table = (("class",), table) if factors is None else (factors.names, factors.table)
    judged = []
    for name, values in zip(names, table.T, strict=True):
        seen_as, count = values[pictures.labels[train]], int(values.max()) + 1
        if count < 2:
            continue
        judge = train_classifier(images, seen_as, count, samples=seen, device=run.device)
        shares = judge.accuracy(sampled.images, values[sampled.labels]), judge.accuracy(real[0], values[real[1]])
        judged.append(Classifier(samples=shares[0], real=shares[1], of=name))
    return tuple(judged)


def _costs(run: Run, begun: float) -> Costs:
    """Parameters and FLOPs by part; seconds and memory by phase, this evaluation among them."""
    parts = describe(run.config, run.data.channels, len(run.classes), run.data.table).parts
    check(path := RunFolder(run.folder).phases)
    phases = {phase.name: phase for phase in results.read_phases(path)}
    flops: dict[str, float] = {name: part.training_flops for name, part in parts.items()}
    if (pictures := run.header.get("encoded", "")).isdecimal():  # each was encoded once, and not at each step
        flops["encoder"] = min(flops["encoder"], parts["encoder"].forward_flops * int(pictures))
    seconds, memory = round(time.perf_counter() - begun, 2), round(peak_memory())
    phases["evaluate"] = Phase(name="evaluate", seconds=seconds, peak_memory_mib=memory)
    return Costs(
        parameters={name: part.parameters for name, part in parts.items()},
        training_flops=flops,
        phases=tuple(phases.values()),
        muon_flops={name: part.muon_flops for name, part in parts.items() if part.muon_flops},
    )
