"""What ``benchmarks/defaults.py`` tries: changes of the `small` preset, by name."""

from collections.abc import Mapping
from dataclasses import dataclass

from defaults_cells import Triple


@dataclass(frozen=True)
class Candidate:
    """A change of `small`, and the shares of time of autoencoder, settling and base."""

    what: str
    fields: Mapping[str, object]
    shares: Triple | None = None


BASE_LONGER = Triple(40, 15, 45)
GRID_16: dict[str, object] = {
    "autoencoder__latent_channels": 2,
    "autoencoder__encoder__channels": (32,),
    "autoencoder__encoder__patch": (2, 2),
    "autoencoder__prior__patch": 4,
    "base__vit__patch": 4,
}
"""Latents of 16×16×2 in 16 tokens, and an encoder of 32 channels at that grid: no more FLOPs than 64 at 8×8."""
FINE: dict[str, object] = {
    "autoencoder__decoder__patch": (2, 2),
    "autoencoder__decoder__channels": (32, 64),
    "autoencoder__decoder__blocks": (1, 2),
    "autoencoder__decoder__strides": ((2, 2), (2, 2)),
}
CANDIDATES = {
    "today": Candidate("today's: 8×8×8, 16 tokens", {}),
    "grid": Candidate("16×16×2, encoder of 32 channels, time 40:15:45", GRID_16, BASE_LONGER),
    "shares": Candidate("time 40:15:45", {}, BASE_LONGER),
    "grid-base": Candidate("16×16×2, time 30:10:60", GRID_16, Triple(30, 10, 60)),
    "grid-autoencoder": Candidate("16×16×2, time 55:20:25", GRID_16, Triple(55, 20, 25)),
    "grid-4": Candidate("16×16×4, time 40:15:45", {**GRID_16, "autoencoder__latent_channels": 4}, BASE_LONGER),
    "grid-tokens": Candidate(
        "16×16×2, 64 tokens of the base, time 40:15:45", {**GRID_16, "base__vit__patch": 2}, BASE_LONGER
    ),
    "grid-encoder": Candidate(
        "16×16×2, encoder of 64 channels, time 40:15:45",
        {**GRID_16, "autoencoder__encoder__channels": (64,)},
        BASE_LONGER,
    ),
    "grid-fine": Candidate("16×16×2, decoder from 16×16 on, time 40:15:45", {**GRID_16, **FINE}, BASE_LONGER),
    "grid-wide": Candidate(
        "16×16×2, decoder 192 wide, time 40:15:45", {**GRID_16, "autoencoder__decoder__width": 192}, BASE_LONGER
    ),
    "grid-base-192": Candidate(
        "16×16×2, base 192 wide, time 40:15:45", {**GRID_16, "base__vit__channels": (192,)}, BASE_LONGER
    ),
}
"""Of 32² pictures, those first that are the most likely to matter; the very first is the control."""
COARSE_START: dict[str, object] = {
    "autoencoder__encoder__channels": (32,),
    "autoencoder__encoder__blocks": (2,),
    "autoencoder__encoder__strides": (),
    "autoencoder__latent_channels": 8,
    "autoencoder__prior__patch": 4,
    "base__vit__patch": 4,
}
LARGER = {
    "today": Candidate("today's: 8×8×32, 16 tokens, time 40:15:45", {}, BASE_LONGER),
    "grid": Candidate("16×16×8, encoder of 32 channels, 16 tokens, time 40:15:45", COARSE_START, BASE_LONGER),
    "grid-tokens": Candidate(
        "16×16×8, encoder of 32 channels, 64 tokens, time 40:15:45",
        {**COARSE_START, "autoencoder__prior__patch": 2, "base__vit__patch": 2},
        BASE_LONGER,
    ),
}
"""Of 64² pictures in colour."""
OWN = {
    "today": CANDIDATES["today"],
    "grid": Candidate(
        "16×16×2, encoder of 48 channels, time 40:15:45",
        {**GRID_16, "autoencoder__encoder__channels": (48,)},
        BASE_LONGER,
    ),
    "shares": CANDIDATES["shares"],
}
OWN_64 = {
    "today": Candidate("today's: 8×8×32, 16 tokens", {}),
    "grid": Candidate(
        "16×16×8, encoder of 24 and 48 channels, 16 tokens, time 40:15:45",
        {
            "autoencoder__latent_channels": 8,
            "autoencoder__encoder__channels": (24, 48),
            "autoencoder__encoder__patch": (2, 2),
            "autoencoder__prior__patch": 4,
            "base__vit__patch": 4,
        },
        BASE_LONGER,
    ),
}
"""At the length of `small` itself, of 32² and of 64²."""
