"""How the path table names a LUN: `iscsi://[user[%secret]@]host[:port]/target/lun`, as libiscsi writes it, or a device
of Linux, `/dev/sdX` or `/dev/sgX`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from arrayd.config import values
from arrayd.iscsi.chap import Credentials

ISCSI_PORT = 3260
"""Where iSCSI targets listen (RFC 7143, 13.8)."""
EXPECTED = "iscsi://host:port/target/lun, or a device such as /dev/sdb or /dev/sg1"

_URL = re.compile(
    r"iscsi://(?:(?P<user>[^%@]+)(?:%(?P<secret>.+))?@)?"  # a secret may have any character, so it goes to the last @
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@%]+)(?::(?P<port>[0-9]{1,5}))?"
    r"/(?P<target>[^/@%]+)/(?P<lun>[0-9]{1,5})"
)


@dataclass(frozen=True, slots=True)
class IscsiAddress:
    """A LUN of an iSCSI target. `user` without credentials waits for a secret from a file."""

    host: str
    port: int
    target: str
    lun: int
    user: str | None = None
    credentials: Credentials | None = None

    @property
    def portal(self) -> str:
        """Host and port, as errors name them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"iscsi://{self.portal}/{self.target}/{self.lun}"

    def with_secret(self, user: str, secret: bytes) -> IscsiAddress:
        """The same LUN, with a proof of who we are."""
        return replace(self, user=user, credentials=Credentials(user, secret))


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """A LUN that the kernel's initiator is logged in to."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Address = IscsiAddress | DeviceAddress


def parse(value: object) -> Address:
    """What the text names. Raises ValueError with what was expected, which has nothing of the text in it."""
    if not isinstance(value, str):
        raise ValueError(EXPECTED)
    if value.startswith("/"):
        if not value.isprintable() or not value.startswith("/dev/") or "@" in value:
            raise ValueError(EXPECTED)
        return DeviceAddress(Path(value))
    match = _URL.fullmatch(value)
    if match is None:
        raise ValueError(EXPECTED)
    port = int(match["port"] or ISCSI_PORT)
    if not 0 < port <= 65535:
        raise ValueError(f"{EXPECTED}: a port is 1 to 65535")
    target, lun = values.iscsi_name(match["target"]), values.lun(match["lun"])
    address = IscsiAddress(match["host"].strip("[]"), port, target, lun, match["user"])
    if match["secret"] is None:
        return address
    return address.with_secret(match["user"], match["secret"].encode())
