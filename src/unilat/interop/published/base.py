"""A model of the latents of a unilat autoencoder, as diffusers keeps models: a denoiser and the way it draws.

z_hat = base(z_t, logsnr, class_labels).sample     the expected clean latent; class -1 is none
z_0 = base.draw(z_1, class_labels)                 from noise to a latent that the decoder takes
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from unilat.interop.published.coding import in_full
from unilat.interop.published.sampling import Sampling, check_call, condition, draw, network, numbers


class UnilatBase(ModelMixin, ConfigMixin):
    """Denoiser of latents ``[B, C, h, w]``, by class where there are classes."""

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        sample_size: tuple[int, ...],
        vit: dict,
        kind: str,
        classes: tuple[str, ...],
        turns: tuple[int, ...],
        lambda_min: float,
        lambda_0: float,
        num_inference_steps: int,
        guidance_scale: float,
        factors: tuple[tuple[int, ...], ...] | None = None,
        grid: tuple[float, ...] | None = None,
        temperature: float = 1.0,
        auto_map: dict | None = None,
    ):
        super().__init__()
        self.sampling = Sampling(
            in_channels=in_channels,
            sample_size=tuple(sample_size),
            vit=vit,
            kind=kind,
            classes=tuple(classes),
            turns=tuple(turns),
            lambda_min=lambda_min,
            lambda_0=lambda_0,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            factors=None if factors is None else tuple(tuple(row) for row in factors),
            grid=None if grid is None else tuple(grid),
            temperature=temperature,
        )
        self.denoise = network(self.sampling)

    def forward(
        self, z_t: Tensor, logsnr: Tensor, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> Transformer2DModelOutput | tuple:
        """``E[z | z_t]`` at log-SNR ``[B]``."""
        labels = torch.full((len(z_t),), -1, device=z_t.device) if class_labels is None else class_labels
        z_hat = in_full(self.denoise)(z_t.float(), logsnr.float(), condition(self.sampling, labels)).to(z_t.dtype)
        return Transformer2DModelOutput(sample=z_hat) if return_dict else (z_hat,)

    def numbers(self, class_labels: int | str | list | Tensor | None, count: int | None) -> Tensor:
        """Class numbers ``[count]`` of names or numbers; ``ValueError`` for what is none."""
        return numbers(self.sampling, class_labels, count)

    @apply_forward_hook
    @torch.no_grad()
    def draw(
        self,
        z_1: Tensor,
        class_labels: Tensor,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
    ) -> Tensor:
        """Latents z_0 from ``z_1 ~ N(0, I)``, one class number each."""
        check_call(self.sampling, guidance_scale, num_inference_steps)
        net, labels = in_full(self.denoise), class_labels.to(z_1.device)
        return draw(self.sampling, net, z_1.float(), labels, guidance_scale, num_inference_steps)
