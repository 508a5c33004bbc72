"""Two arrays with a group: they meet, and show what goes together in the end, whatever one of them was told alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import pytest

from arrayd.link.channel import Call
from arrayd.replication import meeting
from arrayd.replication.asking import (
    Outcome,
    Refused,
    decode_done,
    decode_met,
    fence,
    follow,
    meet,
    met,
)
from arrayd.replication.at_work import TOGETHER_SECONDS
from arrayd.replication.group_rows import PeerRows
from arrayd.replication.journal.regions import START
from arrayd.replication.pairs import PairsError
from arrayd.replication.stages import Answer
from arrayd.replication.statuses import Event, Operation, State
from tests.lab.waiting import until
from tests.replication.stage_lab import GROUP, FakeCall, Lab, two

GROUP_ID = GROUP.id


@pytest.fixture
async def sides(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Lab, Lab]]:
    monkeypatch.setattr(meeting, "MEET_SECONDS", 0.01)
    monkeypatch.setattr(meeting, "FOLLOWING_SECONDS", 0.02)
    here, there = two()
    yield here, there
    for side in (here, there):
        await side.end()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def begun(sides: tuple[Lab, Lab], state: State, counterpart: State) -> None:
    await asyncio.gather(sides[0].holding(state, state), sides[1].holding(counterpart, counterpart))


def show(sides: tuple[Lab, Lab], here: str, there: str) -> bool:
    idle = sides[0].idle and sides[1].idle
    expected = [f"P-VOL {here}, P-VOL {here}", f"S-VOL {there}, S-VOL {there}"]
    return idle and [side.states for side in sides] == expected


async def asked(lab: Lab, array: str, question: bytes) -> memoryview:
    call = FakeCall()
    lab.room.service(array)(cast(Call, call), memoryview(question))
    return memoryview(await call.came)


async def test_what_one_side_was_told_alone_the_other_learns(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PAIR, State.S_PAIR)
    await sides[0].happen(Operation.PAIRSPLIT)
    await until(lambda: show(sides, "PSUS", "SSUS"))
    for side in sides:
        side.check()


async def test_the_end_of_the_copy_is_seen_at_once(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_COPY, State.S_COPY)
    sides[1].stage.told.event(Event.COPY_END, "")
    await until(lambda: show(sides, "PAIR", "PAIR"))
    await until(lambda: sides[0].row().consistent)


async def test_a_change_is_told_at_once_and_not_in_the_next_round(
    sides: tuple[Lab, Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "MEET_SECONDS", 60.0)
    monkeypatch.setattr(meeting, "FOLLOWING_SECONDS", 60.0)
    await begun(sides, State.P_PAIR, State.S_PAIR)
    await until(lambda: all(side.questions for side in sides))
    sides[1].stage.told.event(Event.ERROR, "why")
    await until(lambda: show(sides, "PSUE", "PSUE"))


async def test_told_together_one_after_the_other_they_do_not_meet_in_between(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PSUS, State.S_SSUS)
    before = [PeerRows.of(side.row()) for side in sides]
    for at, side in enumerate(sides):
        await side.happen(Operation.PAIRRESYNC, peer=before[1 - at], epoch=12, together=True)
        for each in sides:
            questions = each.questions
            await until(lambda each=each, questions=questions: each.questions > questions + 1)  # type: ignore[misc]
    await until(lambda: show(sides, "COPY", "COPY"))
    assert [side.row().generation for side in sides] == [1, 1]
    await until(lambda: not any(side.room._groups["oradb"].rows().held for side in sides))


async def test_a_command_that_reached_one_side_only_is_seen_after_a_while(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PSUS, State.S_SSUS)
    await sides[0].happen(Operation.PAIRRESYNC, peer=PeerRows.of(sides[1].row()), epoch=12, together=True)
    questions = sides[0].questions
    await until(lambda: sides[0].questions > questions + 2)
    await until(lambda: show(sides, "COPY", "SSUS"))
    for side in sides:
        side.skipped = TOGETHER_SECONDS
    await until(lambda: show(sides, "PSUS", "SSUS"))
    await until(lambda: sides[0].row().generation == sides[1].row().generation == 1)


async def test_a_swap_that_reached_the_s_vols_only_is_carried_out_by_the_other_side(sides: tuple[Lab, Lab]) -> None:
    await asyncio.gather(
        sides[0].holding(State.P_PAIR, State.P_PAIR, consistent=True),
        sides[1].holding(State.S_PAIR, State.S_PAIR, consistent=True),
    )
    await sides[1].happen(Operation.SWAP, peer=PeerRows.of(sides[0].row()), epoch=12, together=True)
    for side in sides:
        side.skipped = TOGETHER_SECONDS
    await until(lambda: show((sides[1], sides[0]), "PAIR", "PAIR"))
    assert [side.row().epoch for side in sides] == [12, 12]
    for side in sides:
        side.check()


async def test_a_pair_that_ended_on_one_side_suspends_the_other_but_not_at_once(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PAIR, State.S_PAIR)
    await sides[1].happen(Operation.PAIRSPLIT_S)
    questions = sides[0].questions
    await until(lambda: sides[0].questions > questions + 2)
    assert sides[0].states == "P-VOL PAIR, P-VOL PAIR", "it is still to be told, perhaps"
    sides[1].skipped = TOGETHER_SECONDS
    await until(lambda: sides[0].idle and sides[0].states == "P-VOL PSUS, P-VOL PSUS")


async def test_a_group_that_is_being_made_is_not_missing(sides: tuple[Lab, Lab]) -> None:
    here, there = sides
    await here.holding(State.P_COPY, State.P_COPY)
    there.gates["following prepare"] = gate = asyncio.Event()
    making = asyncio.ensure_future(
        there.room.create(replace(GROUP, peer="here"), Operation.PAIRCREATE_VR, there.save, copy=True)
    )
    await until(lambda: "following prepare" in there.calls)
    questions = here.questions
    await until(lambda: here.questions > questions + 2)
    assert here.states == "P-VOL COPY, P-VOL COPY"
    gate.set()
    await making
    here.skipped = there.skipped = TOGETHER_SECONDS


async def test_a_pair_that_the_other_side_never_made_is_suspended(sides: tuple[Lab, Lab]) -> None:
    await sides[0].holding(State.P_COPY, State.P_COPY)
    await until(lambda: sides[0].idle and sides[0].states == "P-VOL PSUS, P-VOL PSUS")


async def test_a_side_that_hears_nothing_goes_on(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PAIR, State.S_PAIR)
    sides[0].peer = None
    questions = sides[0].questions
    await until(lambda: sides[0].questions > questions + 3)
    assert sides[0].states == "P-VOL PAIR, P-VOL PAIR"


@pytest.mark.parametrize("answered", [True, False])
async def test_what_a_change_has_overtaken_is_dropped_and_asked_again(
    answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "ANSWER_SECONDS", 60.0)
    lab = Lab()
    await lab.holding(State.P_PAIR, State.P_PAIR)
    group = lab.room._groups["oradb"]
    answers: list[asyncio.Future[Answer]] = []

    async def slowly(_array: str, _question: bytes, _expects: int) -> Answer:
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    task = asyncio.ensure_future(meeting.Meeting(group, slowly).run())
    await until(lambda: len(answers) == 1)
    group.changed()
    if answered:
        answers[0].set_result(Answer(memoryview(met(PeerRows({0: State.S_PSUE, 1: State.S_PSUE})))))
    await until(lambda: len(answers) == 2)
    assert lab.states == "P-VOL PAIR, P-VOL PAIR"
    answers[1].set_result(Answer(memoryview(met(PeerRows({0: State.S_SSUS, 1: State.S_SSUS})))))
    await until(lambda: lab.idle and lab.states == "P-VOL PSUS, P-VOL PSUS")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await lab.end()


# -- service 3 ---------------------------------------------------------------------------------------------------------


async def test_what_is_asked_by_another_array_is_answered_for_its_own_groups_only(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PAIR, State.S_PAIR)
    here = sides[0]
    rows = PeerRows.of(sides[1].row())
    assert decode_met(await asked(here, "there", meet(GROUP_ID, rows))) == PeerRows.of(here.row())
    for array, group in (("stranger", GROUP_ID), ("there", b"\x09" * 16)):
        with pytest.raises(Refused) as refused:
            decode_met(await asked(here, array, meet(group, PeerRows({0: State.S_PSUE, 1: State.S_PSUE}))))
        assert refused.value.outcome is Outcome.NO_GROUP
    assert here.states == "P-VOL PAIR, P-VOL PAIR"


@pytest.mark.parametrize("payload", [b"", b"\x7f" + GROUP_ID, meet(GROUP_ID, PeerRows({0: State.P_PAIR}))[:-1]])
async def test_what_is_no_question_is_answered(sides: tuple[Lab, Lab], payload: bytes) -> None:
    await begun(sides, State.P_PAIR, State.S_PAIR)
    with pytest.raises(Refused) as refused:
        decode_done(await asked(sides[0], "there", payload))
    assert refused.value.outcome is Outcome.FAILED


async def test_rows_that_are_none_are_answered_and_not_learned_from(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PAIR, State.S_PAIR)
    payload = bytearray(meet(GROUP_ID, PeerRows({0: State.P_PAIR})))
    payload[-1] = 99
    with pytest.raises(Refused, match=r"states \[99\], which there are not") as refused:
        decode_met(await asked(sides[0], "there", bytes(payload)))
    assert refused.value.outcome is Outcome.FAILED


async def test_other_questions_are_the_stages(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PAIR, State.S_PAIR)
    here = sides[0]
    decode_done(await asked(here, "there", follow(GROUP_ID, 1, START, START, 4096, 0)))
    here.fails["journaling answer"] = [RuntimeError("nobody foresaw it")]
    with pytest.raises(Refused, match="a fault of the array") as refused:
        decode_done(await asked(here, "there", fence(GROUP_ID, 1)))
    assert refused.value.outcome is Outcome.NOT_NOW
    assert [call for call in here.calls if "answers" in call] == [
        "journaling answers FOLLOW",
        "journaling answers FENCE",
    ]


async def test_groups_have_the_lowest_free_ctg(sides: tuple[Lab, Lab]) -> None:
    here = sides[0]
    assert here.room.free_ctg() == 0
    await here.holding(State.P_PAIR, State.P_PAIR, ctg=0)
    assert here.room.free_ctg() == 1


async def test_a_group_of_another_id_is_not_made(sides: tuple[Lab, Lab]) -> None:
    await begun(sides, State.P_PAIR, State.S_PAIR)
    other = replace(GROUP, id=b"\x02" * 16, epoch=20)
    with pytest.raises(PairsError, match="there is one, with another id"):
        await sides[0].room.create(other, Operation.PAIRCREATE_VL, sides[0].save, copy=True)
    assert sides[0].room.at_work("oradb") is not None
