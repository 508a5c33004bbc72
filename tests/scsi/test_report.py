"""REPORT LUNS: what a nexus sees, and what becomes of it when LUNs change."""

import pytest

from arrayd.scsi.sense import Asc, Key
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume


def cdb_of(select: int = 0, length: int = 4096) -> bytes:
    return bytes((0xA0, 0, select, 0, 0, 0)) + length.to_bytes(4, "big") + bytes(2)


async def luns(host: Initiator, select: int = 0, lun: int = 0) -> list[str]:
    data = await host.good(cdb_of(select), lun=lun)
    assert int.from_bytes(data[:4], "big") == len(data) - 8
    return [data[at : at + 8].hex() for at in range(8, len(data), 8)]


def volumes(*numbers: int) -> dict[int, MemoryVolume]:
    return {number: MemoryVolume(f"410001:v{number}", 4096) for number in numbers}


async def test_luns_are_told_in_order_by_both_ways_of_addressing() -> None:
    host = Initiator(make_target(volumes(0, 255, 3, 256, 16383)))
    expected = ["0000", "0003", "00ff", "4100", "7fff"]
    assert await luns(host) == [f"{lun}000000000000" for lun in expected]
    assert await luns(host, 2) == await luns(host)
    assert await luns(host, 1) == [], "no well known logical units"
    for number in (0, 255, 256, 16383):
        await host.good(bytes(6), lun=number)


async def test_lun_0_without_a_volume_is_there_all_the_same() -> None:
    assert await luns(Initiator(make_target(volumes(2)))) == ["0000000000000000", "0002000000000000"]


async def test_masking() -> None:
    host = Initiator(make_target(volumes(0, 1, 2)), luns=frozenset({2}))
    assert await luns(host) == ["0000000000000000", "0002000000000000"]
    assert (await host.good(bytes((0x12, 0, 0, 0, 96, 0))))[0] == 0x0C, "LUN 0 is the controller"
    assert (await host.send(bytes(6), lun=1)).why == (Key.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)


async def test_it_is_answered_at_luns_that_are_not_there() -> None:
    assert await luns(Initiator(make_target(volumes(0))), lun=5) == ["0000000000000000"]


@pytest.mark.parametrize("select", [0x03, 0x10, 0x11, 0xFF])
async def test_other_reports(select: int) -> None:
    answer = await Initiator(make_target(volumes(0))).send(cdb_of(select))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("length", [0, 8, 16, 24])
async def test_allocation_length_cuts(length: int) -> None:
    data = await Initiator(make_target(volumes(0, 1))).good(cdb_of(length=length))
    assert len(data) == length
    if length >= 4:
        assert int.from_bytes(data[:4], "big") == 16


async def test_a_changed_map_is_told_until_it_is_read() -> None:
    shown = volumes(0, 1)
    target = make_target(shown)
    reader, other = Initiator(target), Initiator(target, isid=bytes.fromhex("00023d000002"))
    target.set_units(shown | volumes(2))
    assert await other.attention() is Asc.REPORTED_LUNS_DATA_HAS_CHANGED
    assert await luns(reader) == [f"000{lun}000000000000" for lun in range(3)]
    assert await reader.attention() is None, "it knows by REPORT LUNS"
    assert await reader.attention(lun=1) is None
    assert await reader.attention(lun=2) is Asc.POWER_ON_OR_RESET


async def test_a_lun_that_goes_takes_its_tasks_with_it() -> None:
    shown = volumes(0, 1)
    target = make_target(shown)
    host = Initiator(target)
    target.set_units({0: shown[0]})
    assert await host.attention() is Asc.REPORTED_LUNS_DATA_HAS_CHANGED
    assert (await host.send(bytes(6), lun=1)).why == (Key.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)


async def test_a_map_that_stays_tells_nobody() -> None:
    shown = volumes(0, 1)
    target = make_target(shown)
    host = Initiator(target)
    target.set_units(dict(shown))
    assert await host.attention() is None
