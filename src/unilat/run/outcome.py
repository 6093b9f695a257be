"""Whether a run has come to what was wanted, and if not, why and what to do: in one sentence."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unilat.metrics.quality import psnr
from unilat.results import Bits, Number, Outcome

TOLERANCE = 0.03
"""Share that held-out bits may lie from the wanted ones, beside two standard errors: the band of the report's gauge."""
TRIMMED = 0.01
"""Share that the pictures set aside may lie from the wanted bits after the trim has done its work."""
HOPELESS = 10.0
"""Times what a latent of unit variance can carry: bits beyond it are no bits of a latent, but a prior that is lost."""
WORSE = 4.0
"""Decibels below one grey picture for all; pictures drawn by chance, with the right brightness, are 3 dB below."""


def grey_psnr(pictures: Tensor) -> float:
    """PSNR in dB, mean over uint8 ``pictures [N, C, *grid]``, of their mean colour in the place of each."""
    axes = [0, *range(2, pictures.dim())]
    mean = pictures.double().mean(axes, keepdim=True).round().to(torch.uint8)
    return float(psnr(pictures, mean.expand_as(pictures)).double().mean())


def judged(
    bits: Bits, base_bits: Number | None, reached: Number, grey: float, capacity: float, header: Mapping[str, str]
) -> Outcome:
    """The outcome of a run measured at ``bits`` and at PSNR ``reached``.

    ``base_bits``: under the base model, where there is one. ``grey``: :func:`grey_psnr` of the pictures measured.
    ``capacity``: bits per pixel that a latent of unit variance carries. ``header``: what the trim has told.
    """
    lost = _diverged(bits, base_bits, reached, grey, capacity)
    if lost:
        return Outcome(verdict="diverged", reason=lost)
    wanted, found = bits.target, bits.value
    if wanted is None:
        return Outcome(verdict="done")
    if abs(found - wanted) <= TOLERANCE * wanted + 2 * (bits.stderr or 0.0):
        return Outcome(verdict="reached")
    said = f"{wanted:.4g} bits per pixel were wanted and held-out pictures carry {found:.4g}: "
    return Outcome(verdict="missed", reason=said + _why(wanted, found, header))


def _diverged(bits: Bits, base_bits: Number | None, reached: Number, grey: float, capacity: float) -> str:
    """What shows that training has diverged, and the way out; empty where it has not."""

    def hopeless(value: float) -> bool:
        return not math.isfinite(value) or value > HOPELESS * capacity

    if hopeless(bits.value):
        where, what = "stage1", f"{bits.value:.4g} bits per pixel of a latent that carries {capacity:.3g} at most"
    elif not math.isfinite(reached.value) or reached.value < grey - WORSE:
        where, what = "stage1", f"reconstructions have {reached.value:.3g} dB, one grey picture for all {grey:.3g}"
    elif base_bits is not None and hopeless(base_bits.value):
        where, what = "stage2", f"{base_bits.value:.4g} bits per pixel under the base model"
    else:
        return ""
    return f"training has diverged ({what}): lower {where}.learning_rate and train again in another folder"


def _why(wanted: float, found: float, header: Mapping[str, str]) -> str:
    """Why bits were missed, and what to do."""
    if "scale" not in header and "calibration_bpp" in header:
        return f"the pictures set aside carry {header['calibration_bpp']}, to N(0, I); raise stage1.samples"
    if "scale" not in header:
        return "no pictures could be set aside to trim the latents' scale by; take more pictures"
    aside, scale = float(header.get("calibration_bpp", "nan")), float(header["scale"])
    if abs(aside - wanted) > TRIMMED * wanted:
        return (
            f"stage 1 ended at {float(header.get('untrimmed_bpp', 'nan')):.4g} and the latents' scale, trimmed by "
            f"{scale:.3g}, brought the pictures set aside to {aside:.4g}; raise stage1.samples"
        )
    less = "less" if found < wanted else "more"
    return (
        f"the pictures set aside carry {aside:.4g}, these {less}, for they are few or of another kind; "
        "raise data.calibration, or take more pictures"
    )
