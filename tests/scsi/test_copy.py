"""EXTENDED COPY between logical units and RECEIVE COPY RESULTS, as a host uses them (SPC-4, 6.4 and 6.18 to 6.22)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.alua import AccessState, set_access_state
from arrayd.scsi.copy_descriptors import CONCURRENT_COPIES_MAX, CSCDS_MAX, DESCRIPTORS_BYTES_MAX, SEGMENTS_MAX
from arrayd.scsi.designators import logical_unit_designators
from arrayd.scsi.persistent import EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE, Change, PersistentState, Registrant
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.steps import STEP_BYTES
from arrayd.scsi.task import Function, Status
from arrayd.volumes.volume import VolumeFailed
from tests.scsi.initiator import Answer, Initiator, disk_unit, make_target, turns
from tests.scsi.memory_volume import MemoryVolume

SIZE = 1 << 20
STATUS, DATA, PARAMETERS, FAILURE = 0, 1, 3, 4
DISCARD, NO_LIST_ID = 2, 3
IN_PROGRESS, DONE, FAILED = 0, 1, 2
ABORTED = Key.COPY_ABORTED
ILLEGAL = Key.ILLEGAL_REQUEST


def cscd(identity: str, block_bytes: int = 512, *, which: int = 0, device_type: int = 0) -> bytes:
    designator = logical_unit_designators(identity)[which]
    assert len(designator) <= 24
    head = bytes((0xE4, device_type, 0, 0)) + designator.ljust(24, b"\0")
    return head + bytes(1) + block_bytes.to_bytes(3, "big")


def segment(source: int, destination: int, blocks: int, from_lba: int, to_lba: int, *, dc: bool = False) -> bytes:
    head = bytes((0x02, 0x02 if dc else 0, 0, 0x18)) + source.to_bytes(2, "big") + destination.to_bytes(2, "big")
    return head + bytes(2) + blocks.to_bytes(2, "big") + from_lba.to_bytes(8, "big") + to_lba.to_bytes(8, "big")


def parameter_list(cscds: Sequence[bytes], segments: Sequence[bytes], list_id: int = 1, usage: int = 0) -> bytes:
    described, copied = b"".join(cscds), b"".join(segments)
    head = bytes((list_id, usage << 3)) + len(described).to_bytes(2, "big") + bytes(4)
    return head + len(copied).to_bytes(4, "big") + bytes(4) + described + copied


def copy_cdb(length: int) -> bytes:
    return bytes((0x83,)) + bytes(9) + length.to_bytes(4, "big") + bytes(2)


def results_cdb(action: int, list_id: int = 0, allocation_length: int = 1024) -> bytes:
    return bytes((0x84, action, list_id)) + bytes(7) + allocation_length.to_bytes(4, "big") + bytes(2)


class Lab:
    """Two LUNs: LUN 0 full of random bytes, LUN 1 empty; a host that sees both."""

    def __init__(self, *, block_sizes: tuple[int, int] = (512, 512), luns: frozenset[int] | None = None) -> None:
        self.source = MemoryVolume("410001:a", SIZE, block_sizes[0])
        self.source.data[:] = Random(1).randbytes(SIZE)
        self.source.mapped.update(range(SIZE // 4096))
        self.destination = MemoryVolume("410001:b", SIZE, block_sizes[1])
        self.target = make_target({0: self.source, 1: self.destination})
        self.host = Initiator(self.target, "iqn.x:host", luns=luns)
        self.cscds = [cscd("410001:a", block_sizes[0]), cscd("410001:b", block_sizes[1])]

    async def copy(self, *segments: bytes, list_id: int = 1, usage: int = 0, lun: int = 0) -> Answer:
        data = parameter_list(self.cscds, segments, list_id, usage)
        return await self.host.send(copy_cdb(len(data)), data, lun)

    def start(self, *segments: bytes, list_id: int = 1) -> tuple[int, asyncio.Future[Answer]]:
        """Tag and answer."""
        data = parameter_list(self.cscds, segments, list_id)
        task, answer = self.host.start(copy_cdb(len(data)), data)
        return task.tag, answer

    async def status(self, list_id: int = 1) -> tuple[int, int, int]:
        """Copy manager status, segments processed, KiB transferred."""
        data = await self.host.good(results_cdb(STATUS, list_id))
        assert (len(data), data[:4], data[7]) == (12, bytes((0, 0, 0, 8)), 1)
        return data[4], int.from_bytes(data[5:7], "big"), int.from_bytes(data[8:12], "big")


# -- copies ------------------------------------------------------------------------------------------------------------


async def test_between_logical_units() -> None:
    lab = Lab()
    answer = await lab.copy(segment(0, 1, 1500, 3, 7), segment(0, 1, 1, 0, 2000))
    assert answer.status == Status.GOOD
    expected = bytearray(SIZE)
    expected[7 * 512 : 1507 * 512] = lab.source.data[3 * 512 : 1503 * 512]
    expected[2000 * 512 : 2001 * 512] = lab.source.data[:512]
    assert lab.destination.data == expected
    assert await lab.status() == (DONE, 2, 1501 // 2)


async def test_from_a_third_unit_and_by_the_other_designator() -> None:
    lab = Lab()
    lab.cscds = [cscd("410001:a", which=1), cscd("410001:b", which=1)]
    assert (await lab.copy(segment(0, 1, 8, 0, 0), lun=1)).status == Status.GOOD
    assert lab.destination.data[:4096] == lab.source.data[:4096]


@pytest.mark.parametrize(("from_lba", "to_lba"), [(0, 1), (1, 0), (0, 600), (600, 0), (5, 5), (0, 1024)])
async def test_within_a_logical_unit_also_where_it_overlaps(from_lba: int, to_lba: int) -> None:
    lab = Lab()
    before = bytes(lab.source.data)
    assert (await lab.copy(segment(0, 0, 1024, from_lba, to_lba))).status == Status.GOOD
    expected = bytearray(before)
    expected[to_lba * 512 : (to_lba + 1024) * 512] = before[from_lba * 512 : (from_lba + 1024) * 512]
    assert lab.source.data == expected


@pytest.mark.parametrize("thin", [True, False])
async def test_holes_stay_holes(thin: bool) -> None:
    lab = Lab()
    lab.source.unmap(8192, SIZE - 16384)
    lab.destination.write(0, memoryview(b"\xff" * SIZE))
    lab.destination.thin = thin
    assert (await lab.copy(segment(0, 1, SIZE // 512, 0, 0))).status == Status.GOOD
    assert lab.destination.data == lab.source.data
    assert lab.destination.allocated_bytes() == (16384 if thin else SIZE)


@pytest.mark.parametrize(("dc", "blocks", "length"), [(False, 16, 8192), (True, 3, 12288), (False, 0, 0)])
async def test_between_block_sizes(dc: bool, blocks: int, length: int) -> None:
    lab = Lab(block_sizes=(512, 4096))
    lab.source.unmap(4096, 4096)
    assert (await lab.copy(segment(0, 1, blocks, 4, 2, dc=dc))).status == Status.GOOD
    assert lab.destination.data[8192 : 8192 + length] == lab.source.data[2048 : 2048 + length]
    assert not any(lab.destination.data[8192 + length :])


async def test_a_list_of_no_length_copies_nothing() -> None:
    lab = Lab()
    assert (await lab.host.send(copy_cdb(0))).status == Status.GOOD
    assert (await lab.copy()).status == Status.GOOD


# -- refusals: nothing is copied ---------------------------------------------------------------------------------------

A, B = cscd("410001:a"), cscd("410001:b")
GOOD_SEGMENT = segment(0, 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("data", "asc"),
    [
        (bytes(15), Asc.PARAMETER_LIST_LENGTH_ERROR),
        (parameter_list([A, B], [GOOD_SEGMENT])[:-1], Asc.PARAMETER_LIST_LENGTH_ERROR),
        (parameter_list([A, B[:31]], []), Asc.PARAMETER_LIST_LENGTH_ERROR),
        (parameter_list([A, B], [GOOD_SEGMENT[:27]]), Asc.PARAMETER_LIST_LENGTH_ERROR),
        (parameter_list([A] * (DESCRIPTORS_BYTES_MAX // 32 + 1), []), Asc.PARAMETER_LIST_LENGTH_ERROR),
        (parameter_list([A] * (CSCDS_MAX + 1), [GOOD_SEGMENT]), Asc.TOO_MANY_TARGET_DESCRIPTORS),
        (parameter_list([A, B], [GOOD_SEGMENT] * (SEGMENTS_MAX + 1)), Asc.TOO_MANY_SEGMENT_DESCRIPTORS),
        (parameter_list([b"\xe0" + A[1:]], [GOOD_SEGMENT]), Asc.UNSUPPORTED_TARGET_DESCRIPTOR),
        (parameter_list([A, B], [b"\x03" + GOOD_SEGMENT[1:]]), Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR),
        (parameter_list([A, B], [b"\x02\x00\x00\x19" + GOOD_SEGMENT[4:]]), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (parameter_list([A[:7] + b"\x15" + A[8:]], []), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (parameter_list([A, B], [GOOD_SEGMENT], usage=1), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (parameter_list([A, B], [GOOD_SEGMENT], list_id=1, usage=NO_LIST_ID), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (bytes((1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4)) + bytes(4), Asc.INLINE_DATA_LENGTH_EXCEEDED),
    ],
)
async def test_lists_that_are_wrong(data: bytes, asc: Asc) -> None:
    lab = Lab()
    assert (await lab.host.send(copy_cdb(len(data)), data)).why == (ILLEGAL, asc)
    assert not any(lab.destination.data)
    assert (await lab.host.send(results_cdb(STATUS, 1))).why == (ILLEGAL, Asc.INVALID_FIELD_IN_CDB)


async def test_lists_that_are_too_long_or_not_there() -> None:
    lab = Lab()
    for length, data in ((1 << 24, b""), (64, bytes(63))):
        answer = await lab.host.send(copy_cdb(length), data)
        assert answer.why == (ILLEGAL, Asc.PARAMETER_LIST_LENGTH_ERROR)


@pytest.mark.parametrize(
    ("wrong", "asc"),
    [
        (segment(0, 2, 1, 0, 0), Asc.COPY_TARGET_NOT_REACHABLE),
        (segment(0xFFFF, 1, 1, 0, 0), Asc.COPY_TARGET_NOT_REACHABLE),
        (segment(0, 1, 2, 0, SIZE // 512 - 1), Asc.NONE),
        (segment(0, 1, 2, SIZE // 512 - 1, 0), Asc.NONE),
        (segment(0, 1, 1, (1 << 64) - 1, 0), Asc.NONE),
    ],
)
async def test_segments_that_cannot_be_copied(wrong: bytes, asc: Asc) -> None:
    """The segments before it are copied, those after it are not."""
    lab = Lab()
    answer = await lab.copy(segment(0, 1, 2, 0, 0), wrong, segment(0, 1, 1, 0, 100))
    assert answer.why == (ABORTED, asc)
    assert lab.destination.data[:1024] == lab.source.data[:1024]
    assert not any(lab.destination.data[1024:])
    assert await lab.status() == (FAILED, 1, 1)


@pytest.mark.parametrize(
    ("described", "asc"),
    [
        (cscd("410001:nowhere"), Asc.COPY_TARGET_NOT_REACHABLE),
        (cscd("410001:controller"), Asc.COPY_TARGET_NOT_REACHABLE),
        (cscd("410001:b", 4096), Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE),
        (cscd("410001:b", device_type=1), Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE),
    ],
)
async def test_destinations_that_are_not_there(described: bytes, asc: Asc) -> None:
    lab = Lab()
    lab.cscds[1] = described
    assert (await lab.copy(GOOD_SEGMENT)).why == (ABORTED, asc)


async def test_a_part_of_a_larger_block_is_not_copied() -> None:
    lab = Lab(block_sizes=(512, 4096))
    assert (await lab.copy(segment(0, 1, 9, 0, 0))).why == (ABORTED, Asc.UNEXPECTED_INEXACT_SEGMENT)


# -- what the host itself may not, its copy may not ----------------------------------------------------------------


async def test_a_masked_unit_is_not_reached() -> None:
    lab = Lab(luns=frozenset((0,)))
    assert (await lab.copy(GOOD_SEGMENT)).why == (ABORTED, Asc.COPY_TARGET_NOT_REACHABLE)
    assert not any(lab.destination.data)


@pytest.mark.parametrize("kind", [WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS])
async def test_reservations_at_the_destination(kind: int) -> None:
    lab = Lab()
    await reserve(lab, 1, kind)
    assert (await lab.copy(GOOD_SEGMENT)).why == (ABORTED, Asc.THIRD_PARTY_DEVICE_FAILURE)
    assert not any(lab.destination.data)


async def test_reservations_at_the_source() -> None:
    lab = Lab()
    await reserve(lab, 0, WRITE_EXCLUSIVE)
    assert (await lab.copy(GOOD_SEGMENT, lun=1)).status == Status.GOOD
    await reserve(lab, 0, EXCLUSIVE_ACCESS)
    assert (await lab.copy(GOOD_SEGMENT, lun=1)).why == (ABORTED, Asc.THIRD_PARTY_DEVICE_FAILURE)
    assert (await lab.copy(GOOD_SEGMENT, lun=0)).status == Status.RESERVATION_CONFLICT


async def reserve(lab: Lab, lun: int, kind: int) -> None:
    somebody = Registrant("iqn.x:else,i,0x000000000001", 1)
    state = PersistentState({somebody: 1}, kind, somebody)
    await disk_unit(lab.target, lun).reservations.change(lambda _state: Change(state), counts=False)


async def test_a_read_only_destination() -> None:
    lab = Lab()
    lab.destination.read_only = True
    assert (await lab.copy(GOOD_SEGMENT)).why == (ABORTED, Asc.THIRD_PARTY_DEVICE_FAILURE)


async def test_a_destination_in_standby() -> None:
    lab = Lab()
    set_access_state(
        disk_unit(lab.target, 1), disk_unit(lab.target, 1).port_groups.own, AccessState.STANDBY, lab.host.nexus
    )
    assert (await lab.copy(GOOD_SEGMENT)).why == (ABORTED, Asc.THIRD_PARTY_DEVICE_FAILURE)


# -- under way ---------------------------------------------------------------------------------------------------------


async def test_a_medium_that_fails() -> None:
    lab = Lab()
    lab.destination.failure = VolumeFailed("no more")
    assert (await lab.copy(GOOD_SEGMENT)).why == (ABORTED, Asc.THIRD_PARTY_DEVICE_FAILURE)
    data = await lab.host.good(results_cdb(FAILURE, 1))
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert data[56] == Status.CHECK_CONDITION
    length = int.from_bytes(data[58:60], "big")
    assert (data[60 + 2], data[60 + 12 : 60 + 14], len(data)) == (Key.COPY_ABORTED, b"\x0d\x01", 60 + length)


async def test_a_copy_in_progress() -> None:
    lab = Lab()
    lab.destination.held = asyncio.Event()
    _, answer = lab.start(segment(0, 1, 100, 0, 0), list_id=9)
    await turns()
    assert await lab.status(9) == (IN_PROGRESS, 0, 0)
    for action in (DATA, FAILURE):
        assert (await lab.host.send(results_cdb(action, 9))).why == (ILLEGAL, Asc.INVALID_FIELD_IN_CDB)
    assert (await lab.copy(GOOD_SEGMENT, list_id=9)).why == (ILLEGAL, Asc.OPERATION_IN_PROGRESS)
    assert (await Initiator(lab.target, "iqn.x:b").send(results_cdb(STATUS, 9))).status == Status.CHECK_CONDITION
    lab.destination.held.set()
    assert (await answer).status == Status.GOOD
    assert await lab.status(9) == (DONE, 1, 50)
    for action in (DATA, FAILURE):
        assert await lab.host.good(results_cdb(action, 9)) == bytes(4)


async def test_an_aborted_copy_stops_after_its_step() -> None:
    lab = Lab()
    lab.destination.held = asyncio.Event()
    tag, answer = lab.start(segment(0, 1, SIZE // 512, 0, 0), GOOD_SEGMENT)
    await turns()
    done = asyncio.get_running_loop().create_future()
    lab.host.nexus.manage(Function.ABORT_TASK, 0, tag, done.set_result)
    await turns()
    assert not done.done()
    lab.destination.held.set()
    await asyncio.gather(answer, done)
    assert lab.destination.data[:STEP_BYTES] == lab.source.data[:STEP_BYTES]
    assert not any(lab.destination.data[STEP_BYTES:])
    assert await lab.status() == (FAILED, 0, STEP_BYTES >> 10)


async def test_a_unit_that_goes_away_ends_the_copy() -> None:
    lab = Lab()
    lab.destination.held = asyncio.Event()
    _, answer = lab.start(segment(0, 1, SIZE // 512, 0, 0))
    await turns()
    lab.target.set_units({0: lab.source})
    lab.destination.held.set()
    assert (await answer).why == (ABORTED, Asc.COPY_TARGET_NOT_REACHABLE)


async def test_copies_at_the_same_time_are_bounded() -> None:
    lab = Lab()
    lab.destination.held = asyncio.Event()
    answers = [lab.start(GOOD_SEGMENT, list_id=n)[1] for n in range(CONCURRENT_COPIES_MAX)]
    await turns()
    assert (await lab.copy(GOOD_SEGMENT, list_id=99)).status == Status.BUSY
    lab.destination.held.set()
    assert {answer.status for answer in await asyncio.gather(*answers)} == {Status.GOOD}
    assert (await lab.copy(GOOD_SEGMENT, list_id=99)).status == Status.GOOD


async def test_a_copy_without_a_list_identifier_is_not_remembered() -> None:
    lab = Lab()
    assert (await lab.copy(GOOD_SEGMENT, list_id=0, usage=NO_LIST_ID)).status == Status.GOOD
    assert (await lab.host.send(results_cdb(STATUS, 0))).why == (ILLEGAL, Asc.INVALID_FIELD_IN_CDB)
    assert (await lab.copy(GOOD_SEGMENT, list_id=0, usage=DISCARD)).status == Status.GOOD
    assert await lab.status(0) == (DONE, 1, 0)


async def test_copies_are_forgotten_with_the_nexus() -> None:
    lab = Lab()
    await lab.copy(GOOD_SEGMENT)
    lab.host.leave()
    lab.host = Initiator(lab.target, "iqn.x:host")
    assert (await lab.host.send(results_cdb(STATUS, 1))).why == (ILLEGAL, Asc.INVALID_FIELD_IN_CDB)


async def test_operating_parameters() -> None:
    lab = Lab()
    data = await lab.host.good(results_cdb(PARAMETERS))
    assert data == bytes.fromhex(
        "0000002a 01 000000 0010 0040 00001000 0ffff000 00000000 00000000 00000000 0000 0008 08 09 00 00 000000 02 02e4"
    )
    assert await lab.host.good(results_cdb(PARAMETERS, allocation_length=4)) == bytes.fromhex("0000002a")


# -- whatever comes ----------------------------------------------------------------------------------------------------

indexes = st.integers(0, 3)
random_segments = st.builds(segment, indexes, indexes, st.integers(0, 40), st.integers(0, 130), st.integers(0, 130))
random_cscds = st.sampled_from([A, B, cscd("410001:nowhere"), cscd("410001:a", 4096), bytes(32)])
lists = st.builds(
    parameter_list,
    st.lists(random_cscds | st.binary(max_size=40), max_size=4),
    st.lists(random_segments | st.binary(max_size=30), max_size=4),
    st.integers(0, 255),
    st.integers(0, 3),
)


@given(lists | st.binary(max_size=200), st.integers(-4, 4))
async def test_random_parameter_lists_fail_as_scsi_says(data: bytes, off: int) -> None:
    source, destination = MemoryVolume("410001:a", 65536), MemoryVolume("410001:b", 65536)
    host = Initiator(make_target({0: source, 1: destination}))
    answer = await host.send(copy_cdb(max(0, len(data) + off)), data)
    assert answer.status == Status.GOOD or answer.why[0] in (Key.ILLEGAL_REQUEST, Key.COPY_ABORTED)
