"""Pauses of the sides are short in all tests of what compares them."""

import pytest

from arrayd.replication import pulling
from arrayd.replication.synchronous import mirror


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PAUSE_SECONDS", 0.0001)
    monkeypatch.setattr(pulling, "PAUSE_SECONDS_MAX", 0.001)
    monkeypatch.setattr(mirror, "AGAIN_SECONDS", 0.0001)
    monkeypatch.setattr(mirror, "MIRROR_SECONDS", 1.0)
