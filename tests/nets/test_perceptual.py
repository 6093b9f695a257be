"""The perceptual distance, on weights of chance: what it computes does not depend on what it has learned."""

import pytest
import torch

from unilat.nets import perceptual
from unilat.types import UserError


def network() -> perceptual.PerceptualDistance:
    net = perceptual.PerceptualDistance()
    generator = torch.Generator().manual_seed(0)
    for tensor in net.state_dict().values():
        tensor.copy_(0.1 + 0.02 * torch.randn(tensor.shape, generator=generator))
    return net.eval()


def test_it_is_the_sum_of_the_layers_weighted_squares() -> None:
    """Kills: a mean over channels, places summed, a layer left out, features that are not normalised."""
    net = network()
    a, b = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    wanted = torch.zeros(3)
    for feats_a, feats_b, weight in zip(net.features(a), net.features(b), net.weights, strict=True):
        length = feats_a.norm(dim=1)
        assert bool(((length - 1).abs() < 1e-4).logical_or(length == 0).all()) and bool(length.any())
        wanted += ((feats_a - feats_b).square() * weight).sum(1).mean((1, 2))
    torch.testing.assert_close(net(a, b), wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(net(a, a), torch.zeros(3)) and net(a, b).shape == (3,)


def test_the_packages_names_find_their_places() -> None:
    """Kills: a layer filled from another, or left empty: strict on both sides, and back again."""
    net, state = network(), {}
    ends = (0, 3, 7, 11, 13, 15)
    for name, tensor in net.state_dict().items():
        kind, _, rest = name.partition(".")
        if kind == "slices":
            index, layer, what = rest.split(".")
            state[f"net.slice{int(index) + 1}.{int(layer) + ends[int(index)]}.{what}"] = tensor
        else:
            state[f"lin{rest}.model.1.weight" if kind == "weights" else f"scaling_layer.{kind}"] = tensor
    again = perceptual.fill(state)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in net.state_dict().items())
    del state["net.slice4.11.bias"]
    with pytest.raises(RuntimeError):
        perceptual.fill(state)


def test_it_says_how_to_get_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a traceback, or advice that brings torchvision."""
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps stlpips-pytorch"):
        perceptual.load()
