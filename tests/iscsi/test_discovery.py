"""SendTargets: which records, and which addresses in them (RFC 7143, 13.8 and appendix C)."""

import pytest

from arrayd.iscsi.discovery import Address, format_portal, portals, send_targets

TARGET = "iqn.2026-11.io.arrayd:primary"
HERE: list[Address] = [("192.0.2.1", 3260), ("2001:db8::1", 3261)]
RECORDS = [
    ("TargetName", TARGET),
    ("TargetAddress", "192.0.2.1:3260,7"),
    ("TargetAddress", "[2001:db8::1]:3261,7"),
]


@pytest.mark.parametrize(
    ("value", "discovery", "records"),
    [
        ("All", True, RECORDS),
        ("All", False, None),
        ("", False, RECORDS),
        ("", True, None),
        (TARGET, True, RECORDS),
        (TARGET, False, RECORDS),
        ("iqn.2026-11.io.arrayd:other", True, []),
        ("iqn.2026-11.io.arrayd:other", False, []),
    ],
)
def test_records(value: str, discovery: bool, records: list[tuple[str, str]] | None) -> None:
    assert send_targets(value, discovery, TARGET, 7, HERE) == records


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("192.0.2.1", 3260), "192.0.2.1:3260"),
        (("::1", 3260), "[::1]:3260"),
        (("fe80::1%eth0", 3260), "[fe80::1]:3260"),
        (("::ffff:192.0.2.1", 3260), "192.0.2.1:3260"),
        (("array.example", 3260), "array.example:3260"),
    ],
)
def test_portal_as_text(address: Address, text: str) -> None:
    assert format_portal(address) == text


def test_advertised_addresses_take_the_place_of_all_others() -> None:
    assert portals([("10.0.2.2", 3260)], [("0.0.0.0", 9)], ("127.0.0.1", 9)) == [("10.0.2.2", 3260)]


def test_listening_addresses() -> None:
    listening: list[Address] = [("127.0.0.1", 3260), ("::1", 3260)]
    assert portals([], listening, ("127.0.0.1", 3260)) == listening


@pytest.mark.parametrize(
    ("listening", "local", "found"),
    [
        ([("0.0.0.0", 3260)], ("192.0.2.1", 3260), [("192.0.2.1", 3260)]),
        ([("", 3260)], ("192.0.2.1", 3260), [("192.0.2.1", 3260)]),
        ([("::", 3260)], ("::ffff:192.0.2.1", 3260), [("192.0.2.1", 3260)]),
        ([("::", 3260)], ("2001:db8::1", 3260), [("2001:db8::1", 3260)]),
        ([("0.0.0.0", 3260), ("::", 3260)], ("2001:db8::1", 3260), [("2001:db8::1", 3260)]),
        ([("0.0.0.0", 3260), ("::", 3260)], ("192.0.2.1", 3260), [("192.0.2.1", 3260)]),
        ([("0.0.0.0", 3260), ("0.0.0.0", 3261)], ("192.0.2.1", 3260), [("192.0.2.1", 3260), ("192.0.2.1", 3261)]),
    ],
)
def test_a_wildcard_is_the_address_of_the_connection(
    listening: list[Address], local: Address, found: list[Address]
) -> None:
    assert portals([], listening, local) == found
