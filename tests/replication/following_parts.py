"""The stage of S-VOLs that run, one life after another on the same disks, for tests of what it does and tells."""

from dataclasses import replace

from arrayd.replication.following import Following
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.statuses import State
from tests.replication.following_doors import FakePrimary, Site, row_of, until

SIZE = 64 * 4096
NUMBERS = (0, 3)


class Parts:
    def __init__(self, state: State = State.S_PAIR, **fields: object) -> None:
        self.row = row_of(dict.fromkeys(NUMBERS, state), **fields)
        self.primary = FakePrimary(self.row, SIZE)
        if state is State.S_COPY:
            for number in NUMBERS:
                self.primary.volumes[number][:] = bytes([65 + number]) * SIZE
        self.site = Site(self.primary, 1 << 20)
        self.now = 0.0
        self.site.now = lambda: self.now
        self.stages: list[Following] = []

    async def prepared(self, found: bool = False) -> Following:
        self.stage = Following(self.row, self.site.doors(), self.site.told())
        self.stages.append(self.stage)
        await self.stage.prepare(found)
        return self.stage

    async def entered(self, found: bool = False) -> Following:
        stage = await self.prepared(found)
        await stage.enter()
        return stage

    def next(self, state: State) -> GroupRow:
        return replace(self.row, pairs=tuple(replace(pair, state=state) for pair in self.row.pairs))

    def writes(self, count: int = 5) -> None:
        for number in range(count):
            self.primary.write(NUMBERS[number % 2], number % 60 * 4096, bytes([97 + number % 20]) * 1024)

    async def alike(self) -> None:
        await until(lambda: self.site.contents == self.primary.volumes)

    async def close(self) -> None:
        for stage in self.stages:
            await stage.stop(self.row)
            await stage.close()
