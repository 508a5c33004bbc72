"""Designation descriptors, against bytes written down from SPC-5, 7.7.6."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.designators import (
    logical_unit_designators,
    naa,
    scsi_name,
    t10_vendor,
    target_device_designator,
    target_port_designators,
)


def test_logical_unit() -> None:
    by_naa, by_vendor = logical_unit_designators("410001:data")
    assert by_naa == bytes.fromhex("01 03 00 08") + naa("410001:data")
    assert by_vendor == bytes.fromhex("03 01 00 13") + b"ARRAYD  410001:data"
    assert t10_vendor("410001:data") == by_vendor[4:]


def test_naa_is_locally_assigned_and_hashed() -> None:
    digest = hashlib.sha256(b"410001:data").hexdigest()
    assert naa("410001:data").hex() == "3" + digest[1:16]


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_identities_have_two_names(one: str, other: str) -> None:
    assert (naa(one) == naa(other)) == (one == other)


def test_target_port() -> None:
    assert target_port_designators(0x0102, 0x4101, "iqn.x:y,t,0x0001") == [
        bytes.fromhex("51 94 00 04 0000 0102"),
        bytes.fromhex("51 95 00 04 0000 4101"),
        bytes.fromhex("53 98 00 14") + b"iqn.x:y,t,0x0001" + bytes(4),
    ]


def test_target_device() -> None:
    assert target_device_designator("iqn.x:y") == bytes.fromhex("53 a8 00 08") + b"iqn.x:y\0"


@given(st.text(min_size=1, max_size=60).filter(lambda text: "\0" not in text))
def test_scsi_names_end_with_a_zero_and_are_padded(name: str) -> None:
    data = scsi_name(name)
    assert len(data) % 4 == 0
    assert data.rstrip(b"\0").decode() == name
    assert 1 <= len(data) - len(name.encode()) <= 4
