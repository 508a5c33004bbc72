"""Redo that is cut short: who calls knows whether P-VOLs may have older data than they had."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from arrayd.replication.redo import RedoFailed, redo
from arrayd.volumes.volume import VolumeFailed
from tests.replication.group_parts import Parts, block, pending


@pytest.fixture
async def parts() -> Parts:
    """Three writes to one place, of which a restart knows nothing but what is in the journal."""
    made = Parts()
    await made.make()
    for byte in (1, 2, 3):
        await pending(made.volumes[0].write(0, block(byte)))
    await made.group.close()
    return made


async def test_a_volume_that_refuses_what_is_redone(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second write is there again, and the third is not: hosts must not see that."""
    volume, calls = parts.raw[0], 0
    write_now = volume.write_now

    def fails_later(offset: int, view: memoryview) -> bool:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise VolumeFailed("no room")
        return write_now(offset, view)

    monkeypatch.setattr(volume, "write_now", fails_later)
    with pytest.raises(RedoFailed) as failed:
        await redo(parts.journal, dict(enumerate(parts.raw)))
    assert failed.value.begun
    calls = 3
    await redo(parts.journal, dict(enumerate(parts.raw)))
    found = memoryview(bytearray(4096))
    assert volume.read_now(0, found)
    assert found == block(3)


async def test_a_journal_that_cannot_be_read_to_its_end_is_not_begun(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = parts.journal.runs

    async def fails_later(*told: Any) -> AsyncIterator[Any]:
        async for run in runs(*told):
            yield run[:1]
            raise VolumeFailed("a bad sector")

    monkeypatch.setattr(parts.journal, "runs", fails_later)
    parts.forget()
    with pytest.raises(RedoFailed) as failed:
        await redo(parts.journal, dict(enumerate(parts.raw)))
    assert not failed.value.begun
    assert parts.files[0].calls == []
