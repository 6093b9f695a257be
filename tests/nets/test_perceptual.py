"""The perceptual distance, on weights of chance: what it computes does not depend on what it has learned."""

import importlib.machinery
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from unilat.nets import perceptual
from unilat.types import UserError


def network() -> perceptual.PerceptualDistance:
    """Convolutions of both signs, so that about half of the features are heard; all that is else is positive."""
    net = perceptual.PerceptualDistance()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        signed = name.startswith("slices") and not name.endswith("filt")
        tensor.copy_(1.4 * noise / tensor[0].numel() ** 0.5 if signed and tensor.dim() == 4 else 0.3 + 0.05 * noise)
    return net.eval()


def test_it_is_the_sum_of_the_layers_weighted_squares() -> None:
    """Kills: a mean over channels, places summed, a layer left out, features that are not normalised."""
    net = network()
    a, b = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    wanted = torch.zeros(3)
    for feats_a, feats_b, weight in zip(net.features(a), net.features(b), net.weights, strict=True):
        length = feats_a.norm(dim=1)
        assert bool(((length - 1).abs() < 1e-4).all()) and not torch.equal(feats_a[0], feats_a[1])
        wanted += ((feats_a - feats_b).square() * weight).sum(1).mean((1, 2))
    torch.testing.assert_close(net(a, b), wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(net(a, a), torch.zeros(3)) and net(a, b).shape == (3,)


def test_features_are_those_of_the_blurred_alexnet() -> None:
    """Layer by layer with torch's functions, on colour and unequal sides. Kills: shift or scale turned round, colours
    made grey, a blur behind the activation or with another border, lengths over places."""
    net = network()
    first, *rest = (part for part in net.slices.modules() if isinstance(part, torch.nn.Conv2d))
    blurs = [part.get_buffer("filt") for part in net.slices.modules() if isinstance(part, perceptual.Blur)]

    def blurred(h: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        mirrored = torch.cat([h[..., 2:3], h[..., 1:2], h, h[..., -2:-1], h[..., -3:-2]], -1)
        mirrored = torch.cat([mirrored[:, :, [2, 1]], mirrored, mirrored[:, :, [-2, -3]]], 2)
        return F.conv2d(mirrored, kernel, groups=h.shape[1])[:, :, ::2, ::2]

    x = torch.rand(2, 3, 28, 36, generator=torch.Generator().manual_seed(2)) * 2 - 1
    h = F.conv2d((x - net.shift) / net.scale, first.weight, first.bias, padding=2)
    h, wanted = blurred(h, blurs[0]).clamp(min=0), []
    for index, layer in enumerate([None, *rest]):
        if index in (1, 2):
            h = blurred(F.max_pool2d(h, 3, 1), blurs[index])
        if layer is not None:
            h = F.conv2d(h, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2).clamp(min=0)
        wanted.append(F.normalize(h, dim=1))
    assert all(float((one > 0).double().mean()) > 0.05 for one in wanted)
    for got, one in zip(net.features(x), wanted, strict=True):
        torch.testing.assert_close(got, one, rtol=1e-4, atol=1e-6)


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: distances by weights of another release, told under the recorded one's name."""
    spec = importlib.machinery.ModuleSpec("stlpips_pytorch", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(perceptual, "find_spec", lambda name: spec)
    folder = tmp_path / "weights" / "vST0.0"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="not the recorded file"):
        perceptual.load()
    (folder / "alex_shift_tolerant.pth").write_bytes(b"weights")
    with pytest.raises(UserError, match="not the recorded file"):
        perceptual.load()


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
    assert not any(weight.requires_grad for weight in again.parameters()) and not again.training
    del state["net.slice4.11.bias"]
    with pytest.raises(RuntimeError):
        perceptual.fill(state)


def test_it_says_how_to_get_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a traceback, or advice that brings torchvision."""
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps stlpips-pytorch"):
        perceptual.load()
