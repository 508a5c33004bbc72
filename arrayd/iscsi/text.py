"""Text requests of the full feature phase (RFC 7143, 11.10-11.11 and appendix C)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextReply:
    """The answer to one Text Request; the connection adds its sequence numbers."""

    final: bool
    continue_: bool
    lun: int
    initiator_task_tag: int
    target_transfer_tag: int
    data: bytes

    def build(self, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int) -> bytes:
        """The whole Text Response PDU, padded, without digests."""
        raise NotImplementedError


class TextExchange:
    """The text negotiations of one connection in full feature phase, one at a time.

    `send_targets(value)` gives the answer pairs to SendTargets=`value`, or None to reject it.
    `max_send_segment` follows the initiator's MaxRecvDataSegmentLength: the connection reads it after each `receive`.
    """

    def __init__(self, max_send_segment: int, send_targets: Callable[[str], Sequence[tuple[str, str]] | None]) -> None:
        self.max_send_segment = max_send_segment

    def receive(self, bhs: bytes, data: bytes) -> TextReply:
        """One Text Request in, its answer out; a ProtocolError says what to Reject."""
        raise NotImplementedError
