"""How S-VOLs take the place of their P-VOLs (figures 19 to 21): the other side's hosts wait meanwhile (`fencing.py`),
and this side must have gone through with it in SWAP_SECONDS, which is shorter than they wait."""

from __future__ import annotations

from arrayd.link.channel import LinkError
from arrayd.log import get_logger
from arrayd.replication import asking
from arrayd.replication.asking import Refused
from arrayd.replication.fencing import FENCE_SECONDS
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import FormatError, Position
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.statuses import Refusal, Side

SWAP_SECONDS = FENCE_SECONDS / 2
"""How long the sides may take to change places, from the question on."""
NOT_IN_TIME = Refusal(
    "the last of the group's writes did not come in time: again, or horctakeover when the link is cut"
)

log = get_logger("replication")


class ChangingPlaces:
    """The fence of the other side, as it was asked for by `pulling`."""

    def __init__(self, pulling: Pulling) -> None:
        self.asked_at: float | None = None
        """When it was asked for, by `Doors.now`."""
        self._pulling = pulling

    async def fence(self, row: GroupRow, seconds: float) -> Position | None:
        """The other side's hosts wait from now on, for a while: the end of the group's writes. None: they do not, or it
        was not heard of within `seconds`."""
        self.asked_at = self._pulling.doors.now()
        try:
            question = asking.fence(row.id, row.generation)
            return asking.decode_fenced(await self._pulling.ask(question, asking.ANSWER_BYTES_MAX, seconds))
        except (LinkError, Refused, FormatError, Stopped) as error:
            log.warning("the other side does not wait", group=row.name, reason=str(error))
            return None

    def too_late(self, after: GroupRow | None) -> Refusal | None:
        """Why `after` may not be committed any more, if the sides change places in it."""
        if after is None or after.side is not Side.P_VOL or self.asked_at is None:
            return None
        return NOT_IN_TIME if self._pulling.doors.now() - self.asked_at >= SWAP_SECONDS else None
