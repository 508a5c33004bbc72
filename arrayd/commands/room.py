"""Everything an array has for commands, put together: `array.py` makes one of these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from arrayd.commands.asking import Send
from arrayd.commands.context import Context, LinkStatus, SessionStatus
from arrayd.commands.events import Events
from arrayd.commands.execution import Executor, interrupted
from arrayd.commands.formats import Answer, Identification, State
from arrayd.commands.happenings import Happenings
from arrayd.commands.history import Entry, History
from arrayd.commands.lanes import Lanes
from arrayd.commands.mailbox import Mailbox
from arrayd.commands.monitors import Monitors, Settings
from arrayd.commands.permission import Permission
from arrayd.commands.processes import REGISTRY, sending
from arrayd.commands.routing import Place
from arrayd.commands.sending import Sender
from arrayd.commands.slots import Lun
from arrayd.commands.transit import Transit
from arrayd.estate.estate import Estate
from arrayd.log import get_logger
from arrayd.origin import Origin
from arrayd.replication.room import Replication
from arrayd.tables import CommandRow, MarkRow, Tables, TablesError
from arrayd.volumes.command_device import CommandDevice

PRUNE_SECONDS = 30.0
"""How often what is forgotten leaves the tables."""

log = get_logger("commands")


@dataclass(frozen=True, slots=True)
class Us:
    """Who the array is, and its doors: `now()` is the time in seconds, `clock()` in seconds since 1970,
    `random_bytes(n)` nobody can foresee."""

    name: str
    serial: str
    version: str
    now: Callable[[], float]
    clock: Callable[[], float]
    random_bytes: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Reach:
    """What commands reach: `send` puts requests on the link with an array, `lun(number)` is a LUN here, `links()` and
    `sessions()` say how these are; `permission()` and `place()` are as the configuration says now."""

    send: Send
    lun: Callable[[int], Lun]
    links: Callable[[], list[LinkStatus]]
    sessions: Callable[[], list[SessionStatus]]
    permission: Callable[[], Permission]
    place: Callable[[], Place]


class Commands:
    """The commands of one array. They can come once it is made, and are executed once it is started."""

    def __init__(self, us: Us, tables: Tables, reach: Reach) -> None:
        self._us = us
        self._tables = tables
        self._reach = reach
        self._history = History(us.now)
        self.events = Events(tables.events, us.clock)
        self._happenings = Happenings(self.events, us.now)
        self._mailboxes: dict[int, Mailbox] = {}
        self._restored: list[Entry] = []
        """What was in the slots of command devices when the array was stopped."""
        self._restore()
        self._executor = Executor(us.name, REGISTRY, self._history, tables.commands, self._refusal, us.clock)
        self._transit = Transit(reach.place, self._executor, self._refusal, reach.send, us.now)
        self.lanes = Lanes(us.name, self._transit)
        self.serve = self._transit.serve
        self._sender = Sender(
            us.name, self._transit, reach.lun, us.random_bytes(8), int(us.clock() * 1e9), self._choose, us.now
        )
        self._monitors = Monitors(lambda told: sending.ask(self._sender, told), self.events, us.clock)
        self._pruning: asyncio.Task[None] | None = None

    def _refusal(self, origin: Origin) -> str | None:
        refusal = self._reach.permission().refusal(origin)
        if refusal is not None:
            self._happenings.refused(origin, refusal)
        return refusal

    def link_changed(self, array: str, reason: str | None) -> None:
        """A connection with another array has come, or gone for this reason."""
        self._happenings.link_changed(array, reason)

    def _choose(self, below: int) -> int:
        return int.from_bytes(self._us.random_bytes(4)) % below

    # -- start and stop ----------------------------------------------------------------------------------------------

    def start(self, estate: Estate, replication: Replication) -> None:
        """Commands are executed from now on; monitors ask; what is old is forgotten."""
        us, reach = self._us, self._reach
        self._executor.context = Context(
            us.name,
            us.serial,
            us.version,
            us.now,
            us.now(),
            REGISTRY,
            self.events,
            estate,
            replication,
            reach.links,
            reach.sessions,
            reach.send,
            self._tables.monitors,
            self._executor,
            self._transit,
            self._sender,
            self._monitors,
        )
        self._pruning = asyncio.ensure_future(self._prune())
        for name, settings in self._tables.monitors.rows:
            self._monitors.begin(name, Settings.model_validate_json(settings))
        self.events.add("info", "array", "started")

    async def halt(self) -> None:
        """Asks nobody any more: what waits for other arrays ends."""
        self.events.add("info", "array", "stops")
        self._sender.stop()
        await self._monitors.stop()
        await self._transit.stop()

    async def stop(self) -> None:
        """Lets what is executed here end."""
        await self._executor.stop()
        if self._pruning is not None:
            self._pruning.cancel()
            await asyncio.gather(self._pruning, return_exceptions=True)
        await self.events.stop()

    # -- command devices ---------------------------------------------------------------------------------------------

    def device(self, lun: int) -> CommandDevice:
        """The command device at this LUN; what is in its slots stays if it leaves the LUN map and comes back."""
        mailbox = self._mailboxes.get(lun)
        if mailbox is None:
            us, executor = self._us, self._executor
            identity = f"{us.serial}:command-device:{lun}"
            mailbox = Mailbox(identity, us.name, us.serial, executor.execute, lambda: executor.begun, us.now)
            self._mailboxes[lun] = mailbox
            for entry in self._restored:
                if entry.device == identity and entry.slot is not None:
                    mailbox.restore(entry.slot, entry)
            self._restored = [entry for entry in self._restored if entry.device != identity]
        return CommandDevice(mailbox)

    # -- what is remembered ------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """What the tables remember of the life before: commands that were not executed then are not any more."""
        for mark in self._tables.commands.marks:
            self._history.restore_mark(mark.host, (mark.epoch, mark.counter))
        for row in self._tables.commands.rows:
            entry = Entry(Identification(row.host, row.epoch, row.counter), changes=True)
            entry.device, entry.slot = row.device, row.slot
            if row.result is None:
                answer = interrupted(entry, self._us.name)
            else:
                answer = Answer(State.DONE, entry.identification, row.result, row.edited or b"")
            self._history.restore(entry, answer)
            self._restored.append(entry)

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            self._happenings.look_at(self._executor.context.estate)
            self._transit.prune()
            try:
                await self._forget()
            except TablesError as error:
                log.error("old commands could not be forgotten", reason=str(error))

    async def _forget(self) -> None:
        """What is forgotten leaves the tables, and marks stand for it there."""
        self._history.prune()
        forgotten, self._history.forgotten = self._history.forgotten, []
        gone = self._history.prune_hosts()
        if not forgotten and not gone:
            return
        since = self._us.clock() - self._us.now()
        rows = [CommandRow(*entry.identification, 0, 0.0) for entry in forgotten]
        hosts = {row.host: self._history.hosts.get(row.host) for row in rows}
        marks = [MarkRow(name, *host.mark, since + host.heard_at) for name, host in hosts.items() if host is not None]
        try:
            await self._tables.commands.forget(rows, marks, gone)
        except TablesError:
            self._history.forgotten = forgotten + self._history.forgotten
            raise
