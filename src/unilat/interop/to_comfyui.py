"""An export to diffusers with nodes of ComfyUI beside it: the folder is a custom node, and needs torch alone."""

from pathlib import Path

from unilat.interop.bundle import bundle

LOAD = (
    "Put this folder into `ComfyUI/custom_nodes` and restart: under *unilat* there are nodes that load, sample, decode "
    "and encode, all named after the folder. Load also gives a VAE for ComfyUI's own VAE Decode and VAE Encode. They "
    "need nothing that ComfyUI has not."
)


def write(folder: Path) -> None:
    """The nodes, into a folder that :func:`unilat.interop.to_diffusers.write` has filled."""
    text = bundle("interop/published/nodes.py", "torch and safetensors")
    (folder / "__init__.py").write_bytes(text.encode())
