"""New latents with torch alone: what the pipeline for diffusers and the nodes of ComfyUI share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unilat.maths.guidance import classifier_free
from unilat.maths.samplers import ddim, dpmpp_2m, uniform_grid
from unilat.nets.class_gaussian import ClassGaussian
from unilat.nets.condition import Condition
from unilat.nets.denoiser import Denoiser
from unilat.nets.gaussian import GaussianDenoiser
from unilat.nets.vit import ViT, ViTConfig


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What a model of latents is built of and called with; each field is one of its config.json."""

    in_channels: int
    """Of the latents."""
    sample_size: tuple[int, ...]
    """Height and width of the latents."""
    vit: dict
    """Fields of a ``ViTConfig``."""
    kind: str
    """What stands around the network: ``plain``, ``gaussian`` or ``class_gaussian``."""
    classes: tuple[str, ...]
    """Their names; none where there are no classes."""
    factors: tuple[tuple[int, ...], ...] | None
    """What each class is made of, or None."""
    turns: tuple[int, ...]
    """The classes that take turns where nobody asks for one."""
    lambda_min: float
    lambda_0: float
    """Log-SNR of the latents' noise, where sampling ends."""
    num_inference_steps: int
    """Calls where nobody asks for another number."""
    guidance_scale: float
    grid: tuple[float, ...] | None
    """Log-SNR of each call of a distilled model and of its end; None of any other."""
    temperature: float
    """Standard deviation of the noise that a distilled model starts from."""


def network(sampling: Sampling) -> nn.Module:
    """The denoiser, not yet filled with weights."""
    channels, axes, classes = sampling.in_channels, len(sampling.sample_size), len(sampling.classes)
    factors = None if sampling.factors is None else torch.tensor(sampling.factors, device="cpu")
    vit: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in sampling.vit.items()}
    shown = channels if sampling.kind == "class_gaussian" and classes else 0
    net = ViT(ViTConfig(**vit), channels, axes, classes, factors, shown)
    if sampling.kind == "class_gaussian":
        return ClassGaussian(net, (channels, *sampling.sample_size), classes, factors)
    if sampling.kind == "gaussian":
        return GaussianDenoiser(net, (channels, *sampling.sample_size))
    return Denoiser(net, axes, torch.zeros(channels), torch.ones(channels))


def condition(sampling: Sampling, labels: Tensor) -> Condition | None:
    """What the denoiser is given of class numbers ``[B]``, of -1 nothing; None where there are no classes."""
    return Condition(labels.clamp_min(0)).drop(labels < 0) if sampling.classes else None


def draw(
    sampling: Sampling, denoise: nn.Module, z_1: Tensor, labels: Tensor, guidance: float | None, steps: int | None
) -> Tensor:
    """Latents z_0 of classes ``labels [B]`` from ``z_1 ~ N(0, I)``, by DPM-Solver++(2M) under guidance."""
    cond = condition(sampling, labels)
    if sampling.grid is not None:
        grid = torch.tensor(sampling.grid, dtype=torch.float64)
        return ddim(denoise, sampling.temperature * z_1, grid, generator=(), cond=cond)
    grid = uniform_grid(sampling.lambda_min, sampling.lambda_0, steps or sampling.num_inference_steps)
    scale = sampling.guidance_scale if guidance is None else guidance
    if cond is None:
        return dpmpp_2m(denoise, z_1, grid, generator=())
    guided: Callable[..., Tensor] = classifier_free(denoise, scale, cond.null())
    return dpmpp_2m(guided, z_1, grid, generator=(), cond=cond)


def check_call(sampling: Sampling, guidance: float | None, steps: int | None) -> None:
    """Raise ``ValueError`` for what this model cannot be asked for."""
    if sampling.grid is not None and (guidance is not None or steps is not None):
        raise ValueError("this model was distilled for its own steps and guidance: leave both out")
    if guidance is not None and not sampling.classes:
        raise ValueError("this model knows no classes to be guided by: leave guidance_scale out")
    if steps is not None and steps < 1:
        raise ValueError(f"num_inference_steps must be 1 or more, not {steps}")


def numbers(sampling: Sampling, labels: int | str | list | tuple | Tensor | None, count: int | None) -> Tensor:
    """Class numbers int64 ``[count]``: names or numbers, one for all or one each; without any they take turns.

    -1 is no class. Raises ``ValueError`` for what is no class of this model.
    """
    if labels is None:
        turns = torch.tensor(sampling.turns or (0,))
        return turns[torch.arange(1 if count is None else count) % len(turns)]
    if not sampling.classes:
        raise ValueError("this model knows no classes: leave class_labels out")
    several = labels.tolist() if isinstance(labels, Tensor) else labels
    listed = list(several) if isinstance(several, list | tuple) else [several] * (1 if count is None else count)
    if count is not None and len(listed) != count:
        raise ValueError(f"{len(listed)} class_labels for {count} pictures: give one, or one a picture")
    return torch.tensor([_number(sampling.classes, one) for one in listed])


def _number(classes: tuple[str, ...], label: int | str) -> int:
    if isinstance(label, str) and label in classes:
        return classes.index(label)
    if isinstance(label, int) and not isinstance(label, bool) and -1 <= label < len(classes):
        return label
    shown = ", ".join(classes[:20]) + (" ..." if len(classes) > 20 else "")
    raise ValueError(f"there is no class {label!r}: choose one of {shown} or 0 to {len(classes) - 1}")
