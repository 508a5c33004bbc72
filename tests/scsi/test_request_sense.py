"""REQUEST SENSE."""

import pytest

from arrayd.scsi.sense import Asc, Key
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume


def cdb_of(flags: int = 0, length: int = 252) -> bytes:
    return bytes((0x03, flags, 0, 0, length, 0))


def why(sense: bytes) -> tuple[Key, Asc]:
    """Of fixed format sense data."""
    assert sense[0] & 0x7F == 0x70
    assert sense[7] == len(sense) - 8
    return Key(sense[2] & 0x0F), Asc(int.from_bytes(sense[12:14], "big"))


async def test_nothing_to_say() -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    assert why(await host.good(cdb_of())) == (Key.NO_SENSE, Asc.NONE)
    assert await host.good(cdb_of(1)) == bytes((0x72, 0, 0, 0, 0, 0, 0, 0))


async def test_it_takes_a_unit_attention() -> None:
    host = Initiator(make_target({0: MemoryVolume()}), fresh=True)
    assert why(await host.good(cdb_of())) == (Key.UNIT_ATTENTION, Asc.POWER_ON_OR_RESET)
    assert why(await host.good(cdb_of())) == (Key.NO_SENSE, Asc.NONE)
    assert await host.attention() is None


async def test_at_a_lun_that_is_not_there() -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    sense = await host.good(cdb_of(), lun=9)
    assert why(sense) == (Key.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)


async def test_why_a_unit_is_not_ready() -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    await host.good(bytes((0x1B, 0, 0, 0, 0, 0)))
    assert why(await host.good(cdb_of())) == (Key.NOT_READY, Asc.INITIALIZING_COMMAND_REQUIRED)


@pytest.mark.parametrize("length", [0, 4, 18, 100])
async def test_allocation_length(length: int) -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    assert len(await host.good(cdb_of(length=length))) == min(length, 18)
