"""What a configuration is said to cost, against its real networks counted and run."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from planted import planted_config
from unilat.nets import products
from unilat.nets.class_gaussian import ClassGaussian
from unilat.nets.condition import Condition
from unilat.nets.cost import Cost
from unilat.nets.denoiser import Denoiser
from unilat.nets.perceptual import PerceptualDistance
from unilat.recipe import build as building
from unilat.recipe.build import build_autoencoder, build_base, describe
from unilat.recipe.config import RunConfig


def counted_config() -> RunConfig:
    """Another count, length and batch for each stage."""
    config = planted_config()
    return replace(
        config,
        stage1=replace(config.stage1, samples=1000, settle=300, batch=5),
        stage2=replace(config.stage2, samples=77, batch=9),
    )


def calls_of(config: RunConfig) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The real networks, each with what it is given for one picture in colour of one of three classes."""
    autoencoder, base = build_autoencoder(config, 3), build_base(config, ["a", "b", "c"])
    x, z, level = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 4, 4), torch.zeros(1)
    return {
        "encoder": (autoencoder.encoder, (x,)),
        "prior": (autoencoder.prior, (z, level, None)),
        "decoder": (autoencoder.decoder, (x, level, z)),
        "base": (base.denoise, (z, level, Condition(torch.zeros(1, dtype=torch.int64)))),
    }


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is counted but parameters, which takes a second less: FLOPs and bytes are by the number of inputs."""

    def by_hand(net: nn.Module, *given: Any) -> Cost:
        return Cost(sum(parameter.numel() for parameter in net.parameters()), 7 * len(given), 1000 * len(given))

    monkeypatch.setattr(building, "cost", by_hand)


SEEN = {"encoder": (1000, 5), "prior": (1300, 5), "decoder": (1000, 5), "base": (77, 9)}
"""Examples that each part sees in training, and its batch."""


def test_dropped_tokens_save_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs by hand: 70 FLOPs of all tokens, 30 of those kept. Kills: training and its memory told as if all were
    seen, or a forward pass as if some were not."""

    def by_hand(net: nn.Module, *given: Any) -> Cost:
        return Cost(100, 30, 3000) if len(given) == 4 else Cost(100, 70, 7000)

    monkeypatch.setattr(building, "cost", by_hand)
    config = counted_config()
    vit = replace(config.base.vit, blocks=(*config.base.vit.blocks[:-1], 3))
    config = replace(config, base=replace(config.base, vit=vit, token_dropping=0.5))
    parts = describe(config, 3, 3).parts
    assert parts["base"].forward_flops == 70 and parts["base"].training_flops == 3 * 30 * 77
    assert parts["base"].memory_mib == (3000 * 9 + 20 * 100) / 2**20
    assert parts["prior"].training_flops == 3 * 70 * 1300


def test_parameters_and_flops_are_those_of_the_real_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: another part's network, grey for colour, a base without its classes, a decoder without a latent."""
    parts = describe(counted_config(), 3, 3).parts
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)  # the counter passes by oneDNN's maps
    for name, (net, given) in calls_of(counted_config()).items():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            net(*given)
        assert parts[name].parameters == sum(parameter.numel() for parameter in net.parameters()), name
        assert parts[name].forward_flops == counter.get_total_flops(), name


def test_training_is_three_passes_of_what_each_part_sees_and_memory_of_a_batch(planted: None) -> None:
    """Weight, gradient, two moments and the average are 20 bytes. Kills: settling not counted, another stage's length
    or batch, one pass for three, bytes for MiB, a network of other classes or channels."""
    parts = describe(counted_config(), 3, 3).parts
    assert set(parts) == set(SEEN)
    for name, (net, given) in calls_of(counted_config()).items():
        samples, batch = SEEN[name]
        weights = sum(parameter.numel() for parameter in net.parameters())
        assert parts[name].parameters == weights, name
        assert parts[name].training_flops == 3 * samples * 7 * len(given), name
        assert parts[name].memory_mib == pytest.approx((1000 * len(given) * batch + 20 * weights) / 2**20), name


def test_a_perceptual_term_is_counted_with_the_decoder() -> None:
    """Against the network itself, which both pictures pass and the gradient of one comes back through. Kills: a term
    for nothing, of one picture, counted with gradients of its weights, for another part or for each call."""
    config = counted_config()
    config = replace(config, data=replace(config.data, size=(32, 32)))
    judged = replace(config, autoencoder=replace(config.autoencoder, perceptual=2.0, decoder_loss="mse"))
    network, made = PerceptualDistance().requires_grad_(False), torch.zeros(1, 3, 32, 32, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        network(made, torch.ones(1, 3, 32, 32)).sum().backward()
    plain, parts = describe(config, 3, 3).parts, describe(judged, 3, 3).parts
    more = {name: parts[name].training_flops - plain[name].training_flops for name in plain}
    assert more == {
        "encoder": 0, "prior": 0, "base": 0,
        "decoder": pytest.approx(1000 * counter.get_total_flops(), rel=1e-3),  # five 1×1 layers see the difference
    }  # fmt: skip
    assert parts["decoder"].forward_flops == plain["decoder"].forward_flops


def test_each_step_of_muon_is_counted_with_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """11 FLOPs a step: 200 steps of stage 1, 5 of settling, 9 of stage 2, a begun batch among them. Kills: products of
    AdamW, of each example, of the other stage's steps or optimiser, and steps rounded down."""
    monkeypatch.setattr(building, "cost", lambda net, *given: Cost(100, 7, 1000, 11))
    config = counted_config()
    config = replace(config, stage1=replace(config.stage1, settle_batch=64))
    one, two = replace(config.stage1, optimizer="adamw"), replace(config.stage2, optimizer="muon")
    for run, steps in (
        (config, {"encoder": 200, "prior": 205, "decoder": 200, "base": 0}),
        (replace(config, stage1=one, stage2=two), {"encoder": 0, "prior": 0, "decoder": 0, "base": 9}),
    ):
        for name, part in describe(run, 3, 3).parts.items():
            assert part.muon_flops == 11 * steps[name] and part.example_flops == 3 * 7
            assert part.training_flops == 21 * SEEN[name][0] + 11 * steps[name]
            assert part.step_flops == (11 if steps[name] else 0)
            assert part.training(130, 64) == 21 * 130 + 3 * part.step_flops


def test_shapes_and_capacity_by_hand(planted: None) -> None:
    """Kills: a capacity per latent number or per dimension of the picture, a grid in pixels."""
    told = describe(counted_config(), 3, 3)
    assert (told.latent, told.picture) == ((3, 4, 4), (3, 16, 16))
    assert told.capacity_bpp == pytest.approx(3 * 16 * 0.5 * math.log2(1 + math.exp(4)) / 256)
    assert describe(counted_config(), 1).picture == (1, 16, 16)
    config = counted_config()
    assert describe(replace(config, data=replace(config.data, channels=1))).picture == (1, 16, 16)


def test_parts_that_are_not_trained_cost_nothing(planted: None) -> None:
    """Kills: a prior that a normal price does not train, or a base model that nobody draws from, in the sum."""
    config = counted_config()
    normal = replace(
        config,
        autoencoder=replace(config.autoencoder, price="normal"),
        stage1=replace(config.stage1, target_bpp=None, loss_factor=1.5),
    )
    single = replace(config, evaluation=replace(config.evaluation, sample_from="prior"))
    assert set(describe(normal, 3, 3).parts) == {"encoder", "decoder", "base"}
    assert set(describe(single, 3, 3).parts) == {"encoder", "prior", "decoder"}


def test_networks_are_built_for_the_data_they_are_told() -> None:
    """Kills: the data's mean for its deviation, a class of its own for pictures without classes, another range."""
    config, mean, std = counted_config(), torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.5, 0.7, 1.9])
    decoder = build_autoencoder(config, 3, mean, std).decoder
    base = build_base(config, ["a", "b", "c"], mean, std)
    for net in (decoder, base.denoise):
        assert torch.equal(net.mean.flatten(), mean) and torch.equal(net.std.flatten(), std)
    assert (base.classes, base.lambda_min, base.lambda_0) == (3, -9.0, 4.0)
    assert build_base(config, ["a"]).classes == build_base(config, []).classes == 0
    plain = build_base(config, ["a", "b"])
    assert plain.classes == 2 and float(plain.denoise.mean.abs().max()) == 0 and bool((plain.denoise.std == 1).all())


def test_a_base_model_of_factors_is_counted_with_its_rows() -> None:
    """Six classes of three letters in two faces have five rows and a null, not seven. Kills: factors that the count or
    the network does not get."""
    config, factors = counted_config(), torch.tensor([[a, b] for a in range(3) for b in range(2)])
    base = build_base(config, [""] * 6, factors=factors)
    rows = base.state_dict()["denoise.net.embed.table.weight"]
    assert rows.shape[0] == 6
    counted = (describe(config, 3, 6, table).parts["base"].parameters for table in (None, factors))
    assert next(counted) - next(counted) == rows.shape[1], "a row less"


def test_a_base_model_starts_from_its_classes() -> None:
    """Where a latent has at most so many numbers it is the Gaussian of its classes, else a plain denoiser. Kills: a
    limit one too low or that nothing obeys, means of the classes that it never takes."""
    config, labels = counted_config(), torch.arange(60) % 3
    numbers = 3 * 4 * 4
    for most, kind in ((numbers, ClassGaussian), (numbers - 1, Denoiser), (0, Denoiser)):
        base = build_base(replace(config, base=replace(config.base, covariance_up_to=most)), ["a", "b", "c"])
        assert type(base.denoise) is kind
        z = torch.randn(60, 3, 4, 4) + 5 * labels[:, None, None, None]
        base.begin(z, labels)
        found = base.denoise(z, torch.full((60,), -12.0), Condition(labels)).mean((1, 2, 3))
        if kind is ClassGaussian:
            assert all(abs(float(found[labels == k].mean()) - 5 * k) < 0.6 for k in range(3))
            described = describe(replace(config, base=replace(config.base, covariance_up_to=most)), 3, 3).parts["base"]
            assert described.forward_flops > describe(config, 3, 3).parts["base"].forward_flops
