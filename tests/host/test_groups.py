"""Groups in the host's file: what is read, and that every mistake is one line with key, value and what was expected."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.commands.results import Result
from arrayd.config.mistakes import ConfigError
from arrayd.host import CommandFailed, Host
from arrayd.host.groups import FENCE_LEVELS, Group, GroupVolume, Leg, Mode
from arrayd.host.paths import PathError, PathTable
from tests.lab.search import examples

FILE: dict[str, Any] = {
    "site": "primary",
    "paths": {"primary": {"direct": "/dev/sdb"}, "remote": {"through": "primary"}, "third": {"through": "remote"}},
    "groups": {
        "oradb": {
            "volumes": {"data": {"primary": 0, "remote": 0}, "log": {"primary": 1, "remote": 1}},
            "journals": {"primary": 20, "remote": 20},
            "legs": [{"from": "primary", "to": "remote", "mode": "async"}],
        }
    },
}


def table_of(folder: Path, tree: Any) -> PathTable:
    file = folder / "hosts.yaml"
    file.write_text(yaml.safe_dump(tree))
    return PathTable.load(file)


def mistakes(folder: Path, tree: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        table_of(folder, tree)
    return [line.removeprefix(f"{folder / 'hosts.yaml'}: ") for line in caught.value.lines]


def changed(*where: str | int, to: Any) -> Any:
    """The file with another value at this place of its group; `...` takes the key away."""
    tree = copy.deepcopy(FILE)
    inner: Any = tree["groups"]["oradb"]
    for part in where[:-1]:
        inner = inner[part]
    if to is ...:
        del inner[where[-1]]
    else:
        inner[where[-1]] = to
    return tree


def test_a_group_is_read(tmp_path: Path) -> None:
    group = table_of(tmp_path, FILE).groups["oradb"]
    assert group == Group(
        name="oradb",
        volumes=(
            GroupVolume("data", {"primary": 0, "remote": 0}),
            GroupVolume("log", {"primary": 1, "remote": 1}),
        ),
        journals={"primary": 20, "remote": 20},
        legs=(Leg("primary", "remote", Mode.ASYNC),),
    )
    assert group.arrays == ("primary", "remote")
    assert [group.local(each) for each in ("primary", "remote", "third")] == ["primary", "remote", "primary"]
    assert [group.legs[0].peer(each) for each in ("primary", "remote", "third")] == ["remote", "primary", None]


def test_journals_may_be_left_out(tmp_path: Path) -> None:
    assert table_of(tmp_path, changed("journals", to=...)).group("oradb").journals == {}
    assert table_of(tmp_path, changed("journals", to={"remote": 9})).group("oradb").journals == {"remote": 9}


@pytest.mark.parametrize(("said", "fence"), [({}, "never"), *(({"fence": each}, each) for each in FENCE_LEVELS)])
def test_a_synchronous_group_has_a_fence_level_and_no_journals(
    tmp_path: Path, said: dict[str, str], fence: str
) -> None:
    tree = changed("journals", to=...)
    tree["groups"]["oradb"]["legs"][0] |= {"mode": "sync", **said}
    group = table_of(tmp_path, tree).group("oradb")
    assert group.legs == (Leg("primary", "remote", Mode.SYNC, fence),)
    assert (group.synchronous, group.journals, group.driver) == (True, {}, "arrays")
    assert not table_of(tmp_path, FILE).group("oradb").synchronous


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "journals",
            {"primary": 20},
            "journals: (a mapping): expected no such key: synchronous pairs have no journals",
        ),
        ("driver", "host", "driver: host: expected arrays: synchronous pairs are driven by them"),
    ],
)
def test_what_has_no_sense_in_a_synchronous_group_is_named(tmp_path: Path, key: str, value: Any, line: str) -> None:
    tree = changed("journals", to=...)
    tree["groups"]["oradb"]["legs"][0]["mode"] = "sync"
    tree["groups"]["oradb"][key] = value
    assert mistakes(tmp_path, tree) == [f"groups.oradb.{line}"]
    tree["groups"]["oradb"]["legs"][0]["mode"] = "async"
    assert table_of(tmp_path, tree).group("oradb").name == "oradb"


@pytest.mark.parametrize("driver", ["arrays", "host"])
def test_who_drives_may_be_said(tmp_path: Path, driver: str) -> None:
    assert table_of(tmp_path, FILE).group("oradb").driver == "arrays"
    assert table_of(tmp_path, changed("driver", to=driver)).group("oradb").driver == driver


def test_a_mistake_in_a_group_is_of_that_group_alone(tmp_path: Path) -> None:
    tree = changed("legs", 0, "mode", to="later")
    tree["groups"]["Second"] = {"volumes": {"x": {"primary": 7, "remote": 7}}, "legs": FILE["groups"]["oradb"]["legs"]}
    tree["groups"]["third"] = copy.deepcopy(tree["groups"]["Second"])
    tree["groups"]["third"]["volumes"]["x"]["primary"] = 8
    tree["groups"]["third"]["volumes"]["x"]["remote"] = 8
    file = tmp_path / "hosts.yaml"
    file.write_text(yaml.safe_dump(tree))
    wrong = {
        "Second": f"{file}: groups.Second: Second: {NAMED}",
        "oradb": f"{file}: groups.oradb.legs[0].mode: later: expected async or sync",
    }
    with Host.load(file) as host:
        assert host.group("third").name == "third"
        for name, line in wrong.items():
            with pytest.raises(CommandFailed) as caught:
                host.group(name)
            assert (caught.value.result, str(caught.value)) == (Result.USAGE, line)
    with pytest.raises(ConfigError) as refused:
        PathTable.load(file)
    assert sorted(refused.value.lines) == sorted(wrong.values())
    tree["site"] = "nobody"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(CommandFailed) as all_of_it:
        Host.load(file)
    assert len(str(all_of_it.value).splitlines()) == 3


def test_a_group_does_not_change(tmp_path: Path) -> None:
    group: Any = table_of(tmp_path, FILE).group("oradb")
    with pytest.raises(AttributeError):
        group.name = "other"
    with pytest.raises(TypeError):
        group.volumes[0].luns["primary"] = 7


def test_a_file_without_groups_has_none(tmp_path: Path) -> None:
    assert table_of(tmp_path, {"paths": FILE["paths"]}).groups == {}


def test_a_host_gives_groups(tmp_path: Path) -> None:
    table_of(tmp_path, FILE)
    with Host.load(tmp_path / "hosts.yaml") as host:
        assert host.group("oradb") is host.table.groups["oradb"]
        with pytest.raises(CommandFailed, match=r"has no group oradv; did you mean oradb\?") as caught:
            host.group("oradv")
    assert caught.value.result == Result.USAGE
    with pytest.raises(PathError):
        host.table.group("")


LUN = "expected a LUN, 0 to 16383"
LUNS = "expected a mapping of arrays' names to LUNs, 1 to 3 of them"
NAMED = "expected a name of 1 to 32 of a-z, 0-9, '-' and '_' that starts with a letter or a digit"
ARRAY = "expected the name of an array under paths"
LEG_LIST = "expected a list of one leg, {from: ARRAY, to: ARRAY, mode: async or sync}: second legs are not there yet"
VOLUMES = "expected a mapping of volumes' names to their LUN on each array, 1 to 1024 of them"
TWO_LEGS = [FILE["groups"]["oradb"]["legs"][0], {"from": "remote", "to": "third", "mode": "async"}]


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        (("volumes",), ..., f"volumes: missing: {VOLUMES}"),
        (("volumes",), {}, f"volumes: (a mapping): {VOLUMES}"),
        (("volumes",), [1], f"volumes: (a list): {VOLUMES}"),
        (("volumes", "log"), 3, f"volumes.log: 3: {LUNS}"),
        (("volumes", "log"), None, f"volumes.log: (nothing): {LUNS}"),
        (("volumes", "legs"), "x", f"volumes.legs: x: {LUNS}"),
        (("volumes", "Log"), {"primary": 3, "remote": 3}, f"volumes.Log: Log: {NAMED}"),
        (("volumes", "log", "primary"), -1, f"volumes.log.primary: -1: {LUN}"),
        (("volumes", "log", "primary"), True, f"volumes.log.primary: true: {LUN}"),
        (("volumes", "log", "third"), 1,
         "volumes.log.third: third: expected an array at an end of a leg: primary or remote"),
        (("volumes", "log", "remot"), 1, f"volumes.log.remot: remot: {ARRAY}; did you mean remote?"),
        (("volumes", "log", "remote"), ...,
         "volumes.log.remote: missing: expected its LUN on remote, which a leg leads from or to"),
        (("volumes", "log", "remote"), 0, "volumes.log.remote: 0: expected a LUN of remote that nothing else has: "
         "it is that of groups.oradb.volumes.data"),
        (("journals",), {}, f"journals: (a mapping): {LUNS}"),
        (("journals",), 20, f"journals: 20: {LUNS}"),
        (("journals", "remote"), "x", f"journals.remote: x: {LUN}"),
        (("journals", "primary"), 1, "journals.primary: 1: expected a LUN of primary that nothing else has: "
         "it is that of groups.oradb.volumes.log"),
        (("journals", "third"), 1,
         "journals.third: third: expected an array at an end of a leg: primary or remote"),
        (("legs",), ..., f"legs: missing: {LEG_LIST}"),
        (("legs",), [], f"legs: (a list): {LEG_LIST}"),
        (("legs",), "primary", f"legs: primary: {LEG_LIST}"),
        (("legs",), TWO_LEGS, f"legs: (a list): {LEG_LIST}"),
        (("legs", 0), 7, "legs[0]: 7: expected a mapping with the keys from, to, mode and, optionally, fence"),
        (("legs", 0, "mode"), "never", "legs[0].mode: never: expected async or sync"),
        (("legs", 0, "mode"), ["sync"], "legs[0].mode: (a list): expected async or sync"),
        (("legs", 0, "mode"), ..., "legs[0].mode: missing: expected async or sync"),
        (("legs", 0, "mode"), "sync",
         "journals: (a mapping): expected no such key: synchronous pairs have no journals"),
        (("legs", 0, "fence"), "never",
         "legs[0].fence: never: expected mode: sync beside it: asynchronous pairs have no fence level"),
        (("legs", 0, "fence"), "ever", "legs[0].fence: ever: expected never, data or status"),
        (("legs", 0, "fences"), 7, "legs[0].fences: 7: expected a known key; did you mean fence?"),
        (("legs", 0, "form"), "primary", "legs[0].form: primary: expected a known key; did you mean from?"),
        (("legs", 0, "from"), ..., f"legs[0].from: missing: {ARRAY}"),
        (("legs", 0, "from"), 7, f"legs[0].from: 7: {ARRAY}, in quotes"),
        (("legs", 0, "to"), "primary", "legs[0].to: primary: expected another array than the one it leads from"),
        (("legs", 0, "to"), "remot", f"legs[0].to: remot: {ARRAY}; did you mean remote?"),
        (("driver",), "me", "driver: me: expected arrays or host"),
        (("driver",), None, "driver: (nothing): expected arrays or host"),
        (("volume",), {}, "volume: (a mapping): expected a known key; did you mean volumes?"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(where: tuple[str | int, ...], value: Any, expected: str, tmp_path: Path) -> None:
    found = mistakes(tmp_path, changed(*where, to=value))
    assert f"groups.oradb.{expected}" in found


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (7, "groups: 7: expected a mapping of names to groups of pairs"),
        ({"a b": FILE["groups"]["oradb"]}, f"groups.a b: a b: {NAMED}"),
        (
            {"oradb": None},
            "groups.oradb: (nothing): expected a mapping with the keys volumes, legs and, optionally, journals and "
            "driver",
        ),
    ],
)
def test_a_mistake_about_groups_is_named(groups: Any, expected: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path, FILE | {"groups": groups}) == [expected]


def test_a_lun_is_of_one_group(tmp_path: Path) -> None:
    second = {
        "volumes": {"x": {"primary": 1, "remote": 7}},
        "legs": [{"from": "remote", "to": "primary", "mode": "async"}],
    }
    tree = copy.deepcopy(FILE)
    tree["groups"]["second"] = second
    assert mistakes(tmp_path, tree) == [
        "groups.second.volumes.x.primary: 1: expected a LUN of primary that nothing else has: "
        "it is that of groups.oradb.volumes.log"
    ]
    second["volumes"] = {"x": {"primary": 7, "remote": 7}}
    assert list(table_of(tmp_path, tree).groups) == ["oradb", "second"]


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 30) | st.text(max_size=8)
    | st.sampled_from(["primary", "remote", "third", "async", "sync", "iscsi://u%secret word@h/iqn.2026-11.a:b/1"])
    | st.sampled_from(FENCE_LEVELS),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["primary", "remote", "data", "from", "to", "mode", "iscsi://u%secret word@h/t/1"])
        | st.text(max_size=4),
        inner,
        max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip
PLACES = st.sampled_from(
    [
        ("volumes",), ("volumes", "data"), ("volumes", "data", "primary"), ("volumes", "x"), ("journals",),
        ("journals", "remote"), ("legs",), ("legs", 0), ("legs", 0, "from"), ("legs", 0, "to"), ("legs", 0, "mode"),
        ("legs", 0, "fence"), ("more",),
    ]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100), deadline=None)
@given(where=PLACES, value=WRONG)
def test_any_value_anywhere_is_a_group_or_a_mistake(where: tuple[str | int, ...], value: Any, tmp_path: Path) -> None:
    """Never a traceback; each mistake is one line, about that group, and shows no secret."""
    lines: list[str] = []
    table = None
    try:
        table = table_of(tmp_path, changed(*where, to=value))
    except ConfigError as error:
        lines = error.lines
    assert (table is None) == bool(lines)
    for line in lines:
        assert line.startswith(f"{tmp_path / 'hosts.yaml'}: groups.oradb.")
        assert ": expected " in line
        assert line.isprintable()
        assert "secret word" not in line
    for group in table.groups.values() if table is not None else ():
        assert {frozenset(volume.luns) for volume in group.volumes} == {frozenset(group.arrays)}
        luns = [(array, lun) for each in group.volumes for array, lun in each.luns.items()] + [*group.journals.items()]
        assert len(set(luns)) == len(luns)


@pytest.mark.parametrize("where", [("volumes",), ("volumes", "data"), ("journals",), ("legs",), ("legs", 0)])
@pytest.mark.parametrize("value", [None, True, 1.5, "x", [], {}, [[]], [{}], {"x": []}])
def test_a_wrong_kind_of_value_is_one_line_there(where: tuple[str | int, ...], value: Any, tmp_path: Path) -> None:
    if (where, value) == (("journals",), None):
        assert table_of(tmp_path, changed(*where, to=value)).group("oradb").journals == {}
        return
    place = "groups.oradb." + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in where)[1:]
    found = mistakes(tmp_path, changed(*where, to=value))
    assert all(line.startswith(place) for line in found), found
    if not isinstance(value, list | dict):
        assert len(found) == 1
