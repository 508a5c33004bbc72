"""TransportIDs of iSCSI initiator ports: bytes from SPC-5, 7.6.4.7, and whatever else comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi import transport_id


def test_build() -> None:
    name = "iqn.1993-08.org.debian:01:host1,i,0x00023d000001"
    assert transport_id.build(name) == b"\x45\x00\x00\x34" + name.encode() + bytes(4)
    assert len(transport_id.build("a,i,0x0")) == 24


@given(st.from_regex(r"iqn\.[a-z0-9.:-]{1,219}", fullmatch=True), st.binary(min_size=6, max_size=6))
def test_what_is_built_is_parsed(node: str, isid: bytes) -> None:
    name = f"{node},i,0x{isid.hex()}"
    built = transport_id.build(name)
    assert len(built) % 4 == 0
    assert transport_id.parse(built + b"more") == (name, len(built))


def test_an_isid_is_a_number() -> None:
    data = transport_id.build("IQN.2026-11.io.arrayd:A,i,0x23D000001")
    assert transport_id.parse(data)[0] == "iqn.2026-11.io.arrayd:a,i,0x00023d000001"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        transport_id.build("iqn.2026-11.io.arrayd:a,i,0x00023d000001")[:-1],
        b"\x05" + transport_id.build("iqn.2026-11.io.arrayd:a,i,0x00023d000001")[1:],  # a device name, not a port
        b"\x40" + transport_id.build("iqn.2026-11.io.arrayd:a,i,0x00023d000001")[1:],  # Fibre Channel
        transport_id.build("iqn.2026-11.io.arrayd:a-long-enough-name"),
        transport_id.build("iqn.2026-11.io.arrayd:a,i,0x"),
        transport_id.build("iqn.2026-11.io.arrayd:a,i,0x00023d0000010"),
        b"\x45\x00\x00\x00",
        b"\x45\x00\x00\x17" + bytes(30),
        b"\x45\x00\x00\x14" + b"\xff" * 20,
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        transport_id.parse(data)


@given(st.binary(max_size=64).map(lambda tail: b"\x45\x00\x00\x20" + tail) | st.binary(max_size=64))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        transport_id.parse(data)
    except ValueError:
        pass
