"""The login phase of a connection, as the target goes through it (RFC 7143, section 6.3 and 11.12-11.13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from arrayd.iscsi.chap import Credentials
from arrayd.iscsi.keys import Negotiated
from arrayd.iscsi.pdu import LoginStatus


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


class Login:
    """One connection's login. Feed it every PDU until `complete` or `failed`; send what it returns."""

    def __init__(self, policy: LoginPolicy, random_bytes: Callable[[int], bytes]) -> None:
        self.complete = False
        self.failed = False
        """Close the connection once what `receive` returned is sent."""
        self.parameters: Negotiated | None = None
        self.exp_cmd_sn = 0
        self.stat_sn = 0
        """StatSN of the next response."""

    def receive(self, bhs: bytes, data: bytes) -> list[bytes]:
        """One PDU in (`data` without padding): whole response PDUs out. Never raises."""
        raise NotImplementedError
