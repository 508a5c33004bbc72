"""INQUIRY: standard data and vital product data."""

import pytest

from arrayd.scsi.designators import NAA_LOCALLY_ASSIGNED
from arrayd.scsi.provisioning import UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX, WRITE_SAME_BLOCKS_MAX
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import MAX_TRANSFER_BYTES
from tests.scsi.initiator import GROUP, NAMES, PORTS, Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

DISK_LUN, NOTHING = 1, 9
"""LUN 0 of the targets here is the controller."""


def cdb_of(code: int | None = None, length: int = 0xFFFF) -> bytes:
    return bytes((0x12, 0 if code is None else 1, code or 0)) + length.to_bytes(2, "big") + bytes(1)


def host_of(volume: MemoryVolume) -> Initiator:
    return Initiator(make_target({DISK_LUN: volume}))


async def page_of(volume: MemoryVolume, code: int, lun: int = DISK_LUN) -> bytes:
    """The body of a page, whose header is right."""
    data = await host_of(volume).good(cdb_of(code), lun=lun)
    assert data[1] == code
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data[4:]


def designators(body: bytes) -> list[tuple[int, int, int, int, bytes]]:
    """Protocol, code set, association, type and value of each."""
    found, at = [], 0
    while at < len(body):
        length = body[at + 3]
        value = body[at + 4 : at + 4 + length]
        found.append((body[at] >> 4, body[at] & 0x0F, body[at + 1] >> 4 & 3, body[at + 1] & 0x0F, value))
        at += 4 + length
    return found


async def test_a_disk() -> None:
    data = await host_of(MemoryVolume()).good(cdb_of(), lun=DISK_LUN)
    assert len(data) == 96
    assert data[4] == len(data) - 5
    assert data[0] == 0x00
    assert data[1] == 0
    assert data[2] == 0x06
    assert data[3] & 0x0F == 2
    assert data[5] & 0x30 == 0x30, "implicit and explicit ALUA"
    assert data[5] & 0x08, "third party copy"
    assert data[7] & 0x02, "CMDQUE"
    assert data[8:16] == b"ARRAYD  "
    assert data[16:32] == b"VOLUME".ljust(16)
    descriptors = {int.from_bytes(data[at : at + 2], "big") for at in range(58, 74, 2)} - {0}
    assert descriptors >= {0x00A0, 0x0960, 0x05C0, 0x0600}


async def test_removable() -> None:
    volume = MemoryVolume()
    volume.removable = True
    assert (await host_of(volume).good(cdb_of(), lun=DISK_LUN))[1] == 0x80


async def test_lun_0_without_a_volume_is_a_controller() -> None:
    data = await host_of(MemoryVolume()).good(cdb_of())
    assert data[0] == 0x0C
    assert data[5] & 0x80, "SCCS"
    assert not data[5] & 0x08


async def test_nothing_there() -> None:
    host = host_of(MemoryVolume())
    assert (await host.good(cdb_of(), lun=NOTHING))[0] == 0x7F
    assert await host.good(cdb_of(0x00), lun=NOTHING) == bytes((0x7F, 0, 0, 1, 0))
    assert (await host.send(cdb_of(0x83), lun=NOTHING)).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("length", [0, 1, 5, 36, 95, 96, 255])
async def test_allocation_length(length: int) -> None:
    assert len(await host_of(MemoryVolume()).good(cdb_of(length=length), lun=DISK_LUN)) == min(length, 96)


@pytest.mark.parametrize("cdb", [bytes((0x12, 0, 0x80, 0, 96, 0)), bytes((0x12, 2, 0, 0, 96, 0)), cdb_of(0xC5)])
async def test_what_is_refused(cdb: bytes) -> None:
    answer = await host_of(MemoryVolume()).send(cdb, lun=DISK_LUN)
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize(
    ("lun", "expected"), [(DISK_LUN, [0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2]), (0, [0x00, 0x80, 0x83, 0x86])]
)
async def test_every_page_that_is_listed_is_there(lun: int, expected: list[int]) -> None:
    assert list(await page_of(MemoryVolume(), 0x00, lun)) == expected
    for code in expected:
        assert await page_of(MemoryVolume(), code, lun)


async def test_the_serial_number_is_the_identity() -> None:
    assert await page_of(MemoryVolume("410001:accounts"), 0x80) == b"410001:accounts"


async def test_device_identification() -> None:
    name = NAMES[1].partition(",")[0].encode()
    target = make_target({DISK_LUN: MemoryVolume("410001:accounts")})
    data = await Initiator(target, port=PORTS[1]).good(cdb_of(0x83), lun=DISK_LUN)
    found = designators(data[4:])
    unit = {kind: value for _, _, association, kind, value in found if association == 0}
    assert len(unit[3]) == 8
    assert unit[3][0] >> 4 == NAA_LOCALLY_ASSIGNED
    assert unit[1] == b"ARRAYD  410001:accounts"
    port = {kind: (protocol, value) for protocol, _, association, kind, value in found if association == 1}
    assert port[4] == (5, bytes(2) + PORTS[1].to_bytes(2, "big"))
    assert port[5] == (5, bytes(2) + GROUP.to_bytes(2, "big"))
    assert port[8][1].rstrip(b"\0") == NAMES[1].encode()
    device = [value.rstrip(b"\0") for _, _, association, kind, value in found if (association, kind) == (2, 8)]
    assert device == [name]


async def test_two_volumes_never_share_a_name() -> None:
    pages = [await page_of(MemoryVolume(f"{array}:data"), 0x83) for array in ("410001", "410002")]
    names = [{value for _, _, association, _, value in designators(page) if association == 0} for page in pages]
    assert not names[0] & names[1]


@pytest.mark.parametrize("block_size", [512, 4096])
async def test_block_limits(block_size: int) -> None:
    body = await page_of(MemoryVolume(block_size=block_size), 0xB0)
    assert len(body) == 60
    assert body[0] == 1, "WSNZ"
    assert body[1] == 255, "compare and write"
    assert int.from_bytes(body[2:4], "big") == 4096 // block_size
    assert int.from_bytes(body[4:8], "big") == MAX_TRANSFER_BYTES // block_size
    assert int.from_bytes(body[16:20], "big") == UNMAP_BLOCKS_MAX
    assert int.from_bytes(body[20:24], "big") == UNMAP_DESCRIPTORS_MAX
    assert int.from_bytes(body[24:28], "big") == 4096 // block_size
    assert int.from_bytes(body[32:40], "big") == WRITE_SAME_BLOCKS_MAX
    assert not any(body[40:]), "no WRITE ATOMIC"


async def test_a_thick_disk_has_no_unmap_limits() -> None:
    volume = MemoryVolume()
    volume.thin = False
    assert not any((await page_of(volume, 0xB0))[16:32])
    assert await page_of(volume, 0xB2) == bytes(4)


async def test_provisioning() -> None:
    body = await page_of(MemoryVolume(), 0xB2)
    assert 512 << body[0] == 1 << 20, "threshold sets of 1 MiB"
    assert body[1] == 0xE4, "LBPU, LBPWS, LBPWS10, LBPRZ"
    assert body[2] == 0x02, "thin"


async def test_characteristics() -> None:
    body = await page_of(MemoryVolume(), 0xB1)
    assert len(body) == 60
    assert body[:2] == b"\x00\x01", "does not rotate"


async def test_inquiry_leaves_unit_attentions() -> None:
    host = Initiator(make_target({0: MemoryVolume()}), fresh=True)
    await host.good(cdb_of())
    assert await host.attention() is Asc.POWER_ON_OR_RESET
