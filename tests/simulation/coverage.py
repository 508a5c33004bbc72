"""What runs have met, as tables: each fault and each verb by what the pairs showed, and where arrays have died.

A cell that is empty is marked: nothing is known of what would happen there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tests.simulation.faults import DOORS, DOORS_OF_CHANGES

STATUSES = ("SMPL", "COPY", "PAIR", "PFUL", "PSUS", "SSUS -rw", "PSUE", "PFUS", "SSWS")
"""Of a group: that of its P-VOLs, but for S-VOLs that are written."""
EMPTY = "-----"
WIDTH = 110
SEPARATOR = " | "
MOMENTS = ("kill before", "kill after", "power loss before", "power loss after")

ONLY_BEFORE = ("accept", "listen", "tables", "write back")
"""Doors from which nothing comes back that an array could hear or not: a moment after such a call is no other than that
before the next."""


ONLY_WHILE = {"fill journal": ("PAIR",)}
"""What is done while a group shows these, and nothing else: a journal fills up, and is PFUL then, where S-VOLs follow
and are no more copied."""
MIRRORED = " (sync)"
"""What the name of a row ends with that is of synchronous groups."""
ONLY_ASYNCHRONOUS = ("PFUL", "PFUS")
"""What these never show: they have no journal."""


def cell(what: str, status: str) -> str:
    """The name under which it is counted."""
    return f"{what}{SEPARATOR}{status}"


def print_tables(counts: Counter[str], rows: Sequence[str], console: Console | None = None) -> int:
    """Prints what was counted by status, of all `rows` there are, and where arrays have died; how many cells are
    empty."""
    console = console or Console(width=WIDTH, highlight=False, color_system=None)
    if not rows:
        return 0
    met = {key.partition(SEPARATOR)[0] for key in counts if SEPARATOR in key}
    assert met <= {*rows}, f"no row for {met - {*rows}}"
    by_status = _table("by what the pairs showed", rows, STATUSES, lambda what, status: _made(counts, what, status))
    doors = sorted({*DOORS, *DOORS_OF_CHANGES, *(key.partition(" ")[2] for key in _deaths(counts))})
    by_door = _table("died", doors, MOMENTS, lambda door, moment: _died(counts, door, moment))
    console.print(by_status[0])
    console.print(by_door[0])
    return by_status[1] + by_door[1]


def _made(counts: Counter[str], what: str, status: str) -> int | None:
    """None: that cannot be."""
    cannot_be = what.endswith(MIRRORED) and status in ONLY_ASYNCHRONOUS
    return None if cannot_be or status not in ONLY_WHILE.get(what, STATUSES) else counts[cell(what, status)]


def _deaths(counts: Counter[str]) -> Iterable[str]:
    """`before DOOR` and `after DOOR`, of all deaths at a door."""
    for key in counts:
        for kind in ("kill ", "power loss "):
            when = key.removeprefix(kind)
            if when != key and when.startswith(("before ", "after ")):
                yield when


def _died(counts: Counter[str], door: str, moment: str) -> int | None:
    """None: that cannot be."""
    return None if door in ONLY_BEFORE and moment.endswith("after") else counts[f"{moment} {door}"]


def _table(title: str, rows: Sequence[str], columns: Sequence[str], count: object) -> tuple[Table, int]:
    assert callable(count)
    table, empty = Table(title, box=SIMPLE_HEAD), 0
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        found = [count(row, column) for column in columns]
        empty += found.count(0)
        table.add_row(row, *("" if each is None else str(each) if each else EMPTY for each in found))
    return table, empty
