"""Randomness as a pure function of a key: seeds, generators, and all that a step of training draws.

``Draws`` draws for the *global* batch and hands out its own rows, so the number of processes changes nothing.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unilat.types import UserError

BELOW_ONE = 1.0 - 2.0**-24
"""The largest float32 below one."""


def key(*parts: object) -> int:
    """A stable 63-bit seed from its parts."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose seed is a stable 63-bit hash of ``key``: equal on every machine and in every process."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@dataclass(frozen=True)
class Draws:
    """Randomness for rows ``first .. first + B`` of a global batch of ``total`` examples.

    Each call draws ``total`` rows and returns its own, so processes that make the same calls in the same order get
    together exactly what one process would.
    """

    generator: torch.Generator
    """State that each call advances; the same on every process."""
    first: int
    """Index of the first own row in the global batch."""
    total: int
    """Examples in the global batch."""

    @classmethod
    def single(cls, generator: torch.Generator, batch: int) -> "Draws":
        """Randomness of one process that holds the whole batch."""
        return cls(generator, 0, batch)

    @classmethod
    def keyed(cls, seed: int, step: int, first: int, total: int, device: str = "cpu") -> "Draws":
        """Randomness that is a pure function of ``(seed, step)``, so that a resumed run equals an unbroken one."""
        digest = hashlib.blake2b(f"unilat {seed} {step}".encode(), digest_size=8).digest()
        generator = torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
        return cls(generator, first, total)

    def _own(self, rows: Tensor, batch: int) -> Tensor:
        if self.first < 0 or self.first + batch > self.total:
            raise UserError(f"rows {self.first} to {self.first + batch} are not in a global batch of {self.total}")
        return rows[self.first : self.first + batch]

    def normal(self, like: Float[Tensor, "b *dims"]) -> Float[Tensor, "b *dims"]:
        """Standard normal noise of ``like``'s shape, dtype and device."""
        dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
        shape = (self.total, *like.shape[1:])
        noise = torch.randn(shape, generator=self.generator, device=self.generator.device, dtype=dtype)
        return self._own(noise, like.shape[0]).to(like)

    def uniform(self, batch: int) -> Float[Tensor, " b"]:
        """Independent numbers in [0, 1), ``[batch]``."""
        numbers = torch.rand(self.total, generator=self.generator, device=self.generator.device)
        return self._own(numbers, batch)

    def strata(self, batch: int) -> Float[Tensor, " b"]:
        """Low discrepancy over the global batch: lattice ``u = (u_0 + perm(i)) / total``, folded to ``1 - |1 - 2u|``.

        Each number alone is uniform on [0, 1) and no row is tied to a place; together they leave no gap, 2 in every
        2/total. The fold (the baker's transform) pairs offsets u_0 and 1 - u_0, so that integrands which differ between
        the ends of the range, as all of ours do, lose the lattice's first-order error. The lattice is VDM's, App. I.1.
        Relative standard error of the rate in one batch of 64, unit Gaussian of 1024 dimensions, uniform levels:
        15 % independent, 1.6 % lattice, 0.84 % folded.
        """
        device = self.generator.device
        offset = torch.rand((), generator=self.generator, device=device)
        places = torch.randperm(self.total, generator=self.generator, device=device)
        lattice = (places + offset) / self.total
        return self._own((1.0 - (1.0 - 2.0 * lattice).abs()).clamp(max=BELOW_ONE), batch)
