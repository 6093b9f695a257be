"""The parts of a run's configuration that no network stands beside: data, training, evaluation.

Each checks itself; ``name`` is the field it stands under, which the message tells.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from unilat.fields import FieldError, Fit, Size, as_size, check_fields
from unilat.models.control import ControlConfig

WRITTEN = ("glyphs", "digits")
"""Named sets whose pictures mean something else when mirrored."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pictures come from and which are kept out of training."""

    source: str = "glyphs"
    """A folder, an .npz, .npy or .parquet file, a data set folder of `datasets`, or a name of `unilat data get`."""
    size: Size = (32, 32)
    """Height and width of the pictures; one number is a square."""
    fit: Fit = "crop"
    """For pictures of another shape. crop: the centre is cut out. pad: the whole is fitted, with bars.
    random-crop: stage 1 sees another part in each epoch; whatever is measured, and stage 2, the centre."""
    flip: bool = False
    """Mirror half of the pictures of stage 1 left and right, by chance; stage 2 sees latents of them as they are."""
    channels: int | None = None
    """1 for grey, 3 for colour; by default colour where any picture has some."""
    labels: tuple[str, ...] = ()
    """Labels of a picture, by the names of columns, of keys of a shard's JSON, or for the levels of folders, face and
    character for Serif/A/1.png. Of several a class is a combination. By default the one label that is found."""
    at_most: int | None = None
    """Largest number of pictures read, evenly spread over the source; all by default."""
    held_out: float = 0.1
    """Share of the pictures that is never trained on; the official test split is used where there is one."""
    held_out_at_most: int = 2000
    """Largest number of pictures held out."""
    calibration: int = 512
    """Training pictures set aside to measure the rate of the averaged weights while training."""
    unreadable_share: float = 0.05
    """Share of the pictures of a set larger than memory that may turn out unreadable; the run stops above it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_size(self.size))

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be; ``name`` is the field it stands under."""
        least = {"at_most": 1, "held_out_at_most": 1, "calibration": 0}
        check_fields(self, name, least=least, shares=("held_out", "unreadable_share"))
        if self.channels not in (None, 1, 3):
            raise FieldError(f"{name}.channels must be 1 (grey) or 3 (colour), not {self.channels}")
        if isinstance(self.labels, str) or not all(self.labels) or len(set(self.labels)) < len(self.labels):
            raise FieldError(f"{name}.labels must be names, no two of them alike, not {self.labels}")
        if self.flip and self.source in WRITTEN:
            raise FieldError(f"{name}.flip mirrors the letters of {self.source} into what are none: leave it out")


@dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Training of encoder, prior and decoder. Lengths count pictures seen."""

    autoencoder: str | None = None
    """Run folder whose autoencoder is taken as it is; stage 1 is then not trained."""
    start: str | None = None
    """Folder whose weights stage 1 starts from: a run's, or an autoencoder that diffusers saved."""
    target_bpp: float | None = 0.3
    """Wanted bits per pixel of the latent; the loss factor is moved until the rate holds there."""
    loss_factor: float | None = None
    """A fixed loss factor instead of wanted bits (UL Sec. 3.2: 1.3 to 1.7 for them)."""
    samples: int = 36_000
    """Pictures seen in training."""
    batch: int = 32
    """Pictures a step."""
    learning_rate: float = 1.5e-3
    """Peak learning rate."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: orthogonal steps for the networks' inner matrices, AdamW for the rest. adamw: for all."""
    warmup: int = 2_000
    """Pictures over which the learning rate rises from zero."""
    decay: float = 0.4
    """Last share of training over which the learning rate falls to zero."""
    ema_halflife: int = 2_000
    """Half-life of the weight average."""
    clip: float = 1.0
    """Largest gradient norm of the loss in nats per dimension of the data."""
    levels: Literal["learned", "fixed"] = "learned"
    """learned: noise levels fall along the loss that training sees. fixed: along that of signals of unit variance."""
    unit_scale: bool = True
    """Start with latents of unit scale, from the first batch."""
    prior_warmup: int = 0
    """Pictures over which the rate's gradient into the encoder rises from zero, so that the prior learns first."""
    follow_every: int = 1_600
    """Pictures between two looks at the latents' covariance, on which the prior builds."""
    settle: int = 0
    """Latents that the prior alone sees after encoder and decoder are done: its bound comes nearer to the truth, and
    the bits that this saves come back as less noise in the latent. A normal prior has nothing to learn."""
    settle_batch: int = 64
    """Latents a step of settling. More of them use a GPU better, and take as many fewer steps."""
    calibrate_every: int = 3_200
    """Pictures between two measurements on the calibration pictures."""
    control: ControlConfig = field(default_factory=ControlConfig)
    """The controller."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be; ``name`` is the field it stands under."""
        counts = {"samples": 1, "batch": 1, "calibrate_every": 1, "follow_every": 1, "settle": 0, "prior_warmup": 0}
        counts["settle_batch"] = 1
        positive = ("target_bpp", "loss_factor", "learning_rate", "clip")
        check_fields(self, name, least=counts, positive=positive, shares=("decay",))
        self.control.check(f"{name}.control")
        if (self.target_bpp is None) == (self.loss_factor is None):
            raise FieldError(
                "give either wanted bits (target_bpp 0.2) or a fixed loss factor (loss_factor 1.5), not both or none"
            )


@dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """Training of the base model on frozen latents. Lengths count latents seen."""

    samples: int = 50_000
    """Latents seen in training; 0 leaves stage 2 out."""
    batch: int = 64
    """Latents a step."""
    learning_rate: float = 8e-3
    """Peak learning rate."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """muon: orthogonal steps for the networks' inner matrices, AdamW for the rest. adamw: for all."""
    warmup: int = 4_000
    """Latents over which the learning rate rises from zero."""
    decay: float = 0.4
    """Last share of training over which the learning rate falls to zero."""
    ema_halflife: int = 5_000
    """Half-life of the weight average."""
    clip: float = 1.0
    """Largest gradient norm of the loss in nats per dimension of the latent."""
    levels: Literal["learned", "fixed"] = "fixed"
    """As in stage 1; nothing was measured to be gained here (LOG.md)."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be; ``name`` is the field it stands under."""
        positive = ("learning_rate", "clip")
        check_fields(self, name, least={"samples": 0, "batch": 1}, positive=positive, shares=("decay",))


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured after training, and how a picture is made."""

    pictures: int = 1000
    """Held-out pictures measured, at most."""
    samples: int = 1000
    """Pictures generated for the distance."""
    rate_levels: int = 8
    """Noise levels drawn for each held-out picture when its bits are measured."""
    decoder_steps: int = 1
    """Network calls of the decoder for a picture; a decoder trained for minutes is at its best with 1 (LOG.md)."""
    decoder_range: tuple[float, float] = (-6.0, 3.0)
    """Log-SNR of the decoder's first and last call; the last one's answer is the picture."""
    decoder_temperature: float = 0.2
    """Standard deviation of the noise a picture is decoded from: 1 as in training, less leaves out grain (LOG.md)."""
    step_counts: tuple[int, ...] = (1, 4)
    """Step counts at which reconstructions are shown and measured."""
    base_steps: int = 8
    """Network calls of the base model for a latent (second-order sampler); 20 gained nothing (LOG.md)."""
    guidance: float = 1.5
    """Scale of classifier-free guidance; 1 is none. Only where pictures have classes."""
    sample_from: Literal["base", "prior"] = "base"
    """Where latents are drawn from when there is no base model: nowhere, or stage 1's prior (single-stage training)."""
    features: str = "auto"
    """Network behind the distances: auto, none, efficientnet-lite0 or alexnet-st. A TorchScript file is named to the
    command alone, with `features`: it is a program, and configurations are passed around."""
    classifier_samples: int = 60_000
    """Real pictures seen by the small classifier that names the samples, where pictures have classes; 0 trains none."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be; ``name`` is the field it stands under."""
        counts = {"pictures": 1, "samples": 1, "rate_levels": 1, "decoder_steps": 1, "base_steps": 1}
        check_fields(self, name, least=counts, shares=("decoder_temperature",), finite=("guidance",))
        if abs(self.guidance) > 1000:
            raise FieldError(f"{name}.guidance beyond 1000 is no guidance: 1 to 5 is usual, not {self.guidance:g}")
        low, high = self.decoder_range
        if not -math.inf < low < high < math.inf:
            raise FieldError(f"{name}.decoder_range must rise from noisy to clean, -6 3 for example, not {low} {high}")
        if any(steps < 1 for steps in self.step_counts):
            raise FieldError(f"{name}.step_counts must be 1 or more each, not {self.step_counts}")
