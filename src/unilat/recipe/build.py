"""From a configuration to its networks, and what they will cost."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base
from unilat.models.price import Charge
from unilat.nets.condition import Condition
from unilat.nets.cost import Cost, cost
from unilat.nets.perceptual import PerceptualDistance
from unilat.recipe import config as configuration
from unilat.recipe.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """What one network costs."""

    parameters: int
    forward_flops: int
    """Of one example."""
    training_flops: int
    """Of the whole training: ``example_flops`` of each example and ``step_flops`` of each step."""
    memory_mib: float
    """In training: activations of a batch; weights, gradients, two moments and the average."""
    example_flops: int
    """Of training on one example: three forward passes, of the tokens that training sees, or at most one; of a decoder
    with a perceptual term also that term's network."""
    step_flops: int
    """Of the matrix products of one step of Muon, whatever the batch (``nets/inner.py``); 0 with AdamW."""
    muon_flops: int
    """Of those of all steps, which ``training_flops`` counts."""
    trained: bool = True
    """Whether it learns; one that is kept as it is costs a forward pass where training asks it, and its weights."""

    def training(self, examples: int, batch: int) -> int:
        """FLOPs of training on ``examples`` in steps of ``batch``."""
        return self.example_flops * examples + self.step_flops * -(-examples // batch)


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
    """``encoder``, ``prior``, ``decoder``, ``base``: those that a run has."""

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
    costs = {
        "encoder": cost(autoencoder.encoder, x),
        "prior": cost(autoencoder.prior, z, level, None),
        "decoder": cost(autoencoder.decoder, x, level, autoencoder.condition(z)),
        "base": cost(base.denoise, z, level, cond),
    }
    kept = torch.zeros(1, base.kept(z.shape[2:]), dtype=torch.int64, device="meta")
    trained = {"base": cost(base.denoise, z, level, cond, kept)} if config.base.token_dropping else {}
    if ae.price == "normal":
        del costs["prior"]
    if config.evaluation.sample_from == "prior":
        del costs["base"]
    judge = 0
    if ae.perceptual:  # its network sees both pictures, and the gradient goes back through one, to no weights
        with torch.device("meta"):
            judge = cost(PerceptualDistance(), x, x).forward_flops * 3 // 2
    parts = {
        name: _part(config, name, one, trained.get(name, one), judge * (name == "decoder"))
        for name, one in costs.items()
    }
    capacity = configuration.capacity(config)
    return Description(latent=tuple(z.shape[1:]), picture=tuple(x.shape[1:]), capacity_bpp=capacity, parts=parts)


def _part(config: RunConfig, name: str, whole: Cost, trained: Cost, judge: int) -> PartCost:
    """What a network costs, given it as it is sampled with and as it is trained, and FLOPs of judging an example."""
    one, two = config.stage1, config.stage2
    stage = two if name == "base" else one
    settled = one.settle if name == "prior" else 0
    ae = config.autoencoder
    if (name == "encoder" and ae.frozen) or (name == "decoder" and ae.tune == "none"):
        return _kept(whole, (stage.samples if name == "encoder" else 0) if one.autoencoder is None else 0)
    each, step = 3 * trained.forward_flops + judge, trained.step_flops * (stage.optimizer == "muon")
    muon = step * (-(-stage.samples // stage.batch) + -(-settled // one.settle_batch))
    return PartCost(
        parameters=whole.parameters,
        forward_flops=whole.forward_flops,
        training_flops=each * (stage.samples + settled) + muon,
        memory_mib=(trained.activation_bytes * stage.batch + 20 * whole.parameters) / 2**20,
        example_flops=each,
        step_flops=step,
        muon_flops=muon,
    )


def _kept(whole: Cost, examples: int) -> PartCost:
    """What a network costs that is kept as it is and asked ``examples`` times in training."""
    each = whole.forward_flops if examples else 0
    return PartCost(
        parameters=whole.parameters,
        forward_flops=whole.forward_flops,
        training_flops=each * examples,
        memory_mib=4 * whole.parameters / 2**20,
        example_flops=each,
        step_flops=0,
        muon_flops=0,
        trained=False,
    )
