"""A configuration for somebody else's autoencoder: what follows from its latents, and which of its parts learn."""

from dataclasses import replace

from unilat.fields import FieldError, spelled
from unilat.models.networks import Tune
from unilat.nets.encoder import EncoderConfig
from unilat.nets.foreign import ForeignConfig
from unilat.recipe.config import RunConfig, latent_grid
from unilat.recipe.sizes import fitting, folding


def with_foreign(config: RunConfig, model: ForeignConfig, tune: Tune = "decoder", own: bool = False) -> RunConfig:
    """``config`` on the latents of ``model``; raises :class:`~unilat.fields.FieldError` where pictures do not fit it.

    ``own``: its decoder is kept, or tuned, in place of the diffusion decoder. Prior and base model take the smallest
    patch that leaves them no more tokens than they had, and what our decoder draws has the model's grid.
    """
    own = own or tune == "none"
    _check_pictures(config, model, own)
    ae, factor, size = config.autoencoder, model.factor, config.data.size
    before, grid = latent_grid(config)[-2:], (size[0] // factor, size[1] // factor)
    prior, vit = (fitting(net, before, grid, name) for net, name in ((ae.prior, "prior"), (config.base.vit, "base")))
    autoencoder = replace(
        ae,
        latent_channels=model.latent_channels,
        encoder=_shape(ae.encoder, factor),
        prior=prior,
        foreign=replace(model, decoder="own" if own else "ours"),
        tune=tune,
        decoder_loss="mse" if own else ae.decoder_loss,
    )
    data = replace(config.data, channels=model.channels)
    return replace(config, data=data, autoencoder=autoencoder, base=replace(config.base, vit=vit))


def _check_pictures(config: RunConfig, model: ForeignConfig, own: bool) -> None:
    """Channels and sides that the model can take."""
    channels, size, factor = config.data.channels, config.data.size, model.factor
    if channels not in (None, model.channels) or model.channels not in (1, 3):
        way = "leave out data.channels" if model.channels in (1, 3) else "pictures are read with 1 or 3"
        raise FieldError(f"this {model.kind} takes pictures of {model.channels} channels, not {channels or 3}: {way}")
    if own and not model.whole:
        raise FieldError(f"this {model.kind} makes other channels than it takes, so its decoder cannot be kept")
    if any(side % factor for side in size):
        near = " or ".join(
            dict.fromkeys(
                spelled((max(1, up + size[0] // factor) * factor, max(1, up + size[1] // factor) * factor))
                for up in (0, 1)
            )
        )
        raise FieldError(
            f"this {model.kind} shrinks pictures {factor} times, which does not divide {spelled(size)} pixels: take "
            f"data.size {near}"
        )


def _shape(encoder: EncoderConfig, factor: int) -> EncoderConfig:
    """Levels like ``encoder``'s for cells of ``factor`` pixels a side: more of half the width, or the coarsest."""
    while max(encoder.factor) * 2 <= factor:
        encoder = replace(
            encoder,
            channels=(max(16, encoder.channels[0] // 2), *encoder.channels),
            blocks=(1, *encoder.blocks),
            strides=((2, 2), *encoder.strides),
        )
    return encoder if encoder.factor == (factor, factor) else folding(encoder, (factor, factor))
