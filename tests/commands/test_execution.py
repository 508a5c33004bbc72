"""The command execution section: each command once, by who may, with an answer whatever happens."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from arrayd.commands import execution
from arrayd.commands.formats import EDITED_BYTES_MAX, Answer, Request, State
from arrayd.commands.history import REMEMBER_SECONDS, Entry
from arrayd.commands.results import Result
from arrayd.origin import Origin
from tests.commands.conftest import INITIATOR, STRANGER, Section, number


async def answered(entry: Entry) -> Answer:
    over: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    entry.when_ended(over.set_result)
    return await over


async def run(section: Section, request: Request, origin: Origin = INITIATOR) -> Answer:
    return await answered(section.executor.execute(origin, request))


def error(answer: Answer) -> str:
    told = json.loads(answer.edited)
    assert told["at"] == "a"
    return str(told["error"])


async def test_a_command_is_executed_and_its_edited_data_is_the_answer(section: Section) -> None:
    answer = await run(section, Request(1, number(1), b'{"word":"yes"}'))
    assert answer == Answer(State.DONE, number(1), Result.OK, b'{"said":"yes","times":1}')


async def test_edited_data_that_is_not_asked_for_is_not_there(section: Section) -> None:
    answer = await run(section, Request(1, number(1), b'{"word":"yes"}', edited=False))
    assert answer == Answer(State.DONE, number(1), Result.OK)


async def test_a_command_that_is_sent_twice_is_executed_once(section: Section) -> None:
    request = Request(1, number(1), b'{"word":"yes"}')
    assert await run(section, request) == await run(section, request)
    assert section.lab.said == {"yes": 1}


async def test_sent_twice_while_it_runs_it_is_executed_once(section: Section) -> None:
    request = Request(2, number(1), b'{"word":"yes"}')
    first, second = (section.executor.execute(INITIATOR, request) for _ in range(2))
    assert first is second
    section.lab.gate.set()
    await answered(first)
    assert section.lab.said == {"yes": 1}


async def test_an_identification_number_is_one_command_s(section: Section) -> None:
    await run(section, Request(1, number(1), b'{"word":"yes"}'))
    answer = await run(section, Request(1, number(1), b'{"word":"no"}'))
    assert (answer.result, error(answer)) == (Result.CONFLICT, "its identification number is another command's")
    assert section.lab.said == {"yes": 1}


async def test_below_the_remembered_window_is_an_error_and_no_execution(section: Section) -> None:
    await run(section, Request(3, number(2), b'{"word":"yes"}'))
    section.clock.now += REMEMBER_SECONDS
    section.history.prune()
    section.lab.words.clear()
    for counter in (1, 2):
        answer = await run(section, Request(3, number(counter), b'{"word":"yes"}'))
        assert answer.result == Result.FORGOTTEN
    assert section.lab.words == []


@pytest.mark.parametrize(
    ("request_", "result", "reason"),
    [
        (
            Request(9, number(1)),
            Result.UNKNOWN_COMMAND,
            "there is no command 9: `arrayctl commands` lists what there is",
        ),
        (Request(1, number(1), b"{}"), Result.BAD_INPUT, "word: Field required"),
        (Request(1, number(1), b'{"word":1}'), Result.BAD_INPUT, "word: Input should be a valid string"),
        (
            Request(1, number(1), b'{"word":"x","wort":1}'),
            Result.BAD_INPUT,
            "wort: Extra inputs are not permitted",
        ),
        (
            Request(1, number(1), b"\xff"),
            Result.BAD_INPUT,
            "Invalid JSON: expected value at line 1 column 1",
        ),
        (Request(4, number(1)), Result.INTERNAL, "a fault of the array: its log says more"),
        (
            Request(5, number(1), b'{"word":"' + b"x" * 20 + b'"}'),
            Result.TOO_LONG,
            f"edited data of 200021 bytes: {EDITED_BYTES_MAX} at the most; ask for less at a time",
        ),
    ],
)
async def test_an_error_has_a_result_and_a_reason(
    section: Section, request_: Request, result: Result, reason: str
) -> None:
    answer = await run(section, request_)
    assert (answer.result, error(answer)) == (result, reason)
    assert answer.state == State.DONE


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (
            STRANGER,
            "initiator iqn.1993-08.org.debian:01:host2 is not on this machine, and there are no commands.initiators",
        ),
        (Origin(INITIATOR.name, ("x",)), "array x is not among commands.arrays"),
        (
            Origin(INITIATOR.name, ("b",)),
            f"initiator {INITIATOR.name} is not on the machine of array b, and there are no commands.initiators",
        ),
        (Origin("a"), "initiator a is not on this machine, and there are no commands.initiators"),
        (Origin("c", is_array=True), "array c came by no link"),
    ],
)
async def test_who_is_not_named_commands_nothing(section: Section, origin: Origin, reason: str) -> None:
    answer = await run(section, Request(1, number(1), b'{"word":"yes"}'), origin)
    assert (answer.result, error(answer)) == (Result.NOT_AUTHORISED, reason)
    assert section.lab.said == {}
    assert len(section.history) == 0


async def test_more_than_can_be_at_work_are_refused(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "EXECUTING_MAX", 2)
    entries = [section.executor.execute(INITIATOR, Request(2, number(n), b'{"word":"x"}')) for n in (1, 2)]
    answer = await run(section, Request(1, number(3), b'{"word":"yes"}'))
    assert answer.result == Result.BUSY
    section.lab.gate.set()
    for entry in entries:
        await answered(entry)
    assert (await run(section, Request(1, number(3), b'{"word":"yes"}'))).result == Result.OK


async def test_a_change_and_its_answer_are_durable_together(section: Section, tmp_path: Path) -> None:
    answer = await run(section, Request(3, number(1), b'{"word":"yes"}'))
    assert answer.result == Result.OK
    with sqlite3.connect(tmp_path / "tables.db") as other:
        assert other.execute("SELECT name FROM monitors").fetchall() == [("yes",)]
        assert other.execute("SELECT result, edited FROM commands").fetchall() == [(0, answer.edited)]


async def test_a_change_that_fails_leaves_its_reason_and_nothing_else(section: Section, tmp_path: Path) -> None:
    section.lab.words.append("yes")
    answer = await run(section, Request(3, number(1), b'{"word":"yes"}'))
    assert (answer.result, error(answer)) == (Result.CONFLICT, "yes is kept already")
    with sqlite3.connect(tmp_path / "tables.db") as other:
        assert other.execute("SELECT * FROM monitors").fetchall() == []
        assert other.execute("SELECT result FROM commands").fetchall() == [(Result.CONFLICT,)]


async def test_tables_that_fail_undo_the_change(section: Section, tmp_path: Path) -> None:
    """The word is there already, which the command does not know: its transaction fails as a whole."""
    with sqlite3.connect(tmp_path / "tables.db") as other:
        other.execute("INSERT INTO monitors VALUES ('yes', '')")
    other.close()
    answer = await run(section, Request(3, number(1), b'{"word":"yes"}'))
    assert (answer.result, error(answer)) == (Result.FAILED, "tables: UNIQUE constraint failed: monitors.name")
    assert section.lab.words == []


async def test_what_was_saved_is_answered_even_if_a_fault_follows(section: Section) -> None:
    section.lab.fails_after_saving = True
    assert (await run(section, Request(3, number(1), b'{"word":"yes"}'))).result == Result.OK
    assert (await run(section, Request(3, number(1), b'{"word":"yes"}'))).result == Result.OK
    assert section.lab.words == ["yes"]


async def test_what_is_changed_apart_waits_for_its_like_alone(section: Section) -> None:
    slow = [section.executor.execute(INITIATOR, Request(6, number(n), b'{"word":"slow"}')) for n in (1, 2)]
    for entry in slow:
        assert entry.taken is not None
        await entry.taken
    for request in (Request(6, number(3), b'{"word":"quick"}'), Request(3, number(4), b'{"word":"x"}')):
        async with asyncio.timeout(10):
            assert (await run(section, request)).result == Result.OK
    assert section.lab.words == ["quick", "x"]
    assert [entry.answer for entry in slow] == [None, None]
    section.lab.gate.set()
    assert [(await answered(entry)).result for entry in slow] == [Result.OK, Result.CONFLICT]
    assert not section.executor._changing_apart


async def test_a_command_that_changes_something_is_in_the_tables_before_it_is_executed(section: Section) -> None:
    async with section.executor._changing:
        entry = section.executor.execute(INITIATOR, Request(3, number(1), b'{"word":"yes"}'), "device", 7)
        assert entry.taken is not None
        await entry.taken
        assert section.lab.words == []
        rows: list[tuple[str, int, None]] = []
        await section.tables.change(
            lambda connection: rows.extend(connection.execute("SELECT device, slot, result FROM commands"))
        )
        assert rows == [("device", 7, None)]
    assert (await answered(entry)).result == Result.OK
