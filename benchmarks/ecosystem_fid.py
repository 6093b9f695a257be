"""FID of the same two sets by torchmetrics, by torch-fidelity where it can be imported, and by ours: rows for
``benchmarks/results/ecosystem.json``.

Published weights are in no package, so all sides take the same random ones in Inception's shape; and, so that the
covariances are of full rank, a small network of 48 features too. torchmetrics and torch-fidelity take their own roads
to the trace of the root (eigenvalues of a product, `sqrtm`), and torch-fidelity its own network and resize.
"""

import importlib.util
import math
import tempfile
from pathlib import Path

import torch
from common import Rows, row
from safetensors.torch import save_file
from torch import Tensor, nn

from unilat.maths.frechet import frechet_distance
from unilat.metrics.inception import InceptionFeatures, InceptionV3
from unilat.metrics.reference import moments

GOAL = 1e-3
"""Of the relative difference."""
FEW, MANY = 12, 400
"""Pictures of a set through Inception, and through the small network."""


class Small(nn.Module):
    """uint8 ``[B, 3, H, W]`` to 48 features: what 4 × 4 cells of a picture average to."""

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 4).flatten(1)


class Pooled(nn.Module):
    """The pooled features of ``InceptionFeatures`` as a module, as torchmetrics takes it."""

    def __init__(self, features: InceptionFeatures):
        super().__init__()
        self.features = features

    def forward(self, pictures: Tensor) -> Tensor:
        return self.features(pictures)


def sets(count: int, side: int = 40) -> tuple[Tensor, Tensor]:
    """Two sets of ``count`` pictures, uint8: blocks of chance colours, and darker ones with noise."""
    generator = torch.Generator().manual_seed(0)
    low = torch.randint(0, 256, (2, count, 3, 5, 5), generator=generator)
    large = low.repeat_interleave(side // 5, 3).repeat_interleave(side // 5, 4)
    noise = torch.randint(0, 40, large[1].shape, generator=generator)
    return large[0].to(torch.uint8), (large[1] // 2 + noise).to(torch.uint8)


def weights(path: Path) -> dict[str, Tensor]:
    """Random weights in Inception's shape, written to ``path``; variance is kept from layer to layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = InceptionV3().state_dict()
        for name, one in state.items():
            if one.ndim == 4:
                nn.init.kaiming_normal_(one)
            elif name.endswith("bn.weight"):
                one.uniform_(0.5, 1.5)
    save_file({name: one.contiguous() for name, one in state.items()}, path)
    return state


def ours(features: nn.Module, pair: tuple[Tensor, Tensor]) -> float:
    """As ``evaluate --reference`` has it."""
    a, b = (moments(features(one)) for one in pair)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def torchmetrics(features: nn.Module, pair: tuple[Tensor, Tensor]) -> float:
    """By ``FrechetInceptionDistance``; NaN where it is not installed."""
    if importlib.util.find_spec("torchmetrics") is None:
        return math.nan
    from torchmetrics.image.fid import FrechetInceptionDistance  # pyright: ignore[reportMissingImports]

    metric = FrechetInceptionDistance(feature=features, input_img_size=tuple(pair[0].shape[1:]))
    metric.set_dtype(torch.float64)
    metric.update(pair[0], real=True)
    metric.update(pair[1], real=False)
    return float(metric.compute())


def torch_fidelity(state: dict[str, Tensor], pair: tuple[Tensor, Tensor]) -> float:
    """By its own network with these weights; NaN where it cannot be imported, as without torchvision."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
            FeatureExtractorInceptionV3,
        )
        from torch_fidelity.metric_fid import (  # pyright: ignore[reportMissingImports]
            fid_features_to_statistics,
            fid_statistics_to_metric,
        )
    except ImportError:
        return math.nan
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(state, path)
        network = FeatureExtractorInceptionV3("ours", ["2048"], feature_extractor_weights_path=str(path))
    with torch.inference_mode():
        found = [fid_features_to_statistics(network(one)[0]) for one in pair]
    return float(fid_statistics_to_metric(*found, verbose=False)["frechet_inception_distance"])


def compared(what: str, own: float, others: dict[str, float], count: int) -> Rows:
    """Our distance, each other's, and how far apart the two are; nothing of who could not be asked."""
    rows = [row(f"{what}: ours", own, "Fréchet distance", n=count)]
    for name, value in others.items():
        if not math.isnan(value):
            rows.append(row(f"{what}: {name}", value, "Fréchet distance", n=count))
            apart = abs(own - value) / abs(value)
            rows.append(row(f"{what}: ours against {name}", apart, "relative difference", goal=GOAL, n=count))
    return rows


def rows() -> Rows:
    """Every comparison that this machine's packages allow."""
    small, pair = Small(), sets(MANY)
    found = compared("48 features", ours(small, pair), {"torchmetrics": torchmetrics(small, pair)}, MANY)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        state = weights(path)
        features, pair = Pooled(InceptionFeatures(path)), sets(FEW)
    others = {"torchmetrics": torchmetrics(features, pair), "torch-fidelity": torch_fidelity(state, pair)}
    return found + compared("Inception with random weights", ours(features, pair), others, FEW)


if __name__ == "__main__":
    for one in rows():
        print(f"{one['what']}: {one['value']:.6g} {one['unit']}", "" if one["holds"] is None else one["holds"])
