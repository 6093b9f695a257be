"""Statistics of real pictures' features, and the distances from them, by hand."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unilat.files import write_safetensors
from unilat.maths.frechet import Moments
from unilat.metrics import reference as module
from unilat.metrics.inception import InceptionFeatures
from unilat.metrics.reference import Looked, Reference, inception_score, measured, moments, read, write
from unilat.types import UserError

PUBLISHED = "inception, uint8, bilinear-tf1 299"


def network(published: bool = False, label: str = "ruler, uint8") -> Any:
    return SimpleNamespace(label=PUBLISHED if published else label, published=published, protocol="features: a ruler")


def reference(rows: Tensor | None = None, **fields: Any) -> Reference:
    """Of two features: means 1 and -2, variances 4 and 9 without a covariance."""
    pool = torch.tensor([1.0, -2.0]).double(), torch.tensor([[4.0, 0.0], [0.0, 9.0]]).double()
    given = {"source": "photos/", "data_sha256": "ab" * 32, "size": (48, 64), "fit": "crop", "features": "ruler, uint8"}
    given |= {"name": "ref.safetensors", "network": "", "count": 1200, "pool": pool, "rows": rows}
    return Reference(**(given | fields))


def spread(mean: list[float], deviation: list[float], count: int) -> Tensor:
    """``2 count`` points of exactly these means and deviations (divided by n - 1), each feature for itself."""
    scale = math.sqrt((2 * count - 1) / (2 * count))
    signs = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]).repeat(count // 2, 1)
    return torch.tensor(mean) + scale * signs * torch.tensor(deviation)


def test_the_frechet_distance_in_closed_form() -> None:
    """Diagonal: ``3² + (5 − 2)² + (1 − 3)² = 22``. Kills a mean or a root forgotten, n for n − 1, one set for the
    other, and features left out."""
    (far,) = measured(reference(), network(), Looked(rows=spread([4.0, -2.0], [5.0, 1.0], 10)), "samples", "made so")
    assert far.number.value == pytest.approx(22.0, rel=1e-6) and far.number.n == 20
    assert far.name == "frechet[ruler, uint8, 20 samples]"
    line = (
        "Fréchet distance of all 2 features, 20 samples; 1,200 of photos/ (48x64, crop); features: a ruler; made so; "
    )
    assert far.number.protocol == line + "no number here compares with a published FID"


def test_the_spatial_distance_is_of_the_spatial_moments() -> None:
    """``1² + (2 − 1)² = 2``. Kills: the pooled features twice, a distance where one side has none."""
    places = torch.tensor([0.0]).double(), torch.tensor([[1.0]]).double()
    looked = Looked(
        rows=spread([1.0, -2.0], [2.0, 3.0], 10), spatial=Moments(9, torch.ones(1).double(), 32 * torch.ones(1, 1))
    )
    far, apart = measured(reference(spatial=places), network(True), looked, "samples", "")
    assert far.number.value == pytest.approx(0.0, abs=1e-6) and apart.number.value == pytest.approx(2.0)
    assert (
        apart.name == f"sfid[{PUBLISHED}, 20 samples]" and "first 7 channels of mixed_6/conv" in apart.number.protocol
    )
    assert len(measured(reference(), network(True), looked, "samples", "")) == 1
    assert len(measured(reference(spatial=places), network(True), replace(looked, spatial=None), "samples", "")) == 1


@pytest.mark.parametrize("count", [2, 500, 25_000])
def test_only_the_published_network_gives_a_fid_and_only_of_50_000_one_that_compares(count: int) -> None:
    """Kills: another network's distance called FID, reconstructions called samples, a FID of few samples without its
    caveat, a caveat where there is none, and a name without its count."""
    looked = Looked(rows=spread([1.0, 0.0], [2.0, 3.0], count))
    many = {2: "4", 500: "1k", 25_000: "50k"}[count]
    (found,) = measured(reference(), network(True), looked, "samples", "")
    assert found.name == f"fid[{PUBLISHED}, {many} samples]" and found.number.value == pytest.approx(4.0, rel=1e-5)
    few = f"{2 * count:,} of the 50,000 that published numbers stand on: biased upwards"
    assert (few in found.number.protocol) == (count < 25_000) and "no number here" not in found.number.protocol
    (found,) = measured(reference(), network(True), looked, "reconstructions", "")
    assert found.name == f"rfid[{PUBLISHED}, {many} reconstructions]"
    (found,) = measured(reference(), network(), looked, "samples", "")
    assert found.name == f"frechet[ruler, uint8, {many} samples]"
    assert "no number here compares with a published FID" in found.number.protocol


def test_precision_recall_and_kernel_take_all_rows_of_either_side() -> None:
    """Real at 0, 1, 2, 3, 4 (radii 3, 2, 2, 2, 3); made at eight places. Kills the two exchanged, sides cut to the same
    count, an error of the other count, a kernel distance of one side, and k."""
    real = torch.tensor([0.0, 1, 2, 3, 4])[:, None].expand(-1, 2) / 2**0.5
    made = torch.tensor([0.5, 0.6, 0.7, 0.8, 20, 30, 41, 53])[:, None].expand(-1, 2) / 2**0.5
    _, precision, recall, kernel = measured(reference(real), network(), Looked(rows=made), "samples", "")
    shares = precision.number, recall.number  # made ones reach [0.2, 1.1] and from 0.7 on: 0 is left out
    assert [one.value for one in shares] == pytest.approx([4 / 8, 4 / 5])
    assert [one.stderr for one in shares] == pytest.approx([math.sqrt(0.25 / 8), math.sqrt(0.16 / 5)])
    assert precision.name == "precision[ruler, uint8, 8 samples against 5]" and recall.name.startswith("recall[")
    assert "k = 3), 8 against 5;" in recall.number.protocol

    def mean(a: Tensor, b: Tensor, apart: bool) -> float:
        pairs = [(i, j) for p, i in enumerate(a.double()) for q, j in enumerate(b.double()) if p != q or not apart]
        return sum(float((i @ j / 2 + 1) ** 3) for i, j in pairs) / len(pairs)

    by_hand = mean(real, real, True) + mean(made, made, True) - 2 * mean(real, made, False)
    assert kernel.number.value == pytest.approx(by_hand, rel=1e-6) and kernel.name.endswith("8 samples against 5]")
    _, few, other, none = measured(reference(real[:2]), network(), Looked(rows=made), "samples", "")
    assert math.isnan(few.number.value) and math.isnan(none.number.value) and other.number.value < 1.0


def test_the_inception_score_by_hand() -> None:
    """Four classes in turn, certain: 4; one class or no idea: 1; a part of each: their mean. Kills a logarithm or its
    sign, a marginal over all parts, a variance for a deviation, and rows beyond the last whole part."""
    certain = 100.0 * torch.eye(4).repeat(2, 1)
    assert inception_score(certain, 1) == pytest.approx((4.0, 0.0))
    assert inception_score(torch.zeros(6, 4), 1) == pytest.approx((1.0, 0.0))
    assert inception_score(torch.cat([certain, certain[:1].repeat(8, 1)]), 2) == pytest.approx((2.5, 1.5))
    assert inception_score(torch.cat([certain, certain[:1]]), 2) == pytest.approx((4.0, 0.0))
    half = torch.tensor([[math.log(0.75), math.log(0.25)], [math.log(0.25), math.log(0.75)]])
    by_hand = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert inception_score(half, 1)[0] == pytest.approx(by_hand)


def test_the_score_stands_beside_inceptions_distances_of_samples_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a score of reconstructions, or of fewer samples than parts; a deviation that is not the score's own."""
    judge = InceptionFeatures.__new__(InceptionFeatures)
    judge.label, judge.published, judge.protocol = PUBLISHED, True, "features: of Inception"
    monkeypatch.setattr(InceptionFeatures, "logits", lambda self, rows: 100.0 * torch.eye(2)[(rows[:, 0] > 1).long()])
    looked = Looked(rows=spread([1.0, -2.0], [2.0, 3.0], 10))
    _, score = measured(reference(), judge, looked, "samples", "")
    assert score.name == f"inception score[{PUBLISHED}, 20 samples]"
    assert (score.number.value, score.number.stderr) == pytest.approx((2.0, 0.0))
    assert len(measured(reference(), judge, looked, "reconstructions", "")) == 1
    assert len(measured(reference(), judge, Looked(rows=looked.rows[:9]), "samples", "")) == 1


def test_features_that_are_not_finite_are_no_distance() -> None:
    """Kills: a NaN of the network that is told as a distance."""
    rows = spread([1.0, -2.0], [2.0, 3.0], 10)
    rows[3, 1] = math.inf
    with pytest.raises(UserError, match="features of the samples are not finite"):
        measured(reference(), network(), Looked(rows=rows), "samples", "")


def test_moments_of_parts_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means a million deviations away. Kills: a part that is lost, sums of squares that lose their digits."""
    rows = torch.randn(23, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([4096.0, 0.0, -1.0])
    monkeypatch.setattr(module, "PART", 5)
    found, exact = moments(rows), rows.double()
    assert found.count == 23 and torch.allclose(found.mean, exact.mean(0), rtol=1e-12)
    assert torch.allclose(found.covariance, exact.T.cov(), rtol=1e-9)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    """Kills: a field that is lost, float32 statistics, height for width, the two kinds of features exchanged."""
    places = torch.tensor([0.1]).double(), torch.tensor([[1 / 3]]).double()
    rows = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    for one in (reference(rows, spatial=places, network="means@64", fit="pad"), reference()):
        write(tmp_path / "r.safetensors", one)
        found = read(tmp_path / "r.safetensors")
        for name in ("source", "data_sha256", "size", "fit", "features", "network", "count"):
            assert getattr(found, name) == getattr(one, name), name
        assert found.name == str(tmp_path / "r.safetensors") and found.pool[1].dtype == torch.float64
        assert all(torch.equal(a, b) for a, b in zip(found.pool, one.pool, strict=True))
        assert (found.rows is None) == (one.rows is None) and (found.spatial is None) == (one.spatial is None)
    assert torch.equal(rows, rows) and torch.equal(places[1], places[1])


@pytest.mark.parametrize("field", ["features", "size", "fit"])
def test_another_protocol_is_refused_by_the_field_that_differs(field: str) -> None:
    """Kills: a distance between features of other networks, sizes or fits; a fitting one refused."""
    one = reference()
    one.check(network(), (48, 64), "crop")
    given = {"features": network(label="tape, uint8"), "size": (64, 48), "fit": "pad"}
    said = {
        "features": "a reference of features ruler, uint8, what is measured has tape, uint8: make",
        "size": "a reference of size 48x64, what is measured has 64x48: make",
        "fit": "a reference of fit crop, what is measured has pad: make",
    }
    fits = {"features": network(), "size": (48, 64), "fit": "crop"} | {field: given[field]}
    with pytest.raises(UserError, match=f"^ref.safetensors is {said[field]}"):
        one.check(fits["features"], fits["size"], fits["fit"])
    replace(one, size=None, fit="").check(network(), (9, 9), "pad")  # nobody told


@pytest.mark.parametrize("wrong", ["format", "none", "count", "mean", "shape", "nan", "no file"])
def test_a_file_that_is_no_reference_is_told_in_a_line(tmp_path: Path, wrong: str) -> None:
    """Kills: a traceback, and statistics that do not fit one another."""
    path = tmp_path / "r.safetensors"
    write(path, reference())
    tensors = {"mean": torch.zeros(2), "covariance": torch.eye(2)}
    header = {"format": "unilat reference 1", "size": "4x4", "count": "9", "source": "", "data_sha256": ""}
    header |= {"fit": "", "features": "", "network": ""}
    if wrong == "format":
        header["format"] = "unilat latents 1"
    elif wrong == "count":
        header["count"] = "many"
    elif wrong == "mean":
        del tensors["mean"]
    elif wrong == "shape":
        tensors["covariance"] = torch.eye(3)
    elif wrong == "nan":
        tensors["mean"] = torch.full((2,), math.nan)
    write_safetensors(path, tensors, header)
    if wrong == "none":
        save_file(tensors, path)
    if wrong == "no file":
        path.unlink()
    said = {
        "format": "is no reference: make one with `unilat stats DATA`",
        "none": "is no reference",
        "count": "is damaged .*many",
        "mean": "is damaged .*mean",
        "shape": r"a mean \[2\] and a covariance \[3, 3\] do not fit",
        "nan": "its statistics are not finite",
        "no file": "is not there",
    }
    with pytest.raises(UserError, match=said[wrong]):
        read(path)
