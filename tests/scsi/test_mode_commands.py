"""MODE SENSE and MODE SELECT."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import Status
from tests.scsi.initiator import Initiator, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume

CURRENT, CHANGEABLE, DEFAULT, SAVED = range(4)
DBD, LLBAA = 0x08, 0x10
SENSE_6_HEADER, SENSE_10_HEADER = 4, 8
CONTROL = 0x0A
D_SENSE, SWP, TAS = (2, 0x04), (4, 0x08), (5, 0x40)
WRITE_10 = bytes.fromhex("2a000000000000000100")
BAD_CDB = bytes((0xFF,))


def sense_6(code: int, control: int = CURRENT, subpage: int = 0, flags: int = DBD, length: int = 255) -> bytes:
    return bytes((0x1A, flags, control << 6 | code, subpage, length, 0))


def sense_10(code: int, control: int = CURRENT, flags: int = DBD) -> bytes:
    return bytes((0x5A, flags, control << 6 | code, 0, 0, 0, 0, 0x02, 0x00, 0))


def select_6(length: int, flags: int = 0x10) -> bytes:
    return bytes((0x15, flags, 0, 0, length, 0))


def select_10(length: int) -> bytes:
    return bytes((0x55, 0x10, 0, 0, 0, 0, 0)) + length.to_bytes(2, "big") + bytes(1)


async def page(host: Initiator, code: int, control: int = CURRENT) -> bytearray:
    data = await host.good(sense_6(code, control))
    assert data[0] == len(data) - 1
    return bytearray(data[SENSE_6_HEADER:])


async def change(host: Initiator, *bits: tuple[int, int], on: bool = True) -> None:
    """Sets or clears bits of the control page by MODE SELECT(6)."""
    control = await page(host, CONTROL)
    for byte, bit in bits:
        control[byte] = control[byte] | bit if on else control[byte] & ~bit
    await host.good(select_6(4 + len(control)), bytes(4) + control)


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume()


@pytest.fixture
def host(volume: MemoryVolume) -> Initiator:
    return Initiator(make_target({0: volume}))


async def test_pages(host: Initiator) -> None:
    pages, at = bytes(await page(host, 0x3F)), 0
    codes = []
    while at < len(pages):
        codes.append(pages[at] & 0x3F)
        assert bytes(await page(host, codes[-1])) == pages[at : at + 2 + pages[at + 1]]
        at += 2 + pages[at + 1]
    assert codes == [0x08, 0x0A, 0x1C]
    assert at == len(pages)


@pytest.mark.parametrize("write_cache", [True, False])
async def test_wce_is_the_volume_s(write_cache: bool) -> None:
    volume = MemoryVolume()
    volume.write_cache = write_cache
    host = Initiator(make_target({0: volume}))
    assert bool((await page(host, 0x08))[2] & 0x04) == write_cache
    assert (await page(host, 0x08, CHANGEABLE))[2:] == bytes(18)


async def test_page_controls(host: Initiator) -> None:
    changeable = await page(host, CONTROL, CHANGEABLE)
    assert changeable[2:] == bytes((0x04, 0, 0x08, 0x40, 0, 0, 0, 0, 0, 0))
    default = await page(host, CONTROL, DEFAULT)
    await change(host, SWP)
    assert await page(host, CONTROL, DEFAULT) == default
    assert (await page(host, CONTROL))[4] == default[4] | 0x08
    answer = await host.send(sense_6(CONTROL, SAVED))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.SAVING_PARAMETERS_NOT_SUPPORTED)


@pytest.mark.parametrize("cdb", [sense_6(0x07), sense_6(0x3E), sense_6(CONTROL, subpage=1), sense_10(0x19)])
async def test_what_is_not_there(host: Initiator, cdb: bytes) -> None:
    assert (await host.send(cdb)).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


async def test_all_subpages_are_the_pages(host: Initiator) -> None:
    assert await host.good(sense_6(0x3F, subpage=0xFF)) == await host.good(sense_6(0x3F))


@pytest.mark.parametrize("block_size", [512, 4096])
async def test_block_descriptors(block_size: int) -> None:
    volume = MemoryVolume(block_size=block_size)
    host = Initiator(make_target({0: volume}))
    blocks = volume.size // block_size
    short = blocks.to_bytes(4, "big") + block_size.to_bytes(4, "big")
    data = await host.good(sense_6(CONTROL, flags=0))
    assert (data[3], data[4:12]) == (8, short)
    data = await host.good(sense_10(CONTROL, flags=0))
    assert (data[4], data[6:8], data[8:16]) == (0, b"\0\x08", short)
    data = await host.good(sense_10(CONTROL, flags=LLBAA))
    assert (data[4], data[6:8]) == (1, b"\0\x10")
    assert data[8:24] == blocks.to_bytes(8, "big") + bytes(4) + block_size.to_bytes(4, "big")
    data = await host.good(sense_10(CONTROL))
    assert (data[4], data[6:8]) == (0, bytes(2))


async def test_the_header_says_write_protected_and_dpofua(volume: MemoryVolume, host: Initiator) -> None:
    assert (await host.good(sense_6(CONTROL)))[2] == 0x10
    assert (await host.good(sense_10(CONTROL)))[3] == 0x10
    volume.read_only = True
    assert (await host.good(sense_6(CONTROL)))[2] == 0x90


@pytest.mark.parametrize("length", [0, 4, 10, 255])
async def test_allocation_length(host: Initiator, length: int) -> None:
    assert len(await host.good(sense_6(0x3F, length=length))) == min(length, 4 + 20 + 12 + 12)


async def test_swp_protects_until_it_is_cleared(volume: MemoryVolume, host: Initiator) -> None:
    await change(host, SWP)
    assert (await host.send(WRITE_10, bytes(512))).why == (Key.DATA_PROTECT, Asc.WRITE_PROTECTED)
    assert (await host.good(sense_6(CONTROL)))[2] & 0x80
    await change(host, SWP, on=False)
    await host.good(WRITE_10, b"\x01" * 512)
    assert volume.data[0] == 1


async def test_d_sense_changes_the_format(host: Initiator) -> None:
    assert (await host.send(BAD_CDB)).sense[0] == 0x70
    await change(host, D_SENSE)
    sense = (await host.send(BAD_CDB)).sense
    assert sense[:4] == bytes((0x72, 0x05, 0x20, 0x00))
    assert len(sense) == 8 + sense[7]


async def test_others_are_told(volume: MemoryVolume) -> None:
    target = make_target({0: volume})
    one, other = Initiator(target), Initiator(target, isid=bytes.fromhex("00023d000002"))
    await change(one, D_SENSE)
    assert await one.attention() is None
    answer = await other.send(bytes(6))
    assert answer.sense[:4] == bytes((0x72, Key.UNIT_ATTENTION, 0x2A, 0x01))
    await change(one, D_SENSE)
    assert await other.attention() is None, "nothing changed"


async def test_a_reset_brings_back_the_defaults(host: Initiator) -> None:
    await change(host, SWP, D_SENSE)
    disk_unit(host.nexus.target, 0).reset()
    assert await page(host, CONTROL) == await page(host, CONTROL, DEFAULT)


@pytest.mark.parametrize("flags", [0x11, 0x00], ids=["saved", "vendor specific"])
async def test_flags_of_select(host: Initiator, flags: int) -> None:
    answer = await host.send(select_6(4, flags), bytes(4))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


async def test_select_of_nothing(host: Initiator) -> None:
    await host.good(select_6(0))
    await host.good(select_6(4), bytes(4))
    await host.good(select_10(8), bytes(8))


async def test_select_takes_back_what_sense_gave(host: Initiator) -> None:
    data = bytearray(await host.good(sense_6(0x3F, flags=0)))
    data[0] = 0
    await host.good(select_6(len(data)), bytes(data))
    data = bytearray(await host.good(sense_10(0x3F, flags=LLBAA)))
    data[:2] = bytes(2)
    await host.good(select_10(len(data)), bytes(data))


LENGTH_ERROR = (Key.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)
BAD_PARAMETER = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
CONTROL_PAGE = bytes.fromhex("0a0a02100000000000000000")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(3), LENGTH_ERROR),
        (bytes((0, 0, 0, 8)) + bytes(7), LENGTH_ERROR),
        (bytes(4) + CONTROL_PAGE[:11], LENGTH_ERROR),
        (bytes(4) + CONTROL_PAGE[:1], LENGTH_ERROR),
        (bytes((0, 0, 0, 7)) + bytes(7), BAD_PARAMETER),
        (bytes((0, 0, 0, 8)) + bytes((0, 0, 0, 1, 0, 0, 2, 0)), BAD_PARAMETER),
        (bytes((0, 0, 0, 8)) + bytes((0, 0, 0, 0, 0, 0, 4, 0)), BAD_PARAMETER),
        (bytes(4) + bytes.fromhex("070a") + bytes(10), BAD_PARAMETER),
        (bytes(4) + bytes.fromhex("4a010006") + bytes(6), BAD_PARAMETER),
        (bytes(4) + b"\x0a\x09" + CONTROL_PAGE[2:], BAD_PARAMETER),
        (bytes(4) + CONTROL_PAGE[:3] + b"\x20" + CONTROL_PAGE[4:], BAD_PARAMETER),
        (bytes(4) + b"\x08\x12" + bytes(18), BAD_PARAMETER),
    ],
)
async def test_select_refuses(host: Initiator, data: bytes, expected: tuple[Key, Asc]) -> None:
    assert (await host.send(select_6(len(data)), data)).why == expected


async def test_select_takes_all_of_a_list_or_nothing(host: Initiator) -> None:
    swp = CONTROL_PAGE[:4] + b"\x08" + CONTROL_PAGE[5:]
    data = bytes(4) + swp + b"\x08\x12" + bytes(18)
    assert (await host.send(select_6(len(data)), data)).why == BAD_PARAMETER
    assert (await page(host, CONTROL))[4] == 0


async def test_a_controller_has_modes_but_no_medium() -> None:
    host = Initiator(make_target({1: MemoryVolume()}))
    data = await host.good(sense_6(0x3F, flags=0))
    assert data[1:4] == bytes(3)
    assert [data[4], data[16]] == [0x0A, 0x1C]


@given(data=st.binary(max_size=60))
async def test_any_list_ends_in_a_status(data: bytes) -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    for cdb in (select_6(len(data)), select_10(len(data))):
        answer = await host.send(cdb, data)
        assert answer.status in (Status.GOOD, Status.CHECK_CONDITION)
