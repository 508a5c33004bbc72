"""pairdisplay's pages: a line for each volume and side of a group, and with `-v jnl` one for each journal and side.

The columns are CCI's, with its names and in its order (CCI Command Reference, pairdisplay and raidvchkscan -v jnl).
Where CCI says by which port, target and LDEV a volume is reached, there is its LUN. L/R has a column of its own, and
Contact, behind the others, says when a side that is silent now was last heard of. What is not known is `unknown`, or
`-`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from arrayd.host.groups import Group, GroupVolume
from arrayd.host.pair_status import Heard, Journal, PairStatus, Silence
from arrayd.host.show import Column, Output, instant, instant_in_words
from arrayd.replication.statuses import Side, State

UNKNOWN = "unknown"
LOCAL, REMOTE = "L", "R"
SIDES: Mapping[Side, str] = {Side.NONE: "SMPL", Side.P_VOL: "P-VOL", Side.S_VOL: "S-VOL"}
NOT_ASKED = Silence("not asked", None)

Row = dict[str, Any]

PAIRS = (
    Column("Group", "group"),
    Column("PairVol", "volume"),
    Column("L/R", "side"),
    Column("LUN", "lun"),
    Column("Seq#", "serial"),
    Column("P/S", "pair_side"),
    Column("Status", "status"),
    Column("Fence", "fence"),
    Column("%", "percent"),
)
FE = (Column("CTG", "ctg"), Column("JID", "jid"))
"""What `-fe` adds."""
CONTACT = Column("Contact", "last_contact", instant_in_words, instant)
JOURNALS = (
    Column("L/R", "side"),
    Column("JID", "jid"),
    Column("MU", "mu"),
    Column("CTG", "ctg"),
    Column("JNLS", "status"),
    Column("AP", "links"),
    Column("U(%)", "used_percent"),
    Column("Q-Marker", "marker"),
    Column("Q-CNT", "remaining"),
    Column("D-SZ(BLK)", "blocks"),
    Column("Seq#", "serial"),
    Column("LUN", "lun"),
)


def pair_columns(*, extended: bool = False) -> tuple[Column, ...]:
    """The columns of pairdisplay; `extended` with `-fe`."""
    return (*PAIRS, *(FE if extended else ()), CONTACT)


def journal_columns() -> tuple[Column, ...]:
    """The columns of `pairdisplay -v jnl`."""
    return (*JOURNALS, CONTACT)


def pair_rows(group: Group, here: str, heard: Mapping[str, Heard]) -> list[Row]:
    """A row for each volume and side: the local one, then the others, as pairdisplay has them.

    `here` is the array that is asked, and `heard` what each array answered."""
    both = list(sides_of(group, here))
    return [
        _pair_row(group, volume, mark, array, heard.get(array, NOT_ASKED))
        for volume in group.volumes
        for mark, array in both
        if array in volume.luns
    ]


def journal_rows(group: Group, here: str, heard: Mapping[str, Heard]) -> list[Row]:
    """A row for each journal and side; of a side that says nothing, one that says so. A synchronous group has none."""
    return [
        row
        for mark, array in sides_of(group, here)
        for row in _journal_rows(group, mark, array, heard.get(array, NOT_ASKED))
    ]


def show_pairs(
    output: Output, group: Group, here: str, heard: Mapping[str, Heard], *, extended: bool = False, local: bool = False
) -> None:
    """Prints the page of pairs, or of it what is of this side (`local`). For a program it always has the same
    columns."""
    output.rows(pair_columns(extended=extended), of_side(pair_rows(group, here, heard), local))


def show_journals(output: Output, group: Group, here: str, heard: Mapping[str, Heard], *, local: bool = False) -> None:
    """Prints the page of journals, or of it what is of this side (`local`)."""
    output.rows(journal_columns(), of_side(journal_rows(group, here, heard), local))


def of_side(rows: list[Row], local: bool) -> list[Row]:
    """All rows, or those of this side."""
    return [row for row in rows if not local or row["side"] == LOCAL]


def shown_unknown(row: Row, keys: Iterable[str]) -> Row:
    """The same with UNKNOWN for None under these keys: an empty cell would look like nothing."""
    return row | {key: UNKNOWN for key in keys if row[key] is None}


def shown(states: Mapping[int, State]) -> str:
    """What a side shows: each state once."""
    return ", ".join(dict.fromkeys(str(states[number]) for number in sorted(states))) or str(State.SMPL)


def sides_of(group: Group, here: str) -> Iterator[tuple[str, str]]:
    """L or R, and the array: the local one first."""
    local = group.local(here)
    yield LOCAL, local
    yield from ((REMOTE, array) for array in group.arrays if array != local)


def _pair_row(group: Group, volume: GroupVolume, mark: str, array: str, heard: Heard) -> Row:
    lun = volume.luns[array]
    row: Row = {"group": group.name, "volume": volume.name, "side": mark, "array": array, "lun": lun}
    return row | origin(heard) | _pair(heard, lun)


def _pair(heard: Heard, lun: int) -> Row:
    """Of a volume that nothing was heard of, nothing is known but where it is."""
    pair = heard.pairs.get(lun) if isinstance(heard, PairStatus) else None
    if pair is None or isinstance(heard, Silence):
        return {"pair_side": UNKNOWN, "status": UNKNOWN, "fence": None, "percent": None, "ctg": None, "jid": None}
    return {
        "pair_side": SIDES[pair.state.side],
        "status": pair.state.status.value,
        "fence": pair.fence,
        "percent": pair.percent,
        "ctg": pair.ctg,
        "jid": pair.jid,
        "writes": pair.state.writes_of(asynchronous=heard.asynchronous).value,
        "error": pair.error or None,
        "differing": pair.differing,
    }


def _journal_rows(group: Group, mark: str, array: str, heard: Heard) -> Iterator[Row]:
    row: Row = {"group": group.name, "side": mark, "array": array}
    listed = heard.journals if isinstance(heard, PairStatus) else ()
    for journal in listed:
        yield row | origin(heard) | _journal(journal)
    if isinstance(heard, Silence) and not group.synchronous:
        lun = group.journals.get(array)
        yield row | origin(heard) | dict.fromkeys(_KEYS) | {"status": UNKNOWN, "lun": lun}


_KEYS = ("jid", "mu", "ctg", "status", "links", "used_percent", "marker", "remaining", "blocks", "lun")


def _journal(journal: Journal) -> Row:
    return {key: getattr(journal, key) for key in _KEYS}


def origin(heard: Heard) -> Row:
    """Who said it; or why nobody, and when it was last heard of."""
    if isinstance(heard, PairStatus):
        return {"serial": heard.serial, "answers": True, "last_contact": None, "reason": None}
    return {"serial": None, "answers": False, "last_contact": heard.last_contact, "reason": heard.reason}
