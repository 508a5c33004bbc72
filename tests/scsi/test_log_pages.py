"""LOG SENSE."""

import pytest

from arrayd.scsi.sense import Asc, Key
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

PROVISIONING = 0x0C


def cdb_of(code: int, subpage: int = 0, pointer: int = 0, flags: int = 0, length: int = 512, control: int = 1) -> bytes:
    head = bytes((0x4D, flags, control << 6 | code, subpage, 0))
    return head + pointer.to_bytes(2, "big") + length.to_bytes(2, "big") + bytes(1)


def host_of(thin: bool = True) -> Initiator:
    volume = MemoryVolume(size=8 << 20)
    volume.thin = thin
    volume.write(0, memoryview(bytes(5 << 19)))
    return Initiator(make_target({0: volume}))


async def test_supported_pages() -> None:
    host = host_of()
    assert await host.good(cdb_of(0)) == bytes((0, 0, 0, 2, 0, PROVISIONING))
    assert await host.good(cdb_of(0, 0xFF)) == bytes((0x40, 0xFF, 0, 6, 0, 0, 0, 0xFF, PROVISIONING, 0))
    assert await host_of(thin=False).good(cdb_of(0)) == bytes((0, 0, 0, 1, 0))


async def test_provisioning_counts_threshold_sets() -> None:
    data = await host_of().good(cdb_of(PROVISIONING))
    assert data[:4] == bytes((0x80 | PROVISIONING, 0, 0, 24)), "DS: nothing is saved"
    available, used = data[4:16], data[16:28]
    assert available[:4] == bytes((0, 1, 3, 8))
    assert int.from_bytes(available[4:8], "big") == 6, "5.5 MiB left"
    assert used[:4] == bytes((0, 2, 3, 8))
    assert int.from_bytes(used[4:8], "big") == 3, "2.5 MiB used"
    assert (available[8], used[8]) == (2, 1), "shared, dedicated"


async def test_parameter_pointer() -> None:
    host = host_of()
    data = await host.good(cdb_of(PROVISIONING, pointer=2))
    assert (data[3], data[5]) == (12, 2)
    assert (await host.send(cdb_of(PROVISIONING, pointer=3))).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize(
    "cdb",
    [
        cdb_of(PROVISIONING, flags=0x01),
        cdb_of(PROVISIONING, flags=0x02),
        cdb_of(PROVISIONING, 1),
        cdb_of(0, 1),
        cdb_of(0, pointer=1),
        cdb_of(0x0D),
    ],
)
async def test_what_is_refused(cdb: bytes) -> None:
    assert (await host_of().send(cdb)).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


async def test_a_thick_disk_has_no_provisioning_page() -> None:
    answer = await host_of(thin=False).send(cdb_of(PROVISIONING))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("length", [0, 3, 4, 28, 100])
async def test_allocation_length(length: int) -> None:
    assert len(await host_of().good(cdb_of(PROVISIONING, length=length))) == min(length, 28)
