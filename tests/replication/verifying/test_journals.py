"""Flips in the journals: a verify names them, and nothing that is damaged is ever served or restored."""

from __future__ import annotations

import asyncio

from arrayd.replication.following import Following
from arrayd.replication.group_rows import Mode
from arrayd.replication.journal import Position
from arrayd.replication.journal.format import ENTRY_BYTES, METADATA_AT
from arrayd.replication.statuses import Event
from arrayd.replication.verifying.told import Outcome
from tests.replication.synchronous.sides import Array, until_in_time
from tests.replication.verifying.compared import Compared


def flip_in_data(array: Array, at: Position, entry: bool = False) -> None:
    """A bit of the data of the record at a position, or of its entry."""
    stage = array.stage
    assert stage is not None
    size = stage.journal.regions.size  # type: ignore[attr-defined]
    place = METADATA_AT + size.entries * ENTRY_BYTES + at.byte % size.data_bytes
    array.journal.content[METADATA_AT + at.sequence * ENTRY_BYTES + 20 if entry else place] ^= 4


async def begun() -> Compared:
    compared = Compared(Mode.ASYNC, refusals=0.0)
    await compared.begin()
    return compared


def following(compared: Compared) -> Following:
    stage = compared.sides.far.stage
    assert isinstance(stage, Following)
    return stage


async def test_a_record_that_is_not_purged_yet() -> None:
    compared = await begun()
    for at in range(8):
        await compared.sides.write(0, at * 4096, bytes([at]) * 4096)
    await compared.alike()
    assert (await compared.verify()).outcome is Outcome.SAME
    flip_in_data(compared.sides.near, Position(5, 5 * 4096))
    told = await compared.verify()
    assert (told.outcome, told.findings.found) == (Outcome.DIFFERS, [])
    assert told.findings.damages == ["near: primary journal: record 5 is not what was written"]
    assert compared.sides.near.events == []
    await compared.sides.close()


async def test_a_record_that_is_not_restored_yet() -> None:
    compared = await begun()
    stage = following(compared)
    ticket = stage._copies.begin(0, ())
    for at in range(8):
        await compared.sides.write(0, at * 4096, bytes([at]) * 4096)
    await until_in_time(lambda: stage.journal is not None and stage.journal.regions.synced.sequence == 8)
    flip_in_data(compared.sides.far, Position(3, 3 * 4096))
    compared.verifier.begin()
    await until_in_time(lambda: bool(compared.told(compared.verifier).findings.damages))
    stage._copies.end(ticket)
    stage._moved()
    told = await compared.ended()
    assert told.findings.damages == ["far: auxiliary journal: record 3 is not what was written"]
    assert told.outcome is Outcome.DIFFERS
    await compared.alike()  # it was in memory
    await compared.sides.close()


async def test_a_damaged_record_is_not_restored() -> None:
    compared = await begun()
    stage = following(compared)
    ticket = stage._copies.begin(0, ())
    for at in range(8):
        await compared.sides.write(0, at * 4096, bytes([at]) * 4096)
    assert stage.journal is not None
    await until_in_time(lambda: stage.journal is not None and stage.journal.regions.synced.sequence == 8)
    stage.journal.recent.clear()
    flip_in_data(compared.sides.far, Position(3, 3 * 4096))
    stage._copies.end(ticket)
    stage._moved()
    await until_in_time(lambda: bool(compared.sides.far.events))
    assert compared.sides.far.events == [(Event.ERROR, "record 3 is not what was written")]


async def test_a_damaged_record_is_not_served() -> None:
    for entry in (False, True):
        compared = await begun()
        compared.sides.cut = True
        for at in range(8):
            await compared.sides.write(0, at * 4096, bytes([at]) * 4096)
        flip_in_data(compared.sides.near, Position(3, 3 * 4096), entry)
        compared.sides.cut = False
        await until_in_time(lambda sides=compared.sides: bool(sides.near.events))  # type: ignore[misc]
        (event, reason) = compared.sides.near.events[0]
        assert event is Event.ERROR
        assert reason.startswith("the journal is damaged: record 3 "), reason


async def test_records_that_are_purged_meanwhile_are_not_damaged() -> None:
    compared = await begun()
    async with compared.written(3):
        for _ in range(5):
            told = await compared.verify()
            assert told.outcome is Outcome.SAME, told
            await asyncio.sleep(0)
    assert compared.writes > 100
    await compared.sides.close()
