"""What arrayctl prints: tables when a person looks, tab-separated columns or JSON when a program does.

What arrays say is shown without control characters: a name in an event may be an attacker's.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from arrayd.commands.results import Result

if TYPE_CHECKING:
    from rich.console import RenderableType

NOTHING = "-"
"""Stands for what there is not."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

EXIT_CODES = range(128, 256)
GAP = 2
"""Characters between two columns."""

Value = Callable[[Any], str]


def plain(value: Any) -> str:
    """A value as a program reads it, in one cell: no tabs, line ends or other control characters."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else " " for char in text)


def size(value: Any) -> str:
    """Bytes as a person reads them: `1.5 GiB`."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return plain(value)
    amount, unit = float(value), 0
    while abs(amount) >= 1024 and unit < len(UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.4g} {UNITS[unit]}"


def duration(value: Any) -> str:
    """Seconds as a person reads them: `3d 04:05:06`."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return plain(value)
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hours:02}:{minutes:02}:{seconds:02}"


def moment(value: Any) -> str:
    """Seconds since 1970 as a person reads them, in UTC; a text as it is."""
    return _time(value, lambda time: time.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00"))


def instant(value: Any) -> str:
    """The same as ISO 8601 has it, for a program."""
    return _time(value, lambda time: time.isoformat(timespec="seconds").replace("+00:00", "Z"))


def instant_in_words(value: Any) -> str:
    """The same for a person, who is shown date and time as two words."""
    return _time(value, lambda time: time.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z"))


def _time(value: Any, shown: Callable[[datetime], str]) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(value)
    try:
        return shown(datetime.fromtimestamp(value, UTC))
    except (ValueError, OverflowError, OSError):
        return plain(value)


def yes(value: Any) -> str:
    """True as a person is told it; false is nothing to speak of."""
    return "yes" if value is True else NOTHING if value is False else plain(value)


class Column(NamedTuple):
    """One column: its head, the key of a row that it shows, and how a person is shown it, and a program."""

    head: str
    key: str
    human: Value = plain
    program: Value = plain


class Output:
    """Standard output, for a person or for a program."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.for_people = not as_json and sys.stdout.isatty()

    def data(self, value: Any) -> None:
        """Anything, as JSON: on one line for a program."""
        click.echo(json.dumps(value, ensure_ascii=not self.for_people, indent=2 if self.for_people else None))

    def rows(self, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> None:
        """A table. As JSON it is a list of the rows as they are, with all their keys."""
        listed = list(rows)
        if self.as_json:
            self.data(listed)
        elif self.for_people:
            _draw(columns, listed)
        else:
            for row in listed:
                click.echo("\t".join(column.program(row.get(column.key)) for column in columns))

    def line(self, columns: Sequence[Column], row: Mapping[str, Any]) -> None:
        """One row of a table that has no end."""
        if self.as_json:
            click.echo(json.dumps(row))
        else:
            shown = ((column.human if self.for_people else column.program, column.key) for column in columns)
            cells = (show(row.get(key)) for show, key in shown)
            click.echo(("  " if self.for_people else "\t").join(cells))
        sys.stdout.flush()


def _draw(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table; where that does not fit without breaking words, each row as lines of head and value."""
    from rich.cells import cell_len
    from rich.console import Console

    console = Console()
    cells = [[column.human(row.get(column.key)) for column in columns] for row in rows]
    told = [at for at in range(len(columns)) if not cells or any(row[at] != NOTHING for row in cells)]
    heads = [columns[at].head for at in told]
    shown = [[row[at] for at in told] for row in cells]
    in_column = [list(each) for each in zip(heads, *shown, strict=True)]
    widths = fitted(
        [max(cell_len(text) for text in texts) for texts in in_column],
        [max((cell_len(word) for text in texts for word in text.split()), default=0) for texts in in_column],
        console.width - GAP * len(told),
    )
    console.print(_records(heads, shown) if widths is None else _table(heads, shown, widths))


def fitted(wide: Sequence[int], narrow: Sequence[int], room: int) -> list[int] | None:
    """Widths of columns that have these at the most and at the least, and `room` for all; None: they do not fit."""
    if sum(narrow) > room:
        return None
    widths = list(wide)
    for _ in range(sum(wide) - room):
        widest = max((at for at in range(len(widths)) if widths[at] > narrow[at]), key=lambda at: widths[at])
        widths[widest] -= 1
    return widths


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head, width in zip(heads, widths, strict=True):
        table.add_column(head, width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _records(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, row in enumerate(rows):
        if number:
            table.add_row()
        for head, text in zip(heads, row, strict=True):
            table.add_row(head, Text(text))
    return table


def exit_code(result: int) -> int:
    """A result as a process can end with it: results of newer arrays may not fit."""
    return result if result in EXIT_CODES else Result.INTERNAL


def complain(text: str) -> None:
    """A reason on standard error. Each of its lines is one."""
    for line in text.splitlines() or [""]:
        click.echo(f"arrayctl: {plain(line)}", err=True)
