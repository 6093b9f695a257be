"""Exponential moving average of named tensors, with a half-life counted in samples (edm2's convention)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unilat.training.flat import Flat

RAMP = 0.05
"""The half-life never exceeds this share of the samples seen, so that the untrained weights are forgotten early."""


def keep(batch: int, samples: int, halflife: float) -> float:
    """Share of the old average kept by one update of ``batch`` samples, the last of ``samples`` seen.

    ``0.5 ** (batch / min(halflife, RAMP · samples))``; 0 when the half-life is 0 (the average is then the weights).
    """
    effective = min(halflife, RAMP * samples)
    return 0.5 ** (batch / effective) if effective > 0 else 0.0


class EMA:
    """The average of the tensors it was made with; ``tensors`` has their names, shapes and devices.

    Floating-point tensors are averaged, others (counters among the buffers) copied: ``tensors`` is a whole model.
    """

    def __init__(self, source: Mapping[str, Tensor], halflife: float, flat: Flat | None = None) -> None:
        """``source``: live tensors, read again at each ``update``. ``halflife``: samples until a value weighs half.

        ``flat``: where some of ``source`` lie together, under the same names; they are averaged in one call.
        """
        self.halflife = halflife
        average = Flat({} if flat is None else flat.parts)
        self.tensors = {name: average.parts.get(name, tensor.detach().clone()) for name, tensor in source.items()}
        floating = {
            name: tensor.detach()  # the same storage as the live tensor
            for name, tensor in source.items()
            if tensor.is_floating_point() and name not in average.parts
        }
        self._live = [*([] if flat is None else [flat.whole]), *floating.values()]
        self._average = [*([] if flat is None else [average.whole]), *(self.tensors[name] for name in floating)]
        self._copied = [
            (self.tensors[name], tensor) for name, tensor in source.items() if not tensor.is_floating_point()
        ]

    @torch.no_grad()
    def update(self, batch: int, samples: int) -> None:
        """``average ← average + (1 − keep) (live − average)``, all tensors in one call."""
        self.move(1.0 - keep(batch, samples, self.halflife))

    @torch.no_grad()
    def move(self, new: float | Tensor) -> None:
        """The same by a share ``new`` of the live tensors; a captured step reads it anew from a tensor ``[]``."""
        if isinstance(new, Tensor):
            for average, live in zip(self._average, self._live, strict=True):
                average.lerp_(live, new.to(average.dtype))
        else:
            torch._foreach_lerp_(self._average, self._live, new)  # pyright: ignore[reportPrivateImportUsage]
        for copy, live in self._copied:
            copy.copy_(live)
