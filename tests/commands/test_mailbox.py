"""The slots of a command device: figures 6 to 9 from the array's side, and what hosts are promised of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.commands.execution import refused
from arrayd.commands.formats import (
    ACKNOWLEDGE,
    DEVICE_BYTES,
    HEAD_BYTES,
    PAGE_BYTES,
    REQUEST_BYTES,
    SLOT_BYTES,
    SLOTS,
    Answer,
    Request,
    State,
    decode_answer,
    decode_description,
)
from arrayd.commands.mailbox import ANSWER_SECONDS, Mailbox
from arrayd.commands.results import Result
from arrayd.origin import Origin
from arrayd.volumes.volume import VolumeRefused
from tests.commands.conftest import INITIATOR, STRANGER, Section, number
from tests.lab.search import examples

BLOCK = 512


class Device:
    """A mailbox, as a host uses it."""

    def __init__(self, section: Section) -> None:
        executor = section.executor
        self.mailbox = Mailbox("410001:c", "a", "410001", executor.execute, lambda: executor.begun, section.clock)

    async def read(self, offset: int, length: int, origin: Origin = INITIATOR) -> bytes:
        data = bytearray(length)
        pending = self.mailbox.read(origin, offset, memoryview(data))
        if pending is not None:
            await pending
        return bytes(data)

    async def write(self, slot: int, request: Request | bytes, origin: Any = INITIATOR) -> None:
        data = request if isinstance(request, bytes) else request.encode()
        pending = self.mailbox.write(origin, (slot + 1) * SLOT_BYTES, data + bytes(-len(data) % BLOCK))
        if pending is not None:
            await pending

    async def answer(self, slot: int, origin: Origin = INITIATOR) -> Answer:
        return decode_answer(await self.read((slot + 1) * SLOT_BYTES + REQUEST_BYTES, PAGE_BYTES, origin))

    async def request(self, slot: int) -> bytes:
        return await self.read((slot + 1) * SLOT_BYTES, PAGE_BYTES)

    async def ended(self, slot: int) -> None:
        """Waits for the command in a slot, without a READ."""
        entry = self.mailbox._slots[slot].entry
        assert entry is not None
        over = asyncio.Event()
        entry.when_ended(lambda _answer: over.set())
        await over.wait()

    async def states(self) -> list[int]:
        return list(decode_description(await self.read(0, PAGE_BYTES)).states)


@pytest.fixture
def device(section: Section) -> Device:
    return Device(section)


def say(counter: int, word: str = "yes", process: int = 1, edited: bool = True) -> Request:
    return Request(process, number(counter), json.dumps({"word": word}).encode(), edited)


async def test_figure_7_a_command_that_is_written_is_executed(device: Device, section: Section) -> None:
    """S701 and S702: the section finds data in the form of the interface in its command device."""
    await device.write(3, say(1))
    assert await device.answer(3) == Answer(State.DONE, number(1), Result.OK, b'{"said":"yes","times":1}')
    assert section.lab.said == {"yes": 1}


async def test_figure_9_edited_data_stands_until_it_is_read_and_the_command_is_deleted_then(device: Device) -> None:
    """S901 to S906, with edited data."""
    request = say(1)
    await device.write(0, request)
    await device.ended(0)
    assert (await device.states())[0] == State.DONE  # S904
    assert (await device.request(0))[: len(request.encode())] == request.encode()
    answer = await device.answer(0)  # S905
    assert (answer.state, answer.result) == (State.DONE, Result.OK)
    assert (await device.states())[0] == State.DELIVERED
    assert await device.request(0) == bytes(PAGE_BYTES)  # S906


async def test_figure_9_without_edited_data_the_command_is_deleted_at_once(device: Device) -> None:
    """S903, then S906."""
    await device.write(0, say(1, edited=False))
    answer = await device.answer(0)
    assert (answer.state, answer.result, answer.edited) == (State.DELIVERED, Result.OK, b"")
    assert await device.request(0) == bytes(PAGE_BYTES)


async def test_an_error_is_to_be_read_whether_or_not_edited_data_was_asked_for(device: Device) -> None:
    await device.write(0, Request(4, number(1), edited=False))
    await device.ended(0)
    assert (await device.states())[0] == State.DONE
    answer = await device.answer(0)
    assert answer.result == Result.INTERNAL
    assert json.loads(answer.edited)["at"] == "a"


async def test_a_refusal_is_to_be_read_and_does_not_keep_the_slot(device: Device) -> None:
    await device.write(0, Request(9, number(1)))
    assert (await device.states())[0] == State.DELIVERED
    answer = await device.answer(0)
    assert answer.result == Result.UNKNOWN_COMMAND
    assert json.loads(answer.edited)["at"] == "a"


async def test_what_was_refused_may_be_written_again_and_is_executed(device: Device, section: Section) -> None:
    """A request that was mended, and one that may come now, to the same slot under the same number."""
    await device.write(0, b"X" + say(1).encode()[1:])
    assert (await device.answer(0)).result == Result.MALFORMED
    await device.write(0, say(1))
    assert (await device.answer(0)).result == Result.OK
    await device.write(1, say(2), STRANGER)
    assert (await device.answer(1, STRANGER)).result == Result.NOT_AUTHORISED
    await device.write(1, say(2))
    assert (await device.answer(1)).result == Result.OK
    assert section.lab.said == {"yes": 2}


async def test_another_command_of_the_same_number_is_told_so(device: Device) -> None:
    await device.write(0, say(1))
    await device.answer(0)
    await device.write(0, say(1, "no"))
    assert (await device.answer(0)).result == Result.CONFLICT


async def test_a_stranger_does_not_take_the_slots(device: Device) -> None:
    for slot in range(SLOTS):
        await device.write(slot, say(slot + 1), STRANGER)
    assert set(await device.states()) == {State.DELIVERED}


async def test_what_one_host_wrote_and_was_answered_is_not_told_another(device: Device) -> None:
    """It sees that the slot is used, and how the command ended; its reads take nothing away."""
    await device.write(0, say(1))
    await device.ended(0)
    answer = await device.answer(0, STRANGER)
    assert (answer.state, answer.identification, answer.edited) == (State.DONE, number(1), b"")
    assert await device.read(SLOT_BYTES, PAGE_BYTES, STRANGER) == bytes(PAGE_BYTES)
    assert (await device.states())[0] == State.DONE
    assert (await device.answer(0)).edited == b'{"said":"yes","times":1}'


async def test_the_description_says_what_a_host_needs(device: Device) -> None:
    await device.write(5, say(1))
    await device.ended(5)
    told = decode_description(await device.read(0, PAGE_BYTES))
    assert (told.slots, told.slot_bytes, told.request_bytes) == (SLOTS, SLOT_BYTES, REQUEST_BYTES)
    assert (told.name, told.serial, told.commands) == ("a", "410001", 1)
    assert list(told.states) == [State.DONE if slot == 5 else State.FREE for slot in range(SLOTS)]
    assert device.mailbox.size == DEVICE_BYTES


async def test_a_read_of_the_answer_is_held_while_the_command_runs(device: Device, section: Section) -> None:
    await device.write(0, say(1, process=2))
    reading = asyncio.ensure_future(device.answer(0))
    await asyncio.sleep(0)
    assert not reading.done()
    section.lab.gate.set()
    assert (await reading).edited == b'{"said":"yes","times":1}'


async def test_a_read_is_not_held_for_long(device: Device) -> None:
    await device.write(0, say(1, process=2))
    answer = await device.answer(0)
    assert (answer.state, answer.identification) == (State.RUNNING, number(1))
    entry = device.mailbox._slots[0].entry
    assert entry is not None
    assert len(entry._waiting) == 1  # the slot's own: who read does not wait any more


async def test_other_slots_and_whole_devices_are_read_without_waiting(device: Device) -> None:
    await device.write(0, say(1, process=2))
    for offset, length in ((0, PAGE_BYTES), (SLOT_BYTES, PAGE_BYTES), (2 * SLOT_BYTES, PAGE_BYTES), (0, DEVICE_BYTES)):
        assert device.mailbox.read(INITIATOR, offset, memoryview(bytearray(length))) is None


async def test_the_same_command_written_again_is_executed_once(device: Device, section: Section) -> None:
    for slot in (0, 0, 7):
        await device.write(slot, say(1))
        assert (await device.answer(slot)).edited == b'{"said":"yes","times":1}'
    assert section.lab.said == {"yes": 1}


async def test_a_slot_in_use_is_nobody_else_s(device: Device, section: Section) -> None:
    """While the command runs, and until its answer has been read."""
    await device.write(0, say(1, process=2))
    for _ in range(2):
        for other in (say(2), b"nonsense", bytes(PAGE_BYTES)):
            with pytest.raises(VolumeRefused, match="in use"):
                await device.write(0, other)
        section.lab.gate.set()
        await device.ended(0)
    await device.answer(0)
    await device.write(0, say(2, "no"))
    assert (await device.answer(0)).identification == number(2)
    assert section.lab.said == {"yes": 1, "no": 1}


async def test_an_answer_that_was_read_stands_until_the_slot_is_used_again(device: Device) -> None:
    await device.write(0, say(1))
    first = await device.answer(0)
    again = await device.answer(0)
    assert (again.state, again.edited) == (State.DELIVERED, first.edited)


async def test_an_answer_is_read_when_its_last_byte_is(device: Device) -> None:
    await device.write(0, say(1, "x" * PAGE_BYTES))
    assert (await device.answer(0)).state == State.DONE
    assert (await device.states())[0] == State.DONE
    whole = decode_answer(await device.read(SLOT_BYTES + REQUEST_BYTES, 2 * PAGE_BYTES))
    assert json.loads(whole.edited)["said"] == "x" * PAGE_BYTES
    assert (await device.states())[0] == State.DELIVERED


async def test_an_acknowledgement_frees_the_slot(device: Device) -> None:
    await device.write(0, say(1))
    await device.ended(0)
    await device.write(0, Request(ACKNOWLEDGE, number(1)))
    assert (await device.states())[0] == State.DELIVERED


async def test_only_its_own_command_is_acknowledged_and_only_once_it_has_ended(device: Device) -> None:
    with pytest.raises(VolumeRefused, match="no such command"):
        await device.write(0, Request(ACKNOWLEDGE, number(1)))
    await device.write(0, say(1, process=2))
    with pytest.raises(VolumeRefused, match="has not ended"):
        await device.write(0, Request(ACKNOWLEDGE, number(1)))
    with pytest.raises(VolumeRefused, match="no such command"):
        await device.write(0, Request(ACKNOWLEDGE, number(2)))


async def test_an_answer_that_nobody_reads_does_not_stand_for_ever(device: Device, section: Section) -> None:
    await device.write(0, say(1))
    await device.ended(0)
    section.clock.now += ANSWER_SECONDS
    with pytest.raises(VolumeRefused):
        await device.write(0, say(2))
    section.clock.now += 1
    await device.write(0, say(2))


async def test_a_lost_answer_is_there_in_another_slot(device: Device, section: Section) -> None:
    """Its slot was read by somebody else, and used again before its host came."""
    await device.write(0, say(1))
    await device.answer(0)
    await device.write(0, say(2, "no"))
    assert (await device.answer(0)).identification == number(2)
    await device.write(1, say(1))
    assert (await device.answer(1)).edited == b'{"said":"yes","times":1}'
    assert section.lab.said == {"yes": 1, "no": 1}


async def test_what_is_no_command_is_answered_all_the_same(device: Device) -> None:
    nonsense = bytearray(say(1).encode())
    nonsense[0] = 0x58
    await device.write(0, bytes(nonsense))
    answer = await device.answer(0)
    assert (answer.result, answer.identification) == (Result.MALFORMED, number(1))
    assert json.loads(answer.edited) == {"error": "not a command", "at": "a"}
    await device.write(0, say(2))  # nobody need read that


async def test_who_may_not_is_told(device: Device, section: Section) -> None:
    await device.write(0, say(1), STRANGER)
    assert (await device.answer(0, STRANGER)).result == Result.NOT_AUTHORISED
    assert section.lab.said == {}


@pytest.mark.parametrize("offset", [0, BLOCK, PAGE_BYTES, SLOT_BYTES + BLOCK, SLOT_BYTES + REQUEST_BYTES])
async def test_commands_are_written_at_the_beginning_of_a_slot(device: Device, offset: int) -> None:
    with pytest.raises(VolumeRefused, match="beginning of a slot"):
        device.mailbox.write(INITIATOR, offset, say(1).encode())


async def test_zeros_are_no_command(device: Device) -> None:
    await device.write(0, bytes(REQUEST_BYTES))
    assert (await device.states())[0] == State.FREE


@pytest.mark.slow
async def test_sixteen_hosts_at_once_get_their_own_answers(device: Device, section: Section) -> None:
    """Each looks for a slot, and for another one when it is refused."""

    async def host(name: int) -> None:
        for counter in range(1, 20):
            identification = number(counter, host=bytes([name + 1]) * 8)
            word = f"{name}-{counter}"
            request = Request(1, identification, json.dumps({"word": word}).encode())
            while True:
                usable = [slot for slot, state in enumerate(await device.states()) if state in (0, 3)]
                slot = usable[(name * 7 + counter) % len(usable)]
                try:
                    await device.write(slot, request)
                except VolumeRefused:
                    continue
                answer = await device.answer(slot)
                while answer.identification == identification and answer.state == State.RUNNING:
                    answer = await device.answer(slot)  # on a slow machine a READ has waited as long as it may
                if answer.identification == identification:
                    break
            assert json.loads(answer.edited) == {"said": word, "times": 1}

    await asyncio.gather(*(host(name) for name in range(16)))
    assert set(section.lab.said.values()) == {1}
    assert len(section.lab.said) == 16 * 19


@settings(max_examples=examples(200))
@given(
    st.lists(
        st.tuples(
            st.integers(0, DEVICE_BYTES // BLOCK - 1),
            st.integers(1, 2 * PAGE_BYTES // BLOCK),
            st.binary(max_size=HEAD_BYTES),
        ),
        max_size=8,
    )
)
def test_any_write_and_any_read_is_taken_or_refused(accesses: list[tuple[int, int, bytes]]) -> None:
    mailbox = Mailbox(
        "410001:c",
        "a",
        "410001",
        lambda origin, request, *where: refused(request, Result.BUSY, "full", "a"),
        int,
        float,
    )
    for block, blocks, data in accesses:
        offset, length = block * BLOCK, min(blocks * BLOCK, DEVICE_BYTES - block * BLOCK)
        try:
            pending: Awaitable[None] | None = mailbox.write(INITIATOR, offset, data.ljust(length, b"\0")[:length])
            assert pending is None
        except VolumeRefused:
            pass
        view = bytearray(b"\xee" * length)
        assert mailbox.read(INITIATOR, offset, memoryview(view)) is None
        assert view.count(0xEE) < length
