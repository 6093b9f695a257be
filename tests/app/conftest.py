"""The page on the small run that all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .served import Page, served


@pytest.fixture(scope="module")
def page(tiny_run: Path, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page on ``tiny_run``, which may train on its pictures."""
    with served([tiny_run], tmp_path_factory.mktemp("out"), [str(tiny_source)]) as page:
        yield page
