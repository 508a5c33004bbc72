"""A host that commands arrays, over a session of the lab: by command devices and by messages."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

from arrayd.commands import processes, slots
from arrayd.commands.formats import (
    EDITED_BYTES_MAX,
    HEAD_BYTES,
    Answer,
    Identification,
    Request,
    State,
    decode_answer,
)
from arrayd.commands.messages import BUFFER_MODE, Destination, Message, Method
from arrayd.scsi.inner_initiator import NotDoneError
from tests.lab.initiator import CHECK_CONDITION, GOOD, Response, Session

COMMANDS = processes.REGISTRY.by_name
UNIT_ATTENTION = 6
TRIES = 20
BLOCK = 512
SECONDS = 10.0


class CommandFailed(Exception):
    """An answer with a result; the text is its reason, and where."""

    def __init__(self, answer: Answer) -> None:
        told = json.loads(answer.edited)
        super().__init__(f"{told['error']} (at {told['at']})" if isinstance(told, dict) else str(told))
        self.result = answer.result
        self.told = told


@dataclass
class HostLun:
    """A LUN on a session; see `arrayd.commands.slots.Lun`."""

    session: Session
    lun: int

    async def read(self, offset: int, length: int) -> bytes:
        cdb = bytes([0x28, 0, *(offset // BLOCK).to_bytes(4), 0, *(length // BLOCK).to_bytes(2), 0])
        return (await carried_out(self.session, cdb, self.lun, read_bytes=length)).data

    async def write(self, offset: int, data: bytes) -> None:
        cdb = bytes([0x2A, 0, *(offset // BLOCK).to_bytes(4), 0, *(len(data) // BLOCK).to_bytes(2), 0])
        await carried_out(self.session, cdb, self.lun, data_out=data)


async def carried_out(session: Session, cdb: bytes, lun: int, **transfer: Any) -> Response:
    """A command that ended well, unit attentions aside. Raises NotDoneError."""
    for _ in range(TRIES):
        response = await session.command(cdb, lun=lun, **transfer)
        if response.status == GOOD:
            return response
        if response.status != CHECK_CONDITION or response.sense_key != UNIT_ATTENTION:
            break
    raise NotDoneError(f"{response.status:#x} {response.sense_key:#x} {response.additional_sense:#06x}")


@dataclass
class Host:
    """A host with a session of its own; `name` begins its identification numbers."""

    session: Session
    name: bytes = b"testhost"
    counter: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    epoch: int = 1

    def number(self) -> Identification:
        """The next one."""
        return Identification(self.name, self.epoch, next(self.counter))

    def request(self, command: str | int, edited: bool = True, /, **told: Any) -> Request:
        """A command by its name, with its input parameter."""
        process = command if isinstance(command, int) else COMMANDS[command].number
        return Request(process, self.number(), json.dumps(told).encode(), edited)

    # -- command devices ---------------------------------------------------------------------------------------------

    async def by_device(self, lun: int, request: Request, seconds: float = SECONDS) -> Answer:
        """Figure 8."""
        until = time.monotonic() + seconds
        return await slots.send(HostLun(self.session, lun), request, random.randrange, time.monotonic, until)

    async def command(self, lun: int, command: str, /, **told: Any) -> Any:
        """The edited data of a command. Raises CommandFailed."""
        return edited(await self.by_device(lun, self.request(command, **told)))

    # -- messages ----------------------------------------------------------------------------------------------------

    async def write_message(self, message: Message | bytes, lane: int = 0, lun: int = 0) -> None:
        """WRITE BUFFER."""
        data = message if isinstance(message, bytes) else message.encode()
        cdb = bytes([0x3B, BUFFER_MODE, lane, 0, 0, 0, *len(data).to_bytes(3), 0])
        await carried_out(self.session, cdb, lun, data_out=data)

    async def read_answer(self, lane: int = 0, lun: int = 0) -> Answer:
        """READ BUFFER."""
        length = HEAD_BYTES + EDITED_BYTES_MAX
        cdb = bytes([0x3C, BUFFER_MODE, lane, 0, 0, 0, *length.to_bytes(3), 0])
        return decode_answer((await carried_out(self.session, cdb, lun, read_bytes=length)).data)

    async def by_message(self, message: Message, lane: int = 0, lun: int = 0) -> Answer:
        """Figure 30: S3005 to S3008."""
        await self.write_message(message, lane, lun)
        async with asyncio.timeout(message.time_left_ms / 1000 + SECONDS):
            while (answer := await self.read_answer(lane, lun)).state == State.RUNNING:
                pass
        assert answer.identification == message.identification
        return answer

    def message(
        self,
        *parts: Destination | Request,
        method: Method = Method.AS_CONFIGURED,
        seconds: float = SECONDS,
        **more: Any,
    ) -> Message:
        """A message; one with one command has its identification number."""
        first = next(part for part in parts if isinstance(part, Request))
        return Message(first.identification, parts, int(seconds * 1000), method, **more)

    async def addressed(
        self, path: tuple[str, ...], command: str, method: Method = Method.AS_CONFIGURED, /, **told: Any
    ) -> Any:
        """The edited data of a command for the last array of `path`. Raises CommandFailed."""
        request = self.request(command, **told)
        parts = (Destination(path), request) if path else (request,)
        return edited(await self.by_message(self.message(*parts, method=method)))


def edited(answer: Answer) -> Any:
    """The edited data. Raises CommandFailed."""
    if answer.result:
        raise CommandFailed(answer)
    return json.loads(answer.edited) if answer.edited else None
