"""arrayctl's own iSCSI initiator: a session with one target over a socket, made when first needed and again when lost.

The ISID stays the same, so that a new login takes the place of the old session (RFC 7143, 6.3.5): what the target had
under way for it is over before anything new is taken. A door: the only file of the room with a socket.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from arrayd.host.addresses import IscsiAddress
from arrayd.host.login import MAX_RECV_SEGMENT_BYTES, Login, LoginError
from arrayd.host.machine import monotonic, random_bytes, remaining
from arrayd.host.session import Session, SessionEnded
from arrayd.host.transport import Interrupted, Outcome, Unreachable
from arrayd.iscsi.pdu import BHS_BYTES, PAD_BYTES

RANDOM_ISID = 0x80
"""First byte of an ISID that was chosen at random, qualifier included (RFC 7143, 11.12.5)."""
LOGIN_TIMEOUT_S = 10.0
"""For connecting and logging in, together."""
LOGOUT_TIMEOUT_S = 1.0
RECEIVE_BYTES = 256 * 1024


class Initiator:
    """One session with the target of `address`, by the initiator's `name`. Not to be shared by threads."""

    def __init__(self, address: IscsiAddress, name: str) -> None:
        self._address = address
        self._name = name
        self._isid = bytes([RANDOM_ISID]) + random_bytes(5)
        self._connection: _Connection | None = None

    def execute(self, lun: int, cdb: bytes, data_out: bytes, read_bytes: int, timeout_s: float) -> Outcome:
        """One command for `lun`. Raises Unreachable if there is no session to be had, Interrupted if it was lost."""
        deadline = monotonic() + timeout_s
        connection = self._connected(deadline)
        session = connection.session
        assert session is not None
        try:
            connection.send(session.command(lun, cdb, data_out, read_bytes), deadline)
            while session.outcome is None:
                connection.hear(session.receive, deadline)
        except (OSError, SessionEnded) as error:
            raise Interrupted(f"{self._address.portal}: {_reason(error)}") from None
        finally:
            if session.outcome is None:
                # The command is still under way: the next login ends that, and nothing else does.
                self._drop()
        return session.outcome

    def close(self) -> None:
        """Logs out. What does not go well on the way is of no interest."""
        connection = self._connection
        if connection is None or connection.session is None:
            return
        deadline = monotonic() + LOGOUT_TIMEOUT_S
        try:
            connection.send(connection.session.logout(), deadline)
            while True:
                connection.hear(connection.session.receive, deadline)
        except (OSError, SessionEnded):
            pass
        finally:
            self._drop()

    def _connected(self, deadline: float) -> _Connection:
        """The connection there is, if the target still holds it, else a new one."""
        if self._connection is not None:
            try:
                self._connection.settle(deadline)
                return self._connection
            except (OSError, SessionEnded):
                self._drop()
        portal = self._address.portal
        try:
            connection = _Connection(self._address.host, self._address.port, deadline)
        except OSError as error:
            raise Unreachable(f"{portal}: {_reason(error)}") from None
        login = Login(self._name, self._address.target, self._isid, self._address.credentials)
        try:
            connection.login(login, deadline)
        except (OSError, LoginError) as error:
            raise Unreachable(f"{portal}: {_reason(error)}") from None
        finally:
            if login.agreed is None:
                connection.close()
        self._connection = connection
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class InitiatorUnit:
    """One LUN of an initiator's target, as a Unit."""

    def __init__(self, initiator: Initiator, lun: int) -> None:
        self._initiator = initiator
        self._lun = lun

    def execute(self, cdb: bytes, data_out: bytes, read_bytes: int, timeout_s: float) -> Outcome:
        """See Unit."""
        return self._initiator.execute(self._lun, cdb, data_out, read_bytes, timeout_s)


class _Connection:
    """A TCP connection that PDUs go over. Everything raises OSError."""

    def __init__(self, host: str, port: int, deadline: float) -> None:
        self.session: Session | None = None
        timeout = min(LOGIN_TIMEOUT_S, remaining(deadline))
        if not timeout:
            raise TimeoutError
        self._socket = socket.create_connection((host, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def close(self) -> None:
        self._socket.close()

    def login(self, login: Login, deadline: float) -> None:
        """Raises LoginError too."""
        deadline = min(deadline, monotonic() + LOGIN_TIMEOUT_S)
        request: bytes | None = login.begin()
        while request is not None:
            self.send(request, deadline)
            request = login.receive(*self._receive_pdu(deadline))
        assert login.agreed is not None
        self.session = Session(login.agreed)

    def settle(self, deadline: float) -> None:
        """Hears what the target said while nobody listened: pings, and good-bye."""
        assert self.session is not None
        while self._received or select.select([self._socket], [], [], 0)[0]:
            self.hear(self.session.receive, deadline)

    def hear(self, receive: Callable[[bytes, bytes], bytes], deadline: float) -> None:
        """Takes one PDU in, and sends what there is to be said to it."""
        answer = receive(*self._receive_pdu(deadline))
        if answer:
            self.send(answer, deadline)

    def send(self, data: bytes, deadline: float) -> None:
        """Sends all of it."""
        self._allow(deadline)
        self._socket.sendall(data)

    def _receive_pdu(self, deadline: float) -> tuple[bytes, bytes]:
        """The next PDU: its header, and its data without padding."""
        self._fill(BHS_BYTES, deadline)
        bhs = bytes(self._received[:BHS_BYTES])
        at = BHS_BYTES + bhs[4] * 4  # behind additional header segments, which no target sends us
        length = int.from_bytes(bhs[5:8], "big")
        if length > MAX_RECV_SEGMENT_BYTES:
            raise OSError(f"a data segment of {length} bytes: this is no iSCSI target")
        end = at + length + -length % PAD_BYTES
        self._fill(end, deadline)
        data = bytes(self._received[at : at + length])
        del self._received[:end]
        return bhs, data

    def _fill(self, length: int, deadline: float) -> None:
        """Receives until there are so many bytes."""
        while len(self._received) < length:
            self._allow(deadline)
            more = self._socket.recv(RECEIVE_BYTES)
            if not more:
                raise ConnectionError("the target closed the connection")
            self._received += more

    def _allow(self, deadline: float) -> None:
        left = remaining(deadline)
        if not left:
            raise TimeoutError
        self._socket.settimeout(left)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
