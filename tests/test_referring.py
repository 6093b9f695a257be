"""Reference statistics of a data set, and a run that is measured against them: what is read, refused and told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from planted import BASE, Judge, Means, PlantedRun, mislabelled, planted_config
from unilat import results, stats
from unilat.cli.tables import metrics_table
from unilat.metrics import reference as statistics
from unilat.metrics.inception import InceptionFeatures
from unilat.run import reference as referring
from unilat.run.evaluate import evaluate
from unilat.run.reference import look, network_of
from unilat.signals import Pictures
from unilat.types import UserError


class Inception(InceptionFeatures):
    """Means of channels as pooled features, two corners as spatial ones; published."""

    def __init__(self) -> None:
        self.label, self.published, self.protocol = referring.LABEL, True, "features: of Inception"
        self.name, self.sha256, self.parts = "inception", "0" * 64, list[int]()

    def with_spatial(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        self.parts.append(len(pictures))
        return Means()(pictures), pictures[:, 0, 0, :2].float()

    def logits(self, features: Tensor) -> Tensor:
        return features


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return mislabelled()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    return Judge().instead(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Forty pictures in a file, of 20 × 16 pixels."""
    images = torch.randint(0, 256, (40, 20, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.savez(tmp_path / "data.npz", images=(images // 2 + 30).numpy())
    return tmp_path / "data.npz"


def frechet(a: Tensor, b: Tensor) -> float:
    """With the root from the eigenvalues of the product itself."""
    a, b = a.double(), b.double()
    root = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).sqrt().sum().real
    return float((a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root)


def test_statistics_are_of_all_pictures_and_rows_of_some(
    file: Path, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of 7. Kills: pictures lost between parts, the first rows kept in place of some by chance, more rows than
    were asked for, another size than was asked for, and a file that says something else."""
    monkeypatch.setattr(referring, "PART", 7)
    said: list[str] = []
    out = tmp_path / "ref.safetensors"
    stats(file, out, size=(8, 16), rows=13, say=said.append)
    found = statistics.read(out)
    images = torch.from_numpy(np.load(file)["images"]).movedim(3, 1)
    features = Means()(images[:, :, 6:14]).double()  # the centre, 8 of 20 lines
    assert torch.allclose(found.pool[0], features.mean(0)) and torch.allclose(found.pool[1], features.T.cov())
    assert found.rows is not None and found.rows.shape == (13, 3) and found.spatial is None
    places = [int((features - row).abs().sum(1).argmin()) for row in found.rows]
    assert places == sorted(set(places)) and places != list(range(13))
    assert torch.allclose(features[places].float(), found.rows)
    assert (found.count, found.size, found.fit, found.features, found.network) == (
        40,
        (8, 16),
        "crop",
        "means, uint8",
        "",
    )
    assert found.source == str(file) and len(found.data_sha256) == 64
    assert said == [f"looking at 40 pictures of {file}, means, uint8"]
    stats(file, out, size=16, rows=0)
    assert statistics.read(out).rows is None


def test_spatial_features_are_kept_as_moments(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: spatial moments of the last part alone, of the pooled features, more than a part at a time, or a second
    pass for them."""
    network = Inception()
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: network)
    monkeypatch.setattr(referring, "PART", 9)
    stats(file, tmp_path / "ref.safetensors", size=16)
    images = torch.from_numpy(np.load(file)["images"]).movedim(3, 1)[:, :, 2:18]
    corners, found = images[:, 0, 0, :2].double(), statistics.read(tmp_path / "ref.safetensors")
    assert found.spatial is not None and network.parts == [9, 9, 9, 9, 4]
    assert torch.allclose(found.spatial[0], corners.mean(0)) and torch.allclose(found.spatial[1], corners.T.cov())
    assert look(network, images).spatial is None
    again = look(network, images, spatial=True).spatial
    assert again is not None and again.count == 40 and torch.allclose(again.covariance, corners.T.cov())


@pytest.mark.parametrize("wrong", ["fit", "network", "rows", "size"])
def test_what_no_statistics_can_be_made_of(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Kills: a traceback, and a reference without a network."""
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: None if wrong == "network" else Means())
    given: dict[str, Any] = {"fit": {"fit": "random-crop"}, "rows": {"rows": -1}, "size": {"size": "big"}}.get(
        wrong, {}
    )
    said = {
        "fit": "is crop or pad",
        "network": "stands on a feature network",
        "rows": "`rows` must",
        "size": "a size is",
    }
    with pytest.raises(UserError, match=said[wrong]):
        stats(file, tmp_path / "ref.safetensors", **given)
    assert not (tmp_path / "ref.safetensors").exists()


def test_a_run_against_a_reference_by_hand(
    file: Path, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge: Judge
) -> None:
    """Kills: samples for reconstructions, the held-out pictures for the reference, other samples than were made, a
    distance that is kept nowhere, and protocols that do not say how pictures were made."""
    network = Inception()
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: network)
    stats(file, tmp_path / "ref.safetensors", size=16)
    run: Any = PlantedRun(planted_config(), pictures, tmp_path, base=BASE)
    found = evaluate(run, None, pictures=pictures, features="x.pth", reference=tmp_path / "ref.safetensors")
    real = torch.from_numpy(np.load(file)["images"]).movedim(3, 1)[:, :, 2:18]
    rows = evaluate_rows(run, pictures)
    made = {"samples": run.sample(14).images, "reconstructions": run.reconstruct(rows, steps=4).images}
    values = {one.name: one.number for one in found.against}
    for of, head, count in (("reconstructions", "r", 15), ("samples", "", 14)):
        far = values[f"{head}fid[inception, uint8, bilinear-tf1 299, {count} {of}]"]
        assert far.value == pytest.approx(frechet(Means()(made[of]), Means()(real)), rel=1e-5) and far.n == count
        apart = values[f"{head}sfid[inception, uint8, bilinear-tf1 299, {count} {of}]"]
        corners = made[of][:, 0, 0, :2].double()
        assert apart.value == pytest.approx(frechet(corners, real[:, 0, 0, :2]), rel=1e-5)
        assert f"precision[inception, uint8, bilinear-tf1 299, {count} {of} against 40]" in values
        assert f"40 of {file} (16, crop)" in far.protocol
    assert "guidance 2.5, 5 calls" in values["fid[inception, uint8, bilinear-tf1 299, 14 samples]"].protocol
    assert "held out of planted" in values["rfid[inception, uint8, bilinear-tf1 299, 15 reconstructions]"].protocol
    assert len(values) == 11 and results.read(tmp_path / "metrics.json") == found
    table = metrics_table(found)
    far = values["fid[inception, uint8, bilinear-tf1 299, 14 samples]"].value
    assert [
        line
        for line in table.splitlines()
        if line.split() == f"{far:.4g} fid[inception, uint8, bilinear-tf1 299, 14 samples]".split()
    ]
    assert evaluate(run, None, pictures=pictures).against == ()


def evaluate_rows(run: Any, pictures: Pictures) -> Tensor:
    """The pictures that the run is measured on."""
    from unilat.run.evaluate import chosen

    test = torch.arange(0, 200, 4)
    return pictures.images[test[chosen(torch.arange(50), run.config.evaluation.pictures)]]


def test_the_network_is_the_named_one_or_the_references_own(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a program that a reference names, the configuration's network for another's reference, and a reference
    that is measured by anything."""
    asked: list[str] = []
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: asked.append(str(spec)) or Means())
    config, path = planted_config(), tmp_path / "ref.safetensors"
    config = replace(config, data=replace(config.data, size=(16, 16)))
    made = stats(file, path, size=16)
    with pytest.raises(UserError, match="stands on means, uint8: name that network's file with `features`"):
        network_of(config, None, path)
    assert network_of(config, "mine.pt", path)[1] is not None and asked[-1] == "mine.pt"
    statistics.write(path, replace(made, network="efficientnet-lite0@96"))
    network_of(config, None, path)
    assert asked[-1] == "efficientnet-lite0@96"
    network_of(config, None, None)
    assert asked[-1] == config.evaluation.features
    statistics.write(path, replace(made, network="evil.pt"))
    with pytest.raises(UserError, match="a file is a program"):
        network_of(config, None, path)
    with pytest.raises(UserError, match="of size 16, what is measured has 32"):
        network_of(replace(config, data=replace(config.data, size=(32, 32))), "mine.pt", path)
    with pytest.raises(UserError, match="of fit crop, what is measured has pad"):
        network_of(replace(config, data=replace(config.data, fit="pad")), "mine.pt", path)
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: None)
    with pytest.raises(UserError, match="stands on a feature network"):
        network_of(config, "none", path)


def batch(path: Path, **arrays: Any) -> Path:
    """A reference batch as ADM's are, of two corners."""
    generator = np.random.default_rng(0)
    given = {"arr_0": generator.integers(0, 256, (11, 16, 16, 3), np.uint8), "arr_1": np.zeros(11)}
    given |= {"mu": np.array([0.3, 0.4, 0.5]), "sigma": np.diag([1.0, 2.0, 3.0]).astype(np.float32)}
    given |= {"mu_s": np.array([9.0, 8.0]), "sigma_s": np.diag([4.0, 5.0])} | arrays
    np.savez(path, **{name: one for name, one in given.items() if one is not None})
    return path


def test_a_reference_batch_is_read_and_its_pictures_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 4 of 11 pictures, at most 9. Kills: mean for spatial mean, pictures with height for channels, rows lost
    or beyond the most, and a batch that is measured by another network."""
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: Inception())
    monkeypatch.setattr(referring, "PART", 4)
    config, path = planted_config(), batch(tmp_path / "VIRTUAL.npz")
    config = replace(config, data=replace(config.data, size=(16, 16)))
    found = network_of(config, "x.pth", path)[1]
    assert found is not None and found.spatial is not None and found.rows is not None
    assert found.pool[0].tolist() == [0.3, 0.4, 0.5] and found.pool[1].diagonal().tolist() == [1, 2, 3]
    assert found.spatial[0].tolist() == [9, 8] and found.spatial[1].diagonal().tolist() == [4, 5]
    images = torch.from_numpy(np.load(path)["arr_0"]).movedim(3, 1)
    assert torch.allclose(found.rows, Means()(images)) and found.about == "VIRTUAL.npz (16)"
    monkeypatch.setattr(referring, "ROWS", 9)
    few = network_of(config, "x.pth", path)[1]
    assert few is not None and few.rows is not None and torch.equal(few.rows, found.rows[:9])
    with pytest.raises(UserError, match="of size 16, what is measured has 32"):
        network_of(replace(config, data=replace(config.data, size=(32, 32))), "x.pth", path)
    bare = network_of(config, "x.pth", batch(path, arr_0=None, mu_s=None))[1]
    assert bare is not None and bare.rows is None and bare.spatial is None
    with pytest.raises(UserError, match="stands on inception, uint8, bilinear-tf1 299: name that network's file"):
        network_of(config, None, path)
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: Means())
    with pytest.raises(UserError, match="of features inception, uint8, bilinear-tf1 299, what is measured has means"):
        network_of(config, "means.pt", path)


@pytest.mark.parametrize("wrong", ["no mu", "objects", "text", "shape", "pictures", "damaged", "missing"])
def test_a_bad_batch_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """Kills: a pickle that is opened, a traceback, and statistics that do not fit."""
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: Inception())
    given: dict[str, Any] = {
        "no mu": {"mu": None},
        "objects": {"mu": np.array([{}, {}, {}], dtype=object)},
        "text": {"mu": np.array(["a", "b", "c"])},
        "shape": {"sigma": np.eye(4)},
        "pictures": {"arr_0": np.zeros((3, 16, 16, 3))},
    }
    path = batch(tmp_path / "b.npz", **given.get(wrong, {}))
    if wrong == "damaged":
        path.write_bytes(path.read_bytes()[:700])
    if wrong == "missing":
        path.unlink()
    said = {"no mu": "has no mu and sigma", "shape": "do not fit", "pictures": "arr_0 must be pictures"}
    said |= {"objects": "mu must be real numbers", "text": "mu must be real numbers", "missing": "is not there"}
    with pytest.raises(UserError, match=said.get(wrong, "b.npz")) as told:
        network_of(planted_config(), "x.pth", path)
    assert "\n" not in str(told.value)


def test_the_command_writes_what_python_does(
    file: Path, judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: an option that reaches nothing, JSON that says something else, and a file of the user's written over."""
    from unilat.cli import main

    out = tmp_path / "ref.safetensors"
    main(["stats", str(file), "--size", "8x16", "--rows", "5", "--fit", "pad", "--out", str(out), "--json"])
    told, found = json.loads(capsys.readouterr().out), statistics.read(out)
    assert told == {"reference": str(out), "features": "means, uint8", "pictures": 40}
    assert found.size == (8, 16) and found.fit == "pad" and found.rows is not None and len(found.rows) == 5
    main(["stats", str(file), "--size", "16", "--out", str(out)])  # our own is written over
    assert statistics.read(out).size == (16, 16)
    capsys.readouterr()
    (tmp_path / "mine.txt").write_text("mine")
    code = main(["stats", str(file), "--out", str(tmp_path / "mine.txt")])
    assert code == 2 and "not reference statistics that unilat wrote" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"
