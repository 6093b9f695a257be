"""Models of diffusers' and pictures for runs that start from somebody's weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

SHORT: dict[str, Any] = {
    "stage1__samples": 64,
    "stage1__batch": 16,
    "stage1__warmup": 16,
    "stage1__ema_halflife": 8,
    "stage2__samples": 0,
    "data__calibration": 8,
    "evaluation__pictures": 8,
    "evaluation__step_counts": (1,),
}


def save(path: Path, kind: str = "AutoencoderKL", **changed: Any) -> Path:
    """An untrained model of diffusers' for grey pictures that it halves once, saved; its latents lie off the origin."""
    import diffusers

    torch.manual_seed(3)
    widths: dict[str, Any] = {"in_channels": 1, "out_channels": 1, "latent_channels": 3}
    if kind == "AutoencoderKL":
        widths |= {"block_out_channels": (8, 16), "norm_num_groups": 4}
        widths |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    elif kind == "AutoencoderTiny":
        widths |= {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        widths |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    else:
        del widths["out_channels"]
        widths |= {"encoder_block_out_channels": (8, 16), "decoder_block_out_channels": (8, 16)}
        widths |= {"encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1), "latent_channels": 8}
        widths |= {"encoder_qkv_multiscales": ((), ()), "decoder_qkv_multiscales": ((), ()), "attention_head_dim": 8}
    model = getattr(diffusers, kind)(**(widths | changed))
    if kind == "AutoencoderKL":
        with torch.no_grad():
            model.quant_conv.weight.mul_(3.0)
            model.quant_conv.bias.add_(2.0)
    model.save_pretrained(path)
    return path


def boxes(path: Path) -> Path:
    """80 grey pictures of 16 × 16, boxes of any brightness."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 40, (80, 16, 16, 1), dtype=np.uint8)
    for picture in pictures:
        row, column, height, width = random.integers(2, 9, 4)
        picture[row : row + height, column : column + width] = random.integers(120, 256)
    np.savez(path, images=pictures)
    return path
