"""One TCP connection to a portal for tests: PDUs go over it exactly as they are, digests included."""

import asyncio
from types import TracebackType
from typing import Final, Self

import crc32c

from tests.lab.pdu import DIGEST_BYTES, HEADER_BYTES, Pdu, pad

TIMEOUT_S: Final = 20.0


class IscsiError(Exception):
    """The connection ended, a login was refused, or the target answered what no target may."""


class Connection:
    """One TCP connection to a portal, over which PDUs go as they are. Close it, or use it as a context."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.header_digest = False
        self.data_digest = False

    @classmethod
    async def open(cls, address: str) -> Self:
        """Connect to ``HOST:PORT``."""
        host, _, port = address.rpartition(":")
        async with asyncio.timeout(TIMEOUT_S):
            return cls(*await asyncio.open_connection(host.strip("[]"), int(port)))

    async def close(self) -> None:
        """Close the connection without a word."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass  # the target may have closed it first

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, pdu: Pdu) -> None:
        """Send a PDU with padding and the digests in force; its lengths are filled in."""
        head = bytes(pdu.packed()) + pdu.additional
        pieces = [head]
        if self.header_digest:
            pieces.append(_digest(head))
        if pdu.data:
            data = pad(pdu.data)
            pieces.append(data)
            if self.data_digest:
                pieces.append(_digest(data))
        await self.send_bytes(b"".join(pieces))

    async def send_bytes(self, content: bytes) -> None:
        """Send any bytes at all. Raises IscsiError when the target has closed the connection."""
        try:
            self.writer.write(content)
            await self.writer.drain()
        except ConnectionError as ended:
            raise IscsiError("the target closed the connection") from ended

    async def receive(self, timeout: float | None = TIMEOUT_S) -> Pdu:
        """The next PDU, its digests checked. Raises IscsiError when the target closed the connection instead."""
        try:
            async with asyncio.timeout(timeout):
                return await self._receive()
        except (asyncio.IncompleteReadError, ConnectionError) as ended:
            raise IscsiError("the target closed the connection") from ended

    async def receive_end(self, timeout: float = TIMEOUT_S) -> None:
        """The target must close the connection without another PDU."""
        try:
            async with asyncio.timeout(timeout):
                more = await self.reader.read(HEADER_BYTES)
        except ConnectionError:
            return
        if more:
            raise IscsiError(f"{more.hex(' ', -4)} where the connection had to end")

    async def _receive(self) -> Pdu:
        header = await self.reader.readexactly(HEADER_BYTES)
        additional = await self.reader.readexactly(header[4] * 4)
        if self.header_digest:
            _check(await self.reader.readexactly(DIGEST_BYTES), header + additional)
        length = int.from_bytes(header[5:8])
        data = await self.reader.readexactly(length + -length % 4)
        if self.data_digest and length:
            _check(await self.reader.readexactly(DIGEST_BYTES), data)
        return Pdu(bytearray(header), data[:length], additional)


def _digest(content: bytes) -> bytes:
    return crc32c.crc32c(content).to_bytes(DIGEST_BYTES, "little")


def _check(digest: bytes, content: bytes) -> None:
    if digest != _digest(content):
        raise IscsiError("wrong digest")
