"""Text over PDUs: what login and Text requests share, and the Text requests themselves (RFC 7143, 6.1, 11.10, 11.11).

Keys and values may span PDUs: all but the last have the C bit, and each is answered by an empty PDU before the next is
sent. Negotiations in full feature phase go one at a time on a connection; a target transfer tag holds one together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from arrayd.iscsi.keys import REJECT, Negotiation, Pair, Phase, format_pairs, parse_pairs
from arrayd.iscsi.pdu import NO_TAG, Opcode, ProtocolError, RejectReason, build, parse_header

TEXT_BYTES_MAX = 65536
"""Most text of one negotiation that is collected, over all its PDUs (RFC 7143, 6.1 asks for 8192, for login 64 KiB)."""


class TextInbox:
    """Collects the PDUs of one logical text data segment."""

    def __init__(self) -> None:
        self._pieces = bytearray()
        self._total_bytes = 0

    def add(self, data: bytes, continue_: bool) -> list[Pair] | None:
        """One PDU's text in: None while more follows, then the pairs. ProtocolError if it is too much or no text."""
        self._total_bytes += len(data)
        if self._total_bytes > TEXT_BYTES_MAX:
            raise ProtocolError("too much text in one negotiation")
        self._pieces += data
        if continue_:
            return None
        text = bytes(self._pieces)
        self._pieces.clear()
        return parse_pairs(text)


class TextOutbox:
    """An answer on its way out, in segments of bounded length."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def empty(self) -> bool:
        """Whether everything has been taken."""
        return not self._rest

    def put(self, text: bytes) -> None:
        """The next answer; the one before must have been taken wholly."""
        assert self.empty
        self._rest = text

    def take(self, segment_bytes: int) -> bytes:
        """The next segment, of `segment_bytes` at the most."""
        segment, self._rest = self._rest[:segment_bytes], self._rest[segment_bytes:]
        return segment


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
        return build(
            Opcode.TEXT_RESPONSE,
            self.data,
            final=self.final,
            continue_=self.continue_,
            lun=self.lun,
            initiator_task_tag=self.initiator_task_tag,
            target_transfer_tag=self.target_transfer_tag,
            stat_sn=stat_sn,
            exp_cmd_sn=exp_cmd_sn,
            max_cmd_sn=max_cmd_sn,
        )


class TextExchange:
    """The text negotiations of one connection in full feature phase, one at a time.

    `send_targets(value)` gives the answer pairs to SendTargets=`value`, or None to reject it.
    `max_send_segment` follows the initiator's MaxRecvDataSegmentLength: the connection reads it after each `receive`.
    """

    def __init__(self, max_send_segment: int, send_targets: Callable[[str], Sequence[Pair] | None]) -> None:
        self.max_send_segment = max_send_segment
        self._send_targets = send_targets
        self._last_tag = 0
        self._reset(NO_TAG)

    def _reset(self, initiator_task_tag: int) -> None:
        """Forgets the negotiation under way; the next one is `initiator_task_tag`'s."""
        self._initiator_task_tag = initiator_task_tag
        self._target_transfer_tag = NO_TAG
        self._negotiation = Negotiation()
        self._inbox = TextInbox()
        self._outbox = TextOutbox()

    def receive(self, bhs: bytes, data: bytes) -> TextReply:
        """One Text Request in (`data` without padding), its answer out; a ProtocolError says what to Reject."""
        request = parse_header(bhs)
        try:
            self._enter(request)
            return self._reply(request, data)
        except ProtocolError:
            self._reset(NO_TAG)
            raise

    def _enter(self, request: Any) -> None:
        """Finds the negotiation that `request` is of: a reserved tag begins one (RFC 7143, 11.10.4)."""
        if request.opcode != Opcode.TEXT_REQUEST or (request.final and request.continue_):
            raise ProtocolError("not a Text Request, or one with both F and C", RejectReason.INVALID_PDU_FIELD)
        if request.target_transfer_tag == NO_TAG:
            self._reset(request.initiator_task_tag)
        elif (request.initiator_task_tag, request.target_transfer_tag) != (
            self._initiator_task_tag,
            self._target_transfer_tag,
        ):
            raise ProtocolError("tags of no text negotiation under way", RejectReason.INVALID_PDU_FIELD)

    def _reply(self, request: Any, data: bytes) -> TextReply:
        """Answers a request of the negotiation under way."""
        if not self._outbox.empty:
            if data or request.continue_:
                raise ProtocolError("text before the end of the answer")
        else:
            pairs = self._inbox.add(data, request.continue_)
            if pairs is None:
                return self._make_reply(False, False, b"")
            self._outbox.put(format_pairs(self._answer(pairs)))
        segment = self._outbox.take(self.max_send_segment)
        final = request.final and self._outbox.empty
        reply = self._make_reply(final, not self._outbox.empty, segment)
        if final:
            self.max_send_segment = int(self._negotiation.agreed.get("MaxRecvDataSegmentLength", self.max_send_segment))
            self._reset(NO_TAG)
        return reply

    def _answer(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The answers to the pairs of one logical text data segment. SendTargets counts once a negotiation."""
        agreed = self._negotiation.agreed
        asked_before = "SendTargets" in agreed
        answers = self._negotiation.answer(pairs, Phase.FULL_FEATURE)
        if "SendTargets" in agreed and not asked_before:
            found = self._send_targets(str(agreed["SendTargets"]))
            answers += [("SendTargets", REJECT)] if found is None else found
        return answers

    def _make_reply(self, final: bool, continue_: bool, segment: bytes) -> TextReply:
        """A reply that holds the negotiation open by a tag, unless it is the last."""
        if final:
            self._target_transfer_tag = NO_TAG
        elif self._target_transfer_tag == NO_TAG:
            self._last_tag = self._last_tag % (NO_TAG - 1) + 1
            self._target_transfer_tag = self._last_tag
        return TextReply(final, continue_, 0, self._initiator_task_tag, self._target_transfer_tag, segment)
