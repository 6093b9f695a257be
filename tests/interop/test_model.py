"""A Python function as somebody else's autoencoder: its mean stays the mean, and pictures of latents are its
decoder's."""

import torch

from unilat.interop.model import CallableModel


def test_a_functions_two_answers_keep_their_order() -> None:
    """Kills: mean and log-variance changed over, a variance told for its logarithm, and a precision that is kept."""
    x = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    model = CallableModel(lambda x: (2 * x.double() + 1, x.double() - 5), lambda z: (z - 1) / 2)
    found = model.encode(x)
    assert found.z.dtype == torch.float32 and torch.allclose(found.z, 2 * x + 1)
    assert found.logvar is not None and torch.allclose(found.logvar, x - 5)
    made = model.decode(found.z)
    assert made is not None and torch.allclose(made, x, atol=1e-6)
    alone = CallableModel(lambda x: x + 3).encode(x)
    assert torch.allclose(alone.z, x + 3) and alone.logvar is None
    assert CallableModel(lambda x: x).decode(x) is None
