"""`pairdisplay -v lag`: how far the S-VOLs are behind, as each side knows it.

Lag and position are told only while the S-VOLs follow: in COPY they are no point of the group's writes, and of
suspended pairs nobody knows whether they are one. What is not known is `unknown`, with the time of the last contact.
"""

from __future__ import annotations

from collections.abc import Mapping

from arrayd.host.groups import Group
from arrayd.host.pair_page import CONTACT, NOT_ASKED, UNKNOWN, Row, of_side, shown, shown_unknown, sides_of
from arrayd.host.pair_status import UNKNOWN_LAG, Heard, PairStatus, Silence
from arrayd.host.show import Column, Output, size
from arrayd.replication.statuses import FOLLOWING

LAG = (
    Column("Group", "group"),
    Column("L/R", "side"),
    Column("Array", "array"),
    Column("Shows", "shows"),
    Column("Written", "sequence"),
    Column("Restored", "restored"),
    Column("Writes", "writes"),
    Column("Bytes", "bytes", size),
    Column("Seconds", "seconds"),
    CONTACT,
)
FIGURES = ("sequence", "restored", "writes", "bytes", "seconds", "last_contact")


def show_lag(output: Output, group: Group, here: str, heard: Mapping[str, Heard], *, local: bool = False) -> None:
    """Prints a row for each side, or for this one (`local`)."""
    rows = of_side(lag_rows(group, here, heard), local)
    output.rows(LAG, rows if output.as_json else [shown_unknown(row, FIGURES) for row in rows])


def lag_rows(group: Group, here: str, heard: Mapping[str, Heard]) -> list[Row]:
    """What each side knows of the lag, the local one first; None: it does not."""
    return [
        {"group": group.name, "side": mark, "array": array} | _lag(heard.get(array, NOT_ASKED))
        for mark, array in sides_of(group, here)
    ]


def _lag(heard: Heard) -> Row:
    if isinstance(heard, Silence):
        known: Row = dict.fromkeys(FIGURES)
        return known | {"shows": UNKNOWN, "last_contact": heard.last_contact, "reason": heard.reason}
    follows = _follows(heard)
    lag = heard.lag if follows else UNKNOWN_LAG
    return {
        "shows": shown(heard.by_number),
        "sequence": heard.sequence,
        "restored": heard.restored if follows else None,
        "writes": lag.writes,
        "bytes": lag.bytes,
        "seconds": None if lag.seconds is None else round(lag.seconds, 3),
        "last_contact": heard.contact,
        "reason": None,
    }


def _follows(heard: PairStatus) -> bool:
    states = set(heard.by_number.values())
    return bool(states) and states <= FOLLOWING
