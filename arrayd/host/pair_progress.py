"""pairdisplay -v progress: what takes long of a group's pairs, a line for each such job and side.

A copy (`copy`: the initial copy, or a resync) is there in COPY; `restore`, what the S-VOLs have not of what P-VOLs were
written, while the pairs run. Nothing is guessed: what an array does not know, as of a copy that stands still, is `-`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arrayd.host.groups import Group
from arrayd.host.pair_page import CONTACT, NOT_ASKED, UNKNOWN, Row, of_side, origin, sides_of
from arrayd.host.pair_status import Heard, Job, PairStatus, Silence
from arrayd.host.show import NOTHING, Column, Output, duration, plain, size


def rate(value: Any) -> str:
    """Bytes a second."""
    return f"{size(value)}/s" if isinstance(value, int | float) else plain(value)


def moment_left(value: Any) -> str:
    """Seconds, where they are known."""
    return NOTHING if value is None else duration(value)


PROGRESS = (
    Column("Group", "group"),
    Column("L/R", "side"),
    Column("Job", "job"),
    Column("%", "percent"),
    Column("Done", "done", size),
    Column("Left", "left", size),
    Column("Rate", "rate", rate),
    Column("ETA", "seconds_left", moment_left),
    Column("Seq#", "serial"),
    CONTACT,
)


def progress_rows(group: Group, here: str, heard: Mapping[str, Heard]) -> list[Row]:
    """A row for each job and side, the local one first; of a side that says nothing, one that says so."""
    return [
        row
        for mark, array in sides_of(group, here)
        for row in _rows({"group": group.name, "side": mark, "array": array}, heard.get(array, NOT_ASKED))
    ]


def show_progress(output: Output, group: Group, here: str, heard: Mapping[str, Heard], *, local: bool = False) -> None:
    """Prints the page, or of it what is of this side (`local`)."""
    output.rows(PROGRESS, of_side(progress_rows(group, here, heard), local))


def _rows(row: Row, heard: Heard) -> Iterator[Row]:
    if isinstance(heard, Silence):
        yield row | origin(heard) | {"job": UNKNOWN} | dict.fromkeys(_KEYS)
        return
    for name, job in _jobs(heard):
        yield row | origin(heard) | {"job": name} | {key: getattr(job, key) for key in _KEYS}


def _jobs(heard: PairStatus) -> Iterator[tuple[str, Job]]:
    for name, job in (("copy", heard.copying), ("restore", heard.restoring)):
        if job is not None:
            yield name, job


_KEYS = ("done", "left", "rate", "seconds_left", "percent")
