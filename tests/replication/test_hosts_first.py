"""Hosts first: how long the service of a journal rests while hosts write, and when it does not."""

import pytest

from arrayd.replication.hosts_first import (
    BEHIND_SHARE,
    BEHIND_SHARE_MAX,
    BUSY_SECONDS,
    CREDIT_SECONDS_MAX,
    LAG_SECONDS,
    LAG_SECONDS_MAX,
    REST_SECONDS_MIN,
    SHARE_LEAST,
    SHARE_MOST,
    TURN_PIECES,
    TURN_SECONDS,
    TURN_SECONDS_MAX,
    HostsFirst,
    share,
)
from arrayd.replication.journal.regions import BLOCK_BYTES, START, Position, PrimaryRegions, Size

WORK = TURN_SECONDS_MAX / 10


class Service:
    """Pieces of work of so many seconds each, by a clock of its own. Others take `theirs` when they have their turn, or
    as long as there is a rest."""

    def __init__(self) -> None:
        self.regions = PrimaryRegions(Size(1 << 20, 1 << 30), START, START, START, START)
        self.time = 100.0
        self.share = SHARE_LEAST
        self.theirs = 0.0
        self.rests: list[float] = []
        self.first = HostsFirst(self.regions, lambda: self.time, lambda: self.share)

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.time += max(seconds, self.theirs)

    def hosts_write(self) -> None:
        sequence, byte = self.regions.stored
        self.regions.store(Position(sequence + 1, byte + BLOCK_BYTES))

    async def work(self, pieces: int, seconds: float, *, busy: bool) -> None:
        self.first.begin()
        for _ in range(pieces):
            self.time += seconds
            if busy:
                self.hosts_write()
            await self.first.turn()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr("arrayd.replication.hosts_first.asyncio.sleep", made.sleep)
    return made


@pytest.mark.parametrize("theirs", [0.0, WORK / 3, WORK, 2 * WORK])
@pytest.mark.parametrize("part", [SHARE_LEAST, 0.5, SHARE_MOST])
async def test_while_hosts_write_it_has_its_share(service: Service, part: float, theirs: float) -> None:
    """Whether others use their turns or leave most of them."""
    service.share, service.theirs = part, theirs
    began = service.time
    await service.work(1000, WORK, busy=True)
    assert 1000 * WORK / (service.time - began) == pytest.approx(part, rel=0.05)
    assert all(rest == 0 or rest >= REST_SECONDS_MIN for rest in service.rests)


async def test_it_does_not_make_up_for_all_the_time_that_others_had(service: Service) -> None:
    """Else a long batch of others would be followed by as long a stall of theirs."""
    service.share, service.theirs = SHARE_MOST, 1.0
    await service.work(1, WORK, busy=True)
    service.theirs = 0.0
    before = service.time
    await service.work(3 * TURN_PIECES, WORK, busy=True)
    assert len(service.rests) >= 3
    assert service.time - before < 3 * TURN_PIECES * WORK + CREDIT_SECONDS_MAX


async def test_while_nobody_writes_it_does_not_rest_and_others_have_their_turns(service: Service) -> None:
    await service.work(100, TURN_SECONDS * 0.6, busy=False)
    assert service.rests == [0.0] * 50


async def test_by_a_clock_that_stands_still_others_have_their_turns_too(service: Service) -> None:
    await service.work(10 * TURN_PIECES, 0.0, busy=False)
    assert service.rests == [0.0] * 10


async def test_what_is_owed_is_forgotten_when_hosts_have_stopped(service: Service) -> None:
    await service.work(1, REST_SECONDS_MIN / 10, busy=True)
    service.time += BUSY_SECONDS
    await service.work(100, WORK, busy=False)
    assert not any(service.rests)


async def test_a_wait_for_the_disk_is_not_work(service: Service) -> None:
    await service.work(1, 60.0, busy=True)
    assert sum(service.rests) <= TURN_SECONDS_MAX / SHARE_LEAST


async def test_hosts_write_for_a_while_after_they_have(service: Service) -> None:
    seen = [service.first.hosts_write()]
    service.hosts_write()
    seen.append(service.first.hosts_write())
    service.time += BUSY_SECONDS * 0.9
    seen.append(service.first.hosts_write())
    service.time += BUSY_SECONDS * 0.2
    seen.append(service.first.hosts_write())
    assert seen == [False, True, True, False]


@pytest.mark.parametrize(
    ("lag_s", "behind", "expected"),
    [
        (0.0, 0.0, SHARE_LEAST),
        (LAG_SECONDS, BEHIND_SHARE, SHARE_LEAST),
        ((LAG_SECONDS + LAG_SECONDS_MAX) / 2, 0.0, (SHARE_LEAST + SHARE_MOST) / 2),
        (0.0, (BEHIND_SHARE + BEHIND_SHARE_MAX) / 2, (SHARE_LEAST + SHARE_MOST) / 2),
        (LAG_SECONDS_MAX, 0.0, SHARE_MOST),
        (0.0, BEHIND_SHARE_MAX, SHARE_MOST),
        (1000.0, 1.0, SHARE_MOST),
    ],
)
def test_the_further_the_other_side_is_behind_the_larger_the_share(
    lag_s: float, behind: float, expected: float
) -> None:
    assert share(lag_s, behind) == pytest.approx(expected)
