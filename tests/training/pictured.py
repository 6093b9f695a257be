"""A tiny stage 1 on pictures that are coloured and not square, and an encoder whose latents are known."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.models.control import ControlConfig
from unilat.nets.encoder import EncoderConfig
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViTConfig
from unilat.recipe.config import Stage1Config
from unilat.run.stages import AutoencoderStage

CONTROL = ControlConfig(gain=0.15, proportional=1.0, smoothing=200.0, start=20.0, limit=1e4)
CONFIG = Stage1Config(
    target_bpp=0.3,
    samples=160,
    batch=8,
    learning_rate=1e-3,
    optimizer="adamw",
    warmup=16,
    ema_halflife=16,
    prior_warmup=0,
    follow_every=64,
    calibrate_every=64,
    levels="fixed",
    control=CONTROL,
)


def pictures(count: int, seed: int = 0) -> Tensor:
    """Noise, uint8 ``[count, 3, 16, 8]``: each picture with a brightness and a contrast of its own."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 3, 16, 8, generator=generator) - 0.5
    middle, contrast = (torch.rand(count, 1, 1, 1, generator=generator) for _ in range(2))
    return (255 * (0.3 + 0.4 * middle + 0.6 * contrast * noise)).to(torch.uint8)


def stage(
    data: Tensor | None = None, held_out: Tensor | None = None, aim: float | None = None, **changed: Any
) -> AutoencoderStage:
    """Stage 1 from a fixed seed; ``changed`` are fields of its configuration or of its networks'."""
    networks = AutoencoderConfig(
        covariance_up_to=1024,
        latent_channels=4,
        encoder=EncoderConfig(channels=(16, 16), blocks=(1, 1), strides=((2, 2),), patch=(2, 2)),
        prior=ViTConfig(channels=(32,), blocks=(1,), head_width=16),
        decoder=UViTConfig(channels=(16,), blocks=(1,), strides=((2, 2),), width=32, depth=1, head_width=16),
    )
    ours = {name: value for name, value in changed.items() if name in AutoencoderConfig.__dataclass_fields__}
    theirs = {name: value for name, value in changed.items() if name not in ours}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Autoencoder(replace(networks, **ours), 3, torch.zeros(3), torch.full((3,), 0.5), grid=(4, 2)).eval()
    data = pictures(20) if data is None else data
    held_out = pictures(4, seed=1) if held_out is None else held_out
    return AutoencoderStage(model, data, held_out, replace(CONFIG, **theirs), aim)


class Known(nn.Module):
    """An encoder whose latent is the picture's first 32 numbers, ``[B, 4, 4, 2]``, brought to mean square ``gain²``.

    A fifth of that where the picture is dark: such pictures are there to be noticed.
    """

    scale: Tensor | None = None

    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.head = nn.Linear(1, 1)
        self.gain = gain

    def posterior(self, x: Tensor) -> tuple[Tensor, None]:
        first, bright = x.flatten(1)[:, :32], x.mean((1, 2, 3), keepdim=True) > 0
        unit = (first / first.square().mean(1, keepdim=True).sqrt()).view(-1, 4, 4, 2)
        return self.gain * torch.where(bright, unit, 0.2 * unit), None

    def forward(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def rescale(self, scale: float) -> None:
        self.gain *= scale


def known_nats(z: Tensor, variance: float = 1.0, lambda_0: float = 5.0, lambda_min: float = -10.0) -> Tensor:
    """Nats of each latent ``z [B, ...]`` under the exact prior N(0, variance), the integral over λ by trapezoids:

    ``z − ẑ = σ² z / v − α s² σ ε / v`` with ``v = α² s² + σ²``, so its mean square is ``(σ⁴ z² + α² s⁴ σ²) / v²``.
    """
    level = torch.linspace(lambda_min, lambda_0, 4001, dtype=torch.float64)
    a, n = torch.sigmoid(level), torch.sigmoid(-level)
    squares, count = z.double().square().flatten(1).sum(1, keepdim=True), z[0].numel()
    error = (n.square() * squares + count * a * n * variance**2) / (a * variance + n).square()
    terminal = 0.5 * (a[0] * squares[:, 0] + count * (n[0] - 1 - n[0].log()))
    return 0.5 * torch.trapezoid(level.exp() * error, level, dim=1) + terminal
