"""Sweeps made by hand: run folders whose distances lie on a law that the test knows."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from measured import measured, written
from unilat.recipe import config as configuration
from unilat.recipe import presets
from unilat.results import Distance, Making, Number, Outcome, Results
from unilat.run.facts import Facts
from unilat.studies.points import Point

MAKING = Making(decoder="full", decoder_steps=2, decoder_range=(-6.0, 3.0), decoder_temperature=0.2)
SIZES = {"16×2": (1e9, 1000), "32×2": (4e9, 4000)}
"""FLOPs of a base model for one latent in training, and its parameters."""


def law(bits: float, flops: float) -> float:
    """``0.02 + 0.01 / bits + 0.1 bits (1e13 / flops)^½``: the best bits are ``(0.1 (flops / 1e13)^½)^½``."""
    return 0.02 + 0.01 / bits + 0.1 * bits * math.sqrt(1e13 / flops)


def best(flops: float) -> float:
    """Bits where :func:`law` is lowest."""
    return math.sqrt(0.1 * math.sqrt(flops / 1e13))


@dataclass(frozen=True, kw_only=True)
class Made:
    """One run. Its distance is the law's times ``times``."""

    bits: float = 0.2
    channels: int = 4
    base: str = "32×2"
    samples: int = 2500
    seed: int = 0
    times: float = 1.0
    stderr: float = 0.001
    verdict: str = "reached"
    source: str = "/there/letters"
    sha256: str = "0123456789abcdef"
    features: str = "features: some"
    size: str = "16"

    @property
    def flops(self) -> float:
        """Of training the base model."""
        return SIZES[self.base][0] * self.samples

    @property
    def distance(self) -> float:
        """Of its samples."""
        return law(self.bits, self.flops) * self.times

    def results(self) -> Results:
        """What its metrics.json holds."""
        found = measured(self.bits, target=self.bits, base_bits=0.3, generation=0.1, near=0.05)
        flops = {**found.costs.training_flops, "base": self.flops}
        parameters = {**found.costs.parameters, "base": SIZES[self.base][1]}
        kernel = Number(value=self.distance, stderr=self.stderr, n=100)
        return replace(
            found,
            pictures=f"held out of {self.source}, never trained on",
            features=self.features,
            making=MAKING,
            generation=Distance(kernel=kernel, frechet64=Number(value=math.nan)),
            costs=replace(found.costs, training_flops=flops, parameters=parameters),
            outcome=Outcome(verdict=self.verdict),
        )

    def point(self, folder: Path = Path("run")) -> Point:
        """What would be read of its folder."""
        found = self.results()
        assert found.generation is not None and found.reconstruction.distance is not None
        return Point(
            folder=folder,
            data=f"{Path(self.source).name} {self.sha256[:12]}",
            pixels=int(self.size) ** 2,
            target_bpp=self.bits,
            grid=(self.channels, 4, 4),
            base=self.base,
            base_parameters=SIZES[self.base][1],
            seed=self.seed,
            bits=found.bits.measured,
            psnr=found.reconstruction.psnr,
            reconstruction=found.reconstruction.distance.kernel,
            generation=found.generation.kernel,
            base_flops=self.flops,
            autoencoder_flops=1e15,
            protocol=f"held out of letters; {self.features}; {MAKING.line}",
            outcome=found.outcome,
        )

    def put(self, folder: Path) -> Path:
        """Write its folder, without weights."""
        config = presets.get("tiny", size=self.size)
        width, blocks = map(int, self.base.split("×"))
        config = replace(
            config,
            data=replace(config.data, source=self.source),
            autoencoder=replace(config.autoencoder, latent_channels=self.channels),
            stage1=replace(config.stage1, target_bpp=self.bits),
            base=replace(config.base, vit=replace(config.base.vit, channels=(width,), blocks=(blocks,))),
            stage2=replace(config.stage2, samples=self.samples),
            seed=self.seed,
        )
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(configuration.to_json(config))
        facts = Facts(source=self.source, classes=("a",), channels=1, sha256=self.sha256, train=40, test=7)
        (folder / "data.json").write_text(json.dumps(facts.to_json()))
        written(folder, self.results())
        return folder


BITS = (0.05, 0.1, 0.2, 0.4, 0.8)


def sweep(folder: Path, runs: Sequence[Made]) -> Path:
    """A folder of these runs."""
    for number, run in enumerate(runs):
        run.put(folder / f"run-{number:03}")
    return folder


def grid(
    bits: Sequence[float] = BITS, samples: Sequence[int] = (625, 2500, 10000), seeds: Sequence[int] = (0,), **given
) -> list[Made]:
    """Each of these bits with each budget, 2.5e12, 1e13 and 4e13 FLOPs for ``32×2``."""
    return [Made(bits=one, samples=many, seed=seed, **given) for one in bits for many in samples for seed in seeds]
