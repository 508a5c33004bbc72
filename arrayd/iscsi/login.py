"""The login phase of a connection, as the target goes through it (RFC 7143, 6.3, 11.12 and 11.13).

    first request ── CSG 0 ──> SecurityNegotiation ── T, NSG 1 ──> LoginOperationalNegotiation ── T, NSG 3 ──> full
                │                      └─────────────── T, NSG 3 ─────────────────────────────────────────────> feature
                └──── CSG 1, where no proof of identity is asked for ──────────────^                            phase

A stage's requests are answered in turn, one response each; the initiator asks to leave the stage with the T bit, and
the response grants it when the stage has reached its end. The first complete text names the initiator and what it
wants; who it is decides what it must prove. Whatever goes wrong ends the login with one response that says what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from arrayd.iscsi.chap import AuthenticationError, Chap, Credentials
from arrayd.iscsi.keys import (
    KEYS,
    LOGIN_SEGMENT_BYTES,
    MAX_RECV_SEGMENT_BYTES,
    Negotiated,
    Negotiation,
    Pair,
    Phase,
    Use,
    format_pairs,
)
from arrayd.iscsi.pdu import LoginStatus, Opcode, ProtocolError, Stage, build, parse_header
from arrayd.iscsi.text import TextInbox, TextOutbox

VERSION = 0
"""The protocol's version (RFC 7143, 11.12.4)."""
REQUESTS_MAX = 64
"""Most Login Requests of one login: 64 KiB of text take eight, an exchange of CHAP three."""

NEXT_STAGES: dict[Stage, frozenset[Stage]] = {
    Stage.SECURITY_NEGOTIATION: frozenset({Stage.LOGIN_OPERATIONAL_NEGOTIATION, Stage.FULL_FEATURE_PHASE}),
    Stage.LOGIN_OPERATIONAL_NEGOTIATION: frozenset({Stage.FULL_FEATURE_PHASE}),
}
"""Where each stage may lead (RFC 7143, 6.3)."""

NAME_TYPES = ("iqn.", "eui.", "naa.")
"""What iSCSI names begin with (RFC 7143, 4.2.7.2). Arrays have other names: no initiator is taken for one."""
SECURITY_KEYS = frozenset(name for name, key in KEYS.items() if key.use is Use.SECURITY)

_CONSTANT_FIELDS = ("isid", "tsih", "initiator_task_tag", "cid", "cmd_sn")
"""What all requests of one login have in common (RFC 7143, 11.12)."""


@dataclass(frozen=True, slots=True)
class Access:
    """How an initiator must prove who it is: `chap` None means not at all; `mutual` is the target's own proof."""

    chap: Credentials | None = None
    mutual: Credentials | None = None


class LoginPolicy(Protocol):
    """What a login asks of the target it is for."""

    @property
    def target_name(self) -> str:
        """The target's iSCSI name."""

    @property
    def target_alias(self) -> str:
        """TargetAlias, or the empty string for none."""

    @property
    def portal_group_tag(self) -> int:
        """TargetPortalGroupTag of the portal the connection came by."""

    @property
    def command_window(self) -> int:
        """How many commands the initiator may have queued: MaxCmdSN is ExpCmdSN + this - 1."""

    def authorize(self, initiator_name: str, discovery: bool) -> Access | None:
        """What this initiator must prove; None if it may not log in."""

    def admit(self, initiator_name: str, isid: bytes, tsih: int, discovery: bool) -> int | LoginStatus:
        """Called once, when everything is agreed: the TSIH of the session (never 0), or why there is none.

        `tsih` is the initiator's: 0 asks for a new session, which takes the place of one of the same name and ISID.
        """


class _Refusal(Exception):
    """Ends the login with a status."""

    def __init__(self, status: LoginStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Login:
    """One connection's login. Feed it every PDU until `complete` or `failed`; send what it returns."""

    def __init__(self, policy: LoginPolicy, random_bytes: Callable[[int], bytes]) -> None:
        self.complete = False
        self.failed = False
        """Close the connection once what `receive` returned is sent."""
        self.status = LoginStatus.SUCCESS
        """Why it failed, in the standard's terms, and `why` in words for the log; never a secret."""
        self.why = ""
        self.parameters: Negotiated | None = None
        self.exp_cmd_sn = 0
        self.stat_sn = 0
        """StatSN of the next response."""
        self._policy = policy
        self._random_bytes = random_bytes
        self._first: Any = None
        self._requests = 0
        self._stage = Stage.SECURITY_NEGOTIATION
        self._negotiation = Negotiation()
        self._inbox = TextInbox()
        self._outbox = TextOutbox()
        self._access: Access | None = None
        self._method = ""
        self._chap: Chap | None = None
        self._declared_segment = False

    @property
    def initiator_name(self) -> str:
        """InitiatorName as far as known, else the empty string; names are compared in lower case (RFC 3722)."""
        return str(self._negotiation.agreed.get("InitiatorName", "")).casefold()

    def receive(self, bhs: bytes, data: bytes) -> list[bytes]:
        """One PDU in (`data` without padding): whole response PDUs out, padded. Never raises on what is in it."""
        assert not self.complete
        assert not self.failed
        try:
            return [self._step(bhs, data)]
        except _Refusal as refusal:
            return self._refuse(refusal.status, str(refusal))
        except AuthenticationError as error:
            return self._refuse(LoginStatus.AUTHENTICATION_FAILURE, str(error))
        except ProtocolError as error:
            return self._refuse(LoginStatus.INITIATOR_ERROR, str(error))

    def _step(self, bhs: bytes, data: bytes) -> bytes:
        """The response to one request."""
        if bhs[0] & 0x3F != Opcode.LOGIN_REQUEST:
            raise _Refusal(LoginStatus.INVALID_DURING_LOGIN, "a PDU that is no Login Request")
        request = parse_header(bhs)
        self._check(request, data)
        if not self._outbox.empty:
            if data or request.continue_:
                raise ProtocolError("text before the end of the answer")
        else:
            pairs = self._inbox.add(data, request.continue_)
            if pairs is None:
                return self._respond(request, False)
            self._outbox.put(format_pairs(self._answer(pairs)))
        segment = self._outbox.take(LOGIN_SEGMENT_BYTES)
        if not (request.transit and self._outbox.empty and self._stage_is_over()):
            return self._respond(request, False, segment)
        next_stage = Stage(request.nsg)
        if next_stage is Stage.FULL_FEATURE_PHASE:
            self._admit()
        response = self._respond(request, True, segment)
        self._stage = next_stage
        return response

    # -- what a request must be ---------------------------------------------------------------------------------------

    def _check(self, request: Any, data: bytes) -> None:
        """The header of a request: of the first, what it may be; of the others, what may not have changed."""
        if self._first is None:
            self._begin(request)
        elif any(request[name] != self._first[name] for name in _CONSTANT_FIELDS):
            raise ProtocolError("a Login Request of another login")
        self._requests += 1
        if self._requests > REQUESTS_MAX:
            raise ProtocolError("a login without end")
        if request.total_ahs_length or not len(data) == request.data_segment_length <= LOGIN_SEGMENT_BYTES:
            raise ProtocolError("the segments of a Login Request")
        if request.csg != self._stage:
            raise ProtocolError("a Login Request of another stage")
        if request.transit and (request.continue_ or request.nsg not in NEXT_STAGES[self._stage]):
            raise ProtocolError("a transit that cannot be")

    def _begin(self, request: Any) -> None:
        """Takes up the login by its first request (RFC 7143, 11.12.3, 11.12.4 and 11.12.8)."""
        self._first = request
        self.exp_cmd_sn = request.cmd_sn
        if request.version_min > VERSION:
            raise _Refusal(LoginStatus.UNSUPPORTED_VERSION, f"version {request.version_min} and later only")
        if request.csg not in NEXT_STAGES:
            raise ProtocolError("a login that begins in no stage")
        self._stage = Stage(request.csg)

    # -- the stages ---------------------------------------------------------------------------------------------------

    def _answer(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The answers to one logical text of the current stage, and what the target has to declare with them."""
        security = self._stage is Stage.SECURITY_NEGOTIATION
        proofs = {name: value for name, value in pairs if security and name in SECURITY_KEYS}
        others = [pair for pair in pairs if pair[0] not in proofs]
        if len(proofs) + len(others) != len(pairs):
            raise ProtocolError("a security key twice")
        answers = self._negotiation.answer(others, Phase.SECURITY if security else Phase.OPERATIONAL)
        access = self._access
        if access is None:
            access = self._access = self._identify()
            answers += self._introduce()
        if security:
            return answers + self._authenticate(access, proofs)
        if access.chap is not None and not self._authenticated:
            raise _Refusal(LoginStatus.AUTHENTICATION_FAILURE, "no proof of identity before the operational stage")
        if not self._declared_segment:
            self._declared_segment = True
            answers.append(("MaxRecvDataSegmentLength", str(MAX_RECV_SEGMENT_BYTES)))
        return answers

    def _identify(self) -> Access:
        """Who wants what, by the first text (RFC 7143, 6.3.1 and 13.4, 13.5, 13.21)."""
        agreed, discovery = self._negotiation.agreed, self._negotiation.discovery
        if not self.initiator_name:
            raise _Refusal(LoginStatus.MISSING_PARAMETER, "no InitiatorName")
        if not self.initiator_name.startswith(NAME_TYPES):
            raise _Refusal(LoginStatus.INITIATOR_ERROR, "an InitiatorName of no type that there is")
        if self._negotiation.value("SessionType", str) not in ("Normal", "Discovery"):
            raise _Refusal(LoginStatus.SESSION_TYPE_NOT_SUPPORTED, "a SessionType of neither kind")
        if not discovery and "TargetName" not in agreed:
            raise _Refusal(LoginStatus.MISSING_PARAMETER, "no TargetName in a normal session")
        access = self._policy.authorize(self.initiator_name, discovery)
        if access is None:
            raise _Refusal(LoginStatus.AUTHORIZATION_FAILURE, "the initiator may not log in")
        if str(agreed.get("TargetName", self._policy.target_name)).casefold() != self._policy.target_name:
            raise _Refusal(LoginStatus.NOT_FOUND, "no such target")
        return access

    def _introduce(self) -> list[Pair]:
        """What the target says of itself in its first answer of a normal session (RFC 7143, 13.6 and 13.9)."""
        if self._negotiation.discovery:
            return []
        alias = self._policy.target_alias
        return [
            *([("TargetAlias", alias)] if alias else []),
            ("TargetPortalGroupTag", str(self._policy.portal_group_tag)),
        ]

    @property
    def _authenticated(self) -> bool:
        """Whether CHAP was gone through to its end."""
        return self._chap is not None and self._chap.complete

    def _authenticate(self, access: Access, proofs: dict[str, str]) -> list[Pair]:
        """The security keys of one text: the method first, then its own keys (RFC 7143, 12.1)."""
        if "AuthMethod" in proofs:
            if self._method or len(proofs) > 1:
                raise ProtocolError("AuthMethod out of order")
            self._method = "None" if access.chap is None else "CHAP"
            if self._method not in proofs["AuthMethod"].split(","):
                raise _Refusal(LoginStatus.AUTHENTICATION_FAILURE, f"AuthMethod {self._method} was not offered")
            if access.chap is not None:
                self._chap = Chap(access.chap, access.mutual, self._random_bytes)
            return [("AuthMethod", self._method)]
        if not proofs:
            return []
        if self._chap is None:
            raise ProtocolError("CHAP keys where CHAP was not agreed on")
        return self._chap.receive(proofs)

    def _stage_is_over(self) -> bool:
        """Whether the target has nothing more to negotiate in this stage."""
        if self._stage is not Stage.SECURITY_NEGOTIATION:
            return True
        assert self._access is not None
        if self._access.chap is not None and self._chap is None:
            raise _Refusal(LoginStatus.AUTHENTICATION_FAILURE, "the security stage left without a proof")
        return self._access.chap is None or self._authenticated

    def _admit(self) -> None:
        """Into full feature phase, if the target has a session for it."""
        first, negotiation = self._first, self._negotiation
        discovery = negotiation.discovery
        tsih = self._policy.admit(self.initiator_name, first.isid, first.tsih, discovery)
        if isinstance(tsih, LoginStatus):
            raise _Refusal(tsih, "the target has no session for this login")
        assert 0 < tsih <= 0xFFFF
        max_burst = negotiation.value("MaxBurstLength", int)
        self.parameters = Negotiated(
            initiator_name=self.initiator_name,
            initiator_alias=negotiation.value("InitiatorAlias", str),
            target_name=str(negotiation.agreed.get("TargetName", "")),
            isid=first.isid,
            tsih=tsih,
            cid=first.cid,
            discovery=discovery,
            header_digest=negotiation.value("HeaderDigest", str) == "CRC32C",
            data_digest=negotiation.value("DataDigest", str) == "CRC32C",
            max_send_segment=negotiation.value("MaxRecvDataSegmentLength", int),
            max_recv_segment=MAX_RECV_SEGMENT_BYTES if self._declared_segment else LOGIN_SEGMENT_BYTES,
            max_burst=max_burst,
            first_burst=min(negotiation.value("FirstBurstLength", int), max_burst),
            initial_r2t=negotiation.value("InitialR2T", bool),
            immediate_data=negotiation.value("ImmediateData", bool),
            max_outstanding_r2t=negotiation.value("MaxOutstandingR2T", int),
            time2wait=negotiation.value("DefaultTime2Wait", int),
            time2retain=negotiation.value("DefaultTime2Retain", int),
        )
        self.complete = True

    # -- responses ----------------------------------------------------------------------------------------------------

    def _respond(self, request: Any, transit: bool, segment: bytes = b"") -> bytes:
        """A Login Response that goes on; `transit` grants the stage asked for."""
        response = build(
            Opcode.LOGIN_RESPONSE,
            segment,
            transit=transit,
            continue_=not self._outbox.empty,
            csg=self._stage,
            nsg=request.nsg if transit else 0,
            version_max=VERSION,
            version_active=VERSION,
            isid=request.isid,
            tsih=self.parameters.tsih if self.parameters is not None else request.tsih,
            initiator_task_tag=request.initiator_task_tag,
            stat_sn=self.stat_sn,
            exp_cmd_sn=self.exp_cmd_sn,
            max_cmd_sn=(self.exp_cmd_sn + self._policy.command_window - 1) & 0xFFFFFFFF,
        )
        self.stat_sn = (self.stat_sn + 1) & 0xFFFFFFFF
        return response

    def _refuse(self, status: LoginStatus, why: str) -> list[bytes]:
        """The Login Response that ends it. Before the first Login Request nothing is answered (RFC 7143, 6.3)."""
        self.failed = True
        self.status = status
        self.why = why
        if self._first is None:
            return []
        return [
            build(
                Opcode.LOGIN_RESPONSE,
                version_max=VERSION,
                version_active=VERSION,
                isid=self._first.isid,
                tsih=self._first.tsih,
                initiator_task_tag=self._first.initiator_task_tag,
                status=status,
            )
        ]
