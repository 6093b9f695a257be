"""Latents for diffusion models with a bit budget: name the bits, get latents that carry them, and train on them.

    >>> import unilat
    >>> run = unilat.train("glyphs", target_bpp=0.2, out="runs/glyphs")  # or unilat.load("runs/glyphs")
    >>> latents = run.encode("glyphs")
    >>> print(latents.bits.mean())
    >>> for latent in latents[:8]:
    ...     print(latent.name, latent.label, latent.bits)
    >>> pictures = run.decode(latents)
    >>> made = run.sample(64, guidance=2.0, seed=7)
    >>> made.images, made.labels, made.classes

Importing the package touches no file, device or optional package; torch itself is imported at the first use of a name.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "LatentSet",
    "Note",
    "Run",
    "Step",
    "Stopped",
    "UserError",
    "audit",
    "describe",
    "evaluate",
    "load",
    "stats",
    "sweep",
    "train",
]

if TYPE_CHECKING:
    from unilat.models.latents import LatentSet
    from unilat.recipe.build import describe
    from unilat.run.begin import train
    from unilat.run.evaluate import evaluate
    from unilat.run.records import Note, Stopped
    from unilat.run.reference import stats
    from unilat.run.trained import Run, load
    from unilat.studies.audit import audit
    from unilat.studies.sweep import sweep
    from unilat.training.records import Step
    from unilat.types import UserError

_HOMES = {
    "LatentSet": "models.latents",
    "Note": "run.records",
    "Run": "run.trained",
    "Step": "training.records",
    "Stopped": "run.records",
    "UserError": "types",
    "audit": "studies.audit",
    "describe": "recipe.build",
    "evaluate": "run.evaluate",
    "load": "run.trained",
    "stats": "run.reference",
    "sweep": "studies.sweep",
    "train": "run.begin",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unilat' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"unilat.{_HOMES[name]}"), name)
