"""Stage 2: the base model, a diffusion model on frozen latents that ends at the decoder's noise (UL Sec. 3.3).

    L = ½ ∫_{λ_min}^{λ₀} sigmoid(b − λ) E‖ε − ε̂‖² dλ

It samples ``z_0``, the latent with the noise σ(λ₀) that the decoder was trained on, and never the clean prediction.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unilat import types
from unilat.fields import FieldError, check_fields
from unilat.maths.denoising import denoising_loss
from unilat.maths.guidance import classifier_free
from unilat.maths.levels import weighted_table
from unilat.maths.noise import diffuse
from unilat.maths.samplers import dpmpp_2m, uniform_grid
from unilat.maths.seeds import Draws
from unilat.maths.weighting import sigmoid_weight
from unilat.models.autoencoder import Autoencoder
from unilat.models.placing import Placing
from unilat.nets.class_gaussian import ClassGaussian
from unilat.nets.condition import Condition
from unilat.nets.denoiser import Denoiser
from unilat.nets.gaussian import LatentDenoiser
from unilat.nets.vit import ViT, ViTConfig


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The base model and its objective."""

    vit: ViTConfig = field(default_factory=lambda: ViTConfig(channels=(96, 192), blocks=(4, 6), dropout=0.1))
    """Its two-level ViT."""
    bias: float = 2.0
    """b of the weight sigmoid(b − λ)."""
    label_dropout: float = 0.1
    """Share of examples trained without their class, for classifier-free guidance."""
    token_dropping: float = 0.0
    """Share of tokens that skip all blocks of the coarsest level but its first and last, in training only (TREAD)."""
    covariance_up_to: int = 0
    """Most numbers a latent may have for the base model to start as the exact denoiser of a Gaussian for each class;
    0 never."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be built; ``name`` is the field it stands under."""
        least = {"covariance_up_to": 0}
        check_fields(self, name, least=least, shares=("label_dropout", "token_dropping"), finite=("bias",))
        self.vit.check(f"{name}.vit")
        if self.token_dropping and self.vit.blocks[-1] < 3:
            raise FieldError(
                f"{name}.token_dropping spares the first and the last block of the coarsest level: give "
                f"{name}.vit.blocks 3 or more there, not {self.vit.blocks[-1]}"
            )


class Base(nn.Module):
    """Denoiser of latents ``z [B, C, *grid]``, conditional on ``labels [B]`` where there are ``classes``.

    ``mean`` and ``std`` are those of the clean latents, one number a channel. ``factors``: what each class is made of,
    int64 ``[classes, F]``, or None. ``grid``: the latents', where they may be few enough to start from their Gaussians.
    """

    def __init__(
        self,
        config: BaseConfig,
        channels: int,
        axes: int,
        classes: int,
        lambda_min: float,
        lambda_0: float,
        mean: float | Tensor = 0.0,
        std: float | Tensor = 1.0,
        factors: Tensor | None = None,
        grid: tuple[int, ...] = (),
    ):
        super().__init__()
        self.config, self.classes = config, classes
        self.lambda_min, self.lambda_0 = lambda_min, lambda_0
        self.denoise: LatentDenoiser | ClassGaussian
        if grid and channels * math.prod(grid) <= config.covariance_up_to:
            net = ViT(config.vit, channels, axes, classes, factors, shown=channels if classes else 0)
            self.denoise = ClassGaussian(net, (channels, *grid), classes, factors)
        else:
            self.denoise = Denoiser(ViT(config.vit, channels, axes, classes, factors), axes, mean, std)
        self.levels = Placing(weighted_table(config.bias, lambda_min, lambda_0))

    def begin(self, z: Tensor, labels: Tensor) -> None:
        """Start from the Gaussians of latents ``z [N, C, *grid]`` of classes ``labels [N]``, where it is built so."""
        if isinstance(self.denoise, ClassGaussian):
            self.denoise.begin(z, labels)

    def kept(self, grid: tuple[int, ...]) -> int:
        """Tokens of the coarsest level, at least one, that all its blocks see in training on a grid of latents."""
        tokens = self.config.vit.tokens(grid)
        return max(1, tokens - round(self.config.token_dropping * tokens))

    def losses(self, z: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The sigmoid-weighted loss, nats per example ``[B]``, and its noise levels; some examples lose their label."""
        levels = self.levels.sample(draws.strata(len(z)).to(z.device))
        z_t = diffuse(z, draws.normal(z), levels.lambda_t)
        unlabelled = draws.uniform(len(z)).to(z.device) < self.config.label_dropout
        cond, keep = Condition(labels).drop(unlabelled) if self.classes else None, None
        if self.config.token_dropping:
            order = draws.normal(z.new_empty(len(z), self.config.vit.tokens(z.shape[2:]))).argsort(1)
            keep = order[:, : self.kept(z.shape[2:])]
        z_hat = self.denoise(z_t, levels.lambda_t, cond, keep)
        loss = denoising_loss(z, z_hat, levels, sigmoid_weight(levels.lambda_t, self.config.bias))
        return loss, levels.lambda_t

    @torch.no_grad()
    def sample(
        self,
        z_1: Tensor,
        labels: Tensor | None,
        steps: int,
        guidance: float = 1.0,
    ) -> Tensor:
        """From ``z_1 ~ N(0, I)`` to ``z_0`` at noise λ₀ in ``steps`` network calls (twice that with guidance ≠ 1)."""
        grid = uniform_grid(self.lambda_min, self.lambda_0, steps).to(z_1.device)
        cond = self.unlabelled(len(z_1), z_1.device) if labels is None else self.condition(labels)
        return dpmpp_2m(self.guided(guidance), z_1, grid, generator=(), cond=cond)

    def condition(self, labels: Tensor) -> Condition | None:
        """What the denoiser is given of ``labels [B]``, of -1 nothing: None where there are no classes."""
        return Condition(labels).drop(labels < 0) if self.classes else None

    def unlabelled(self, count: int, device: torch.device | str = "cpu") -> Condition | None:
        """The condition of ``count`` examples of no known class; None where there are no classes."""
        return Condition(torch.zeros(count, dtype=torch.int64, device=device)).null() if self.classes else None

    def guided(self, scale: float) -> types.Denoiser[Condition | None]:
        """The denoiser under classifier-free guidance; where there is no condition, as it is."""

        def denoise(z_t: Tensor, logsnr: Tensor, cond: Condition | None) -> Tensor:
            if cond is None:
                return self.denoise(z_t, logsnr, None)
            return classifier_free(self.denoise, scale, cond.null())(z_t, logsnr, cond)

        return denoise


def prior_as_base(autoencoder: Autoencoder) -> Base:
    """Stage 1's prior in the base model's place: single-stage training (UL App. B), without classes."""
    config = autoencoder.config
    with torch.device("meta"):
        base = Base(BaseConfig(vit=config.prior), config.latent_channels, 1, 0, config.lambda_min, config.lambda_0)
    base.denoise = autoencoder.prior
    return base
