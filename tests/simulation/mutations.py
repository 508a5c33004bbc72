"""Faults of the program, made on purpose: each breaks one promise, and seeds have to find it.

A mutation says what takes the place of what in arrayd, by dotted name, as `world.replaced` does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from arrayd.blockfile.syncs import Syncs
from arrayd.commands.history import History
from arrayd.scsi.task import Status
from arrayd.tables import CommandRow, CommandTable, Work
from arrayd.tables.changes import Changes
from arrayd.volumes.file_volume import FileVolume

LATE_SECONDS = 0.1


def _write_late(self: FileVolume, offset: int, view: memoryview, _durable: bool = False) -> None:
    asyncio.get_running_loop().call_later(LATE_SECONDS, self.file.write_now, offset, memoryview(bytes(view)))


def _write_undurably(self: FileVolume, offset: int, view: memoryview, _durable: bool = False) -> Awaitable[None] | None:
    return WRITE(self, offset, view, False)


def _flush_nothing(_self: FileVolume) -> None:
    return


def _join_what_runs(self: Syncs) -> asyncio.Future[None]:
    """Whoever comes while a sync is under way takes its end for his own."""
    future = asyncio.get_running_loop().create_future()
    if self._running:
        future.set_result(None)
        return future
    return SYNC(self)


def _forgive(self: Syncs, _failure: OSError) -> None:
    """A failed sync is taken for one that went well."""


def _find_nothing(_self: History, _identification: object) -> None:
    return


async def _put_apart(self: CommandTable, row: CommandRow, work: Work | None = None) -> None:
    """A command's effect is committed without its answer, which may come later."""
    if work is not None:
        await self._change(work)
    await PUT(self, row)


async def _put_effect_only(self: CommandTable, row: CommandRow, work: Work | None = None) -> None:
    if work is None:
        await PUT(self, row)
    else:
        await self._change(work)


async def _commit_late(self: Changes, work: Any) -> None:
    later = asyncio.ensure_future(CHANGE(self, work))
    later.add_done_callback(lambda done: done.cancelled() or done.exception())


def _report_good(task: Any, _error: object) -> None:
    """A command that did not get through is answered as if it had."""
    task.status, task.sense, task.wanted_out = Status.GOOD, b"", len(getattr(task, "data_out", b""))


async def _dial_once(self: Any, peer: Any, address: Any) -> None:
    await self._dial(peer, address)


def _nothing(*_arguments: Any) -> None:
    return


def _send_nothing_again(self: Any, _numbers: list[int]) -> None:
    """Answers to what was asked for by the last connection are not sent by this one."""
    self._asked = True


def _write_elsewhere(self: FileVolume, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
    """A long write goes to the wrong place."""
    return WRITE(self, offset + 512 * (len(view) > 8192 and offset + len(view) < self.size), view, durable)


WRITE = FileVolume.write
SYNC = Syncs.sync
PUT = CommandTable.put
CHANGE = Changes.change

MUTATIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "a write is answered before it is made": {"arrayd.volumes.file_volume.FileVolume.write": _write_late},
    "FUA does not sync": {"arrayd.volumes.file_volume.FileVolume.write": _write_undurably},
    "a flush does not sync": {"arrayd.volumes.file_volume.FileVolume.flush": _flush_nothing},
    "a sync takes another's end for its own": {"arrayd.blockfile.syncs.Syncs.sync": _join_what_runs},
    "a failed sync is retried into success": {"arrayd.blockfile.syncs.Syncs.fail": _forgive},
    "a long write goes elsewhere": {"arrayd.volumes.file_volume.FileVolume.write": _write_elsewhere},
    "a command that was executed is executed again": {"arrayd.commands.history.History.find": _find_nothing},
    "a restart forgets commands": {"arrayd.commands.room.Commands._restore": _nothing},
    "effect and answer are two commits": {"arrayd.tables.commands.CommandTable.put": _put_apart},
    "an answer is not kept": {"arrayd.tables.commands.CommandTable.put": _put_effect_only},
    "a change is answered before it is committed": {"arrayd.tables.changes.Changes.change": _commit_late},
    "a new file's name is not synced": {"arrayd.blockfile.opening.sync_folder": _nothing},
    "what the last connection has not answered stays so": {"arrayd.link.serving.Serving.ask_came": _send_nothing_again},
    "what the other array never took is not sent again": {"arrayd.link.channel.Channel.unknown_came": _nothing},
    "what did not get through is reported as done": {"arrayd.virtual.passage.cannot": _report_good},
    "a lost link is not dialed again": {"arrayd.link.peers.Links._keep": _dial_once},
}
"""By what goes wrong."""
