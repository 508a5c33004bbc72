"""Commands that change something, sent more than once under one identification: one is executed once, and its answer
stays the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from arrayd.commands.formats import Answer, Request
from arrayd.commands.processes import REGISTRY
from arrayd.commands.results import Result
from arrayd.tables import CommandTable
from tests.simulation.doors import living
from tests.simulation.world import Violated

UNCERTAIN = frozenset({Result.EXPIRED, Result.UNDELIVERABLE, Result.BUSY, Result.NO_SLOT, Result.UNREACHABLE})
"""Results after which it is not known whether the command was, or will be, executed."""
PUT = CommandTable.put

Known = tuple[Mapping[tuple[str, ...], int], ...]
"""How often commands were begun, and carried out."""


def what_was_done(answer: Answer) -> bytes | None:
    """What an answer says was done: one failure is as good as another, as long as nothing was."""
    return answer.edited if answer.result == Result.OK else None


class Sent:
    """One command, and what was heard of it."""

    def __init__(self, array: str, request: Request, executions: Executions) -> None:
        self._array = array
        self._executions = executions
        self._process = REGISTRY.by_number[request.process]
        self._first: Answer | None = None
        self._of = executions.forgotten[array]
        """How often the array had forgotten commands when this one was sent."""

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self._process.changes

    def heard(self, answer: Answer) -> None:
        """Raises Violated for an answer that is another than before."""
        if answer.result in UNCERTAIN or not self.changes or self._of != self._executions.forgotten[self._array]:
            return
        if self._first is not None and what_was_done(answer) != what_was_done(self._first):
            raise Violated(f"{self._process.name} to {self._array}: first {self._first}, then {answer}")
        self._first = self._first or answer


class Executions:
    """Counts how often each was executed, by what arrays commit of it."""

    def __init__(self) -> None:
        self._begun = Counter[tuple[str, ...]]()
        """By array and identification: an array that has committed that it has a command executes it next."""
        self._carried_out = Counter[tuple[str, ...]]()
        self.forgotten = Counter[str]()
        """How often each array was given tables from before some commands."""
        self.again = 0
        """Commands that were sent again."""

    def known(self, array: str) -> Known:
        """What that array has executed."""
        counts = (self._begun, self._carried_out)
        return tuple({key: count for key, count in each.items() if key[0] == array} for each in counts)

    def forget(self, array: str, known: Known) -> None:
        """Its tables are as they were when it had executed no more than these: it may execute others again."""
        self.forgotten[array] += 1
        for counts, those in zip((self._begun, self._carried_out), known, strict=True):
            for key in [key for key in counts if key[0] == array and key not in those]:
                del counts[key]

    def check(self) -> None:
        """Raises Violated where one was executed twice."""
        twice = [key for counts in (self._begun, self._carried_out) for key, count in counts.items() if count > 1]
        if twice:
            raise Violated(f"executed twice: {twice}")

    def stand_ins(self) -> dict[str, Any]:
        """By dotted name, for `world.replaced`."""

        async def put(table: CommandTable, row: Any, work: Any = None) -> None:
            await PUT(table, row, work)
            if work is not None:
                self._carried_out[living().name, *row.key] += 1
            elif row.result is None:
                self._begun[living().name, *row.key] += 1

        return {"arrayd.tables.CommandTable.put": put}
