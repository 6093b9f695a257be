"""The space of a run's latents as other people's code is told of it: scale and shift of z_0, of the training pictures.

With mean m_c and standard deviation s_c of channel c of the encoder's z, and the noise of λ₀ on top,

    latents_mean = α m_c,   latents_std = √(α² s_c² + σ²),   shift = mean of latents_mean,
    scaling_factor = 1 / √( mean of latents_std² + (latents_mean − shift)² )

so ``(z_0 − latents_mean) / latents_std`` has mean 0 and variance 1 in each channel, and ``(z_0 − shift)
scaling_factor`` in all of them together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unilat.maths.noise import alpha, sigma
from unilat.models.shards import LatentShards, open_shards
from unilat.run.evaluate import own_pictures
from unilat.run.parts import rows_of
from unilat.run.trained import Run
from unilat.types import UserError

MOST = 4096
"""Training pictures that are encoded where a run keeps no latents of them."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Numbers of the latents z_0 that published configurations hold."""

    latents_mean: tuple[float, ...]
    """Of each channel."""
    latents_std: tuple[float, ...]
    """Of each channel."""
    scaling_factor: float
    shift_factor: float
    noise_std: float
    """σ(λ₀), which is in ``latents_std``."""


def space_of(run: Run) -> Space:
    """Of the run's training pictures; raises :class:`UserError` where neither their latents nor they are there."""
    shards = kept_latents(run)
    if shards is not None:
        return space(shards.mean, shards.std, run.config.autoencoder.lambda_0)
    z = run.latents(_some_training_pictures(run))
    flat = z.transpose(0, 1).flatten(1)
    return space(flat.mean(1), flat.std(1), run.config.autoencoder.lambda_0)


def space(mean: Tensor, std: Tensor, lambda_0: float) -> Space:
    """The space of latents whose encoder gives z of ``mean [C]`` and ``std [C]``."""
    level = torch.tensor(lambda_0, dtype=torch.float64)
    mean_0 = alpha(level) * mean.double()
    variance_0 = alpha(level).square() * std.double().square() + sigma(level).square()
    shift = mean_0.mean()
    whole = (variance_0 + (mean_0 - shift).square()).mean().sqrt()
    return Space(
        latents_mean=tuple(mean_0.tolist()),
        latents_std=tuple(variance_0.sqrt().tolist()),
        scaling_factor=float(1 / whole),
        shift_factor=float(shift),
        noise_std=float(sigma(level)),
    )


def kept_latents(run: Run) -> LatentShards | None:
    """The training pictures' latents that stage 2 was trained on; None where the run keeps none of this encoder."""
    shards = open_shards(run.files.latents)
    wanted = (run.encoder_sha256, run.config.autoencoder.lambda_0)
    return shards if shards is not None and (shards.encoder_sha256, shards.seal.lambda_0) == wanted else None


def _some_training_pictures(run: Run) -> Tensor:
    """At most :data:`MOST`, uint8 ``[N, C, H, W]``, evenly spread."""
    try:
        pictures = own_pictures(run)
    except UserError as error:
        raise UserError(
            f"the latents' scale is measured on training pictures, and {run.folder} keeps no latents of them ({error})"
        ) from None
    train = run.split(pictures)[0]
    return rows_of(pictures, train[torch.linspace(0, len(train) - 1, min(len(train), MOST)).long()])
