"""Another volume in the place of one, the same disk by another way: hosts go on, and no write goes astray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from arrayd.buffers import PooledBuffer
from arrayd.scsi import provisioning, sanitize
from arrayd.scsi.fast_path import READ_10, WRITE_10
from arrayd.scsi.lun import encode_lun
from arrayd.scsi.provisioning import UNMAP_RANGES_AT_ONCE
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.steps import SCRATCH_BYTES, STEP_BYTES
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Status
from tests.scsi.initiator import Initiator, disk_unit, make_target, turns
from tests.scsi.memory_volume import MemoryVolume
from tests.scsi.test_copy import copy_cdb, cscd, parameter_list, segment
from tests.scsi.test_fast_path import cdb_of, go

READ = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
WRITE = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0))
MODE_SENSE = bytes((0x1A, 0, 0x08, 0, 255, 0))
LUN = encode_lun(0)
WRITE_PROTECT, WCE = 0x80, 0x04
SIZE = 1 << 20


class NotedVolume(MemoryVolume):
    """Notes who writes by it; writes wait for `gate`, if it is set. Two of one disk share what it holds."""

    def __init__(self, disk: MemoryVolume | None = None) -> None:
        super().__init__(size=SIZE)
        if disk is not None:
            self.data, self.mapped = disk.data, disk.mapped
        self.noted: list[tuple[str, int, int]] = []
        self.gate: asyncio.Event | None = None
        self.locked = 0
        self.write_now = lambda offset, view: False

    def _note(self, kind: str, offset: int, length: int, answer: Awaitable[None] | None) -> Awaitable[None] | None:
        self.noted.append((kind, offset, length))
        return answer if self.gate is None else self._wait(self.gate)

    async def _wait(self, gate: asyncio.Event) -> None:
        await gate.wait()

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        return self._note("write", offset, len(view), super().write(offset, view, durable))

    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        return self._note("unmap", offset, length, super().unmap(offset, length))

    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        return self._note("zeros", offset, length, super().write_zeros(offset, length))

    @asynccontextmanager
    async def lock(self, _offset: int, _length: int) -> AsyncIterator[None]:
        self.locked += 1
        yield


class Lab:
    """LUN 0, the volume that stands there, and the one that is to."""

    def __init__(self) -> None:
        self.old = NotedVolume()
        self.new = NotedVolume(self.old)
        self.target: ScsiTarget = make_target({0: self.old})
        self.host = Initiator(self.target)
        self.old.gate = asyncio.Event()

    async def midway(self, under_way: int = 1) -> None:
        """The first step, or so many that are taken together, is under way when the other takes the place; it goes on
        then."""
        await turns()
        assert len(self.old.noted) == under_way
        self.target.replace(self.old, self.new)
        assert self.old.gate is not None
        self.old.gate.set()


@pytest.fixture
async def lab() -> Lab:
    return Lab()


async def test_hosts_are_not_told_and_go_on_by_the_new_one() -> None:
    old, new, other = MemoryVolume(), MemoryVolume(), MemoryVolume("410001:other")
    new.data[:3] = b"new"
    new.write_cache = False
    target = make_target({0: old, 1: other})
    host = Initiator(target)
    assert (await host.good(MODE_SENSE))[-20 + 2] & WCE
    before = dict(host.nexus.fast[LUN])
    target.replace(old, new)
    assert host.nexus.fast[LUN].keys() == before.keys()
    assert host.nexus.fast[LUN][READ_10] is not before[READ_10]
    view = memoryview(bytearray(512))
    assert go(host.nexus.fast[LUN], cdb_of(READ_10, 0, 1), view)
    assert bytes(view[:3]) == b"new"
    assert (await host.good(READ))[:3] == b"new"
    assert not (await host.good(MODE_SENSE))[-20 + 2] & WCE
    assert await host.attention() is None
    assert disk_unit(target, 1).volume is other
    target.set_units({0: new, 1: other})
    assert await host.attention() is None


async def test_hosts_see_whether_it_may_be_written() -> None:
    old, new = MemoryVolume(), MemoryVolume()
    new.read_only = True
    target = make_target({0: old})
    host = Initiator(target)
    assert WRITE_10 in host.nexus.fast[LUN]
    target.replace(old, new)
    assert WRITE_10 not in host.nexus.fast[LUN]
    assert (await host.good(MODE_SENSE))[2] & WRITE_PROTECT
    assert (await host.send(WRITE, bytes(512))).why == (Key.DATA_PROTECT, Asc.WRITE_PROTECTED)
    target.replace(new, old)
    assert WRITE_10 in host.nexus.fast[LUN]
    assert not (await host.good(MODE_SENSE))[2] & WRITE_PROTECT
    await host.good(WRITE, bytes(512))


async def test_what_was_handed_over_before_is_seen_through(lab: Lab) -> None:
    _, answer = lab.host.start(WRITE, b"\x01" * 512)
    await lab.midway()
    await lab.host.good(WRITE, b"\x02" * 512)
    assert (await answer).status == Status.GOOD
    assert (lab.old.noted, lab.new.noted) == ([("write", 0, 512)], [("write", 0, 512)])


async def test_data_that_was_still_to_come_goes_to_the_new_one(lab: Lab) -> None:
    """And is refused if that takes no writes."""
    for read_only in (False, True):
        lab.new.read_only = read_only
        task, answer = lab.host.start(WRITE, b"\x01" * 512)
        lab.old.noted.clear()
        assert not answer.done()
        assert task.executing
        lab.target.replace(lab.old, lab.new)
        _, later = lab.host.start(WRITE, b"\x02" * 512)
        assert (await later).status == (Status.CHECK_CONDITION if read_only else Status.GOOD)
        lab.target.replace(lab.new, lab.old)
        assert lab.old.gate is not None
        lab.old.gate.set()
        await answer
        lab.old.gate = asyncio.Event()
    assert lab.new.noted == [("write", 0, 512)]


@pytest.mark.parametrize(
    ("flags", "block", "kind"), [(0x08, b"\0", "unmap"), (0, b"\0", "zeros"), (0, b"\x07", "write")]
)
async def test_write_same_goes_on_by_the_new_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, flags: int, block: bytes, kind: str
) -> None:
    monkeypatch.setattr(provisioning, "UNMAP_STEP_BYTES", STEP_BYTES)
    blocks = 3 * STEP_BYTES // 512
    cdb = bytes((0x93, flags)) + bytes(8) + blocks.to_bytes(4, "big") + bytes(2)
    _, answer = lab.host.start(cdb, block * 512)
    await lab.midway()
    assert (await answer).status == Status.GOOD
    assert lab.old.noted == [(kind, 0, STEP_BYTES)]
    assert lab.new.noted == [(kind, STEP_BYTES, STEP_BYTES), (kind, 2 * STEP_BYTES, STEP_BYTES)]


async def test_unmap_goes_on_by_the_new_one(lab: Lab) -> None:
    lbas = range(0, 16 * (UNMAP_RANGES_AT_ONCE + 1), 16)
    ranges = b"".join(lba.to_bytes(8, "big") + (8).to_bytes(4, "big") + bytes(4) for lba in lbas)
    data = (6 + len(ranges)).to_bytes(2, "big") + len(ranges).to_bytes(2, "big") + bytes(4) + ranges
    _, answer = lab.host.start(bytes((0x42,)) + bytes(6) + len(data).to_bytes(2, "big") + bytes(1), data)
    await lab.midway(UNMAP_RANGES_AT_ONCE)
    assert (await answer).status == Status.GOOD
    *first, last = (("unmap", lba * 512, 4096) for lba in lbas)
    assert (lab.old.noted, lab.new.noted) == (first, [last])


async def test_extended_copy_goes_on_by_the_new_one() -> None:
    """Also where the other takes the place while a piece is read."""
    lab, source = Lab(), MemoryVolume("410001:source", SIZE)
    lab.target.set_units({0: lab.old, 1: source})
    source.write(0, memoryview(b"\x55" * SIZE))
    host = Initiator(lab.target)
    data = parameter_list([cscd("410001:source"), cscd("410001:data")], [segment(0, 1, 2048, 0, 0)])
    source.held = asyncio.Event()
    _, answer = host.start(copy_cdb(len(data)), data)
    await turns()
    assert source.waiting == 1
    lab.target.replace(lab.old, lab.new)
    lab.old.gate = None
    source.held.set()
    assert (await answer).status == Status.GOOD
    assert lab.old.noted == []
    assert [offset for _, offset, _ in lab.new.noted] == list(range(0, SIZE, STEP_BYTES))
    assert lab.new.data == source.data


@pytest.mark.parametrize("action", [sanitize.OVERWRITE, sanitize.BLOCK_ERASE])
async def test_sanitize_goes_on_by_the_new_one(lab: Lab, monkeypatch: pytest.MonkeyPatch, action: int) -> None:
    """It is not waited for: it may take hours."""
    monkeypatch.setattr(sanitize, "OVERWRITE_SECONDS_MIN", 0.01)
    lab.old.data[:] = b"\xee" * SIZE
    lab.old.mapped.update(range(SIZE // 4096))
    data = bytes((1, 0, 0, 1, 0x11)) if action == sanitize.OVERWRITE else b""
    _, answer = lab.host.start(bytes((0x48, action)) + bytes(5) + len(data).to_bytes(2, "big") + bytes(1), data)
    await lab.midway()
    assert (await answer).status == Status.GOOD
    assert lab.old.noted == [("write", 0, STEP_BYTES)]
    assert lab.new.noted[:3] == [("write", at, STEP_BYTES) for at in range(STEP_BYTES, SIZE, STEP_BYTES)]
    assert lab.new.noted[3:] == ([] if action == sanitize.OVERWRITE else [("unmap", 0, SIZE)])


@pytest.mark.parametrize(
    ("cdb", "data"),
    [
        (bytes((0x89,)) + bytes(12) + bytes((1, 0, 0)), bytes(512) + b"\x01" * 512),
        (bytes((0x8B,)) + bytes(12) + bytes((1, 0, 0)), b"\x01" * 512),
    ],
    ids=["compare and write", "orwrite"],
)
async def test_who_locks_writes_by_the_volume_that_gave_the_lock(cdb: bytes, data: bytes) -> None:
    """Which is the one that stands there when the lock is asked for: memory to work in may take its time."""
    for late in (False, True):
        lab = Lab()
        taken = [lab.target.scratch.take(STEP_BYTES) for _ in range(SCRATCH_BYTES // STEP_BYTES)]
        _, answer = lab.host.start(cdb, data)
        await turns()
        assert lab.old.locked == 0
        if late:
            lab.target.replace(lab.old, lab.new)
            lab.old.gate = None
            release(taken)
            assert (await answer).status == Status.GOOD
            assert (lab.old.locked, lab.new.locked) == (0, 1)
            assert (lab.old.noted, lab.new.noted) == ([], [("write", 0, 512)])
        else:
            release(taken)
            await lab.midway()
            assert (await answer).status == Status.GOOD
            assert (lab.old.locked, lab.new.locked) == (1, 0)
            assert lab.new.noted == []


def release(taken: list[PooledBuffer | None]) -> None:
    for each in taken:
        assert each is not None
        each.release()
