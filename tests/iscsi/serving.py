"""A server in the process of the test, on real sockets, with a volume in memory."""

from __future__ import annotations

import socket

from arrayd.iscsi.server import Server
from arrayd.iscsi.session import Node
from tests.iscsi.requests import TARGET
from tests.iscsi.session_driver import make_node
from tests.lab.initiator import Session
from tests.scsi.memory_volume import MemoryVolume


class Serving:
    """A server in this process, with a volume in memory."""

    def __init__(self) -> None:
        self.volume = MemoryVolume(size=4 << 20)
        self.node: Node = make_node({0: self.volume})
        self.server = Server(self.node, 0, bytes)
        listening = self.server.listen([("127.0.0.1", 0), ("::1", 0)])
        self.addresses = [f"{host}:{port}" if "." in host else f"[{host}]:{port}" for host, port in listening]
        self.port = listening[0][1]

    async def session(self, number: int = 1, portal: int = 0, **keys: str) -> Session:
        session = await Session.open(self.addresses[portal], TARGET, keys, isid=number.to_bytes(6, "big"))
        while (await session.command(bytes(6))).status:
            pass
        return session

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))
