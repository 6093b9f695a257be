"""What a picture lost and how far two sets of pictures are apart; every number knows how it was measured."""

from unilat.metrics.classifier import Classifier, train_classifier
from unilat.metrics.distances import compare
from unilat.metrics.features import FeatureNetwork, feature_network
from unilat.metrics.manifolds import precision_recall
from unilat.metrics.quality import PSNR_CAP, PSNR_PROTOCOL, SSIM_PROTOCOL, average, psnr, qualities, ssim

__all__ = [
    "PSNR_CAP",
    "PSNR_PROTOCOL",
    "SSIM_PROTOCOL",
    "Classifier",
    "FeatureNetwork",
    "average",
    "compare",
    "feature_network",
    "precision_recall",
    "psnr",
    "qualities",
    "ssim",
    "train_classifier",
]
