"""Pauses of the sides are short in all tests of what compares them, and so are parts."""

import pytest

from arrayd.replication import pulling
from arrayd.replication.synchronous import mirror
from arrayd.replication.verifying import verifier
from tests.replication.verifying.compared import PART_BYTES


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "PART_BYTES", PART_BYTES)
    monkeypatch.setattr(pulling, "PAUSE_SECONDS", 0.0001)
    monkeypatch.setattr(pulling, "PAUSE_SECONDS_MAX", 0.001)
    monkeypatch.setattr(mirror, "AGAIN_SECONDS", 0.0001)
    monkeypatch.setattr(mirror, "MIRROR_SECONDS", 1.0)
