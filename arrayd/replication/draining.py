"""The last of a group's writes, which a split and a swap wait for: acquired and restored until there are no more."""

from __future__ import annotations

from collections.abc import Callable

from arrayd.link.channel import LinkError
from arrayd.log import get_logger
from arrayd.replication.acquisition import Acquisition
from arrayd.replication.asking import Refused
from arrayd.replication.journal import FormatError, JournalError
from arrayd.replication.restoration import Restoration

WAIT_SECONDS = 1.0
"""How long the other side may wait until there is something to be served."""

log = get_logger("replication")


async def restore_all(restoration: Restoration) -> None:
    """Restores what is in the journal, durably. Raises JournalError, VolumeError."""
    while await restoration.once():
        pass


async def drain(
    acquisition: Acquisition, restoration: Restoration, now: Callable[[], float], until: float, answer_s: float
) -> bool:
    """Acquires and restores until all of the group's writes are; False: they did not come in time, or the other side
    does not answer within `answer_s`. Raises JournalError, VolumeError, Stopped."""
    journal = acquisition.journal
    while (left := until - now()) > 0:
        try:
            came = await acquisition.once(min(left, WAIT_SECONDS), min(left, answer_s))
        except (LinkError, Refused, FormatError, JournalError) as error:
            told = acquisition.told
            if isinstance(error, Refused) and told is not None and journal.regions.oldest == told.stored:
                # The other side serves its journal no more when it has been told that all of it is restored.
                return False
            log.warning("the last writes did not come", group=acquisition.row.name, reason=str(error))
            return False
        await restore_all(restoration)
        told = acquisition.told
        if told is not None and told.ended and not came and journal.regions.oldest == told.stored:
            return True
    return False
