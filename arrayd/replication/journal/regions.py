"""The positions of figure 15: what is where in the cyclic regions of a journal. Pure, without I/O.

A position counts what was ever stored, records and bytes of data, and never wraps; where that is in a region is its
remainder. All positions of a journal are ends of whole writes, and each only ever moves forward. The assertions stay
on: what they hold back is loss of data.

The primary journal, from the oldest record on:

    journal-out (1511) <= redo <= synced <= journal-in (1512)

and the auxiliary one:

    restoration-completed (1531) <= to-be-restored (1532) <= read-completed (1533) <= stored <= to-be-read (1534)

Whole pages are written, never parts. So a page has what is stored or what is free, and never the oldest record and the
newest one of a lap later.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

BLOCK_BYTES = 512
"""What LBAs count, and what data in a journal begins at multiples of."""
PAGE_BYTES = 4096
"""What is written at once, in both regions."""
ENTRIES_A_PAGE = 32
POSITION_BYTES_MAX = 1 << 63
"""More than any journal ever stores: at 10 GB/s it takes 29 years."""
NEARLY_FULL_SHARE = 0.8
"""A journal whose metadata or data is in use by so much is nearly full."""
METADATA_SHARE = 1 / 16
"""Of a journal: room for writes of 2 KiB on average."""


class Position(NamedTuple):
    """A place in a journal: `sequence` records and `byte` bytes of data were stored before it, ever. So `sequence` is
    the number of the record there."""

    sequence: int
    byte: int

    def follows(self, other: Position) -> bool:
        """Whether this is `other` or a place behind it."""
        return self == other or (self.sequence > other.sequence and self.byte >= other.byte)


START = Position(0, 0)


class Size(NamedTuple):
    """What fits into a journal: entries in its metadata region, bytes in its journal data region; whole pages."""

    entries: int
    data_bytes: int

    @classmethod
    def of(cls, available: int) -> Size:
        """How `available` bytes are divided. Raises ValueError if they are too few."""
        pages = available // PAGE_BYTES
        metadata = max(2, int(pages * METADATA_SHARE))
        if pages - metadata < 2:
            raise ValueError(f"{available} bytes are too few for a journal: {4 * PAGE_BYTES} at the least")
        return cls(metadata * ENTRIES_A_PAGE, (pages - metadata) * PAGE_BYTES)


class _Regions:
    """What both journals have: the oldest record, what is stored, and the room between."""

    def __init__(self, size: Size, oldest: Position, stored: Position) -> None:
        for amount, page in ((size.entries, ENTRIES_A_PAGE), (size.data_bytes, PAGE_BYTES)):
            assert amount % page == 0, size
            assert amount > page, size
        self.size = size
        self.oldest = oldest
        """Where the records begin that are kept."""
        self.stored = oldest
        """Where the next record is stored: those before it survive the death of the daemon."""
        self.entries_end = 0
        self.bytes_end = 0
        """No record may end behind these: they move with the oldest record."""
        self._make_room(oldest)
        self._check_room(stored)
        self.stored = stored

    def _make_room(self, oldest: Position) -> None:
        size = self.size
        self.oldest = oldest
        self.entries_end = oldest.sequence - oldest.sequence % ENTRIES_A_PAGE + size.entries
        # One block less than all: out and in at the same LBA mean that nothing is stored.
        self.bytes_end = min(
            oldest.byte - oldest.byte % PAGE_BYTES + size.data_bytes, oldest.byte + size.data_bytes - BLOCK_BYTES
        )

    def _check_room(self, end: Position) -> None:
        assert end.follows(self.stored), (self.stored, end)
        assert end.byte % BLOCK_BYTES == 0, end
        assert end.byte < POSITION_BYTES_MAX, end
        assert self.fits(end), (self.oldest, end)

    def fits(self, end: Position) -> bool:
        """Whether there is room for all that is before `end`."""
        return end.sequence <= self.entries_end and end.byte <= self.bytes_end

    @property
    def free(self) -> Position:
        """Records and bytes of data that there is room for."""
        return Position(self.entries_end - self.stored.sequence, self.bytes_end - self.stored.byte)

    @property
    def used_share(self) -> float:
        """How full the journal is, from 0 to 1."""
        return self.share(self.oldest, self.stored)

    def share(self, begin: Position, end: Position) -> float:
        """Which part of the journal the records from `begin` to `end` take: of the region that is fuller by them."""
        return max((end.sequence - begin.sequence) / self.size.entries, (end.byte - begin.byte) / self.size.data_bytes)

    @property
    def nearly_full(self) -> bool:
        """Whether the group should suspend before there is no room at all."""
        return self.used_share >= NEARLY_FULL_SHARE

    def _head_lba(self, data_at: int, position: Position) -> int:
        """The LBA at which a region begins."""
        return (data_at + position.byte % self.size.data_bytes) // BLOCK_BYTES

    def _highest_lba(self, data_at: int, position: Position) -> int:
        """The LBA that a region ends with: before anything was stored, the end LBA."""
        return (data_at + (position.byte - BLOCK_BYTES) % self.size.data_bytes) // BLOCK_BYTES


class PrimaryRegions(_Regions):
    """The primary journal. `oldest` is journal-out (1511), `stored` is journal-in (1512)."""

    def __init__(
        self, size: Size, journal_out: Position, redo: Position, synced: Position, journal_in: Position
    ) -> None:
        super().__init__(size, journal_out, journal_in)
        _check_order(journal_out, redo, synced, journal_in)
        self.redo = redo
        """What is before it is durable in the P-VOLs: after a restart the records from here on are written again."""
        self.synced = synced
        """What is before it survives a power loss, and may be served."""

    @property
    def positions(self) -> tuple[Position, ...]:
        """As the superblock keeps them: journal-out, redo, synced, journal-in."""
        return self.oldest, self.redo, self.synced, self.stored

    def store(self, end: Position) -> None:
        """Records up to `end` are written: journal-in moves."""
        self._check_room(end)
        self.stored = end

    def sync(self, end: Position) -> None:
        """What is before `end` is durable in the journal; others may have synced more already."""
        _check_order(end, self.stored)
        if end.follows(self.synced):
            self.synced = end

    def redone(self, end: Position) -> None:
        """What is before `end` is durable in the P-VOLs. It must be so in the journal first: after a power loss a
        P-VOL that has a write which the journal has lost would be ahead of the S-VOL for ever."""
        _check_order(self.redo, end, self.synced)
        self.redo = end

    def purge(self, end: Position) -> None:
        """Releases what is before `end` (the purge of figure 15): journal-out moves, never beyond redo."""
        _check_order(self.oldest, end, self.redo)
        self._make_room(end)

    def lbas(self, data_at: int) -> dict[str, int]:
        """The LBAs of figure 15, if the journal data region begins `data_at` bytes into its volume."""
        return {
            "journal_out_lba": self._head_lba(data_at, self.oldest),
            "journal_in_lba": self._head_lba(data_at, self.stored),
        }


class AuxiliaryRegions(_Regions):
    """The auxiliary journal. `oldest` is restoration-completed (1531); `stored` is how far records have come in."""

    def __init__(
        self,
        size: Size,
        restoration_completed: Position,
        to_be_restored: Position,
        read_completed: Position,
        to_be_read: Position,
    ) -> None:
        super().__init__(size, restoration_completed, read_completed)
        _check_order(restoration_completed, to_be_restored, read_completed, to_be_read)
        assert self.fits(to_be_read), to_be_read
        self.to_be_restored = to_be_restored
        self.synced = read_completed
        """Read-completed (1533): what is before it is durable here."""
        self.to_be_read = to_be_read

    @property
    def positions(self) -> tuple[Position, ...]:
        """As the superblock keeps them: restoration-completed, to-be-restored, read-completed, to-be-read."""
        return self.oldest, self.to_be_restored, self.synced, self.to_be_read

    def acquire(self, end: Position) -> None:
        """A journal acquisition instruction: records before `end` are to be read. There must be room for them."""
        _check_order(self.to_be_read, end)
        assert self.fits(end), (self.oldest, end)
        self.to_be_read = end

    def store(self, end: Position) -> None:
        """Records up to `end` have come in and are written."""
        self._check_room(end)
        _check_order(end, self.to_be_read)
        self.stored = end

    def sync(self, end: Position) -> None:
        """What is before `end` is durable in the journal: read-completed moves, unless it was there already."""
        _check_order(end, self.stored)
        if end.follows(self.synced):
            self.synced = end

    def restore(self, end: Position) -> None:
        """A restore instruction: records before `end` are written to the S-VOLs from now on."""
        _check_order(self.to_be_restored, end, self.synced)
        self.to_be_restored = end

    def restored(self, end: Position) -> None:
        """What is before `end` is durable in the S-VOLs: its room is free."""
        _check_order(self.oldest, end, self.to_be_restored)
        self._make_room(end)

    def lbas(self, data_at: int) -> dict[str, int]:
        """The LBAs of figure 15, if the journal data region begins `data_at` bytes into its volume."""
        return {
            "restoration_completed_lba": self._highest_lba(data_at, self.oldest),
            "to_be_restored_lba": self._highest_lba(data_at, self.to_be_restored),
            "read_completed_lba": self._highest_lba(data_at, self.synced),
            "to_be_read_lba": self._highest_lba(data_at, self.to_be_read),
        }


def _check_order(*positions: Position) -> None:
    for earlier, later in pairwise(positions):
        assert later.follows(earlier), positions
