"""The stage of a group changes in four steps, and whatever fails, no row says what the stage is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication import tail as tails
from arrayd.replication.group_rows import GroupRow, PeerRows
from arrayd.replication.journal.regions import Position
from arrayd.replication.meetings import COUNTERPART
from arrayd.replication.pairs import PairsError
from arrayd.replication.room import ReplicationError
from arrayd.replication.stages import Progress
from arrayd.replication.statuses import Event, Operation, Refusal, State
from arrayd.volumes.volume import VolumeError
from tests.lab.waiting import until
from tests.replication.stage_lab import GROUP, PAIR_A, PAIR_B, WHOLE, Lab, marked
from tests.replication.tables import NotSavedError

BROKEN = VolumeError("the disk is broken")
BOTH_S_PAIR = PeerRows({0: State.S_PAIR, 1: State.S_PAIR})


async def test_four_steps_in_their_order(lab: Lab) -> None:
    await lab.holding(State.P_PAIR, State.P_PAIR)
    assert lab.taken() == ["journaling prepare found", "journaling enter"]
    await lab.happen(Operation.PAIRSPLIT, peer=BOTH_S_PAIR)
    assert lab.taken() == [
        "journaling stop for P-VOL PSUS, P-VOL PSUS",
        "marking prepare",
        "commit",
        "marking enter",
        "journaling close",
    ]
    lab.check()


async def test_a_row_of_the_same_stage_is_told_to_it(lab: Lab) -> None:
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.taken()
    lab.stage.told.event(Event.JOURNAL_NEARLY_FULL, "")
    await until(lambda: lab.idle and lab.states == "P-VOL PFUL, P-VOL PFUL")
    assert lab.taken() == ["commit", "journaling changed to P-VOL PFUL, P-VOL PFUL"]


async def test_a_stage_that_refuses_to_end_goes_on(lab: Lab) -> None:
    await lab.holding(State.S_PAIR, State.S_PAIR, consistent=True)
    stage = lab.stage
    lab.taken()
    lab.fails["following stop"] = [no := Refusal("not yet")]
    assert await lab.happen(Operation.SVOL_SSUS) is no
    assert lab.taken() == ["following stop for S-VOL SSWS, S-VOL SSWS"]
    assert lab.stage is stage
    assert lab.states == "S-VOL PAIR, S-VOL PAIR"
    lab.check()


@pytest.mark.parametrize("step", ["journaling stop", "marking prepare"])
async def test_what_fails_before_the_commit_leaves_the_row_and_takes_the_group_up_again(lab: Lab, step: str) -> None:
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.taken()
    lab.fails[step] = [BROKEN]
    with pytest.raises(VolumeError, match="the disk is broken"):
        await lab.happen(Operation.PAIRSPLIT)
    assert lab.states == "P-VOL PAIR, P-VOL PAIR"
    assert lab.taken()[-3:] == ["journaling close", "journaling prepare found", "journaling enter"]
    assert any("the disk is broken" in note for note in lab.notes)
    lab.check()


async def test_what_is_not_committed_is_undone(lab: Lab) -> None:
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.taken()
    lab.commit_fails = 1
    with pytest.raises(NotSavedError):
        await lab.happen(Operation.PAIRSPLIT)
    assert lab.taken()[1:] == [
        "marking prepare",
        "marking close",
        "journaling close",
        "journaling prepare found",
        "journaling enter",
    ]
    lab.check()


async def test_a_stage_that_is_not_entered_is_taken_up_by_its_row(lab: Lab) -> None:
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.fails["marking enter"] = [RuntimeError("nobody foresaw it")]
    await lab.happen(Operation.PAIRSPLIT)
    assert lab.states == "P-VOL PSUS, P-VOL PSUS"
    assert lab.taken()[-4:] == ["journaling close", "marking close", "marking prepare found", "marking enter"]
    lab.check()


# -- taken up ----------------------------------------------------------------------------------------------------------


async def test_at_a_start_a_stage_that_cannot_be_prepared_suspends_its_group_and_all_of_it_differs(lab: Lab) -> None:
    lab.fails["journaling prepare"] = [BROKEN]
    await lab.holding(State.P_PAIR, State.P_PAIR)
    assert lab.states == "P-VOL PSUE, P-VOL PSUE"
    assert {pair.error for pair in lab.row().pairs} == {"the disk is broken"}
    assert lab.taken() == ["journaling prepare found", "marking prepare", "commit", "marking enter"]
    assert await marked(lab) == WHOLE
    lab.check()


async def test_volumes_that_were_followed_are_no_point_of_the_groups_writes_any_more(lab: Lab) -> None:
    lab.fails["following prepare"] = [BROKEN]
    await lab.holding(State.S_PAIR, State.S_PAIR, consistent=True)
    assert lab.states == "S-VOL PSUE, S-VOL PSUE"
    assert not lab.row().consistent
    assert await marked(lab) == WHOLE
    lab.check()


async def test_a_bitmap_that_is_lost_is_made_anew_and_the_row_stays(lab: Lab) -> None:
    lab.fails["marking prepare"] = [BROKEN]
    await lab.holding(State.P_PSUS, State.P_PSUS)
    assert lab.states == "P-VOL PSUS, P-VOL PSUS"
    assert lab.taken() == ["marking prepare found", "marking prepare found", "marking enter"]
    assert await marked(lab) == WHOLE
    lab.check()


async def test_where_nothing_can_be_written_hosts_are_refused_until_a_change_goes_well(lab: Lab) -> None:
    lab.fails["journaling prepare"] = [BROKEN]
    lab.stores.fails = True
    await lab.holding(State.P_PAIR, State.P_PAIR)
    assert lab.states == "P-VOL PAIR, P-VOL PAIR"
    assert lab.room._groups["oradb"].stages.trouble == "the disk is broken"
    assert lab.shown == {"v0": "standing", "v1": "standing"}
    lab.check()
    lab.stores.fails = False
    await lab.happen(Operation.PAIRSPLIT)
    assert lab.room._groups["oradb"].stages.trouble == ""
    assert lab.shown == {"v0": "marking", "v1": "marking"}
    assert await marked(lab) == WHOLE, "nobody knows what the journal had"
    lab.check()


async def test_s_vols_that_nobody_knows_anything_of_are_not_opened(lab: Lab) -> None:
    lab.fails["following prepare"] = [BROKEN]
    lab.stores.fails = True
    await lab.holding(State.S_PAIR, State.S_PAIR, consistent=True)
    lab.stores.fails = False
    refusal = await lab.happen(Operation.SVOL_SSUS)
    assert isinstance(refusal, Refusal)
    assert refusal.text == "the S-VOLs may be no point of the group's writes: the disk is broken"
    assert lab.states == "S-VOL PAIR, S-VOL PAIR"
    lab.check()
    await lab.happen(Operation.PAIRSPLIT)
    assert (lab.states, lab.row().consistent) == ("S-VOL SSUS, S-VOL SSUS", False)
    assert await marked(lab) == WHOLE
    lab.check()


async def test_volumes_that_could_not_be_taken_up_stay_guarded_as_long_as_their_states_stay(lab: Lab) -> None:
    """Else S-VOLs would be PAIR, followed, and no point of the group's writes."""
    lab.fails["following prepare"] = [BROKEN]
    lab.stores.fails = True
    await lab.holding(State.S_PAIR, State.S_PAIR, consistent=True)
    lab.stores.fails = False
    lab.taken()
    await lab.room.keep("oradb", lab.save, pace=3, driver=None)
    assert (lab.states, lab.row().consistent, lab.row().pace) == ("S-VOL PAIR, S-VOL PAIR", True, 3)
    assert lab.shown == {"v0": "standing", "v1": "standing"}
    committed, *rest = lab.taken()
    assert committed == "commit"
    assert set(rest) == {"standing changed to S-VOL PAIR, S-VOL PAIR"}, "no other stage"
    nearly_full = dict.fromkeys(lab.row().states, State.P_PFUL)
    at_work = lab.room._groups["oradb"]
    at_work.seen(PeerRows(nearly_full, generation=lab.row().generation, consistent=True))
    await until(lambda: lab.states == "S-VOL PFUL, S-VOL PFUL")
    assert lab.row().consistent
    assert lab.shown == {"v0": "standing", "v1": "standing"}
    lab.check()


async def test_an_array_does_not_start_that_cannot_even_refuse_writes() -> None:
    lab = Lab()
    lab.stores.fails = True
    lab.fails = {"journaling prepare": [BROKEN], "standing prepare": [VolumeError("no such volume")]}
    with pytest.raises(ReplicationError, match="group oradb: no such volume"):
        await lab.holding(State.P_PAIR, State.P_PAIR)
    await lab.end()


# -- pairs that come and go --------------------------------------------------------------------------------------------


async def test_a_pair_that_ends_alone_is_shown_plain_and_the_rest_goes_on_as_found(lab: Lab) -> None:
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.stores.there[f"{GROUP.id.hex()}-1.bitmap"] = lab.stores.there["x"] = lab.volumes["v3"]
    lab.taken()
    await lab.happen(Operation.PAIRSPLIT_S, pair=1)
    assert lab.taken() == [
        "journaling stop for P-VOL PAIR, P-VOL PAIR",
        "journaling prepare found",
        "commit",
        "journaling enter",
        "show v1 plain",
        "journaling close",
    ]
    assert set(lab.stores.there) == {"x"}
    lab.check()


async def test_a_group_that_ends_is_shown_plain_while_its_stage_lets_go_of_writes_that_wait(lab: Lab) -> None:
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.taken()
    assert await lab.happen(Operation.PAIRSPLIT_S) is None
    told = lab.taken()
    assert told[:2] == ["journaling stop for nothing", "commit"]
    assert told[-1] == "journaling close"
    assert set(told[2:-1]) == {"show v0 plain", "show v1 plain"}
    assert lab.room.at_work("oradb") is None
    lab.check()


@pytest.mark.parametrize(("copy", "bytes_marked"), [(True, 64 * 1024), (False, 0)])
async def test_volumes_that_become_s_vols_differ_wholly_or_not_at_all(lab: Lab, copy: bool, bytes_marked: int) -> None:
    await lab.room.create(GROUP, Operation.PAIRCREATE_VR, lab.save, copy=copy)
    assert lab.taken() == ["commit", "following prepare", "commit", "following enter"], "first of the epoch alone"
    assert await marked(lab) == dict.fromkeys(WHOLE, bytes_marked)
    lab.check()


async def test_p_vols_that_are_new_have_no_bitmap(lab: Lab) -> None:
    await lab.room.create(GROUP, Operation.PAIRCREATE_VL, lab.save, copy=True)
    assert lab.stores.there == {}
    lab.check()


@pytest.mark.parametrize("step", ["following prepare", "commit"])
async def test_a_group_that_cannot_be_made_leaves_nothing(lab: Lab, step: str) -> None:
    lab.fails[step] = [BROKEN]
    lab.save_fails = step == "commit"
    with pytest.raises((VolumeError, NotSavedError)):
        await lab.room.create(GROUP, Operation.PAIRCREATE_VR, lab.save, copy=True)
    assert (lab.stores.there, lab.shown, lab.table.groups()) == ({}, {}, [])
    assert lab.room.at_work("oradb") is None
    assert lab.taken() == ["commit", "following prepare", *(["following close"] if step == "commit" else [])]


async def test_pairs_are_added_to_a_group_that_runs_and_the_rest_goes_on_as_found(lab: Lab) -> None:
    await lab.room.create(replace(GROUP, pairs=(PAIR_A,)), Operation.PAIRCREATE_VR, lab.save, copy=False)
    lab.taken()
    await lab.room.create(replace(GROUP, pairs=(PAIR_B,)), Operation.PAIRCREATE_VR, lab.save, copy=True)
    assert lab.taken() == [
        "following stop for S-VOL COPY",
        "following prepare found",
        "commit",
        "following enter",
        "following close",
    ]
    assert sorted((await marked(lab)).values()) == [0, 64 * 1024]
    await lab.happen(Operation.PAIRSPLIT)
    with pytest.raises(PairsError, match="group oradb: it is suspended: pairresync first"):
        await lab.room.create(replace(GROUP, pairs=(PAIR_B,)), Operation.PAIRCREATE_VR, lab.save, copy=True)
    lab.check()


# -- what is kept ------------------------------------------------------------------------------------------------------


async def test_the_row_keeps_how_far_the_s_vols_are(lab: Lab) -> None:
    await lab.holding(State.S_PAIR, State.S_PAIR, consistent=True)
    lab.progress = Progress(restored=Position(7, 4096))
    after = await lab.happen(Operation.SVOL_SSUS)
    assert after.restored == Position(7, 4096)
    assert lab.database.pairs().groups()[0].restored == Position(7, 4096)


async def test_of_another_epoch_the_positions_are_others(lab: Lab) -> None:
    await lab.holding(State.S_PAIR, State.S_PAIR, consistent=True)
    lab.progress = Progress(restored=Position(7, 4096))
    peer = PeerRows({0: State.P_PAIR, 1: State.P_PAIR})
    after = await lab.happen(Operation.SWAP, peer=peer, epoch=12)
    assert (after.epoch, after.restored, after.acknowledged) == (12, Position(0, 0), Position(0, 0))


# -- the tail of a journal ---------------------------------------------------------------------------------------------


class Tail:
    needed = True

    def __call__(self, *_stage: object) -> bool:
        return self.needed


async def test_a_journal_is_served_until_the_other_side_has_its_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "TAIL_CHECK_SECONDS", 0.001)
    await lab.holding(State.P_PAIR, State.P_PAIR)
    journaling = lab.stage
    journaling.tail = tail = Tail()  # type: ignore[attr-defined]
    await lab.happen(Operation.PAIRSPLIT)
    stages = lab.room._groups["oradb"].stages
    assert stages.answering is journaling
    assert lab.stage.kind == "marking"
    assert "journaling close" not in lab.taken()
    tail.needed = False
    await until(lambda: "journaling close" in lab.calls)
    assert stages.answering is lab.stage


async def test_the_tail_ends_before_the_array_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "TAIL_CHECK_SECONDS", 60.0)
    lab = Lab()
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.stage.tail = Tail()  # type: ignore[attr-defined]
    await lab.happen(Operation.PAIRSPLIT)
    lab.taken()
    await lab.end()
    assert lab.taken() == ["journaling close", "marking stop for P-VOL PSUS, P-VOL PSUS", "marking close"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("how", ["another change", "too long"])
async def test_the_tail_ends_without_the_other_side(lab: Lab, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "TAIL_CHECK_SECONDS", 0.001)
    await lab.holding(State.P_PAIR, State.P_PAIR)
    lab.stage.tail = Tail()  # type: ignore[attr-defined]
    await lab.happen(Operation.PAIRSPLIT)
    lab.taken()
    if how == "another change":
        await lab.happen(Operation.PAIRRESYNC, peer=PeerRows({0: State.S_SSUS, 1: State.S_SSUS}), epoch=12)
        assert lab.taken()[:2] == ["journaling close", "marking stop for P-VOL COPY, P-VOL COPY"]
    else:
        lab.skipped = tails.TAIL_SECONDS
        await until(lambda: lab.taken() == ["journaling close"])


# -- whatever happens --------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from([*Operation, *Event]),
        st.sampled_from(
            [None, None, "commit", "stores"]
            + [
                f"{kind} {call}"
                for kind in ("journaling", "marking", "following", "standing")
                for call in ("stop", "prepare", "enter")
            ]
        ),
        st.sampled_from([BROKEN, Refusal("no"), RuntimeError("nobody foresaw it")]),
        st.sampled_from([None, None, 0, 1]),
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([state for state in State if state is not State.SMPL]), STEPS)
def test_whatever_fails_no_row_says_what_hosts_do_not_see(state: State, steps: list[Any]) -> None:
    asyncio.run(through(state, steps))


async def through(state: State, steps: list[tuple[Any, str | None, Any, int | None]]) -> None:
    lab = Lab()
    await lab.holding(state, state, consistent=True)
    epoch = 10
    for happening, failing, how, pair in steps:
        at_work = lab.room.at_work("oradb")
        if at_work is None or at_work.stages.stage is None:
            break
        lab.commit_fails, lab.stores.fails = int(failing == "commit"), failing == "stores"
        refuses = isinstance(how, Refusal)
        lab.fails = {} if failing is None or (refuses and "stop" not in failing) else {failing: [how]}
        epoch += 1
        if isinstance(happening, Event):
            change: Callable[..., Any] = at_work._happening(happening, None, "why")
        elif happening in (Operation.PAIRCREATE_VL, Operation.PAIRCREATE_VR):
            continue
        else:
            change = at_work._happening(happening, counterpart(lab.row()), epoch=epoch, pair=pair)
        try:
            await at_work._take(partial(at_work._saved, change, lab.save))
        except (VolumeError, NotSavedError, RuntimeError, PairsError):
            pass
        lab.fails, lab.commit_fails = {}, 0
        lab.check()
    await lab.end()


def counterpart(row: GroupRow) -> PeerRows:
    """What the other side shows beside this row, if all is as it was told."""
    return PeerRows({number: COUNTERPART[state] for number, state in row.states.items()}, row.generation)
