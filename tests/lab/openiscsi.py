"""open-iscsi inside the guest: records of targets, sessions, and the disks they bring.

What iscsiadm's exit statuses mean is in its manual page, "EXIT STATUS".
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.lab import multipath
from tests.lab.guest import HOST, Answer, Guest

LOGIN_FATAL = 19
LOGIN_AUTHENTICATION_FAILED = 24
LOGIN_TIMEOUT_S = 60.0
SETTLE_S = 60
DISK_TIMEOUT_S = 90.0
"""udev runs several programs for each disk, on an emulated processor."""
FORGET_TIMEOUT_S = 30.0

BOTH_DIGESTS = {"node.conn[0].iscsi.HeaderDigest": "CRC32C", "node.conn[0].iscsi.DataDigest": "CRC32C"}


def chap(user: str, secret: str, mutual_user: str | None = None, mutual_secret: str | None = None) -> dict[str, str]:
    """Settings of a record by which the initiator proves who it is and, given the mutual pair, asks the same back."""
    settings = {
        "node.session.auth.authmethod": "CHAP",
        "node.session.auth.username": user,
        "node.session.auth.password": secret,
    }
    if mutual_user is not None and mutual_secret is not None:
        settings |= {"node.session.auth.username_in": mutual_user, "node.session.auth.password_in": mutual_secret}
    return settings


@dataclass
class Initiator:
    """The guest as an initiator of one target, by one or more portals (``portals`` are ports of the machine, which is
    reached as ``host``). It may be one of several targets at once."""

    guest: Guest
    target: str
    portals: list[int]
    settings: Mapping[str, str] = field(default_factory=dict)
    host: str = HOST

    def discover(self) -> list[str]:
        """Ask the first portal for its targets: lines of ``ADDRESS:PORT,TAG NAME``. Makes their records, too."""
        listing = self.guest.check(f"iscsiadm -m discovery -t sendtargets -p {self.host}:{self.portals[0]}")
        return listing.splitlines()

    def discover_by_chap(self, user: str, secret: str) -> Answer:
        """The same, proving who asks; the status is iscsiadm's."""
        database = f"iscsiadm -m discoverydb -t sendtargets -p {self.host}:{self.portals[0]}"
        auth = {"authmethod": "CHAP", "username": user, "password": secret}
        lines = [f"{database} -o new >/dev/null"]
        lines += [f"{database} -o update -n discovery.sendtargets.auth.{k} -v {v}" for k, v in auth.items()]
        return self.guest.run("\n".join([*lines, f"{database} --discover"]), LOGIN_TIMEOUT_S)

    def record(self) -> None:
        """Write a record for every portal by hand, with ``settings`` in it."""
        for port in self.portals:
            node = f"iscsiadm -m node -T {self.target} -p {self.host}:{port}"
            lines = [f"{node} -o new >/dev/null"]
            lines += [f"{node} -o update -n {shlex.quote(k)} -v {shlex.quote(v)}" for k, v in self.settings.items()]
            self.guest.check("\n".join(lines))

    def try_login(self) -> Answer:
        """Log in by every portal; the status is iscsiadm's."""
        return self.guest.run(f"iscsiadm -m node -T {self.target} --login", LOGIN_TIMEOUT_S)

    def login(self) -> None:
        """Record and log in by every portal; GuestError when one refuses."""
        self.record()
        self.guest.check(f"iscsiadm -m node -T {self.target} --login", LOGIN_TIMEOUT_S)

    def logout(self) -> None:
        """Log out of every portal, once udev has looked at what was closed; the disks must go with the sessions."""
        self.guest.check(f"udevadm settle --timeout={SETTLE_S}", DISK_TIMEOUT_S)
        self.guest.check(f"iscsiadm -m node -T {self.target} --logout", LOGIN_TIMEOUT_S)
        listing = self.guest.run("iscsiadm -m session").output
        assert f"{self.target} " not in listing, listing
        self.guest.until(f"! {self._sessions}", DISK_TIMEOUT_S)

    def rescan(self) -> None:
        """Look for new LUNs and new sizes on every session."""
        self.guest.check("iscsiadm -m session --rescan")

    def disks(self, lun: int = 0) -> list[str]:
        """The block devices of a LUN, one a session, once every session has its own, which can be used (it cannot while
        the session is lost), and udev has seen them."""
        count = len(self.portals)
        listing = self.guest.until(
            f"set -- $(for s in $({self._sessions}); do ls -d $s/device/target*/*:{lun}/block/sd*; done)\n"
            f"test $# = {count} || exit 1\n"
            "for d; do grep -qx running $d/device/state || exit 1; done\n"
            f"udevadm settle --timeout={SETTLE_S} && for d; do echo /dev/$(basename $d); done",
            DISK_TIMEOUT_S,
        )
        return listing.splitlines()

    def generic(self, lun: int) -> str:
        """The sg device of a LUN with one session."""
        pattern = f"$({self._sessions})/device/target*/*:{lun}/scsi_generic/sg*"
        return "/dev/" + self.guest.until(f"basename $(ls -d {pattern})", DISK_TIMEOUT_S)

    @property
    def _sessions(self) -> str:
        """A command that lists the sessions with the target, as folders; it fails where there are none."""
        return f"grep -lx {self.target} /sys/class/iscsi_session/session*/targetname | sed 's,/targetname,,' | grep ."

    def disk(self, lun: int = 0) -> str:
        """The block device of a LUN with one session."""
        (disk,) = self.disks(lun)
        return disk


def forget_everything(guest: Guest) -> None:
    """Bring the guest back to where it was after its boot: nothing mounted, no session, no record, an empty dmesg."""
    guest.check(
        "umount -a -t ext4 || umount -l /mnt\n"
        f"{multipath.STOP}"
        "iscsiadm -m node --logoutall=all >/dev/null 2>&1 || true\n"
        "rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets /tmp/*\n"
        "dmesg -c >/dev/null",
        FORGET_TIMEOUT_S,
    )
