"""Where a model's noise levels fall: a first guess, and what training has learned of its integrand since."""

from typing import Any

import torch
from torch import Tensor, nn

from unilat.maths.levels import Levels, Table
from unilat.maths.moments import averaged, learned, learned_mass, observed

BINS = 32


class Placing(nn.Module):
    """Noise levels along ``guess`` until :meth:`learn` is told better; the moments are a buffer, so they are kept."""

    moments: Tensor

    def __init__(self, guess: Table):
        super().__init__()
        self.guess = guess
        self.register_buffer("moments", torch.zeros(2, BINS))
        self._known: tuple[tuple[int, int], Table] | None = None
        self._held: Table | None = None

    def hold(self, device: torch.device) -> None:
        """Keep the density in tensors on ``device`` that :meth:`learn` writes into: a captured step reads them anew."""
        self._held = None
        table = self.table
        self._held = Table(table.edges.to(device), table.mass.to(device, copy=True))

    def release(self) -> None:
        """Make tables anew again."""
        self._held = self._known = None

    @property
    def table(self) -> Table:
        """The density now, made anew whenever the moments have changed."""
        if self._held is not None:
            return self._held
        state = (self.moments.data_ptr(), self.moments._version)
        if self._known is None or self._known[0] != state:
            self._known = state, learned(self.guess, self.moments)
        return self._known[1]

    def sample(self, strata: Tensor) -> Levels:
        """Levels at the quantiles ``strata`` in [0, 1), ``[B]``."""
        return self.table.sample(strata)

    def observe(self, lambda_t: Tensor, terms: Tensor) -> Tensor:
        """What estimates ``terms [B]`` at levels drawn here tell, ``[B, 2 K]``, to be summed for :meth:`learn`."""
        return observed(lambda_t, terms, self.table, self.guess, BINS)

    @torch.no_grad()
    def learn(self, seen: Tensor) -> None:
        """Take a global batch's sum of :meth:`observe`, ``[2 K]``."""
        self.moments.copy_(averaged(self.moments, seen))
        if self._held is not None:
            mass = self.guess.on(self.moments.device)[1]
            self._held.mass.copy_(learned_mass(mass, self.moments))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Weights saved before levels were learned have seen nothing."""
        state_dict.setdefault(f"{prefix}moments", torch.zeros_like(self.moments))
        super()._load_from_state_dict(state_dict, prefix, *rest)
