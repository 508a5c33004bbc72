"""An initiator's side of a login, for the tests: makes requests, takes responses apart."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from arrayd.iscsi.keys import parse_pairs
from arrayd.iscsi.login import Access, Login
from arrayd.iscsi.pdu import BHS_BYTES, LoginStatus, Opcode, Stage, build_header, parse_header

SECURITY, OPERATIONAL, FULL = Stage.SECURITY_NEGOTIATION, Stage.LOGIN_OPERATIONAL_NEGOTIATION, Stage.FULL_FEATURE_PHASE
TARGET = "iqn.2026-11.io.arrayd:primary"
HOST = "iqn.1993-08.org.debian:01:host1"
NORMAL = f"InitiatorName={HOST}\0TargetName={TARGET}\0SessionType=Normal\0".encode()
DISCOVERY = f"InitiatorName={HOST}\0SessionType=Discovery\0".encode()


def steady_bytes(count: int) -> bytes:
    """The same random bytes every time."""
    return bytes(range(1, count + 1))


@dataclass
class Policy:
    """A target that knows its initiators by `access`; None admits any, without a proof."""

    target_name: str = TARGET
    target_alias: str = ""
    portal_group_tag: int = 1
    command_window: int = 64
    access: dict[str, Access] | None = None
    tsih: int | LoginStatus = 9
    admitted: list[tuple[str, bytes, int, bool]] = field(default_factory=list)

    def authorize(self, initiator_name: str, discovery: bool) -> Access | None:
        return Access() if self.access is None else self.access.get(initiator_name)

    def admit(self, initiator_name: str, isid: bytes, tsih: int, discovery: bool) -> int | LoginStatus:
        self.admitted.append((initiator_name, isid, tsih, discovery))
        return self.tsih


@dataclass
class Response:
    """A Login Response: its header's fields and its text."""

    header: Any
    text: bytes

    @property
    def pairs(self) -> dict[str, str]:
        return dict(parse_pairs(self.text))

    @property
    def status(self) -> LoginStatus:
        return LoginStatus(self.header.status)


class Initiator:
    """Logs in to a target of `policy`, one request at a time."""

    def __init__(self, policy: Policy | None = None, random_bytes: Callable[[int], bytes] = steady_bytes) -> None:
        self.policy = policy or Policy()
        self.login = Login(self.policy, random_bytes)
        self.fields: dict[str, Any] = {
            "immediate": True,
            "isid": bytes.fromhex("00023d000001"),
            "initiator_task_tag": 0x11,
            "cid": 3,
            "cmd_sn": 1000,
        }

    def header(self, text: bytes = b"", stage: int = OPERATIONAL, to: int | None = None, **fields: Any) -> bytes:
        """The header of a Login Request in `stage` that asks to go to stage `to`."""
        transit = {} if to is None else {"transit": True, "nsg": to}
        lengths = {"csg": stage, "data_segment_length": len(text)}
        return build_header(Opcode.LOGIN_REQUEST, **{**self.fields, **lengths, **transit, **fields})

    def send(self, text: bytes = b"", stage: int = OPERATIONAL, to: int | None = None, **fields: Any) -> Response:
        """Sends a Login Request and takes the response apart."""
        (response,) = self.login.receive(self.header(text, stage, to, **fields), text)
        header = parse_header(response[:BHS_BYTES])
        assert header.opcode == Opcode.LOGIN_RESPONSE
        assert len(response) % 4 == 0
        segment = response[BHS_BYTES : BHS_BYTES + header.data_segment_length]
        assert len(response) - BHS_BYTES - len(segment) < 4
        assert header.initiator_task_tag == self.fields["initiator_task_tag"]
        assert header.isid == self.fields["isid"]
        return Response(header, segment)

    def refused(self, *arguments: Any, **fields: Any) -> LoginStatus:
        """Sends a request that must end the login; the status it ended with."""
        response = self.send(*arguments, **fields)
        assert self.login.failed
        assert not self.login.complete
        assert self.login.parameters is None
        assert self.login.status is response.status
        assert self.login.why
        assert not response.header.transit
        assert response.text == b""
        return response.status
