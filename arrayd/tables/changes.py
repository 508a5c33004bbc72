"""Changes of the tables: in one queue, and all that wait together in one commit.

A commit waits for the disk. Changes that come meanwhile wait here, not in threads: the executor's are for block data,
too. The next commit takes all of them, and each is done only when that commit is durable.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")

Work = Callable[[sqlite3.Connection], None]
"""A change of rows, to be made in a transaction."""

WAITING_MAX = 8192
"""Changes that wait for their turn; one more fails."""
TOGETHER_MAX = 256
"""Changes in one commit; one that fails, fails all of them."""


class TablesError(Exception):
    """The tables cannot be used: in use by another daemon, of another array or a newer version, or damaged."""


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """What is to be done, and the future of its result."""

    work: Callable[[sqlite3.Connection], Any]
    ended: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a change raised, instead of its result."""

    error: BaseException


class Changes:
    """The changes of one database, made by one thread of `executor` at a time."""

    def __init__(self, connection: sqlite3.Connection, executor: Executor) -> None:
        self._connection = connection
        self._executor = executor
        self._waiting: deque[_Change] = deque()
        self._committing: asyncio.Future[list[Any]] | None = None
        self._closed = False

    async def change(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """See `Tables.change`."""
        if self._closed:
            raise TablesError("tables: closed")
        if len(self._waiting) >= WAITING_MAX:
            raise TablesError(f"tables: more than {WAITING_MAX} changes at once")
        ended: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Change(work, ended))
        if self._committing is None:
            self._begin()
        return await ended

    async def close(self) -> None:
        """Takes no more changes, and waits until those that were asked for are made."""
        self._closed = True
        while self._committing is not None:
            await asyncio.wait({self._committing})

    def _begin(self) -> None:
        """Has what waits committed."""
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER_MAX))]
        works = [change.work for change in group]
        committing = asyncio.get_running_loop().run_in_executor(self._executor, _commit, self._connection, works)
        self._committing = committing

        def committed(future: asyncio.Future[list[Any]]) -> None:
            # Who waits was cancelled, perhaps: the change is made all the same, all of it.
            for change, outcome in zip(group, future.result(), strict=True):
                if change.ended.done():
                    continue
                if isinstance(outcome, _Failure):
                    change.ended.set_exception(outcome.error)
                else:
                    change.ended.set_result(outcome)
            self._committing = None
            if self._waiting:
                self._begin()

        committing.add_done_callback(committed)


def _commit(connection: sqlite3.Connection, works: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
    """Makes changes in one transaction, which is durable then: the result of each, or its _Failure."""
    try:
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_make(connection, work) for work in works]
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except Exception as error:
        return [_Failure(_told(error)) for _ in works]
    return outcomes


def _make(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> Any:
    """Makes one change, or undoes it and returns its _Failure. Raises sqlite3.Error where SQLite has given up the whole
    transaction (a full disk, an I/O error)."""
    connection.execute("SAVEPOINT change")
    try:
        result = work(connection)
    except Exception as error:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO change")
        connection.execute("RELEASE change")
        return _Failure(_told(error))
    connection.execute("RELEASE change")
    return result


def _told(error: Exception) -> Exception:
    """What who asked for a change hears of its failure."""
    if not isinstance(error, sqlite3.Error):
        return error
    told = TablesError(f"tables: {error}")
    told.__cause__ = error
    return told
