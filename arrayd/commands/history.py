"""What became of commands, by identification number: so that one that is sent twice is executed once, and an answer
that was lost is there to be read again.

An ended command is remembered for REMEMBER_SECONDS, as far as there is room. One that changes something and is
forgotten raises the mark of its host: a command at or below the mark is refused, since nobody knows any more whether it
was executed. Such commands and marks are in the tables, too. Of a command that only reads, a second execution changes
nothing: it leaves no mark.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from arrayd.commands.formats import Answer, Identification, State

REMEMBER_SECONDS = 600.0
"""How long an ended command is remembered."""
ENTRIES_MAX = 4096
"""Commands that are remembered; the oldest ended one is forgotten for one more."""
BYTES_MAX = 32 * 1024 * 1024
"""Edited data that is remembered."""
HOST_SECONDS = 7 * 24 * 3600.0
"""How long a host that is not heard of keeps its mark; no command is in transit for nearly so long."""
HOSTS_MAX = 65536
"""Hosts that have a mark or commands; for one more the mark of the one goes that was silent for longest."""
SILENT_SECONDS = 3600.0
"""But only if that was silent for so long; else the new one is refused."""


NO_MARK = (-1, -1)


class ForgottenError(Exception):
    """The command is at or below its host's mark."""


class FullError(Exception):
    """There is no room to remember one more command."""


@dataclass(eq=False, slots=True)
class Entry:
    """One command. `answer` is there once it has ended; `changes` if it changes something: then `taken` is done once it
    is in the tables. `digest` tells whether another command has the same identification number."""

    identification: Identification
    digest: bytes = b""
    changes: bool = False
    answer: Answer | None = None
    ended_at: float = 0.0
    device: str | None = None
    slot: int | None = None
    taken: asyncio.Future[None] | None = None
    remembered: bool = True
    """Whether who sends it again gets this answer: not one that was refused."""
    _waiting: list[Callable[[Answer], None]] = field(default_factory=list)

    def when_ended(self, callback: Callable[[Answer], None]) -> None:
        """Has `callback(answer)` called once it has ended, which may be now."""
        if self.answer is None:
            self._waiting.append(callback)
        else:
            callback(self.answer)

    def drop(self, callback: Callable[[Answer], None]) -> None:
        """Takes `callback` back."""
        if callback in self._waiting:
            self._waiting.remove(callback)

    def end(self, answer: Answer) -> None:
        """It has ended."""
        self.answer = answer
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback(answer)


@dataclass(slots=True)
class Host:
    """Of one host: the mark, `(epoch, counter)`, and when it was last heard of."""

    mark: tuple[int, int] = NO_MARK
    heard_at: float = 0.0
    entries: int = 0


class History:
    """The commands of one array; `now()` is the time in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: dict[Identification, Entry] = {}
        self._ended: OrderedDict[Identification, Entry] = OrderedDict()
        """The oldest first."""
        self._bytes = 0
        self.hosts: dict[bytes, Host] = {}
        self.forgotten: list[Entry] = []
        """Entries of commands that change something which were forgotten and may still be in the tables."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def running(self) -> int:
        """Commands that have not ended."""
        return len(self._entries) - len(self._ended)

    def find(self, identification: Identification) -> Entry | None:
        """The command of this number, or None if it is new. Raises ForgottenError."""
        entry = self._entries.get(identification)
        if entry is None:
            host = self.hosts.get(identification.host)
            if host is not None and identification[1:] <= host.mark:
                raise ForgottenError
        return entry

    def begin(self, identification: Identification, digest: bytes, changes: bool) -> Entry:
        """A new command. Raises FullError."""
        self.prune()
        host = self.hosts.get(identification.host)
        if host is None:
            if len(self.hosts) >= HOSTS_MAX:
                self._make_room()
            host = self.hosts[identification.host] = Host()
        if len(self._entries) >= ENTRIES_MAX:
            if not self._ended:
                raise FullError
            self._forget(next(iter(self._ended.values())))
            if identification[1:] <= host.mark:
                raise FullError  # it was this host's own, and later than the new one
            self.hosts.setdefault(identification.host, host)
        entry = Entry(identification, digest, changes)
        self._entries[identification] = entry
        host.entries += 1
        host.heard_at = self._now()
        return entry

    def end(self, entry: Entry, answer: Answer) -> None:
        """The command has ended: whoever waits is told."""
        entry.ended_at = self._now()
        self._ended[entry.identification] = entry
        self._bytes += len(answer.edited)
        entry.end(answer)
        while self._bytes > BYTES_MAX and len(self._ended) > 1:
            self._forget(next(iter(self._ended.values())))

    def restore(self, entry: Entry, answer: Answer) -> None:
        """An ended command of the life before; it is remembered as if it had ended now, whatever the clock says."""
        self._entries[entry.identification] = entry
        host = self.hosts.setdefault(entry.identification.host, Host())
        host.entries += 1
        host.heard_at = self._now()
        self.end(entry, answer)

    def restore_mark(self, host: bytes, mark: tuple[int, int]) -> None:
        """The mark of a host."""
        self.hosts[host] = Host(mark, self._now())

    def _forget(self, entry: Entry) -> None:
        identification = entry.identification
        del self._entries[identification], self._ended[identification]
        assert entry.answer is not None
        self._bytes -= len(entry.answer.edited)
        host = self.hosts[identification.host]
        host.entries -= 1
        if entry.changes:
            host.mark = max(host.mark, identification[1:])
            self.forgotten.append(entry)
        if not host.entries and host.mark == NO_MARK:
            del self.hosts[identification.host]

    def prune(self) -> None:
        """Forgets what has been remembered for long enough."""
        limit = self._now() - REMEMBER_SECONDS
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if oldest.ended_at > limit:
                break
            self._forget(oldest)

    def _make_room(self) -> None:
        """Forgets the host that was silent for longest. Raises FullError."""
        silent = [(host.heard_at, name) for name, host in self.hosts.items() if not host.entries]
        if not silent or min(silent)[0] > self._now() - SILENT_SECONDS:
            raise FullError
        del self.hosts[min(silent)[1]]

    def prune_hosts(self) -> list[bytes]:
        """Forgets hosts that were not heard of for long, and says which."""
        limit = self._now() - HOST_SECONDS
        gone = [name for name, host in self.hosts.items() if not host.entries and host.heard_at < limit]
        for name in gone:
            del self.hosts[name]
        return gone


def running(identification: Identification) -> Answer:
    """What is answered while a command runs."""
    return Answer(State.RUNNING, identification)
