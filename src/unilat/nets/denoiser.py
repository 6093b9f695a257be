"""Any network becomes the one contract ``denoise(x_t, logsnr, cond) -> x_hat``.

Preconditioning (EDM, arXiv 2206.00364, App. B.6, in the variance-preserving coordinates of ``types.py``): for data of
mean m and standard deviation s the network sees inputs of unit variance and is asked for targets of unit variance,

    var = α² s² + σ²,   x̂ = m + (α s² / var) (x_t − α m) + (s σ / √var) · F((x_t − α m) / √var, λ + 2 ln s, cond)

λ + 2 ln s is the log-SNR of the data brought to unit variance (s the geometric mean over channels), so that data and s
scaled together leave F as it is. For m = 0, s = 1 this is v prediction, x̂ = α x_t − σ v̂ with F = −v̂.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unilat.maths.noise import alpha, expand, sigma
from unilat.nets.condition import Condition
from unilat.nets.low import rounded


class Denoiser(nn.Module):
    """Wrap ``net(x_t, logsnr, cond)``; ``mean`` and ``std`` are those of the clean data, a number or one a channel.

    The one place where precision changes: ``precision`` (e.g. ``torch.bfloat16``) is that of the network alone; noise
    coefficients and losses stay float32. ``keep_BK``: the tokens that stay in training, handed to a network that drops
    some (:class:`~unilat.nets.vit.ViT`).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        axes: int,
        mean: float | Tensor = 0.0,
        std: float | Tensor = 1.0,
        precision: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.net, self.precision = net, precision
        self.register_buffer("mean", per_channel(mean, axes))
        self.register_buffer("std", per_channel(std, axes))

    def forward(
        self, x_t: Tensor, logsnr: Tensor, cond: Condition | Tensor | None = None, keep_BK: Tensor | None = None
    ) -> Tensor:
        alpha_t, sigma_t = expand(alpha(logsnr), x_t), expand(sigma(logsnr), x_t)
        scale = torch.rsqrt(alpha_t.square() * self.std.square() + sigma_t.square())
        centred = (x_t - alpha_t * self.mean) * scale
        output = call(self.net, self.precision, centred, logsnr + 2 * self.std.log().mean(), cond, *kept(keep_BK))
        return self.mean + self.std * (scale * alpha_t * self.std * centred + scale * sigma_t * output)

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Become the denoiser of the same data times ``scale``: the old one at λ + 2 ln scale."""
        self.mean.mul_(scale)
        self.std.mul_(scale)


def call(net: Callable[..., Tensor], precision: torch.dtype, x: Tensor, *inputs: Tensor | Condition | None) -> Tensor:
    """``net(x, *inputs)`` in its own precision, answered in float32."""
    if precision == torch.float32:
        return net(x, *inputs).float()
    with rounded(net, precision), torch.autocast(x.device.type, precision):
        return net(x, *inputs).float()


def kept(keep_BK: Tensor | None) -> tuple[Tensor, ...]:
    """The kept tokens as an argument more, for networks that drop tokens; none where all stay."""
    return () if keep_BK is None else (keep_BK,)


def per_channel(value: float | Tensor, axes: int) -> Tensor:
    """``[1, C, 1, …]`` of a number or one a channel, a copy."""
    return torch.as_tensor(value, dtype=torch.float32).reshape(1, -1, *[1] * axes).clone()
