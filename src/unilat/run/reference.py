"""Reference statistics: made of a data set once, read again, and what a run makes measured against them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unilat.fields import Fit, as_size, at_least
from unilat.maths.frechet import Moments
from unilat.metrics import reference
from unilat.metrics.features import PACKAGED, FeatureNetwork, feature_network, refuse_program
from unilat.metrics.inception import LABEL, InceptionFeatures
from unilat.metrics.reference import PART, ROWS, Looked, Reference, gaussian
from unilat.recipe.config import RunConfig
from unilat.results import Measure
from unilat.run.trained import Run
from unilat.signals import held_out_fit, open_source
from unilat.signals.npz import Archive
from unilat.training.machine import pick_device
from unilat.training.parallel import ALONE, World
from unilat.types import UserError

NEEDS = "a reference stands on a feature network: pip install 'unilat[metrics]', or name one with `features`"


def stats(
    data: str | Path,
    out: str | Path,
    *,
    size: int | str | tuple[int, int] | None = None,
    fit: Fit = "crop",
    features: str | Path = "auto",
    rows: int = ROWS,
    device: str = "auto",
    say: Callable[[str], object] = lambda line: None,
) -> Reference:
    """Write to ``out`` the statistics of the features of all pictures of ``data``, for ``evaluate(reference=out)``.

    Pictures are read and brought to ``size`` as for training; what does not fit into memory is read as it is needed.
    Kept are mean and covariance in float64 and ``rows`` of the features, some 80 MB of 10,000 by Inception. Raises
    :class:`UserError` where the pictures, the network or ``out`` cannot be used.
    """
    if fit not in ("crop", "pad"):
        raise UserError(f"`fit` of a reference is crop or pad, not {fit}: each picture is looked at once")
    at_least(0, rows, "rows")
    network = feature_network(features, pick_device(device))
    if network is None:
        raise UserError(NEEDS)
    pictures = open_source(str(data), size=None if size is None else as_size(size), fit=fit)
    count = len(pictures)
    at_least(2, count, "pictures")
    say(f"looking at {count:,} pictures of {pictures.source}, {network.label}")
    kept = torch.zeros(count, dtype=torch.bool)
    kept[torch.randperm(count, generator=torch.Generator().manual_seed(0))[:rows]] = True
    pool, spatial, some = None, None, []
    for indices in torch.arange(count).split(PART):
        found = look(network, pictures.rows(indices), spatial=True)
        pool = _joined(pool, Moments.of(found.rows))
        spatial = found.spatial and _joined(spatial, found.spatial)
        some.append(found.rows[kept[indices]])
    assert pool is not None
    made = Reference(
        name=str(out),
        source=pictures.source,
        data_sha256=pictures.sha256,
        size=(pictures.kind.shape[1], pictures.kind.shape[2]),
        fit=fit,
        features=network.label,
        network=f"{network.name}@{getattr(network, 'size', 0)}" if network.name in PACKAGED else "",
        count=count,
        pool=(pool.mean, pool.covariance),
        spatial=None if spatial is None else (spatial.mean, spatial.covariance),
        rows=torch.cat(some) if rows else None,
    )
    reference.write(Path(out), made)
    return made


def look(network: FeatureNetwork, images: Tensor, world: World | None = None, *, spatial: bool = False) -> Looked:
    """Features of uint8 ``images``, of which each process of ``world`` computes its part.

    ``spatial``: moments of Inception's spatial features too, some pictures at a time, so that no more is held than the
    pooled features.
    """
    rows, moments, world = [], None, world or ALONE
    for part in images.split(PART):

        def some(first: int, last: int, part: Tensor = part) -> list[Tensor]:
            if spatial and isinstance(network, InceptionFeatures):
                return list(network.with_spatial(part[first:last]))
            return [network(part[first:last])]

        pooled, *places = world.by_rows(len(part), some)
        rows.append(pooled)
        for each in places:
            moments = _joined(moments, Moments.of(each))
    return Looked(rows=torch.cat(rows), spatial=moments)


def _joined(before: Moments | None, part: Moments) -> Moments:
    return part if before is None else before.plus(part)


def network_of(
    config: RunConfig, named: str | Path | None, against: str | Path | None, device: torch.device | str = "cpu"
) -> tuple[FeatureNetwork | None, Reference | None]:
    """The network to measure by, and the reference ``against``, opened; :class:`UserError` where the two do not fit.

    The network that was ``named`` by whoever measures; or else the reference's, where it is a packaged one; or the
    configuration's. A file is a program and is run only if it was named.
    """
    found = None if against is None else _opened(Path(against))
    if named is None and found is not None and not found.network:
        raise UserError(f"{found.name} stands on {found.features}: name that network's file with `features`")
    spec = named if named is not None else found.network if found is not None else config.evaluation.features
    if named is None:
        refuse_program(str(spec))
    network = feature_network(spec, device)
    if found is None:
        return network, None
    if network is None:
        raise UserError(NEEDS)
    found.check(network, config.data.size, held_out_fit(config.data.fit))
    return network, _with_rows(found, network)


def against(
    run: Run, found: Reference | None, network: FeatureNetwork | None, seen: Looked | None, of: str, protocol: str
) -> tuple[Measure, ...]:
    """Distances of what process 0 has ``seen`` from the reference, where there is one."""
    if found is None or network is None or seen is None or run.world.rank > 0:
        return ()
    return reference.measured(found, network, seen, of, protocol)


def _opened(path: Path) -> Reference:
    """A file of :func:`stats`, or an .npz of ``mu``, ``sigma``, ``mu_s``, ``sigma_s`` and pictures, as ADM's are."""
    if path.suffix != ".npz":
        return reference.read(path)
    if not path.is_file():
        raise UserError(f"{path} is not there")
    archive = Archive(path, str(path))
    if not {"mu", "sigma"} <= archive.arrays.keys():
        raise UserError(f"{path} has no mu and sigma, as reference batches have: it holds {archive.shown()}")

    def pair(mean: str, covariance: str) -> tuple[Tensor, Tensor]:
        found = [_numbers(archive, name) for name in (mean, covariance)]
        return gaussian(found[0], found[1], str(path))

    pictures = archive.arrays.get("arr_0")
    if pictures is not None and (pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3):
        raise UserError(f"{path}: arr_0 must be pictures, uint8 [N, H, W, 3]; it is {archive.shown(['arr_0'])}")
    return Reference(
        name=str(path),
        source=path.name,
        data_sha256="",
        size=None if pictures is None else (pictures.shape[1], pictures.shape[2]),
        fit="",
        features=LABEL,
        network="",
        count=0,
        pool=pair("mu", "sigma"),
        spatial=pair("mu_s", "sigma_s") if {"mu_s", "sigma_s"} <= archive.arrays.keys() else None,
    )


def _numbers(archive: Archive, name: str) -> Tensor:
    if archive.arrays[name].dtype.kind != "f":
        raise UserError(f"{archive.source}: {name} must be real numbers; it is {archive.shown([name])}")
    return torch.from_numpy(archive.read(name).astype(np.float64))


def _with_rows(found: Reference, network: FeatureNetwork) -> Reference:
    """With the features of the first pictures of a reference batch, which holds pictures in their place."""
    path = Path(found.name)
    if path.suffix != ".npz" or "arr_0" not in (archive := Archive(path, found.name)).arrays:
        return found
    rows, left = [], ROWS
    for part in archive.parts("arr_0", PART):
        rows.append(network(torch.from_numpy(part[:left]).movedim(3, 1).contiguous()))
        left -= len(rows[-1])
        if left <= 0:
            break
    return replace(found, rows=torch.cat(rows))
