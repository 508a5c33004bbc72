"""READ and WRITE that go over the link without a task: what comes of them, and what waits for them."""

from __future__ import annotations

import pytest

from arrayd.iscsi.pdu import Opcode
from arrayd.scsi.sense import Asc
from tests.iscsi.requests import read_10, write_10
from tests.iscsi.session_driver import DIGESTS
from tests.virtual.pair import Pair

ORDERED = 2
LUN_RESET = 5
SYNCHRONIZE_CACHE = bytes((0x35,)) + bytes(9)
DATA = bytes(range(256)) * 16


def relayed(pair: Pair) -> int:
    """Commands that are on their way without a task."""
    (unit,) = pair.near_target.units.values()
    return len(unit.relayed)  # type: ignore[attr-defined]


@pytest.mark.parametrize("keys", [{}, DIGESTS])
async def test_a_write_and_a_read_need_no_task(keys: dict[str, str]) -> None:
    pair = Pair().login(keys)
    written = pair.begin(write_10(3, 8), out=DATA)
    assert relayed(pair) == 1
    pair.settle()
    assert written.status == 0
    assert pair.volume.writes == [(3 * 512, 4096)]
    read = pair.begin(read_10(3, 8), expected_in=4096)
    assert relayed(pair) == 1
    pair.settle()
    assert (read.status, bytes(read.data)) == (0, DATA)
    assert relayed(pair) == 0
    pair.assert_nothing_left()


async def test_what_the_far_array_refuses_comes_back_with_sense_and_residual() -> None:
    pair = Pair().login()
    beyond = pair.begin(read_10(1 << 30, 8), expected_in=4096)
    assert relayed(pair) == 1
    pair.settle()
    assert (beyond.status, beyond.sense[12:14]) == (2, b"\x21\x00")
    assert beyond.end.residual_count == 4096  # type: ignore[union-attr]
    short = pair.begin(write_10(0, 8), out=DATA[:512])
    pair.settle()
    assert short.end.residual_count == 7 * 512  # type: ignore[union-attr]
    pair.assert_nothing_left()


@pytest.mark.parametrize("blocks", [8, 700])
@pytest.mark.parametrize("expected_in", [0, 512, 2048])
async def test_data_that_the_host_does_not_expect_does_not_go_over_the_link(blocks: int, expected_in: int) -> None:
    """The host learns by the residual how much there would have been."""
    pair = Pair().login()
    connection = pair.line.a.connection
    pair.volume.data[: 8 * 512] = DATA
    read = pair.begin(read_10(0, blocks), expected_in=expected_in)
    pair.settle()
    assert (read.status, bytes(read.data)) == (0, DATA[:expected_in])
    assert read.end.residual_count == blocks * 512 - expected_in  # type: ignore[union-attr]
    assert connection is not None
    assert not connection.closing
    pair.assert_nothing_left()


async def test_an_ordered_task_waits_for_all_before_it_and_all_after_wait_for_it() -> None:
    pair = Pair().login()
    before = pair.begin(write_10(0, 8), out=DATA)
    pair.host.feed(pair.host.command(SYNCHRONIZE_CACHE, attribute=ORDERED))
    ordered = pair.last
    after = pair.begin(write_10(0, 8), out=DATA)
    assert relayed(pair) == 1
    pair.line.carry(True)
    assert pair.volume.writes == [(0, 4096)]
    assert not ordered.ended
    pair.settle()
    assert [outcome.status for outcome in (before, ordered, after)] == [0, 0, 0]
    assert pair.volume.writes == [(0, 4096), (0, 4096)]
    pair.begin(read_10(0, 8), expected_in=4096)
    assert relayed(pair) == 1, "nobody waits any more"
    pair.settle()
    pair.assert_nothing_left()


async def test_a_unit_attention_of_this_array_comes_first() -> None:
    pair = Pair().login()
    (unit,) = pair.near_target.units.values()
    (nexus,) = pair.near_target.nexuses
    unit.establish(Asc.REPORTED_LUNS_DATA_HAS_CHANGED, nexus)
    told = pair.begin(read_10(0, 8), expected_in=4096)
    assert (told.status, told.sense[2]) == (2, 6)
    pair.begin(read_10(0, 8), expected_in=4096)
    assert relayed(pair) == 1
    pair.settle()
    pair.assert_nothing_left()


async def test_a_reset_is_answered_when_all_that_was_under_way_has_ended() -> None:
    pair = Pair().login()
    outcome = pair.begin(write_10(0, 8), out=DATA)
    pair.host.feed(
        pair.host.pdu(Opcode.TASK_MANAGEMENT_REQUEST, immediate=True, final=True, function=LUN_RESET, lun=0,
                      initiator_task_tag=pair.host.new_tag(), referenced_task_tag=0xFFFFFFFF, ref_cmd_sn=0,
                      exp_data_sn=0)
    )  # fmt: skip
    assert not pair.host.others
    pair.line.cut()
    pair.host.pump()
    assert not pair.host.others
    pair.line.connect()
    pair.settle()
    assert outcome.ended
    assert pair.host.only().response == 0
    pair.assert_nothing_left()


async def test_what_cannot_be_sent_at_once_waits_as_a_task() -> None:
    pair = Pair().login()
    pair.line.cut()
    outcome = pair.begin(write_10(0, 8), out=DATA)
    assert relayed(pair) == 0
    pair.line.connect()
    pair.settle()
    assert outcome.status == 0
    assert pair.volume.writes == [(0, 4096)]
    pair.assert_nothing_left()


async def test_more_commands_than_the_output_of_the_link_holds() -> None:
    pair = Pair().login()
    outcomes = [pair.begin(write_10(number * 8, 8), out=DATA) for number in range(100)]
    outcomes += [pair.begin(read_10(number * 8, 8), expected_in=4096) for number in range(100)]
    pair.settle()
    assert {outcome.status for outcome in outcomes} == {0}
    assert {bytes(outcome.data) for outcome in outcomes[100:]} == {DATA}
    pair.assert_nothing_left()
