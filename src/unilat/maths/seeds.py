"""Randomness as a pure function of a key: seeds, generators, and all that a step of training draws.

Noise is drawn by blocks of :data:`ROWS` rows of the global batch: what row i draws depends on (seed, step, i // ROWS)
alone. So a process draws its own blocks and no others, and however many processes there are, a row's noise is the same.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from unilat.types import UserError

BELOW_ONE = 1.0 - 2.0**-24
"""The largest float32 below one."""
ROWS = 16
"""Rows of a block: few, so that little is drawn in vain at its borders; enough, so that a batch takes few calls."""


def key(*parts: object) -> int:
    """A stable 63-bit seed from its parts: equal on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def seeded(*parts: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator of its own for each ``parts``, seeded by :func:`key`."""
    return torch.Generator(device).manual_seed(key(*parts))


@dataclass(frozen=True)
class Draws:
    """Randomness for rows ``first .. first + B`` of a global batch of ``total`` examples.

    Each call gives fresh numbers, so processes that make the same calls in the same order get together exactly what
    one process would.
    """

    seed: int
    """What everything here is a function of."""
    first: int
    """Index of the first own row in the global batch."""
    total: int
    """Examples in the global batch."""
    device: str = "cpu"
    """Where the numbers are made; other devices make other numbers."""
    generator: torch.Generator = field(init=False, repr=False)
    """For what is drawn once for the whole batch; the same on every process."""
    _blocks: dict[int, torch.Generator] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "generator", seeded(self.seed, "batch", device=self.device))

    @classmethod
    def single(cls, generator: torch.Generator, batch: int) -> "Draws":
        """Randomness of one process that holds the whole batch, from where ``generator`` stands, which moves on."""
        return cls(int(torch.randint(2**62, (), generator=generator, device=generator.device)), 0, batch)

    @classmethod
    def keyed(cls, seed: int, step: int, first: int, total: int, device: str = "cpu") -> "Draws":
        """Randomness that is a pure function of ``(seed, step)``, so that a resumed run equals an unbroken one."""
        return cls(key(seed, step), first, total, device)

    def _own(self, batch: int, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """The own ``batch`` rows of what ``draw`` makes, :data:`ROWS` rows a call, of each block's own generator."""
        self._check(batch)
        parts = []
        for block in range(self.first // ROWS, -(-(self.first + batch) // ROWS)):
            if block not in self._blocks:
                self._blocks[block] = seeded(self.seed, block, device=self.device)
            parts.append(draw(self._blocks[block]))
        begin = self.first % ROWS
        return (torch.cat(parts) if len(parts) > 1 else parts[0])[begin : begin + batch]

    def normal(self, like: Float[Tensor, "b *dims"]) -> Float[Tensor, "b *dims"]:
        """Standard normal noise of ``like``'s shape, dtype and device."""
        dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
        shape = (ROWS, *like.shape[1:])
        return self._own(
            like.shape[0], lambda one: torch.randn(shape, generator=one, device=one.device, dtype=dtype)
        ).to(like)

    def uniform(self, batch: int) -> Float[Tensor, " b"]:
        """Independent numbers in [0, 1), ``[batch]``."""
        return self._own(batch, lambda one: torch.rand(ROWS, generator=one, device=one.device))

    def strata(self, batch: int) -> Float[Tensor, " b"]:
        """Low discrepancy over the global batch: lattice ``u = (u_0 + perm(i)) / total``, folded to ``1 - |1 - 2u|``.

        Each number alone is uniform on [0, 1) and no row is tied to a place; together they leave no gap, 2 in every
        2/total. The fold (the baker's transform) pairs offsets u_0 and 1 - u_0, so that integrands which differ between
        the ends of the range, as all of ours do, lose the lattice's first-order error. The lattice is VDM's, App. I.1.
        Relative standard error of the rate in one batch of 64, unit Gaussian of 1024 dimensions, uniform levels:
        15 % independent, 1.6 % lattice, 0.84 % folded. One number a row, so every process draws those of all.
        """
        device = self.generator.device
        offset = torch.rand((), generator=self.generator, device=device)
        places = torch.randperm(self.total, generator=self.generator, device=device)
        lattice = (places + offset) / self.total
        folded = (1.0 - (1.0 - 2.0 * lattice).abs()).clamp(max=BELOW_ONE)
        self._check(batch)
        return folded[self.first : self.first + batch]

    def _check(self, batch: int) -> None:
        if self.first < 0 or self.first + batch > self.total:
            raise UserError(f"rows {self.first} to {self.first + batch} are not in a global batch of {self.total}")
