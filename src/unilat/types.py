"""Axes, units and the one noise convention of the library.

Axes (shape suffixes of variable names)
    B batch, C channels, T time or samples of a signal, H height, W width, L tokens, D features of a token
    x  pictures and signals, float32 in [-1, 1]: ``[B, C, T]``, ``[B, C, H, W]`` or ``[B, C, T, H, W]``
    z  latents, same axes on the coarser grid
    On disk and in memory pictures are uint8 ``[N, C, H, W]``; ``x = bytes / 127.5 - 1``.
    A size is ``(height, width)``, in this order everywhere: in messages, in files and on the command line.

Noise
    ``lambda_t`` is the log signal-to-noise ratio, ``[B]``, large = clean. Variance preserving:
    ``alpha² = sigmoid(lambda)``, ``sigma² = sigmoid(-lambda)``, ``x_lambda = alpha x + sigma eps``.
    A network is reached only as a denoiser ``x_hat = denoise(x_t, logsnr, cond)``.

Units
    Losses and rates are in nats per example, ``[B]``, sums over dimensions and never means.
    bits per pixel = nats / (ln 2 · H · W): pixels, not channels.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

Cond = TypeVar("Cond")
"""What a denoiser is conditioned on, passed on unread by samplers and guidance: a ``nets.condition.Condition`` for
latents, the latent itself for the decoder, None for nothing."""
Denoiser = Callable[[Tensor, Tensor, Cond], Tensor]
"""``(x_t [B, ...], logsnr [B], cond) -> x_hat [B, ...]``: the expected clean signal."""


class UserError(Exception):
    """A mistake of the user's or of their data. The text is one line: what is wrong, and the way out."""
