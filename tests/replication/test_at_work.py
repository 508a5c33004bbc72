"""One group at work: one change at a time, whoever asks for it; and while both sides are told something, no meeting."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from arrayd.replication import at_work
from arrayd.replication.at_work import TOGETHER_SECONDS, go_together
from arrayd.replication.group_rows import Driver, PeerRows
from arrayd.replication.journal.regions import START, Position
from arrayd.replication.pairs import PairsError
from arrayd.replication.stages import Progress
from arrayd.replication.statuses import P_RUNNING, Event, Operation, Refusal, State
from arrayd.replication.transitions import NOT_MET
from arrayd.volumes.volume import VolumeError
from tests.lab.waiting import until
from tests.replication.stage_lab import GROUP, Lab
from tests.replication.tables import NotSavedError

P, S = State.P_PAIR, State.S_PAIR
S_ROWS = PeerRows({0: S, 1: S})


async def settled(lab: Lab) -> None:
    """Waits until nothing is under way."""
    group = lab.room._groups["oradb"]
    await until(lambda: group._turns.idle and group._seen is None and not group._tasks)


# -- events ------------------------------------------------------------------------------------------------------------


async def test_an_event_changes_the_row_and_is_noted(lab: Lab) -> None:
    await lab.holding(State.S_COPY, State.S_COPY)
    lab.stage.told.event(Event.COPY_END, "")
    await until(lambda: lab.states == "S-VOL PAIR, S-VOL PAIR")
    await settled(lab)
    assert lab.row().consistent
    assert lab.notes == ["info: group oradb: the copy has ended: data S-VOL PAIR, log S-VOL PAIR"]
    lab.check()


async def test_an_error_of_one_pair_suspends_the_group(lab: Lab) -> None:
    await lab.holding(P, P)
    lab.stage.told.event(Event.ERROR, "volume v1: the disk is broken")
    await until(lambda: lab.states == "P-VOL PSUE, P-VOL PSUE")
    await settled(lab)
    assert {pair.error for pair in lab.row().pairs} == {"volume v1: the disk is broken"}
    assert lab.notes[0].startswith("error: group oradb: error: volume v1: the disk is broken")
    lab.check()


@pytest.mark.parametrize("happens", ["split", "refused", "fails"])
async def test_an_event_that_comes_while_a_change_is_under_way_waits_for_its_end(lab: Lab, happens: str) -> None:
    await lab.holding(P, P)
    lab.gates["journaling stop"] = gate = asyncio.Event()
    if happens != "split":
        outcome = Refusal("not yet") if happens == "refused" else VolumeError("the disk is broken")
        lab.fails["journaling stop"] = [outcome]
    stage = lab.stage
    splitting = asyncio.ensure_future(lab.happen(Operation.PAIRSPLIT))
    await until(lambda: "journaling stop for P-VOL PSUS, P-VOL PSUS" in lab.calls)
    stage.told.event(Event.ERROR, "why")
    for _ in range(1000):
        stage.told.event(Event.ERROR, "why, again")
    assert len(lab.room._groups["oradb"]._tasks) == 1
    await asyncio.sleep(0.01)
    assert lab.states == "P-VOL PAIR, P-VOL PAIR"
    gate.set()
    await asyncio.gather(splitting, return_exceptions=True)
    await settled(lab)
    # The stage that told it has ended, and so has what it told; unless it goes on.
    expected = {"split": "PSUS", "refused": "PSUE", "fails": "PAIR"}[happens]
    assert lab.states == f"P-VOL {expected}, P-VOL {expected}"
    lab.check()


async def test_a_journal_that_is_nearly_full_again_is_so(lab: Lab) -> None:
    await lab.holding(P, P)
    for event in (Event.JOURNAL_NEARLY_FULL, Event.JOURNAL_HAS_ROOM, Event.JOURNAL_NEARLY_FULL):
        lab.stage.told.event(event, "")
    await settled(lab)
    assert lab.states == "P-VOL PFUL, P-VOL PFUL"


async def test_an_event_that_is_not_committed_is_tried_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_work, "EVENT_RETRY_SECONDS", 0.001)
    await lab.holding(State.S_COPY, State.S_COPY)
    lab.fails["following stop"] = [Refusal("not yet")] * 3
    lab.stage.told.event(Event.ERROR, "why")
    await until(lambda: lab.states == "S-VOL PSUE, S-VOL PSUE")
    await settled(lab)
    lab.check()


async def test_a_stage_that_has_ended_tells_nothing_any_more(lab: Lab) -> None:
    await lab.holding(P, P)
    old = lab.stage
    await lab.happen(Operation.PAIRSPLIT)
    await lab.happen(Operation.PAIRRESYNC, peer=PeerRows({0: State.S_SSUS, 1: State.S_SSUS}), epoch=12)
    old.told.event(Event.ERROR, "long ago")
    await settled(lab)
    assert lab.states == "P-VOL COPY, P-VOL COPY"


# -- operations --------------------------------------------------------------------------------------------------------


async def test_changes_of_a_group_are_made_one_after_the_other(lab: Lab) -> None:
    await lab.holding(P, P)
    lab.gates["journaling stop"] = gate = asyncio.Event()
    lab.taken()
    split = asyncio.ensure_future(lab.happen(Operation.PAIRSPLIT))
    ended = asyncio.ensure_future(lab.happen(Operation.PAIRSPLIT_S))
    await asyncio.sleep(0.01)
    assert lab.taken() == ["journaling stop for P-VOL PSUS, P-VOL PSUS"]
    split.cancel()
    gate.set()
    assert await ended is None
    calls = lab.taken()
    assert calls.index("journaling close") < calls.index("marking stop for nothing")


async def test_another_group_does_not_wait(lab: Lab) -> None:
    await lab.holding(P, P)
    pair = replace(GROUP.pairs[0], volume="v2")
    other = replace(GROUP, id=b"\x02" * 16, name="back", ctg=1, journal="j1", epoch=20, pairs=(pair,))
    lab.gates["journaling stop"] = gate = asyncio.Event()
    split = asyncio.ensure_future(lab.happen(Operation.PAIRSPLIT))
    await until(lambda: "journaling stop for P-VOL PSUS, P-VOL PSUS" in lab.calls)
    await lab.room.create(other, Operation.PAIRCREATE_VR, lab.save, copy=True)
    assert lab.states == "P-VOL PAIR, P-VOL PAIR"
    gate.set()
    await split


async def test_what_changes_nothing_is_answered_all_the_same(lab: Lab) -> None:
    await lab.holding(State.P_PSUS, State.P_PSUS)
    lab.taken()
    assert await lab.happen(Operation.PAIRSPLIT) == lab.row()
    assert lab.taken() == ["commit"]
    assert await lab.room.happen("nothing", Operation.PAIRSPLIT_S, None, lab.save) is None
    assert lab.taken() == ["commit"]


async def test_a_host_that_saw_other_rows_looks_again(lab: Lab) -> None:
    await lab.holding(P, P, generation=3)
    assert await lab.happen(Operation.PAIRSPLIT, generation=2) is NOT_MET
    await lab.happen(Operation.PAIRSPLIT, generation=3)
    assert lab.states == "P-VOL PSUS, P-VOL PSUS"


async def test_pace_and_driver_reach_the_stage(lab: Lab) -> None:
    await lab.holding(P, P)
    kept = await lab.room.keep("oradb", lab.save, pace=15, driver=Driver.HOST)
    assert kept == lab.row() == lab.stage.row
    assert (lab.row().pace, lab.row().driver) == (15, Driver.HOST)
    assert await lab.room.keep("nothing", lab.save, pace=1, driver=None) is None


# -- meetings ----------------------------------------------------------------------------------------------------------


async def seen(lab: Lab, rows: PeerRows) -> str:
    lab.room._groups["oradb"].seen(rows)
    await settled(lab)
    lab.check()
    return lab.states


async def test_a_side_learns_from_the_other_ones_rows(lab: Lab) -> None:
    await lab.holding(S, S)
    assert await seen(lab, PeerRows({0: State.P_PSUS, 1: State.P_PSUS})) == "S-VOL SSUS, S-VOL SSUS"
    assert lab.notes == ["info: group oradb: the other array shows it so: data S-VOL SSUS, log S-VOL SSUS"]


@pytest.mark.parametrize("held", ["here", "there"])
async def test_while_both_sides_are_told_something_none_learns(lab: Lab, held: str) -> None:
    await lab.holding(State.P_PSUS, State.P_PSUS)
    suspended = PeerRows({0: State.S_SSUS, 1: State.S_SSUS})
    if held == "here":
        await lab.happen(Operation.PAIRRESYNC, peer=suspended, epoch=12, together=True)
        assert lab.room._groups["oradb"].rows().held
        assert await seen(lab, suspended) == "P-VOL COPY, P-VOL COPY", "the other side is still to be told"
        lab.skipped += TOGETHER_SECONDS
        assert not lab.room._groups["oradb"].rows().held
        assert await seen(lab, suspended) == "P-VOL PSUS, P-VOL PSUS", "it was not"
    else:
        copying = PeerRows({0: State.S_COPY, 1: State.S_COPY}, 1, held=True)
        before = lab.row()
        assert await seen(lab, copying) == "P-VOL PSUS, P-VOL PSUS"
        assert lab.row() == before, "nothing is learned, the generation neither"


async def test_a_side_that_was_told_with_the_other_meets_once_that_was_told_too(lab: Lab) -> None:
    await lab.holding(State.P_PSUS, State.P_PSUS)
    await lab.happen(Operation.PAIRRESYNC, peer=PeerRows({0: State.S_SSUS, 1: State.S_SSUS}), epoch=12, together=True)
    await seen(lab, PeerRows({0: State.S_COPY, 1: State.S_COPY}, 1, held=True))
    assert not lab.room._groups["oradb"].rows().held
    assert await seen(lab, PeerRows({0: S, 1: S}, 1, consistent=True)) == "P-VOL PAIR, P-VOL PAIR"
    assert lab.row().consistent


async def test_rows_are_held_while_a_change_is_under_way(lab: Lab) -> None:
    await lab.holding(P, P)
    lab.gates["journaling stop"] = gate = asyncio.Event()
    event = asyncio.ensure_future(lab.happen(Operation.PAIRSPLIT, generation=9))
    split = asyncio.ensure_future(lab.happen(Operation.PAIRSPLIT, peer=S_ROWS, together=True))
    await until(lambda: "journaling stop for P-VOL PSUS, P-VOL PSUS" in lab.calls)
    rows = lab.room._groups["oradb"].rows()
    assert (rows.held, rows.states) == (True, {0: P, 1: P})
    gate.set()
    await asyncio.gather(event, split)
    assert lab.room._groups["oradb"].rows().held, "the other side is perhaps still to be told"


async def test_rows_are_not_held_by_what_one_side_does_alone(lab: Lab) -> None:
    await lab.holding(P, P)
    lab.gates["journaling stop"] = gate = asyncio.Event()
    split = asyncio.ensure_future(lab.happen(Operation.PAIRSPLIT))
    await until(lambda: "journaling stop for P-VOL PSUS, P-VOL PSUS" in lab.calls)
    assert not lab.room._groups["oradb"].rows().held
    gate.set()
    await split
    assert not lab.room._groups["oradb"].rows().held


async def test_a_side_takes_its_place_beside_one_that_has_swapped_with_its_epoch(lab: Lab) -> None:
    await lab.holding(P, P, consistent=True)
    assert await seen(lab, PeerRows({0: P, 1: P}, 1, True, epoch=12)) == "S-VOL PAIR, S-VOL PAIR"
    assert (lab.row().epoch, lab.row().generation) == (12, 1)


async def test_a_stage_that_cannot_take_its_place_suspends_and_somebody_decides(lab: Lab) -> None:
    await lab.holding(P, P, consistent=True)
    lab.fails["journaling stop"] = [Refusal("hosts have written since")]
    assert await seen(lab, PeerRows({0: P, 1: P}, 1, True, epoch=12)) == "P-VOL PSUE, P-VOL PSUE"
    assert {pair.error for pair in lab.row().pairs} == {"hosts have written since"}


async def test_a_pair_that_the_other_side_ended_alone_suspends_the_group(lab: Lab) -> None:
    await lab.holding(P, P)
    assert await seen(lab, PeerRows({0: S}, 0)) == "P-VOL PSUS, P-VOL PSUS"


async def test_the_latest_rows_count(lab: Lab) -> None:
    await lab.holding(S, S)
    lab.gates["following stop"] = gate = asyncio.Event()
    split = asyncio.ensure_future(lab.happen(Operation.SVOL_SSUS, generation=9))
    group = lab.room._groups["oradb"]
    for _ in range(1000):
        group.seen(PeerRows({0: State.P_PSUE, 1: State.P_PSUE}))
    group.seen(PeerRows({0: P, 1: P}))
    assert len(group._tasks) == 1
    gate.set()
    await split
    await settled(lab)
    assert lab.states == "S-VOL PAIR, S-VOL PAIR"


def test_sides_go_together_in_one_generation_only() -> None:
    pairs = tuple(replace(pair, state=P) for pair in GROUP.pairs)
    row = replace(GROUP, pairs=pairs, generation=3)
    assert go_together(row, PeerRows({0: S, 1: S}, 3))
    assert not go_together(row, PeerRows({0: S, 1: S}, 2))
    assert not go_together(row, PeerRows({0: S}, 3))
    assert not go_together(row, PeerRows({0: S, 1: State.S_SSUS}, 3))
    assert P in P_RUNNING


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_the_stage_ends_with_its_row_when_the_array_stops() -> None:
    lab = Lab()
    await lab.holding(P, P)
    lab.gates["journaling stop"] = gate = asyncio.Event()
    split = asyncio.ensure_future(lab.happen(Operation.PAIRSPLIT))
    await asyncio.sleep(0)
    stage = lab.stage
    stopping = asyncio.ensure_future(lab.room.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done(), "the change under way goes on to its end"
    gate.set()
    await split
    await stopping
    stage.told.event(Event.ERROR, "too late")
    assert lab.taken()[-2:] == ["marking stop for P-VOL PSUS, P-VOL PSUS", "marking close"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await lab.end()


async def test_what_has_become_too_late_is_not_committed() -> None:
    """The other side's hosts may write again: the stage that has stopped is taken up, and the row stays."""
    lab = Lab()
    await lab.holding(State.S_PAIR, State.S_PAIR, consistent=True)
    lab.taken()
    lab.too_late = Refusal("too late")
    peer = PeerRows({0: State.P_PAIR, 1: State.P_PAIR})
    assert await lab.happen(Operation.SWAP, peer=peer, epoch=10) is lab.too_late
    assert lab.taken().count("commit") == 1, "the epoch is used, and no more"
    assert lab.states == "S-VOL PAIR, S-VOL PAIR"
    lab.check()
    await lab.end()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_s_vols_in_a_copy_are_at_no_position_that_is_kept() -> None:
    lab = Lab()
    await lab.holding(State.S_COPY, State.S_COPY, consistent=True)
    lab.progress = Progress(restored=Position(7, 7000))
    lab.stage.told.event(Event.ERROR, "the disk")
    await until(lambda: lab.idle and lab.states == "S-VOL PSUE, S-VOL PSUE")
    assert lab.row().restored == START
    await lab.end()


async def test_an_epoch_that_was_prepared_is_not_used_again() -> None:
    """A journal has seen it, and would refuse another group that comes with it: no pair could be made there again."""
    lab = Lab()
    lab.fails["following prepare"] = [VolumeError("broken")]
    with pytest.raises(VolumeError):
        await lab.room.create(GROUP, Operation.PAIRCREATE_VR, lab.save, copy=True)
    lab.begin()
    assert lab.table.last_epoch == GROUP.epoch
    with pytest.raises(PairsError, match=f"epoch {GROUP.epoch}: expected more than {GROUP.epoch}"):
        await lab.room.create(GROUP, Operation.PAIRCREATE_VR, lab.save, copy=True)
    lab.commit_fails = 1
    with pytest.raises(NotSavedError):
        await lab.room.create(replace(GROUP, epoch=GROUP.epoch + 1), Operation.PAIRCREATE_VR, lab.save, copy=True)
    assert lab.taken().count("following prepare") == 1, "not before it is durable"
    await lab.room.create(replace(GROUP, epoch=GROUP.epoch + 1), Operation.PAIRCREATE_VR, lab.save, copy=True)
    lab.check()
    await lab.end()
