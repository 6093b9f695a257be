"""The options of `unilat train` that say whose weights it starts from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import DisallowNone, arg

if TYPE_CHECKING:
    from unilat.recipe.config import RunConfig

Start = Annotated[
    DisallowNone[Path | None],
    arg(
        name="from",
        metavar="FOLDER",
        help="Start from the weights in FOLDER: a run, or an AutoencoderKL, AutoencoderTiny or AutoencoderDC that "
        "diffusers saved.",
    ),
]
Tune = Annotated[
    DisallowNone[Literal["all", "decoder", "none"] | None],
    arg(
        help="With --from, what learns beside the prior. By default all of a run, and of others the decoder: the "
        "encoder is kept, and the scale of its latents above the noise holds the bits."
    ),
]
KeepDecoder = Annotated[
    bool,
    arg(
        help="With --from, the model's own decoder in place of our diffusion decoder, tuned by a squared error; with "
        "--tune none as it is."
    ),
]


def taken_over(
    config: "RunConfig", start: Path | None, tune: Tune, keep_decoder: bool, *, named: bool, size: str | None
) -> "RunConfig":
    """``config`` that starts from the folder of ``--from``, where there is one; the rest is as ``run/start.py`` has it.

    Raises :class:`UserError` where what is to be done with it is said, and it is not named.
    """
    if start is not None:
        from unilat.fields import as_size
        from unilat.run.start import started

        return started(config, start, tune, keep_decoder, named=named, size=None if size is None else as_size(size))
    if tune is not None or keep_decoder:
        from unilat.types import UserError

        raise UserError(f"{'--tune' if tune else '--keep-decoder'} says what is done with --from: give it a folder")
    return config
