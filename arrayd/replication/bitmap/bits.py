"""Rows of bits: as bytes where few of them are looked at, as one integer where all are. Bit n of a row is bit n % 8 of
byte n // 8, and bit n of the integer. Ranges are of bits, from `first` to before `end`, and never empty.

Nothing here goes through a row bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator

ALL_SET = 0xFF


def has(row: bytes | bytearray, first: int, end: int) -> bool:
    """Whether all bits of the range are set."""
    last = end - 1
    begin, stop = first >> 3, last >> 3
    head, tail = ALL_SET << (first & 7) & ALL_SET, ALL_SET >> (7 - (last & 7))
    if begin == stop:
        head &= tail
        return row[begin] & head == head
    whole = stop - begin - 1
    return (
        row[begin] & head == head
        and row[stop] & tail == tail
        and (not whole or row.count(ALL_SET, begin + 1, stop) == whole)
    )


def add(row: bytearray, first: int, end: int) -> int:
    """Sets the bits of the range; how many were not set."""
    begin, stop = first >> 3, (end + 7) >> 3
    before = int.from_bytes(row[begin:stop], "little")
    wanted = mask(first & 7, end - 8 * begin)
    row[begin:stop] = (before | wanted).to_bytes(stop - begin, "little")
    return (wanted & ~before).bit_count()


def mask(first: int, end: int) -> int:
    """The integer in which the bits of the range are set, and no others."""
    return (1 << end) - (1 << first)


def value(row: bytes | bytearray) -> int:
    """The row as an integer."""
    return int.from_bytes(row, "little")


def runs(bits: int, length_max: int) -> Iterator[tuple[int, int]]:
    """The ranges that are set, in order, joined as long as they have `length_max` bits at the most."""
    text = f"{bits:b}"[::-1]
    at = text.find("1")
    while at >= 0:
        stop = text.find("0", at)
        stop = len(text) if stop < 0 else stop
        for first in range(at, stop, length_max):
            yield first, min(first + length_max, stop)
        at = text.find("1", stop)
