"""A trained autoencoder against Shannon: rate and error on a Gaussian source, whose R(D) no code can beat.

The same encoder, prior and decoder networks as everywhere, on 16 correlated dimensions laid out as 4 channels of 4
places, with a squared error for the decoder, because R(D) is about that: minimise R + c ½‖x − x̂‖². The best any code
can do has a water level of 1/c.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unilat.maths.oracle import rate_distortion_gaussian
from unilat.maths.rate import LN2
from unilat.maths.seeds import Draws, key
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.nets.encoder import EncoderConfig
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViTConfig
from unilat.run.records import OnStep
from unilat.studies.oracle import TRAINED_ON, correlated_gaussian
from unilat.training.engine import fit
from unilat.training.plan import Batch, Schedule, Stage

PLACES = 4
NETWORKS = AutoencoderConfig(
    latent_channels=16,
    decoder_loss="mse",
    encoder=EncoderConfig(channels=(128,), blocks=(1,), strides=(), patch=(PLACES,)),
    prior=ViTConfig(channels=(96,), blocks=(2,)),
    decoder=UViTConfig(channels=(128,), blocks=(1,), strides=((1,),), patch=(PLACES,), width=96, depth=1),
)
"""One latent place of 16 channels."""


@dataclass(frozen=True)
class Point:
    """What a trained autoencoder reached, on draws it was not trained on."""

    rate: float
    """Bits per dimension of the source under the trained prior (UL eq. 3)."""
    stderr: float
    """Standard error of ``rate`` over draws."""
    distortion: float
    """``E‖x − x̂‖²`` per dimension."""
    shannon: float
    """R(D) at this distortion, bits per dimension."""
    n: int
    """Draws measured, each at several noise levels."""

    @property
    def ratio(self) -> float:
        """Rate over Shannon's: at least 1 but for noise, and 1 is perfect."""
        return self.rate / self.shannon


def source_stage(model: Autoencoder, x: Tensor, factor: float) -> Stage:
    """Stage 1 on signals that are no pictures, at a fixed loss factor; ``x [N, C, T]`` float32.

    The loss is ``(R + c ½‖x − x̂‖²) / max(1, c)``, nats per dimension.
    """

    def losses(batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        return model.losses(batch[0], draws).total(factor) / math.prod(x.shape[1:]), {}

    return Stage(name="source", model=model, count=len(x), batch=lambda indices: (x[indices],), losses=losses)


@torch.no_grad()
def reached(model: Autoencoder, x: Tensor, variances: Tensor, seed: int, estimates: int = 8) -> Point:
    """Rate and error of ``model`` on ``x [N, C, T]``, beside R(D) of a Gaussian with these variances."""
    dimensions = math.prod(x.shape[1:])
    found = [model.losses(x, Draws.keyed(key(seed, "reached"), index, 0, len(x))) for index in range(estimates)]
    rates = torch.stack([terms.rate.nats().double() for terms in found]).mean(0) / LN2 / dimensions
    error = 2 * float(torch.stack([terms.decoder.double().mean() for terms in found]).mean())
    shannon = rate_distortion_gaussian(variances.double(), error) / LN2 / dimensions
    stderr = float(rates.std()) / math.sqrt(len(x))
    return Point(float(rates.mean()), stderr, error / dimensions, shannon, len(x))


def rate_distortion(
    factor: float, samples: int = 200_000, seed: int = 0, measured: int = 65_536, progress: OnStep | None = None
) -> Point:
    """Train on ``samples`` draws (of 131,072 different ones) at loss factor ``factor``, and measure on fresh ones."""
    source = correlated_gaussian()

    def draw(count: int, purpose: str) -> Tensor:
        generator = torch.Generator().manual_seed(key(seed, "source", purpose))
        return source.sample(count, generator).view(count, -1, PLACES)

    x = draw(TRAINED_ON, "train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "source"))
        model = Autoencoder(NETWORKS, x.shape[1], x.mean((0, 2)), x.std((0, 2)))
    model.start_at_unit_scale(x[:1024])
    plan = Schedule(
        batch=256,
        samples=samples,
        learning_rate=2e-3,
        warmup=min(10_000, samples // 4),
        decay=0.7,
        ema_halflife=samples / 20,
        clip=1.0,
    )
    with tempfile.TemporaryDirectory(prefix="unilat-source-") as folder:
        done = fit(source_stage(model, x, factor), plan, Path(folder), seed, progress=progress, device="cpu")
    model.load_state_dict(done.ema)
    return reached(model.eval(), draw(measured, "test"), source.variances, seed)
