"""The way of hosts' writes to the P-VOLs of a synchronous group (figure 24): to both arrays at once, then the answer.

A write goes to its P-VOL and, with what else hosts have written in this turn of the event loop, to the other array.
Those that overlap are never under way together (`mirrored.py`): so both sides have them in one order. It is answered
when both have it. What the other array does not answer is asked again for MIRROR_SECONDS; then the group stops.

The group stops when a write cannot be mirrored, when a P-VOL refuses one, or when it is told to. From then on no write
is answered here: so no pair of the group goes on alone. What could not be mirrored is `differing`, and is carried out
by the volume that comes next, as is all that waits: the seam is that of `group.py`.

Where both sides may differ after a death of this one, and what a power loss may take from the P-VOLs, is hot in the
activity log (`activity.py`) before it is written to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping

from arrayd.link.channel import LinkError
from arrayd.log import get_logger
from arrayd.replication import asking
from arrayd.replication.activity import Activity
from arrayd.replication.asking import Outcome, Refused
from arrayd.replication.group_rows import Fence, GroupRow
from arrayd.replication.journal import FormatError
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.redo import flush_all
from arrayd.replication.statuses import Event
from arrayd.replication.synchronous import formats
from arrayd.replication.synchronous.formats import BATCH_BYTES, BATCH_WRITES, Carried, Kind
from arrayd.replication.writes import Range, Write
from arrayd.volumes.range_locks import RangeLock
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed

MIRROR_SECONDS = 5.0
"""How long a host's write waits for the other array before the pairs are suspended."""
AGAIN_SECONDS = 0.05
"""Before something that the other array does not do now is asked again."""
ANSWER_BYTES = 4096
BEGUN_BYTES = 16 * 1024
"""Of the answer to BEGIN: how the copy of PAIRS_MAX pairs goes."""

log = get_logger("replication")

Told = Callable[[Event, str], None]


class MirroredWrite(Write):
    """A write on its way to both sides."""

    __slots__ = ("error", "left", "mirrored", "place")

    left: int
    """Sides that have not ended it."""
    error: BaseException | None
    """What the P-VOL has refused it with."""
    mirrored: bool
    """Whether the other side has it."""
    place: RangeLock | None
    """Its range, from when it is taken until it has ended."""

    def let_go(self) -> None:
        """It has ended: what overlaps may begin. Not at once: one that is kept lets go as it is submitted."""
        place, self.place = self.place, None
        if place is not None:
            self.outcome.get_loop().call_soon(place.release)

    def carried(self) -> Carried:
        """As it goes to the other array."""
        kind = Kind.FLUSH if self.kind is None else Kind(self.kind)
        return Carried(self.number, kind, self.durable, self.offset, self.extent, self.data)


class Mirror:
    """That of the group of `row`, whose P-VOLs are `volumes` by number. `life` is this stage's, by which the other side
    knows it. `told(event, reason)` is called once, with ERROR or ERROR_FENCED: the group has stopped."""

    def __init__(
        self, row: GroupRow, pulling: Pulling, volumes: Mapping[int, Volume], activity: Activity, life: int, told: Told
    ) -> None:
        self.row = row
        self.activity = activity
        self.stopped = False
        self.differing: list[Range] = []
        """What this side may have and the other has not, or the other way round."""
        self.copies: bool | None = None
        """Whether the other side still copied when this life began; None: it does not know of it yet."""
        self._volumes = volumes
        self._pulling = pulling
        self.life = life
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[MirroredWrite] = deque()
        """What is not hot yet; as many as commands in flight at the most."""
        self._admitting: asyncio.Task[None] | None = None
        self._turn: list[MirroredWrite] = []
        """What hosts have written in this turn."""
        self._under_way: set[MirroredWrite] = set()
        self._moved: asyncio.Future[None] | None = None
        """Done when a write has ended: somebody waits for it."""
        self._jobs: set[asyncio.Future[None]] = set()
        self._beginning = asyncio.Lock()
        self._lives = 0
        """How often this life was begun with the other side."""

    # -- taken -------------------------------------------------------------------------------------------------------

    def submit(self, write: MirroredWrite) -> None:
        """Takes a write, or a flush, which nothing that is under way overlaps."""
        if self.stopped:
            write.keep(write)
        elif self._waiting or not (write.kind is None or self.activity.takes(write)):
            self._waiting.append(write)
            if self._admitting is None:
                self._admitting = self._loop.create_task(self._admit())
        else:
            self._begin(write)

    async def _admit(self) -> None:
        """Has hot what waits for it."""
        try:
            while self._waiting:
                await self.activity.admit(self._waiting, self.sync)
                while self._waiting and (self._waiting[0].kind is None or self.activity.takes(self._waiting[0])):
                    self._begin(self._waiting.popleft())
        except VolumeError as error:
            self.fail(Event.ERROR, str(error))
        finally:
            self._admitting = None

    def _begin(self, write: MirroredWrite) -> None:
        write.left, write.error, write.mirrored = 2, None, False
        self._under_way.add(write)
        if not self._turn:
            self._loop.call_soon(self._send)
        self._turn.append(write)
        try:
            pending = write.begin(write.volume, write.durable)
        except VolumeError as error:
            self._refused(write, error)
            return
        if pending is None:
            self._ended(write)
        else:
            self._job(pending).add_done_callback(lambda job: self._written(write, job))

    def _job(self, work: Awaitable[None]) -> asyncio.Future[None]:
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    def _written(self, write: MirroredWrite, job: asyncio.Future[None]) -> None:
        error = job.exception()
        if error is None:
            self._ended(write)
        else:
            self._refused(write, error)

    def _refused(self, write: MirroredWrite, error: BaseException) -> None:
        """The other side may have what the P-VOL has not."""
        write.error = error
        self.fail(Event.ERROR, f"volume {write.number} has refused a write: {error}")
        self._ended(write)

    def _ended(self, write: MirroredWrite) -> None:
        """One side has ended it."""
        write.left -= 1
        if write.left:
            return
        self._under_way.discard(write)
        write.let_go()
        if write.error is not None:
            self.differing.append(Range(write.number, write.offset, write.extent))
            write.done(write.error)
        elif write.mirrored:
            write.done()
        else:
            self.differing.append(Range(write.number, write.offset, write.extent))
            write.keep(write)
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    # -- carried to the other array ----------------------------------------------------------------------------------

    def _send(self) -> None:
        turn, self._turn = self._turn, []
        for batch in _batches(turn):
            self._job(self._carry(batch))

    async def _carry(self, batch: list[MirroredWrite]) -> None:
        row = self.row
        question = formats.mirror(row.id, row.generation, self.life, [write.carried() for write in batch])
        try:
            await self._until_done(question)
        except Stopped:
            pass
        except (LinkError, Refused, FormatError) as error:
            self.fail_as(error, "a write is not mirrored")
        else:
            for write in batch:
                write.mirrored = True
        for write in batch:
            self._ended(write)

    async def _until_done(self, question: bytes) -> None:
        """Raises Stopped, or what it fails with for MIRROR_SECONDS; what the other array refuses for good."""
        pulling, now = self._pulling, self._pulling.doors.now
        until = now() + MIRROR_SECONDS
        while True:
            lives = self._lives
            try:
                if not lives:
                    await self._begin_life(lives, until)
                asking.decode_done(await pulling.ask(question, ANSWER_BYTES, max(until - now(), 0.0)))
                return
            except Refused as error:
                if error.outcome is not Outcome.NOT_NOW or now() >= until:
                    raise
            except LinkError:
                if now() >= until:
                    raise
            await pulling.sleep(AGAIN_SECONDS)
            await self._begin_life(lives, until)

    async def begin_life(self, until: float | None = None) -> bool:
        """Has the other side know of this life; whether it still copies. Raises Stopped, and with `until` LinkError,
        Refused, if it is not so by then; FormatError."""
        await self._begin_life(self._lives, until)
        assert self.copies is not None
        return self.copies

    async def _begin_life(self, lives: int, until: float | None) -> None:
        """Once for all who have seen as many lives as now. Whoever waits for another one's attempt does so until his
        own time is over."""
        pulling, now = self._pulling, self._pulling.doors.now
        failed: LinkError | Refused = LinkError(f"no answer from {pulling.peer} to BEGIN", maybe_done=True)
        while lives == self._lives:
            left = MIRROR_SECONDS if until is None else max(until - now(), 0.0)
            try:
                async with asyncio.timeout(None if until is None else left), self._beginning:
                    if lives == self._lives:
                        row = self.row
                        question = formats.begin(row.id, row.generation, self.life)
                        self.copies, _ = formats.decode_begun(await pulling.ask(question, BEGUN_BYTES, left))
                        self._lives += 1
                continue
            except TimeoutError as error:
                raise failed from error
            except (LinkError, Refused) as error:
                failed = error
            if until is not None and now() >= until:
                raise failed
            await pulling.sleep(AGAIN_SECONDS)

    # -- synced ------------------------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """What was begun before the call is ended at both sides, and durable at this one. Raises VolumeError."""
        before = set(self._under_way)
        while before & self._under_way and not self.stopped:
            await self._next_end()
        if self.stopped:
            raise VolumeFailed("the group has stopped: what is under way has not ended")
        await flush_all(self._volumes)

    async def _next_end(self) -> None:
        if self._moved is None or self._moved.done():
            self._moved = self._loop.create_future()
        await asyncio.shield(self._moved)

    # -- stopped -----------------------------------------------------------------------------------------------------

    def fail_as(self, error: Exception, what: str) -> None:
        """The same, with the event that the fence level has for it: whether hosts' writes go on without the other side,
        and with STATUS whether that knows of it."""
        fence = self.row.fence
        fenced = fence is Fence.DATA or (fence is Fence.STATUS and not isinstance(error, Refused))
        self.fail(Event.ERROR_FENCED if fenced else Event.ERROR, f"{what}: {error}")

    def fail(self, event: Event, reason: str) -> None:
        """No write is answered any more, and whoever owns the pairs is told, once."""
        if self.stopped:
            return
        log.error("group stopped", group=self.row.name, why=str(event), reason=reason)
        self._halt()
        self._pulling.stop()
        self._loop.call_soon(self._told, event, reason)

    def _halt(self) -> None:
        self.stopped = True
        waiting, self._waiting = self._waiting, deque()
        for write in waiting:
            write.keep(write)

    async def stop(self) -> None:
        """Takes nothing more, and waits until what is under way has ended on both sides, or never will."""
        self._halt()
        while self._under_way:
            await self._next_end()
        if self._admitting is not None:
            await asyncio.wait((self._admitting,))

    async def close(self) -> None:
        """Waits for what is still at work; nobody waits for the other array any more."""
        self._pulling.stop()
        await self.stop()
        while self._jobs:
            await asyncio.wait(set(self._jobs))


def _batches(turn: list[MirroredWrite]) -> Iterable[list[MirroredWrite]]:
    """In order, each for one MIRROR."""
    batch: list[MirroredWrite] = []
    size = 0
    for write in turn:
        length = len(write.data)
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH_WRITES):
            yield batch
            batch, size = [], 0
        batch.append(write)
        size += length
    if batch:
        yield batch
