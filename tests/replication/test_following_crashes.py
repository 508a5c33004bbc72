"""S-VOLs through many lives of their side: killed, and without power, in any call of any volume or store, while hosts
write to the P-VOLs and the link is cut and slow.

Whatever happens: while the row shows PAIR, the S-VOLs are durably the first N of the group's writes, N is restoration-
completed, and no less than the other side was told. In COPY before-images lead back to where it began. Where S-VOLs and
P-VOLs differ is marked, or not acknowledged. And in the end they are alike.
"""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.link.channel import LinkError
from arrayd.replication import acquisition, before_images, copying, pulling, restoration
from arrayd.replication.asking import Asked, Question
from arrayd.replication.bitmap import Bitmap
from arrayd.replication.following import Following
from arrayd.replication.journal import Kind
from arrayd.replication.pair_stores import whole_bitmap
from arrayd.replication.statuses import Event, State
from tests.lab.search import examples
from tests.replication.following_doors import REGION, FakePrimary, Site, row_of
from tests.replication.modelled import Crash, Machine

REGIONS = 9
SIZE = REGIONS * REGION - 512
JOURNAL_BYTES = 26 * 4096
TURNS_MAX = 6000
NUMBERS = (0, 3)

Step = tuple[str, int, int]


@pytest.fixture(autouse=True, scope="module")
def small_and_quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(before_images, "BLOCK_BYTES", 2 * REGION)
        patch.setattr(before_images, "STEP_BLOCKS", 2)
        patch.setattr(copying, "COPY_BYTES", 2 * REGION)
        patch.setattr(copying, "SAVE_SECONDS", 0.0)
        patch.setattr(restoration, "BATCH_RECORDS", 6)
        patch.setattr(acquisition, "RUN_BYTES_MAX", 4 * REGION)
        patch.setattr(acquisition, "ENDED_SECONDS", 0.0)
        patch.setattr(acquisition, "GATHER_SECONDS", 0.0)
        patch.setattr(pulling, "PAUSE_SECONDS", 0.00001)
        patch.setattr(pulling, "PAUSE_SECONDS_MAX", 0.00001)
        yield


class Lives:
    """One group's S-VOLs. `before`: they were consistent before the copy, and this is a resync; else what they have
    is nothing that anybody wants."""

    def __init__(self, seed: int, refusals: float, before: bool) -> None:
        row = row_of(dict.fromkeys(NUMBERS, State.S_COPY), consistent=before)
        self.primary = FakePrimary(row, SIZE)
        self.row, self.before = row, before
        self.site = Site(self.primary, JOURNAL_BYTES, Machine(seed), refusals)
        self.number = 0
        self.begun = False
        self.cuts = 0
        self.start = self.site.contents
        self.primary.before_answer = self.on_the_way
        self.primary.after_answer = self.on_the_way_back

    async def make(self) -> None:
        """What the sides have before. In a resync they differ in what the other side's bitmap has, and in what this
        one's has."""
        primary, chance = self.primary, self.site.machine.chance
        for number in NUMBERS:
            primary.volumes[number][:] = chance.randbytes(SIZE)
            primary.volumes[number][5 * REGION : 7 * REGION] = bytes(2 * REGION)
        s_vols = {number: bytearray(content) for number, content in primary.volumes.items()}
        for number in NUMBERS:
            if not self.before:
                s_vols[number][:] = chance.randbytes(SIZE)
                continue
            differing = [chance.randrange(REGIONS) for _ in range(6)]
            for region in differing:
                end = min((region + 1) * REGION, SIZE)
                s_vols[number][region * REGION : end] = chance.randbytes(end - region * REGION)
            primary.bitmaps[number] = sum(1 << region for region in set(differing[:3]))
            bitmap = await self.bitmap(number)
            for region in differing[3:]:
                await bitmap.mark(region * REGION, 512)
        primary.base = {number: bytes(content) for number, content in primary.volumes.items()}
        self.start = {number: bytes(content) for number, content in s_vols.items()}
        self.site.start_from(self.start)

    async def bitmap(self, number: int) -> Bitmap:
        doors, name = self.site.doors(), Following(self.row, self.site.doors(), self.site.told()).bitmap_name(number)
        return await whole_bitmap(doors, name, SIZE, self.row.id)

    async def on_the_way(self, question: Question) -> None:
        if self.cuts:
            self.cuts -= 1
            raise LinkError("cut", maybe_done=True)
        for _ in range(self.site.machine.chance.randrange(4)):
            await asyncio.sleep(0)

    async def on_the_way_back(self, question: Question) -> None:
        await self.on_the_way(question)
        if question.asked is Asked.COPY:
            # What is copied may be on its way for long: it is older than what comes in the meantime.
            for _ in range(self.site.machine.chance.choice((0, 3, 40, 200))):
                await asyncio.sleep(0)

    def write(self, number: int, more: int) -> None:
        self.number += 1
        volume, at = NUMBERS[number % 2], number // 2 % (REGIONS * 8 - 8) * 512
        kind = (Kind.WRITE, Kind.WRITE, Kind.WRITE, Kind.UNMAP, Kind.ZEROS, Kind.PATTERN)[more % 6]
        extent = 512 * (1 + more % 7)
        data = self.number.to_bytes(4, "big") * (128 if kind == Kind.PATTERN else extent // 4)
        self.primary.write(volume, at, b"" if kind in (Kind.UNMAP, Kind.ZEROS) else data, kind, _extent(kind, extent))

    # -- what must hold ----------------------------------------------------------------------------------------------

    @property
    def paired(self) -> bool:
        return State.S_PAIR in self.row.states.values()

    def check(self, stage: Following) -> None:
        """At any moment."""
        assert stage.journal is not None
        regions = stage.journal.regions
        assert regions.oldest.follows(self.primary.acknowledged), "acknowledged what was not restored"
        if self.paired and regions.oldest == regions.to_be_restored:
            expected = self.primary.prefix(regions.oldest)
            assert self.site.contents == expected
            for number, file in self.site.s_vols.items():
                assert file.durable == expected[number], "not durable"

    async def check_marked(self) -> None:
        """Where they differ the next resync copies, or the other side knows that it is not acknowledged."""
        unknown = {
            (record.entry.volume, region)
            for record in self.primary.records[self.primary.acknowledged.sequence :]
            for region in _regions(record.entry.offset, record.entry.extent)
        }
        for number, content in self.site.contents.items():
            bitmap = await self.bitmap(number)
            marked = {region for offset, length in bitmap.ranges() for region in _regions(offset, length)}
            for region in range(REGIONS):
                at = slice(region * REGION, (region + 1) * REGION)
                if content[at] != bytes(self.primary.volumes[number][at]):
                    known = region in marked or self.primary.bitmaps[number] >> region & 1
                    assert known or (number, region) in unknown, f"region {region} of {number}"

    def check_events(self, stage: Following) -> None:
        while self.site.events:
            event, reason = self.site.events.popleft()
            assert event is Event.COPY_END, reason
            pairs = tuple(replace(pair, state=State.S_PAIR) for pair in self.row.pairs)
            self.row = replace(self.row, pairs=pairs, consistent=True)
            stage.changed(self.row)

    # -- lives -------------------------------------------------------------------------------------------------------

    async def live(self, steps: list[Step], fuse: int | None, end: str) -> None:
        unforeseen: list[BaseException] = []
        machine = self.site.machine

        def failed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if not machine.dead and context.get("exception") is not None:
                unforeseen.append(context["exception"])

        asyncio.get_running_loop().set_exception_handler(failed)
        machine.dead, machine.fuse = False, fuse
        self.site.events.clear()
        with suppress(Crash):
            await self._live(steps, end)
        assert not unforeseen, unforeseen
        machine.dead = True

    async def _live(self, steps: list[Step], end: str) -> None:
        stage = Following(self.row, self.site.doors(), self.site.told())
        await stage.prepare(found=self.begun)
        self.begun = True
        self.check(stage)
        assert stage.journal is not None
        assert stage.journal.regions.oldest == stage.journal.regions.to_be_restored, "a restore was not done again"
        await stage.enter()
        for what, number, more in steps:
            if what == "write":
                for each in range(1 + more % 4):
                    self.write(number + 7 * each, more + each)
            elif what == "unsynced":
                self.primary.unsynced = min(number % 9, len(self.primary.records))
            elif what == "cut":
                self.cuts = number % 4
            for _ in range(1 + number % 40):
                await self.turn(stage)
        self.primary.unsynced = self.cuts = 0
        if end == "alike":
            await self.alike(stage)
        elif end == "back" and self.row.consistent:
            await self.taken_over(stage)
        elif end == "suspended":
            await self.suspended(stage)

    async def turn(self, stage: Following) -> None:
        if self.site.machine.dead:
            raise Crash
        await asyncio.sleep(0)
        if self.site.machine.dead:
            raise Crash
        self.check_events(stage)
        self.check(stage)

    async def alike(self, stage: Following) -> None:
        for _ in range(TURNS_MAX):
            await self.turn(stage)
            if self.paired and stage.position == self.primary.end:
                break
        else:
            raise AssertionError(f"stuck: {stage.progress()}")
        assert self.site.contents == self.primary.volumes
        self.primary.ended = True
        split = replace(self.row, pairs=tuple(replace(pair, state=State.S_SSUS) for pair in self.row.pairs))
        assert await stage.stop(split) is None
        await stage.close()
        assert self.site.stores.open_names == set()
        assert {name.rpartition(".")[2] for name in self.site.stores.files} == {"bitmap"}

    async def taken_over(self, stage: Following) -> None:
        """In the middle of the copy: the S-VOLs are what they were when it began."""
        row = replace(self.row, pairs=tuple(replace(pair, state=State.S_SSWS) for pair in self.row.pairs))
        was_paired = self.paired
        assert await stage.stop(row) is None
        if was_paired:
            assert stage.position is not None
            assert self.site.contents == self.primary.prefix(stage.position)
        else:
            assert stage.position is None
            assert self.site.contents == self.start
        for number, file in self.site.s_vols.items():
            assert file.durable == self.site.contents[number]
        await self.check_marked()

    async def suspended(self, stage: Following) -> None:
        row = replace(self.row, pairs=tuple(replace(pair, state=State.S_PSUE) for pair in self.row.pairs))
        assert await stage.stop(row) is None
        self.check(stage)
        await self.check_marked()


def _extent(kind: Kind, extent: int) -> int:
    return 0 if kind == Kind.WRITE else extent


def _regions(offset: int, length: int) -> range:
    return range(offset // REGION, (offset + length - 1) // REGION + 1)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("write",) * 5 + ("turn", "turn", "unsynced", "cut")), st.integers(0, 200), st.integers(0, 200)
    ),
    min_size=1,
    max_size=8,
)
LIVES = st.lists(
    st.tuples(
        STEPS,
        st.one_of(st.integers(0, 30), st.integers(0, 150), st.integers(0, 500)),
        st.sampled_from(("none", "none", "back", "suspended")),
        st.sampled_from(("kill", "power")),
    ),
    max_size=4,
)
"""Steps, the call that it dies in, how it is stopped if it lives for so long (the row is not committed then), and what
it dies of."""


@settings(max_examples=examples(20), deadline=None)
@given(
    LIVES,
    STEPS,
    st.integers(0, 1 << 30),
    st.sampled_from((0.0, 0.0, 0.3)),
    st.booleans(),
    st.sampled_from(("alike", "alike", "back", "suspended")),
)
def test_s_vols_are_a_prefix_or_lead_back(
    lives: list[tuple[list[Step], int, str, str]], last: list[Step], seed: int, refusals: float, before: bool, end: str
) -> None:
    tested = Lives(seed, refusals, before)
    asyncio.run(tested.make())
    for steps, fuse, stopped, death in lives:
        asyncio.run(tested.live(steps, fuse, stopped))
        if death == "power":
            tested.site.lose_power()
    asyncio.run(tested.live(last, None, end))


@pytest.mark.parametrize("what", ["copy", "takeover"])
def test_killed_at_every_call(what: str) -> None:
    """Of a copy from its begin to its end with what is acquired and restored meanwhile, and of a takeover in it: one
    after another, by a kill and by a power loss in turn. Then it is taken over (again), suspended, or goes on.
    Of a copy every fifth call, of a takeover every other one, to be quick: the test above has the others."""
    steps = [("write", 20, 3), ("write", 61, 2), ("write", 93, 7)]
    for turn, fuse in enumerate(itertools.count(step=5 if what == "copy" else 2)):
        tested = Lives(turn // 3, 0.1, before=True)
        asyncio.run(tested.make())
        if what == "takeover":
            # The calls before are those of the copy.
            asyncio.run(tested.live(steps, None, "none"))
            assert not tested.paired
        asyncio.run(tested.live([] if what == "takeover" else [*steps, ("turn", 39, 0)] * 3, fuse, "back"))
        if tested.site.machine.fuse is not None and tested.site.machine.fuse >= 0:
            break
        if turn % 2:
            tested.site.lose_power()
        asyncio.run(tested.live([], None, ("back", "suspended", "alike")[turn % 3]))
    assert fuse > 50
