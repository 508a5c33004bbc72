"""The bytes of a journal: golden ones, both codecs, and nothing taken for a record that is none."""

from itertools import pairwise

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from arrayd.replication.journal.format import (
    CHAIN_BYTES,
    CRC_BYTES,
    ENTRY,
    ENTRY_BYTES,
    ENTRY_LAYOUT,
    KINDS,
    METADATA_AT,
    MORE,
    RECORD_BYTES_MAX,
    SERVED,
    SERVED_BYTES,
    SUPERBLOCK,
    SUPERBLOCK_BYTES,
    Entry,
    FormatError,
    Kind,
    Record,
    Role,
    Superblock,
    chain_next,
    chain_start,
    decode_entry,
    decode_superblock,
    end_of_run,
)
from arrayd.replication.journal.regions import START, Position, Size
from tests.lab.search import examples
from tests.replication.journal.strategies import CHAINS, KINDS_AND_BLOCKS, RECORDS, SUPERBLOCKS, record, write
from tests.replication.runs import decode_run, run_of

GROUP = bytes(range(16))


def test_figure_12_an_entry_of_the_metadata_region() -> None:
    """The time of an update (1203), its LBA (1204), the LBA of the journal data region (1206) and the length."""
    entry = Entry(2, 0x0102, 3, 0x1112131415161718, 4096, 1024, 8192, 1024, 0xA0A1A2A3, 5, Kind.WRITE, MORE)
    packed = bytes.fromhex(
        "00000002 0000000000000102 0000000000000003 1112131415161718"
        "0000000000001000 0000000000000400 0000000000002000 00000400 a0a1a2a3 0005 01 01" + "00" * 60
    )
    assert entry.encode() == crc32c(packed).to_bytes(4, "big") + packed
    assert (entry.begin, entry.end, entry.more) == (Position(0x0102, 8192), Position(0x0103, 9216), True)


def test_sizes() -> None:
    assert ENTRY_LAYOUT.size == ENTRY.sizeof() == ENTRY_BYTES == 128
    assert SUPERBLOCK.sizeof() == SUPERBLOCK_BYTES == 512
    assert SERVED.sizeof() == SERVED_BYTES
    assert METADATA_AT % 4096 == 0


@settings(max_examples=examples(40))
@given(RECORDS)
def test_both_codecs_agree_on_an_entry(record: Record) -> None:
    entry = record.entry
    told = ENTRY.parse(entry.encode())
    assert [told[name] for name in Entry._fields] == list(entry)
    assert told.crc == crc32c(entry.encode()[CRC_BYTES:])
    assert ENTRY.build(told) == entry.encode()
    assert decode_entry(b"x" + entry.encode(), 1) == entry


@settings(max_examples=examples(40))
@given(SUPERBLOCKS)
def test_a_superblock_comes_back(superblock: Superblock) -> None:
    assert decode_superblock(superblock.encode() + b"behind") == superblock


def test_what_is_torn_is_none() -> None:
    """Every byte changed, every byte missing."""
    superblock = Superblock(9, Role.AUXILIARY, GROUP, 7, 3, Size(64, 8192), (START,) * 4, bytes(CHAIN_BYTES)).encode()
    entry = record(Kind.WRITE, 2, 3).entry.encode()
    decode_superblock(superblock)
    decode_entry(entry)
    for whole, decode in ((superblock, decode_superblock), (entry, decode_entry)):
        for at in range(len(whole)):
            changed = whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
            for torn in (changed, whole[:at]):
                with pytest.raises(FormatError):
                    decode(torn)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kind": 9}, "an entry of kind 9"),
        ({"flags": 6}, "an entry with flags 0x06"),
        ({"length": RECORD_BYTES_MAX + 512, "extent": RECORD_BYTES_MAX + 512}, "1049088 bytes of data: 1048576"),
        ({"offset": 100}, "not of whole blocks"),
        ({"position": 1}, "not of whole blocks"),
        ({"extent": 0, "length": 0, "kind": Kind.UNMAP}, "not of whole blocks"),
        ({"extent": 1024}, "an extent of 1024 bytes with 512 bytes of data"),
        ({"kind": Kind.UNMAP}, "an extent of 512 bytes with 512 bytes of data"),
        ({"kind": Kind.PATTERN, "length": 1024}, "an extent of 512 bytes with 1024 bytes of data"),
        ({"kind": Kind.PATTERN, "length": 0}, "an extent of 512 bytes with 0 bytes of data"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(changed: dict[str, int], reason: str) -> None:
    good = Entry(1, 0, 1, 0, 0, 512, 0, 512, 0, 0, Kind.WRITE)
    assert decode_entry(good.encode()) == good
    with pytest.raises(FormatError, match=reason):
        decode_entry(good._replace(**changed).encode())


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (17, 1, "a journal of version 1: this is version 2"),
        (18, 3, "a journal of role 3"),
        (71, 1, r"regions at \(8193, 16384\)"),
        (0, 0, "not a journal"),
    ],
)
def test_a_superblock_of_another_kind_says_so(at: int, value: int, reason: str) -> None:
    chain = bytes(CHAIN_BYTES)
    data = bytearray(Superblock(1, Role.PRIMARY, GROUP, 1, 1, Size(64, 8192), (START,) * 4, chain).encode())
    data[at] = value
    data[-4:] = crc32c(data[:-4]).to_bytes(4, "big")
    with pytest.raises(FormatError, match=reason):
        decode_superblock(bytes(data))


# -- the chain ---------------------------------------------------------------------------------------------------------


def journal(at: Position, records: list[tuple[tuple[Kind, int, int], int]]) -> list[Record]:
    """Records of one journal, in their order, whole writes."""
    found: list[Record] = []
    for what, flags in records:
        found.append(record(*what, sequence=at.sequence, position=at.byte, flags=flags))
        at = found[-1].entry.end
    found[-1] = Record(found[-1].entry._replace(flags=0), found[-1].data)
    return found


JOURNALS = st.builds(
    journal,
    st.builds(lambda count: Position(count, count * 512), st.integers(0, 100)),
    st.lists(st.tuples(KINDS_AND_BLOCKS, st.sampled_from((0, MORE))), min_size=1, max_size=5),
)


@settings(max_examples=examples(30))
@given(JOURNALS, CHAINS)
def test_a_run_comes_back(served: list[Record], chain: bytes) -> None:
    """All but the number of the opening, which is the array's own."""
    told, last = decode_run(memoryview(run_of(served, chain)[0]), served[0].entry.begin, 7, chain)
    assert told == [Record(entry._replace(opening=0), data) for entry, data in served]
    assert last == run_of(served, chain)[1]
    head = SERVED.parse(run_of(served, chain)[0])
    assert (head.chain, decode_entry(head.entry)) == (chain, told[0].entry)


@settings(max_examples=examples(80))
@given(JOURNALS, CHAINS, st.data())
def test_the_chain_proves_a_prefix(served: list[Record], chain: bytes, data: st.DataObject) -> None:
    """Any change of a byte, any omission, any other order is found, at the end of a run as well."""
    run = run_of(served, chain)[0]
    begin = served[0].entry.begin
    what = data.draw(st.sampled_from(("change", "omit", "swap", "cut", "repeat", "other")))
    if what == "change":
        run[data.draw(st.integers(0, len(run) - 1))] ^= data.draw(st.integers(1, 255))
    elif what == "cut":
        del run[data.draw(st.integers(0, len(run) - 1)) :]
    else:
        places = [0]
        for record in served:
            places.append(places[-1] + SERVED_BYTES + record.entry.length)
        parts = [bytes(run[here:there]) for here, there in pairwise(places)]
        first = data.draw(st.integers(0, len(parts) - 1))
        if what == "omit":
            del parts[first]
        elif what == "repeat":
            parts.insert(first, parts[first])
        elif what == "swap":
            second = data.draw(st.integers(0, len(parts) - 1))
            if first == second:
                return
            parts[first], parts[second] = parts[second], parts[first]
        else:  # whoever served it had another history
            chain = bytes([chain[0] ^ 1]) + chain[1:]
        run = bytearray(b"".join(parts) + run[places[-1] :])
    with pytest.raises(FormatError):
        decode_run(memoryview(run), begin, 7, chain)


@settings(max_examples=examples(40))
@given(JOURNALS, CHAINS, st.data())
def test_a_forger_who_mends_every_crc_is_found(served: list[Record], chain: bytes, data: st.DataObject) -> None:
    """One record is another one, with the CRCs and the hash before it all right: what comes next tells."""
    index = data.draw(st.integers(0, len(served) - 1))
    entry, _ = served[index]
    forged = list(served)
    extent, other = write(Kind.WRITE, 1, 0xBAD0BAD)
    if entry.kind == Kind.WRITE and entry.length == extent:
        forged[index] = Record(entry._replace(data_crc=crc32c(other)), other)
    else:
        forged[index] = Record(entry._replace(time=entry.time ^ 1), served[index].data)
    run = run_of(forged, chain)[0]
    honest, last = run_of(served, chain)
    run[-CHAIN_BYTES:] = last
    run_of_one = run_of(forged[: index + 1], chain)[0]
    if index + 1 < len(served):
        run[len(run_of_one) - CHAIN_BYTES : len(run_of_one)] = run_of(served[: index + 1], chain)[1]
    assert run != honest
    with pytest.raises(FormatError, match=r"does not follow|is not what was served"):
        decode_run(memoryview(run), served[0].entry.begin, 7, chain)


@settings(max_examples=examples(30))
@given(JOURNALS, CHAINS)
def test_what_is_not_due_is_refused(served: list[Record], chain: bytes) -> None:
    run, begin = memoryview(run_of(served, chain)[0]), served[0].entry.begin
    for at, epoch in (
        (begin, 8),
        (begin._replace(sequence=begin.sequence + 1), 7),
        (begin._replace(byte=51200 + 512), 7),
    ):
        with pytest.raises(FormatError):
            decode_run(run, at, epoch, chain)
    entry = served[-1].entry._replace(flags=MORE)
    unfinished = memoryview(run_of([*served[:-1], Record(entry, served[-1].data)], chain)[0])
    with pytest.raises(FormatError, match="the last write is cut short"):
        decode_run(unfinished, begin, 7, chain)


@settings(max_examples=examples(30))
@given(JOURNALS, CHAINS, st.data())
def test_data_that_is_not_what_was_written_is_not_served(
    served: list[Record], chain: bytes, data: st.DataObject
) -> None:
    with_data = [index for index, record in enumerate(served) if record.data]
    if not with_data:
        return
    index = data.draw(st.sampled_from(with_data))
    other = bytearray(served[index].data)
    other[data.draw(st.integers(0, len(other) - 1))] ^= 1
    served[index] = Record(served[index].entry, memoryview(other))
    with pytest.raises(FormatError, match=f"record {served[index].entry.sequence} is not what was written"):
        run_of(served, chain)


@settings(max_examples=examples(30))
@given(JOURNALS, CHAINS)
def test_where_a_run_ends_is_told_by_it_alone(served: list[Record], chain: bytes) -> None:
    run, begin = memoryview(run_of(served, chain)[0]), served[0].entry.begin
    assert end_of_run(run, begin) == (served[-1].entry.end, served[0].entry.time)
    assert end_of_run(run[:0], begin) == end_of_run(run[-CHAIN_BYTES:], begin) == (begin, 0)
    with pytest.raises(FormatError, match="an entry is cut short"):
        end_of_run(run[: SERVED_BYTES - 1], begin)


def test_chains_of_groups_and_epochs_differ() -> None:
    record = Record(Entry(0, 0, 1, 0, 0, 512, 0, 0, 0, 0, Kind.ZEROS), memoryview(b""))
    starts = {chain_start(GROUP, 1), chain_start(GROUP, 2), chain_start(bytes(16), 1)}
    assert len(starts | {chain_next(start, record) for start in starts}) == 6
    assert {Kind.WRITE, Kind.UNMAP, Kind.ZEROS, Kind.PATTERN} == KINDS


def test_a_record_that_was_not_served_is_not_taken() -> None:
    chain, data = chain_start(bytes(16), 7), bytes(512)
    entry = Entry(1, 0, 7, 1, 0, 512, 0, 512, crc32c(data), 0, Kind.WRITE)
    run = chain + entry.encode() + data
    with pytest.raises(FormatError, match="not served"):
        decode_run(memoryview(run + xxh3_128_digest(run)), Position(0, 0), 7, chain)
