"""Verifies of a group, by the side with the S-VOLs: one at a time, as long as its stage lasts. A restart forgets it.

First what the journals of both sides have on their disks is looked through, then all parts of all pairs are compared,
many at a time: each may have to wait until what hosts have written before is restored, and they wait together. What is
to be mended is so part by part, and compared again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial

from arrayd.link.channel import LinkError
from arrayd.log import get_logger
from arrayd.replication import asking
from arrayd.replication.asking import Outcome as Answered
from arrayd.replication.asking import Range, Refused
from arrayd.replication.copy_rate import Limit
from arrayd.replication.group_rows import PACE_MAX
from arrayd.replication.jobs import Job, Meter
from arrayd.replication.journal import FormatError, Position
from arrayd.replication.journal.regions import START
from arrayd.replication.pulling import Pauses, Pulling, Stopped
from arrayd.replication.stages import Stage
from arrayd.replication.statuses import Refusal, Status
from arrayd.replication.sums import SUM_BYTES_MIN, SUMS_MAX
from arrayd.replication.verifying import formats
from arrayd.replication.verifying.comparing import ANSWER_SECONDS, Comparing, Part
from arrayd.replication.verifying.formats import MEND_BYTES_MAX, Checked, Leads, Mending
from arrayd.replication.verifying.told import Findings, Found, Outcome, Verifying
from arrayd.volumes.volume import Volume, VolumeError, finished

PART_BYTES = SUM_BYTES_MIN * SUMS_MAX
"""Of a pair, that is compared at once."""
PARTS_MAX = 32
"""Of all pairs, that are compared beside one another."""
PACE_BYTES = 32 * 1024 * 1024
"""So much is compared a second for each pace, on each side; at the fastest pace there is no limit."""
MENDS_MAX = 5
"""How often a part is mended that still differs then."""
FAILURES_MAX = 10
"""In a row that the other side could not carry out what it was asked, after which the verify fails."""
WAIT_SECONDS_MAX = 1.0
"""How often it is looked whether the pace is another one."""

log = get_logger("replication")

RUNS = Refusal("a verify runs already: pair-verify-stop ends it")
COPIES = Refusal("the pairs are COPY: pairevtwait -s pair first")


class Verify:
    """One verify of the group of `stage`: of all its `volumes`, or of one `pair`. `leads`: what differs is mended."""

    def __init__(
        self,
        stage: Stage,
        volumes: Mapping[int, Volume],
        comparing: Comparing,
        pulling: Pulling,
        pair: int | None,
        leads: Leads | None,
    ) -> None:
        self.id = stage.doors.clock() // 1000
        self.begun = stage.doors.clock() / 1e9
        self.pair = pair
        self.outcome = Outcome.RUNNING
        self.trouble = ""
        self._stage = stage
        self._comparing = comparing
        self._pulling = pulling
        self._leads = leads
        self._findings = Findings()
        self._volumes = {number: volume for number, volume in volumes.items() if pair in (None, number)}
        self._left = sum(volume.size for volume in self._volumes.values())
        self._meter = Meter(stage.doors.now())
        self._limit = Limit()
        self._parts = self._all_parts()
        self._moved = [pulling.event() for _ in range(PARTS_MAX)]
        self._failures = 0
        self._why = ""
        """It was stopped."""
        self._task: asyncio.Task[None] | None = None

    def _all_parts(self) -> Iterator[Part]:
        for number, volume in sorted(self._volumes.items()):
            for offset in range(0, volume.size, PART_BYTES):
                yield Part(number, volume, offset, min(PART_BYTES, volume.size - offset))

    # -- runs --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """It runs from now on, until it has ended by itself or is told to."""
        self._task = asyncio.ensure_future(self._run())

    def moved(self) -> None:
        """Something was restored."""
        for event in self._moved:
            event.set()

    async def end(self, why: str) -> None:
        """It runs no more; `why` it was stopped, if it has not ended before."""
        if self._task is None or self._task.done():
            return
        self._why = why
        self._pulling.stop()
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        name = self._stage.row.name
        try:
            await self._check_journals()
            await self._compare_all()
            self.outcome, self.trouble = self._findings.outcome, ""
        except Stopped:
            self.outcome, self.trouble = Outcome.STOPPED, self._why
        except (VolumeError, FormatError, Refused) as error:
            self.outcome, self.trouble = Outcome.FAILED, str(error)
        except Exception as error:
            self.outcome, self.trouble = Outcome.FAILED, f"a fault of the program: {error!r}"
            log.error("a verify has failed", group=name, exc_info=error)
        finally:
            self._pulling.stop()
        told = {"differing": self._findings.differing, "mended": self._findings.mended, "reason": self.trouble}
        log.info("verify ended", group=name, outcome=self.outcome.value, **told)

    async def _compare_all(self) -> None:
        workers = [asyncio.ensure_future(self._work(moved)) for moved in self._moved]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            self._pulling.stop()
            raise
        finally:
            await asyncio.wait(workers)

    async def _work(self, moved: asyncio.Event) -> None:
        pauses = Pauses(self._pulling, f"verify of group {self._stage.row.name}")
        for part in self._parts:
            await self._until_allowed(part.length)
            while True:
                try:
                    await self._look_at(part, moved)
                    break
                except (LinkError, Refused) as error:
                    self._failed(error)
                    await pauses.failed(error)
            pauses.went_well()
            self.trouble, self._failures = "", 0
            self._left -= part.length
            self._meter.add(self._stage.doors.now(), part.length)

    def _failed(self, error: LinkError | Refused) -> None:
        """Raises Refused if it is for good."""
        self.trouble = str(error)
        if isinstance(error, Refused) and error.outcome is not Answered.NOT_NOW:
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                raise error

    async def _until_allowed(self, count: int) -> None:
        now, limit = self._stage.doors.now, self._limit
        while True:
            pace = self._stage.row.pace
            limit.change(None if pace == PACE_MAX else pace * PACE_BYTES)
            seconds = limit.wait(now())
            if not seconds:
                break
            await self._pulling.sleep(min(seconds, WAIT_SECONDS_MAX))
        limit.spend(now(), count)
        self._pulling.check()

    # -- journals ----------------------------------------------------------------------------------------------------

    async def _check_journals(self) -> None:
        checking, row = self._comparing.checking, self._stage.row
        if checking is None:
            return
        await self._check(row.peer, self._ask_check)
        await self._check(self._stage.doors.array, checking.part)

    async def _check(self, array: str, part: object) -> None:
        assert callable(part)
        pauses = Pauses(self._pulling, f"verify of group {self._stage.row.name}")
        at, end = START, None
        while end is None or at < end:
            self._pulling.check()
            try:
                told: Checked = await part(at)
            except (LinkError, Refused) as error:
                self._failed(error)
                await pauses.failed(error)
                continue
            self.trouble, self._failures = "", 0
            at, end = told.at, end or told.end
            if told.damage:
                self._findings.damaged(f"{array}: {told.damage}")
                return
            await asyncio.sleep(0)

    async def _ask_check(self, at: Position) -> Checked:
        row = self._stage.row
        question = formats.check(row.id, row.generation, at)
        return formats.decode_checked(await self._pulling.ask(question, asking.ANSWER_BYTES_MAX, ANSWER_SECONDS))

    # -- compared, and mended ----------------------------------------------------------------------------------------

    async def _look_at(self, part: Part, moved: asyncio.Event) -> None:
        found = await self._comparing.compare(part, moved)
        if not found:
            return
        if not self._findings.found:
            log.warning("a pair differs", group=self._stage.row.name, pair=part.number, first=tuple(found[0]))
        left = await self._mend(part, moved) if self._leads is not None else found
        self._findings.add(_told(part.number, found, left))

    async def _mend(self, part: Part, moved: asyncio.Event) -> list[Range]:
        """What of the part still differs when it was mended."""
        left: list[Range] = []
        for turn in range(MENDS_MAX + 1):
            then = partial(self._mend_ranges, part) if turn < MENDS_MAX else None
            left = await self._comparing.compare(part, moved, then)
            if not left:
                break
        return left

    async def _mend_ranges(self, part: Part, ranges: list[Range], at: Position) -> None:
        assert self._leads is not None
        row, sends = self._stage.row, self._comparing.sends and self._leads is Leads.S_VOLS
        for offset, length in cut(ranges, MEND_BYTES_MAX):
            data = memoryview(bytearray(length if sends else 0))
            if sends:
                await finished(part.volume.read(offset, data))
            wanted = Mending(part.number, offset, length, self._leads, at, bytes(data))
            question = formats.mend(row.id, row.generation, wanted)
            asking.decode_done(await self._pulling.ask(question, asking.ANSWER_BYTES_MAX, ANSWER_SECONDS))

    # -- told --------------------------------------------------------------------------------------------------------

    def told(self) -> Verifying:
        """How it goes."""
        runs = self.outcome is Outcome.RUNNING
        rate = self._meter.rate(self._stage.doors.now()) if runs and not self.trouble else None
        job = Job(self._meter.done, self._left, rate)
        return Verifying(self.id, self.outcome, self.begun, self.pair, job, self._findings, self.trouble)


class Verifier:
    """Of a stage with S-VOLs: the verify that runs, or was the last one."""

    def __init__(self, stage: Stage, volumes: Mapping[int, Volume], comparing: Comparing, pulling: Pulling) -> None:
        self._stage = stage
        self._volumes = volumes
        self._comparing = comparing
        self._pulling = pulling
        self._last: Verify | None = None

    def begin(self, pair: int | None = None, leads: Leads | None = None) -> Verifying | Refusal:
        """Begins one, or says why not."""
        if any(pair.state.status is Status.COPY for pair in self._stage.row.pairs):
            return COPIES
        if self._last is not None and self._last.outcome is Outcome.RUNNING:
            return RUNS
        self._pulling.resume()
        self._last = verify = Verify(self._stage, self._volumes, self._comparing, self._pulling, pair, leads)
        verify.start()
        return verify.told()

    def told(self) -> Verifying | None:
        """How the last one goes, or has ended; None: there was none."""
        return None if self._last is None else self._last.told()

    def moved(self) -> None:
        """Something was restored."""
        if self._last is not None and self._last.outcome is Outcome.RUNNING:
            self._last.moved()

    async def end(self, why: str = "the pairs were changed") -> None:
        """None runs any more."""
        if self._last is not None:
            await self._last.end(why)


def _told(number: int, found: list[Range], left: list[Range]) -> list[Found]:
    """What was found, and what of it is mended; what differs besides now was found, too."""
    pieces = {at: True for each in found for at in range(each.offset, sum(each), SUM_BYTES_MIN)}
    pieces |= {at: False for each in left for at in range(each.offset, sum(each), SUM_BYTES_MIN)}
    ends = [sum(each) for each in (*found, *left)]
    return [Found(number, at, min(SUM_BYTES_MIN, max(ends) - at), mended) for at, mended in sorted(pieces.items())]


def cut(ranges: list[Range], most: int) -> Iterator[Range]:
    """The same in ranges of so many bytes at the most."""
    for offset, length in ranges:
        for at in range(offset, offset + length, most):
            yield Range(at, min(most, offset + length - at))
