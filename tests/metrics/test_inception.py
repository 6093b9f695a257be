"""The Inception network of published distances: its resize by hand, its features as torch-fidelity's, its files."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unilat.metrics import feature_network, inception
from unilat.metrics import features as networks
from unilat.metrics.inception import LABEL, InceptionFeatures, resize_tf1
from unilat.types import UserError

from .inception_weights import pictures, weights


@pytest.fixture(scope="module")
def made() -> dict[str, Tensor]:
    return weights()


@pytest.fixture(scope="module")
def path(made: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "made.safetensors"
    save_file(made, path)
    return path


def test_the_resize_of_tensorflow_1_by_hand() -> None:
    """Of places 0, ½, 1, 1½ the last one has no pixel behind it. Kills pixels' centres that are matched, corners that
    are aligned, a mean where pixels are picked, a border of zeros, and height for width."""
    small = torch.tensor([[0.0, 10.0], [20.0, 50.0]])[None, None]
    rows = torch.tensor([[0, 5, 10, 10], [10, 20, 30, 30], [20, 35, 50, 50], [20, 35, 50, 50]]).float()
    assert torch.equal(resize_tf1(small, (4, 4))[0, 0], rows)
    assert torch.equal(resize_tf1(small, (2, 4))[0, 0], rows[::2])
    line = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])[None, None, None]
    assert torch.allclose(resize_tf1(line, (1, 2))[0, 0], torch.tensor([[1.0, 6.0]]))  # places 0 and 2½
    assert torch.allclose(resize_tf1(line, (1, 3))[0, 0], torch.tensor([[1.0, 2 + 2 * 2 / 3, 8 + 8 / 3]]))
    assert torch.equal(resize_tf1(small, (2, 2)), small)


def test_features_are_those_of_torch_fidelity(path: Path) -> None:
    """Torch-fidelity 0.4.0's FeatureExtractorInceptionV3 with these weights gave these numbers; of the places, the
    first 7 channels of Mixed_6d's 1 × 1 branch, channels last. Kills any other layer, pool, border, order of branches,
    epsilon, scale of the pictures, block or axis."""
    network = feature_network(path)
    assert isinstance(network, InceptionFeatures)
    pool, spatial = network.with_spatial(pictures())
    logits = network.logits(pool)
    assert pool.shape == (2, 2048) and spatial.shape == (2, 2023) and logits.shape == (2, 1008)
    some = [5, 250, 400, 600, 1000]
    for found, means, spreads, few in (
        (pool, [0.19813, 0.199393], [0.278733, 0.279741], [0.004492, 0.111707, 0.213287, 0.525952, 0.0]),
        (spatial, [0.199446, 0.220073], [0.331956, 0.338646], [0.0, 0.0, 0.096395, 0.0, 0.410073]),
        (logits, [0.036744, 0.036494], [1.563145, 1.565196], [0.663805, 1.796288, 2.991168, 0.664156, -0.447379]),
    ):
        assert found.double().mean(1).tolist() == pytest.approx(means, abs=2e-6)
        assert found.double().std(1).tolist() == pytest.approx(spreads, abs=2e-6)
        assert found[1, some].tolist() == pytest.approx(few, abs=2e-5)
    assert torch.equal(network(pictures()), pool)
    grey = pictures()[:1, :1]
    assert torch.allclose(network(grey), network(grey.expand(-1, 3, -1, -1)))


def test_other_weights_never_pass_for_the_published_ones(made: dict[str, Tensor], path: Path, tmp_path: Path) -> None:
    """Kills a name of a number that any network of that shape gets, and a hash that follows how a file was saved."""
    network = InceptionFeatures(path)
    assert not network.published and network.label.startswith(f"inception-shaped, sha256 {network.sha256[:12]}, uint8")
    assert network.sha256[:12] in network.protocol and "NOT known to be the published" in network.protocol
    save_file(made | {"Mixed_5b.branch1x1.bn.num_batches_tracked": torch.tensor(7)}, tmp_path / "a.safetensors")
    assert InceptionFeatures(tmp_path / "a.safetensors").sha256 == network.sha256
    save_file(made | {"fc.bias": made["fc.bias"] + 1}, tmp_path / "b.safetensors")
    assert InceptionFeatures(tmp_path / "b.safetensors").sha256 != network.sha256


def test_the_published_file_is_opened_and_named(
    made: dict[str, Tensor], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose bytes are known, as if it were the published one. Kills a pickle that is opened before its hash is
    compared, a published network without its name, and one that reads other weights."""
    pth = tmp_path / "pt_inception.pth"
    torch.save(made | {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(0)}, pth)
    with pytest.raises(UserError, match=r"is no TorchScript file.*convert it: python -c"):
        feature_network(pth)
    with pytest.raises(UserError, match=r"is not the published file .*torch.load"):
        InceptionFeatures(pth)
    digest = hashlib.sha256(pth.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "SHA256", digest)
    monkeypatch.setattr(networks, "INCEPTION_SHA256", digest)
    network = feature_network(pth)
    assert isinstance(network, InceptionFeatures) and network.published and network.label == LABEL
    assert "features: 2,048 of inception-2015-12-05 (weights" in network.protocol and network.sha256 == digest
    other = InceptionFeatures(path)._network.state_dict()
    assert all(torch.equal(one, other[name]) for name, one in network._network.state_dict().items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_stylegans_file_is_the_published_network_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: any TorchScript file named inception, or the known one not."""

    class Means(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float().mean((2, 3))

    torch.jit.script(Means()).save(str(tmp_path / "inception.pt"))
    network = feature_network(tmp_path / "inception.pt")
    assert network is not None and not network.published and network.label.startswith("inception, sha256 ")
    monkeypatch.setattr(networks, "TORCHSCRIPT_SHA256", network.sha256)
    network = feature_network(tmp_path / "inception.pt")
    assert network is not None and network.published and network.label == LABEL


@pytest.mark.parametrize("wrong", ["missing", "extra", "shape", "whole numbers", "flipped"])
def test_weights_that_do_not_fit_are_named(made: dict[str, Tensor], tmp_path: Path, wrong: str) -> None:
    """Kills: weights that are left out, filled in or broadcast in silence."""
    path, name = tmp_path / "w.safetensors", "Mixed_7c.branch3x3_2b.conv.weight"
    changed = dict(made)
    if wrong == "missing":
        del changed[name]
    elif wrong == "extra":
        changed["AuxLogits.fc.bias"] = torch.zeros(3)
    elif wrong == "shape":
        changed["fc.weight"] = torch.zeros(1000, 2048)
    else:
        changed[name] = changed[name].long()
    save_file(changed, path)
    if wrong == "flipped":
        path.write_bytes(path.read_bytes()[:-9])
    said = {
        "missing": f"hold the weights of FID's Inception: {name} is missing",
        "extra": "AuxLogits.fc.bias is not known",
        "shape": r"fc.weight is torch.float32 \(1000, 2048\), not float32 \(1008, 2048\)",
        "whole numbers": f"{name} is torch.int64",
        "flipped": "is no whole safetensors file",
    }
    with pytest.raises(UserError, match=said[wrong]):
        feature_network(path)
