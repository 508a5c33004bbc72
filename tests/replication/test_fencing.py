"""The fence around P-VOLs while the sides change places (figures 19 to 21)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arrayd.replication import asking, fencing
from arrayd.replication.asking import Outcome, Range, Refused
from arrayd.replication.journal import JournalError, Position
from arrayd.replication.journal.regions import START
from arrayd.replication.journaling import Journaling
from arrayd.replication.redo import RedoFailed
from arrayd.replication.statuses import Event, Operation, Refusal, State
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed
from tests.lab.disk import turns
from tests.replication.pair_doors import GROUP, MIB, Primary, Site
from tests.replication.stage_lab import GROUP as LAB_GROUP
from tests.replication.stage_lab import Lab

PAGE = 4096
FENCE = asking.fence(GROUP, 1)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path) as made:
        yield made


@pytest.fixture
async def primary(site: Site) -> AsyncIterator[Primary]:
    begun = await site.begun(site.row(State.P_PAIR))
    yield begun
    await begun.leave()


def begun(primary: Primary, number: int, data: bytes) -> "asyncio.Future[None]":
    pending = primary.site.shown[f"v{number}"].write(0, memoryview(data))
    assert pending is not None
    return asyncio.ensure_future(pending)


async def test_what_was_taken_ends_and_what_comes_waits(primary: Primary) -> None:
    first = begun(primary, 0, b"a" * PAGE)
    assert asking.decode_fenced(await primary.ask(FENCE)) == Position(1, PAGE)
    assert first.done()
    late = [begun(primary, number, b"b" * PAGE) for number in range(3)]
    assert primary.site.shown["v0"].commit_now(PAGE, memoryview(bytes(PAGE))) is None
    await turns(50)
    assert not any(each.done() for each in late)
    told, records, end = await primary.follow(START)
    assert (told.ended, told.stored, len(records)) == (True, Position(1, PAGE), 1)
    assert asking.decode_fenced(await primary.ask(FENCE)) == Position(1, PAGE)
    await primary.stage._fencing._fence.release()  # type: ignore[union-attr]
    await asyncio.gather(*late)
    told, records, _ = await primary.follow(end)
    assert (told.ended, len(records)) == (False, 3)


async def test_a_host_that_holds_a_lock_is_waited_for(primary: Primary) -> None:
    front = primary.site.shown["v1"]
    async with front.lock(0, PAGE):
        call = primary.begin(FENCE)
        await turns(20)
        assert not call.answered.done()
        await front.write_under_lock(0, memoryview(b"l" * PAGE))  # type: ignore[misc]
    assert asking.decode_fenced(memoryview(await call.answered)) == Position(1, PAGE)


async def test_it_lets_go_by_itself_and_later_if_it_is_asked_for_again(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    timers: list[tuple[float, asyncio.TimerHandle]] = []
    call_later = loop.call_later

    def later(seconds: float, *rest: object) -> asyncio.TimerHandle:
        handle = call_later(seconds, *rest)  # type: ignore[arg-type]
        if seconds == fencing.FENCE_SECONDS:
            timers.append((seconds, handle))
        return handle

    monkeypatch.setattr(loop, "call_later", later)
    await primary.ask(FENCE)
    await primary.ask(FENCE)
    *before, (_, last) = timers
    assert len(before) == 2
    assert all(handle.cancelled() for _, handle in before)
    late = begun(primary, 0, b"b" * PAGE)
    await turns(20)
    assert not late.done()
    # Its time is over.
    last._run()
    await late
    assert not (await primary.follow(START))[0].ended
    # And again.
    assert asking.decode_fenced(await primary.ask(FENCE)) == Position(1, PAGE)
    assert (await primary.follow(START))[0].ended


async def test_figure_20_a_swap_begins_from_a_fence(primary: Primary) -> None:
    """Figure 20: what has waited goes by what follows."""
    await primary.ask(FENCE)
    late = begun(primary, 0, b"b" * PAGE)
    stage, site = primary.stage, primary.site
    await stage.stop(site.row(State.S_PAIR, generation=2, epoch=2))
    await turns(20)
    assert not late.done()
    assert not site.raw["v0"].locks, "the next stage writes to the volume"
    assert primary.journal_in == START
    await site.doors().show("v0", site.raw["v0"])
    await late
    with pytest.raises(Refused) as refused:
        asking.decode_fenced(await primary.ask(FENCE))
    assert refused.value.outcome is Outcome.NOT_NOW


async def test_a_fence_that_does_not_stand_yet_ends_with_the_stage(primary: Primary) -> None:
    stage, site = primary.stage, primary.site
    async with site.shown["v2"].lock(0, PAGE):
        call = primary.begin(FENCE)
        await turns(20)
        await stage.stop(site.row(State.P_PSUS))
        assert (await call.answered)[0] == Outcome.NOT_NOW
    assert not site.raw["v0"].locks


async def test_a_fence_between_copies_stops_nobody(primary: Primary) -> None:
    """A copy locks its ranges at once: else it would wait for the fence, and the fence for it."""
    ranges = [Range(at * 32 * PAGE, PAGE) for at in range(8)]
    for _ in range(5):
        copying = [primary.begin(asking.copy(GROUP, 1, 0, ranges)) for _ in range(3)]
        fence = primary.begin(FENCE)
        copying += [primary.begin(asking.copy(GROUP, 1, 0, ranges[::-1])) for _ in range(2)]
        assert asking.decode_fenced(memoryview(await fence.answered)) == START
        await primary.stage._fencing._fence.release()  # type: ignore[union-attr]
        await asyncio.gather(*(each.answered for each in copying))


async def test_without_a_fence_the_sides_change_places_only_if_the_other_has_all(site: Site) -> None:
    """The fence has let go, or this array was started again: hosts may have written since."""
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.write(0, 0, b"a" * PAGE)
    refusal = await primary.stage.stop(site.row(State.S_PAIR, generation=2, epoch=2))
    assert isinstance(refusal, Refusal)
    assert "has not" in refusal.text
    await primary.write(0, 0, b"b" * PAGE)
    _, end = await primary.follow_all()
    await primary.follow(end, restored=end)
    assert await primary.stage.stop(site.row(State.S_PAIR, generation=2, epoch=2)) is None
    await primary.stage.close()


async def test_a_fence_outlives_the_death_of_the_array(site: Site) -> None:
    """The other side goes on with what it was told before: what hosts wrote meanwhile would be nowhere."""
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.write(0, 0, b"a" * PAGE)
    end = asking.decode_fenced(await primary.ask(FENCE))
    await primary.leave()
    again = await site.begun(site.row(State.P_PAIR), found=True)
    late = begun(again, 0, b"b" * PAGE)
    assert site.shown["v1"].commit_now(0, memoryview(bytes(PAGE))) is None
    await turns(20)
    assert not late.done()
    assert again.journal_in == end
    assert await again.stage.stop(site.row(State.S_PAIR, generation=2, epoch=2)) is None, "it has all that there is"
    await again.stage.close()
    assert site.stores.names() == []
    with pytest.raises(VolumeError):
        await late


async def test_after_a_restart_it_lets_go_by_itself(site: Site) -> None:
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.ask(FENCE)
    await primary.leave()
    again = await site.begun(site.row(State.P_PAIR), found=True)
    late = begun(again, 0, b"b" * PAGE)
    await again.stage._fencing._fence.release()  # type: ignore[union-attr]
    await late
    await again.leave()
    # No more than once.
    last = await site.begun(site.row(State.P_PAIR), found=True)
    await last.write(0, 0, b"c" * PAGE)
    await last.leave()


async def test_it_stands_before_the_stage_is_entered(site: Site) -> None:
    """P-VOLs that could not be taken up are redone before an operation suspends them, and nobody sees that stage: it
    let hosts write at once."""
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.ask(FENCE)
    await primary.leave()
    again = Journaling(site.row(State.P_PAIR), site.doors(), site.told())
    await again.prepare(found=True)
    assert await again.stop(site.row(State.P_PSUS)) == fencing.FENCED
    before = asyncio.get_running_loop().time()
    await again.close()
    assert asyncio.get_running_loop().time() - before < fencing.FENCE_SECONDS / 2, "it does not wait for it"
    assert site.stores.names() == ["612067726f75702773206e756d626572-0.fence"], "it stands in the next one, too"


async def test_while_it_stands_again_hosts_are_shown_the_volumes_and_wait(site: Site) -> None:
    """The array's start waited for it, and could not hear that the places were changed meanwhile."""
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.ask(FENCE)
    await primary.leave()
    again = await site.begun(site.row(State.P_PAIR), found=True)
    assert again.stage.fenced
    # As what shows a volume does, whoever used it before.
    for name in ("v0", "v1", "v2"):
        async with site.raw[name].lock(0, MIB):
            pass
    late = begun(again, 1, b"b" * PAGE)
    compared = asyncio.ensure_future(locked(site.shown["v2"]))
    await turns(20)
    assert not late.done()
    assert not compared.done()
    await again.stage._fencing._fence.release()  # type: ignore[union-attr]
    await asyncio.gather(late, compared)
    await again.leave()


async def locked(volume: Volume) -> None:
    """As a host that compares and writes."""
    async with volume.lock(0, PAGE):
        return


async def test_it_stands_again_for_other_pairs_of_the_group_too(site: Site) -> None:
    """The group could not be taken up, and one of its pairs was ended then: hosts wrote at once."""
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.ask(FENCE)
    await primary.leave()
    other = await site.begun(site.row(State.P_PAIR, count=2))
    assert other.stage.fenced
    await other.leave()


async def test_while_it_stands_no_pair_comes_or_leaves(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that waits for a lock behind it would go by the next stage, past the fence there."""
    await lab.holding(State.P_PAIR, State.P_PAIR)
    monkeypatch.setattr(type(lab.stage), "fenced", True)
    assert await lab.happen(Operation.PAIRSPLIT_S, pair=1) == fencing.FENCED
    assert lab.states == "P-VOL PAIR, P-VOL PAIR"
    monkeypatch.setattr(type(lab.stage), "fenced", False)
    await lab.happen(Operation.PAIRSPLIT_S, pair=1)
    assert lab.states == "P-VOL PAIR"


async def test_pairs_that_end_without_their_journal_outlast_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.2
    monkeypatch.setattr(fencing, "FENCE_SECONDS", seconds)
    failed = RedoFailed(VolumeError("no disk"), begun=False)
    lab.fails["journaling prepare"] = [failed, failed]
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.stores.there[f"{LAB_GROUP.id.hex()}-0.fence"] = lab.volumes["v0"]
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await lab.happen(Operation.PAIRSPLIT_S) is None
    assert loop.time() - began >= seconds


@pytest.mark.parametrize("before", [True, False])
async def test_of_a_journal_that_is_damaged_hosts_wait_until_the_fence_has_lapsed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """At a start, or where an operation suspends P-VOLs that could not be taken up."""
    seconds = 0.2
    monkeypatch.setattr(fencing, "FENCE_SECONDS", seconds)
    name = f"{LAB_GROUP.id.hex()}-0.fence"
    loop = asyncio.get_running_loop()
    if before:
        lab.stores.there[name] = lab.volumes["v0"]
        lab.fails["journaling prepare"] = [JournalError("damaged")]
        began = loop.time()
        await lab.holding(State.P_PAIR, State.P_PAIR)
        assert lab.states == "P-VOL PSUE, P-VOL PSUE"
    else:
        lab.fails["journaling prepare"] = [RedoFailed(VolumeError("no disk"), begun=False), JournalError("damaged")]
        await lab.holding(State.P_PAIR, State.P_PAIR)
        lab.stores.there[name] = lab.volumes["v0"]
        began = loop.time()
        await lab.happen(Operation.PAIRSPLIT)
        assert lab.states == "P-VOL PSUS, P-VOL PSUS"
    assert loop.time() - began >= seconds
    assert lab.shown == {"v0": "marking", "v1": "marking"}
    assert name not in lab.stores.there
    lab.check()


async def test_what_cannot_outlive_the_array_is_no_fence(primary: Primary) -> None:
    primary.site.stores.failing = VolumeFailed("gone")
    with pytest.raises(Refused, match="gone"):
        asking.decode_fenced(await primary.ask(FENCE))
    await primary.write(0, 0, b"a" * PAGE)
    primary.site.stores.failing = None
    assert asking.decode_fenced(await primary.ask(FENCE)) == Position(1, PAGE)


@pytest.mark.parametrize("state", [State.P_PSUS, State.P_PSUE, None])
async def test_while_a_fence_stands_nothing_lets_hosts_write(tmp_path: Path, state: State | None) -> None:
    """The other side takes the P-VOLs' place by what it was told: until then, or until the fence lapses, hosts wait."""
    async with Site.at(tmp_path) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        await primary.write(0, PAGE, b"a" * PAGE)
        assert await primary.stage._fencing.stand()
        row = None if state is None else site.row(state)
        assert await primary.stage.stop(row) == fencing.FENCED
        await primary.stage._fencing.release()
        assert await primary.stage.stop(row) is None
        await primary.stage.close()


async def test_a_group_that_has_stopped_is_not_fenced_anew(site: Site) -> None:
    """A cluster manager asks again and again: its suspension would wait, and hosts' writes with it, for ever."""
    primary = await site.begun(site.row(State.P_PAIR))
    primary.stage._group.fail(Event.ERROR, "the disk has failed")
    with pytest.raises(Refused):
        asking.decode_fenced(await primary.ask(FENCE))
    assert not primary.stage._fencing.stands
    assert await primary.stage.stop(site.row(State.P_PSUE)) is None
    await primary.stage.close()


async def test_a_fence_that_is_made_while_the_group_is_suspended_is_not_told_of(site: Site) -> None:
    """Hosts go on here then, and the other side must not take the P-VOLs' place by it."""
    primary = await site.begun(site.row(State.P_PAIR))
    async with site.shown["v1"].lock(0, PAGE):
        call = primary.begin(FENCE)
        await turns(20)
        stopping = asyncio.ensure_future(primary.stage.stop(site.row(State.P_PSUS)))
        await turns(3)
        assert not call.answered.done()
    assert await stopping is None
    with pytest.raises(Refused):
        asking.decode_fenced(memoryview(await call.answered))
    await primary.stage.close()
