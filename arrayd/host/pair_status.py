"""What an array says of a group's pairs: the edited data of `pair-status`, read strictly.

    {"array": "primary", "serial": "A1", "asynchronous": true, "generation": 3, "sequence": 812, "restored": 800,
     "group": "oradb", "id": "00112233445566778899aabbccddeeff", "last_epoch": 7, "consistent": true,
     "driver": "arrays", "pace": 3, "peer": "remote", "contact": 1795857760.5, "links": 1,
     "lag": {"seconds": 0.2, "writes": 12, "bytes": 49152}, "copy_rate": null,
     "copying": {"done": 1048576, "left": 3145728, "rate": 524288, "seconds_left": 6.0},
     "restoring": {"done": null, "left": 49152, "rate": null, "seconds_left": null}, "verify": null,
     "pairs": [{"lun": 0, "state": "P-VOL PAIR", "fence": "ASYNC", "percent": 100, "ctg": 1, "jid": 1, "number": 0,
                "name": "data", "volume": "410001:data", "size": 1073741824, "block_size": 512, "error": "",
                "differing": null, "holder": null}],
     "journals": [{"jid": 1, "mu": 0, "ctg": 1, "status": "PJNN", "links": 1, "used_percent": 4,
                   "marker": 812, "remaining": 12, "blocks": 2097152, "lun": 20}],
     "journal_candidates": [{"lun": 21, "name": "spare"}]}

What an array does not know it leaves out, or it is null; that is None here, and shown as unknown. An array is not
trusted to be right: whatever is not as it must be is a mistake that names the place, and nothing is taken from such an
answer. Keys that are not known here are a newer array's, and passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from arrayd.commands.results import Result
from arrayd.config.values import LUN_MAX
from arrayd.host.answer_fields import ANSWER, Fields, wrong
from arrayd.host.groups import DRIVERS, FENCE_LEVELS
from arrayd.host.pair_verified import Verify, verify_of
from arrayd.replication.statuses import State

PAIRS_MAX = 1024
"""Pairs in one answer: as many as a group has volumes."""
JOURNALS_MAX = 256
CANDIDATES_MAX = 1024
"""Journals that are not used: an array has no more LUNs."""
IDENTITY_CHARACTERS_MAX = 128
"""Of a volume's identity: array serial, colon, name."""
BLOCK_BYTES_MAX = 4096
SMALL_MAX = 0xFFFF
"""Of what CCI numbers: consistency groups, journals, mirrors, links."""

FENCES = ("ASYNC", *(level.upper() for level in FENCE_LEVELS))
"""Fence levels, as pairdisplay shows them: of an asynchronous pair there is the first alone."""
JOURNAL_STATUSES = ("SMPL", "PJNN", "SJNN", "PJNF", "SJNF", "PJSN", "SJSN", "PJSF", "SJSF", "PJSE", "SJSE")
"""JNLS: a journal of P-VOLs or S-VOLs that is normal, nearly full, split, or suspended when full or by an error."""
STATES: Mapping[str, State] = {str(state): state for state in State}


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
    number: int | None = None
    """The pair's number in its group, the same on both sides; None: the volume is in no pair of the group."""
    name: str | None = None
    """The pair's."""
    volume: str | None = None
    """The volume's identity: array serial, colon, name."""
    size: int | None = None
    """The volume's, in bytes."""
    block_size: int | None = None
    """Of its logical blocks, in bytes."""
    error: str | None = None
    """Why the pair is PSUE; empty where it is not."""
    differing: int | None = None
    """Bytes that are marked as differing, or are still to be copied."""
    holder: str | None = None
    """Of a volume in no pair of the group: what it is in another one, in a few words."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A journal volume that no group uses."""

    lun: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """What the P-VOLs have and the S-VOLs have not, as far as an array knows: None where it does not."""

    seconds: float | None = None
    """The age of the oldest such write; 0: there is none."""
    writes: int | None = None
    bytes: int | None = None


UNKNOWN_LAG = Lag()


@dataclass(frozen=True, slots=True)
class Job:
    """What takes long, as far as an array knows: None where it does not."""

    done: int | None
    """Bytes, since it began, or the array has started."""
    left: int | None
    rate: int | None
    """Bytes a second, in the last while."""
    seconds_left: float | None
    """How long what is left takes at that rate."""

    @property
    def percent(self) -> int | None:
        """How much of all of it is done."""
        if self.done is None or self.left is None:
            return None
        return 100 * self.done // (self.done + self.left) if self.left else 100


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
    group: str | None = None
    """Its name."""
    id: str | None = None
    """The group's, in hexadecimal; the same on both sides. None: the array has no such group."""
    last_epoch: int | None = None
    """The greatest that a journal of this array ever had."""
    consistent: bool = False
    """The S-VOLs are a point of the group's writes, or before-images lead back to one: as this side knows it."""
    driver: str | None = None
    """One of DRIVERS."""
    pace: int | None = None
    """Of copies."""
    peer: str | None = None
    """The other array, by its name."""
    contact: float | None = None
    """When this array last heard of the other one, in seconds since 1970."""
    links: int | None = None
    """Connections to it that live."""
    lag: Lag = UNKNOWN_LAG
    copy_rate: int | None = None
    """Of copies: bytes a second at the most; None: there is no limit of the group."""
    copying: Job | None = None
    """The copy, in COPY."""
    verify: Verify | None = None
    """The one that runs, or was the last since the pairs have changed, at the side with the S-VOLs."""
    restoring: Job | None = None
    """What the P-VOLs have and the S-VOLs have not, while the pairs run."""
    candidates: tuple[Candidate, ...] = ()

    @property
    def paired(self) -> dict[int, Pair]:
        """The pairs of the group on this array, by their numbers."""
        return {each.number: each for each in self.pairs.values() if each.number is not None and _in_pair(each)}

    @property
    def by_number(self) -> dict[int, State]:
        """What they show."""
        return {number: pair.state for number, pair in self.paired.items()}

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
    result: int = Result.UNREACHABLE
    """What became of the question."""


Heard = PairStatus | Silence


def parse(value: object) -> PairStatus:
    """The edited data of `pair-status` as JSON has them. Raises NotAStatus."""
    whole = Fields((ANSWER,), value)
    pairs = whole.several("pairs", PAIRS_MAX, _pair)
    by_lun = {pair.lun: pair for pair in pairs}
    if len(by_lun) != len(pairs):
        raise wrong((ANSWER, "pairs"), pairs, "every LUN once")
    numbers = [pair.number for pair in pairs if pair.number is not None]
    if len(set(numbers)) != len(numbers):
        raise wrong((ANSWER, "pairs"), pairs, "every number once")
    journals = whole.several("journals", JOURNALS_MAX, _journal)
    if len({(each.jid, each.mu) for each in journals}) != len(journals):
        raise wrong((ANSWER, "journals"), journals, "every mirror of a journal once")
    sequence, restored = whole.number_or_none("sequence"), whole.number_or_none("restored")
    if sequence is not None and restored is not None and restored > sequence:
        raise wrong((ANSWER, "restored"), restored, f"at most sequence, {sequence}")
    return PairStatus(
        array=whole.text("array"),
        serial=whole.text("serial"),
        asynchronous=whole.flag("asynchronous"),
        generation=whole.number("generation"),
        sequence=sequence,
        restored=restored,
        pairs=MappingProxyType(by_lun),
        journals=journals,
        group=whole.text_or_none("group"),
        id=whole.id_or_none("id"),
        last_epoch=whole.number_or_none("last_epoch"),
        consistent=whole.flag_or_none("consistent") or False,
        driver=whole.one_of_or_none("driver", DRIVERS),
        pace=whole.number_or_none("pace", SMALL_MAX),
        peer=whole.text_or_none("peer"),
        contact=whole.seconds_or_none("contact"),
        links=whole.number_or_none("links", SMALL_MAX),
        lag=whole.one_or_none("lag", _lag) or UNKNOWN_LAG,
        copy_rate=whole.number_or_none("copy_rate"),
        copying=whole.one_or_none("copying", _job),
        restoring=whole.one_or_none("restoring", _job),
        verify=whole.one_or_none("verify", verify_of),
        candidates=whole.several_or_none("journal_candidates", CANDIDATES_MAX, _candidate),
    )


def _pair(fields: Fields) -> Pair:
    return Pair(
        lun=fields.number("lun", LUN_MAX),
        state=STATES[fields.one_of("state", tuple(STATES))],
        fence=fields.one_of_or_none("fence", FENCES),
        percent=fields.number_or_none("percent", 100),
        ctg=fields.number_or_none("ctg", SMALL_MAX),
        jid=fields.number_or_none("jid", SMALL_MAX),
        number=fields.number_or_none("number", SMALL_MAX),
        name=fields.text_or_none("name"),
        volume=fields.text_or_none("volume", IDENTITY_CHARACTERS_MAX),
        size=fields.number_or_none("size"),
        block_size=fields.number_or_none("block_size", BLOCK_BYTES_MAX),
        error=fields.reason_or_none("error"),
        holder=fields.reason_or_none("holder"),
        differing=fields.number_or_none("differing"),
    )


def _in_pair(pair: Pair) -> bool:
    return pair.state is not State.SMPL


def _lag(fields: Fields) -> Lag:
    return Lag(fields.seconds_or_none("seconds"), fields.number_or_none("writes"), fields.number_or_none("bytes"))


def _job(fields: Fields) -> Job:
    return Job(
        fields.number_or_none("done"),
        fields.number_or_none("left"),
        fields.number_or_none("rate"),
        fields.seconds_or_none("seconds_left"),
    )


def _candidate(fields: Fields) -> Candidate:
    return Candidate(fields.number("lun", LUN_MAX), fields.text_or_none("name"))


def _journal(fields: Fields) -> Journal:
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
