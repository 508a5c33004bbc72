"""A consistency group at the primary side: its commits, checkpoints and purges, and when it is full, or fails."""

import asyncio
import errno

import pytest

from arrayd.replication import group as group_module
from arrayd.replication.journal import JournalError, Kind, Position
from arrayd.replication.statuses import Event
from arrayd.replication.writes import Range
from arrayd.volumes.volume import VolumeFailed, VolumeFull
from tests.lab.disk import turns
from tests.replication.group_parts import MIB, Parts, block, pending


@pytest.fixture
async def parts() -> Parts:
    made = Parts()
    await made.make()
    return made


# -- a commit ----------------------------------------------------------------------------------------------------------


async def test_writes_of_one_turn_share_one_commit_and_one_answer(parts: Parts) -> None:
    """Figure 10: the journal first, in two calls, then the volumes, then the answer."""
    futures = [parts.volumes[number % 3].commit_now(number * 4096, block(number)) for number in range(32)]
    assert all(future is not None and not future.done() for future in futures)
    assert len({id(future) for future in futures}) == 3
    assert parts.journal_file.calls == parts.files[0].calls == []
    await turns()
    assert parts.journal_file.calls == ["write"] * 2
    assert [len(file.calls) for file in parts.files] == [11, 11, 10]
    assert all(future is not None and future.result() is None for future in futures)
    records = await parts.records()
    assert [(each.entry.volume, each.entry.offset) for each in records] == [(n % 3, n * 4096) for n in range(32)]
    assert {each.entry.time for each in records} == {1000}
    # The next turn has another time, and another future.
    following = parts.volumes[0].commit_now(0, block(1))
    assert following is not None
    assert following not in futures
    await following
    assert (await parts.records())[-1].entry.time == 1001


async def test_the_volume_is_not_written_before_the_journal_is(parts: Parts) -> None:
    parts.journal_file.refusals = 1
    spot = parts.volumes[0].commit_now(0, block(1))
    assert spot is not None
    other = pending(parts.volumes[1].write(0, block(2)))
    await turns(2)
    # The journal waits for a thread now: what comes waits for it, and nothing is taken on the spot.
    assert parts.volumes[0].commit_now(0, block(3)) is None
    third = pending(parts.volumes[0].write(0, block(3)))
    while parts.journal.regions.stored == Position(0, 0):
        assert parts.files[0].calls == parts.files[1].calls == []
        assert not any(each.done() for each in (spot, other))
        await asyncio.sleep(0)
    await asyncio.gather(spot, other, third)
    assert [bytes(each.data[:1]) for each in await parts.records()] == [b"\1", b"\2", b"\3"]
    assert parts.files[0].content[:4096] == block(3)
    await parts.group.close()


async def test_who_comes_when_the_journal_is_free_again_does_not_go_past_who_waits(parts: Parts) -> None:
    first = pending(parts.volumes[0].write(0, block(1)))
    parts.journal_file.refusals = 1

    async def commit_and_write() -> "asyncio.Future[None]":
        await parts.journal.commit()
        assert parts.volumes[0].commit_now(0, block(4)) is None
        return pending(parts.volumes[0].write(0, block(3)))

    other = asyncio.ensure_future(commit_and_write())
    await turns(2)
    second = pending(parts.volumes[0].write(0, block(2)))
    assert not other.done()
    await asyncio.gather(first, second, await other)
    assert [bytes(each.data[:1]) for each in await parts.records()] == [b"\1", b"\2", b"\3"]
    await parts.group.close()


async def test_data_taken_on_the_spot_is_copied_and_so_bounded(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arrayd.replication.journaled.SPOT_BYTES_MAX", 8192)
    parts.files[0].refusals = 1
    buffer = memoryview(bytearray(b"a" * 4096))
    first, second = (parts.volumes[0].commit_now(at, buffer) for at in (0, 4096))
    assert parts.volumes[0].commit_now(8192, buffer) is None
    buffer[:] = b"z" * 4096
    assert first is not None
    assert first is second
    await first
    assert parts.files[0].content[:8192] == b"a" * 8192
    assert parts.group.spot_bytes == 0
    assert parts.volumes[0].commit_now(8192, buffer) is not None
    await turns()


async def test_a_flush_syncs_the_journal_and_not_the_volume(parts: Parts) -> None:
    """But once the volume, too, for what was written before it was in a pair."""
    await pending(parts.volumes[0].write(0, block(1)))
    await pending(parts.volumes[0].flush())
    assert parts.files[0].calls == ["write", "sync"]
    assert parts.journal.regions.synced == parts.journal.regions.stored
    parts.forget()
    await pending(parts.volumes[0].write(0, block(2)))
    await asyncio.gather(*(pending(parts.volumes[0].flush()) for _ in range(5)))
    assert (parts.files[0].calls, parts.journal_file.calls) == (["write"], ["write", "write", "sync"])


# -- checkpoints and room ----------------------------------------------------------------------------------------------


async def test_redo_moves_when_so_much_was_written(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "CHECKPOINT_BYTES", 8 * 4096)
    for number in range(7):
        await pending(parts.volumes[0].write(0, block(number)))
    await turns(20)
    assert parts.journal.regions.redo.sequence == 0
    assert "sync" not in parts.files[0].calls
    await pending(parts.volumes[1].write(0, block(8)))
    await turns(40)
    assert parts.journal.regions.redo.sequence == 8
    assert "sync" in parts.files[0].calls
    assert "sync" in parts.files[1].calls
    monkeypatch.setattr(group_module, "CHECKPOINT_RECORDS", 3)
    for _ in range(3):
        await pending(parts.volumes[2].unmap(0, 4096))
    await turns(40)
    assert parts.journal.regions.redo.sequence == 11


async def test_a_checkpoint_waits_for_what_volumes_are_at_work_on(parts: Parts) -> None:
    parts.files[0].refusals = 1
    async with parts.raw[0].lock(0, 4096):
        writing = pending(parts.volumes[0].write(0, block(1)))
        await turns()
        checkpoint = asyncio.ensure_future(parts.group.checkpoint())
        await turns(20)
        assert not checkpoint.done()
        assert "sync" not in parts.files[0].calls
    await writing
    assert await checkpoint == Position(1, 4096)
    assert parts.files[0].durable[:4096] == block(1)


async def test_watermarks(parts: Parts) -> None:
    """PAIR becomes PFUL at 80%, and PAIR again when 60% are in use."""
    written = 0
    while not parts.told:
        await pending(parts.volumes[0].write(0, block(1, 32768)))
        await turns(1)
        written += 1
    assert parts.told == [Event.JOURNAL_NEARLY_FULL]
    assert parts.journal.regions.used_share >= 0.8
    ends = [each.entry.end for each in await parts.records()]
    await parts.group.purge(ends[written // 10])
    await turns()
    assert parts.journal.regions.used_share > 0.6
    assert len(parts.told) == 1
    await parts.group.purge(ends[written // 2])
    await turns()
    assert parts.told == [Event.JOURNAL_NEARLY_FULL, Event.JOURNAL_HAS_ROOM]
    assert parts.group.takes
    with pytest.raises(JournalError, match="is not in the journal"):
        await parts.group.purge(Position(ends[-1].sequence + 1, ends[-1].byte))
    with pytest.raises(JournalError, match="no write begins"):
        await parts.group.purge(Position(ends[-1].sequence - 1, ends[-1].byte))


async def test_a_full_journal_stops_the_group(parts: Parts) -> None:
    """The write that has no room, and all behind it of any volume, go by what is put in place instead."""
    ahead = pending(parts.volumes[1].write(0, block(7)))
    huge = pending(parts.volumes[0].write(0, block(1, MIB)))
    behind = [pending(parts.volumes[number].write(0, block(number + 2))) for number in range(3)]
    assert parts.volumes[2].commit_now(0, block(9)) is None
    await turns()
    assert parts.told == [Event.JOURNAL_FULL]
    assert "no room" in parts.reasons[0]
    assert ahead.done()
    assert not huge.done()
    assert await parts.group.stop() == []
    assert parts.journal.regions.redo == parts.journal.regions.stored == Position(1, 4096)
    assert parts.files[1].durable[:4096] == block(7)
    await turns()
    assert parts.files[0].content[:1] == parts.files[2].content[:1] == b"\0"
    for number, volume in enumerate(parts.volumes):
        volume.replace(parts.raw[number])
    await asyncio.gather(huge, *behind)
    assert parts.files[0].content[4095:4097] == b"\2\1"
    assert len(await parts.records()) == 1
    # And so does whatever comes now.
    await pending(parts.volumes[1].flush())
    assert parts.volumes[1].commit_now(0, block(9)) is None
    await pending(parts.volumes[1].write(4096, block(9)))
    assert parts.files[1].content[4096:8192] == block(9)


async def test_a_long_write_that_has_room_next_to_what_is_purged(parts: Parts) -> None:
    for number in range(40):
        await pending(parts.volumes[0].write(0, block(number, 65536)))
        await parts.group.purge(await parts.group.checkpoint())
    assert parts.files[0].content[:1] == bytes([39])
    assert not parts.group.stopped


# -- what fails --------------------------------------------------------------------------------------------------------


async def test_a_journal_that_cannot_be_written(parts: Parts) -> None:
    """What it had not taken for certain is written all the same, by way of who marks it, and answered then."""
    await pending(parts.volumes[0].write(0, block(1)))
    parts.journal_file.fails = VolumeFailed("the disk is gone")
    spot = parts.volumes[0].commit_now(0, block(2))
    other = pending(parts.volumes[1].write(0, block(8)))
    over = pending(parts.volumes[1].write(0, block(3)))
    unmap = pending(parts.volumes[0].unmap(4096, 4096))
    await turns(20)
    assert parts.told == [Event.ERROR]
    assert "the disk is gone" in parts.reasons[0]
    later = pending(parts.volumes[0].write(0, block(4), durable=True))
    assert spot is not None
    assert not any(each.done() for each in (spot, other, over, unmap, later))
    assert parts.files[0].content[:4096] == block(1)
    assert await parts.group.stop() == []
    assert parts.files[0].durable[:4096] == block(1)
    for number, volume in enumerate(parts.volumes):
        volume.replace(parts.raw[number])
    await asyncio.gather(spot, other, over, unmap, later)
    assert parts.files[0].durable[:4096] == block(4)
    assert parts.files[1].content[:4096] == block(3)
    assert parts.group.spot_bytes == 0


async def test_a_journal_that_cannot_be_synced(parts: Parts) -> None:
    """Who waits to be durable is not told that he is, before there is no need of the journal any more."""
    parts.journal_file.fails = VolumeFailed("the disk is gone")

    def write_now(offset: int, view: memoryview) -> bool:
        parts.journal_file.put(offset, bytes(view))
        return True

    parts.journal_volume.write_now = write_now
    durable = pending(parts.volumes[0].write(0, block(1), durable=True))
    flush = pending(parts.volumes[1].flush())
    await turns(20)
    assert parts.told == [Event.ERROR]
    assert not any(each.done() for each in (durable, flush))
    await parts.group.stop()
    for number, volume in enumerate(parts.volumes):
        volume.replace(parts.raw[number])
    await asyncio.gather(durable, flush)
    assert parts.files[0].durable[:4096] == block(1)


async def test_a_volume_that_refuses_what_was_journaled(parts: Parts) -> None:
    """The other side gets what it has not: the host is told, and the owner which range differs."""
    parts.files[1].fails = VolumeFull("no room")
    good = parts.volumes[0].commit_now(0, block(1))
    bad = parts.volumes[1].commit_now(8192, block(2))
    assert good is not None
    assert bad is not None
    await good
    with pytest.raises(VolumeFull):
        await bad
    await turns()
    assert parts.told == [Event.ERROR]
    assert "volume 1 has refused" in parts.reasons[0]
    waits = pending(parts.volumes[0].write(0, block(3)))
    parts.files[1].fails = None
    assert await parts.group.stop() == [Range(1, 8192, 4096)]
    # A restart before the tables know would write it again.
    assert parts.journal.regions.redo == Position(0, 0)
    parts.volumes[0].replace(parts.raw[0])
    await waits


async def test_a_volume_whose_sync_fails_stops_the_group(parts: Parts) -> None:
    await pending(parts.volumes[0].write(0, block(1)))
    parts.files[2].fails = VolumeFailed("the disk is gone")
    with pytest.raises(VolumeFailed):
        await parts.group.checkpoint()
    await turns()
    assert parts.told == [Event.ERROR]
    assert parts.journal.regions.redo == Position(0, 0)
    with pytest.raises(VolumeFailed):
        await parts.group.stop()
    parts.files[2].fails = None
    await parts.group.stop()
    assert parts.journal.regions.redo == Position(1, 4096)


async def test_a_volume_that_has_failed_for_good(parts: Parts) -> None:
    parts.files[0].failure = OSError(errno.EIO, "gone")
    parts.files[0].fails = VolumeFailed("gone")
    with pytest.raises(VolumeFailed):
        await pending(parts.volumes[0].write(0, block(1)))
    await turns()
    assert parts.told == [Event.ERROR]


async def test_a_restart_after_all_of_it(parts: Parts) -> None:
    await pending(parts.volumes[0].write(0, block(1, 8192)))
    await pending(parts.volumes[0].unmap(0, 4096))
    await pending(parts.volumes[1].write_zeros(4096, 4096))
    parts.journal.append_now(2, Kind.PATTERN, 0, 65536, block(5, 512), 1)
    await parts.group.close()
    await parts.journal.sync()
    for file in parts.files:
        file.content[:] = b"x" * MIB
    await parts.open()
    assert parts.files[0].content[:8193] == bytes(4096) + bytes(block(1)) + b"x"
    assert parts.files[1].content[4095:8193] == b"x" + bytes(4096) + b"x"
    assert parts.files[2].content[:65537] == bytes(block(5, 65536)) + b"x"
    assert parts.journal.regions.redo == parts.journal.regions.stored
    assert [each.entry.kind for each in await parts.records()] == [Kind.WRITE, Kind.UNMAP, Kind.ZEROS, Kind.PATTERN]
