"""Figure 15: the cyclic regions of both journals, against a model that keeps every record in its place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from arrayd.replication.journal.regions import (
    BLOCK_BYTES,
    ENTRIES_A_PAGE,
    NEARLY_FULL_SHARE,
    PAGE_BYTES,
    START,
    AuxiliaryRegions,
    Position,
    PrimaryRegions,
    Size,
)
from tests.lab.search import examples

SIZE = Size(2 * ENTRIES_A_PAGE, 3 * PAGE_BYTES)
BLOCKS = SIZE.data_bytes // BLOCK_BYTES


def moved(position: Position, records: int, blocks: int) -> Position:
    return Position(position.sequence + records, position.byte + blocks * BLOCK_BYTES)


class Rings:
    """Who is in which page: the number of the record that was put there last."""

    def __init__(self) -> None:
        self.data: dict[int, int] = {}
        self.entries: dict[int, int] = {}
        self.records: dict[int, tuple[Position, Position]] = {}

    def put(self, begin: Position, end: Position) -> None:
        """Stores one record as the journal does, whole pages: what else they had before is gone, but what is before
        the record itself."""
        self.records[begin.sequence] = begin, end
        after = -(-end.byte // PAGE_BYTES) * PAGE_BYTES
        for byte in range(begin.byte, after if end.byte > begin.byte else begin.byte, BLOCK_BYTES):
            self.data[byte % SIZE.data_bytes] = byte
        last = -(-end.sequence // ENTRIES_A_PAGE) * ENTRIES_A_PAGE
        for sequence in range(begin.sequence, last):
            self.entries[sequence % SIZE.entries] = sequence

    def has(self, sequence: int) -> bool:
        """Whether a record is there, with all its data."""
        begin, end = self.records[sequence]
        data = all(self.data.get(b % SIZE.data_bytes) == b for b in range(begin.byte, end.byte, BLOCK_BYTES))
        return data and self.entries[sequence % SIZE.entries] == sequence


class RegionsModel(RuleBasedStateMachine):
    """A primary journal that is stored, synced, redone and purged, and an auxiliary one that follows it."""

    @initialize(records=st.integers(0, 1 << 40), blocks=st.integers(0, 1 << 40))
    def begin(self, records: int, blocks: int) -> None:
        start = moved(START, records, blocks)
        self.primary = PrimaryRegions(SIZE, start, start, start, start)
        self.auxiliary = AuxiliaryRegions(SIZE, start, start, start, start)
        self.ends = [start]
        self.rings = Rings()

    def between(self, low: Position, high: Position, share: float) -> Position:
        """A place between two."""
        places = [end for end in self.ends if low <= end <= high]
        return places[int(share * (len(places) - 1))]

    @rule(blocks=st.sampled_from((0, 0, 1, 4, 10)), count=st.integers(1, 40))
    def store(self, blocks: int, count: int) -> None:
        for _ in range(count):
            begin = self.primary.stored
            end = moved(begin, 1, blocks)
            free = self.primary.free
            assert self.primary.fits(end) == (free.sequence >= 1 and free.byte >= blocks * BLOCK_BYTES)
            if self.primary.fits(end):
                self.primary.store(end)
                self.ends.append(end)
                self.rings.put(begin, end)
            else:
                with pytest.raises(AssertionError):
                    self.primary.store(end)

    @rule(share=st.floats(0, 1))
    def sync(self, share: float) -> None:
        self.primary.sync(self.between(self.primary.oldest, self.primary.stored, share))

    @rule(share=st.floats(0, 1))
    def redone(self, share: float) -> None:
        self.primary.redone(self.between(self.primary.redo, self.primary.synced, share))

    @rule(share=st.floats(0, 1))
    def purge(self, share: float) -> None:
        end = min(self.primary.redo, self.auxiliary.synced)
        if end > self.primary.oldest:
            self.primary.purge(self.between(self.primary.oldest, end, share))

    @rule(share=st.floats(0, 1))
    def acquire(self, share: float) -> None:
        end = self.between(self.auxiliary.to_be_read, self.primary.synced, share) if self.behind() else None
        if end is None:
            return
        if self.auxiliary.fits(end):
            self.auxiliary.acquire(end)
        else:
            with pytest.raises(AssertionError):
                self.auxiliary.acquire(end)

    def behind(self) -> bool:
        return self.primary.synced >= self.auxiliary.to_be_read

    @rule(share=st.floats(0, 1))
    def read(self, share: float) -> None:
        auxiliary = self.auxiliary
        auxiliary.store(self.between(auxiliary.stored, auxiliary.to_be_read, share))
        auxiliary.sync(auxiliary.stored)

    @rule(share=st.floats(0, 1))
    def restore(self, share: float) -> None:
        self.auxiliary.restore(self.between(self.auxiliary.to_be_restored, self.auxiliary.synced, share))

    @rule(share=st.floats(0, 1))
    def restored(self, share: float) -> None:
        self.auxiliary.restored(self.between(self.auxiliary.oldest, self.auxiliary.to_be_restored, share))

    @precondition(lambda self: self.primary.stored > self.primary.oldest)
    @rule(blocks=st.integers(1, 3))
    def nothing_goes_back_or_too_far(self, blocks: int) -> None:
        beyond = moved(self.primary.stored, 1, blocks)
        primary, auxiliary = self.primary, self.auxiliary
        for move, end in (
            (primary.store, primary.oldest),
            (primary.sync, beyond),
            (primary.redone, moved(primary.synced, 1, blocks)),
            (primary.purge, moved(primary.redo, 1, blocks)),
            (auxiliary.store, moved(auxiliary.to_be_read, 1, blocks)),
            (auxiliary.sync, moved(auxiliary.stored, 1, blocks)),
            (auxiliary.restore, moved(auxiliary.synced, 1, blocks)),
            (auxiliary.restored, moved(auxiliary.to_be_restored, 1, blocks)),
            # Records without their bytes, or bytes without records.
            (primary.store, moved(primary.stored, 0, blocks)),
            (primary.store, Position(primary.stored.sequence + 1, primary.stored.byte - BLOCK_BYTES)),
        ):
            before = primary.positions, auxiliary.positions
            with pytest.raises(AssertionError):
                move(end)
            assert (primary.positions, auxiliary.positions) == before

    @invariant()
    def what_is_kept_is_there(self) -> None:
        """From journal-out to journal-in each record is where it was put."""
        for sequence in range(self.primary.oldest.sequence, self.primary.stored.sequence):
            assert self.rings.has(sequence)

    @invariant()
    def the_order_of_the_figure(self) -> None:
        for regions in (self.primary, self.auxiliary):
            assert list(regions.positions) == sorted(regions.positions)
            assert 0 <= regions.used_share <= 1
            assert regions.nearly_full == (regions.used_share >= NEARLY_FULL_SHARE)
            assert min(regions.free) >= 0

    @invariant()
    def equal_lbas_mean_what_the_figure_says(self) -> None:
        """Journal-out and journal-in: nothing is stored. The pairs of the auxiliary one: nothing is under way."""
        at = 8 * PAGE_BYTES
        out, into = self.primary.lbas(at).values()
        assert (out == into) == (self.primary.oldest.byte == self.primary.stored.byte)
        restored, to_be_restored, read, to_be_read = self.auxiliary.lbas(at).values()
        auxiliary = self.auxiliary
        assert (restored == to_be_restored) == (auxiliary.oldest.byte == auxiliary.to_be_restored.byte)
        assert (read == to_be_read) == (auxiliary.synced.byte == auxiliary.to_be_read.byte)
        head, end = at // BLOCK_BYTES, at // BLOCK_BYTES + BLOCKS
        assert all(head <= lba < end for lba in (out, into, restored, to_be_restored, read, to_be_read))


RegionsModel.TestCase.settings = settings(max_examples=examples(16), stateful_step_count=30, deadline=None)
TestRegions = RegionsModel.TestCase


def test_figure_15_the_lbas() -> None:
    """Heads of regions in the primary journal, the highest LBAs of regions in the auxiliary one."""
    lap = Position(100, SIZE.data_bytes)
    size, at = SIZE, 100 * BLOCK_BYTES
    primary = PrimaryRegions(size, lap, lap, moved(lap, 1, 2), moved(lap, 2, 5))
    assert primary.lbas(at) == {"journal_out_lba": 100, "journal_in_lba": 105}
    auxiliary = AuxiliaryRegions(size, lap, moved(lap, 1, 2), moved(lap, 2, 5), moved(lap, 3, 9))
    assert auxiliary.lbas(at) == {
        "restoration_completed_lba": 100 + BLOCKS - 1,
        "to_be_restored_lba": 101,
        "read_completed_lba": 104,
        "to_be_read_lba": 108,
    }


@given(st.integers(0, 1 << 40))
def test_a_volume_is_divided(available: int) -> None:
    if available < 4 * PAGE_BYTES:
        with pytest.raises(ValueError, match="too few for a journal: 16384 at the least"):
            Size.of(available)
        return
    size = Size.of(available)
    PrimaryRegions(size, START, START, START, START)
    used = size.entries // ENTRIES_A_PAGE * PAGE_BYTES + size.data_bytes
    assert available - PAGE_BYTES < used <= available


def test_a_journal_is_nearly_full_by_records_alone() -> None:
    regions = PrimaryRegions(Size(64, 1 << 30), START, START, START, START)
    regions.store(Position(51, 51 * 512))
    assert not regions.nearly_full
    regions.store(Position(52, 52 * 512))
    assert regions.nearly_full
