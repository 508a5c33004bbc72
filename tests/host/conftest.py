"""Real arrays for the tests of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from arrayd.host import settings
from tests.host.row import Row, three_arrays
from tests.lab.disk import disk

__all__ = ["disk", "paths", "row"]


@pytest.fixture(scope="package")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    """Three arrays in a row. Tests leave them as they were."""
    with three_arrays(tmp_path_factory.mktemp("row")) as arrays:
        yield arrays


@pytest.fixture
def paths(row: Row, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path table that arrayctl reads."""
    file = row.table()
    monkeypatch.setenv(settings.VARIABLE, str(file))
    return file
