"""The commands beside the main job: `distill`, and those that check: `verify`, `compare`, `audit`, `bench`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import DisallowNone, Positional, arg

if TYPE_CHECKING:
    from unilat.cli.output import Output
    from unilat.recipe.config import RunConfig
    from unilat.studies.phases import Data

Json = Annotated[bool, arg(help="Print one JSON object on standard output instead of text.")]


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Make a decoder, or a base model, of few steps from a run's own; the full one stays.

        unilat distill runs/glyphs
        unilat distill runs/glyphs --steps 2
        unilat distill runs/glyphs --part base --steps 4
        unilat sample runs/glyphs --decoder fast --base fast

    The student learns to land in each of its calls where several calls of its teacher do. The base
    model is distilled under the guidance that the run is set to, and keeps it. The result lies in the
    run folder; `decode`, `reconstruct`, `sample` and `evaluate` take it with --decoder fast, --base
    fast."""

    run: Positional[Annotated[Path, arg(metavar="RUN", help="Run folder that `unilat train` wrote.")]]
    part: Literal["decoder", "base"] = "decoder"
    """The network that shall need fewer calls."""
    steps: Annotated[DisallowNone[int | None], arg(metavar="STEPS")] = None
    """Calls of the student. By default 1 for the decoder, 4 for the base model."""
    teacher_steps: Annotated[DisallowNone[int | None], arg(metavar="STEPS")] = None
    """Calls of the teacher, a multiple of --steps. By default 8 for the decoder, 20 for the base model."""
    samples: Annotated[DisallowNone[int | None], arg(metavar="N")] = None
    """Pictures or latents seen in training. By default 8,000 and 4,000."""
    truth: Annotated[DisallowNone[float | None], arg(metavar="WEIGHT")] = None
    """Weight of the real picture beside the teacher's, in a decoder's last call. By default 1."""
    precision: Literal["auto", "bf16", "tf32", "float32"] = "auto"
    """Of the networks; weights and losses stay float32. By default bf16 on a GPU, float32 on a CPU."""
    checkpointing: bool = False
    """Compute the inside of the student's blocks again in the backward pass: less memory, more time."""
    json: Json = False

    def execute(self) -> None:
        """Distil; print where it lies."""
        from dataclasses import replace

        from unilat.cli.output import Output
        from unilat.cli.progress import TrainingProgress
        from unilat.run.distill import DEFAULTS, distill
        from unilat.training.fast import Choices

        given = {name: getattr(self, name) for name in ("steps", "teacher_steps", "samples", "truth")}
        config = replace(DEFAULTS[self.part], **{name: value for name, value in given.items() if value is not None})
        with Output(self.json) as output:
            output.unsealed(self.run)
            with TrainingProgress(output.console) as progress:
                choices = Choices(precision=self.precision, checkpointing=self.checkpointing)
                found = distill(self.run, config, progress, choices=choices)
            calls = f"{found.steps} call{'s' if found.steps > 1 else ''} for {found.teacher_steps}"
            how = f"temperature {found.temperature:g}" if found.guidance is None else f"guidance {found.guidance:g}"
            text = f"{self.part} of {calls} at {how}, {found.samples:,} paths in {found.seconds:.0f} s: {found.path}"
            output.result(found.to_json(), text + f"\nmeasure it: unilat evaluate {self.run} --{self.part} fast")


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check that bits are true: against closed forms, or those of a run.

        unilat verify
        unilat verify runs/glyphs
        unilat verify runs/glyphs --samples 200000

    Without RUN: Gaussians and mixtures whose bits are known, measured with exact denoisers and with
    priors that are trained here; one to two minutes. With RUN: its held-out bits again with other
    seeds, with noise levels placed uniformly, and under a larger prior refitted on its training
    latents. What the run's prior pays above that one is its slack. The refit lies in RUN/verify/ and
    goes on where it stopped; the result is RUN/verify.json.

    Exit code 1 where a row of the suite fails, where seeds or placings disagree by more than 3
    standard errors, or where the slack is above 2 %."""

    run: Positional[
        Annotated[
            DisallowNone[Path | None],
            arg(metavar="RUN", help="Run folder that `unilat train` wrote. By default the oracle suite."),
        ]
    ] = None
    samples: int = 48_000
    """Latents that the refitted prior sees; more of them find more of the slack, and take longer."""
    seed: int = 0
    """Seed of everything random; 0 gives the same numbers each time."""
    json: Json = False

    def execute(self) -> None:
        """Measure, print the table, and end with exit code 1 where something fails."""
        from unilat.cli.output import Output
        from unilat.fields import at_least

        at_least(1, self.samples, "samples")
        with Output(self.json) as output:
            holds = _verify_run(self, self.run, output) if self.run else _verify_oracles(self.seed, output)
        if not holds:
            raise SystemExit(1)


def _verify_oracles(seed: int, output: "Output") -> bool:
    from unilat.cli.tables import oracle_table
    from unilat.studies.oracle import suite

    found = suite(seed, output.say)
    output.result(found.to_json(), oracle_table(found))
    return found.holds


def _verify_run(options: Verify, folder: Path, output: "Output") -> bool:
    import unilat
    from unilat.cli.progress import TrainingProgress
    from unilat.cli.tables import verify_table
    from unilat.studies.verify import verify_run

    output.unsealed(folder)
    with TrainingProgress(output.console) as progress:
        found = verify_run(unilat.load(folder), options.samples, options.seed, progress)
    output.result(found.to_json(), verify_table(found))
    return found.holds


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Put runs side by side: one table, one HTML page, curves laid over each other.

    Numbers share a column only where they were measured by one protocol: the same held-out pictures,
    as many of them, the same decoder calls, the same feature network. Others get a column of their
    own, and a line says what differs. Fields set differently are listed.

        unilat compare runs/a runs/b
        unilat compare runs/a runs/b runs/c --out three.html --json"""

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN RUN ...")]]
    """Two to eight run folders that `unilat train` wrote."""
    out: Annotated[Path, arg(metavar="HTML")] = Path("compare.html")
    """Page to write."""
    json: Json = False

    def execute(self) -> None:
        """Compare, write the page, print the table."""
        from unilat.cli import places
        from unilat.cli.output import Output
        from unilat.cli.tables import comparison_table
        from unilat.studies.compare import compare

        with Output(self.json) as output:
            output.changed(*self.runs)
            table = compare(self.runs, places.for_page(self.out))
            output.result(table.to_json(), comparison_table(table))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Train a run for each wanted bits, latent grid and base size; see what is efficient.

        unilat sweep photos/ --target-bpp 0.05,0.1,0.2 --base small,medium --out sweeps/photos
        unilat sweep fashion-mnist --target-bpp 0.1,0.2 --grid 8x8x8,16x16x2 --seeds 2 --out sweeps/f
        unilat sweep photos/ --target-bpp 0.1,0.2 --size 64 --out sweeps/photos --dry-run

    Every run has an ordinary run folder in FOLDER. Runs of equal bits, grid and seed share one
    autoencoder and its latents. FOLDER/sweep.html, written anew after each run, shows bits against
    PSNR, reconstruction and generation distance for each base model, and which runs no other beats
    in training FLOPs and distance. The same command again goes on where it stopped, and bits, grids,
    sizes and seeds may be added. A run that diverges is marked, and the others go on.

    All other options of `unilat train` (--size, --preset, --stage1.samples, --seed, ...) go for every
    run."""

    data: Positional[Annotated[str, arg(metavar="DATA")]]
    """The pictures, as for `unilat train`."""
    target_bpp: Annotated[str, arg(aliases=["--bpp"], metavar="BITS,BITS")]
    """Wanted bits per pixel, separated by commas."""
    base: Annotated[str, arg(metavar="NAME,NAME")] = "small"
    """Sizes of the base model: tiny, small, medium, large. small is the preset's own, the
    others need about 1/4, 3 and 8 times its FLOPs. tiny@500000 is trained on so many
    latents instead of --stage2.samples."""
    grid: Annotated[str, arg(metavar="HxWxC,HxWxC")] = ""
    """Height x width x channels of a latent, 8x8x8,16x16x2. By default the preset's own."""
    seeds: Annotated[int, arg(metavar="N")] = 1
    """Runs of everything, with seeds counted from --seed on."""
    out: Annotated[DisallowNone[Path | None], arg(metavar="FOLDER")] = None
    """Folder to write or to go on with."""
    dry_run: bool = False
    """Print every run's parameters, FLOPs and estimated minutes, and stop. The first run's steps are timed."""
    json: Json = False

    def execute(self) -> None:
        """Only what ``--help`` shows; :mod:`unilat.cli.sweep` reads the options of its runs too and executes them."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Tell what is whole of a run folder or of pictures, what is not, and what to do.

        unilat doctor runs/photos
        unilat doctor photos/ --size 128

    Of a run: whether every file is as the run wrote it (its seal, and the checksums of weights, latents
    and checkpoints), whether all fit together, what is missing, and what killed processes left behind.
    Of pictures: which cannot be read, and what `unilat data look` finds. Nothing is changed.

    Exit code 0 where all is whole, 1 where anything is wrong."""

    source: Positional[Annotated[str, arg(metavar="RUN|DATA")]]
    """Run folder, or pictures as for `unilat train`."""
    size: Annotated[DisallowNone[str | None], arg(metavar="PIXELS")] = None
    """Side of the pictures, 64, or height x width, 96x128. By default the source's own; a run has its size."""
    json: Json = False

    def execute(self) -> None:
        """Look, print, and end with exit code 1 where anything is wrong."""
        from unilat.cli.output import Output
        from unilat.cli.tables import doctor_table
        from unilat.studies.doctor import examine

        with Output(self.json) as output:
            found = examine(self.source, self.size, output.note)
            output.result(found.to_json(), doctor_table(found))
        if not found.whole:
            raise SystemExit(1)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Tell how many bits somebody else's latents hold, where, and what is wrong with them.

    MODEL is a folder that diffusers' save_pretrained wrote (AutoencoderKL, AutoencoderTiny or
    AutoencoderDC; `pip install 'unilat[diffusers]'`), or a .npy, .npz or .safetensors file of latents
    [N, C, height, width]. DATA are pictures as for `unilat train`; for a file of latents they may be
    left out, or are the pictures behind the latents, in the same order.

        unilat audit stable-diffusion/vae photos/ --size 256
        unilat audit latents.npy --size 256
        unilat audit latents.safetensors --json

    The latents are standardised by channel, noise of log-SNR 5 is added, and a diffusion prior alone
    is trained on them; its bits are measured on latents that it never saw. Exact copies are told and
    left out. The page OUT/audit.html shows the bits by channel, position and noise level, beside what
    a normal prior would charge. The same command again goes on where it stopped. From Python also a
    function: `unilat.audit(encode, data)`."""

    model: Positional[Annotated[str, arg(metavar="MODEL")]]
    """Folder of a model, or file of latents."""
    data: Positional[Annotated[str, arg(metavar="DATA")]] = ""
    """The pictures."""
    out: Annotated[DisallowNone[Path | None], arg(metavar="FOLDER")] = None
    """Folder to write or to go on with. By default runs/audit- and the name of MODEL."""
    size: Annotated[DisallowNone[str | None], arg(metavar="PIXELS")] = None
    """Side of the pictures, 64, or height x width, 96x128; with latents alone, of those they were made of, for bits
    per pixel."""
    limit: Annotated[int, arg(metavar="N")] = 10_000
    """Pictures that are encoded at most, evenly spread over DATA."""
    samples: Annotated[DisallowNone[int | None], arg(metavar="N")] = None
    """Latents that the prior sees in training, with repeats: more tighten the bound. By default 60,000."""
    features: Annotated[str, arg(metavar="NETWORK")] = "auto"
    """Network behind the kernel distance: auto, none, efficientnet-lite0, alexnet-st or a TorchScript file."""
    seed: int = 0
    """Seed of the split, the prior and the noise."""
    json: Json = False

    def execute(self) -> None:
        """Audit, write the page, print the table and the sentence."""
        from unilat.cli import places
        from unilat.cli.output import Output
        from unilat.cli.progress import TrainingProgress
        from unilat.cli.tables import audit_table
        from unilat.studies.audit import audit

        name = Path(self.model).resolve()
        name = name.parent if name.name == "vae" else name
        with Output(self.json) as output, TrainingProgress(output.console) as progress:
            found = audit(
                self.model,
                self.data or None,
                out=places.for_audit(self.out or Path("runs") / f"audit-{name.stem}"),
                size=self.size,
                limit=self.limit,
                samples=self.samples,
                seed=self.seed,
                features=self.features,
                say=output.say,
                progress=progress,
            )
            page = found.folder / "audit.html" if found.folder else None
            output.result(found.findings.to_json() | {"page": page}, audit_table(found.findings, page))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time a configuration here: what a step costs, and how long a run takes.

        unilat bench
        unilat bench small --size 64
        unilat bench photo-256 --pictures 200000
        unilat bench runs/photos

    Some real steps of all stages on random pictures, as `unilat train` would compute them here and
    the plain way, then every network alone, beside a matrix product: the share is the part of its
    rate that is reached. Memory is the most of each stage, and on a GPU as many examples are computed
    at a time as fit. Nothing is read, nothing is kept. Reading pictures comes on top of the minutes,
    as does whatever else the machine is doing then."""

    config: Positional[
        Annotated[str, arg(metavar="CONFIG", help="A preset, a run folder, or a config.json. By default `small`.")]
    ] = "small"
    size: Annotated[DisallowNone[str | None], arg(metavar="PIXELS")] = None
    """Side of the pictures, 64, or height x width, 96x128, with a preset; networks gain a level for each doubling."""
    channels: int = 3
    """1 for grey pictures, 3 for colour; a run folder's own."""
    pictures: Annotated[int, arg(metavar="N")] = 10_000
    """Pictures that there will be, for the minutes of encoding and evaluating; a run folder's own."""
    json: Json = False

    def execute(self) -> None:
        """Measure and print the table."""
        from unilat.cli.output import Output
        from unilat.cli.tables import bench_table
        from unilat.studies.bench import bench

        with Output(self.json) as output:
            config, channels, data = self._settings()
            found = bench(config, channels, output.say, pictures=data)
            output.result(found.to_json(), bench_table(found))

    def _settings(self) -> "tuple[RunConfig, int, int | Data]":
        """The configuration, the channels of its pictures and how many there are."""
        from unilat.recipe import presets
        from unilat.run.facts import read
        from unilat.run.folder import RunFolder
        from unilat.run.trained import read_config, read_config_file
        from unilat.studies.phases import Data
        from unilat.types import UserError

        path = Path(self.config)
        if self.config in presets.PRESETS or not path.exists():
            config = presets.get(self.config, size=self.size)
            return config, config.data.channels or self.channels, self.pictures
        if self.size is not None:
            raise UserError(f"--size goes with a preset; {path} has a size of its own")
        config = read_config(path) if path.is_dir() else read_config_file(path)
        data = RunFolder(path).data
        if not data.is_file():
            return config, config.data.channels or self.channels, self.pictures
        known = read(data)
        there = Data(known.train, known.test, len(known.classes)) if known.train else self.pictures
        return config, known.channels, there
