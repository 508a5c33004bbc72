"""The path table: what is wrong with one is said with file, key and what was expected, and never with a secret."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.config.mistakes import ConfigError
from arrayd.host.addresses import DeviceAddress, IscsiAddress, parse
from arrayd.host.array_names import NAME
from arrayd.host.paths import PathError, PathTable, Route
from tests.lab.search import examples

SECRET = "correct horse battery"
DIRECT = "iscsi://127.0.0.1:3260/iqn.2026-11.io.arrayd:primary/9"
THREE: dict[str, Any] = {
    "primary": {"direct": DIRECT},
    "intermediate": {"through": "primary", "lun": 10},
    "remote": {"through": "intermediate"},
}


def table_of(folder: Path, paths: dict[str, Any], **more: Any) -> PathTable:
    file = folder / "hosts.yaml"
    file.write_text(yaml.safe_dump({"paths": paths, **more}))
    return PathTable.load(file)


def mistakes(folder: Path, text: str) -> list[str]:
    file = folder / "hosts.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        PathTable.load(file)
    return [line.removeprefix(f"{file}: ") for line in caught.value.lines]


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iscsi://h:3261/iqn.2026-11.a:b/9", ("h", 3261, "iqn.2026-11.a:b", 9, None, None)),
        ("iscsi://h/iqn.2026-11.a:b/0", ("h", 3260, "iqn.2026-11.a:b", 0, None, None)),
        ("iscsi://[::1]:3260/iqn.2026-11.a:b/300", ("::1", 3260, "iqn.2026-11.a:b", 300, None, None)),
        ("iscsi://u%p@ss%w/rd@h:1/iqn.2026-11.a:b/1", ("h", 1, "iqn.2026-11.a:b", 1, "u", b"p@ss%w/rd")),
        ("iscsi://u@h:1/iqn.2026-11.a:b/1", ("h", 1, "iqn.2026-11.a:b", 1, "u", None)),
    ],
)
def test_a_url_names_a_lun(text: str, expected: tuple[Any, ...]) -> None:
    address = parse(text)
    assert isinstance(address, IscsiAddress)
    secret = address.credentials.secret if address.credentials is not None else None
    assert (address.host, address.port, address.target, address.lun, address.user, secret) == expected


def test_a_path_names_a_device() -> None:
    assert parse("/dev/sdb") == DeviceAddress(Path("/dev/sdb"))


@pytest.mark.parametrize(
    "text",
    [
        "", "h", "http://h/iqn.2026-11.a:b/1", "iscsi://", "iscsi://h", "iscsi://h/iqn.2026-11.a:b",
        "iscsi://h/iqn.2026-11.a:b/x", "iscsi://h/name/1", "iscsi://h:0/iqn.2026-11.a:b/1",
        "iscsi://h:99999/iqn.2026-11.a:b/1", "iscsi://h/iqn.2026-11.a:b/16384", "iscsi://h/iqn.2026-11.a:b/1/2",
        "iscsi://::1/iqn.2026-11.a:b/1", "sdb", "/etc/passwd", "/dev/\n", 7, None, ["/dev/sdb"],
    ],
)  # fmt: skip
def test_anything_else_names_nothing(text: object) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_secret_is_not_shown() -> None:
    address = parse(f"iscsi://user%{SECRET}@h/iqn.2026-11.a:b/1")
    assert SECRET not in f"{address} {address!r}"


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "(file): (nothing): expected a mapping"),
        ("paths: {}", "paths: (a mapping): expected a mapping of arrays' names to how they are reached, at least 1"),
        ("paths: {a: {}}", "paths.a: (a mapping): expected direct or through, which says how the array is reached"),
        (
            "paths: {a: {direct: x}}",
            "paths.a.direct: x: expected iscsi://host:port/target/lun, or a device such as /dev/sdb or /dev/sg1",
        ),
        ("paths: {a: {direct: /dev/sdb, lun: 1}}", "paths.a.lun: 1: expected through beside it: direct names the LUN"),
        (
            "paths: {a: {direct: /dev/sdb}, b: {through: c}}",
            "paths.b.through: c: expected the name of an array under paths",
        ),
        (
            "paths: {primary: {direct: /dev/sdb}, b: {through: primry}}",
            "paths.b.through: primry: expected the name of an array under paths; did you mean primary?",
        ),
        ("paths: {a: {direct: /dev/sdb}, b: {through: b}}", f"paths.b.through: b: expected {NAME}"),
        ("paths: {a: {direct: /dev/sdb, lnu: 1}}", "paths.a.lnu: 1: expected a known key; did you mean lun?"),
        ("paths: {a: {direct: /dev/sdb}}\nsite: b", f"site: b: expected {NAME} that is direct"),
        ("paths: {a: {direct: /dev/sdb}}\ninitiator: me", "initiator: me: expected an iSCSI name"),
        ("paths: {a: {direct: /dev/sdb}, b: {through: a, lun: -1}}", "paths.b.lun: -1: expected a LUN, 0 to 16383"),
        ("paths: {a: {direct: iscsi://u@h/iqn.2026-11.a:b/1}}",
         "paths.a.secret_file: missing: expected the file with the secret of the user that direct names"),
        ("paths: {a: {direct: /dev/sdb}, 7: {through: a}, b: {through: 7}}",
         f"paths.b.through: 7: expected {NAME}, in quotes"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(text: str, expected: str, tmp_path: Path) -> None:
    assert any(line.startswith(expected) for line in mistakes(tmp_path, text)), mistakes(tmp_path, text)


def test_a_circle_is_named(tmp_path: Path) -> None:
    text = "paths: {a: {direct: /dev/sdb}, b: {through: c}, c: {through: b}}"
    assert mistakes(tmp_path, text) == [
        "paths.b.through: c: expected a way that ends at a direct array, not a circle (b > c > b)",
        "paths.c.through: b: expected a way that ends at a direct array, not a circle (c > b > c)",
    ]


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    assert len(mistakes(tmp_path, "paths: {a: {direct: x}, b: {through: z, lun: 99999}}\nsite: q\nmore: 1")) == 5


@pytest.mark.parametrize(
    "text",
    [
        f"paths: {{a: {{direct: 'iscsi://user%{SECRET}@h:x/t/1'}}}}",
        f"paths: {{a: {{direct: 'iscsi://user%{SECRET}'}}}}",
        f"paths: {{a: {{direct: 'iscsi:/user%{SECRET}@h/iqn.2026-11.a:b/1'}}}}",
        f"paths: {{a: {{direct: 'iscsi://user:{SECRET}@h/iqn.2026-11.a:b/1'}}}}",
        f"paths: {{a: {{dirct: 'iscsi://user%{SECRET}@h/iqn.2026-11.a:b/1'}}}}",
        f"paths: {{a: {{through: 'iscsi://user%{SECRET}@h/iqn.2026-11.a:b/1'}}}}",
        f"paths: {{'iscsi://user%{SECRET}@h/iqn.2026-11.a:b/1': {{through: a}}}}",
        f"paths: {{a: {{direct: 'iscsi://user%{SECRET}@h/iqn.2026-11.a:b/1', lun: 7}}}}",
        f"paths: {{a: {{direct: /dev/sdb, secret: {SECRET}}}}}",
        f"'iscsi://user%{SECRET}@h/iqn.2026-11.a:b/1'",
        f"paths: [iscsi://user%{SECRET}@h/iqn.2026-11.a:b/1",
    ],
)
def test_no_mistake_shows_a_secret(text: str, tmp_path: Path) -> None:
    assert not any(word in line for line in mistakes(tmp_path, text) for word in SECRET.split())


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "secret").chmod(0o600)
    row = {"direct": "iscsi://user@h/iqn.2026-11.a:b/1", "secret_file": "secret"}
    address = table_of(tmp_path, {"a": row}).rows["a"].address
    assert isinstance(address, IscsiAddress)
    assert address.credentials is not None
    assert address.credentials.secret == SECRET.encode()
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        table_of(tmp_path, {"a": row})


KEYS = ("paths", "site", "initiator", "a", "b", "direct", "through", "lun", "secret_file")
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["a", "b", "primary", DIRECT]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["paths", "site", "initiator", "a", "b", "direct", "through", "lun", "secret_file"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(300), deadline=None)
@given(tree=TREES)
def test_any_file_is_a_table_or_has_mistakes(tree: Any, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(yaml.safe_dump(tree))
    lines, names = [], []
    try:
        table = PathTable.load(file)
        names = list(table.rows)
    except ConfigError as error:
        lines = error.lines
    assert bool(names) != bool(lines)
    assert all(line.startswith(f"{file}: ") and ": expected " in line for line in lines)
    assert all(isinstance(table.route(name), Route) for name in names)


# -- ways --------------------------------------------------------------------------------------------------------------

BOTH: dict[str, Any] = {
    "primary": {"direct": "/dev/sdb"},
    "intermediate": {"through": "primary", "lun": 10},
    "remote": {"direct": "/dev/sdc", "through": "intermediate", "lun": 11},
}
"""Three sites in a row with a host at either end."""


def test_an_array_may_be_asked_from_either_end(tmp_path: Path) -> None:
    table = table_of(tmp_path, BOTH)
    assert table.route("remote") == Route("remote", (), -1)
    assert table.route("remote", at="primary") == Route("primary", ("intermediate", "remote"), 11)
    assert table.route("intermediate", at="remote") == Route("remote", ("intermediate",), None)
    assert table.route("primary", at="remote") == Route("remote", ("intermediate", "primary"), None)


def test_the_site_is_asked_where_nobody_says_otherwise(tmp_path: Path) -> None:
    table = table_of(tmp_path, BOTH, site="primary")
    assert table.route("remote") == Route("primary", ("intermediate", "remote"), 11)
    assert table.route("remote", at="remote").addresses == ()
    assert table.here == "primary"


def test_an_array_that_the_site_does_not_lead_to_is_reached_as_its_row_says(tmp_path: Path) -> None:
    table = table_of(tmp_path, {**THREE, "other": {"direct": "/dev/sdd"}}, site="primary")
    assert table.route("other") == Route("other", (), -1)


@pytest.mark.parametrize(
    ("array", "at", "expected"),
    [
        ("remot", None, "has no array remot; did you mean remote?"),
        ("remote", "intermediate", "intermediate cannot be asked"),
        ("remote", "other", "has no path from other to remote"),
    ],
)
def test_no_way_is_an_error(array: str, at: str | None, expected: str, tmp_path: Path) -> None:
    table = table_of(tmp_path, {**THREE, "other": {"direct": "/dev/sdd"}})
    with pytest.raises(PathError, match=expected.replace("?", r"\?")):
        table.route(array, at)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100), deadline=None)
@given(parents=st.lists(st.integers(0, 100), max_size=14))
def test_every_way_leads_along_the_rows(parents: list[int], tmp_path: Path) -> None:
    """A tree of arrays, the first direct: every way goes from row to row, and none is longer than its depth."""
    names = [f"a{number}" for number in range(len(parents) + 1)]
    above = {names[number + 1]: names[parent % (number + 1)] for number, parent in enumerate(parents)}
    table = table_of(tmp_path, {"a0": {"direct": "/dev/sdb"}, **{name: {"through": up} for name, up in above.items()}})
    for name in names:
        route = table.route(name)
        assert route == table.route(name, at="a0")
        way = [route.asked, *route.addresses]
        assert way[-1] == name
        assert all(above[after] == before for before, after in itertools.pairwise(way))
