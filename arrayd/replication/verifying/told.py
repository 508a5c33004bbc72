"""How a verify of a group goes, and what it has found, as it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from arrayd.replication.jobs import Job

FOUND_MAX = 4096
"""Ranges that are remembered; of what else differs only the bytes are counted."""
DAMAGES_MAX = 16


class Outcome(StrEnum):
    """How it goes, or has ended."""

    RUNNING = "running"
    SAME = "same"
    DIFFERS = "differs"
    MENDED = "mended"
    """What differed was mended, and is the same now."""
    STOPPED = "stopped"
    """By a command, or since the pairs were changed."""
    FAILED = "failed"


class Found(NamedTuple):
    """A range of a pair in which the sides differed."""

    number: int
    offset: int
    length: int
    mended: bool


@dataclass
class Findings:
    """What was found, in order."""

    found: list[Found] = field(default_factory=list)
    differing: int = 0
    """Bytes that differed, those that were mended among them."""
    mended: int = 0
    damages: list[str] = field(default_factory=list)
    more: bool = False
    """Whether more ranges differed than are remembered."""

    def add(self, those: Iterable[Found]) -> None:
        """They were found; parts come in any order."""
        for each in those:
            self.differing += each.length
            self.mended += each.length * each.mended
            self.found.append(each)
        self._join()
        if len(self.found) > FOUND_MAX:
            self.more = True
            del self.found[FOUND_MAX:]

    def _join(self) -> None:
        joined: list[Found] = []
        for each in sorted(self.found):
            last = joined[-1] if joined else None
            beside = last is not None and (last.number, last.offset + last.length) == each[:2]
            if last is not None and beside and last.mended is each.mended:
                joined[-1] = last._replace(length=last.length + each.length)
            else:
                joined.append(each)
        self.found = joined

    def damaged(self, text: str) -> None:
        """A journal is, here or there."""
        if len(self.damages) < DAMAGES_MAX:
            self.damages.append(text)

    @property
    def outcome(self) -> Outcome:
        """What all of it comes to."""
        if self.damages or self.differing > self.mended:
            return Outcome.DIFFERS
        return Outcome.MENDED if self.mended else Outcome.SAME


@dataclass(frozen=True, slots=True)
class Verifying:
    """A verify, as it is now. `trouble`: why it does not go on at the moment, or has ended."""

    id: int
    outcome: Outcome
    begun: float
    pair: int | None
    job: Job
    findings: Findings
    trouble: str = ""
