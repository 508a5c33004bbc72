"""How long whoever asks another array over and over pauses in between."""

from typing import cast

from arrayd.link import peers
from arrayd.link.channel import LinkError
from arrayd.replication.pulling import Pauses, Pulling
from arrayd.replication.stages import Doors

BACK_SECONDS = 5.0
"""From the end of a cut, however long it was, until the S-VOLs are followed up again."""
FAILURES = 30


class Sleepless(Pulling):
    """Notes how long it should sleep."""

    def __init__(self) -> None:
        super().__init__(cast(Doors, None), "near")
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_pauses_of_the_link_and_of_who_asks_are_over_soon_after_a_cut() -> None:
    pulling = Sleepless()
    pauses, failure = Pauses(pulling, "acquisition"), LinkError("no connection", maybe_done=False)
    for _ in range(FAILURES):
        await pauses.failed(failure)
    shortest, *_, longest = pulling.slept
    assert pulling.slept == sorted(pulling.slept)
    assert 0 < shortest < longest
    assert longest + peers.PAUSE_SECONDS_MAX < BACK_SECONDS
    pauses.went_well()
    await pauses.failed(failure)
    assert pulling.slept[-1] == shortest
