"""The networks of stage 1: their configuration, and encoder and decoder as it names them, ours or somebody else's."""

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from unilat.fields import FieldError, check_fields
from unilat.models.price import Kind as PriceKind
from unilat.models.reconstruction import Kind as ReconstructionKind
from unilat.nets.decoder import Decoder
from unilat.nets.denoiser import Denoiser
from unilat.nets.encoder import Encoder, EncoderConfig
from unilat.nets.foreign import ForeignConfig, ForeignDecoder, ForeignEncoder
from unilat.nets.uvit import UViT, UViTConfig
from unilat.nets.vit import ViTConfig

Tune = Literal["all", "decoder", "none"]
"""Which networks of stage 1 learn, beside the prior."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """What stage 1 is made of."""

    latent_channels: int = 8
    """Channels of the latent."""
    lambda_0: float = 5.0
    """Log-SNR of the encoder's fixed noise, the prior's lowest (UL: 5)."""
    lambda_min: float = -10.0
    """Log-SNR of the prior's and the decoder's highest noise."""
    lambda_max: float = 10.0
    """Log-SNR of the decoder's lowest noise."""
    bias: float = 0.0
    """b of the decoder's weight sigmoid(b − λ): below it the decoder is asked for all, above it for less and less."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The encoder."""
    price: PriceKind = "diffusion"
    """What a latent is charged: its rate under the diffusion prior (UL), a normal prior's KL (as a VAE), or with the
    prior's gradient stopped a small KL (UL Table 6 A)."""
    kl_weight: float = 1e-3
    """Weight of the small KL of ``price`` stopped."""
    learned_variance: bool = False
    """Whether the encoder learns a variance beside the fixed noise (UL eq. 5)."""
    random_end: tuple[float, float] | None = None
    """Single-stage training (UL App. B): location and scale of the logistic that draws each latent's lowest noise."""
    decoder_loss: ReconstructionKind = "diffusion"
    """What trains the decoder: the diffusion loss (UL), or a squared error in one call (as a VAE)."""
    perceptual: float = 0.0
    """Weight of a perceptual distance (ST-LPIPS) beside the decoder's loss, nats per unit of it: 100 for example."""
    decoder_start: Literal["latent", "data"] = "latent"
    """The Gaussian whose exact denoiser the untrained decoder is: one drawn from the latent, or the data's (EDM)."""
    covariance_up_to: int = 0
    """Most numbers a latent may have for the prior to build on their whole covariance; 0 never. It helps a prior that
    sees few latents, and hinders one that settles (LOG.md)."""
    prior: ViTConfig = field(default_factory=ViTConfig)
    """The diffusion prior, trained with the encoder."""
    decoder: UViTConfig = field(default_factory=UViTConfig)
    """The diffusion decoder."""
    foreign: ForeignConfig | None = None
    """Somebody else's autoencoder, whose encoder is the run's; ``encoder`` then only shapes what our decoder draws."""
    tune: Tune = "all"
    """What learns, beside the prior. decoder: the encoder is kept as it is, and its bits are held by the scale of its
    latents above the fixed noise. none: the decoder too is kept."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be built; ``name`` is the field it stands under."""
        check_fields(
            self, name, least={"latent_channels": 1, "covariance_up_to": 0}, positive=("kl_weight",), finite=("bias",)
        )
        self.encoder.check(f"{name}.encoder")
        self._check_kept(name)
        self.decoder.check(f"{name}.decoder")
        self.prior.check(f"{name}.prior")
        if not 0 <= self.perceptual < math.inf:
            raise FieldError(f"{name}.perceptual must be 0 or a positive number, not {self.perceptual}")
        end = self.random_end
        if end is not None and not (math.isfinite(end[0]) and 0 < end[1] < math.inf):
            raise FieldError(f"{name}.random_end is a log-SNR and a positive scale, 0 1 for example, not {end}")
        if not -math.inf < self.lambda_min < self.lambda_0 <= self.lambda_max < math.inf:
            levels = f"{self.lambda_min}, {self.lambda_0}, {self.lambda_max}"
            raise FieldError(f"lambda_min < lambda_0 <= lambda_max must hold, not {levels}")

    @property
    def frozen(self) -> bool:
        """Whether the encoder is kept as it is."""
        return self.tune != "all"

    def _check_kept(self, name: str) -> None:
        """What an encoder that is kept or somebody else's leaves open."""
        kept, foreign = self.frozen or self.foreign is not None, self.foreign
        if kept and (self.price == "normal" or self.learned_variance or self.random_end is not None):
            raise FieldError(
                f"an encoder that is taken over is a point with the fixed noise of λ₀, its bits those of a diffusion "
                f"prior: leave {name}.price diffusion, and {name}.learned_variance and {name}.random_end out"
            )
        if self.frozen and self.price != "diffusion":
            raise FieldError(f"{name}.price {self.price} moves an encoder, and {name}.tune {self.tune} keeps it")
        if self.tune == "none" and (foreign is None or foreign.decoder == "ours"):
            raise FieldError(
                f"{name}.tune none keeps a decoder as it is, and there is none but the model's own: keep it"
            )
        if foreign is None:
            return
        foreign.check(f"{name}.foreign")
        if self.latent_channels != foreign.latent_channels:
            raise FieldError(
                f"the latents of this {foreign.kind} have {foreign.latent_channels} channels, not "
                f"{self.latent_channels}: leave out {name}.latent_channels"
            )
        if self.encoder.factor != (foreign.factor, foreign.factor):
            raise FieldError(
                f"this {foreign.kind} shrinks pictures {foreign.factor} times, and {name}.encoder "
                f"{'×'.join(map(str, self.encoder.factor))} times: leave out {name}.encoder's strides and patch"
            )
        if foreign.decoder == "own" and self.decoder_loss != "mse":
            raise FieldError(f"the decoder of an {foreign.kind} is called once: give {name}.decoder_loss mse")


def encoder_of(config: AutoencoderConfig, channels: int) -> Encoder | ForeignEncoder:
    """Ours or somebody else's, without gradients where it is kept."""
    if config.foreign is not None:
        return ForeignEncoder(config.foreign).requires_grad_(not config.frozen)
    made = Encoder(config.encoder, channels, config.latent_channels, config.learned_variance, kept=config.frozen)
    return made.requires_grad_(not config.frozen)


def decoder_of(
    config: AutoencoderConfig, channels: int, mean: float | Tensor, std: float | Tensor
) -> Decoder | Denoiser | ForeignDecoder:
    """The diffusion decoder from nothing, or the own one of somebody else's autoencoder, without gradients where it is
    kept; ``mean`` and ``std`` are those of the data."""
    if config.foreign is not None and config.foreign.decoder == "own":
        return ForeignDecoder(config.foreign, config.lambda_0).requires_grad_(config.tune != "none")
    axes, heard = len(config.encoder.patch), config.latent_channels + (config.random_end is not None)
    if config.decoder_start == "latent":
        return Decoder(config.decoder, config.encoder, channels, heard, mean, std)
    return Denoiser(UViT(config.decoder, channels, heard), axes, mean, std)
