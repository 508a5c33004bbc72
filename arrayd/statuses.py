"""How links and sessions are, as commands want to know it."""

from __future__ import annotations

from arrayd.commands.context import LinkStatus, SessionStatus
from arrayd.estate.estate import Estate
from arrayd.iscsi.session import Node
from arrayd.scsi.nexus import Nexus


def link_statuses(estate: Estate) -> list[LinkStatus]:
    """All arrays that this one is connected with."""
    told = []
    for row in estate.connections.rows():
        stream = row.peer.stream
        round_trip = 0.0 if stream is None else stream.connection.round_trip
        address = None if row.address is None else str(row.address)
        told.append(LinkStatus(row.name, row.peer.serial, address, stream is not None, round_trip, row.peer.reason))
    return told


def session_statuses(node: Node) -> list[SessionStatus]:
    """All initiators that are logged in, for more than discovery."""
    told = []
    for session in node.sessions.values():
        if isinstance(session.nexus, Nexus):
            luns = sorted(unit.number for unit in session.nexus.units.values())
            told.append(SessionStatus(session.parameters.initiator_name, session.nexus.port, luns))
    return told
