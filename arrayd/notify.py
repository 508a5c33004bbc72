"""sd_notify: what this process tells the supervisor that started it (sd_notify(3), "Notes" on the wire format).

Without NOTIFY_SOCKET nothing is sent. A supervisor that does not listen, or not at once, is no reason to stop.
"""

import asyncio
import os
import socket
import time
from collections.abc import Mapping

STATUS_CHARS_MAX = 500


class Supervisor:
    """The other end of NOTIFY_SOCKET, if there is one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environment)
        """Silence for so long and the supervisor restarts the daemon; None: it does not watch."""

    def ready(self, status: str) -> None:
        """The array listens, or listens again after a reload."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it, whether it succeeded or not."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The array answers what is in flight and ends."""
        self._send("STOPPING=1\nSTATUS=stopping")

    async def keep_alive(self) -> None:
        """Until cancelled: tells the supervisor, twice in its time, that the event loop turns."""
        if self._address is None or self.watchdog_seconds is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
        except OSError:
            pass


def _address(text: str) -> str | None:
    """A path, or with `@` a name in the abstract namespace; other kinds (vsock) are left to hosts that have them."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """sd_watchdog_enabled(3): microseconds, and for which process."""
    microseconds, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6


def _one_line(text: str) -> str:
    return " ".join(text.split())[:STATUS_CHARS_MAX]
