"""WRITE BUFFER and READ BUFFER."""

import pytest

from arrayd.scsi.data_buffer import DATA_BYTES, ECHO_BYTES
from arrayd.scsi.sense import Asc, Key
from tests.scsi.initiator import Initiator, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume

DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR = 0x02, 0x03, 0x0A, 0x0B


def cdb_of(opcode: int, mode: int, length: int, offset: int = 0, buffer: int = 0) -> bytes:
    return bytes((opcode, mode, buffer)) + offset.to_bytes(3, "big") + length.to_bytes(3, "big") + bytes(1)


def write(mode: int, length: int, offset: int = 0, buffer: int = 0) -> bytes:
    return cdb_of(0x3B, mode, length, offset, buffer)


def read(mode: int, length: int = DATA_BYTES, offset: int = 0, buffer: int = 0) -> bytes:
    return cdb_of(0x3C, mode, length, offset, buffer)


@pytest.fixture(params=[0, 1], ids=["disk", "controller"])
def host(request: pytest.FixtureRequest) -> Initiator:
    return Initiator(make_target({request.param: MemoryVolume()}))


async def test_data_comes_back_from_where_it_went(host: Initiator) -> None:
    assert await host.good(read(DATA)) == bytes(DATA_BYTES)
    await host.good(write(DATA, 5, 100), b"hello")
    assert await host.good(read(DATA, 7, 99)) == b"\0hello\0"
    await host.good(write(DATA, DATA_BYTES), b"\x55" * DATA_BYTES)
    assert await host.good(read(DATA)) == b"\x55" * DATA_BYTES
    assert await host.good(read(DATA, 10, DATA_BYTES - 4)) == b"\x55" * 4


async def test_less_data_than_the_cdb_says_leaves_the_rest(host: Initiator) -> None:
    await host.good(write(DATA, 8), b"\x55" * 8)
    await host.good(write(DATA, 8), b"\xaa" * 3)
    assert await host.good(read(DATA, 8)) == b"\xaa\xaa\xaa\x55\x55\x55\x55\x55"


async def test_descriptors(host: Initiator) -> None:
    assert await host.good(read(DESCRIPTOR, 4)) == bytes(1) + DATA_BYTES.to_bytes(3, "big")
    assert await host.good(read(DESCRIPTOR, 4, buffer=1)) == bytes(4), "no such buffer"
    assert await host.good(read(ECHO_DESCRIPTOR, 4)) == ECHO_BYTES.to_bytes(4, "big")


async def test_echo(host: Initiator) -> None:
    assert (await host.send(read(ECHO))).why == (Key.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    await host.good(write(ECHO, 4), b"echo")
    assert await host.good(read(ECHO)) == b"echo"
    assert await host.good(read(ECHO, 2)) == b"ec"


async def test_every_nexus_has_its_own() -> None:
    target = make_target({0: MemoryVolume()})
    one, other = Initiator(target), Initiator(target, isid=bytes.fromhex("00023d000002"))
    await one.good(write(DATA, 3), b"one")
    await one.good(write(ECHO, 3), b"one")
    assert await other.good(read(DATA, 3)) == bytes(3)
    assert (await other.send(read(ECHO))).why == (Key.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    one.leave()
    assert not disk_unit(target, 0).data_buffers.data
    assert not disk_unit(target, 0).data_buffers.echo


@pytest.mark.parametrize(
    "cdb",
    [
        write(DATA, 1, DATA_BYTES),
        write(DATA, 2, DATA_BYTES - 1),
        write(DATA, 1, buffer=1),
        write(ECHO, ECHO_BYTES + 1),
        write(0x05, 1),
        write(0x00, 1),
        write(DATA | 0x20, 1),
        read(DATA, 1, DATA_BYTES + 1),
        read(DATA, 1, buffer=1),
        read(DATA | 0x20, 1),
        read(0x00, 4),
        read(0x1C, 4),
    ],
)
async def test_what_is_refused(host: Initiator, cdb: bytes) -> None:
    answer = await host.send(cdb, bytes(8) if cdb[0] == 0x3B else b"")
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
