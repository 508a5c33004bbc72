"""Single values of the configuration: what is read as what, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.config import values
from arrayd.config.values import Address


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512B", 512), ("1KiB", 1024), ("3 MiB", 3 << 20), ("2GiB", 2 << 30), ("1TiB", 1 << 40), ("1GB", 10**9)],
)
def test_sizes(text: str, size: int) -> None:
    assert values.size(text) == size


@pytest.mark.parametrize(
    "value", ["", "0", "-1", "1G", "1.5GiB", "GiB", "1 PiB", "1025TiB", "²", 0, -1, True, 1.5, None]
)
def test_sizes_refused(value: object) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        values.size(value)


@pytest.mark.parametrize(
    "name",
    [
        "iqn.1993-08.org.debian:01:host1",
        "iqn.2001-04.com.example",
        "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
        "iqn.2026-11.io.arrayd:öl",
        "eui.02004567a425678d",
        "naa.52004567ba64678d",
        "naa.62004567ba64678d0123456789abcdef",
        "iqn.2001-04.com.example:" + "x" * 199,
    ],
)
def test_iscsi_names(name: str) -> None:
    assert values.iscsi_name(name) == name
    assert values.iscsi_name(name.upper()) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "iqn", "iqn.2001-13.com.example", "iqn.01-04.com.example", "iqn.2001-04.", "iqn.2001-04.com.example:"),
        *("iqn.2001-04.com.example:a b", "iqn.2001-04.com.example:a_b", "iqn.2001-04.com.example:a\n", "host1"),
        *("eui.0200", "eui.02004567a425678g", "naa.52004567ba64678", "iqn.2001-04.com.example:a\u3002b"),
        *("iqn.2001-04.com.example:" + "x" * 200, "iqn.2001-04.com.example:\ud800", 5, None),
    ],
)
def test_iscsi_names_refused(name: object) -> None:
    with pytest.raises(ValueError, match="an iSCSI name"):
        values.iscsi_name(name)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_listen_addresses_keep_their_form(host: object, port: int) -> None:
    address = Address(str(host), port)
    assert values.listen_address(str(address)) == address


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for parse in (values.listen_address, values.advertised_address):
        try:
            address = parse(text)
        except ValueError:
            continue
        assert address.host
        assert 0 <= address.port <= 65535
