"""Guidance: denoisers to a denoiser."""

import torch
from torch import Tensor

from unilat.maths.noise import expand
from unilat.types import Cond, Denoiser


def classifier_free(
    denoise: Denoiser[Cond], scale: float, null: Cond, *, interval: tuple[float, float] | None = None
) -> Denoiser[Cond]:
    """``x_hat = x_hat_null + scale (x_hat_cond - x_hat_null)``: 0 unconditional, 1 conditional, above 1 guided.

    ``null`` is what stands for "no condition". With an ``interval`` of log-SNR the scale holds inside it and is 1
    outside. Where the scale is 1 the network is called once, else twice.
    """
    if scale == 1.0:
        return denoise

    def guided(x_t: Tensor, logsnr: Tensor, cond: Cond) -> Tensor:
        x_hat = denoise(x_t, logsnr, cond)
        inside = torch.ones_like(logsnr, dtype=torch.bool)
        if interval is not None:
            inside = (logsnr >= interval[0]) & (logsnr <= interval[1])
            if not bool(inside.any()):
                return x_hat
        x_hat_null = denoise(x_t, logsnr, null)
        return torch.where(expand(inside, x_t), x_hat_null + scale * (x_hat - x_hat_null), x_hat)

    return guided
