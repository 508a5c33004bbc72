"""Persistent reservations with APTPL over the wire: what was answered is in force after the array was killed."""

import pytest

from tests.lab.daemon import ArraydProcess, configuration
from tests.lab.fixtures import StartArray
from tests.lab.initiator import GOOD, Session

pytestmark = pytest.mark.external

RESERVATION_CONFLICT = 0x18
REGISTER, RESERVE = 0, 1
EXCLUSIVE_ACCESS = 3
APTPL = 1
READ_KEYS = bytes((0x5E, 0, 0, 0, 0, 0, 0, 0, 255, 0))
READ_RESERVATION = bytes((0x5E, 1, 0, 0, 0, 0, 0, 0, 255, 0))
READ_10 = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
HOLDER, OTHER = "iqn.2026-11.io.arrayd:holder", "iqn.2026-11.io.arrayd:other"
KEY = 0xFEDCBA9876543210


async def ready_session(array: ArraydProcess, name: str) -> Session:
    """A session whose unit attentions have been told."""
    session = await Session.open(array.addresses[0], array.target, name=name)
    while (await session.command(bytes(6))).status != GOOD:
        pass
    return session


async def reserve_out(session: Session, action: int, key: int, new_key: int, kind: int, flags: int) -> int:
    data = key.to_bytes(8) + new_key.to_bytes(8) + bytes((0, 0, 0, 0, flags, 0, 0, 0))
    cdb = bytes((0x5F, action, kind, 0, 0, 0, 0, 0, len(data), 0))
    return (await session.command(cdb, data_out=data)).status


async def keys(session: Session) -> bytes:
    """PRGENERATION, length and keys."""
    return bytes((await session.command(READ_KEYS, read_bytes=255)).data)


@pytest.mark.parametrize("aptpl", [APTPL, 0], ids=["aptpl", "no-aptpl"])
async def test_a_reservation_outlives_a_kill_if_it_is_meant_to(start_array: StartArray, aptpl: int) -> None:
    array = start_array(configuration({"data": {"size": "1MiB"}}))
    async with await ready_session(array, HOLDER) as holder:
        assert await reserve_out(holder, REGISTER, 0, KEY, 0, aptpl) == GOOD
        assert await reserve_out(holder, RESERVE, KEY, 0, EXCLUSIVE_ACCESS, 0) == GOOD
        array.kill()
    array.start()
    async with await ready_session(array, HOLDER) as holder, await ready_session(array, OTHER) as other:
        assert (await holder.command(READ_10, read_bytes=512)).status == GOOD
        status = (await other.command(READ_10, read_bytes=512)).status
        reservation = bytes((await other.command(READ_RESERVATION, read_bytes=255)).data)
        if aptpl:
            assert status == RESERVATION_CONFLICT
            assert await keys(other) == bytes((0, 0, 0, 0, 0, 0, 0, 8)) + KEY.to_bytes(8)
            assert reservation[8:16] == KEY.to_bytes(8)
            assert reservation[21] == EXCLUSIVE_ACCESS
        else:
            assert status == GOOD
            assert await keys(other) == bytes(8)
            assert reservation == bytes(8)
