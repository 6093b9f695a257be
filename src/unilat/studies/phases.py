"""What a run does beside training: how often it calls each network to encode and to evaluate, and how long that takes.

    minutes = Σ over networks of calls · seconds of a forward pass + pictures through the feature network + classifier

Calls are those of ``run/train.py`` and ``run/evaluate.py``, one for each example and pass; a test counts them there.
"""

from dataclasses import dataclass

from unilat.recipe.config import RunConfig
from unilat.run.evaluate import OTHER_COUNTS, SHOWN

Calls = dict[str, int]
"""Examples that pass each network forward, ``encoder``, ``prior``, ``decoder``, ``base``."""
MAPS = 64
"""Times that the bits of each shown picture are measured for its map."""


@dataclass(frozen=True)
class Data:
    """The pictures of a run: how many are trained on, how many are held out, and their classes."""

    trained: int
    held_out: int
    classes: int

    @classmethod
    def of(cls, config: RunConfig, pictures: int, classes: int) -> "Data":
        """``pictures`` of a set without test pictures of its own, as they are split where no two are alike."""
        held_out = max(1, min(round(pictures * config.data.held_out), config.data.held_out_at_most))
        rest = pictures - held_out
        return cls(rest - min(config.data.calibration, rest // 8), held_out, classes)


def encoding(config: RunConfig, data: Data) -> Calls:
    """Each training picture once, and its bits at one noise level; only for a stage 2."""
    trained = data.trained if config.stage2.samples else 0
    return {"encoder": trained, "prior": trained}


def evaluation(config: RunConfig, data: Data) -> Calls:
    """Held-out bits under the prior and the base model, reconstructions at each step count, and samples."""
    how, base = config.evaluation, config.stage2.samples > 0 or config.evaluation.sample_from == "prior"
    measured, counts = min(how.pictures, data.held_out), _step_counts(config)
    guided = 2 if data.classes > 1 and how.guidance != 1 and config.stage2.samples else 1
    first = 1 if config.autoencoder.decoder_loss == "mse" else how.decoder_steps
    calls = {
        "encoder": measured * (1 + base + len(counts)),
        "prior": measured * how.rate_levels + min(measured, SHOWN) * MAPS,
        "decoder": measured * sum(counts) + base * how.samples * first,
        "base": base * (measured * how.rate_levels + how.samples * how.base_steps * guided),
    }
    if not config.stage2.samples:  # stage 1's prior stands for a base model
        calls["prior"] += calls.pop("base")
    return calls


def judged(config: RunConfig, data: Data) -> int:
    """Pictures that pass the feature network: those held out, their reconstructions, and the samples."""
    measured, others = min(config.evaluation.pictures, data.held_out), len(_step_counts(config)) - 1
    samples = config.evaluation.samples if config.stage2.samples or config.evaluation.sample_from == "prior" else 0
    return 2 * measured + others * min(measured, OTHER_COUNTS) + samples


def named(config: RunConfig, data: Data) -> int:
    """Pictures that the classifier learns from; none where there is nothing to name."""
    return config.evaluation.classifier_samples if data.classes > 1 and config.stage2.samples else 0


def _step_counts(config: RunConfig) -> set[int]:
    """Numbers of decoder calls that reconstructions are measured at."""
    how = config.evaluation
    return {1} if config.autoencoder.decoder_loss == "mse" else {*how.step_counts, how.decoder_steps}
