"""A declared header as shifts and masks: what construct would build and parse, in a twentieth of the time.

`pdu.py` declares every header for construct, which reads well and walks through a dozen objects a field. What is taken
from a declaration here is where its fields lie. A property test proves that both agree on every header.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from construct import BitsInteger, Construct, Container, Flag

BYTE_BITS = 8


class Layout:
    """One header: a BitStruct of whole bytes, whose named fields are numbers, flags and octets with a default."""

    def __init__(self, header: Construct) -> None:
        self._header = header
        self._fields: list[tuple[str, int, int, int, Any]] = []
        """Name, shift, mask, bytes of octets (0: a number, -1: a flag), default."""
        parts = header.subcon.subcons  # a BitStruct is a Struct inside a Transformed
        shift = sum(_bits(part) for part in parts)
        self.bytes = shift // BYTE_BITS
        for part in parts:
            width = _bits(part)
            shift -= width
            if part.name:
                kind = part.subcon.subcon
                assert isinstance(kind, BitsInteger) or kind is Flag or width % BYTE_BITS == 0
                octets = 0 if isinstance(kind, BitsInteger) else -1 if kind is Flag else width // BYTE_BITS
                self._fields.append((part.name, shift, (1 << width) - 1, octets, part.subcon.value))
        self.names = frozenset(name for name, *_ in self._fields)

    def parse(self, header: bytes) -> Any:
        """The fields of a header of `bytes` bytes, a construct Container."""
        word = int.from_bytes(header, "big")
        fields = Container()
        for name, shift, mask, octets, _ in self._fields:
            value: Any = word >> shift & mask
            if octets:
                value = value.to_bytes(octets, "big") if octets > 0 else bool(value)
            fields[name] = value
        return fields

    def build(self, fields: Mapping[str, object]) -> bytes:
        """The header; fields not given have their default. Raises ConstructError where a value does not fit."""
        word = 0
        for name, shift, mask, octets, default in self._fields:
            value: Any = fields.get(name)
            if value is None:
                value = default
            if octets > 0:
                if not isinstance(value, bytes) or len(value) != octets:
                    return self._refuse(fields)
                value = int.from_bytes(value, "big")
            elif octets < 0:
                value = 1 if value else 0
            elif not isinstance(value, int) or not 0 <= value <= mask:
                return self._refuse(fields)
            word |= value << shift
        return word.to_bytes(self.bytes, "big")

    def _refuse(self, fields: Mapping[str, object]) -> bytes:
        """construct says what is wrong, or knows better."""
        built: bytes = self._header.build(dict(fields))
        return built


def _bits(part: Construct) -> int:
    """How many bits a part of a BitStruct has."""
    size: int = part.sizeof()
    return size
