"""`unilat export`: a run as other people's tools take it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import DisallowNone, Positional, arg

if TYPE_CHECKING:
    from unilat.interop.export import Exported

RunFolder = Positional[Annotated[Path, arg(metavar="RUN", help="Run folder that `unilat train` wrote.")]]
Json = Annotated[bool, arg(help="Print one JSON object on standard output instead of text.")]
Speed = Literal["full", "fast"]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Hand a run over to diffusers, ONNX, ComfyUI, or somebody else's stage 2.

    diffusers: a folder that `DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)` loads
    where unilat is not installed; its autoencoder also loads alone and trains like an AutoencoderKL.
    onnx: graphs of the encoder, the decoder in one call and the denoiser of latents, compared with
    torch by onnxruntime. comfyui: the folder for diffusers as a custom node. latents: what
    the run was trained on, or DATA, as latents with labels and the numbers to scale them by.

        unilat export runs/photos --to diffusers --out export/photos --licence cc-by-4.0
        unilat export runs/photos --to diffusers --out export/photos --push me/photos
        unilat export runs/photos --to comfyui --out ComfyUI/custom_nodes/photos
        unilat export runs/photos --to onnx --out export/onnx --decoder fast
        unilat export runs/photos more-photos/ --to latents --format npy --out export/latents

    The folder is written whole or not at all, over an older export too; anything else in it is
    refused. It holds no pickle, and its Python is unilat's own. README.md in it is a model card
    with what was measured. docs/export.md has more."""

    run: RunFolder
    data: Positional[Annotated[str, arg(metavar="DATA")]] = ""
    """For latents: other pictures, as for `unilat train`. By default those the run was trained on."""
    to: Annotated[Literal["diffusers", "onnx", "comfyui", "latents"], arg(metavar="FORMAT")]
    """diffusers, onnx, comfyui or latents."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder to write."""
    format: Annotated[Literal["safetensors", "npy"], arg(metavar="FILES")] = "safetensors"
    """Files of latents: safetensors in shards, or npy, one array."""
    licence: Annotated[str, arg(metavar="NAME")] = "other"
    """Licence that the model card names: apache-2.0, cc-by-4.0. By default that none is known."""
    decoder: Speed = "full"
    """The decoder as it was trained, or the one that `unilat distill` made of it."""
    base: Speed = "full"
    """The base model as it was trained, or the one that `unilat distill` made of it."""
    push: Annotated[DisallowNone[str | None], arg(metavar="REPO")] = None
    """Upload the folder to this repository of the Hugging Face hub; one that is not there is made, private."""
    json: Json = False

    def execute(self) -> None:
        """Write, push, and print what there is."""
        import unilat
        from unilat.cli.output import Output
        from unilat.interop.export import check_place, export

        with Output(self.json) as output:
            output.unsealed(self.run)
            check_place(self.out)
            found = export(
                unilat.load(self.run, decoder=self.decoder, base=self.base),
                self.to,
                self.out,
                data=self.data or None,
                format=self.format,
                licence=self.licence,
                push=self.push,
                say=output.say,
            )
            output.result(found.to_json(), exported_text(found))


def exported_text(found: "Exported") -> str:
    """What was written, how near onnxruntime came, and where it was pushed."""
    size = sum((found.out / name).stat().st_size for name in found.files)
    lines = [f"{found.to}: {found.out} ({len(found.files)} files, {size / 1e6:.3g} MB)"]
    if found.difference is not None:
        lines.append(f"onnxruntime and torch differ by {found.difference:.2g} at the most")
    if found.pushed is not None:
        lines.append(f"pushed to {found.pushed}")
    return "\n".join(lines)
