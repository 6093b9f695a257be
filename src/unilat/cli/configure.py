"""`unilat train`: from its options to one configuration, and the run itself.

The options of :class:`unilat.cli.commands.Train` shape the starting configuration (preset, or a file); every field of
the configuration is an option beside them and has the last word. So the line is read twice by the same parser: once
to learn which configuration it starts from, and again with that configuration as the defaults.
"""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import tyro
from tyro.conf import arg

from unilat.cli.commands import Train
from unilat.cli.helptext import MARKERS, help_text
from unilat.cli.starting import taken_over
from unilat.fields import Size, as_size, spelled
from unilat.recipe import presets
from unilat.recipe.config import RunConfig, check, to_json
from unilat.signals import located
from unilat.types import UserError

if TYPE_CHECKING:
    from unilat.training.fast import Choices

_HELP_CONFIG = "--help-config"
_SIZES = tuple[tuple[int, ...], ...]

_registry = tyro.constructors.ConstructorRegistry()


@_registry.primitive_rule
def _sizes(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Tuples of tuples (strides of each level) are written ``2x2 1x2``; tyro alone fixes their number."""
    if info.type != _SIZES:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[AxB ...]",
        instance_from_str=lambda words: tuple(tuple(int(part) for part in word.split("x")) for word in words),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(item, tuple) for item in value),
        str_from_instance=lambda value: ["x".join(map(str, item)) for item in value],
    )


@_registry.primitive_rule
def _size(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A size is one word, ``64`` or ``96x128``, as ``--size`` takes it."""
    if get_args(info.type) != get_args(Size):  # tyro spells the tuple in another way
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PIXELS",
        instance_from_str=lambda words: as_size(words[0]),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(side, int) for side in value),
        str_from_instance=lambda value: [spelled(value)],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfiguredTrain:
    """A parsed ``unilat train``: its options and the configuration they and the overrides have led to."""

    options: Train
    settings: RunConfig

    @property
    def folder(self) -> Path:
        """The run folder: ``--out``, or runs/ and the name of DATA."""
        stem = re.sub(r"[^\w.-]+", "-", Path(self.options.data).resolve().stem).strip("-.")
        return self.options.out or Path("runs") / (stem or "run")

    def choices(self) -> "Choices":
        """The machine's part of the options."""
        from unilat.training.fast import Choices

        options = self.options
        if options.compile and options.no_compile:
            raise UserError("--compile and --no-compile contradict each other: give one of them, or none")
        compiled = "on" if options.compile else "off" if options.no_compile else "auto"
        return Choices(
            compile=compiled,
            precision=options.precision,
            layout=options.layout,
            capture=options.capture,
            deterministic=options.deterministic,
            checkpointing=options.checkpointing,
            workers=options.workers,
            micro_batch=options.micro_batch,
            save_every=options.save_every,
            shard=options.shard,
        )

    def execute(self) -> None:
        """Train, or say what would be trained."""
        import unilat
        from unilat.cli.output import Output
        from unilat.cli.progress import TrainingProgress
        from unilat.cli.tables import description_table, metrics_table
        from unilat.run.folder import RunFolder
        from unilat.run.records import Unkept

        with Output(self.options.json) as output:
            check(self.settings)
            choices = self.choices()
            if self.options.dry_run:
                described = unilat.describe(self.settings)
                text = f"{to_json(self.settings)}\n\n{description_table(described)}"
                if self.settings.data.channels is None:
                    output.say("counted for colour, unread; --data.channels 1 counts for grey")
                output.result({"config": dataclasses.asdict(self.settings), "parts": described.to_json()}, text)
                return
            named = {"choices": choices, "features": self.options.features, "track": self.options.track}
            try:
                with TrainingProgress(output.console) as progress:
                    run = unilat.train(self.settings, out=self.folder, on_step=progress, **named)
            except Unkept as error:
                output.result(error.results.to_json(), metrics_table(error.results))
                raise
            if os.environ.get("RANK", "0") == "0":  # under torchrun the first process alone reports
                report = str(RunFolder(self.folder).report)
                output.result(run.results.to_json() | {"report": report}, metrics_table(run.results, self.folder))


def parse_train(words: Sequence[str]) -> ConfiguredTrain:
    """Read the words after ``unilat train``, or those of a sweep that are its runs'; mistakes and ``--help-config`` end
    in SystemExit after their message."""
    if _HELP_CONFIG in words:
        rest = [word for word in words if word != _HELP_CONFIG]
        start = _start(_options(_parse(["DATA", *rest], RunConfig())))
        print(help_text("train", _parser(start), args=["DATA"], registry=_registry))
        raise SystemExit(0)
    start = _start(_options(_parse(words, RunConfig())))
    parsed = _parse(words, start)
    return ConfiguredTrain(options=_options(parsed), settings=parsed.settings)


def _parse(words: Sequence[str], start: RunConfig) -> Any:
    """Read the line with ``start`` as the defaults of the configuration's fields."""
    return tyro.cli(
        _parser(start), prog="unilat train", args=list(words), config=MARKERS, registry=_registry, description=""
    )


def _parser(start: RunConfig) -> Any:
    """A dataclass of the options of ``unilat train`` and the configuration's fields; its seed is theirs."""
    return dataclasses.make_dataclass(
        "Train",
        [
            ("seed", tyro.conf.Suppress[tyro.conf.Fixed[int]], dataclasses.field(default=0)),
            ("settings", Annotated[RunConfig, arg(name="")], dataclasses.field(default=start)),
        ],
        bases=(Train,),
        namespace={"__doc__": f"{Train.__doc__}"},
        frozen=True,
        kw_only=True,
    )


def _options(parsed: Any) -> Train:
    named = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(Train) if field.name != "seed"}
    return Train(**named, seed=parsed.settings.seed)


def _start(options: Train) -> RunConfig:
    """The configuration that the options name, before any field is overridden."""
    if options.config is not None and options.preset is not None:
        raise UserError("--config and --preset both name a starting configuration: give one of them")
    if options.config is not None:
        from unilat.run.trained import read_config_file

        config = read_config_file(options.config)
        if options.size is not None:
            config = replace(config, data=replace(config.data, size=as_size(options.size)))
    else:
        default = options.data if options.data in presets.PRESETS else "small"
        config = presets.get(options.preset or default, size=options.size)
    config = replace(config, data=replace(config.data, source=located(options.data)))
    named = options.config is not None or options.preset is not None
    config = taken_over(config, options.start, options.tune, options.keep_decoder, named=named, size=options.size)
    if options.bias is not None:
        config = replace(config, autoencoder=replace(config.autoencoder, bias=options.bias))
    if options.target_bpp is not None and options.loss_factor is not None:
        raise UserError("--target-bpp names the bits and --loss-factor the weight that makes them: give one of them")
    if options.target_bpp is not None:
        if not (math.isfinite(options.target_bpp) and options.target_bpp > 0):
            raise UserError(
                f"--target-bpp {options.target_bpp:g}: a positive number of bits per pixel, 0.2 for example"
            )
        config = replace(config, stage1=replace(config.stage1, target_bpp=options.target_bpp, loss_factor=None))
    if options.loss_factor is not None:
        config = replace(config, stage1=replace(config.stage1, target_bpp=None, loss_factor=options.loss_factor))
    return config
