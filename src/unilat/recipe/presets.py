"""Complete configurations, and the one dial.

The dial is the shorter side of the pictures: :func:`get` adds a level to encoder and decoder for each doubling beyond 32
pixels, so that the latent grid of the small presets stays 8×8 (8×12 for pictures half as wide again), and four times the
latent channels, so that the bits per pixel a latent can carry stay the same. The paper's presets and those for one GPU
keep their own levels.
"""

from dataclasses import replace

from unilat.fields import Size, as_size
from unilat.models.autoencoder import AutoencoderConfig
from unilat.models.base import BaseConfig
from unilat.nets.encoder import EncoderConfig
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViTConfig
from unilat.recipe.config import DataConfig, EvaluationConfig, RunConfig, Stage1Config, Stage2Config
from unilat.types import UserError

# fmt: off
_IMAGENET = RunConfig(
    data        = DataConfig(source="imagenet", size=(512, 512), channels=3),
    autoencoder = AutoencoderConfig(
        latent_channels = 32,
        encoder = EncoderConfig(channels=(128, 256, 512, 512), blocks=(2, 2, 2, 3), strides=((2, 2),) * 3),
        prior   = ViTConfig(channels=(1024,), blocks=(8,), head_width=64),
        decoder = UViTConfig(channels=(128, 256, 512), blocks=(2, 2, 2), strides=((2, 2),) * 3, width=1024, depth=8, head_width=64, dropout=0.1),
        decoder_start = "data",
    ),
    stage1      = Stage1Config(target_bpp=0.059, samples=100_000_000, batch=1024, learning_rate=2e-4, optimizer="adamw", warmup=1_000_000, ema_halflife=2_000_000, calibrate_every=1_000_000),
    base        = BaseConfig(vit=ViTConfig(channels=(512, 1024), blocks=(6, 16), head_width=64, dropout=0.1)),
    stage2      = Stage2Config(samples=400_000_000, batch=2048, learning_rate=2e-4, optimizer="adamw", warmup=4_000_000, ema_halflife=4_000_000),
    evaluation  = EvaluationConfig(pictures=50_000, samples=50_000, decoder_steps=50, decoder_temperature=1.0, base_steps=50),
)
_KINETICS = replace(
    _IMAGENET,
    data        = DataConfig(source="kinetics-600", size=(128, 128), channels=3),
    autoencoder = AutoencoderConfig(
        latent_channels = 32,
        encoder = EncoderConfig(channels=(128, 256, 512, 512), blocks=(2, 2, 2, 3), strides=((2, 2, 2), (2, 2, 2), (1, 1, 1)), patch=(1, 2, 2)),
        prior   = ViTConfig(channels=(1024,), blocks=(8,), head_width=64),
        decoder = UViTConfig(channels=(128, 256, 512), blocks=(2, 2, 2), strides=((2, 2, 2), (2, 2, 2), (1, 1, 1)), patch=(1, 2, 2), width=1024, depth=8, head_width=64, dropout=0.1),
        decoder_start = "data",
    ),
)
_SMALL = RunConfig(
    data        = DataConfig(calibration=2048),
    autoencoder = AutoencoderConfig(
        latent_channels = 8,
        encoder = EncoderConfig(channels=(64,), blocks=(2,), strides=(), patch=(4, 4)),
        prior   = ViTConfig(channels=(128,), blocks=(4,), patch=2),
        decoder = UViTConfig(channels=(64,), blocks=(2,), patch=(4, 4), width=128, depth=2),
    ),
    stage1      = Stage1Config(target_bpp=0.2, settle=160_000),
    base        = BaseConfig(vit=ViTConfig(channels=(128,), blocks=(6,), patch=2)),
    stage2      = Stage2Config(samples=140_000),
)
_GLYPHS = replace(  # many classes of few pictures, whose looks add up: a character's and a face's
    _SMALL,
    data        = DataConfig(source="glyphs", calibration=735),
    autoencoder = replace(
        _SMALL.autoencoder,
        latent_channels = 2,
        encoder = EncoderConfig(channels=(48,), blocks=(2,), strides=(), patch=(2, 2)),
        prior   = ViTConfig(channels=(128,), blocks=(4,), patch=4),
    ),
    stage1      = replace(_SMALL.stage1, samples=28_000, settle=150_000),
    base        = BaseConfig(vit=ViTConfig(channels=(128,), blocks=(6,), patch=4), bias=-2.0, covariance_up_to=1024),
    stage2      = Stage2Config(samples=62_000),
    evaluation  = EvaluationConfig(guidance=2.0),
)
_PHOTO_64 = RunConfig(
    data        = DataConfig(source="photos", size=(64, 64), channels=3),
    autoencoder = AutoencoderConfig(
        latent_channels = 8,
        encoder = EncoderConfig(channels=(128, 256), blocks=(2, 3), strides=((2, 2),)),
        prior   = ViTConfig(channels=(512,), blocks=(8,), head_width=64),
        decoder = UViTConfig(channels=(128, 256), blocks=(2, 2), strides=((2, 2),) * 2, width=512, depth=8, head_width=64),
    ),
    stage1      = Stage1Config(target_bpp=0.2, samples=4_000_000, batch=256, learning_rate=7.5e-4, warmup=40_000, ema_halflife=100_000, settle=4_000_000, settle_batch=512, calibrate_every=100_000),
    base        = BaseConfig(vit=ViTConfig(channels=(384, 768), blocks=(4, 12), head_width=64, dropout=0.1)),
    stage2      = Stage2Config(samples=12_000_000, batch=512, learning_rate=5e-4, warmup=200_000, ema_halflife=200_000),
    evaluation  = EvaluationConfig(pictures=2_000, samples=2_000, step_counts=(1, 4, 16), base_steps=16, classifier_samples=0),
)
_PHOTO_128 = replace(
    _PHOTO_64,
    data        = DataConfig(source="photos", size=(128, 128), channels=3),
    autoencoder = AutoencoderConfig(
        latent_channels = 16,
        encoder = EncoderConfig(channels=(96, 192, 384), blocks=(2, 2, 3), strides=((2, 2),) * 2),
        prior   = ViTConfig(channels=(640,), blocks=(8,), head_width=64),
        decoder = UViTConfig(channels=(96, 192, 384), blocks=(2, 2, 2), strides=((2, 2),) * 3, width=640, depth=8, head_width=64),
    ),
    stage1      = replace(_PHOTO_64.stage1, target_bpp=0.12, learning_rate=7e-4),
    base        = BaseConfig(vit=ViTConfig(channels=(448, 896), blocks=(4, 14), head_width=64, dropout=0.1)),
)
_PHOTO_256 = replace(
    _PHOTO_64,
    data        = DataConfig(source="photos", size=(256, 256), channels=3),
    autoencoder = AutoencoderConfig(
        latent_channels = 16,
        encoder = EncoderConfig(channels=(64, 128, 256), blocks=(2, 2, 3), strides=((2, 2),) * 2),
        prior   = ViTConfig(channels=(640,), blocks=(8,), patch=2, head_width=64),
        decoder = UViTConfig(channels=(64, 128, 256), blocks=(2, 2, 2), strides=((2, 2),) * 3, width=768, depth=8, head_width=64),
    ),
    stage1      = replace(_PHOTO_64.stage1, target_bpp=0.08, learning_rate=6e-4),
    base        = BaseConfig(vit=ViTConfig(channels=(512, 1024), blocks=(4, 14), patch=2, head_width=64, dropout=0.1)),
)
_KL_VAE = replace(  # latent diffusion's baseline: the same networks, KL weight 1/100, hardly any fixed noise
    _SMALL,
    autoencoder = replace(_SMALL.autoencoder, price="normal", learned_variance=True, lambda_0=10.0, decoder_loss="mse"),
    stage1      = replace(_SMALL.stage1, target_bpp=None, loss_factor=100.0, settle=0),
)
_TINY = RunConfig(
    data        = DataConfig(size=(16, 16), calibration=32),
    autoencoder = AutoencoderConfig(
        latent_channels = 4,
        encoder = EncoderConfig(channels=(16, 16), blocks=(1, 1)),
        prior   = ViTConfig(channels=(32,), blocks=(1,), head_width=16),
        decoder = UViTConfig(channels=(16,), blocks=(1,), width=32, depth=1, head_width=16),
    ),
    stage1      = Stage1Config(samples=1_280, batch=32, warmup=64, ema_halflife=128, calibrate_every=640),
    base        = BaseConfig(vit=ViTConfig(channels=(16, 32), blocks=(2, 1), head_width=16)),
    stage2      = Stage2Config(samples=640, batch=32, warmup=64, ema_halflife=128),
    evaluation  = EvaluationConfig(pictures=32, samples=32, rate_levels=2, decoder_steps=2, step_counts=(1, 2), base_steps=4, features="none", classifier_samples=0),
)
# fmt: on

PRESETS = {
    "small": _SMALL,
    "glyphs": _GLYPHS,
    "kl-vae": _KL_VAE,
    "tiny": _TINY,
    "photo-64": _PHOTO_64,
    "photo-128": _PHOTO_128,
    "photo-256": _PHOTO_256,
    "imagenet-512": _IMAGENET,
    "kinetics-600": _KINETICS,
}
"""Every preset by its name; ``small`` is the default and runs on two cores, ``tiny`` is for tests.

``glyphs`` is what `make run` trains, chosen for that data set alone (LOG.md): a finer grid of latents, and a base model
that starts from the means of characters and faces and spends its weight on coarse noise.

``photo-64`` to ``photo-256`` are for colour photographs and hours of one large GPU: the paper's networks, narrower, with
what was measured on two cores (Muon in stage 1, a decoder that starts from its latent, a settled prior, unit scale, no
grid coarser than 16×16). Their learning rates fall with the width (Muon's as 1.5e-3 √(128 / width)); nobody has measured
them. ``kl-vae`` is the autoencoder of latent diffusion on ``small``'s networks: a learned variance, the KL to N(0, I) at weight
1 / ``--loss-factor``, a squared error, and a lowest noise of λ₀ = 10 in place of none.
"""


def get(name: str, *, size: int | str | Size | None = None) -> RunConfig:
    """The preset ``name`` for pictures of ``size``, a number or ``(height, width)``; ``None`` is the preset's own.

    One more level for each doubling of the shorter side beyond 32 pixels. Raises :class:`UserError` for another name.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    config = PRESETS[name]
    wanted = config.data.size if size is None else as_size(size)
    if wanted == config.data.size:
        return config
    config = replace(config, data=replace(config.data, size=wanted))
    return _with_levels(config, min(wanted)) if name in ("small", "glyphs", "kl-vae", "tiny") else config


def _with_levels(config: RunConfig, side: int) -> RunConfig:
    extra = 0
    while side > 32 << extra:
        extra += 1
    if not extra:
        return config
    encoder, decoder = config.autoencoder.encoder, config.autoencoder.decoder
    fine = tuple(max(16, encoder.channels[0] >> level) for level in range(extra, 0, -1))
    encoder = replace(
        encoder,
        channels=(*fine, *encoder.channels),
        blocks=(*[1] * extra, *encoder.blocks),
        strides=(*[(2, 2)] * extra, *encoder.strides),
    )
    decoder = replace(
        decoder,
        channels=(*fine, *decoder.channels),
        blocks=(*[1] * extra, *decoder.blocks),
        strides=(*[(2, 2)] * extra, *decoder.strides),
    )
    channels = config.autoencoder.latent_channels * 4**extra
    ae = replace(config.autoencoder, encoder=encoder, decoder=decoder, latent_channels=channels)
    return replace(config, autoencoder=ae)
