"""What comes to S-VOLs: nothing is written where a power loss would not be noticed, and nothing is left to itself."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, cast

import pytest

from arrayd.replication import activity
from arrayd.replication.activity import HOT_BYTES, Activity
from arrayd.replication.journal import FormatError
from arrayd.replication.synchronous.formats import Carried, Kind
from arrayd.replication.synchronous.overtaking import Overtaking
from arrayd.replication.synchronous.received import Received
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeFailed
from tests.replication.following_doors import MemoryStores, until
from tests.replication.modelled import Machine, ModelFile
from tests.replication.synchronous.sides import GROUP

BLOCKS = 4
SIZE = BLOCKS * HOT_BYTES
NOTHING = memoryview(b"")


class SlowFile(ModelFile):
    """Of which all writes wait, until they are let `go`."""

    def __init__(self, machine: Machine, size: int) -> None:
        super().__init__(machine, size, refusals=1.0)
        self.go = asyncio.Event()
        self.go.set()

    def write(self, offset: int, view: memoryview) -> asyncio.Future[None]:
        async def later() -> None:
            await self.go.wait()
            await ModelFile.write(self, offset, view)

        return asyncio.ensure_future(later())


class Parts:
    """S-VOL 0 on a slow disk, and what makes writes to it."""

    def __init__(self) -> None:
        self.machine = Machine(1)
        self.stores = MemoryStores(self.machine)
        self.file = SlowFile(self.machine, SIZE)
        self.volume = FileVolume("v0", cast(Any, self.file))

    async def make(self) -> Parts:
        boot = b"b" * 16
        self.activity = await Activity.open(self.stores, {0: "log"}, {0: SIZE}, GROUP, boot, anew=True, found=False)
        self.received = Received({0: self.volume}, self.activity, Overtaking(), {})
        return self

    @property
    def hot(self) -> set[int]:
        return self.activity.logs[0].hot


def write(block: int, byte: int = 1, *, durable: bool = False, at: int = 0) -> Carried:
    return Carried(0, Kind.WRITE, durable, block * HOT_BYTES + at, 512, memoryview(bytes([byte]) * 512))


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def parts() -> Parts:
    return await Parts().make()


async def test_a_block_stays_hot_until_what_was_begun_in_it_is_durable(parts: Parts) -> None:
    """Else it could be lost in a power loss, answered, and nobody would copy it again."""
    parts.file.go.clear()
    making = asyncio.ensure_future(parts.received.carry_out([write(1)]))
    await until(lambda: 1 in parts.hot)
    await turns()
    cooling = asyncio.ensure_future(parts.activity.cool(parts.received.sync))
    await turns()
    assert 1 in parts.hot
    parts.file.go.set()
    await making
    await cooling
    for block in set(range(BLOCKS)) - parts.hot:
        begin = block * HOT_BYTES
        assert parts.file.durable[begin : begin + 512] == parts.file.content[begin : begin + 512]


async def test_what_cools_down_while_another_is_waited_for_is_hot_again_first(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "HOT_MAX", 1)
    await parts.received.carry_out([write(1)])
    found = []

    def begun(number: int, offset: int, extent: int) -> None:
        found.append(offset // HOT_BYTES in parts.hot)

    monkeypatch.setattr(parts.received._overtaking, "wrote", begun)
    await parts.received.carry_out([write(1), write(2), write(3), write(0)])
    assert found == [True] * 4


async def test_many_that_need_more_than_may_be_hot_all_come_through(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "HOT_MAX", 1)
    batches = [[write((seed + at) % BLOCKS, 1 + seed, at=512 * seed) for at in range(BLOCKS)] for seed in range(6)]
    async with asyncio.timeout(5):
        await asyncio.gather(*(parts.received.carry_out(batch) for batch in batches))
    for seed in range(6):
        for block in range(BLOCKS):
            begin = block * HOT_BYTES + 512 * seed
            assert parts.file.content[begin : begin + 512] == bytes([1 + seed]) * 512


async def test_what_was_begun_has_ended_when_one_is_refused(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts.file.go.clear()
    calls = 0
    original = FileVolume.write

    def refuses(volume: FileVolume, offset: int, view: memoryview, durable: bool = False) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise VolumeFailed("gone")
        return original(volume, offset, view, durable)

    monkeypatch.setattr(FileVolume, "write", refuses)
    making = asyncio.ensure_future(parts.received.carry_out([write(0), write(0, at=512), write(0, at=1024)]))
    await until(lambda: calls == 3)
    await turns()
    assert not making.done()
    parts.file.fails = VolumeFailed("gone, too")
    parts.file.go.set()
    with pytest.raises(VolumeFailed, match="gone"):
        await making
    gc.collect()
    assert not [record for record in caplog.records if "never retrieved" in record.message]


async def test_what_came_is_waited_for(parts: Parts) -> None:
    parts.file.go.clear()
    making = asyncio.ensure_future(parts.received.carry_out([write(0)]))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(parts.received.carried_out())
    await turns()
    assert not waiting.done()
    later = asyncio.ensure_future(parts.received.carry_out([write(0, at=512)]))
    parts.file.go.set()
    await waiting
    assert making.done() or parts.file.content[:512] == b"\1" * 512
    await asyncio.gather(making, later)
    await parts.received.carried_out()


@pytest.mark.parametrize("kind", [Kind.UNMAP, Kind.ZEROS])
async def test_zeros_and_holes_are_made(parts: Parts, kind: Kind) -> None:
    await parts.received.carry_out([write(0)])
    await parts.received.carry_out([Carried(0, kind, False, 0, 512, NOTHING)])
    assert parts.file.content[:512] == bytes(512)


async def test_durable_writes_and_flushes_are_so(parts: Parts) -> None:
    await parts.received.carry_out([write(0, 7, durable=True)])
    assert parts.file.durable[:512] == b"\7" * 512
    await parts.received.carry_out([write(1, 8)])
    assert parts.file.durable[HOT_BYTES : HOT_BYTES + 512] == bytes(512)
    await parts.received.carry_out([Carried(0, Kind.FLUSH, False, 0, 0, NOTHING)])
    assert parts.file.durable[HOT_BYTES : HOT_BYTES + 512] == b"\x08" * 512


@pytest.mark.parametrize(
    "strange",
    [
        Carried(7, Kind.WRITE, False, 0, 512, memoryview(bytes(512))),
        Carried(0, Kind.WRITE, False, 100, 512, memoryview(bytes(512))),
        Carried(0, Kind.UNMAP, False, 0, 100, NOTHING),
        Carried(0, Kind.UNMAP, False, SIZE - 512, 1024, NOTHING),
        Carried(0, Kind.ZEROS, False, 1 << 63, 512, NOTHING),
    ],
)
async def test_of_what_is_not_in_an_s_vol_nothing_is_done(parts: Parts, strange: Carried) -> None:
    with pytest.raises(FormatError):
        await parts.received.carry_out([write(0), strange])
    assert not parts.file.calls
