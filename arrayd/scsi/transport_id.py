"""TransportIDs of iSCSI initiator ports (SPC-5, 7.6.4.7): how PERSISTENT RESERVE names an initiator port."""

from __future__ import annotations

import re

from arrayd.scsi.designators import ISCSI, scsi_name

PORT_FORMAT = 0x40
"""TPID FORMAT 01b: world wide unique initiator port, which is the node name, `,i,0x` and the ISID."""

HEADER_LENGTH = 4
SHORTEST_NAME = 20
"""The name is padded to this many bytes at the least."""

_PORT_NAME = re.compile(r"(?P<node>[^\x00,\s]{1,223}),i,0x(?P<isid>[0-9a-f]{1,12})")


def build(initiator_port: str) -> bytes:
    """The TransportID of `name,i,0xISID`."""
    name = scsi_name(initiator_port).ljust(SHORTEST_NAME, b"\0")
    return bytes((PORT_FORMAT | ISCSI, 0)) + len(name).to_bytes(2, "big") + name


def parse(data: bytes) -> tuple[str, int]:
    """The initiator port name at the head of `data`, as `Nexus.initiator_port` has it, and the TransportID's length.

    Raises ValueError for what is not the TransportID of an iSCSI initiator port.
    """
    if len(data) < HEADER_LENGTH or data[0] != PORT_FORMAT | ISCSI:
        raise ValueError("not the TransportID of an iSCSI initiator port")
    length = HEADER_LENGTH + int.from_bytes(data[2:4], "big")
    if length % 4 or not HEADER_LENGTH + SHORTEST_NAME <= length <= len(data):
        raise ValueError("TransportID of a wrong length")
    text = data[HEADER_LENGTH:length].partition(b"\0")[0].decode("utf-8").lower()
    name = _PORT_NAME.fullmatch(text)
    if name is None:
        raise ValueError("not an iSCSI initiator port name")
    return f"{name['node']},i,0x{name['isid'].zfill(12)}", length
