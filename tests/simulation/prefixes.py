"""The order of a group's writes, and S-VOLs held against it: they are its writes 1 to N, for the N that is told.

The order is what the primary journal was given, by its own numbers. What a crash took from the end of a journal before
it was committed is forgotten when another write gets its number. All of it began with volumes of zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from arrayd.replication.journal import AuxiliaryJournal, Kind, Position, PrimaryJournal
from tests.simulation.doors import living
from tests.simulation.world import Violated

APPEND = PrimaryJournal.append_now
RESTORED = AuxiliaryJournal.restored


class Given(NamedTuple):
    """A write of the group: with it `end` records have been stored; `data` is repeated over `extent` bytes."""

    end: int
    volume: int
    offset: int
    extent: int
    data: bytes


class Prefixes:
    """The order of one group whose volumes, by number, have `size` bytes each."""

    def __init__(self, numbers: int, size: int) -> None:
        self._given: list[Given] = []
        self._made = 0
        """So many of them are in `_images`."""
        self._images = [bytearray(size) for _ in range(numbers)]
        self.checked = 0
        """Times that S-VOLs were held against it."""

    def was_given(self, begin: int, end: int, volume: int, kind: Kind, offset: int, extent: int, data: bytes) -> None:
        """A primary journal has taken a write as its records from `begin` on, up to `end`. Raises Violated."""
        while self._given and self._given[-1].end > begin:
            if len(self._given) <= self._made:
                raise Violated(f"record {self._given[-1].end} is given once more, and was restored")
            self._given.pop()
        zeros = kind in (Kind.UNMAP, Kind.ZEROS)
        self._given.append(Given(end, volume, offset, extent, b"\0" if zeros else data))

    def check(self, sequence: int, paths: list[Path]) -> None:
        """The files of the S-VOLs are the writes up to `sequence`, which never goes back. Raises Violated."""
        while self._made < len(self._given) and self._given[self._made].end <= sequence:
            each = self._given[self._made]
            repeated = each.data * (each.extent // len(each.data))
            self._images[each.volume][each.offset : each.offset + each.extent] = repeated
            self._made += 1
        if self._made and self._given[self._made - 1].end != sequence:
            raise Violated(f"no write of the group ends at {sequence}, which is told as restored")
        self.checked += 1
        for number, (image, path) in enumerate(zip(self._images, paths, strict=True)):
            found = path.read_bytes()
            if found != image:
                at = next(at for at, (one, other) in enumerate(zip(found, image, strict=True)) if one != other)
                raise Violated(f"S-VOL {number} is not the writes up to {sequence}: it differs at byte {at}")


def stand_ins(scenario: Any) -> dict[str, Any]:
    """By dotted name, for `world.replaced`: `scenario.given` is told what a primary journal takes, and
    `scenario.restored` what position an array has made durable."""

    def append(journal: PrimaryJournal, volume: int, kind: Kind, offset: int, extent: int, data: Any, at: int) -> bool:
        begin = journal._batch.sequence
        taken = APPEND(journal, volume, kind, offset, extent, data, at)
        if taken:
            end = journal._batch.sequence
            scenario.given(begin, end, volume, kind, offset, extent, bytes(data))
        return taken

    async def restored(journal: AuxiliaryJournal, end: Position) -> None:
        await RESTORED(journal, end)
        scenario.restored(living().name, end.sequence)

    return {
        "arrayd.replication.journal.primary.PrimaryJournal.append_now": append,
        "arrayd.replication.journal.auxiliary.AuxiliaryJournal.restored": restored,
    }
