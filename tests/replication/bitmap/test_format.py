"""The bytes of a bitmap: golden ones, both codecs, and nothing taken for a part of one that is none."""

import zlib

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication.bitmap.format import (
    BLOCK,
    BLOCK_BYTES,
    BLOCK_HEAD,
    BLOCK_HEAD_BYTES,
    BLOCK_ROW_BYTES,
    BOOT,
    FULL,
    PAGE_BITS,
    PAGE_ROW_BYTES,
    PART,
    PART_BYTES_MAX,
    PART_LAYOUT,
    PIECE,
    PIECE_LAYOUT,
    PIECES_MAX,
    SUPERBLOCK,
    SUPERBLOCK_BYTES,
    VOLUME_BYTES_MAX,
    FormatError,
    Geometry,
    Part,
    Superblock,
    decode_boot,
    decode_page,
    decode_part,
    decode_superblock,
    encode_boot,
    encode_page,
    encode_part,
)
from tests.lab.search import examples

OWNER = bytes(range(16))
THREE_PAGES = Geometry((2 * PAGE_BITS + 5000) * 4096 - 512)
ROWS = st.lists(st.integers(0, PAGE_BITS - 1), max_size=20).map(
    lambda bits: sum(1 << bit for bit in set(bits)).to_bytes(PAGE_ROW_BYTES, "little")
)
LAST = THREE_PAGES.full(2)
ALL_SET = b"\xff" * PAGE_ROW_BYTES


def test_sizes() -> None:
    assert BLOCK.sizeof() == BLOCK_BYTES == BLOCK_HEAD_BYTES + BLOCK_ROW_BYTES == 512
    assert BLOCK_HEAD.size == BLOCK_HEAD_BYTES
    assert SUPERBLOCK.sizeof() == SUPERBLOCK_BYTES == 512
    assert (PART_LAYOUT.size, PIECE_LAYOUT.size) == (PART.sizeof(), PIECE.sizeof())
    # Of 4 TiB it can be borne, and a part of it is a message of the link.
    assert Geometry(4 << 40).bytes_needed < (4 << 40) // 32000
    assert PART_BYTES_MAX < 1 << 20
    assert Geometry(VOLUME_BYTES_MAX).bytes_needed // BLOCK_BYTES < 1 << 32


@given(st.integers(1, 1 << 45))
def test_a_geometry_has_a_bit_for_each_region(size: int) -> None:
    geometry = Geometry(size)
    pages, blocks = geometry.pages, geometry.blocks
    assert (geometry.regions - 1) * 4096 < size <= geometry.regions * 4096
    assert (blocks - 1) * 4032 < geometry.regions <= blocks * 4032
    assert (pages - 1) * PAGE_BITS + geometry.full(pages - 1).bit_count() == geometry.regions
    assert (geometry.log_pages - 1) * PAGE_BITS < blocks <= geometry.log_pages * PAGE_BITS
    assert geometry.bytes_needed == (2 + geometry.log_pages + pages) * 4096


def test_a_golden_superblock() -> None:
    packed = b"arrayd bitmap\n\0\0" + bytes.fromhex("0001 000000000000") + OWNER
    packed += bytes.fromhex("0000000000100200 00001000") + bytes(456)
    superblock = Superblock(OWNER, Geometry(0x100200))
    assert superblock.encode() == packed + crc32c(packed).to_bytes(4, "big")
    assert decode_superblock(superblock.encode() + b"behind") == superblock


def test_a_torn_superblock_is_none() -> None:
    whole = Superblock(OWNER, Geometry(4096)).encode()
    for at in range(len(whole)):
        for torn in (whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :], whole[:at]):
            with pytest.raises(FormatError):
                decode_superblock(torn)


def test_a_boot() -> None:
    packed = encode_boot(OWNER)
    assert BOOT.build({"crc": crc32c(OWNER), "boot": OWNER}) == packed
    assert decode_boot(packed + bytes(9)) == OWNER
    assert decode_boot(bytes(20)) is None


@settings(max_examples=examples(40))
@given(ROWS, st.integers(0, (1 << 29) - 1))
def test_both_codecs_agree_on_a_page(row: bytes, page: int) -> None:
    image = encode_page(page, row)
    for number in range(8):
        packed = image[number * BLOCK_BYTES :][:BLOCK_BYTES]
        told = BLOCK.parse(packed)
        assert BLOCK.build(told) == packed
        assert (told.number, told.row) == (page * 8 + number, row[number * BLOCK_ROW_BYTES :][:BLOCK_ROW_BYTES])
        assert told.crc == crc32c(packed[4:])
    assert decode_page(image, page) == (row, 0)


@settings(max_examples=examples(40))
@given(ROWS, st.integers(0, 4095), st.integers(0, 7))
def test_a_block_that_is_not_whole_is_all_set(row: bytes, at: int, bit: int) -> None:
    image = bytearray(encode_page(5, row))
    image[at] ^= 1 << bit
    begin = at // BLOCK_BYTES * BLOCK_ROW_BYTES
    expected = row[:begin] + b"\xff" * BLOCK_ROW_BYTES + row[begin + BLOCK_ROW_BYTES :]
    assert decode_page(bytes(image), 5) == (expected, 1)
    # Nor is what belongs elsewhere, nor nothing at all.
    assert decode_page(bytes(image), 6) == (ALL_SET, 8)
    assert decode_page(bytes(4096), 0) == (ALL_SET, 8)


# -- on the wire -------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(40))
@given(st.dictionaries(st.integers(0, 1), ROWS), st.integers(2, 3))
def test_a_part_comes_back(pages: dict[int, bytes], end: int) -> None:
    packed = encode_part(THREE_PAGES, 0, end, sorted(pages.items()))
    told = decode_part(memoryview(packed), THREE_PAGES)
    assert told == Part(0, end, {page: int.from_bytes(row, "little") for page, row in pages.items()})
    head = PART.parse(packed)
    assert PART.build(head) == packed[: PART.sizeof()]
    assert (head.version, head.region_bytes, head.size) == (1, 4096, THREE_PAGES.size)
    assert (head.begin, head.end, head.pieces) == (0, end, len(pages))
    at = PART.sizeof()
    for page in sorted(pages):
        piece = PIECE.parse(packed[at:])
        assert (piece.page, PIECE.build(piece)) == (page, packed[at : at + PIECE.sizeof()])
        at += PIECE.sizeof() + piece.length
    assert at == len(packed)


def test_the_longest_part_has_room() -> None:
    """Noise cannot be packed."""
    geometry = Geometry(PIECES_MAX * PAGE_BITS * 4096)
    seed = 1
    noise = bytearray()
    for _ in range(PAGE_ROW_BYTES):
        seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        noise.append(seed >> 56)
    packed = encode_part(geometry, 0, PIECES_MAX, [(page, noise) for page in range(PIECES_MAX)])
    assert PIECES_MAX * PAGE_ROW_BYTES < len(packed) <= PART_BYTES_MAX
    assert len(decode_part(packed, geometry).pages) == PIECES_MAX
    # Where all is set, little is sent.
    full = [(page, b"\xff" * PAGE_ROW_BYTES) for page in range(PIECES_MAX)]
    assert len(encode_part(geometry, 0, PIECES_MAX, full)) < PIECES_MAX * 64


def part(*pieces: tuple[int, bytes], begin: int = 0, end: int = 3, count: int | None = None) -> bytes:
    number = len(pieces) if count is None else count
    packed = PART_LAYOUT.pack(1, 4096, THREE_PAGES.size, begin, end, number)
    return packed + b"".join(PIECE_LAYOUT.pack(page, len(row)) + row for page, row in pieces)


def packed_row(bits: int, length: int = PAGE_ROW_BYTES) -> bytes:
    return zlib.compress(bits.to_bytes(length, "little"))


@pytest.mark.parametrize(
    ("hostile", "wrong"),
    [
        (b"", "a part of 0 bytes"),
        (bytes(PART_BYTES_MAX + 1), "a part of"),
        (PART_LAYOUT.pack(2, 4096, THREE_PAGES.size, 0, 3, 0), "version 2"),
        (PART_LAYOUT.pack(1, 8192, THREE_PAGES.size, 0, 3, 0), "regions of 8192 bytes"),
        (PART_LAYOUT.pack(1, 4096, THREE_PAGES.size + 512, 0, 3, 0), "where this one has"),
        (part(begin=1, end=1), "pages 1 to 1 of 3"),
        (part(end=4), "pages 0 to 4 of 3"),
        (part(count=PIECES_MAX + 1), "129 pieces"),
        (part(count=1), "cut short"),
        (part((3, packed_row(1))), "page 3"),
        (part((0, packed_row(1)), begin=1), "page 0"),
        (part((1, packed_row(1)), (1, packed_row(1))), "page 1, where 2 to 3"),
        (part((0, packed_row(1)))[:-1], "a piece of"),
        (part((0, packed_row(1))) + b"x", "1 bytes behind"),
        (part((0, b"no zlib")), "cannot be unpacked"),
        (part((0, packed_row(1)[:-1])), "not one page"),
        (part((0, packed_row(1) + b"x")), "not one page"),
        (part((0, packed_row(1, PAGE_ROW_BYTES - 1))), "not one page"),
        (part((0, packed_row(0, 4 << 20))), "not one page"),
        (part((2, packed_row(LAST + 1))), "beyond the end"),
        (part((2, packed_row(FULL))), "beyond the end"),
    ],
)
def test_what_is_no_part_is_refused(hostile: bytes, wrong: str) -> None:
    with pytest.raises(FormatError, match=wrong):
        decode_part(hostile, THREE_PAGES)


@settings(max_examples=examples(60))
@given(st.data())
def test_whatever_is_changed_it_is_a_part_or_refused(data: st.DataObject) -> None:
    packed = bytearray(part((0, packed_row(9)), (2, packed_row(LAST))))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        told = decode_part(packed, THREE_PAGES)
    except FormatError:
        return
    assert 0 <= told.begin < told.end <= 3
    assert all(told.begin <= page < told.end for page in told.pages)
    assert all(not bits & ~THREE_PAGES.full(page) for page, bits in told.pages.items())
