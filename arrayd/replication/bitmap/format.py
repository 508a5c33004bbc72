"""The bytes of a differential bitmap, declared once: on the disk, and on the way to the other array. All integers are
big-endian. `docs/formats.md` says the same for people.

construct's declarations are the documentation, and build and parse what is not hot. Blocks go through precompiled
layouts; a property test proves that both agree.

A bit stands for a region of 4 KiB, which is what hosts write at random: a larger region would send the whole of it over
the wire for each of these, and the bitmap of 4 TiB still is 130 MiB on the disk, less in memory, and shorter on the
wire. Blocks are of 512 bytes, since that is what a disk writes wholly or not at all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from struct import Struct as Layout
from typing import Any, NamedTuple

from construct import Bytes, Const, ConstructError, Int16ub, Int32ub, Int64ub, Padding, Struct
from crc32c import crc32c

from arrayd.replication.bitmap.bits import mask, value
from arrayd.replication.journal.regions import PAGE_BYTES

VERSION = 1
"""Version of all these formats."""
REGION_BYTES = 4096
"""What a bit stands for."""
BLOCK_BYTES = 512
BLOCK_HEAD_BYTES = 8
BLOCK_ROW_BYTES = BLOCK_BYTES - BLOCK_HEAD_BYTES
BLOCK_BITS = BLOCK_ROW_BYTES * 8
BLOCKS_A_PAGE = PAGE_BYTES // BLOCK_BYTES
PAGE_ROW_BYTES = BLOCK_ROW_BYTES * BLOCKS_A_PAGE
PAGE_BITS = PAGE_ROW_BYTES * 8
"""Of a page, 32256: 126 MiB of the volume."""
FULL = mask(0, PAGE_BITS)
FULL_ROW = b"\xff" * PAGE_ROW_BYTES
SUPERBLOCK_BYTES = 512
BOOT_PAGE = 1
"""Which page of the bitmap's volume has the BOOT; the superblock is in page 0."""
LOG_PAGE = 2
"""Where the log of hot blocks begins; the bits are behind it."""
OWNER_BYTES = 16
BOOT_BYTES = 16
VOLUME_BYTES_MAX = 64 << 40
"""Of a volume that has a bitmap: 2 GiB of bits."""
PIECES_MAX = 128
"""Pages of a part of a bitmap on the wire: some 10 ms of work."""
PIECE_BYTES_MAX = PAGE_ROW_BYTES + 64
"""What zlib may make of a page at the worst."""


class FormatError(Exception):
    """What is there is not in the format; the text says what is wrong with it."""


SUPERBLOCK = Struct(
    "magic" / Const(b"arrayd bitmap\n\0\0"),
    "version" / Int16ub,
    Padding(6),
    "owner" / Bytes(OWNER_BYTES),  # whose bitmap it is, as the pair's table has it
    "size" / Int64ub,  # of the volume that the bits are about, in bytes
    "region_bytes" / Int32ub,  # what a bit stands for
    Padding(SUPERBLOCK_BYTES - 56),
    "crc" / Int32ub,  # CRC32C of all before it
)
"""What a bitmap begins with. It is written once, after everything else of a new bitmap."""

BOOT = Struct(
    "crc" / Int32ub,  # CRC32C of the rest
    "boot" / Bytes(BOOT_BYTES),  # of the machine: in another one power was lost
)
"""In which boot the bitmap was opened last."""

BLOCK = Struct(
    "crc" / Int32ub,  # CRC32C of the rest of the block
    "number" / Int32ub,  # of the block on the bitmap's volume, from its beginning
    "row" / Bytes(BLOCK_ROW_BYTES),  # bit n is bit n % 8 of byte n // 8, from the least significant one
)
"""A block of the log, or of the bits. One that is not whole counts as all set."""

CRC = Layout(">I")
NUMBER = Layout(">I")
BLOCK_HEAD = Layout(">II")
"""What BLOCK has before its row, precompiled."""

PART = Struct(
    "version" / Int16ub,
    Padding(2),
    "region_bytes" / Int32ub,
    "size" / Int64ub,  # as in the superblock
    "begin" / Int32ub,  # the pages from this one to before `end` are told: those without a piece are clear
    "end" / Int32ub,
    "pieces" / Int32ub,
)
"""A part of a bitmap on the wire; behind it come its pieces."""
PIECE = Struct(
    "page" / Int32ub,
    "length" / Int16ub,
    # so many bytes: the row of the page, by zlib
)
PART_LAYOUT = Layout(">HxxIQIII")
PIECE_LAYOUT = Layout(">IH")
PART_BYTES_MAX = PART_LAYOUT.size + PIECES_MAX * (PIECE_LAYOUT.size + PIECE_BYTES_MAX)
COMPRESSION = 1
"""zlib's level: what more would save is not worth its time."""


class Geometry(NamedTuple):
    """How the bitmap of a volume of `size` bytes is laid out."""

    size: int

    @property
    def regions(self) -> int:
        """Bits."""
        return -(-self.size // REGION_BYTES)

    @property
    def blocks(self) -> int:
        """Blocks of bits: bits of the log."""
        return -(-self.regions // BLOCK_BITS)

    @property
    def pages(self) -> int:
        """Pages of bits."""
        return -(-self.regions // PAGE_BITS)

    @property
    def log_pages(self) -> int:
        """Pages of the log."""
        return -(-self.blocks // PAGE_BITS)

    @property
    def bits_page(self) -> int:
        """Which page of the bitmap's volume has the first bits."""
        return LOG_PAGE + self.log_pages

    @property
    def bytes_needed(self) -> int:
        """Of the bitmap's volume."""
        return (self.bits_page + self.pages) * PAGE_BYTES

    def full(self, page: int) -> int:
        """A page of bits with all that it has set."""
        return FULL if page < self.pages - 1 else mask(0, self.regions - page * PAGE_BITS)


class Superblock(NamedTuple):
    """What a bitmap begins with; see SUPERBLOCK."""

    owner: bytes
    geometry: Geometry

    def encode(self) -> bytes:
        """A SUPERBLOCK."""
        fields = {"version": VERSION, "owner": self.owner, "size": self.geometry.size, "region_bytes": REGION_BYTES}
        packed: bytes = SUPERBLOCK.build(fields | {"crc": 0})
        return packed[: -CRC.size] + CRC.pack(crc32c(packed[: -CRC.size]))


def decode_superblock(data: bytes) -> Superblock:
    """The SUPERBLOCK that `data` begins with. Raises FormatError."""
    try:
        told: Any = SUPERBLOCK.parse(data)
    except ConstructError as error:
        raise FormatError("not a bitmap") from error
    _check(told.crc == crc32c(data[: SUPERBLOCK_BYTES - CRC.size]), "the CRC of the superblock is wrong")
    _check(told.version == VERSION, f"a bitmap of version {told.version}: this is version {VERSION}")
    _check(told.region_bytes == REGION_BYTES, f"regions of {told.region_bytes} bytes: {REGION_BYTES} are known")
    _check(0 < told.size <= VOLUME_BYTES_MAX, f"a volume of {told.size} bytes")
    return Superblock(told.owner, Geometry(told.size))


def encode_boot(boot: bytes) -> bytes:
    """A BOOT."""
    return CRC.pack(crc32c(boot)) + boot


def decode_boot(data: bytes) -> bytes | None:
    """In which boot the bitmap was opened last; None if nothing tells."""
    told: Any = BOOT.parse(data)
    boot: bytes = told.boot
    return boot if told.crc == crc32c(boot) else None


# -- pages of blocks ---------------------------------------------------------------------------------------------------


def encode_page(page: int, row: bytes | bytearray) -> bytes:
    """That page of the bitmap's volume, with the bits of `row`."""
    parts: list[bytes] = []
    for number, begin in enumerate(range(0, PAGE_ROW_BYTES, BLOCK_ROW_BYTES), page * BLOCKS_A_PAGE):
        rest = NUMBER.pack(number) + row[begin : begin + BLOCK_ROW_BYTES]
        parts += (CRC.pack(crc32c(rest)), rest)
    return b"".join(parts)


def decode_page(image: bytes, page: int) -> tuple[bytes, int]:
    """The bits of that page of the bitmap's volume; and how many of its blocks are not whole, and all set."""
    rows: list[bytes] = []
    damaged = 0
    for number, at in enumerate(range(0, PAGE_BYTES, BLOCK_BYTES), page * BLOCKS_A_PAGE):
        if BLOCK_HEAD.unpack_from(image, at) == (crc32c(image[at + CRC.size : at + BLOCK_BYTES]), number):
            rows.append(image[at + BLOCK_HEAD_BYTES : at + BLOCK_BYTES])
        else:
            rows.append(FULL_ROW[:BLOCK_ROW_BYTES])
            damaged += 1
    return b"".join(rows), damaged


# -- on the wire -------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """The bits of pages `begin` to before `end`: those of each page that has any."""

    begin: int
    end: int
    pages: dict[int, int]


def encode_part(geometry: Geometry, begin: int, end: int, rows: Sequence[tuple[int, bytes | bytearray]]) -> bytes:
    """A PART; `rows` are the pages that have bits, in order, PIECES_MAX at the most."""
    assert len(rows) <= PIECES_MAX, len(rows)
    pieces = [PART_LAYOUT.pack(VERSION, REGION_BYTES, geometry.size, begin, end, len(rows))]
    for page, row in rows:
        packed = zlib.compress(row, COMPRESSION)
        pieces += (PIECE_LAYOUT.pack(page, len(packed)), packed)
    return b"".join(pieces)


def decode_part(data: bytes | bytearray | memoryview, geometry: Geometry) -> Part:
    """A PART that another array sent, about a volume that must be as large as this one. Raises FormatError."""
    _check(PART_LAYOUT.size <= len(data) <= PART_BYTES_MAX, f"a part of {len(data)} bytes")
    version, region_bytes, size, begin, end, count = PART_LAYOUT.unpack_from(data)
    _check(version == VERSION, f"a part of version {version}: this is version {VERSION}")
    _check(region_bytes == REGION_BYTES, f"regions of {region_bytes} bytes: {REGION_BYTES} are known")
    _check(size == geometry.size, f"the bitmap of a volume of {size} bytes, where this one has {geometry.size}")
    _check(begin < end <= geometry.pages, f"pages {begin} to {end} of {geometry.pages}")
    _check(count <= PIECES_MAX, f"{count} pieces: {PIECES_MAX} at the most")
    pages: dict[int, int] = {}
    at, due = PART_LAYOUT.size, begin
    for _ in range(count):
        _check(at + PIECE_LAYOUT.size <= len(data), "a part is cut short")
        page, length = PIECE_LAYOUT.unpack_from(data, at)
        at += PIECE_LAYOUT.size
        _check(due <= page < end, f"page {page}, where {due} to {end} are due")
        _check(length <= min(PIECE_BYTES_MAX, len(data) - at), f"a piece of {length} bytes")
        bits = value(_unpacked(data[at : at + length]))
        _check(not bits & ~geometry.full(page), "bits beyond the end of the volume")
        pages[page] = bits
        at, due = at + length, page + 1
    _check(at == len(data), f"{len(data) - at} bytes behind the last piece")
    return Part(begin, end, pages)


def _unpacked(packed: bytes | bytearray | memoryview) -> bytes:
    """A row that zlib has packed. Never more memory than a row takes, whatever it was made from."""
    unpacking = zlib.decompressobj()
    try:
        row = unpacking.decompress(packed, PAGE_ROW_BYTES + 1)
    except zlib.error as error:
        raise FormatError(f"a piece that cannot be unpacked: {error}") from error
    whole = len(row) == PAGE_ROW_BYTES and unpacking.eof and not unpacking.unused_data
    _check(whole, "a piece that is not one page")
    return row


def _check(holds: bool, wrong: str) -> None:
    if not holds:
        raise FormatError(wrong)
