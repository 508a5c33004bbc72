"""A whole connection, byte by byte: login, commands, data both ways, and every way to end."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.iscsi.connection import PDUS_A_TURN
from arrayd.iscsi.pdu import Opcode, RejectReason, build
from arrayd.scsi.task import Status
from tests.iscsi.requests import Pdu, read_10, write_10
from tests.iscsi.session_driver import BLOCK, DIGESTS, PATTERN, SOLICITED, Host, assert_nothing_left, blocks, make_node
from tests.lab.search import examples
from tests.scsi.memory_volume import MemoryVolume

# -- data there and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, DIGESTS, {"HeaderDigest": "CRC32C"}, {"DataDigest": "CRC32C"}])
@pytest.mark.parametrize("length", [512, 4096, 65536, 131072, 262144, 1048576])
async def test_write_and_read_back(keys: dict[str, str], length: int) -> None:
    volume = MemoryVolume(size=2 << 20)
    node = make_node({0: volume})
    host = Host(node).login(keys)
    data = PATTERN[:length]
    written = await host.run(write_10(3, length // BLOCK), out=data)
    assert written.status == Status.GOOD
    assert volume.data[blocks(3) : blocks(3) + length] == data
    outcome = await host.run(read_10(3, length // BLOCK), expected_in=length)
    assert outcome.status == Status.GOOD
    assert outcome.data == data
    host.close()
    assert_nothing_left(node)


async def scenario(host: Host, volume: MemoryVolume, keys: dict[str, str]) -> list[object]:
    """A session with a bit of everything; what came of it."""
    host.login(keys)
    for lba, count in ((0, 1), (5, 9), (64, 140)):
        assert (await host.run(write_10(lba, count), out=PATTERN[lba : lba + blocks(count)])).status == Status.GOOD
    seen: list[object] = [bytes(volume.data)]
    for lba, count in ((0, 1), (3, 60), (64, 140)):
        seen.append(bytes((await host.run(read_10(lba, count), expected_in=blocks(count))).data))
    seen.append((await host.run(bytes([0x12, 0, 0, 0, 36, 0]), expected_in=36)).data)
    seen.append((await host.run(read_10(1 << 30, 1), expected_in=BLOCK)).sense)
    host.feed(host.nop(b"are you there?"))
    seen.append(host.only().data)
    host.feed(host.pdu(Opcode.LOGOUT_REQUEST, immediate=True, initiator_task_tag=host.new_tag()))
    seen.append(host.only().response)
    assert host.connection.closing
    host.close()
    assert_nothing_left(host.node)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, DIGESTS, SOLICITED], ids=["plain", "digests", "solicited"])
async def test_the_same_whole_and_split(keys: dict[str, str]) -> None:
    volume = MemoryVolume()
    whole = await scenario(Host(make_node({0: volume})), volume, keys)
    for piece, chunk in ((1, 1 << 30), (3, 17), (47, 48), (48, 7), (49, 511), (512, 513), (4095, 65537), (8193, 8192)):
        volume = MemoryVolume()
        split = await scenario(Host(make_node({0: volume}), piece=piece, chunk=chunk), volume, keys)
        assert split == whole, (piece, chunk)


async def test_many_commands_in_one_piece() -> None:
    volume = MemoryVolume()
    node = make_node({0: volume})
    host = Host(node).login()
    data = PATTERN[: blocks(128)]
    stream = b""
    for lba in range(128):
        stream += host.command(write_10(lba, 1), out=data[blocks(lba) : blocks(lba + 1)])
        stream += host.command(read_10(lba, 1), expected_in=BLOCK)
        if lba % 16 == 0:
            stream += host.command(bytes(6)) + host.nop()
    host.feed(stream)
    assert len(host.others) == 8
    assert all(outcome.status == Status.GOOD for outcome in host.outcomes.values())
    reads = [bytes(outcome.data) for outcome in host.outcomes.values() if outcome.data]
    assert b"".join(reads) == data
    host.close()
    assert_nothing_left(node)


async def test_one_turn_takes_a_bounded_number_of_pdus() -> None:
    host = Host(make_node()).login()
    stream = b"".join(host.nop() for _ in range(3 * PDUS_A_TURN))
    space = host.connection.space()
    space[: len(stream)] = stream
    host.connection.received(len(stream))
    assert host.connection.stalled
    assert host.connection.output.tail == 48 * PDUS_A_TURN
    host.pump()
    assert len(host.others) == 3 * PDUS_A_TURN
    assert not host.connection.stalled


COUNTS = st.one_of(st.integers(1, 40), st.integers(1, 40), st.integers(1, 400))
"""Blocks; some more than the largest burst, few of them: there are as many PDUs as blocks when segments are short."""

PIECES = st.one_of(st.integers(1000, 30_000), st.integers(1000, 300_000))


@settings(max_examples=examples(40))
@given(st.data())
def test_reads_and_writes_of_any_shape(data: st.DataObject) -> None:
    """A volume over iSCSI is a row of bytes, whatever was negotiated and however the bytes are cut."""
    keys = {
        "HeaderDigest": data.draw(st.sampled_from(["None", "CRC32C"])),
        "DataDigest": data.draw(st.sampled_from(["None", "CRC32C"])),
        "InitialR2T": data.draw(st.sampled_from(["Yes", "No"])),
        "ImmediateData": data.draw(st.sampled_from(["Yes", "No"])),
        "MaxRecvDataSegmentLength": str(data.draw(st.integers(512, 100_000))),
        "MaxBurstLength": str(data.draw(st.one_of(st.integers(512, 20_000), st.integers(512, 200_000)))),
        "FirstBurstLength": str(data.draw(st.one_of(st.integers(512, 10_000), st.integers(512, 100_000)))),
        "MaxOutstandingR2T": str(data.draw(st.integers(1, 12))),
    }
    piece, chunk = data.draw(PIECES), data.draw(PIECES)
    steps = data.draw(st.lists(st.tuples(st.booleans(), st.integers(0, 2000), COUNTS), max_size=8))

    async def play() -> None:
        volume = MemoryVolume(size=blocks(2400))
        node = make_node({0: volume})
        host = Host(node, piece=piece, chunk=chunk).login(keys)
        model = bytearray(volume.size)
        for number, (writes, lba, count) in enumerate(steps):
            start, end = blocks(lba), blocks(lba + count)
            if writes:
                model[start:end] = content = PATTERN[number : number + end - start]
                assert (await host.run(write_10(lba, count), out=content)).status == Status.GOOD
            else:
                outcome = await host.run(read_10(lba, count), expected_in=end - start)
                assert outcome.status == Status.GOOD
                assert outcome.data == model[start:end]
                assert all(len(pdu.data) % 4 == 0 for pdu in outcome.data_ins[:-1])
                assert burst_ends(outcome.data_ins, int(host.agreed["MaxBurstLength"]))
        assert volume.data == model
        host.close()
        assert_nothing_left(node)

    asyncio.run(play())


OPCODES = [0x08, 0x0A, 0x28, 0x2A, 0xA8, 0xAA, 0x88, 0x8A]
"""READ and WRITE, 6, 10, 12 and 16."""


def transfer_cdb(opcode: int, flags: int, lba: int, count: int, rest: int) -> bytes:
    """A READ or WRITE of any length; `rest` is the group number, where there is one, and `flags` what byte 1 holds."""
    if opcode < 0x20:
        return bytes([opcode]) + (flags << 21 & 0xE00000 | lba & 0x1FFFFF).to_bytes(3, "big") + bytes([count & 0xFF, 0])
    head = bytes([opcode, flags])
    if opcode < 0x40:
        return head + lba.to_bytes(4, "big") + bytes([rest]) + (count & 0xFFFF).to_bytes(2, "big") + b"\0"
    width = 8 if opcode < 0xA0 else 4
    return head + lba.to_bytes(width, "big") + count.to_bytes(4, "big") + bytes([rest, 0])


@settings(max_examples=examples(300))
@given(
    opcode=st.sampled_from(OPCODES),
    flags=st.sampled_from([0, 0, 0, 0x10, 0x08, 0x20, 0x02, 0xFF]),
    lba=st.sampled_from([0, 1, 40, 63, 64, 65, 0xFFFFFFFF]),
    count=st.sampled_from([0, 1, 2, 8, 24, 64, 65, 256, 0xFFFF]),
    rest=st.sampled_from([0, 0, 0, 1]),
    expected=st.sampled_from([0, 1, 512, 1024, 4096, 12288, 32768, 65536]),
    writes=st.booleans(),
    keys=st.sampled_from([{}, DIGESTS]),
)
def test_on_the_spot_or_not_is_the_same(
    opcode: int, flags: int, lba: int, count: int, rest: int, expected: int, writes: bool, keys: dict[str, str]
) -> None:
    """The fast path does what the long way does, or leaves it alone."""
    cdb = transfer_cdb(opcode, flags, lba, count, rest)

    async def play(fast: bool) -> tuple[object, ...]:
        volume = MemoryVolume(size=blocks(64))
        volume.data[:] = PATTERN[: blocks(64)]
        node = make_node({0: volume})
        host = Host(node).login(keys)
        assert host.connection.phase is not None
        assert host.connection.phase.fast
        if not fast:
            host.connection.phase.fast = {}
        out = PATTERN[:expected][::-1] if writes else b""
        outcome = await host.run(cdb, out=out, expected_in=0 if writes else expected)
        assert outcome.end is not None
        header = outcome.end.header
        seen = (header.status, header.overflow, header.underflow, header.residual_count, header.exp_cmd_sn)
        sense = outcome.sense if outcome.status else b""
        host.close()
        assert_nothing_left(node)
        return *seen, header.max_cmd_sn, sense, bytes(outcome.data), bytes(volume.data)

    assert asyncio.run(play(True)) == asyncio.run(play(False))


def burst_ends(data_ins: list[Pdu], max_burst: int) -> bool:
    """Whether no sequence of Data-In, each ended by F, is longer than MaxBurstLength."""
    length = 0
    for pdu in data_ins:
        length += len(pdu.data)
        if length > max_burst:
            return False
        if pdu.final:
            length = 0
    return length == 0


# -- what must not be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [bytes(48), build(Opcode.TEXT_REQUEST, b"SendTargets=All\0"), bytes([0xFF]) * 48])
async def test_anything_but_a_login_request_first_ends_the_connection(header: bytes) -> None:
    host = Host(make_node())
    host.feed(header)
    assert host.connection.closing
    assert host.connection.output.empty
    host.close()
    assert_nothing_left(host.node)


async def test_a_login_pdu_that_is_too_long_ends_the_connection() -> None:
    host = Host(make_node())
    host.feed(build(Opcode.LOGIN_REQUEST, bytes(8193), immediate=True, csg=1)[:48])
    assert host.connection.closing


async def test_a_refused_login_is_answered_before_the_end() -> None:
    host = Host(make_node(), name="no iSCSI name", from_loopback=False)
    host.feed(host.login_request({}))
    assert host.only().status != 0
    assert host.connection.closing
    host.close()
    assert_nothing_left(host.node)


@pytest.mark.parametrize("length", [262145, 0xFFFFFF])
async def test_a_segment_that_is_too_long_ends_the_connection_before_it_comes(length: int) -> None:
    host = Host(make_node()).login()
    header = bytearray(host.nop())
    header[5:8] = length.to_bytes(3, "big")
    host.feed(bytes(header))
    assert "data segment" in host.connection.closing
    host.close()
    assert_nothing_left(host.node)


async def test_a_wrong_header_digest_ends_the_connection() -> None:
    volume = MemoryVolume()
    for writes in (False, True):
        host = Host(make_node({0: volume})).login(DIGESTS)
        pdu = bytearray(host.command(write_10(0, 1), out=PATTERN[:BLOCK]) if writes else host.nop())
        pdu[48] ^= 1
        host.feed(bytes(pdu))
        assert "header digest" in host.connection.closing
        host.close()
    assert not any(volume.data)


async def test_a_wrong_data_digest_is_rejected_and_the_command_can_be_sent_again() -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login(DIGESTS)
    out = PATTERN[:BLOCK]
    command = host.command(write_10(0, 1), out=out)
    host.feed(command[:-1] + bytes([command[-1] ^ 1]))
    reject = host.only()
    assert (reject.opcode, reject.reason) == (Opcode.REJECT, RejectReason.DATA_DIGEST_ERROR)
    assert reject.data == command[:48]
    assert not any(volume.data)
    host.feed(command)
    assert host.outcomes[host.last_tag].status == Status.GOOD
    assert volume.data[:BLOCK] == out


async def test_a_wrong_data_digest_of_data_out_ends_the_task() -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login(DIGESTS, SOLICITED)
    out = PATTERN[:BLOCK]
    host.feed(host.command(write_10(0, 1), out=out))
    outcome = host.outcomes[host.last_tag]
    pdu = host.answer_to(outcome.asked[0], out)
    host.feed(pdu[:-1] + bytes([pdu[-1] ^ 1]))
    assert host.only().reason == RejectReason.DATA_DIGEST_ERROR
    assert outcome.sense[12:14] == b"\x47\x05"
    assert not any(volume.data)
    host.close()
    assert_nothing_left(host.node)


@pytest.mark.parametrize(
    ("keys", "fields"),
    [
        ({"ImmediateData": "No"}, {"immediate_data": PATTERN[:BLOCK]}),
        ({"FirstBurstLength": "512"}, {"immediate_data": PATTERN[: blocks(2)]}),
        ({"InitialR2T": "Yes"}, {"final": False}),
        ({}, {"expected_data_transfer_length": 100}),
    ],
)
async def test_unsolicited_data_that_was_not_agreed_is_a_protocol_error(
    keys: dict[str, str], fields: dict[str, object]
) -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login(keys)
    host.feed(host.command(write_10(0, 2), out=PATTERN[: blocks(2)], **fields))  # type: ignore[arg-type]
    assert host.only().reason == RejectReason.PROTOCOL_ERROR
    assert host.connection.closing
    assert not any(volume.data)
    host.close()
    assert_nothing_left(host.node)


async def test_the_longest_read_on_the_spot_follows_the_segment_length() -> None:
    """MaxRecvDataSegmentLength may change in full feature phase, between two commands of one piece."""
    host = Host(make_node()).login()
    stream = host.command(read_10(0, 64), expected_in=blocks(64))
    before = host.outcomes[host.last_tag]
    stream += host.pdu(
        Opcode.TEXT_REQUEST, b"MaxRecvDataSegmentLength=4096\0", final=True, initiator_task_tag=host.new_tag()
    )
    stream += host.command(read_10(0, 64), expected_in=blocks(64))
    after = host.outcomes[host.last_tag]
    host.feed(stream)
    assert [len(pdu.data) for pdu in before.data_ins] == [32768]
    assert [len(pdu.data) for pdu in after.data_ins] == [4096] * 8


async def test_what_stalls_on_a_full_output_goes_on_when_it_drains() -> None:
    """An initiator that does not read stops being read from, with its output and no more in memory."""
    volume = MemoryVolume(size=4 << 20)
    volume.data[:] = PATTERN[: 1 << 20] * 4
    node = make_node({0: volume})
    host = Host(node).login()
    host.reading = False
    sent = 0
    for number in range(10_000):
        host.feed(host.command(read_10(0, 2048), expected_in=1 << 20) if number % 2 else host.nop(PATTERN[:200_000]))
        sent += 1
        if host.connection.stalled:
            break
    assert sent < 100
    assert node.buffers.used_bytes <= 40 << 20
    host.reading = True
    host.pump()
    reads = [outcome for outcome in host.outcomes.values() if outcome.end is not None]
    assert len(reads) == len(host.outcomes)
    assert all(outcome.data == volume.data[: 1 << 20] for outcome in reads)
    host.close()
    assert_nothing_left(node)
