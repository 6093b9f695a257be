"""From a configuration to its networks, and what they will cost."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base
from unilat.models.price import Charge
from unilat.nets.condition import Condition
from unilat.nets.cost import Cost, cost
from unilat.recipe import config as configuration
from unilat.recipe.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """What one network costs."""

    parameters: int
    forward_flops: int
    """Of one example."""
    training_flops: int
    """Of the whole training."""
    memory_mib: float
    """In training: activations of a batch; weights, gradients, two moments and the average."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a run would cost, and the shapes that it works with."""

    latent: tuple[int, ...]
    """``(C, *grid)`` of one latent."""
    picture: tuple[int, ...]
    """``(C, H, W)`` of one picture, ``(C, T, H, W)`` of a clip."""
    capacity_bpp: float
    """Most bits per pixel that the latent can carry."""
    parts: dict[str, PartCost]
    """``encoder``, ``prior``, ``decoder``, ``base``: those that are trained."""

    def to_json(self) -> dict[str, object]:
        """As ``--dry-run --json`` prints it."""
        return asdict(self)


def build_autoencoder(
    config: RunConfig,
    channels: int,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    charge: Charge | None = None,
) -> Autoencoder:
    """The networks of stage 1; ``mean`` and ``std`` of the data come with the weights if not given."""
    mean, std = torch.zeros(channels) if mean is None else mean, torch.ones(channels) if std is None else std
    return Autoencoder(config.autoencoder, channels, mean, std, charge, configuration.latent_grid(config))


def build_base(
    config: RunConfig,
    classes: list[str],
    mean: Tensor | None = None,
    std: Tensor | None = None,
    factors: Tensor | None = None,
) -> Base:
    """The base model of stage 2, by the same rule; ``factors [classes, F]``: what the classes are made of."""
    ae = config.autoencoder
    zero, one = torch.zeros(ae.latent_channels), torch.ones(ae.latent_channels)
    axes, count = len(ae.encoder.patch), len(classes) if len(classes) > 1 else 0
    mean, std = zero if mean is None else mean, one if std is None else std
    grid, span = configuration.latent_grid(config), (ae.lambda_min, ae.lambda_0)
    return Base(config.base, ae.latent_channels, axes, count, *span, mean, std, factors, grid)


def describe(
    config: RunConfig, channels: int | None = None, classes: int = 0, factors: Tensor | None = None
) -> Description:
    """What a run would cost: parameters, FLOPs and memory of every part, counted on the meta device."""
    configuration.check(config)
    channels = channels or config.data.channels or 3
    ae = config.autoencoder
    with torch.device("meta"):
        autoencoder = build_autoencoder(config, channels)
        base = build_base(config, [""] * classes, factors=factors)
    x = torch.empty(1, channels, *(configuration.FRAMES, *config.data.size)[-len(ae.encoder.patch) :], device="meta")
    z = torch.empty(1, ae.latent_channels, *configuration.latent_grid(config), device="meta")
    level, cond = torch.empty(1, device="meta"), Condition(torch.zeros(1, dtype=torch.int64)) if classes else None
    costs: dict[str, tuple[Cost, int, int]] = {
        "encoder": (cost(autoencoder.encoder, x), config.stage1.samples, config.stage1.batch),
        "prior": (
            cost(autoencoder.prior, z, level, None),
            config.stage1.samples + config.stage1.settle,
            config.stage1.batch,
        ),
        "decoder": (
            cost(autoencoder.decoder, x, level, autoencoder.condition(z)),
            config.stage1.samples,
            config.stage1.batch,
        ),
        "base": (cost(base.denoise, z, level, cond), config.stage2.samples, config.stage2.batch),
    }
    kept = torch.zeros(1, base.kept(z.shape[2:]), dtype=torch.int64, device="meta")
    trained = {"base": cost(base.denoise, z, level, cond, kept)} if config.base.token_dropping else {}
    if ae.price == "normal":
        del costs["prior"]
    if config.evaluation.sample_from == "prior":
        del costs["base"]
    parts = {
        name: PartCost(
            parameters=one.parameters,
            forward_flops=one.forward_flops,
            training_flops=trained.get(name, one).training_flops(samples),
            memory_mib=(trained.get(name, one).activation_bytes * batch + 20 * one.parameters) / 2**20,
        )
        for name, (one, samples, batch) in costs.items()
    }
    capacity = configuration.capacity(config)
    return Description(latent=tuple(z.shape[1:]), picture=tuple(x.shape[1:]), capacity_bpp=capacity, parts=parts)
