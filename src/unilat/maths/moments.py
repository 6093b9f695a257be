"""Where noise levels inform, learned: second moments of an integrand in bins of log-SNR and the density they ask for.

One level drawn from p estimates ``∫ f dlambda`` by f / p, with variance ``∫ E[f²] / p dlambda - (∫ E[f] dlambda)²``,
least for p along √E[f²]. Given a guess q of it and g = f / q, the density that is q times a constant on each bin k,

    P_k ∝ Q_k √E_q[g² | k],   E[f² / p²] = Σ_k Q_k² E_q[g² | k] / P_k = (Σ_k Q_k √E_q[g² | k])²

is the best of its kind, and as levels fall along q within a bin, the mean of g² over a bin's examples estimates what
it needs. A share ``FLOOR`` of q is kept: whatever was learned, E[f²/p²] is at most 1 / FLOOR times the guess's.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unilat.maths.levels import Table

FLOOR = 0.1
"""Share of the guess in what is learned."""
PSEUDO = 1.0
"""Weight of the average g² in each bin, in examples: of bins that none has seen lately it is all there is."""
HALFLIFE = 2000.0
"""Examples after which one counts half."""
_LARGEST = 1e30
"""Largest g² that is counted, so that one wild example leaves the sums finite."""


def observed(
    lambda_t: Float[Tensor, " b"], terms: Float[Tensor, " b"], table: Table, guess: Table, bins: int
) -> Float[Tensor, "b two_k"]:
    """Each example's share in the moments: 1 and g² in the bin of its level, 0 elsewhere; ``[B, 2 K]``.

    ``terms`` are the estimates f / p of levels drawn from ``table``, so ``g = f / q = terms · p / q``.
    """
    mass, fine = guess.on(lambda_t.device)[1], guess.bins(lambda_t)
    g = terms.detach() * (table.on(lambda_t.device)[1] / mass).to(terms)[fine]
    here = torch.nn.functional.one_hot(fine // (len(guess.mass) // bins), bins).to(terms)
    return torch.cat([here, here * g.square().clamp(max=_LARGEST)[:, None]], 1)


def averaged(moments: Float[Tensor, "2 k"], seen: Float[Tensor, " two_k"]) -> Float[Tensor, "2 k"]:
    """Counts and sums of g² after a batch whose examples' shares add up to ``seen``; older examples fade."""
    new = seen.to(moments).view_as(moments)
    return moments * 0.5 ** (new[0].sum() / HALFLIFE) + new


def learned(guess: Table, moments: Float[Tensor, "2 k"]) -> Table:
    """The guess with bin k's mass along ``Q_k √(mean g²)``, floored; the guess itself where nothing was seen."""
    count, squares = moments.detach().cpu().double()
    if not float(squares.sum()) > 0.0:
        return guess
    return Table(guess.edges, _mass(guess.mass, count, squares))


def learned_mass(guess_mass: Float[Tensor, " n"], moments: Float[Tensor, "2 k"]) -> Float[Tensor, " n"]:
    """The mass of :func:`learned`, on the device of ``moments`` and without asking what is in them."""
    count, squares = moments.detach().double()
    return torch.where(squares.sum() > 0.0, _mass(guess_mass, count, squares), guess_mass)


def _mass(
    guess_mass: Float[Tensor, " n"], count: Float[Tensor, " k"], squares: Float[Tensor, " k"]
) -> Float[Tensor, " n"]:
    average = (squares + PSEUDO * squares.sum() / count.sum()) / (count + PSEUDO)
    bins = len(count)
    share = guess_mass.view(bins, -1).sum(1) * average.sqrt()
    ratio = (1.0 - FLOOR) * average.sqrt() / share.sum() + FLOOR
    return guess_mass * ratio.repeat_interleave(len(guess_mass) // bins)
