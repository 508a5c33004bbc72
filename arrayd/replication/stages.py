"""What a group does on this array, by what its row shows: one stage at a time, each a file of its own.

    P-VOLs that run (COPY, PAIR, PFUL)             `journaling.py`   hosts' writes are journaled, the journal is served
    P-VOLs that are suspended, S-VOLs writable     `marking.py`      hosts' writes are marked in bitmaps
    S-VOLs that run (COPY, PAIR, PFUL)             `following.py`    copies, acquires, restores; hosts' writes refused
    S-VOLs that stand, P-VOLs that are fenced      `standing.py`     hosts' writes refused

All pairs of a group are in one stage: what happens to it happens to all of them. A change of stage has four steps, by
whoever has the groups (`room.py`), one change of a group at a time:

1. `old.stop(new row)`: it comes to its end, and what the next one needs is durable. Hosts' writes may wait from then.
2. `new.prepare()`: likewise. If one of these fails, the row stays as it was, and the group's error is told.
3. the new row is committed, unless it is `old.too_late()`.
4. `new.enter()`: hosts see the volumes as this stage has them. It does not fail. Then `old.close()`.

At a start there is no old stage: `new.prepare(found=True)` opens what is there, `new.enter()` follows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from arrayd.buffers import PooledBuffer
from arrayd.link.channel import Call
from arrayd.replication.asking import Outcome, Question, refused
from arrayd.replication.copy_rate import Limit
from arrayd.replication.differences import Differences
from arrayd.replication.group_rows import GroupRow, PeerRows
from arrayd.replication.jobs import Job
from arrayd.replication.journal.recent import Budget
from arrayd.replication.journal.regions import Position
from arrayd.replication.statuses import Event, Refusal
from arrayd.replication.verifying.told import Verifying
from arrayd.volumes.volume import Volume

if TYPE_CHECKING:
    from arrayd.replication.verifying.verifier import Verifier


class Answer:
    """What another array has answered: `view`, which lasts until `release`, or the end of a `with`."""

    __slots__ = ("_buffer", "view")

    def __init__(self, view: memoryview, buffer: PooledBuffer | None = None) -> None:
        self.view = view
        self._buffer = buffer

    def kept(self) -> memoryview:
        """All of it, for as long as anybody has it. It is released."""
        if self._buffer is None:
            return self.view
        with self:
            return memoryview(bytes(self.view))

    def release(self) -> None:
        """It is not used any more; a second call does nothing."""
        if self._buffer is not None:
            self._buffer.release()

    def __enter__(self) -> memoryview:
        return self.view

    def __exit__(self, *_error: object) -> None:
        self.release()


Ask = Callable[[str, bytes, int], Awaitable[Answer]]
"""`await ask(array, question, expects)`: the answer of another array, of `expects` bytes at the most. Raises LinkError.
Cancelled, it leaves the question to itself."""


class Stores(Protocol):
    """Files of pairs beside the tables: bitmaps, before-images. Sparse, and durable before they are there."""

    async def create(self, name: str, size: int) -> Volume:
        """An empty one, in the place of what there was. Raises VolumeError."""

    async def open(self, name: str) -> Volume | None:
        """The one of this name; None if there is none. Raises VolumeError."""

    async def close(self, name: str) -> None:
        """It is used no more, and stays."""

    async def remove(self, name: str) -> None:
        """It is there no more, whether it was open or not. Raises VolumeError."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What stages have of the array."""

    array: str
    boot: bytes
    """16 bytes: which boot of the machine this is. In another one, power was lost in between."""
    clock: Callable[[], int]
    """ns since 1970."""
    now: Callable[[], float]
    """Seconds, monotonic."""
    ask: Ask
    volume: Callable[[str], Volume]
    """A volume of this array by its name, as its file has it."""
    show: Callable[[str, Volume | None], Awaitable[None]]
    """`await show(name, volume)`: hosts see `volume` in the place of the volume `name` at once, the same disk by
    another way; None: the volume itself. What waits in the one they saw goes by it (`Volume.replace`). Returns when
    what that one was handed before has ended, but for what goes by the new one."""
    stores: Stores
    recent: Budget = field(default_factory=Budget)
    """What auxiliary journals keep in memory, all together."""
    copy_limit: Limit = field(default_factory=Limit)
    """How quickly all groups together are copied to this array, at the most."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a stage tells of its group by itself. Both return at once: what follows comes later, with another stage."""

    event: Callable[[Event, str], None]
    """`event(what, reason)`: COPY_END, ERROR, JOURNAL_FULL and so on. Once for what ends the stage."""
    seen: Callable[[PeerRows], None]
    """`seen(rows)`: what the other side shows, whenever it was heard of."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How a group goes on this array, where that is known; positions are of the group's journal on this side."""

    stored: Position | None = None
    """All of the group's writes end here, as far as this side has heard."""
    acquired: Position | None = None
    """The auxiliary journal has all before it, durably."""
    restored: Position | None = None
    """The S-VOLs have all before it, durably, as far as this side has heard."""
    lag_s: float | None = None
    """Age of the oldest write that the S-VOLs have not, as far as this side has heard; 0: none."""
    contact: float | None = None
    """When the other side was last heard of, in seconds since 1970."""
    used_share: float | None = None
    """How full this side's journal is."""
    differing: Mapping[int, int] | None = None
    """Bytes of each pair, by its number, that are marked as differing, or are still to be copied."""
    copying: Job | None = None
    """The copy, in COPY."""
    restoring: Job | None = None
    """What the S-VOLs have not, on its way to them."""
    verifying: Verifying | None = None
    """The verify that runs, or was the last one of this stage."""


class Stage(ABC):
    """One stage of the group of `row`, which is what the row is to be when the stage has been entered."""

    verifier: Verifier | None = None
    """Of S-VOLs that run: compares them with their P-VOLs."""

    def __init__(self, row: GroupRow, doors: Doors, told: Told) -> None:
        self.row = row
        self.after: GroupRow | None = row
        """The row that is shown next, as `stop` was told; where its commit has failed, this one again."""
        self.doors = doors
        self.told = told

    @property
    def fenced(self) -> bool:
        """Whether hosts' writes wait for the sides to change places: see `fencing.py`."""
        return False

    @property
    def unsynced(self) -> Collection[int]:
        """The numbers of P-VOLs that could not be synced when it stopped: see `unsynced.py`."""
        return ()

    @abstractmethod
    async def prepare(self, found: bool = False) -> None:
        """Gets ready, durably; `found`: after a restart, so that what is there goes on. Raises VolumeError,
        JournalError, BitmapError: then it is as if it had not been tried, and may be tried again."""

    @abstractmethod
    async def enter(self) -> None:
        """Hosts see the volumes as this stage has them, and what it does by itself begins."""

    @abstractmethod
    async def stop(self, row: GroupRow | None) -> Refusal | None:
        """Comes to its end, so that `row` may be what is shown next (None: the group ends; the row as it is: the array
        stops). A refusal: it stays in this stage, and goes on. Raises VolumeError."""

    def too_late(self) -> Refusal | None:
        """Looked at between `stop` and the commit: why the row that `stop` was told may not be committed any more."""
        return None

    @abstractmethod
    async def close(self) -> None:
        """Lets go of everything; what the row `after` does not need is removed. The array stops, or it is committed."""

    def changed(self, row: GroupRow) -> None:
        """The row is another one, and the stage the same."""
        self.after = self.row = row

    async def answer(self, question: Question, call: Call) -> None:
        """Answers what the other side asks (`call.answer`), but for MEET; the row is of its generation or not. Does
        not raise."""
        call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} stands still here"))

    def progress(self) -> Progress:
        """How it goes."""
        return Progress()

    async def differences(self, number: int, offset: int, limit: int) -> Differences | None:
        """What is marked of a pair: see `differences.py`. None: the stage marks nothing. Raises VolumeError."""
        return None

    def bitmap_name(self, number: int) -> str:
        """The store of the bitmap of a pair of the group."""
        return self.store_name("bitmap", number)

    def images_name(self, number: int) -> str:
        """The store of the before-images of a pair of the group."""
        return self.store_name("before", number)

    def store_name(self, kind: str, number: int = 0) -> str:
        """The store of this kind of a pair of the group, or of all of it."""
        return f"{self.row.id.hex()}-{number}.{kind}"
