"""Chance starts anew at each test, so that none depends on which ran before it."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same start for ``torch.randn`` and for weights."""
    torch.manual_seed(0)
