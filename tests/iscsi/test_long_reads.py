"""Long reads of warm ranges, which are answered on the spot by saying where in a file their data lies."""

from __future__ import annotations

import pytest

from arrayd.iscsi.full_feature import OUTSIDE_BYTES_MAX
from arrayd.scsi.task import SENDFILE_BYTES, Status, Task
from tests.iscsi.requests import read_10
from tests.iscsi.session_driver import BLOCK, DIGESTS, PATTERN, Host, assert_nothing_left, make_node
from tests.scsi.memory_volume import WarmVolume

MIB = 1 << 20
SEGMENT = 256 << 10


class Lab:
    """A host on a volume whose ranges are warm, and the tasks that were made for its commands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str] | None = None) -> None:
        self.volume = WarmVolume()
        self.volume.data[:] = PATTERN * 2
        self.host = Host(make_node({0: self.volume})).login(keys or {})
        self.tasks: list[Task] = []
        session = self.host.connection.session
        assert session is not None
        enter = session.nexus.enter

        def entered(task: Task) -> None:
            self.tasks.append(task)
            enter(task)

        monkeypatch.setattr(session.nexus, "enter", entered)

    def end(self) -> None:
        self.host.close()
        assert_nothing_left(self.host.node)


@pytest.mark.parametrize("length", [SENDFILE_BYTES, SEGMENT, SEGMENT + BLOCK, MIB, 3 * MIB])
@pytest.mark.parametrize("segment", [4096, SEGMENT])
async def test_data_and_its_pieces(monkeypatch: pytest.MonkeyPatch, length: int, segment: int) -> None:
    lab = Lab(monkeypatch, {"MaxRecvDataSegmentLength": str(segment), "MaxBurstLength": "1048576"})
    outcome = await lab.host.run(read_10(7, length // BLOCK), expected_in=length)
    assert outcome.status == Status.GOOD
    assert outcome.data == lab.volume.data[7 * BLOCK : 7 * BLOCK + length]
    assert [len(pdu.data) for pdu in outcome.data_ins[:-1]] == [segment] * (-(-length // segment) - 1)
    assert lab.tasks == []
    lab.end()


async def test_many_at_once_with_others_between(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch)
    stream, wanted = b"", []
    for number in range(40):
        length = BLOCK if number % 3 else SENDFILE_BYTES + number * BLOCK
        stream += lab.host.command(read_10(number, length // BLOCK), expected_in=length)
        wanted.append((lab.host.last_tag, bytes(lab.volume.data[number * BLOCK : number * BLOCK + length])))
    lab.host.feed(stream)
    assert [bytes(lab.host.outcomes[tag].data) for tag, _ in wanted] == [data for _, data in wanted]
    assert all(lab.host.outcomes[tag].status == Status.GOOD for tag, _ in wanted)
    assert lab.tasks == []
    lab.end()


@pytest.mark.parametrize("keys", [DIGESTS, {"HeaderDigest": "CRC32C"}], ids=["digests", "header digest"])
async def test_digests_take_the_long_way(monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]) -> None:
    lab = Lab(monkeypatch, keys)
    outcome = await lab.host.run(read_10(7, MIB // BLOCK), expected_in=MIB)
    assert outcome.data == lab.volume.data[7 * BLOCK : 7 * BLOCK + MIB]
    assert len(lab.tasks) == 1
    lab.end()


async def test_what_is_cold_takes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch)
    lab.volume.cold = True
    outcome = await lab.host.run(read_10(7, MIB // BLOCK), expected_in=MIB)
    assert outcome.data == lab.volume.data[7 * BLOCK : 7 * BLOCK + MIB]
    assert len(lab.tasks) == 1
    lab.end()


@pytest.mark.parametrize("excess", [-BLOCK, BLOCK])
async def test_residuals_take_the_long_way(monkeypatch: pytest.MonkeyPatch, excess: int) -> None:
    """The CDB asks for more, or for less, than the host expects."""
    lab = Lab(monkeypatch)
    outcome = await lab.host.run(read_10(7, MIB // BLOCK), expected_in=MIB + excess)
    assert outcome.status == Status.GOOD
    assert outcome.data == lab.volume.data[7 * BLOCK : 7 * BLOCK + min(MIB, MIB + excess)]
    assert outcome.end is not None
    assert outcome.end.residual_count == BLOCK
    lab.end()


async def test_beyond_capacity_takes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch)
    outcome = await lab.host.run(read_10(4 * MIB // BLOCK - 8, MIB // BLOCK), expected_in=MIB)
    assert outcome.status == Status.CHECK_CONDITION
    lab.end()


async def test_an_initiator_that_does_not_read_stops_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch)
    lab.host.reading = False
    asked = 0
    while not lab.host.connection.stalled:
        lab.host.feed(lab.host.command(read_10(asked, MIB // BLOCK), expected_in=MIB))
        asked += 1
        assert lab.host.connection.output.outside_bytes <= OUTSIDE_BYTES_MAX + MIB
    assert asked < 20
    lab.host.reading = True
    lab.host.pump()
    ended = [outcome for outcome in lab.host.outcomes.values() if outcome.end is not None]
    assert len(ended) == asked
    lab.end()
