"""The bytes of a journal, declared once: its superblock, the entries of its metadata region (figure 12), and records as
they are served to another array. All integers are big-endian. `docs/formats.md` says the same for people.

construct's declarations are the documentation, and build and parse the superblock. Entries go through the precompiled
`ENTRY_LAYOUT`; a property test proves that both agree.

A *record* is an entry and its data. A write is one record, or several if it is long: all but the last say that more
follows, so that a journal is only ever cut between whole writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct as Layout
from typing import Any, NamedTuple

from construct import Array, Bytes, Const, ConstructError, Int8ub, Int16ub, Int32ub, Int64ub, Padding, Struct
from crc32c import crc32c
from xxhash import xxh3_128_digest

from arrayd.replication.journal.regions import BLOCK_BYTES, ENTRIES_A_PAGE, PAGE_BYTES, Position, Size

VERSION = 2
"""Version of all these formats."""
ENTRY_BYTES = PAGE_BYTES // ENTRIES_A_PAGE
"""Of an entry, 128; a power of two and a part of a sector, so that no entry lies in two."""
RECORD_BYTES_MAX = 1024 * 1024
"""Data of one record, in bytes. A longer write is several records."""
WRITE_BYTES_MAX = 8 * 1024 * 1024
"""Data of one write, in bytes."""
RECORDS_OF_A_WRITE_MAX = WRITE_BYTES_MAX // RECORD_BYTES_MAX
PART_RECORDS = 64
"""Records of a run that are checked before others get their turn."""
SUPERBLOCK_BYTES = 512
SUPERBLOCK_PLACES = (0, 4096)
"""Where on the volume the two superblocks are."""
METADATA_AT = 8192
"""Where on the volume the metadata region begins; the journal data region is behind it."""
GROUP_BYTES = 16
CHAIN_BYTES = 16
"""Of the hash that a record is chained to the one before by: XXH3, 128 bits. It finds what went wrong, not who forged
it: whoever may send records may as well send others, so that a hash against forgers, at twenty times the price, would
keep nobody from anything. TLS on the link does."""
POSITIONS = 4


class FormatError(Exception):
    """What is there is not in the format; the text says what is wrong with it."""


class Role(IntEnum):
    """Which of the two journals of figure 15 it is."""

    PRIMARY = 1
    AUXILIARY = 2


class Kind(IntEnum):
    """What a record does to its volume."""

    WRITE = 1
    """Its data is written."""
    UNMAP = 2
    """The extent is freed: it reads as zeros. No data."""
    ZEROS = 3
    """WRITE SAME of zeros: the extent reads as zeros and stays allocated. No data."""
    PATTERN = 4
    """WRITE SAME: the data, one block, again and again until the end of the extent."""


MORE = 0x01
"""Flag: the write goes on in the next record."""
KINDS = frozenset(Kind)

POSITION = Struct(
    "sequence" / Int64ub,  # of the next record, which is the number of records before it
    "byte" / Int64ub,  # of journal data that were ever stored before it
)

SUPERBLOCK = Struct(
    "magic" / Const(b"arrayd journal\n\0"),
    "version" / Int16ub,
    "role" / Int8ub,
    Padding(5),
    "counter" / Int64ub,  # of the two superblocks that with the greater one is in force
    "group" / Bytes(GROUP_BYTES),  # identity of the consistency group
    "epoch" / Int64ub,  # another one for each use of a journal: greater than any before on this volume
    "opening" / Int32ub,  # how often the journal was opened in this epoch
    Padding(4),
    "metadata_at" / Int64ub,  # where on the volume the metadata region (1201) begins, and its length, in bytes
    "metadata_bytes" / Int64ub,
    "data_at" / Int64ub,  # the same of the journal data region (1202)
    "data_bytes" / Int64ub,
    "positions" / Array(POSITIONS, POSITION),  # see `PrimaryRegions.positions` and `AuxiliaryRegions.positions`
    "chain" / Bytes(CHAIN_BYTES),  # the hash that the record at the first of these positions is chained to
    Padding(SUPERBLOCK_BYTES - 164 - CHAIN_BYTES),
    "crc" / Int32ub,  # CRC32C of all before it
)
"""What a journal begins with, twice."""

ENTRY = Struct(
    "crc" / Int32ub,  # CRC32C of the rest of the entry
    "opening" / Int32ub,  # in which it was stored: see the superblock. 0 on its way to another array
    "sequence" / Int64ub,
    "epoch" / Int64ub,
    "time" / Int64ub,  # of the write (1203), in ns since 1970
    "offset" / Int64ub,  # on the volume (the LBA 1204), in bytes
    "extent" / Int64ub,  # how much of the volume it changes, in bytes
    "position" / Int64ub,  # of its data (the LBA 1206): bytes of journal data ever stored before it
    "length" / Int32ub,  # of its data, in bytes
    "data_crc" / Int32ub,  # CRC32C of its data
    "volume" / Int16ub,  # number of the volume in the group
    "kind" / Int8ub,
    "flags" / Int8ub,
    Padding(60),
)
"""An entry of the metadata region. That of sequence number n is entry n modulo the number of entries."""

ENTRY_LAYOUT = Layout(">IIQQQQQQIIHBB60x")
"""ENTRY, precompiled."""
CRC = Layout(">I")
CRC_BYTES = CRC.size
TIME, TIME_AT = Layout(">Q"), 24
LENGTH, LENGTH_AT = Layout(">I"), 56
"""Two fields of an ENTRY, for who wants nothing else."""

SERVED = Struct(
    "chain" / Bytes(CHAIN_BYTES),  # hash over the record before, and so over all before
    "entry" / Bytes(ENTRY_BYTES),  # an ENTRY of opening 0
    # its data
)
"""A record as it is served. A run of them ends with the hash over the last one, CHAIN_BYTES."""
SERVED_BYTES = CHAIN_BYTES + ENTRY_BYTES


class Entry(NamedTuple):
    """An entry of the metadata region, field by field as ENTRY has it."""

    opening: int
    sequence: int
    epoch: int
    time: int
    offset: int
    extent: int
    position: int
    length: int
    data_crc: int
    volume: int
    kind: int
    flags: int = 0

    @property
    def more(self) -> bool:
        """Whether its write goes on in the next record."""
        return bool(self.flags & MORE)

    @property
    def begin(self) -> Position:
        """Where the record is."""
        return Position(self.sequence, self.position)

    @property
    def end(self) -> Position:
        """Where the next record is."""
        return Position(self.sequence + 1, self.position + self.length)

    def encode(self) -> bytes:
        """An ENTRY."""
        packed = ENTRY_LAYOUT.pack(0, *self)[CRC_BYTES:]
        return CRC.pack(crc32c(packed)) + packed

    def served(self) -> bytes:
        """The ENTRY as it is on its way to another array."""
        packed = ENTRY_LAYOUT.pack(0, 0, *self[1:])[CRC_BYTES:]
        return CRC.pack(crc32c(packed)) + packed


class Record(NamedTuple):
    """An entry and its data."""

    entry: Entry
    data: memoryview


def decode_entry(data: bytes | bytearray | memoryview, at: int = 0) -> Entry:
    """The ENTRY at `at`. Raises FormatError."""
    packed = memoryview(data)[at : at + ENTRY_BYTES]
    _check(len(packed) == ENTRY_BYTES, "an entry is cut short")
    fields = ENTRY_LAYOUT.unpack(packed)
    _check(fields[0] == crc32c(packed[CRC_BYTES:]), "the CRC of an entry is wrong")
    entry = Entry._make(fields[1:])
    _, _, _, _, offset, extent, position, length, _, _, kind, flags = entry
    # Nearly all that there are, without a text for each thing that might be wrong.
    blocks = not (offset | extent | position | length) % BLOCK_BYTES
    if kind != Kind.WRITE or flags & ~MORE or not 0 < length == extent <= RECORD_BYTES_MAX or not blocks:
        _check_fields(entry)
    return entry


def _check_fields(entry: Entry) -> None:
    _check(entry.kind in KINDS, f"an entry of kind {entry.kind}")
    _check(not entry.flags & ~MORE, f"an entry with flags 0x{entry.flags:02x}")
    _check(entry.length <= RECORD_BYTES_MAX, f"{entry.length} bytes of data: {RECORD_BYTES_MAX} at the most")
    whole = not (entry.offset | entry.extent | entry.position | entry.length) % BLOCK_BYTES
    _check(whole and entry.extent > 0, "an entry that is not of whole blocks")
    _check(_fits(entry), f"an extent of {entry.extent} bytes with {entry.length} bytes of data")


def _fits(entry: Entry) -> bool:
    """Whether there is as much data as an entry of its kind has."""
    if entry.kind == Kind.WRITE:
        return entry.length == entry.extent
    if entry.kind == Kind.PATTERN:
        return entry.length > 0 and entry.extent % entry.length == 0
    return entry.length == 0


# -- superblock --------------------------------------------------------------------------------------------------------


class Superblock(NamedTuple):
    """What a journal begins with; see SUPERBLOCK."""

    counter: int
    role: Role
    group: bytes
    epoch: int
    opening: int
    size: Size
    positions: tuple[Position, ...]
    chain: bytes

    def encode(self) -> bytes:
        """A SUPERBLOCK."""
        fields = self._asdict() | {
            "version": VERSION,
            "metadata_at": METADATA_AT,
            "metadata_bytes": self.size.entries * ENTRY_BYTES,
            "data_at": METADATA_AT + self.size.entries * ENTRY_BYTES,
            "data_bytes": self.size.data_bytes,
            "positions": [position._asdict() for position in self.positions],
        }
        packed: bytes = SUPERBLOCK.build(fields | {"crc": 0})
        return packed[:-CRC_BYTES] + CRC.pack(crc32c(packed[:-CRC_BYTES]))


def decode_superblock(data: bytes) -> Superblock:
    """The SUPERBLOCK that `data` begins with. Raises FormatError."""
    try:
        told: Any = SUPERBLOCK.parse(data)
    except ConstructError as error:
        raise FormatError("not a journal") from error
    _check(told.crc == crc32c(data[: SUPERBLOCK_BYTES - CRC_BYTES]), "the CRC of a superblock is wrong")
    _check(told.version == VERSION, f"a journal of version {told.version}: this is version {VERSION}")
    _check(told.role in frozenset(Role), f"a journal of role {told.role}")
    size = Size(told.metadata_bytes // ENTRY_BYTES, told.data_bytes)
    places = told.metadata_at, told.data_at
    _check(places == (METADATA_AT, METADATA_AT + size.entries * ENTRY_BYTES), f"regions at {places}")
    positions = tuple(Position(each.sequence, each.byte) for each in told.positions)
    return Superblock(told.counter, Role(told.role), told.group, told.epoch, told.opening, size, positions, told.chain)


# -- the chain, and records on their way -------------------------------------------------------------------------------


def chain_start(group: bytes, epoch: int) -> bytes:
    """The hash that the first record of a group's journal is chained to."""
    return xxh3_128_digest(b"arrayd journal" + group + epoch.to_bytes(8, "big"))


def chain_next(before: bytes, record: Record) -> bytes:
    """The hash over a record and, by the hash over the one before it, over all before."""
    return xxh3_128_digest(b"".join((before, record.entry.served(), record.data)))


def served_bytes(entries: Iterable[Entry]) -> int:
    """How long a run of these records is."""
    return sum(SERVED_BYTES + entry.length for entry in entries) + CHAIN_BYTES


def encode_run(entries: Iterable[Entry], data: memoryview, room: memoryview, chain: bytes) -> tuple[int, bytes]:
    """Lays records out as they are served, from the beginning of `room` on, the first chained to `chain`. `data` is
    theirs, one behind the other. Where the hash over the last one belongs, which ends a run, and that hash. Raises
    FormatError if the data of a record is not what was written."""
    here = at = 0
    for entry in entries:
        length = entry.length
        entry_at, data_at, after = here + CHAIN_BYTES, here + SERVED_BYTES, here + SERVED_BYTES + length
        room[here:entry_at] = chain
        ENTRY_LAYOUT.pack_into(room, entry_at, 0, 0, *entry[1:])
        CRC.pack_into(room, entry_at, crc32c(room[entry_at + CRC_BYTES : data_at]))
        if length:
            room[data_at:after] = data[at : at + length]
            if crc32c(room[data_at:after]) != entry.data_crc:
                raise FormatError(f"record {entry.sequence} is not what was written")
            at += length
        # The hash before, the entry and its data: just what lies here.
        chain = xxh3_128_digest(room[here:after])
        here = after
    return here, chain


def decode_parts(run: memoryview, at: Position, epoch: int, chain: bytes) -> Iterator[tuple[list[Record], bytes]]:
    """The records of a run, which must be those from `at` on, unchanged, PART_RECORDS at a time, each part with the
    hash over its last; `chain` is the hash over the one before the first. Their data is where `run` is. The run counts
    when the last part has come. Raises FormatError."""
    records: list[Record] = []
    here, size, more = 0, len(run), False
    sequence, byte = at
    while size - here > CHAIN_BYTES:
        entry_at, data_at = here + CHAIN_BYTES, here + SERVED_BYTES
        entry = decode_entry(run, entry_at)
        after = data_at + entry.length
        data = run[data_at:after]
        due = entry.sequence == sequence and entry.position == byte and entry.epoch == epoch and not entry.opening
        if not due or after > size or run[here:entry_at] != chain or crc32c(data) != entry.data_crc:
            raise FormatError(_what_is_wrong(entry, data, Position(sequence, byte), epoch, run[here:entry_at] == chain))
        records.append(Record(entry, data))
        # The hash before, the entry and its data: just what lies here.
        chain = xxh3_128_digest(run[here:after])
        here, more = after, entry.more
        sequence, byte = sequence + 1, byte + entry.length
        if len(records) == PART_RECORDS:
            yield records, chain
            records = []
    _check(run[here:] == chain, "the last record is not what was served")
    _check(not more, "the last write is cut short")
    yield records, chain


def _what_is_wrong(entry: Entry, data: memoryview, at: Position, epoch: int, follows: bool) -> str:
    """Of a record that is not the one that was due."""
    if entry.opening:
        return "a record that was not served"
    if entry.epoch != epoch:
        return f"a record of epoch {entry.epoch}: this is epoch {epoch}"
    if entry.begin != at:
        return f"record {entry.sequence} at {entry.position} where {at} is due"
    if not follows:
        return f"record {entry.sequence} does not follow what is before it"
    if len(data) != entry.length:
        return f"record {entry.sequence} is cut short"
    return f"the data of record {entry.sequence} is not what was written"


def end_of_run(run: memoryview, at: Position) -> tuple[Position, int]:
    """Where a run ends that begins at `at`, and when the first of its writes was written, 0 if it has none; as it says,
    which `decode_parts` checks. Raises FormatError."""
    here, size, (sequence, byte) = 0, len(run), at
    time = TIME.unpack_from(run, CHAIN_BYTES + TIME_AT)[0] if size >= SERVED_BYTES else 0
    while size - here > CHAIN_BYTES:
        if size - here < SERVED_BYTES:
            raise FormatError("an entry is cut short")
        (length,) = LENGTH.unpack_from(run, here + CHAIN_BYTES + LENGTH_AT)
        sequence, byte = sequence + 1, byte + length
        here += SERVED_BYTES + length
    return Position(sequence, byte), time


def _check(holds: bool, otherwise: str) -> None:
    """Raises FormatError, with what is wrong, unless it holds."""
    if not holds:
        raise FormatError(otherwise)
