"""Commands take effect in the order of their CmdSN (RFC 7143, 4.2.2.1): what comes before its turn is held.

On one TCP connection nothing overtakes, so that only a broken or hostile initiator gets here; memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

from arrayd.iscsi.numbers import Numbers
from arrayd.iscsi.pdu import ProtocolError

HELD_BYTES_MAX = 1024 * 1024
"""Commands that came before their turn, kept until it comes."""

Pdu = tuple[memoryview, memoryview]
"""Header with AHS, data without padding."""


class CommandOrder:
    """The non-immediate commands of one session, of which `numbers` says whose turn it is."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self.held: dict[int, tuple[bytes, bytes] | None] = {}
        """By CmdSN; None for a command that was aborted before it came. While there are any, no command is done on the
        spot: the next ones may be here."""
        self._held_bytes = 0

    def take(self, header: memoryview, data: memoryview) -> Iterator[Pdu]:
        """The commands whose turn has come with this one; none for a duplicate and for one out of the window."""
        numbers = self._numbers
        cmd_sn = int.from_bytes(header[24:28], "big")
        if not numbers.in_window(cmd_sn):
            return
        if cmd_sn != numbers.exp_cmd_sn:
            self._hold(cmd_sn, header, data)
            return
        numbers.advance_command()
        yield header, data
        yield from self._in_turn()

    def count_as_come(self, cmd_sn: int) -> Iterator[Pdu]:
        """Command `cmd_sn`, which lies in the window, was aborted; the commands whose turn has come with that."""
        self._forget(cmd_sn)
        self.held[cmd_sn] = None
        yield from self._in_turn()

    def _in_turn(self) -> Iterator[Pdu]:
        numbers = self._numbers
        while numbers.exp_cmd_sn in self.held:
            held = self._forget(numbers.exp_cmd_sn)
            numbers.advance_command()
            if held is not None:
                yield memoryview(held[0]), memoryview(held[1])

    def _hold(self, cmd_sn: int, header: memoryview, data: memoryview) -> None:
        if cmd_sn in self.held:
            return
        self._held_bytes += len(header) + len(data)
        if self._held_bytes > HELD_BYTES_MAX:
            raise ProtocolError("too much sent before its turn")
        self.held[cmd_sn] = bytes(header), bytes(data)

    def _forget(self, cmd_sn: int) -> tuple[bytes, bytes] | None:
        held = self.held.pop(cmd_sn, None)
        if held is not None:
            self._held_bytes -= len(held[0]) + len(held[1])
        return held
