"""The stage of a group that is in force on this array, one at a time: what it answers, and how it ends.

It is begun by `taking_up.py`, and becomes another one by `changes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from arrayd.log import get_logger
from arrayd.replication.bitmap import BitmapError
from arrayd.replication.choosing import Kinds
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import JournalError
from arrayd.replication.pairs import Pairs
from arrayd.replication.pairs import Save as Commit
from arrayd.replication.stages import Doors, Stage, Told
from arrayd.replication.tail import Tail
from arrayd.volumes.volume import VolumeError

STAGE_ERRORS = (VolumeError, JournalError, BitmapError)
"""What a stage raises that cannot be entered, or cannot come to its end."""

log = get_logger("replication")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the stages of all groups have: `commit` makes a change of the tables durable by itself, `note(severity,
    text)` tells the array's event log."""

    table: Pairs
    doors: Doors
    kinds: Kinds
    commit: Commit
    note: Callable[[str, str], None]


class Stages:
    """The stages of the group `name`, one at a time. `told(token)` is what the stage with this token tells; `token` is
    that of the one in force: what others tell comes too late, or too early."""

    def __init__(self, name: str, around: Surroundings, told: Callable[[object], Told]) -> None:
        self.name = name
        self.around = around
        self._told = told
        self.stage: Stage | None = None
        self.token: object = None
        self.trouble = ""
        """Why hosts see the volumes guarded although the row says otherwise; empty: they do not."""
        self.tail = Tail(around.doors.now, self.close)

    @property
    def answering(self) -> Stage | None:
        """The stage that answers what the other side asks."""
        return self.tail.stage or self.stage

    def made(self, row: GroupRow, kind: type[Stage] | None = None) -> tuple[object, Stage]:
        """A stage of this row, and its token."""
        token = object()
        return token, (kind or self.around.kinds.of(row))(row, self.around.doors, self._told(token))

    def goes_on(self, row: GroupRow, *, other_pairs: bool = False) -> bool:
        """Whether the stage there is does for this row, too; with `other_pairs` the same again, found as it ends."""
        stage = self.stage
        return (
            stage is not None
            and not self.trouble
            and type(stage) is self.around.kinds.of(row)
            and (other_pairs or stage.row.states.keys() == row.states.keys())
        )

    async def enter(self, token: object, stage: Stage) -> None:
        """Fourth step: it is in force from now on."""
        self.stage, self.token, self.trouble = stage, token, ""
        await stage.enter()

    def row(self) -> GroupRow:
        """The one that the tables have, of a group that has one."""
        row = self.around.table.group(self.name)
        assert row is not None, self.name
        return row

    def failed(self, what: str, error: Exception) -> str:
        """Tells of an error; its text."""
        reason = str(error) or type(error).__name__
        if isinstance(error, STAGE_ERRORS):
            log.error(what, group=self.name, reason=reason)
        else:
            log.error(what, group=self.name, exc_info=error)
        self.around.note("error", f"group {self.name}: {what}: {reason}")
        return reason

    # -- the end of a stage ------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """The array stops: the stage comes to its end, and the row stays."""
        await self.tail.end()
        stage, self.stage, self.token = self.stage, None, None
        if stage is None:
            return
        try:
            refusal = await stage.stop(stage.row)
            if refusal is not None:
                log.error("a stage does not end, and the array stops", group=self.name, reason=refusal.text)
        except Exception as error:
            self.failed("its stage did not end well", error)
        await self.close(stage)

    async def close(self, stage: Stage) -> None:
        """Lets go of a stage that is in force no more."""
        try:
            await stage.close()
        except Exception as error:
            self.failed("a stage was not closed well", error)
