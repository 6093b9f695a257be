"""A trap of torch 2.13 on CPUs: GroupNorm's backward on a channels_last input that needs no gradient is a SIGSEGV."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unilat.nets.encoder import Encoder
from unilat.nets.uvit import UViT

from .samples import KINDS, encoder, shaken, signal, uvit

LEVELS = torch.tensor([-3.0, 0.5, 4.0])


def _watched(net: nn.Module) -> list[bool]:
    """For each call of a GroupNorm of ``net``: whether its input is the deadly kind."""
    found: list[bool] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        found.append(not x.requires_grad and not x.is_contiguous())

    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(look)
    return found


@pytest.mark.parametrize("frozen", ["nothing", "stem", "encoder"])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_norm_sees_a_channels_last_input_without_gradient(frozen: str, channels: int) -> None:
    """Kills: pictures or latents handed on as they lie, so that a frozen stem or encoder meets the trap."""
    x, z = signal(2, channels), signal(2, 5, coarse=True)
    x, z = x.to(memory_format=torch.channels_last), z.to(memory_format=torch.channels_last)
    for net, inputs in (
        *((Encoder(encoder(2, kind), channels, 5), (x,)) for kind in KINDS),
        (UViT(uvit(2), channels, 5), (x, LEVELS, z)),
        (UViT(uvit(2, kind="conv"), channels, 5), (x, LEVELS, z)),
    ):
        shaken(net).train()
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(frozen == "nothing" or (frozen == "stem" and not name.startswith("stem")))
        calls = _watched(net)
        net(*inputs)
        assert calls and not any(calls)


PROGRAM = """
import torch
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.maths.seeds import Draws
from nets.samples import encoder, uvit, vit
model = Autoencoder(AutoencoderConfig(latent_channels=5, encoder=encoder(2), prior=vit(), decoder=uvit(2)), 3)
x = torch.randn(3, 3, 8, 16).to(memory_format=torch.channels_last)
for part in (None, model.encoder.stem, model.encoder):
    if part is not None:
        part.requires_grad_(False)
    draws = Draws.single(torch.Generator().manual_seed(0), 3)
    model.losses(x, draws).total(2.0).sum().backward()
print("alive")
"""


def test_training_on_channels_last_pictures_survives() -> None:
    """Kills: the trap itself, which is a SIGSEGV and no exception, with all, some and none of the encoder trained."""
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "alive"), run.stderr[-2000:]
