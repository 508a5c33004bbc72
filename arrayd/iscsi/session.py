"""Sessions, and the iSCSI node they are with: who may log in, reinstatement, SendTargets (RFC 7143, 4.4 and 6.3.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from arrayd.buffers import BufferPool
from arrayd.iscsi.discovery import Address, portals, send_targets
from arrayd.iscsi.keys import Negotiated
from arrayd.iscsi.login import Access
from arrayd.iscsi.numbers import COMMAND_WINDOW
from arrayd.iscsi.pdu import LoginStatus
from arrayd.log import get_logger
from arrayd.scsi.task import Nexus, Target

SESSIONS_MAX = 256
TSIH_MAX = 0xFFFF
PORTAL_GROUP_TAG = 1
"""All portals form one portal group, and so one iSCSI target port (RFC 7143, 4.4.4)."""

log = get_logger("iscsi")


@dataclass(frozen=True, slots=True)
class InitiatorRule:
    """What the configuration says of one initiator: how it proves itself, and the LUNs it sees (None: all)."""

    access: Access
    luns: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class NodeRules:
    """Who may log in: `initiators` None means anyone, from loopback only. `advertise` is what SendTargets answers."""

    initiators: Mapping[str, InitiatorRule] | None
    discovery: Access
    advertise: Sequence[Address] = ()


class Session:
    """A normal or discovery session with its one connection.

    `close(why)` ends the connection once its output is sent; `drop(why)` ends the session at once.
    """

    def __init__(
        self,
        parameters: Negotiated,
        nexus: Nexus | None,
        close: Callable[[str], None],
        drop: Callable[[str], None],
    ) -> None:
        self.parameters = parameters
        self._nexus = nexus
        self.close = close
        self.drop = drop

    @property
    def nexus(self) -> Nexus:
        """The I_T nexus of a normal session."""
        assert self._nexus is not None
        return self._nexus

    def end(self) -> None:
        """The session is over: its I_T nexus is lost."""
        if self._nexus is not None:
            self._nexus.detach()
            self._nexus = None


class Node:
    """The target node `name`: its rules, its sessions, and the SCSI target behind it."""

    def __init__(self, name: str, alias: str, target: Target, relative_port: int, buffers: BufferPool,
                 rules: NodeRules) -> None:  # fmt: skip
        self.name = name
        self.alias = alias
        self.target = target
        self.relative_port = relative_port
        self.buffers = buffers
        self.rules = rules
        self.listening: list[Address] = []
        self.sessions: dict[int, Session] = {}
        self._last_tsih = 0

    def find(self, initiator: str, isid: bytes) -> Session | None:
        """The normal session of this initiator port, if there is one."""
        for session in self.sessions.values():
            parameters = session.parameters
            if not parameters.discovery and (parameters.initiator_name, parameters.isid) == (initiator, isid):
                return session
        return None

    def new_tsih(self) -> int | None:
        """A TSIH that is not in use, never 0; None when there are as many sessions as there may be."""
        if len(self.sessions) >= SESSIONS_MAX:
            return None
        while True:
            self._last_tsih = self._last_tsih % TSIH_MAX + 1
            if self._last_tsih not in self.sessions:
                return self._last_tsih

    def begin(
        self,
        parameters: Negotiated,
        close: Callable[[str], None],
        drop: Callable[[str], None],
        from_loopback: bool,
    ) -> Session:
        """The session that a completed login made; for `close` and `drop` see `Session`."""
        nexus = None
        if not parameters.discovery:
            luns = self._luns(parameters.initiator_name)
            nexus = self.target.attach(
                parameters.initiator_name, parameters.isid, self.relative_port, luns, local=from_loopback
            )
        session = Session(parameters, nexus, close, drop)
        self.sessions[parameters.tsih] = session
        return session

    def _luns(self, initiator: str) -> frozenset[int] | None:
        rule = (self.rules.initiators or {}).get(initiator)
        return rule.luns if rule is not None else None

    def end(self, session: Session) -> None:
        """Ends `session`; a second call does nothing."""
        if self.sessions.get(session.parameters.tsih) is session:
            del self.sessions[session.parameters.tsih]
            session.end()

    def close_all(self, why: str) -> None:
        """Drops every session (TARGET COLD RESET, shutdown)."""
        for session in list(self.sessions.values()):
            session.close(why)

    def apply(self, rules: NodeRules) -> None:
        """New rules; sessions of initiators that may no longer log in are dropped, the others see their LUNs of now."""
        self.rules = rules
        for session in list(self.sessions.values()):
            initiator = session.parameters.initiator_name
            if session.parameters.discovery:
                continue
            if rules.initiators is not None and initiator not in rules.initiators:
                session.drop("no longer allowed to log in")
            else:
                session.nexus.see(self._luns(initiator))


class PeerPolicy:
    """The `LoginPolicy` for one connection: the node's rules, and where the peer is."""

    def __init__(self, node: Node, local: Address, from_loopback: bool) -> None:
        self.node = node
        self.local = local
        self.from_loopback = from_loopback

    @property
    def target_name(self) -> str:
        """See `LoginPolicy.target_name`."""
        return self.node.name

    @property
    def target_alias(self) -> str:
        """See `LoginPolicy.target_alias`."""
        return self.node.alias

    @property
    def portal_group_tag(self) -> int:
        """See `LoginPolicy.portal_group_tag`."""
        return PORTAL_GROUP_TAG

    @property
    def command_window(self) -> int:
        """See `LoginPolicy.command_window`."""
        return COMMAND_WINDOW

    def authorize(self, initiator_name: str, discovery: bool) -> Access | None:
        """See `LoginPolicy.authorize`. Names are compared as the configuration has them: in lower case."""
        rules = self.node.rules
        if rules.initiators is None:
            return (rules.discovery if discovery else Access()) if self.from_loopback else None
        if discovery:
            return rules.discovery if rules.discovery.chap or initiator_name in rules.initiators else None
        rule = rules.initiators.get(initiator_name)
        return rule.access if rule is not None else None

    def admit(self, initiator_name: str, isid: bytes, tsih: int, discovery: bool) -> int | LoginStatus:
        """See `LoginPolicy.admit`."""
        node = self.node
        if tsih:
            session = node.sessions.get(tsih)
            same = session is not None and (session.parameters.initiator_name, session.parameters.isid) == (
                initiator_name,
                isid,
            )
            return LoginStatus.TOO_MANY_CONNECTIONS if same else LoginStatus.SESSION_DOES_NOT_EXIST
        old = None if discovery else node.find(initiator_name, isid)
        if old is not None:
            old.drop("the session was reinstated")
        return node.new_tsih() or LoginStatus.OUT_OF_RESOURCES

    def targets(self, value: str, discovery: bool) -> list[tuple[str, str]] | None:
        """What SendTargets=`value` answers."""
        addresses = portals(self.node.rules.advertise, self.node.listening, self.local)
        return send_targets(value, discovery, self.node.name, PORTAL_GROUP_TAG, addresses)
