"""The sequence numbers of a session with one connection (RFC 7143, 4.2.2)."""

from __future__ import annotations

from arrayd.iscsi.wire import SERIAL_MASK

COMMAND_WINDOW = 256
"""Commands that a session may have in flight: MaxCmdSN - ExpCmdSN + 1 when there are none (4.2.2.1)."""


class Numbers:
    """StatSN and the CmdSN window. `parked` counts the non-immediate commands in flight."""

    __slots__ = ("exp_cmd_sn", "parked", "stat_sn")

    def __init__(self, exp_cmd_sn: int, stat_sn: int) -> None:
        self.exp_cmd_sn = exp_cmd_sn
        self.stat_sn = stat_sn
        self.parked = 0

    @property
    def max_cmd_sn(self) -> int:
        """The highest CmdSN the initiator may send; ExpCmdSN - 1 when the window is closed."""
        return (self.exp_cmd_sn + COMMAND_WINDOW - 1 - self.parked) & SERIAL_MASK

    def advance_command(self) -> None:
        """A command was taken in."""
        self.exp_cmd_sn = (self.exp_cmd_sn + 1) & SERIAL_MASK

    def take_stat_sn(self) -> int:
        """The StatSN for a response, which it uses up."""
        taken = self.stat_sn
        self.stat_sn = (taken + 1) & SERIAL_MASK
        return taken

    def in_window(self, cmd_sn: int) -> bool:
        """Whether a non-immediate command numbered `cmd_sn` may be taken in, now or when those before it have come."""
        return ((cmd_sn - self.exp_cmd_sn) & SERIAL_MASK) < COMMAND_WINDOW - self.parked
