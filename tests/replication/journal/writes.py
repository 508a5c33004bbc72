"""Writes to a primary journal that tests tell apart by their number."""

import random

from arrayd.replication.journal import Kind, PrimaryJournal, Record

GROUP = b"a group's number"
NOTHING = memoryview(b"")
TIME = 1_700_000_000_000_000_000


def block(number: int, length: int = 4096) -> memoryview:
    return memoryview(random.Random(number).randbytes(length))


def append(journal: PrimaryJournal, number: int, length: int = 4096) -> bool:
    return journal.append_now(number % 3, Kind.WRITE, number * 4096, length, block(number, length), TIME + number)


async def all_of(journal: PrimaryJournal) -> list[Record]:
    return [record async for run in journal.runs(journal.regions.oldest, journal.regions.stored) for record in run]
