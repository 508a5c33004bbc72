"""SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS."""

import pytest

from arrayd.scsi.sense import Asc, Key
from arrayd.volumes.volume import VolumeFailed
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

SELF_TEST, PF = 0x04, 0x10
BAD_CDB = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
BAD_PARAMETER = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)


def send_cdb(flags: int, length: int = 0) -> bytes:
    return bytes((0x1D, flags, 0)) + length.to_bytes(2, "big") + bytes(1)


def receive_cdb(pcv: int, code: int, length: int = 252) -> bytes:
    return bytes((0x1C, pcv, code)) + length.to_bytes(2, "big") + bytes(1)


@pytest.mark.parametrize("volumes", [{0: MemoryVolume()}, {1: MemoryVolume()}], ids=["disk", "controller"])
async def test_the_self_test_passes(volumes: dict[int, MemoryVolume]) -> None:
    await Initiator(make_target(volumes)).good(send_cdb(SELF_TEST))


async def test_the_self_test_fails_with_the_medium() -> None:
    volume = MemoryVolume()
    volume.failure = VolumeFailed("broken")
    answer = await Initiator(make_target({0: volume})).send(send_cdb(SELF_TEST))
    assert answer.why == (Key.HARDWARE_ERROR, Asc.LOGICAL_UNIT_FAILED_SELF_TEST)


async def test_the_list_of_pages() -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    await host.good(send_cdb(PF, 4), bytes(4))
    expected = bytes((0, 0, 0, 1, 0))
    assert await host.good(receive_cdb(0, 0)) == expected
    assert await host.good(receive_cdb(1, 0)) == expected
    assert await host.good(receive_cdb(1, 0, 3)) == expected[:3]


@pytest.mark.parametrize(
    ("cdb", "data", "expected"),
    [
        (receive_cdb(1, 0x40), b"", BAD_CDB),
        (send_cdb(0x20), b"", BAD_CDB),
        (send_cdb(SELF_TEST | PF, 4), bytes(4), BAD_CDB),
        (send_cdb(0, 4), bytes(4), BAD_CDB),
        (send_cdb(PF, 3), bytes(3), (Key.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)),
        (send_cdb(PF, 4), bytes((0x40, 0, 0, 0)), BAD_PARAMETER),
        (send_cdb(PF, 4), bytes((0, 0, 0, 1)), BAD_PARAMETER),
    ],
)
async def test_what_is_refused(cdb: bytes, data: bytes, expected: tuple[Key, Asc]) -> None:
    assert (await Initiator(make_target({0: MemoryVolume()})).send(cdb, data)).why == expected
