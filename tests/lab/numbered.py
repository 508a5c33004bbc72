"""Writes of which each says its number, across the volumes of a group: which of them are in a copy of the volumes, and
whether these are a prefix of all.

Places are written to again and again, but never by two writes at once, so what a place holds says which of its writes
were there. A write that was begun when another one had been answered comes behind it in the group's order.
"""

import asyncio
import math
import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from tests.lab.connection import IscsiError
from tests.lab.daemon import ArraydProcess
from tests.lab.initiator import CHECK_CONDITION, GOOD, Session

VOLUMES: Final = 3
"""LUNs 0, 1 and 2."""
PLACES: Final = 1024
"""Of each volume."""
PLACE_BYTES: Final = 4096
VOLUME_BYTES: Final = PLACES * PLACE_BYTES
SECTOR_BYTES: Final = 512
SECTORS: Final = PLACE_BYTES // SECTOR_BYTES
"""Of a place."""
READ_SECTORS: Final = 2048

HOT_PLACES: Final = 8
"""Of each volume: every other write goes there."""
WIDTHS: Final = (1, 1, 1, 4)
"""Places of a write."""
SAME_SHARE: Final = 0.1
"""Of writes that are WRITE SAME."""
WRITERS: Final = 6
PAUSE_SECONDS: Final = 0.002
"""Of a writer, after each write: what comes while an array is started stays within a journal."""
WRITES_MAX: Final = 4000
"""Of a history: likewise."""


def data_of(number: int, places: int = 1) -> bytes:
    """The data of a write."""
    return number.to_bytes(8) * (places * PLACE_BYTES // 8)


def write_10(place: int, places: int = 1) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, place * SECTORS, 0, places * SECTORS, 0)


def write_same_16(place: int, places: int) -> bytes:
    return struct.pack(">BBQIBB", 0x93, 0, place * SECTORS, places * SECTORS, 0, 0)


def read_16(sector: int, sectors: int) -> bytes:
    return struct.pack(">BBQIBB", 0x88, 0, sector, sectors, 0, 0)


async def session_with(array: ArraydProcess) -> Session:
    """A session whose unit attentions have been told."""
    session = await Session.open(array.addresses[0], array.target)
    for lun in range(VOLUMES):
        while (await session.command(bytes(6), lun=lun)).status == CHECK_CONDITION:
            pass
    return session


async def contents(array: ArraydProcess) -> list[bytes]:
    """All of every volume."""
    volumes = []
    async with await session_with(array) as session:
        for lun in range(VOLUMES):
            parts = []
            for sector in range(0, VOLUME_BYTES // SECTOR_BYTES, READ_SECTORS):
                answer = await session.command(
                    read_16(sector, READ_SECTORS), lun=lun, read_bytes=READ_SECTORS * SECTOR_BYTES
                )
                assert answer.status == GOOD
                parts.append(answer.data)
            volumes.append(b"".join(parts))
    return volumes


async def write_one(array: ArraydProcess, number: int, lun: int = 0) -> int:
    """The sense key of a write; 0: it went well."""
    async with await session_with(array) as session:
        answer = await session.command(write_10(number), lun=lun, data_out=data_of(number))
        return 0 if answer.status == GOOD else answer.sense_key


@dataclass(slots=True)
class Write:
    """One of them. `begun` and `answered` are moments of the history, the latter infinite while there was none."""

    number: int
    lun: int
    place: int
    places: int
    same: bool
    begun: int
    answered: float = math.inf


class Numbered:
    """The writes to volumes that held `volumes` before. Numbers begin behind `after`, and are used once."""

    def __init__(self, volumes: Sequence[bytes], after: int = 0) -> None:
        self.volumes = list(volumes)
        self.last = after
        self._writes: dict[int, Write] = {}
        """In order."""
        self._at: dict[tuple[int, int], list[int]] = {}
        """By LUN and place, those that wrote there, in order."""
        self._under_way: set[tuple[int, int]] = set()
        self._moment = 0

    def __len__(self) -> int:
        return len(self._writes)

    # -- written -----------------------------------------------------------------------------------------------------

    def begin(self, chance: random.Random) -> Write:
        """The next one."""
        while True:
            lun, places = chance.randrange(VOLUMES), chance.choice(WIDTHS)
            place = chance.randrange(HOT_PLACES if chance.random() < 0.5 else PLACES - places)
            if not self._under_way & _of(lun, place, places):
                break
        self.last += 1
        self._moment += 1
        write = Write(self.last, lun, place, places, chance.random() < SAME_SHARE, self._moment)
        self._writes[write.number] = write
        for at in _of(lun, place, places):
            self._at.setdefault(at, []).append(write.number)
            self._under_way.add(at)
        return write

    def end(self, write: Write) -> None:
        """It is answered."""
        self._moment += 1
        write.answered = self._moment
        self._under_way -= _of(write.lun, write.place, write.places)

    def settle(self, volumes: Sequence[bytes]) -> None:
        """`volumes` are what was written to, after a restart: whatever was not answered before is there, or will never
        be. All that was answered is there."""
        there = self._found(volumes)
        for write in list(self._writes.values()):
            if math.isinf(write.answered) and write.number in there:
                self.end(write)
            elif math.isinf(write.answered):
                del self._writes[write.number]
                for at in _of(write.lun, write.place, write.places):
                    self._at[at].remove(write.number)
                    self._under_way.discard(at)
        self.check_whole(volumes)

    # -- found -------------------------------------------------------------------------------------------------------

    def prefix(self, volumes: Sequence[bytes]) -> int:
        """How many of the writes are in `volumes`, which are a prefix of them and nothing else. Raises
        AssertionError."""
        there = self._found(volumes)
        newest = max((self._writes[number].begun for number in there), default=0)
        missing = [each for each in self._writes.values() if each.number not in there and each.answered < newest]
        assert not missing, (
            f"{len(there)} writes up to {max(there)} are there, and not {[each.number for each in missing[:9]]}, "
            f"{len(missing)} in all, which were answered before one of these was begun"
        )
        _same(volumes, self._after(there), f"what {len(there)} writes leave")
        return len(there)

    def check_whole(self, volumes: Sequence[bytes]) -> None:
        """All that was answered is in `volumes`, and nothing else, while none is under way. Raises AssertionError."""
        _same(volumes, self.whole(), f"what all {len(self)} writes leave")

    def whole(self) -> list[bytes]:
        """What they leave, all together, when none is under way."""
        assert not self._under_way, "writes are under way"
        return self._after(self._writes)

    def _found(self, volumes: Sequence[bytes]) -> set[int]:
        """Those of which something is there, or has been and was written over."""
        there: set[int] = set()
        for (lun, place), numbers in self._at.items():
            at = place * PLACE_BYTES
            number = int.from_bytes(volumes[lun][at : at + 8])
            if number in numbers:
                there.update(numbers[: numbers.index(number) + 1])
        return there

    def _after(self, numbers: Iterable[int]) -> list[bytes]:
        left = [bytearray(volume) for volume in self.volumes]
        for number in sorted(numbers):
            write = self._writes[number]
            at = write.place * PLACE_BYTES
            left[write.lun][at : at + write.places * PLACE_BYTES] = data_of(number, write.places)
        return [bytes(volume) for volume in left]


def _of(lun: int, place: int, places: int) -> set[tuple[int, int]]:
    return {(lun, each) for each in range(place, place + places)}


def _same(found: Sequence[bytes], expected: Sequence[bytes], what: str) -> None:
    if list(found) == list(expected):
        return
    for lun, (one, other) in enumerate(zip(found, expected, strict=True)):
        for at in range(0, VOLUME_BYTES, 8):
            if one[at : at + 8] != other[at : at + 8]:
                has, due = (int.from_bytes(each[at : at + 8]) for each in (one, other))
                raise AssertionError(f"not {what}: LUN {lun} has write {has} at byte {at} and not {due}")


class Writers:
    """Hosts that write to an array: WRITERS writes on their way at a time, until they are stopped or it dies."""

    def __init__(self, session: Session, writes: Numbered, chance: random.Random) -> None:
        self._session = session
        self._writes = writes
        self._chance = chance
        self._going_on = True
        self._tasks = [asyncio.create_task(self._write()) for _ in range(WRITERS)]

    @classmethod
    async def start(cls, array: ArraydProcess, writes: Numbered, chance: random.Random) -> Self:
        """They write what `chance` says."""
        return cls(await session_with(array), writes, chance)

    async def _write(self) -> None:
        writes = self._writes
        while self._going_on:
            if len(writes) < WRITES_MAX:
                write = writes.begin(self._chance)
                same = write.same
                answer = await self._session.command(
                    (write_same_16 if same else write_10)(write.place, write.places),
                    lun=write.lun,
                    data_out=data_of(write.number, write.places)[: SECTOR_BYTES if same else None],
                )
                assert answer.status == GOOD, f"write {write.number}: {answer}"
                writes.end(write)
            await asyncio.sleep(PAUSE_SECONDS)

    async def stop(self) -> None:
        """All that were begun are answered."""
        self._going_on = False
        await self._close()
        for task in self._tasks:
            task.result()

    async def died(self) -> None:
        """The array was killed."""
        self._going_on = False
        await self._close()
        errors = [task.exception() for task in self._tasks]
        assert all(error is None or isinstance(error, IscsiError) for error in errors), errors

    async def _close(self) -> None:
        await asyncio.wait(self._tasks)
        await self._session.close()
