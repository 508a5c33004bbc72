"""A guarded volume: hosts read it as fast as ever, and are told DATA PROTECT when they write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from arrayd.replication.guarded import GuardedVolume, UnsureVolume
from arrayd.scsi.sense import Asc, Key
from arrayd.volumes.volume import VolumeFailed, VolumeReadOnly
from tests.replication.modelled import Machine, ModelFile
from tests.replication.still import MIB, SIZE, block, content, volume_of
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

WRITE_PROTECT = 0x80
WCE = 0x04


def test_reads_are_the_volume_s_own() -> None:
    raw = volume_of(ModelFile(Machine(1), MIB, 0), block_size=512, physical_block_size=4096, thin=False)
    volume = GuardedVolume(raw)
    assert volume.read_now is raw.read_now
    assert (volume.fetch_now, volume.warm_file) == (raw.fetch_now, raw.warm_file)
    assert (volume.identity, volume.size, volume.block_size, volume.physical_block_size) == ("1:v", MIB, 512, 4096)
    assert (volume.read_only, volume.write_cache, volume.thin, volume.removable) == (True, True, False, False)
    raw.resize(MIB // 2)
    assert volume.size == MIB // 2


async def test_no_write_goes_by_it() -> None:
    file = ModelFile(Machine(1), SIZE, 0)
    volume = GuardedVolume(volume_of(file))
    writes: list[Callable[[], object]] = [
        lambda: volume.write(0, block(1)),
        lambda: volume.unmap(0, 4096),
        lambda: volume.write_zeros(0, 4096),
        lambda: volume.write_under_lock(0, block(1)),
    ]
    async with volume.lock(0, 4096):
        for write in writes:
            with pytest.raises(VolumeReadOnly):
                write()
    assert not volume.write_now(0, block(1))
    assert volume.commit_now(0, block(1)) is None
    assert file.calls == []
    assert content(volume, 0) == bytes(4096)


async def test_a_flush_of_a_volume_that_has_failed_is_not_good() -> None:
    """Hosts would take for durable what the disk does not have (seed 502030)."""
    raw = MemoryVolume()
    host = Initiator(make_target({0: GuardedVolume(raw)}))
    assert (await host.send(bytes((0x35,)) + bytes(9))).status == 0
    raw.failure = VolumeFailed("the disk has failed")
    assert (await host.send(bytes((0x35,)) + bytes(9))).why[0] == Key.MEDIUM_ERROR


async def test_a_p_vol_whose_journal_is_not_redone_gives_nothing() -> None:
    """What is there may be older than what hosts were answered, or become so by the redo."""
    raw = MemoryVolume()
    host = Initiator(make_target({0: UnsureVolume(raw)}))
    write = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0))
    assert (await host.send(write, bytes(512))).why == (Key.DATA_PROTECT, Asc.WRITE_PROTECTED)
    for cdb in (bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0)), bytes((0x35,)) + bytes(9)):
        assert (await host.send(cdb)).why == (Key.NOT_READY, Asc.MANUAL_INTERVENTION_REQUIRED)
    volume = UnsureVolume(raw)
    view = memoryview(bytearray(512))
    assert not volume.read_now(0, view)
    assert volume.fetch_now(0, view) is None
    assert volume.warm_file(0, 512) is None


async def test_a_lock_is_the_volume_s_own() -> None:
    raw = volume_of(ModelFile(Machine(1), SIZE, 0))
    async with GuardedVolume(raw).lock(0, 4096):
        assert not raw.write_now(0, block(1))
    assert raw.write_now(0, block(1))


async def test_hosts_are_told_before_they_try_and_when_they_do() -> None:
    raw = MemoryVolume()
    raw.data[:4] = b"data"
    host = Initiator(make_target({0: GuardedVolume(raw)}))
    sense = await host.good(bytes((0x1A, 0, 0x08, 0, 255, 0)))
    assert sense[2] & WRITE_PROTECT
    assert sense[-20 + 2] & WCE
    assert (await host.good(bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))))[:4] == b"data"
    for cdb, data in (
        (bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0)), bytes(512)),
        (bytes((0x93, 0x08)) + bytes(11) + bytes((1, 0, 0)), bytes(512)),
        (bytes((0x89,)) + bytes(12) + bytes((1, 0, 0)), bytes(1024)),
    ):
        assert (await host.send(cdb, data)).why == (Key.DATA_PROTECT, Asc.WRITE_PROTECTED)
    assert raw.data[:4] == b"data"
