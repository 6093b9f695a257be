"""The commands that measure whole runs, and models and latents of others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import DisallowNone, Positional, arg

Json = Annotated[bool, arg(help="Print one JSON object on standard output instead of text.")]


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
    is trained on them; its bits are measured on latents that it never saw. The page OUT/audit.html
    shows them by channel, position and noise level, beside what a normal prior would charge. The same
    command again goes on where it stopped. From Python also a function: `unilat.audit(encode, data)`."""

    model: Positional[Annotated[str, arg(metavar="MODEL")]]
    """Folder of a model, or file of latents."""
    data: Positional[Annotated[str, arg(metavar="DATA")]] = ""
    """The pictures."""
    out: Annotated[DisallowNone[Path | None], arg(metavar="FOLDER")] = None
    """Folder to write or to go on with. By default runs/audit- and the name of MODEL."""
    size: Annotated[DisallowNone[int | None], arg(metavar="PIXELS")] = None
    """Side of the square pictures; with latents alone, of those they were made of, for bits per pixel."""
    limit: Annotated[int, arg(metavar="N")] = 10_000
    """Pictures that are encoded at most, evenly spread over DATA."""
    samples: Annotated[DisallowNone[int | None], arg(metavar="N")] = None
    """Latents that the prior sees in training, with repeats: more tighten the bound. By default 60,000."""
    features: Annotated[str, arg(metavar="NETWORK")] = "auto"
    """Network behind the kernel distance: auto, none, efficientnet-lite0 or a TorchScript file."""
    seed: int = 0
    """Seed of the split, the prior and the noise."""
    json: Json = False

    def execute(self) -> None:
        """Audit, write the page, print the table and the sentence."""
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
                out=self.out or Path("runs") / f"audit-{name.stem}",
                size=self.size,
                limit=self.limit,
                samples=self.samples,
                seed=self.seed,
                features=self.features,
                say=output.say,
                progress=progress,
            )
            page = found.folder / "audit.html" if found.folder else None
            output.result(found.values | {"page": page}, audit_table(found.values, page))
