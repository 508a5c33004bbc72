"""A wire between an initiator and an array that counts which commands are answered; it changes nothing. For sessions
without digests."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

BHS_BYTES: Final = 48
SCSI_COMMAND, SCSI_RESPONSE = 0x01, 0x21
OPCODE: Final = 0x3F
"""Of a PDU, without its immediate bit."""
SYNCHRONIZE_CACHE_10: Final = 0x35


class Tap:
    """What goes to `to` by way of `address`."""

    def __init__(self, to: str) -> None:
        self._to = to
        self.address = ""
        self.answered: Counter[tuple[int, int]] = Counter()
        """Commands that were answered with GOOD: LUN and operation code."""

    async def connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        host, port = self._to.rsplit(":", 1)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        sent: dict[bytes, tuple[int, int]] = {}
        ways = [
            asyncio.ensure_future(self._carry(reader, far_writer, sent)),
            asyncio.ensure_future(self._carry(far_reader, writer, sent)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, far_writer):
                end.transport.abort()
            await asyncio.gather(*ways)

    async def _carry(self, reader: StreamReader, writer: StreamWriter, sent: dict[bytes, tuple[int, int]]) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                header = await reader.readexactly(BHS_BYTES)
                more = 4 * header[4] + (int.from_bytes(header[5:8]) + 3) // 4 * 4
                rest = await reader.readexactly(more)
                tag = header[16:20]
                if header[0] & OPCODE == SCSI_COMMAND:
                    sent[tag] = header[9], header[32]
                elif header[0] & OPCODE == SCSI_RESPONSE and not any(header[2:4]):
                    self.answered[sent[tag]] += 1
                writer.write(header + rest)
                await writer.drain()


@asynccontextmanager
async def tap(to: str) -> AsyncIterator[Tap]:
    """One on the wire to `to`, host:port."""
    made = Tap(to)
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    try:
        yield made
    finally:
        server.close()
