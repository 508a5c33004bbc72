"""What pairs need of the configuration: their volumes, and journals if they have any, as they were when the pairs were
made.

`arrayd check` asks for it, and loads little: so the rows are taken as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from arrayd.replication.statuses import Side, State
from arrayd.tables.pairs import StoredGroup, StoredPair, StoredPairs

ENDS = "pairsplit -S ends it"


class Settings(Protocol):
    """What is said of a volume."""

    @property
    def use(self) -> str:
        """Data or journal."""

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written to it."""


def lacking(stored: StoredPairs, volumes: Mapping[str, Settings]) -> list[str]:
    """What pairs need and do not find among the volumes: a line for each, as `arrayd check` says it. Raises ValueError
    for what cannot have been stored."""
    groups = {group.id: group for group in stored.groups}
    try:
        needed = [
            *(
                (group.journal, "journal", f"the journal of group {group.name}")
                for group in stored.groups
                if group.journal is not None
            ),
            *((pair.volume, "data", _what(pair, groups[pair.id])) for pair in stored.pairs),
        ]
    except KeyError as error:
        raise ValueError(f"tables.db: pairs: {error}") from error
    return [line for name, use, what in needed for line in _lacks(name, use, what, volumes.get(name))]


def _what(pair: StoredPair, group: StoredGroup) -> str:
    kind = "P-VOL" if State[pair.state].side is Side.P_VOL else "S-VOL"
    return f"the {kind} of pair {pair.name} in group {group.name}"


def _lacks(name: str, use: str, what: str, settings: Settings | None) -> Iterator[str]:
    if settings is None:
        yield f"volumes.{name}: it is not there any more, and is {what}: {ENDS}"
    elif settings.use != use:
        yield f"volumes.{name}.use: {settings.use}, and it is {what}: {ENDS}"
    elif settings.read_only:
        yield f"volumes.{name}.read_only: true, and it is {what}: {ENDS}"
