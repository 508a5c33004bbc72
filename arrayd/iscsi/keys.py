"""The text keys of iSCSI and what each negotiates to (RFC 7143, sections 6.1, 6.2, 12 and 13).

`KEYS` is the whole of it: a row says who may send a key, when, what kind of value it takes, what the target offers and
what holds when nobody speaks of it. `Negotiation` answers an initiator's keys by the table and remembers what was
agreed. The target never opens a negotiation of its own: it answers, and it declares.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import TypeVar

from arrayd.iscsi.pdu import DATA_SEGMENT_BYTES_MAX, ProtocolError

KEY_BYTES_MAX = 63
"""Longest key name (RFC 7143, 6.1)."""
SIMPLE_VALUE_BYTES_MAX = 255
"""Longest value of a key that does not say otherwise (RFC 7143, 6.1)."""
VALUE_BYTES_MAX = 8192
"""Longest value of any key: room for the lists and for 1024 bytes of CHAP in any encoding."""
PAIRS_MAX = 128
"""Most key=value pairs in one negotiation step; the standard has about fifty keys."""
NAME_BYTES_MAX = 223
"""Longest iSCSI name (RFC 7143, 4.2.7.1)."""

MAX_RECV_SEGMENT_BYTES = 262144
"""MaxRecvDataSegmentLength that the target declares."""
LOGIN_SEGMENT_BYTES = 8192
"""MaxRecvDataSegmentLength of both sides until declared, and in all of the login phase (RFC 7143, 13.12)."""
MAX_BURST_BYTES = 16776192
"""The largest MaxBurstLength the target agrees to: the largest multiple of 1024 in range."""
FIRST_BURST_BYTES = 262144
"""The largest FirstBurstLength the target agrees to."""
MAX_OUTSTANDING_R2T = 8
"""The most R2Ts the target will have outstanding for a task."""

REJECT = "Reject"
IRRELEVANT = "Irrelevant"
NOT_UNDERSTOOD = "NotUnderstood"
REFUSALS = frozenset({REJECT, IRRELEVANT, NOT_UNDERSTOOD})
"""Values that answer a key without agreeing to it (RFC 7143, 6.2)."""

Value = bool | int | str


class Kind(Enum):
    """How a key's result follows from what both sides say (RFC 7143, 6.2.1, 6.2.2 and 13)."""

    TEXT = auto()  # declared, not answered: text
    NUMBER = auto()  # declared, not answered: a number in range
    LIST = auto()  # the first of the proposer's list that the responder has too
    AND = auto()  # Yes only if both say Yes
    OR = auto()  # Yes if either says Yes
    MINIMUM = auto()  # the smaller number
    MAXIMUM = auto()  # the larger number
    OBSOLETE = auto()  # always refused


class Use(Enum):
    """When a key may be sent (RFC 7143, 13)."""

    SECURITY = "security stage"
    INITIALIZE = "IO"
    LEADING = "LO"
    ALL = "ALL"
    FULL_FEATURE = "FFPO"


class Sender(Flag):
    """Who may send a key (RFC 7143, 13)."""

    INITIATOR = auto()
    TARGET = auto()
    BOTH = INITIATOR | TARGET


class Scope(Enum):
    """What a key is about (RFC 7143, 13)."""

    CONNECTION = "CO"
    SESSION = "SW"


class Phase(Enum):
    """Where a negotiation stands, as far as admission of keys goes."""

    SECURITY = auto()
    OPERATIONAL = auto()
    FULL_FEATURE = auto()


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table.

    `offer` is the target's own side of the result function; `choices` what it takes of a list, the offer first; `low`
    and `high` the legal range of a number; `any_stage` keys are welcome in the security stage too; `normal_only` keys
    are irrelevant in a discovery session; `limit` is the longest value in bytes.
    """

    name: str
    section: str
    use: Use
    senders: Sender
    scope: Scope
    kind: Kind
    offer: Value | None = None
    default: Value | None = None
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    any_stage: bool = False
    normal_only: bool = False
    limit: int = SIMPLE_VALUE_BYTES_MAX


_I, _T, _BOTH = Sender.INITIATOR, Sender.TARGET, Sender.BOTH
_CO, _SW = Scope.CONNECTION, Scope.SESSION
_SEC, _IO, _LO, _ALL, _FFPO = Use.SECURITY, Use.INITIALIZE, Use.LEADING, Use.ALL, Use.FULL_FEATURE
_LOW, _HIGH = 512, DATA_SEGMENT_BYTES_MAX
_DIGEST = ("CRC32C", "None")

# fmt: off
KEYS: dict[str, Key] = {key.name: key for key in (
    #   name                        section   use    senders scope kind
    Key("AuthMethod",               "12.1",   _SEC,  _BOTH,  _CO, Kind.LIST,     choices=("CHAP", "None"),
        limit=VALUE_BYTES_MAX),
    Key("CHAP_A",                   "12.1.3", _SEC,  _BOTH,  _CO, Kind.TEXT,     limit=VALUE_BYTES_MAX),
    Key("CHAP_I",                   "12.1.3", _SEC,  _BOTH,  _CO, Kind.TEXT),
    Key("CHAP_C",                   "12.1.3", _SEC,  _BOTH,  _CO, Kind.TEXT,     limit=VALUE_BYTES_MAX),
    Key("CHAP_N",                   "12.1.3", _SEC,  _BOTH,  _CO, Kind.TEXT),
    Key("CHAP_R",                   "12.1.3", _SEC,  _BOTH,  _CO, Kind.TEXT,     limit=VALUE_BYTES_MAX),
    Key("HeaderDigest",             "13.1",   _IO,   _BOTH,  _CO, Kind.LIST,     default="None", choices=_DIGEST,
        limit=VALUE_BYTES_MAX),
    Key("DataDigest",               "13.1",   _IO,   _BOTH,  _CO, Kind.LIST,     default="None", choices=_DIGEST,
        limit=VALUE_BYTES_MAX),
    Key("MaxConnections",           "13.2",   _LO,   _BOTH,  _SW, Kind.MINIMUM,  offer=1, default=1, low=1, high=65535,
        normal_only=True),
    Key("SendTargets",              "13.3",   _FFPO, _I,     _SW, Kind.TEXT),
    Key("TargetName",               "13.4",   _IO,   _BOTH,  _SW, Kind.TEXT,     any_stage=True, limit=NAME_BYTES_MAX),
    Key("InitiatorName",            "13.5",   _IO,   _I,     _SW, Kind.TEXT,     any_stage=True, limit=NAME_BYTES_MAX),
    Key("TargetAlias",              "13.6",   _ALL,  _T,     _SW, Kind.TEXT,     any_stage=True),
    Key("InitiatorAlias",           "13.7",   _ALL,  _I,     _SW, Kind.TEXT,     default="", any_stage=True),
    Key("TargetAddress",            "13.8",   _ALL,  _T,     _SW, Kind.TEXT,     any_stage=True),
    Key("TargetPortalGroupTag",     "13.9",   _IO,   _T,     _SW, Kind.NUMBER,   high=65535, any_stage=True),
    Key("InitialR2T",               "13.10",  _LO,   _BOTH,  _SW, Kind.OR,       offer=False, default=True,
        normal_only=True),
    Key("ImmediateData",            "13.11",  _LO,   _BOTH,  _SW, Kind.AND,      offer=True, default=True,
        normal_only=True),
    Key("MaxRecvDataSegmentLength", "13.12",  _ALL,  _BOTH,  _CO, Kind.NUMBER,   offer=MAX_RECV_SEGMENT_BYTES,
        default=LOGIN_SEGMENT_BYTES, low=_LOW, high=_HIGH),
    Key("MaxBurstLength",           "13.13",  _LO,   _BOTH,  _SW, Kind.MINIMUM,  offer=MAX_BURST_BYTES,
        default=262144, normal_only=True, low=_LOW, high=_HIGH),
    Key("FirstBurstLength",         "13.14",  _LO,   _BOTH,  _SW, Kind.MINIMUM,  offer=FIRST_BURST_BYTES,
        default=65536, normal_only=True, low=_LOW, high=_HIGH),
    Key("DefaultTime2Wait",         "13.15",  _LO,   _BOTH,  _SW, Kind.MAXIMUM,  offer=0, default=2, high=3600),
    Key("DefaultTime2Retain",       "13.16",  _LO,   _BOTH,  _SW, Kind.MINIMUM,  offer=0, default=20, high=3600),
    Key("MaxOutstandingR2T",        "13.17",  _LO,   _BOTH,  _SW, Kind.MINIMUM,  offer=MAX_OUTSTANDING_R2T, default=1,
        low=1, high=65535, normal_only=True),
    Key("DataPDUInOrder",           "13.18",  _LO,   _BOTH,  _SW, Kind.OR,       offer=True, default=True,
        normal_only=True),
    Key("DataSequenceInOrder",      "13.19",  _LO,   _BOTH,  _SW, Kind.OR,       offer=True, default=True,
        normal_only=True),
    Key("ErrorRecoveryLevel",       "13.20",  _LO,   _BOTH,  _SW, Kind.MINIMUM,  offer=0, default=0, high=2),
    Key("SessionType",              "13.21",  _LO,   _I,     _SW, Kind.TEXT,     default="Normal", any_stage=True),
    Key("TaskReporting",            "13.23",  _LO,   _BOTH,  _SW, Kind.LIST,     default="RFC3720",
        choices=("ResponseFence", "RFC3720"), normal_only=True, limit=VALUE_BYTES_MAX),
    Key("iSCSIProtocolLevel",       "13.24",  _LO,   _BOTH,  _SW, Kind.MINIMUM,  offer=1, default=1, high=31,
        normal_only=True),
    # No is as good an answer to the markers as Reject, and older initiators understand it better.
    Key("IFMarker",                 "13.25",  _IO,   _BOTH,  _CO, Kind.AND,      offer=False, default=False),
    Key("OFMarker",                 "13.25",  _IO,   _BOTH,  _CO, Kind.AND,      offer=False, default=False),
    Key("IFMarkInt",                "13.25",  _IO,   _BOTH,  _CO, Kind.OBSOLETE),
    Key("OFMarkInt",                "13.25",  _IO,   _BOTH,  _CO, Kind.OBSOLETE),
)}
# fmt: on

DECLARED = frozenset({Kind.TEXT, Kind.NUMBER})
ADMITTED: dict[Phase, frozenset[Use]] = {
    Phase.SECURITY: frozenset({Use.SECURITY}),  # and the keys of any stage
    Phase.OPERATIONAL: frozenset({Use.INITIALIZE, Use.LEADING, Use.ALL}),
    Phase.FULL_FEATURE: frozenset({Use.ALL, Use.FULL_FEATURE}),
}


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a login agreed on, as the full feature phase uses it. Lengths in bytes, times in seconds."""

    initiator_name: str
    initiator_alias: str
    target_name: str
    """Empty in a discovery session that named none."""
    isid: bytes
    tsih: int
    cid: int
    discovery: bool
    header_digest: bool
    data_digest: bool
    max_send_segment: int
    """The initiator's MaxRecvDataSegmentLength."""
    max_recv_segment: int
    """The target's MaxRecvDataSegmentLength."""
    max_burst: int
    first_burst: int
    initial_r2t: bool
    immediate_data: bool
    max_outstanding_r2t: int
    time2wait: int
    time2retain: int


Pair = tuple[str, str]

_KEY = re.compile(rf"[A-Z][A-Za-z0-9.\-+@_]{{0,{KEY_BYTES_MAX - 1}}}|iSCSIProtocolLevel")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_HEX = re.compile(r"0[xX]([0-9a-fA-F]+)")
_BASE64 = re.compile(r"0[bB]([A-Za-z0-9+/]+={0,2})")
_NUMBER_HEX_DIGITS_MAX = 16


def parse_pairs(text: bytes) -> list[Pair]:
    """The key=value pairs of a whole text, each ended by a NUL (RFC 7143, 6.1); ProtocolError if it is not that."""
    if not text:
        return []
    if text[-1] != 0:
        raise ProtocolError("text that does not end with NUL")
    pieces = [piece for piece in text.split(b"\0") if piece]
    if len(pieces) > PAIRS_MAX:
        raise ProtocolError(f"more than {PAIRS_MAX} keys")
    return [_parse_pair(piece) for piece in pieces]


def _parse_pair(piece: bytes) -> Pair:
    """`key=value` taken apart; the value may hold further equals signs."""
    if len(piece) > KEY_BYTES_MAX + 1 + VALUE_BYTES_MAX:
        raise ProtocolError("a key=value pair that is too long")
    try:
        name, equals, value = piece.decode("utf-8").partition("=")
    except UnicodeDecodeError as error:
        raise ProtocolError("text that is not UTF-8") from error
    if not equals or not _KEY.fullmatch(name):
        raise ProtocolError("text that is not key=value")
    return name, value


def format_pairs(pairs: Iterable[Pair]) -> bytes:
    """The text of `pairs`, each ended by a NUL."""
    return b"".join(f"{name}={value}\0".encode() for name, value in pairs)


def parse_number(value: str) -> int:
    """A regular-numerical-value: decimal, or hexadecimal after 0x, below 2**64 (RFC 7143, 6.1); else ValueError."""
    if _DECIMAL.fullmatch(value):
        number = int(value)
    elif (digits := _HEX.fullmatch(value)) and len(digits[1]) <= _NUMBER_HEX_DIGITS_MAX:
        number = int(digits[1], 16)
    else:
        raise ValueError("not a number")
    if number >= 2**64:
        raise ValueError("a number beyond 64 bits")
    return number


def parse_binary(value: str) -> bytes:
    """A binary-value: hexadecimal after 0x, base64 after 0b, or a decimal number (RFC 7143, 6.1); else ValueError."""
    if digits := _HEX.fullmatch(value):
        return bytes.fromhex(digits[1] if len(digits[1]) % 2 == 0 else "0" + digits[1])
    if digits := _BASE64.fullmatch(value):
        try:
            return base64.b64decode(digits[1], validate=True)
        except binascii.Error as error:
            raise ValueError("not base64") from error
    number = parse_number(value)
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def parse_boolean(value: str) -> bool:
    """Yes or No; else ValueError."""
    if value not in ("Yes", "No"):
        raise ValueError("neither Yes nor No")
    return value == "Yes"


def format_value(value: Value) -> str:
    """A value as text: booleans are Yes and No, numbers decimal."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return str(value)


def result(key: Key, value: str) -> Value:
    """What the proposer's `value` and the target's side of `key` come to; ValueError if `value` is not admissible."""
    if len(value.encode()) > key.limit:
        raise ValueError("too long")
    if key.kind is Kind.TEXT:
        if not value.isprintable():
            raise ValueError("control characters")
        return value
    if key.kind is Kind.LIST:
        for choice in value.split(","):
            if choice in key.choices:
                return choice
        raise ValueError("nothing in the list is supported")
    if key.kind in (Kind.AND, Kind.OR):
        offered = parse_boolean(value)
        return (offered and bool(key.offer)) if key.kind is Kind.AND else (offered or bool(key.offer))
    if key.kind is Kind.OBSOLETE:
        raise ValueError("obsolete")
    number = parse_number(value)
    if not key.low <= number <= key.high:
        raise ValueError("out of range")
    if key.kind is Kind.NUMBER:
        return number
    assert isinstance(key.offer, int)
    return min(number, key.offer) if key.kind is Kind.MINIMUM else max(number, key.offer)


_ORDER = {"SessionType": -1, "FirstBurstLength": 1}
_ValueType = TypeVar("_ValueType", bool, int, str)


class Negotiation:
    """What has been agreed on one connection. Answers the initiator's keys by the table."""

    def __init__(self) -> None:
        self.agreed: dict[str, Value] = {}
        """Results by key; a key that is not here has its default."""
        self._said: dict[str, str] = {}
        """What the initiator already sent, by key: a key is negotiated once (RFC 7143, 6.2)."""

    def value(self, name: str, kind: type[_ValueType]) -> _ValueType:
        """What holds for key `name`, as agreed or by default."""
        value = self.agreed.get(name, KEYS[name].default)
        assert isinstance(value, kind)
        return value

    @property
    def discovery(self) -> bool:
        """Whether this is a discovery session (RFC 7143, 13.21)."""
        return self.value("SessionType", str) == "Discovery"

    def answer(self, pairs: Iterable[Pair], phase: Phase) -> list[Pair]:
        """The answers to one step of the initiator's, in order. ProtocolError: the negotiation is over.

        SessionType is looked at first and FirstBurstLength last: others depend on the one, the other on others.
        """
        in_order = sorted(pairs, key=lambda pair: _ORDER.get(pair[0], 0))
        return [(name, text) for name, value in in_order if (text := self._answer(name, value, phase)) is not None]

    def _answer(self, name: str, value: str, phase: Phase) -> str | None:
        """The answer to one key, None if it needs none."""
        key = KEYS.get(name)
        if key is None:
            return None if value in REFUSALS else NOT_UNDERSTOOD
        if Sender.INITIATOR not in key.senders:
            return None if value in REFUSALS else REJECT
        if key.use not in ADMITTED[phase] and not (key.any_stage and phase is not Phase.FULL_FEATURE):
            return REJECT
        if self._repeated(key, value):
            return None
        if key.normal_only and self.discovery:
            return IRRELEVANT
        if key.name == "FirstBurstLength" and self.value("InitialR2T", bool) and not self.value("ImmediateData", bool):
            return IRRELEVANT
        try:
            agreed = result(key, value)
        except ValueError as error:
            if key.kind in DECLARED:
                raise ProtocolError(f"{name}: {error}") from error
            return REJECT
        if key.name == "FirstBurstLength":
            agreed = min(int(agreed), self.value("MaxBurstLength", int))
        self.agreed[name] = agreed
        return None if key.kind in DECLARED else format_value(agreed)

    def _repeated(self, key: Key, value: str) -> bool:
        """True for a declaration that says again what it said; ProtocolError for a key that is negotiated anew."""
        if key.name not in self._said:
            self._said[key.name] = value
            return False
        if key.kind in DECLARED and self._said[key.name] == value:
            return True
        raise ProtocolError(f"{key.name} twice")
