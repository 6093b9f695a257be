"""Statistics of a data set's features, saved once, and the distances of what was made from them.

FID (Heusel et al. 2017), sFID (Nash et al. 2021), precision and recall (Kynkäänniemi et al. 2019), the kernel distance
(Bińkowski et al. 2018) and the inception score (Salimans et al. 2016). Every number is named by its protocol, and
called FID only where the network is the published one: ``fid[inception, uint8, bilinear-tf1 299, 50k samples]``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unilat.fields import Size, spelled
from unilat.files import read_safetensors, write_safetensors
from unilat.maths.frechet import Moments, frechet_distance, kernel_distance
from unilat.metrics.distances import NOT_FID
from unilat.metrics.features import FeatureNetwork
from unilat.metrics.inception import InceptionFeatures
from unilat.metrics.manifolds import NEIGHBOURS, share_within
from unilat.results import Measure, Number
from unilat.types import UserError

FORMAT = "unilat reference 1"
SAMPLES = 50_000
"""Samples that published numbers stand on."""
ROWS = 10_000
"""Pictures whose features are kept for precision, recall and the kernel distance, as in ADM's reference batches."""
SPLITS = 10
"""Parts of the samples that an inception score is the mean over."""
PART = 1000
"""Rows that are taken to float64 at once."""
Gaussian = tuple[Tensor, Tensor]
"""Mean and covariance, float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Looked:
    """Features of pictures: every row of the pooled ones, of the spatial ones the moments alone."""

    rows: Tensor
    """float32 ``[N, D]``."""
    spatial: Moments | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Statistics of real pictures' features, and all that must be equal for a distance from them to mean anything."""

    name: str
    """File that it was read from."""
    source: str
    """What the pictures were read from."""
    data_sha256: str
    """Of the pictures; empty where nobody told."""
    size: Size | None
    """Height and width that the pictures were brought to before the network; None where nobody told."""
    fit: str
    """How they were brought to it; empty where nobody told."""
    features: str
    """The network's label (``metrics/features.py``): its name, the hash of its weights, its resize."""
    network: str
    """As ``features`` names the network where it is a packaged one, else empty."""
    count: int
    """Pictures behind the statistics; 0 where nobody told."""
    pool: Gaussian
    spatial: Gaussian | None = None
    rows: Tensor | None = None
    """float32 ``[n, D]`` of some of the pictures, by chance; None where none were kept."""

    @property
    def about(self) -> str:
        """``1,000 of photos/ (64 × 64, crop)``."""
        how = ", ".join(filter(None, (spelled(self.size) if self.size else "", self.fit)))
        return f"{f'{self.count:,} of ' if self.count else ''}{self.source}" + (f" ({how})" if how else "")

    def check(self, network: FeatureNetwork, size: Size, fit: str) -> None:
        """Raise :class:`UserError` that names the field in which what is to be measured is another."""
        given = (("features", self.features, network.label), ("fit", self.fit, fit))
        sizes = ("size", spelled(self.size) if self.size else "", spelled(size))
        for name, own, others in (given[0], sizes, given[1]):
            if own and own != others:
                raise UserError(
                    f"{self.name} is a reference of {name} {own}, what is measured has {others}: make another of the "
                    "pictures with `unilat stats`"
                )


def write(path: Path, found: Reference) -> None:
    """Write a reference as safetensors, whole or not at all."""
    assert found.size is not None
    tensors = {"mean": found.pool[0], "covariance": found.pool[1]}
    if found.spatial is not None:
        tensors |= {"spatial_mean": found.spatial[0], "spatial_covariance": found.spatial[1]}
    if found.rows is not None:
        tensors["rows"] = found.rows
    told = {name: getattr(found, name) for name in ("source", "data_sha256", "fit", "features", "network")}
    size = f"{found.size[0]}x{found.size[1]}"
    write_safetensors(path, tensors, {"format": FORMAT, "size": size, "count": str(found.count), **told})


def read(path: Path) -> Reference:
    """Read what :func:`write` wrote; raises :class:`UserError` for anything else."""
    tensors, header = read_safetensors(path)
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is no reference: make one with `unilat stats DATA`")
    try:
        high, wide = header["size"].split("x")
        return Reference(
            name=str(path),
            size=(int(high), int(wide)),
            count=int(header["count"]),
            pool=gaussian(tensors["mean"], tensors["covariance"], str(path)),
            spatial=(
                gaussian(tensors["spatial_mean"], tensors["spatial_covariance"], str(path))
                if "spatial_mean" in tensors
                else None
            ),
            rows=tensors.get("rows"),
            **{name: header[name] for name in ("source", "data_sha256", "fit", "features", "network")},
        )
    except (KeyError, ValueError) as problem:
        raise UserError(f"{path} is damaged ({problem}): make it again with `unilat stats DATA`") from None


def gaussian(mean: Tensor, covariance: Tensor, name: str) -> Gaussian:
    """The two in float64; :class:`UserError` where they are no mean ``[D]`` and covariance ``[D, D]``."""
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(f"{name}: a mean {list(mean.shape)} and a covariance {list(covariance.shape)} do not fit")
    mean, covariance = mean.double(), covariance.double()
    if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
        raise UserError(f"{name}: its statistics are not finite")
    return mean, covariance


def moments(rows: Tensor) -> Moments:
    """Of features ``[N, D]``, some rows in float64 at a time."""
    first, *parts = rows.split(PART)
    found = Moments.of(first)
    for part in parts:
        found = found.plus(Moments.of(part))
    return found


def inception_score(logits: Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """``exp(E_x KL(p(y|x) ‖ p(y)))``: mean and standard deviation over ``splits`` equal parts of ``logits [N, K]``.

    Salimans et al. 2016, eq. in section 4; parts in the order that the samples came in. float64.
    """
    scores = []
    for part in logits[: len(logits) // splits * splits].chunk(splits):
        log_p = part.double().log_softmax(1)
        marginal = log_p.exp().mean(0).log()
        scores.append(float((log_p.exp() * (log_p - marginal)).sum(1).mean().exp()))
    mean = sum(scores) / splits
    return mean, math.sqrt(sum((score - mean) ** 2 for score in scores) / splits)


def measured(
    reference: Reference, network: FeatureNetwork, found: Looked, of: str, protocol: str
) -> tuple[Measure, ...]:
    """Every distance of the features ``found`` from the reference, as far as what both hold allows.

    ``of``: ``samples`` or ``reconstructions``; ``protocol``: how those were made. Precision and recall take all rows of
    either side, k = 3. NaN where there are too few pictures. UserError where a value is not finite.
    """
    n, published = len(found.rows), network.published
    if not torch.isfinite(found.rows).all():
        raise UserError(f"the features of the {of} are not finite: no distance can be told")
    many = f"{n // 1000}k" if n >= 1000 and n % 1000 == 0 else str(n)
    comparable = "" if published and n >= SAMPLES else f"; {_caveat(n, of) if published else NOT_FID}"
    tail = f"{reference.about}; {network.protocol}; {protocol}{comparable}"
    head = "r" if of == "reconstructions" else ""

    def named(name: str, value: float, line: str, stderr: float | None = None, others: str = "") -> Measure:
        number = Number(value=value, stderr=stderr, n=n, protocol=f"{line}; {tail}")
        return Measure(name=f"{name}[{network.label}, {many} {of}{others}]", number=number)

    names = (f"{head}fid", f"{head}sfid") if published else ("frechet", "spatial frechet")
    rows = []
    far = frechet_distance(*_gaussian(moments(found.rows)), *reference.pool) if n > 1 else math.nan
    rows.append(named(names[0], far, f"Fréchet distance of all {found.rows.shape[1]:,} features, {n:,} {of}"))
    if reference.spatial is not None and found.spatial is not None and n > 1:
        far = frechet_distance(*_gaussian(found.spatial), *reference.spatial)
        line = f"Fréchet distance of the first 7 channels of mixed_6/conv, {n:,} {of}"
        rows.append(named(names[1], far, line))
    if reference.rows is not None:
        rows += _of_rows(reference.rows, found.rows, named)
    if isinstance(network, InceptionFeatures) and of == "samples" and n >= SPLITS:
        value, spread = inception_score(network.logits(found.rows))
        line = f"inception score, mean over {SPLITS} parts in order and their standard deviation, of the samples alone"
        rows.append(named("inception score", value, line, spread))
    return tuple(rows)


def _of_rows(real: Tensor, made: Tensor, named: Callable[..., Measure]) -> list[Measure]:
    """What stands on pairs of pictures."""
    kept, rows = f" against {len(real):,}", []
    for name, points, manifold in (("precision", made, real), ("recall", real, made)):
        enough = len(manifold) > NEIGHBOURS
        share = share_within(points, manifold) if enough else math.nan
        stderr = math.sqrt(share * (1.0 - share) / len(points)) if enough else None
        line = f"{name} (Kynkäänniemi et al. 2019, k = {NEIGHBOURS}), {len(made):,}{kept}"
        rows.append(named(name, share, line, stderr, kept))
    value, stderr = kernel_distance(made, real) if min(len(made), len(real)) > 2 else (math.nan, None)
    line = f"kernel distance (unbiased squared MMD, cubic kernel, all pairs), {len(made):,}{kept}"
    return [*rows, named("kernel", value, line, stderr, kept)]


def _gaussian(found: Moments) -> Gaussian:
    return found.mean, found.covariance


def _caveat(n: int, of: str) -> str:
    return f"{n:,} of the {SAMPLES:,} that published numbers stand on: biased upwards, does not compare with them"
