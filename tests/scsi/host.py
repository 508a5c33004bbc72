"""A host that knows PERSISTENT RESERVE, for tests (SPC-5, 6.15 and 6.16)."""

from __future__ import annotations

from arrayd.scsi import transport_id
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Status
from tests.scsi.initiator import PORTS, Answer, Initiator

READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, REGISTER_AND_MOVE = range(8)
APTPL, ALL_TG_PT, SPEC_I_PT = 0x01, 0x04, 0x08
READ_10 = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
WRITE_10 = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0))
BLOCK = bytes(512)


class Host(Initiator):
    """An initiator that knows PERSISTENT RESERVE."""

    async def out(
        self, action: int, key: int = 0, new_key: int = 0, kind: int = 0, flags: int = 0, more: bytes = b""
    ) -> Answer:
        data = key.to_bytes(8, "big") + new_key.to_bytes(8, "big") + bytes((0, 0, 0, 0, flags, 0, 0, 0)) + more
        return await self.send(out_cdb(action, len(data), kind), data)

    async def out_good(self, action: int, key: int = 0, new_key: int = 0, kind: int = 0, flags: int = 0) -> None:
        answer = await self.out(action, key, new_key, kind, flags)
        assert answer.status == Status.GOOD, answer

    async def move(self, key: int, new_key: int, to: str, port: int, flags: int = 0, cut: int = 0) -> Answer:
        named = transport_id.build(to)
        data = key.to_bytes(8, "big") + new_key.to_bytes(8, "big") + bytes((0, flags)) + port.to_bytes(2, "big")
        data += len(named).to_bytes(4, "big") + named
        data = data[: len(data) - cut]
        return await self.send(out_cdb(REGISTER_AND_MOVE, len(data)), data)

    async def keys(self) -> list[int]:
        data = await self.good(in_cdb(READ_KEYS))
        assert int.from_bytes(data[4:8], "big") == len(data) - 8
        return [int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)]

    async def generation(self) -> int:
        return int.from_bytes((await self.good(in_cdb(READ_KEYS)))[:4], "big")

    async def reservation(self) -> tuple[int, int] | None:
        """Key and type."""
        data = await self.good(in_cdb(READ_RESERVATION))
        assert int.from_bytes(data[4:8], "big") == len(data) - 8
        return (int.from_bytes(data[8:16], "big"), data[21]) if len(data) > 8 else None


def out_cdb(action: int, length: int, kind: int = 0) -> bytes:
    return bytes((0x5F, action, kind, 0, 0)) + length.to_bytes(4, "big") + b"\0"


def in_cdb(action: int, allocation_length: int = 65535) -> bytes:
    return bytes((0x5E, action, 0, 0, 0, 0, 0)) + allocation_length.to_bytes(2, "big") + b"\0"


def three_hosts(target: ScsiTarget) -> tuple[Host, Host, Host]:
    """The third comes by the second port."""
    return Host(target, "iqn.x:a"), Host(target, "iqn.x:b"), Host(target, "iqn.x:c", port=PORTS[1])


async def registered(*hosts: Host) -> None:
    """Registers the hosts with keys Ah, Bh, Ch."""
    for key, host in enumerate(hosts, 0xA):
        await host.out_good(REGISTER, 0, key)
