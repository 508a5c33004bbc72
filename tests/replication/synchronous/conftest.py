"""Pauses of the sides are short in all tests of synchronous pairs."""

import pytest

from arrayd.replication import pulling
from arrayd.replication.synchronous import mirror, mirroring


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PAUSE_SECONDS", 0.00001)
    monkeypatch.setattr(pulling, "PAUSE_SECONDS_MAX", 0.00001)
    monkeypatch.setattr(mirror, "AGAIN_SECONDS", 0.00001)
    monkeypatch.setattr(mirror, "MIRROR_SECONDS", 0.3)
    monkeypatch.setattr(mirroring, "RECONCILE_SECONDS", 0.3)
