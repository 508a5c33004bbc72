"""The text keys of login and of operation, and what each negotiates to (RFC 7143, sections 6.2, 12 and 13)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a login agreed on, as the full feature phase uses it. Lengths in bytes, times in seconds."""

    initiator_name: str
    initiator_alias: str
    target_name: str
    """Empty in a discovery session that named none."""
    isid: bytes
    tsih: int
    cid: int
    discovery: bool
    header_digest: bool
    data_digest: bool
    max_send_segment: int
    """The initiator's MaxRecvDataSegmentLength."""
    max_recv_segment: int
    """The target's MaxRecvDataSegmentLength."""
    max_burst: int
    first_burst: int
    initial_r2t: bool
    immediate_data: bool
    max_outstanding_r2t: int
    time2wait: int
    time2retain: int
