"""The side with the P-VOLs, as a model behind `Doors.ask`, and the doors of a stage with S-VOLs on disks in memory.

The model lives on when the other side dies. It has its P-VOLs as bytes and all records of the epoch, and keeps no more
than it must: what was said to be restored is served no more.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

from crc32c import crc32c

from arrayd.link.channel import LinkError
from arrayd.replication import asking
from arrayd.replication.asking import Asked, CopyPiece, Followed, Outcome, Piece, Question
from arrayd.replication.bitmap.format import PAGE_BITS, PAGE_ROW_BYTES, Geometry, encode_part
from arrayd.replication.group_rows import Driver, GroupRow, PairRow, PeerRows
from arrayd.replication.journal.format import MORE, Entry, Kind, Record, chain_next, chain_start
from arrayd.replication.journal.regions import START, Position
from arrayd.replication.stages import Answer, Doors, Stores, Told
from arrayd.replication.statuses import Event, State
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import Volume
from tests.replication.modelled import Machine, ModelFile
from tests.replication.runs import run_of

GROUP = b"a group's number"
REGION = 4096
TIME = 1_700_000_000_000_000_000
RECORDS_MAX = 256
TURNS_MAX = 5000
WAIT_TURNS = 40


def row_of(states: dict[int, State], **fields: Any) -> GroupRow:
    """A row of the S-VOLs' side."""
    pairs = tuple(
        PairRow(number, f"pair{number}", f"s{number}", number, f"410002:p{number}", state)
        for number, state in states.items()
    )
    told: dict[str, Any] = {"epoch": 1, "pace": 15, "driver": Driver.ARRAYS} | fields
    return GroupRow(GROUP, "oradb", 0, "journal", "main", "410001", 20, pairs=pairs, **told)


class FakePrimary:
    """P-VOLs of `size` bytes each, in the row's epoch and generation."""

    def __init__(self, row: GroupRow, size: int) -> None:
        self.row = row
        self.base = {pair.number: bytes(size) for pair in row.pairs}
        """What the P-VOLs had at the begin of the epoch."""
        self.volumes = {number: bytearray(size) for number in self.base}
        self.records: list[Record] = []
        self.chains = [chain_start(row.id, row.epoch)]
        self._prefix: tuple[Position, dict[int, bytearray]] = (START, {})
        self.time = TIME
        self.unsynced = 0
        """Writes at the end that are not served yet."""
        self.acknowledged = START
        self.bitmaps: dict[int, int] = dict.fromkeys(self.base, 0)
        self.joined: set[int] = set()
        self.ended = False
        self.fences = 0
        self.asked: list[Asked] = []
        self.copied_bytes = 0
        self.before_answer: Callable[[Question], Awaitable[None]] | None = None
        """Awaited before a question is carried out: raises what it fails with."""
        self.after_answer: Callable[[Question], Awaitable[None]] | None = None
        """The same between that and the answer's arrival."""
        self.changed: Callable[[Question, bytes], bytes] = lambda _question, answer: answer

    # -- hosts -------------------------------------------------------------------------------------------------------

    @property
    def end(self) -> Position:
        return self.records[-1].entry.end if self.records else START

    def write(self, number: int, offset: int, data: bytes, kind: Kind = Kind.WRITE, extent: int = 0) -> None:
        """What a host writes, in the journal and in the P-VOL."""
        parts = [data] if len(data) < 2048 or kind != Kind.WRITE else [data[:1024], data[1024:]]
        at = offset
        for part in parts:
            length = extent or len(part)
            end, self.time = self.end, self.time + 1_000_000
            entry = Entry(
                0, end.sequence, self.row.epoch, self.time, at, length, end.byte, len(part), crc32c(part), number, kind,
                MORE if part is not parts[-1] else 0,
            )  # fmt: skip
            record = Record(entry, memoryview(part))
            self.records.append(record)
            self.chains.append(chain_next(self.chains[-1], record))
            at += length
            carried_out(record, self.volumes)

    def prefix(self, end: Position) -> dict[int, bytes]:
        """The P-VOLs after the writes before `end`."""
        at, volumes = self._prefix
        if at != end or not volumes:
            if at > end or not volumes:
                at, volumes = START, {number: bytearray(content) for number, content in self.base.items()}
            for record in self.records[at.sequence : end.sequence]:
                carried_out(record, volumes)
            self._prefix = end, volumes
        assert end == (self.records[end.sequence - 1].entry.end if end.sequence else START)
        assert not (end.sequence and self.records[end.sequence - 1].entry.more), "a part of a write"
        return {number: bytes(content) for number, content in volumes.items()}

    # -- questions ---------------------------------------------------------------------------------------------------

    async def ask(self, array: str, question: bytes, expects: int) -> Answer:
        """See `Doors.ask`."""
        assert array == "main"
        told = asking.decode_question(memoryview(question))
        self.asked.append(told.asked)
        if self.before_answer is not None:
            await self.before_answer(told)
        if told.asked is Asked.FOLLOW and told.fields.wait_ms:
            await self._something(told.fields)
        answer = self.changed(told, getattr(self, f"_{told.asked.name.lower()}")(told.fields))
        assert len(answer) <= expects
        if self.after_answer is not None:
            await self.after_answer(told)
        await asyncio.sleep(0)
        return Answer(memoryview(answer))

    async def _something(self, fields: Any) -> None:
        """Until there is something to be served, for a while."""
        for _ in range(WAIT_TURNS):
            if self.ended or len(self.records) - self.unsynced > fields.at.sequence:
                break
            await asyncio.sleep(0)

    def _follow(self, fields: Any) -> bytes:
        at, restored = asking.position_of(fields.at), asking.position_of(fields.restored)
        assert self.end.follows(restored), "restored what there is not"
        self.acknowledged = max(self.acknowledged, restored)
        if fields.epoch != self.row.epoch:
            return asking.refused(Outcome.NOT_NOW)
        if at < self.acknowledged:
            return asking.refused(Outcome.FAILED, "purged already")
        served: list[Record] = []
        whole = length = 0
        for record in self.records[at.sequence : len(self.records) - self.unsynced]:
            length += len(record.data)
            if (length > fields.bytes_max and whole) or len(served) == RECORDS_MAX:
                break
            served.append(record)
            whole = whole if record.entry.more else len(served)
        run, _ = run_of(served[:whole], self.chains[at.sequence])
        behind = self.records[at.sequence + whole :]
        told = Followed(self.end, self.time + 5_000_000, behind[0].entry.time if behind else 0, self.ended)
        return asking.followed(told) + run

    def _copy(self, fields: Any) -> bytes:
        if fields.generation != self.row.generation:
            return asking.refused(Outcome.NOT_NOW)
        pieces, data = [], b""
        for offset, length in ((each.offset, each.length) for each in fields.ranges):
            content = bytes(self.volumes[fields.number][offset : offset + length])
            self.copied_bytes += length
            if not any(content):
                kind = Piece.HOLE if offset % (2 * REGION) else Piece.ZEROS
                pieces.append(CopyPiece(offset, length, kind))
                continue
            half = length // 2 // 512 * 512 or length
            for at, end in ((0, half), (half, length)):
                if end > at:
                    pieces.append(CopyPiece(offset + at, end - at, Piece.DATA))
            data += content
        return asking.copied(self.end, pieces) + data

    def _bitmap(self, fields: Any) -> bytes:
        if fields.generation != self.row.generation:
            return asking.refused(Outcome.NOT_NOW)
        geometry = Geometry(len(self.volumes[fields.number]))
        end = min(fields.begin + 1, geometry.pages)
        bits = self.bitmaps[fields.number] >> fields.begin * PAGE_BITS & ((1 << PAGE_BITS) - 1)
        rows = [(fields.begin, bits.to_bytes(PAGE_ROW_BYTES, "little"))] if bits else []
        part = encode_part(geometry, fields.begin, end, rows)
        return asking.part(end if end < geometry.pages else 0, part)

    def _joined(self, fields: Any) -> bytes:
        self.joined.add(fields.number)
        self.bitmaps[fields.number] = 0
        return asking.done()

    def _fence(self, _fields: Any) -> bytes:
        self.fences += 1
        self.ended = True
        return asking.fenced(self.end)


def carried_out(record: Record, volumes: dict[int, bytearray]) -> None:
    """Does to bytes what a record says."""
    entry, data = record
    content = bytes(data)
    if entry.kind in (Kind.UNMAP, Kind.ZEROS):
        content = bytes(entry.extent)
    elif entry.kind == Kind.PATTERN:
        content = content * (entry.extent // entry.length)
    volumes[entry.volume][entry.offset : entry.offset + entry.extent] = content


async def until(holds: Callable[[], bool]) -> None:
    """Turns of the loop until something holds."""
    for _ in range(TURNS_MAX):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never holds")


async def no_answer(_question: Question) -> None:
    """The link is cut."""
    raise LinkError("no connection", maybe_done=False)


class MemoryStores(Stores):
    """Stores on disks in memory of one machine: making and removing one are calls that it may die in, too."""

    def __init__(self, machine: Machine, refusals: float = 0.0) -> None:
        self.machine = machine
        self.refusals = refusals
        self.files: dict[str, ModelFile] = {}
        self.open_names: set[str] = set()

    async def create(self, name: str, size: int) -> Volume:
        file = ModelFile(self.machine, size, self.refusals)
        self.machine.call(lambda: self.files.__setitem__(name, file))
        return self._opened(name)

    async def open(self, name: str) -> Volume | None:
        return self._opened(name) if name in self.files else None

    def _opened(self, name: str) -> Volume:
        self.open_names.add(name)
        return FileVolume(name, cast(Any, self.files[name]))

    async def close(self, name: str) -> None:
        self.open_names.discard(name)

    async def remove(self, name: str) -> None:
        self.open_names.discard(name)

        def removed() -> None:
            self.files.pop(name, None)

        self.machine.call(removed)


class Site:
    """What outlives the process of the S-VOLs' side: S-VOLs, the journal's volume, and stores."""

    def __init__(
        self, primary: FakePrimary, journal_bytes: int, machine: Machine | None = None, refusals: float = 0.0
    ) -> None:
        self.primary = primary
        self.machine = machine or Machine(1)
        self.s_vols = {
            number: ModelFile(self.machine, len(content), refusals) for number, content in primary.volumes.items()
        }
        self.journal = ModelFile(self.machine, journal_bytes, refusals)
        self.stores = MemoryStores(self.machine, refusals)
        self.events: deque[tuple[Event, str]] = deque()
        self.shown: dict[str, Volume | None] = {}
        self.boot = 1
        self.now: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    def doors(self) -> Doors:
        """Of one life of the process."""
        volumes = {f"s{number}": FileVolume(f"s{number}", cast(Any, file)) for number, file in self.s_vols.items()}
        volumes["journal"] = FileVolume("journal", cast(Any, self.journal))

        async def show(name: str, volume: Volume | None) -> None:
            self.shown[name] = volume

        return Doors(
            "remote", bytes([self.boot]) * 16, lambda: TIME, self.now, self.primary.ask, volumes.__getitem__, show,
            self.stores,
        )  # fmt: skip

    def told(self) -> Told:
        """Events go to `events`."""

        def seen(_rows: PeerRows) -> None:
            raise AssertionError("nobody has met")

        return Told(lambda event, reason: self.events.append((event, reason)), seen)

    @property
    def contents(self) -> dict[int, bytes]:
        """What the S-VOLs have."""
        return {number: bytes(file.content) for number, file in self.s_vols.items()}

    def start_from(self, contents: dict[int, bytes]) -> None:
        """The S-VOLs have this, durably."""
        for number, content in contents.items():
            file = self.s_vols[number]
            file.content[:] = file.durable[:] = content

    def lose_power(self) -> None:
        """Of what is not durable, any blocks are there."""
        self.boot += 1
        for file in (*self.s_vols.values(), self.journal, *self.stores.files.values()):
            file.lose_power(512)
