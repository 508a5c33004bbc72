"""Runs of records as one array serves them to another."""

from collections.abc import Sequence

from arrayd.replication.journal import Position, PrimaryJournal, Record
from arrayd.replication.journal.format import decode_parts, encode_run, served_bytes


def run_of(records: Sequence[Record], chain: bytes) -> tuple[bytearray, bytes]:
    """A run of these records, the first of them chained to `chain`, and the hash over the last."""
    entries = [record.entry for record in records]
    data = memoryview(b"".join(record.data for record in records))
    run = bytearray(served_bytes(entries))
    here, last = encode_run(entries, data, memoryview(run), chain)
    run[here:] = last
    return run, last


def decode_run(run: memoryview, at: Position, epoch: int, chain: bytes) -> tuple[list[Record], bytes]:
    """The records of a run, all of its parts, and the hash over the last. Raises FormatError."""
    parts = list(decode_parts(run, at, epoch, chain))
    return [record for records, _ in parts for record in records], parts[-1][1]


async def served(journal: PrimaryJournal, at: Position, bytes_max: int) -> tuple[memoryview, Position]:
    """What the journal serves from `at` on, and where that ends."""
    entries = await journal.durable(at, bytes_max)
    room = memoryview(bytearray(served_bytes(entries)))
    await journal.serve(at, entries, room)
    return room, entries[-1].end if entries else at
