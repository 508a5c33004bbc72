"""The slots of a command device: what hosts write there is executed, and what became of it is read there (figures 6-9).

A slot is in use from the WRITE of a REQUEST until its answer has been read, all of it, or acknowledged, or has stood
for ANSWER_SECONDS. Who writes to a slot in use is refused, so nobody's command or answer is lost to another's. Reading
destroys nothing: the answer stands until the slot is used again. `docs/formats.md` promises this to hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from arrayd.commands.execution import refused
from arrayd.commands.formats import (
    ACKNOWLEDGE,
    COMMANDS_AT,
    DESCRIPTION,
    DEVICE_BYTES,
    HEAD_BYTES,
    IDENTIFICATION_AT,
    PAGE_BYTES,
    REQUEST_BYTES,
    SLOT_BYTES,
    SLOTS,
    VERSION,
    Answer,
    FormatError,
    Request,
    State,
    decode_request,
    written_by,
)
from arrayd.commands.history import Entry
from arrayd.commands.results import Result
from arrayd.origin import Origin
from arrayd.volumes.volume import VolumeRefused

ANSWER_SECONDS = 60.0
"""After so long an answer that nobody has read need not stand any longer."""
HOLD_SECONDS = 0.2
"""A READ of the answer to a command that runs is held for so long, in case it ends."""

Execute = Callable[[Origin, Request, str, int], Entry]
"""`execute(origin, request, device, slot)`."""


class Slot:
    """One slot: the command in it, as it was written, and the name of who wrote it; None in one that was never used,
    and where nobody knows any more."""

    __slots__ = ("delivered", "ended_at", "entry", "request", "wanted", "writer")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.request = b""
        self.delivered = False
        self.wanted = True
        """Whether whoever wrote it is to read the answer."""
        self.ended_at = 0.0
        self.writer: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self.entry is not None and self.entry.answer is not None


class Mailbox:
    """The command device `device` of the array `name`. `begun()` is how many commands were begun; `now()` the time in
    seconds."""

    size = DEVICE_BYTES

    def __init__(
        self, device: str, name: str, serial: str, execute: Execute, begun: Callable[[], int], now: Callable[[], float]
    ) -> None:
        self.device = device
        self._name = name
        self._described = self._describe(serial)
        self._execute = execute
        self._begun = begun
        self._now = now
        self._slots = [Slot() for _ in range(SLOTS)]

    def restore(self, number: int, entry: Entry) -> None:
        """Puts back what was in a slot when the array was stopped. What had ended then may have been read."""
        if 0 <= number < SLOTS and entry.answer is not None:
            slot = self._slots[number]
            slot.entry, slot.ended_at = entry, self._now()
            slot.delivered = entry.answer.result != Result.INTERRUPTED

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, origin: Origin, offset: int, view: memoryview) -> Awaitable[None] | None:
        """Fills `view`; later, if that is the answer to a command that runs. What others wrote, and were answered, is
        not told."""
        first, last = offset // SLOT_BYTES - 1, (offset + len(view) - 1) // SLOT_BYTES - 1
        if first == last >= 0:
            entry = self._slots[first].entry
            if entry is not None and entry.answer is None and offset % SLOT_BYTES >= REQUEST_BYTES:
                return self._read_later(entry, origin, offset, view)
        self._fill(origin, offset, view)
        return None

    async def _read_later(self, entry: Entry, origin: Origin, offset: int, view: memoryview) -> None:
        ended = asyncio.Event()

        def end(_answer: Answer) -> None:
            ended.set()

        entry.when_ended(end)
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                await ended.wait()
        except TimeoutError:
            entry.drop(end)
        self._fill(origin, offset, view)

    def _fill(self, origin: Origin, offset: int, view: memoryview) -> None:
        view[:] = bytes(len(view))
        end = offset + len(view)
        if offset < PAGE_BYTES:
            _overlay(view, offset, 0, self._description())
        for number in range(max(offset // SLOT_BYTES - 1, 0), min((end - 1) // SLOT_BYTES, SLOTS)):
            slot = self._slots[number]
            self._fill_slot(slot, slot.writer in (None, origin.name), (number + 1) * SLOT_BYTES, offset, view)

    def _fill_slot(self, slot: Slot, told: bool, at: int, offset: int, view: memoryview) -> None:
        state = self._state(slot)
        if told and state in (State.RUNNING, State.DONE):
            _overlay(view, offset, at, slot.request)
        answer_at = at + REQUEST_BYTES
        if offset + len(view) <= answer_at:
            return
        answer = Answer(state) if slot.entry is None else slot.entry.answer or Answer(state, slot.entry.identification)
        data = Answer(state, answer.identification, answer.result, answer.edited if told else b"").encode()
        _overlay(view, offset, answer_at, data)
        if told and slot.ended and offset <= answer_at and offset + len(view) >= answer_at + len(data):
            slot.delivered = True

    def _describe(self, serial: str) -> bytes:
        told = {
            "version": VERSION,
            "slots": SLOTS,
            "slot_bytes": SLOT_BYTES,
            "request_bytes": REQUEST_BYTES,
            "name": self._name,
            "serial": serial,
            "commands": 0,
            "states": bytes(SLOTS),
        }
        return DESCRIPTION.build(told)  # type: ignore[no-any-return]

    def _description(self) -> bytes:
        commands = self._begun().to_bytes(8)
        behind = self._described[COMMANDS_AT + len(commands) : -SLOTS]
        return self._described[:COMMANDS_AT] + commands + behind + bytes(map(self._state, self._slots))

    def _state(self, slot: Slot) -> State:
        if slot.entry is None:
            return State.FREE
        if slot.entry.answer is None:
            return State.RUNNING
        read = slot.delivered or not slot.wanted
        return State.DELIVERED if read or self._now() - slot.ended_at > ANSWER_SECONDS else State.DONE

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, origin: Origin, offset: int, data: bytes) -> Awaitable[None] | None:
        """Takes what was written by one WRITE. Raises VolumeRefused; else there is an answer to be read, errors too."""
        number, within = divmod(offset, SLOT_BYTES)
        number -= 1
        if number < 0 or within:
            raise VolumeRefused("a command is written at the beginning of a slot, all of it at once")
        slot = self._slots[number]
        in_use = self._state(slot) in (State.RUNNING, State.DONE)
        if not any(data):
            if in_use:
                raise VolumeRefused("the slot is in use")
            return None
        try:
            request = decode_request(data[:REQUEST_BYTES])
        except FormatError as error:
            request = Request(ACKNOWLEDGE, written_by(data, IDENTIFICATION_AT))
            entry = refused(request, Result.MALFORMED, str(error), self._name)
        else:
            if request.process == ACKNOWLEDGE:
                self._acknowledge(slot, request)
                return None
            own = slot.entry is not None and slot.entry.identification == request.identification
            if in_use and not own:
                raise VolumeRefused("the slot is in use")
            entry = self._execute(origin, request, self.device, number)
        if entry is not slot.entry:
            if in_use:
                raise VolumeRefused("the slot is in use")
            self._put(slot, entry, origin, data[: HEAD_BYTES + len(request.input)], request.edited)
        return entry.taken

    def _acknowledge(self, slot: Slot, request: Request) -> None:
        """The answer to the slot's command has come."""
        if slot.entry is None or slot.entry.identification != request.identification:
            raise VolumeRefused("the slot has no such command")
        if not slot.ended:
            raise VolumeRefused("the command has not ended")
        slot.delivered = True

    def _put(self, slot: Slot, entry: Entry, origin: Origin, request: bytes, edited: bool) -> None:
        """A command, or the refusal of one, is in the slot. A refusal is to be read, but does not keep the slot: who
        has not read it writes again, and is told again."""
        slot.entry, slot.request, slot.delivered, slot.writer = entry, request, False, origin.name
        slot.wanted = edited and entry.remembered

        def end(answer: Answer) -> None:
            slot.ended_at = self._now()
            if slot.entry is entry and answer.result and entry.remembered:
                slot.wanted = True  # an error is to be read, whether or not edited data was asked for

        entry.when_ended(end)


def _overlay(view: memoryview, offset: int, at: int, data: bytes) -> None:
    """Copies what of `data`, which stands at `at`, lies in `view`, which stands at `offset`."""
    start, end = max(at, offset), min(at + len(data), offset + len(view))
    if start < end:
        view[start - offset : end - offset] = data[start - at : end - at]
