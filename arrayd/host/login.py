"""The login phase of a connection, as an initiator goes through it (RFC 7143, 6.3 and 11.12), without I/O.

    security negotiation ── without CHAP at once, else when our response is sent ──> operational negotiation ──> done

The target's side is `arrayd/iscsi/login.py`; both speak by the same codec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arrayd.iscsi.chap import BINARY_BYTES_MAX, HASHES, Credentials, format_binary, response
from arrayd.iscsi.keys import (
    LOGIN_SEGMENT_BYTES,
    REFUSALS,
    Pair,
    format_pairs,
    parse_binary,
    parse_boolean,
    parse_number,
)
from arrayd.iscsi.pdu import LoginStatus, Opcode, ProtocolError, Stage, build, parse_header
from arrayd.iscsi.text import TextInbox
from arrayd.iscsi.wire import SERIAL_MASK

MAX_RECV_SEGMENT_BYTES = 262144
"""MaxRecvDataSegmentLength that we declare: a longer data segment of the target's ends the connection."""
MAX_BURST_BYTES = 262144
FIRST_BURST_BYTES = 262144
ROUNDS_MAX = 32
"""Login Responses after which a login is given up."""
FIRST_CMD_SN = 1

OFFER: tuple[Pair, ...] = (
    ("HeaderDigest", "None"),
    ("DataDigest", "None"),
    ("InitialR2T", "Yes"),
    ("ImmediateData", "Yes"),
    ("MaxRecvDataSegmentLength", str(MAX_RECV_SEGMENT_BYTES)),
    ("MaxBurstLength", str(MAX_BURST_BYTES)),
    ("FirstBurstLength", str(FIRST_BURST_BYTES)),
    ("MaxOutstandingR2T", "1"),
    ("MaxConnections", "1"),
    ("ErrorRecoveryLevel", "0"),
    ("DefaultTime2Wait", "0"),
    ("DefaultTime2Retain", "0"),
)
"""What we want of the operational negotiation. One command at a time needs no more."""


class LoginError(Exception):
    """The target does not let us in, or cannot prove what it must; the text says why, without a secret."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a session's full feature phase needs to know. Lengths in bytes."""

    immediate: int
    """How much data a command may carry with it."""
    segment: int
    """The target's MaxRecvDataSegmentLength."""
    cmd_sn: int
    exp_stat_sn: int


class Login:
    """One login. Send `begin()`, then what `receive` returns, until it returns None: then there is `agreed`."""

    def __init__(self, initiator: str, target: str, isid: bytes, credentials: Credentials | None) -> None:
        self.agreed: Agreed | None = None
        self._initiator = initiator
        self._target = target
        self._isid = isid
        self._credentials = credentials
        self._stage = Stage.SECURITY_NEGOTIATION
        self._said: dict[str, str] = {}
        self._inbox = TextInbox()
        self._rounds = 0
        self._exp_stat_sn = 0

    def begin(self) -> bytes:
        """The first Login Request."""
        methods = "None" if self._credentials is None else "CHAP,None"
        pairs = [
            ("InitiatorName", self._initiator),
            ("SessionType", "Normal"),
            ("TargetName", self._target),
            ("AuthMethod", methods),
        ]
        return self._request(pairs, Stage.LOGIN_OPERATIONAL_NEGOTIATION if self._credentials is None else None)

    def receive(self, bhs: bytes, data: bytes) -> bytes | None:
        """A Login Response in (`data` without padding), the next request out; None: we are in. Raises LoginError."""
        try:
            return self._step(parse_header(bhs), data)
        except (ProtocolError, ValueError) as error:
            raise LoginError(f"the target's login makes no sense: {error}") from None

    def _step(self, answer: Any, data: bytes) -> bytes | None:
        if answer.opcode != Opcode.LOGIN_RESPONSE:
            raise LoginError("the target answers a login by something else: is this an iSCSI port?")
        if answer.status != LoginStatus.SUCCESS:
            raise LoginError(_refusal(answer.status))
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise LoginError("the target's login has no end")
        self._exp_stat_sn = (answer.stat_sn + 1) & SERIAL_MASK
        pairs = self._inbox.add(data, answer.continue_)
        if pairs is None:
            return self._request([], None)
        told = dict(pairs)
        self._said |= told
        if answer.transit:
            self._stage = Stage(answer.nsg)
        if self._stage is Stage.FULL_FEATURE_PHASE:
            self.agreed = self._agree()
            return None
        if self._stage is Stage.LOGIN_OPERATIONAL_NEGOTIATION:
            return self._request(list(OFFER) if answer.transit else [], Stage.FULL_FEATURE_PHASE)
        return self._prove(told)

    def _prove(self, told: Mapping[str, str]) -> bytes:
        """The next request of the security stage (RFC 7143, 12.1.3)."""
        if "CHAP_C" in told:
            return self._request(self._response(told), Stage.LOGIN_OPERATIONAL_NEGOTIATION)
        if told.get("AuthMethod") == "CHAP":
            if self._credentials is None:
                raise LoginError("the target asks for CHAP: give user and secret")
            return self._request([("CHAP_A", ",".join(map(str, HASHES)))], None)
        return self._request([], Stage.LOGIN_OPERATIONAL_NEGOTIATION)

    def _response(self, told: Mapping[str, str]) -> list[Pair]:
        """CHAP_N and CHAP_R to the target's challenge (RFC 1994, 4.1)."""
        algorithm, identifier = parse_number(told.get("CHAP_A", "")), parse_number(told.get("CHAP_I", ""))
        challenge = parse_binary(told["CHAP_C"])
        if self._credentials is None or algorithm not in HASHES:
            raise LoginError("the target chose a CHAP algorithm that was not offered")
        if identifier > 255 or not 0 < len(challenge) <= BINARY_BYTES_MAX:
            raise LoginError("the target's CHAP challenge is out of range")
        proof = response(algorithm, identifier, self._credentials.secret, challenge)
        return [("CHAP_N", self._credentials.user), ("CHAP_R", format_binary(proof))]

    def _agree(self) -> Agreed:
        """What holds now: the target's answers, or the standard's defaults where it gave none."""
        segment = parse_number(self._value("MaxRecvDataSegmentLength", str(LOGIN_SEGMENT_BYTES)))
        first_burst = parse_number(self._value("FirstBurstLength", "65536"))
        with_command = parse_boolean(self._value("ImmediateData", "Yes"))
        if self._value("HeaderDigest", "None") != "None" or self._value("DataDigest", "None") != "None":
            raise LoginError("the target insists on digests")
        if not segment:
            raise LoginError("the target takes no data")
        return Agreed(min(segment, first_burst) if with_command else 0, segment, FIRST_CMD_SN, self._exp_stat_sn)

    def _value(self, key: str, default: str) -> str:
        value = self._said.get(key, default)
        return default if value in REFUSALS else value

    def _request(self, pairs: list[Pair], next_stage: Stage | None) -> bytes:
        """A Login Request of this stage, with a wish to leave it where there is a next one."""
        text = format_pairs(pairs)
        assert len(text) <= LOGIN_SEGMENT_BYTES
        return build(
            Opcode.LOGIN_REQUEST,
            text,
            immediate=True,
            transit=next_stage is not None,
            csg=self._stage,
            nsg=next_stage or 0,
            isid=self._isid,
            initiator_task_tag=0,
            cmd_sn=FIRST_CMD_SN,
            exp_stat_sn=self._exp_stat_sn,
        )


def _refusal(status: int) -> str:
    try:
        name = LoginStatus(status).name.replace("_", " ").lower()
    except ValueError:
        name = f"status {status:04x}h"
    return f"the target refuses the login: {name}"
