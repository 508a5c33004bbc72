"""How a host sends a command to an array: by a command device (figures 7 and 22), or by messages (figures 26 to 41)."""

from __future__ import annotations

import asyncio
from random import Random

from arrayd.commands import slots
from arrayd.commands.formats import Answer, FormatError, Request, State, decode_answer
from arrayd.commands.messages import BUFFER_MODE, Destination, Message
from arrayd.commands.results import Result
from tests.simulation.doors import Gone
from tests.simulation.hosts import HostLun, Initiator
from tests.simulation.world import Machine, Violated, World

ANSWER_BYTES = 8192
LANES = 256


class Way:
    """How commands get to a machine: by the command device at `lun` of the array that `initiator` is attached to, or,
    if `addresses` is not None, by messages with this transfer destination."""

    def __init__(
        self, initiator: Initiator, machine: Machine, lun: int, addresses: tuple[str, ...] | None = None
    ) -> None:
        self.initiator = initiator
        self.machine = machine
        self.device = HostLun(initiator, lun)
        self.addresses = addresses


class Sender:
    """Sends commands; `random` chooses slots and lanes. `limit_s` is the time limit of each message, however long its
    host waits: what is sent again is the same message."""

    def __init__(self, world: World, random: Random, limit_s: float) -> None:
        self._now = world.loop.time
        self._limit_s = limit_s
        self._random = random

    async def send(self, request: Request, way: Way, seconds: float) -> Answer | None:
        """Sends it, and waits so long; None: no answer was heard."""
        if way.addresses is None:
            return await self.by_device(request, way.device, seconds)
        return await self._by_message(request, way.initiator, way.addresses, seconds)

    async def by_device(self, request: Request, device: HostLun, seconds: float) -> Answer | None:
        """Likewise, by that device."""
        try:
            return await slots.send(device, request, self._random.randrange, self._now, self._now() + seconds)
        except slots.NoAnswerError:
            return None

    async def _by_message(
        self, request: Request, initiator: Initiator, addresses: tuple[str, ...], seconds: float
    ) -> Answer | None:
        parts = (Destination(addresses), request) if addresses else (request,)
        message = Message(request.identification, parts, int(self._limit_s * 1000)).encode()
        until = self._now() + seconds
        while self._now() < until:
            try:
                answer = await self._by_lane(message, request, initiator, until)
            except Gone:
                answer = None
            if answer is not None:
                return answer
            await asyncio.sleep(0.1)
        return None

    async def _by_lane(self, message: bytes, request: Request, initiator: Initiator, until: float) -> Answer | None:
        """WRITE BUFFER, and READ BUFFER until there is an answer; None: to be written again."""
        lane, length = self._random.randrange(LANES), len(message).to_bytes(3)
        written = await initiator.command(0, bytes((0x3B, BUFFER_MODE, lane)) + bytes(3) + length + b"\0", message)
        while written.good and self._now() < until:
            cdb = bytes((0x3C, BUFFER_MODE, lane)) + bytes(3) + ANSWER_BYTES.to_bytes(3) + b"\0"
            response = await initiator.command(0, cdb, expected_in=ANSWER_BYTES)
            if not response.good:
                return None
            try:
                answer = decode_answer(response.data)
            except FormatError as error:
                raise Violated(f"{initiator.name}: {error}") from error
            if answer.identification != request.identification or answer.result == Result.UNKNOWN_IDENTIFICATION:
                return None
            if answer.state is not State.RUNNING:
                return answer
            await asyncio.sleep(0.05)
        return None
