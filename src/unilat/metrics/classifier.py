"""A small network that learns the real labelled pictures and then judges samples: does anybody recognise them?

It is trained on the training pictures of the run, tested on held-out real ones, and its accuracy on class-conditional
samples is read against that. Cheap on purpose: about a minute of one core for Fashion-MNIST, where it reaches 90 %.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilat.results import Number
from unilat.types import UserError

SIDE = 32
SAMPLES = 150_000
BATCH = 128


@dataclass(frozen=True)
class Classifier:
    """A trained network and what it was trained on. ``protocol`` is the line to print beside its numbers."""

    network: nn.Module
    channels: int
    classes: int
    protocol: str

    def logits(self, pictures: Tensor) -> Tensor:
        """uint8 ``[B, C, H, W]`` of any size to ``[B, classes]`` float32; each row depends on its picture only."""
        _check_pictures(pictures, self.channels)
        with torch.inference_mode():
            device = next((one.device for one in self.network.parameters()), pictures.device)
            return torch.cat([self.network(_prepare(part.to(device))).cpu() for part in pictures.split(500)]).clone()

    def predict(self, pictures: Tensor) -> Tensor:
        """The class each picture is taken for, int64 ``[B]``."""
        return self.logits(pictures).argmax(1)

    def accuracy(self, pictures: Tensor, labels: Tensor) -> Number:
        """Share in [0, 1] of ``pictures`` taken for ``labels`` (int64 ``[B]``), with its binomial standard error."""
        if len(pictures) != len(labels) or len(labels) == 0:
            raise UserError(
                f"accuracy needs one label per picture, here are {len(pictures)} pictures and {len(labels)} labels"
            )
        right = int((self.predict(pictures).cpu() == labels.cpu()).sum())
        share = right / len(labels)
        stderr = math.sqrt(share * (1.0 - share) / len(labels))
        return Number(value=share, stderr=stderr, n=len(labels), protocol=self.protocol)


def _check_pictures(pictures: Tensor, channels: int) -> None:
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != channels:
        raise UserError(
            f"the classifier reads uint8 [B, {channels}, H, W], not {pictures.dtype} {tuple(pictures.shape)}"
        )


def _prepare(pictures: Tensor) -> Tensor:
    """uint8 ``[B, C, H, W]`` to float32 ``[B, C, 32, 32]`` in [-1, 1].

    28² to 31² are padded with their border, larger pictures averaged by area, smaller ones enlarged bilinearly.
    """
    x = pictures.float() / 127.5 - 1.0
    height, width = x.shape[2:]
    if (height, width) == (SIDE, SIDE):
        return x
    if SIDE - 4 <= height <= SIDE and SIDE - 4 <= width <= SIDE:
        top, left = (SIDE - height) // 2, (SIDE - width) // 2
        return functional.pad(x, (left, SIDE - width - left, top, SIDE - height - top), mode="replicate")
    if min(height, width) >= SIDE:
        return functional.adaptive_avg_pool2d(x, SIDE)
    return functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True)


def _network(channels: int, classes: int) -> nn.Module:
    """Two convolutions and two linear layers, ``[B, C, 32, 32] -> [B, classes]``; 0.15 M parameters for 10 classes.

    One group norm and no batch norm: nothing is shared between the pictures of a batch, so training and judging see the
    same function apart from dropout.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, stride=2, padding=2),
        nn.GroupNorm(1, 32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 16, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, classes),
    )


def _shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """The whole batch moved by up to one pixel each way, the border repeated."""
    top, left = torch.randint(0, 3, (2,), generator=generator).tolist()
    return functional.pad(x, (1, 1, 1, 1), mode="replicate")[:, :, top : top + SIDE, left : left + SIDE]


def train_classifier(
    pictures: Tensor,
    labels: Tensor,
    classes: int,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Train on real pictures uint8 ``[N, C, H, W]`` with labels int64 ``[N]`` in [0, classes), on ``device``.

    AdamW with one cycle of the learning rate (peak 3e-3), batches of 128, ``samples`` pictures in all, each epoch in a
    new order. Where a picture is seen more than 8 times it is moved by up to one pixel, so that small sets are not
    learnt by heart. Same seed, data and thread count: same network; the global random state is left as it was.
    ``progress(done, samples)``. UserError for labels outside the range, a single class, or counts that differ.
    """
    if pictures.ndim != 4 or pictures.dtype != torch.uint8:
        raise UserError(f"the classifier learns from uint8 [N, C, H, W], not {pictures.dtype} {tuple(pictures.shape)}")
    count = len(pictures)
    if count == 0 or count != len(labels):
        raise UserError(
            f"the classifier needs one label per picture, here are {count} pictures and {len(labels)} labels"
        )
    if classes < 2 or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(f"the classifier needs at least 2 classes and labels from 0 to {classes - 1}")
    generator = torch.Generator().manual_seed(seed)
    place = torch.device(device)
    with torch.random.fork_rng(devices=[] if place.type == "cpu" else [place]):
        torch.manual_seed(seed)
        network = _network(pictures.shape[1], classes)
        network.to(place, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # a third faster
        _fit(network, pictures, labels, generator, samples, progress)
    protocol = (
        f"small convolutional network trained on {count:,} real pictures in {classes} classes ({samples:,} "
        f"seen, seed {seed}), pictures brought to {SIDE}×{SIDE}"
    )
    return Classifier(network.eval().requires_grad_(False), pictures.shape[1], classes, protocol)


def _fit(
    network: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    samples: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """The loop of ``train_classifier``; dropout draws from the global generator, which the caller has seeded."""
    steps, device = max(2, math.ceil(samples / BATCH)), next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.15)
    shift = samples > 8 * len(pictures)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        while len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(pictures), generator=generator)])
        rows, order = order[:BATCH], order[BATCH:]
        x = _prepare(pictures[rows].to(device))
        loss = functional.cross_entropy(network(_shifted(x, generator) if shift else x), labels[rows].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        cycle.step()
        if progress is not None:
            progress(min(samples, (step + 1) * BATCH), samples)
