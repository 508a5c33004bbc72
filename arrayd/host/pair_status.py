"""What an array says of a group's pairs: the edited data of `pair-status`, read strictly.

    {"array": "primary", "serial": "A1", "asynchronous": true, "generation": 3, "sequence": 812, "restored": 800,
     "pairs": [{"lun": 0, "state": "P-VOL PAIR", "fence": "ASYNC", "percent": 100, "ctg": 1, "jid": 1}],
     "journals": [{"jid": 1, "mu": 0, "ctg": 1, "status": "PJNN", "links": 1, "used_percent": 4,
                   "marker": 812, "remaining": 12, "blocks": 2097152, "lun": 20}]}

What an array does not know it leaves out, or it is null; that is None here, and shown as unknown. An array is not
trusted to be right: whatever is not as it must be is a mistake that names the place, and nothing is taken from such an
answer. Keys that are not known here are a newer array's, and passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from arrayd.config.mistakes import MISSING, KeyPath, Mistake, line_of
from arrayd.config.values import LUN_MAX
from arrayd.replication.statuses import State

PAIRS_MAX = 1024
"""Pairs in one answer: as many as a group has volumes."""
JOURNALS_MAX = 256
TEXT_CHARACTERS_MAX = 32
"""Of an array's name or serial number."""
NUMBER_MAX = (1 << 64) - 1
"""Of what is counted: a sequence number, a generation, blocks."""
SMALL_MAX = 0xFFFF
"""Of what CCI numbers: consistency groups, journals, mirrors, links."""

FENCES = ("ASYNC", "NEVER", "DATA", "STATUS")
"""Fence levels, as pairdisplay shows them: of an asynchronous pair there is the first alone."""
JOURNAL_STATUSES = ("SMPL", "PJNN", "SJNN", "PJNF", "SJNF", "PJSN", "SJSN", "PJSF", "SJSF", "PJSE", "SJSE")
"""JNLS: a journal of P-VOLs or S-VOLs that is normal, nearly full, split, or suspended when full or by an error."""
STATES: Mapping[str, State] = {str(state): state for state in State}

ANSWER = "answer"
"""What a mistake's place begins with."""

T = TypeVar("T")


class NotAStatus(ValueError):
    """An answer that is no answer to `pair-status`: the text says where, on one line."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One volume of the group on this array."""

    lun: int
    state: State
    fence: str | None
    """One of FENCES."""
    percent: int | None
    """Of a copy: how much of it is done. Else: how much of the volume is the same on both sides."""
    ctg: int | None
    """The consistency group's number on this array."""
    jid: int | None
    """The journal's number on this array."""


@dataclass(frozen=True, slots=True)
class Journal:
    """One journal of the group on this array."""

    jid: int
    mu: int | None
    """The mirror's number: which of the journal's legs."""
    ctg: int | None
    status: str
    """One of JOURNAL_STATUSES."""
    links: int | None
    """Connections to the other array that live."""
    used_percent: int | None
    marker: int | None
    """The sequence number of the newest record in it."""
    remaining: int | None
    """Records that are still in it."""
    blocks: int | None
    """What it holds: logical blocks of journal data."""
    lun: int


@dataclass(frozen=True, slots=True)
class PairStatus:
    """All that one array says of one group."""

    array: str
    serial: str
    asynchronous: bool
    generation: int
    """Of the rows of its pairs: one more at each paircreate, resync, swap and takeover."""
    sequence: int | None
    """The newest of the group's writes that this array knows of."""
    restored: int | None
    """The newest of the group's writes that the S-VOLs have for certain, as far as this array knows."""
    pairs: Mapping[int, Pair]
    """By LUN. Those in no pair are SMPL."""
    journals: tuple[Journal, ...]

    def states(self, luns: Mapping[str, int]) -> dict[str, State] | None:
        """What volumes show, by name, with the LUN of each; None if the array does not tell of all of them."""
        if not all(lun in self.pairs for lun in luns.values()):
            return None
        return {name: self.pairs[lun].state for name, lun in luns.items()}


@dataclass(frozen=True, slots=True)
class Silence:
    """Stands for the answer of an array that gave none."""

    reason: str
    last_contact: float | None
    """When it was last heard of, in seconds since 1970; None: not that anybody here knows."""


Heard = PairStatus | Silence


def parse(value: object) -> PairStatus:
    """The edited data of `pair-status` as JSON has them. Raises NotAStatus."""
    whole = _Fields((ANSWER,), value)
    pairs = whole.several("pairs", PAIRS_MAX, _pair)
    by_lun = {pair.lun: pair for pair in pairs}
    if len(by_lun) != len(pairs):
        raise _wrong((ANSWER, "pairs"), pairs, "every LUN once")
    journals = whole.several("journals", JOURNALS_MAX, _journal)
    if len({(each.jid, each.mu) for each in journals}) != len(journals):
        raise _wrong((ANSWER, "journals"), journals, "every mirror of a journal once")
    sequence, restored = whole.number_or_none("sequence"), whole.number_or_none("restored")
    if sequence is not None and restored is not None and restored > sequence:
        raise _wrong((ANSWER, "restored"), restored, f"at most sequence, {sequence}")
    return PairStatus(
        array=whole.text("array"),
        serial=whole.text("serial"),
        asynchronous=whole.flag("asynchronous"),
        generation=whole.number("generation"),
        sequence=sequence,
        restored=restored,
        pairs=MappingProxyType(by_lun),
        journals=journals,
    )


def _pair(fields: _Fields) -> Pair:
    return Pair(
        lun=fields.number("lun", LUN_MAX),
        state=STATES[fields.one_of("state", tuple(STATES))],
        fence=fields.one_of_or_none("fence", FENCES),
        percent=fields.number_or_none("percent", 100),
        ctg=fields.number_or_none("ctg", SMALL_MAX),
        jid=fields.number_or_none("jid", SMALL_MAX),
    )


def _journal(fields: _Fields) -> Journal:
    return Journal(
        jid=fields.number("jid", SMALL_MAX),
        mu=fields.number_or_none("mu", SMALL_MAX),
        ctg=fields.number_or_none("ctg", SMALL_MAX),
        status=fields.one_of("status", JOURNAL_STATUSES),
        links=fields.number_or_none("links", SMALL_MAX),
        used_percent=fields.number_or_none("used_percent", 100),
        marker=fields.number_or_none("marker"),
        remaining=fields.number_or_none("remaining"),
        blocks=fields.number_or_none("blocks"),
        lun=fields.number("lun", LUN_MAX),
    )


def _wrong(where: KeyPath, value: object, expected: str) -> NotAStatus:
    return NotAStatus(line_of(Mistake(where, value, expected)))


class _Fields:
    """A JSON object whose fields are taken one by one, each as what it must be. All raise NotAStatus."""

    def __init__(self, where: KeyPath, value: object) -> None:
        if not isinstance(value, dict):
            raise _wrong(where, value, "a JSON object")
        self._where = where
        self._value: dict[str, Any] = value

    def text(self, key: str) -> str:
        """Printable text that is not empty."""
        value = self._taken(key)
        if isinstance(value, str) and 0 < len(value) <= TEXT_CHARACTERS_MAX and value.isprintable():
            return value
        raise self._mistake(key, f"1 to {TEXT_CHARACTERS_MAX} printable characters")

    def flag(self, key: str) -> bool:
        value = self._taken(key)
        if isinstance(value, bool):
            return value
        raise self._mistake(key, "true or false")

    def number(self, key: str, most: int = NUMBER_MAX) -> int:
        """A whole number, 0 to `most`."""
        value = self._taken(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
            return value
        raise self._mistake(key, f"a whole number, 0 to {most}")

    def number_or_none(self, key: str, most: int = NUMBER_MAX) -> int | None:
        return None if self._value.get(key) is None else self.number(key, most)

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        value = self._taken(key)
        if isinstance(value, str) and value in known:
            return value
        raise self._mistake(key, f"one of {', '.join(known)}")

    def one_of_or_none(self, key: str, known: tuple[str, ...]) -> str | None:
        return None if self._value.get(key) is None else self.one_of(key, known)

    def several(self, key: str, most: int, parsed: Callable[[_Fields], T]) -> tuple[T, ...]:
        """A list of objects, at most so many."""
        value = self._taken(key)
        if not isinstance(value, list) or len(value) > most:
            raise self._mistake(key, f"a list, at most {most} long")
        return tuple(parsed(_Fields((*self._where, key, number), each)) for number, each in enumerate(value))

    def _taken(self, key: str) -> object:
        return self._value.get(key, MISSING)

    def _mistake(self, key: str, expected: str) -> NotAStatus:
        return _wrong((*self._where, key), self._taken(key), expected)
