"""An autoencoder of unilat with the face of diffusers' AutoencoderKL.

    z_0 = vae.encode(x).latent_dist.sample()       x [B, C, H, W] in [-1, 1]; .mode() is without the noise
    x = vae.decode(z_0).sample                     a seed of its own unless a generator is given

Latents carry a fixed noise on purpose: what a picture tells the decoder is bounded by it. A model of latents learns
``z_0`` as it is, or ``(z_0 - shift_factor) * scaling_factor`` of unit variance, or one channel at a time
``(z_0 - latents_mean) / latents_std``; all four are of the training pictures. Weights of any precision are computed
with in float32.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from unilat.interop.published.coding import Coding, check_steps, decode, networks, noise, picture_shape, posterior


class UnilatAutoencoder(ModelMixin, ConfigMixin):
    """Pictures to latents and back; ``decode`` is a diffusion model of few calls."""

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        latent_channels: int,
        encoder_config: dict,
        decoder_config: dict,
        decoder_start: str,
        learned_variance: bool,
        lambda_0: float,
        lambda_min: float,
        tells_noise: bool,
        one_call: bool,
        decoder_range: tuple[float, float],
        decoder_temperature: float,
        num_inference_steps: int,
        sample_size: int | tuple[int, int],
        block_out_channels: tuple[int, ...],
        spatial_compression_ratio: int,
        latents_mean: tuple[float, ...],
        latents_std: tuple[float, ...],
        scaling_factor: float,
        shift_factor: float,
        decoder_grid: tuple[float, ...] | None = None,
        force_upcast: bool = True,
        auto_map: dict | None = None,
    ):
        super().__init__()
        self.coding = Coding(
            in_channels=in_channels,
            latent_channels=latent_channels,
            encoder=encoder_config,
            decoder=decoder_config,
            decoder_start=decoder_start,
            learned_variance=learned_variance,
            lambda_0=lambda_0,
            lambda_min=lambda_min,
            tells_noise=tells_noise,
            one_call=one_call,
            decoder_range=(decoder_range[0], decoder_range[1]),
            decoder_temperature=decoder_temperature,
            num_inference_steps=num_inference_steps,
            decoder_grid=None if decoder_grid is None else tuple(decoder_grid),
        )
        self.encoder, self.decoder = networks(self.coding)

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """The posterior of z_0 for pictures in [-1, 1]: ``.latent_dist`` with ``sample`` and ``mode``."""
        found = DiagonalGaussianDistribution(torch.cat(posterior(self.coding, self.encoder, x), dim=1).to(x.dtype))
        return AutoencoderKLOutput(latent_dist=found) if return_dict else (found,)

    @apply_forward_hook
    def decode(
        self,
        z: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        return_dict: bool = True,
    ) -> DecoderOutput | tuple:
        """Pictures of latents z_0. Without a generator picture i starts from noise of (seed 0, i)."""
        check_steps(self.coding, num_inference_steps)
        shape = picture_shape(self.coding, z)
        if generator is None:
            x_1 = noise(0, "decode", len(z), shape).to(z.device)
        else:
            x_1 = randn_tensor((len(z), *shape), generator=generator, device=z.device, dtype=torch.float32)
        return self.decode_from(z, x_1, num_inference_steps, return_dict)

    def decode_from(
        self, z: Tensor, x_1: Tensor, num_inference_steps: int | None = None, return_dict: bool = True
    ) -> DecoderOutput | tuple:
        """The same from noise ``x_1 ~ N(0, I)`` of the pictures' shape."""
        made = decode(self.coding, self.decoder, z, x_1, num_inference_steps).to(z.dtype)
        return DecoderOutput(sample=made) if return_dict else (made,)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput | tuple:
        """There and back; with ``sample_posterior`` by a drawn latent, else by its mode."""
        found = self.encode(sample, return_dict=False)[0]
        z = found.sample(generator=generator) if sample_posterior else found.mode()
        return self.decode(z, generator=generator, return_dict=return_dict)
