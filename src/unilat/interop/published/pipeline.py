"""New pictures from a model of latents and its autoencoder.

    pipe = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)
    pipe(class_labels="cat", num_images=4, guidance_scale=2.0, seed=7).images

Without a ``generator`` pictures depend on ``seed`` as those of `unilat sample --seed` do, picture i on (seed, i) alone.
"""

from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor

from unilat.interop.published.coding import noise


class UnilatPipeline(DiffusionPipeline):
    """``base`` draws latents, ``vae`` makes pictures of them."""

    model_cpu_offload_seq = "base->vae"

    def __init__(self, vae, base):
        super().__init__()
        self.register_modules(vae=vae, base=base)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | list | None = None,
        num_images: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        decoder_steps: int | None = None,
        seed: int = 0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of classes by name or number, one for all or one each; by default those trained on take turns.

        ``output_type``: pil, np ``[B, H, W, C]`` or pt ``[B, C, H, W]`` in [0, 1], or latent.
        """
        labels = self.base.numbers(class_labels, num_images)
        shape = (self.base.config.in_channels, *self.base.config.sample_size)
        if generator is None:
            z_1 = noise(seed, "sample", len(labels), shape).to(self._execution_device)
        else:
            whole = (len(labels), *shape)
            z_1 = randn_tensor(whole, generator=generator, device=self._execution_device, dtype=torch.float32)
        z_0 = self.base.draw(z_1, labels, guidance_scale, num_inference_steps)
        if output_type == "latent":
            images: Any = z_0
        else:
            if generator is None:
                factor = self.vae.config.spatial_compression_ratio
                shape = (self.vae.config.out_channels, *(side * factor for side in z_0.shape[2:]))
                x_1 = noise(seed, "decode", len(z_0), shape).to(z_0.device)
                x = self.vae.decode_from(z_0, x_1, decoder_steps).sample
            else:
                x = self.vae.decode(z_0, generator=generator, num_inference_steps=decoder_steps).sample
            images = VaeImageProcessor().postprocess(x, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)
