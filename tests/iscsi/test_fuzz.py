"""Nothing that comes from the network makes a connection fail, hang, or keep anything once it is gone.

Sessions that a well-behaved initiator could have, with whole PDUs lost, doubled, cut or put elsewhere, fields of any
value and bytes that flipped; and pure noise. ARRAYD_FUZZ_SECONDS makes the search longer than a test suite wants it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.iscsi import connection as connection_module
from arrayd.iscsi.keys import LOGIN_SEGMENT_BYTES
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, Opcode, build
from arrayd.iscsi.session import Node
from arrayd.scsi.task import Function, Status
from tests.iscsi.requests import Pdu, read_10, write_10
from tests.iscsi.session_driver import DIGESTS, PATTERN, SOLICITED, Host, assert_nothing_left, blocks, make_node
from tests.lab.search import examples
from tests.scsi.memory_volume import MemoryVolume

FUZZ_SECONDS = float(os.environ.get("ARRAYD_FUZZ_SECONDS", "2"))
ROUNDS_MAX = 100_000
LUN = 0
UNIT_ATTENTION = bytes((0x70, 0, 6))
STEPS_MAX = 30
INTERESTING = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x40000, 0xFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


class Stranger(Host):
    """An initiator that need not know what the answers are to, but holds the target to its numbers."""

    def _receive(self, pdu: Pdu) -> None:
        if pdu.opcode != Opcode.R2T:
            self.others.append(pdu)
        elif pdu.initiator_task_tag in self.outcomes:
            self.outcomes[pdu.initiator_task_tag].asked.append(pdu)
        sent, self.cmd_sn = self.cmd_sn, (pdu.header.exp_cmd_sn) & 0xFFFFFFFF
        self._check_numbers(pdu)
        self.cmd_sn = sent


@pytest.fixture(autouse=True)
def _faults_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the daemon's own ends a connection and is logged; here it fails the test."""

    def raise_it(_event: str, exc_info: BaseException) -> None:
        raise exc_info

    monkeypatch.setattr(connection_module.log, "error", raise_it, raising=False)


def some_pdu(host: Host, random_: random.Random) -> bytes:
    """What an initiator could send at any time."""
    lba, count = random_.randrange(2100), random_.choice((0, 1, 1, 8, 128, 300))
    length = blocks(count)
    match random_.randrange(12):
        case 0 | 1:
            return host.command(read_10(lba, count), expected_in=length)
        case 2 | 3:
            return host.command(write_10(lba, count), out=PATTERN[:length])
        case 4:
            out = PATTERN[: max(length, 1024)]
            return host.command(write_10(lba, count), out=out, immediate_data=out[:512], final=False) + host.data_out(
                host.last_tag, NO_TAG, 0, 512, out[512:1024], random_.random() < 0.9
            )
        case 5:
            open_r2ts = [r2t for outcome in host.outcomes.values() for r2t in outcome.asked]
            return host.answer_to(random_.choice(open_r2ts), PATTERN, 8192) if open_r2ts else host.nop()
        case 6:
            tag = random_.choice([*host.outcomes, 0, NO_TAG])
            function = random_.choice([*list(Function), 0, 99])
            function = Function.ABORT_TASK if function == Function.TARGET_COLD_RESET else function
            ref = (host.cmd_sn - random_.randrange(-3, 8)) & 0xFFFFFFFF
            return host.manage(function, LUN, referenced_task_tag=tag, ref_cmd_sn=ref)
        case 7:
            return host.nop(PATTERN[: random_.choice((0, 1, 4096))], immediate=random_.random() < 0.5)
        case 8:
            text = random_.choice((b"SendTargets=All\0", b"X-key=1\0", b"A=", b"\0" * 50, b"k" * 3000))
            return host.pdu(
                Opcode.TEXT_REQUEST,
                text,
                final=random_.random() < 0.7,
                continue_=random_.random() < 0.3,
                initiator_task_tag=random_.randrange(4),
                target_transfer_tag=random_.choice((NO_TAG, 1, 2)),
            )
        case 9:
            cdb = random_.randbytes(16)
            if random_.random() < 0.5:
                return host.command(cdb, expected_in=random_.choice((0, 255, 65536)))
            return host.command(cdb, out=PATTERN[: random_.choice((1, 24, 512))])
        case 10:
            return host.data_out(random_.randrange(40), random_.choice((NO_TAG, 1, 2)), 0, 0, PATTERN[:512], True)
        case _:
            return host.command(bytes(6), lun=random_.choice((0, 1, 300)))


def damaged(pdus: list[bytes], random_: random.Random) -> bytes:
    """The bytes of `pdus`, a few of them not as they were."""
    pdus = list(pdus)
    for _ in range(random_.choice((0, 1, 1, 2, 4))):
        at = random_.randrange(len(pdus))
        pdu = bytearray(pdus[at])
        if len(pdu) < BHS_BYTES:  # cut short by the damage before
            continue
        match random_.randrange(8):
            case 0:
                pdu[random_.randrange(min(48, len(pdu)))] = random_.randrange(256)
            case 1:
                offset = random_.choice((4, 8, 16, 20, 24, 28, 32, 36, 40, 44))
                pdu[offset : offset + 4] = random_.choice(INTERESTING).to_bytes(4, "big")
            case 2:
                pdu[1] ^= 1 << random_.randrange(8)
            case 3:
                del pdu[random_.randrange(len(pdu)) :]
            case 4:
                pdus.insert(random_.randrange(len(pdus)), bytes(pdu))
            case 5:
                pdu[4] = random_.randrange(256)
            case 6:
                pdu = bytearray(random_.randbytes(random_.randrange(1, 200)))
            case _:
                pdus[at], pdus[-1] = pdus[-1], pdus[at]
                continue
        pdus[at] = bytes(pdu)
    return b"".join(pdus)


def keys_of(random_: random.Random) -> Iterator[dict[str, str]]:
    yield random_.choice(({}, DIGESTS, SOLICITED, SOLICITED | DIGESTS, {"DataDigest": "CRC32C"}))
    yield {
        "MaxRecvDataSegmentLength": str(random_.choice((512, 513, 4096, 262144))),
        "MaxBurstLength": str(random_.choice((512, 8192, 1048576))),
        "MaxOutstandingR2T": str(random_.randrange(1, 9)),
    }


async def play(seed: int) -> None:
    """One damaged session, beside one that must not notice."""
    random_ = random.Random(seed)
    volume = MemoryVolume()
    node = make_node({LUN: volume}, limit_bytes=random_.choice((1 << 20, 256 << 20)))
    neighbour = Host(node, isid=bytes(6)).login()
    host = Stranger(node, piece=random_.choice((1 << 30, 5000, 100)), chunk=random_.choice((1 << 30, 3000)))
    host.login(*keys_of(random_))
    for _ in range(random_.randrange(1, 6)):
        if random_.random() < 0.3:
            volume.held = asyncio.Event()
        host.reading = random_.random() < 0.8
        host.feed(damaged([some_pdu(host, random_) for _ in range(random_.randrange(1, 8))], random_))
        await asyncio.sleep(0)
        if volume.held is not None:
            volume.held.set()
            volume.held = None
        for _ in range(4):
            await asyncio.sleep(0)
            host.pump()
        if host.ending():
            break
    host.reading = True
    host.pump()
    if neighbour.ending():  # a flipped bit makes another function of LUN RESET
        assert neighbour.connection.closing == "target cold reset"
        host.close()
        await settle(node, neighbour)
        return
    answers = [await neighbour.run(bytes(6)) for _ in range(4)]
    told = [(answer.status, bytes(answer.sense[:3])) for answer in answers if answer.status]
    reserved = (Status.RESERVATION_CONFLICT, b"")  # and another of READ: RESERVE
    assert all(what in (reserved, (Status.CHECK_CONDITION, UNIT_ATTENTION)) for what in told), told
    host.close()
    await settle(node, neighbour)


async def settle(node: Node, neighbour: Host) -> None:
    """Everybody leaves; nothing is left."""
    neighbour.close()
    target = node.target.units[LUN]  # type: ignore[attr-defined]
    await neighbour.until(lambda: not target.tasks)
    assert_nothing_left(node)


@pytest.mark.timeout(FUZZ_SECONDS + 60)
def test_damaged_sessions() -> None:
    end = time.monotonic() + FUZZ_SECONDS
    seed = int(os.environ.get("ARRAYD_FUZZ_SEED", str(random.SystemRandom().randrange(1 << 32))))
    for seed in range(seed, seed + ROUNDS_MAX):  # noqa: B020
        try:
            asyncio.run(play(seed))
        except BaseException:
            print(f"ARRAYD_FUZZ_SEED={seed}")
            raise
        if time.monotonic() > end:
            return


@settings(max_examples=examples(100))
@given(st.integers(0, 1 << 32))
def test_damaged_sessions_that_shrink(seed: int) -> None:
    asyncio.run(play(seed))


@given(st.binary(max_size=2000), st.integers(1, 2000), st.sampled_from([{}, DIGESTS]))
def test_noise_after_the_login(noise: bytes, piece: int, keys: dict[str, str]) -> None:
    async def run() -> None:
        node = make_node()
        host = Stranger(node, piece=piece).login(keys)
        host.feed(noise)
        host.close()
        assert_nothing_left(node)

    asyncio.run(run())


@given(st.binary(max_size=2000), st.integers(1, 2000), st.booleans())
def test_noise_instead_of_a_login(noise: bytes, piece: int, as_login: bool) -> None:
    async def run() -> None:
        node = make_node()
        host = Stranger(node, piece=piece)
        host.feed(build(Opcode.LOGIN_REQUEST, noise, immediate=True, transit=True, csg=1, nsg=3) if as_login else noise)
        host.close()
        assert_nothing_left(node)

    asyncio.run(run())


@pytest.mark.parametrize("text", [b"A", b"A=" * 4000, b"A=b\0" * 2000, b"\0" * 8192, b"=\0" * 10, b"\xff\xfe=\0"])
@pytest.mark.parametrize("continue_", [False, True])
async def test_keys_without_end_in_a_login(text: bytes, continue_: bool) -> None:
    node = make_node()
    host = Host(node)
    for _ in range(100):
        host.feed(
            build(
                Opcode.LOGIN_REQUEST,
                text[:LOGIN_SEGMENT_BYTES],
                immediate=True,
                csg=1,
                continue_=continue_,
                cmd_sn=host.cmd_sn,
            )
        )
        if host.ending():
            break
    assert host.ending()
    host.close()
    assert_nothing_left(node)


@pytest.mark.parametrize("text", [b"A=b\0" * 100, b"A" * 8000, b"\0" * 8000])
async def test_keys_without_end_in_full_feature_phase(text: bytes) -> None:
    host = Host(make_node()).login()
    transfer_tag = NO_TAG
    for _ in range(1000):
        host.feed(
            host.pdu(
                Opcode.TEXT_REQUEST,
                text,
                continue_=True,
                initiator_task_tag=1,
                target_transfer_tag=transfer_tag,
            )
        )
        answer = host.others.pop()
        if answer.opcode == Opcode.REJECT:
            break
        transfer_tag = answer.target_transfer_tag
    assert answer.opcode == Opcode.REJECT
    host.close()
    assert_nothing_left(host.node)
