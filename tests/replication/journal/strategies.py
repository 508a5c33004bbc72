"""Records of any kind, and regions of figure 15, as hypothesis draws them."""

from crc32c import crc32c
from hypothesis import strategies as st

from arrayd.replication.journal.format import CHAIN_BYTES, MORE, Entry, Kind, Record, Role, Superblock
from arrayd.replication.journal.regions import BLOCK_BYTES, ENTRIES_A_PAGE, PAGE_BYTES, Position, Size

U64 = st.integers(0, (1 << 64) - 1)
BLOCKS = st.integers(0, (1 << 50) - 1).map(lambda count: count * BLOCK_BYTES)
GROUPS = st.binary(min_size=16, max_size=16)
CHAINS = st.binary(min_size=CHAIN_BYTES, max_size=CHAIN_BYTES)


def write(kind: Kind, blocks: int, fill: int) -> tuple[int, memoryview]:
    """Extent and data of a write of a kind."""
    length = blocks * BLOCK_BYTES
    if kind in (Kind.UNMAP, Kind.ZEROS):
        return length, memoryview(b"")
    # Each block is another one, so that none passes for its neighbour.
    parts = 1 if kind == Kind.PATTERN else blocks
    return length, memoryview(b"".join(fill.to_bytes(4, "big") + bytes([part % 251]) * 508 for part in range(parts)))


KINDS_AND_BLOCKS = st.tuples(st.sampled_from(Kind), st.integers(1, 3), st.integers(0, (1 << 32) - 1))


def record(kind: Kind, blocks: int, fill: int, **fields: int) -> Record:
    """One record, whole, with the fields that are given."""
    extent, data = write(kind, blocks, fill)
    made = Entry(1, 0, 7, fill, 512 * fill, extent, 0, len(data), crc32c(data), fill % 5, kind)
    return Record(made._replace(**fields), data)


RECORDS = st.builds(
    lambda what, opening, sequence, numbers, places, volume, flags: record(
        *what,
        opening=opening,
        sequence=sequence,
        epoch=numbers[0],
        time=numbers[1],
        offset=places[0],
        position=places[1],
        volume=volume,
        flags=flags,
    ),
    KINDS_AND_BLOCKS,
    st.integers(0, (1 << 32) - 1),
    U64,
    st.tuples(U64, U64),
    st.tuples(BLOCKS, BLOCKS),
    st.integers(0, 65535),
    st.sampled_from((0, MORE)),
)

POSITIONS = st.builds(Position, U64, U64)
SIZES = st.builds(
    Size,
    st.integers(2, 1 << 20).map(lambda pages: pages * ENTRIES_A_PAGE),
    st.integers(2, 1 << 40).map(lambda pages: pages * PAGE_BYTES),
)
SUPERBLOCKS = st.builds(
    Superblock,
    U64,
    st.sampled_from(Role),
    GROUPS,
    U64,
    st.integers(0, (1 << 32) - 1),
    SIZES,
    st.tuples(POSITIONS, POSITIONS, POSITIONS, POSITIONS),
    CHAINS,
)
