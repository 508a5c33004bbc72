"""Every command there is, on arrays in a row."""

from __future__ import annotations

from typing import Any

import pytest

from arrayd import __version__
from arrayd.commands.registry import REGISTRY
from arrayd.commands.results import Result
from tests.commands.conftest import Commanded
from tests.lab.commanding import CommandFailed, Host
from tests.lab.disk import MIB
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

LONG = {"text": "x" * 5000}
ECHO = {"array": "c", "text": "hi"}


async def refusal(host: Host, command: str, /, **told: Any) -> tuple[int, str]:
    """Result and reason of a command that is not carried out."""
    with pytest.raises(CommandFailed) as failed:
        await host.command(9, command, **told)
    assert failed.value.told["at"] == "a"
    return failed.value.result, failed.value.told["error"]


async def test_commands_lists_all_there_are(row: Commanded) -> None:
    async with row.host() as host:
        told = (await host.command(9, "commands"))["commands"]
    assert {each["number"]: each["name"] for each in told} == {p.number: p.name for p in REGISTRY.by_number.values()}
    by_name = {each["name"]: each for each in told}
    assert by_name["echo"]["help"] == "Answer with the array's name and the text given."
    assert by_name["echo"]["input"]["properties"]["text"]["type"] == "string"
    assert by_name["volume-create"]["changes"]
    assert not by_name["volumes"]["changes"]


async def test_device_status(row: Commanded) -> None:
    async with row.host() as host:
        await host.by_device(9, host.request("volume-create", name="more", size="2MiB"))
        told = await host.command(9, "device-status")
        assert (told["array"], told["serial"], told["version"]) == ("a", "4100097", __version__)
        assert [(each["name"], each["size"], each["state"]) for each in told["volumes"]] == [
            ("data", MIB, "normal"),
            ("more", 2 * MIB, "normal"),
        ]
        assert told["sessions"] == 1
        assert told["uptime"] > 0
        links = {each["array"]: each for each in told["links"]}
        assert links["b"]["state"] == "up"
        assert (links["c"]["state"], told["state"]) == ("down", "degraded")
        await until(lambda: row.arrays["a"]._links.peers["b"].stream.connection.round_trip > 0)  # type: ignore[union-attr]
        links = {each["array"]: each for each in (await host.command(9, "device-status"))["links"]}
        assert 0 < links["b"]["round_trip_us"] < 1e6


async def test_sessions(row: Commanded) -> None:
    async with row.host() as host:
        (told,) = (await host.command(9, "sessions"))["sessions"]
        assert (told["initiator"], told["luns"]) == (host.session.name, [0, 9, 10, 11])


async def test_volumes_come_grow_and_go(row: Commanded) -> None:
    async with row.host() as host:
        assert await host.command(9, "volume-create", name="new", size="1MiB", block_size=4096) == {"name": "new"}
        assert await host.command(9, "lun-add", lun=20, volume="new") == {"lun": 20}
        assert await host.command(9, "volume-resize", name="new", size=2 * MIB) == {"name": "new"}
        told = {each["name"]: each for each in (await host.command(9, "volumes"))["volumes"]}
        assert (told["new"]["size"], told["new"]["block_size"], told["new"]["lun"]) == (2 * MIB, 4096, 20)
        assert (told["new"]["source"], told["data"]["source"]) == ("command", "file")
        await host.command(9, "lun-remove", lun=20)
        await host.command(9, "volume-delete", name="new")
        assert [each["name"] for each in (await host.command(9, "volumes"))["volumes"]] == ["data"]
        texts = [event["text"] for event in (await host.command(9, "events"))["events"] if event["kind"] != "link"]
        assert texts[-5:] == [
            "volume new made",
            "LUN 20 added",
            "volume new resized",
            "LUN 20 removed",
            "volume new deleted",
        ]


async def test_a_volume_for_a_journal_is_made_and_told_by_command(row: Commanded) -> None:
    async with row.host() as host:
        await host.command(9, "volume-create", name="j0", size="1MiB", use="journal")
        told = {each["name"]: each for each in (await host.command(9, "volumes"))["volumes"]}
        assert [(told[name]["use"], told[name]["thin"]) for name in ("data", "j0")] == [
            ("data", True),
            ("journal", False),
        ]


async def test_what_was_made_by_command_is_there_after_a_restart(row: Commanded) -> None:
    async with row.host() as host:
        await host.command(9, "volume-create", name="new", size="1MiB")
        await host.command(9, "lun-add", lun=20, volume="new")
        await host.command(9, "command-device-add", array="c", lun=11)
        await host.command(9, "monitor-add", name="watch", path=["b"], command="echo", every=60)
    await row.stop("a")
    await row.begin("a")
    async with row.host(name=b"survivor") as host:
        luns = {each["lun"]: each for each in (await host.command(9, "lun-map"))["luns"]}
        assert luns[20] == {"lun": 20, "kind": "volume", "volume": "new", "source": "command"}
        assert luns[11] == {"lun": 11, "kind": "virtual", "array": "b", "mapping_lun": 10, "source": "file"}
        assert luns[9] == {"lun": 9, "kind": "command-device", "source": "file"}
        devices = (await host.command(9, "command-devices"))["devices"]
        assert devices[1:] == [{"array": "c", "lun": 11, "source": "command"}]
        (monitor,) = (await host.command(9, "monitors"))["monitors"]
        assert (monitor["name"], monitor["settings"]["every"]) == ("watch", 60)


async def test_a_lun_of_another_array_is_added_by_command(row: Commanded) -> None:
    async with row.host() as host:
        await host.command(9, "lun-add", lun=30, array="b", mapping_lun=10)
        assert await host.command(30, "echo", text="hi") == ECHO
        await host.command(9, "lun-add", lun=31, command_device=True)
        assert await host.command(31, "echo", text="hi") == {"array": "a", "text": "hi"}
        await host.command(9, "lun-remove", lun=31)


async def test_connections_come_and_go(row: Commanded) -> None:
    async with row.host() as host:
        assert await host.command(9, "connection-add", array="d", address="127.0.0.1:1") == {"array": "d"}
        told = {each["array"]: each for each in (await host.command(9, "connections"))["connections"]}
        assert (told["d"]["address"], told["d"]["state"], told["d"]["source"]) == ("127.0.0.1:1", "down", "command")
        await host.command(9, "connection-remove", array="d")
        assert "d" not in {each["array"] for each in (await host.command(9, "connections"))["connections"]}


@pytest.mark.parametrize(
    ("command", "told", "result", "reason"),
    [
        ("volume-create", {"name": "data", "size": 512}, Result.CONFLICT, "volume data: set in the configuration file"),
        ("volume-create", {"name": "x", "size": 0}, Result.BAD_INPUT, "volumes.x.size: 0: expected a size such as"),
        ("volume-delete", {"name": "data"}, Result.CONFLICT, "volume data: set in the configuration file"),
        ("volume-delete", {"name": "x"}, Result.NOT_FOUND, "volume x: there is none"),
        ("lun-add", {"lun": 0, "volume": "data"}, Result.CONFLICT, "LUN 0: set in the configuration file"),
        ("lun-add", {"lun": 5, "volume": "x"}, Result.NOT_FOUND, "volume x: there is none"),
        ("lun-add", {"lun": 5, "array": "d", "mapping_lun": 1}, Result.NOT_FOUND, "array d: not connected with it"),
        ("lun-remove", {"lun": 5}, Result.NOT_FOUND, "LUN 5: nothing is mapped there"),
        ("lun-remove", {"lun": 9}, Result.CONFLICT, "LUN 9: set in the configuration file"),
        ("connection-remove", {"array": "b"}, Result.CONFLICT, "array b: set in the configuration file"),
        ("command-device-add", {"array": "b", "lun": 9}, Result.BAD_INPUT, "LUN 9: leads to no other array"),
        ("link-test", {"array": "d"}, Result.NOT_FOUND, "there is no link with d"),
        ("send", {"command": "echo"}, Result.BAD_INPUT, "Value error, either path or lun"),
        ("send", {"path": ["b"], "command": "sing"}, Result.UNKNOWN_COMMAND, "there is no command 'sing'"),
        ("send", {"path": ["b"], "command": "70000"}, Result.UNKNOWN_COMMAND, "there is no command '70000'"),
        ("send", {"path": ["b"], "command": "x" * 65000}, Result.BAD_INPUT, "command: String should match"),
        ("send", {"path": ["b"], "command": "echo", "input": LONG}, Result.BAD_INPUT, "Value error, an input of 4096"),
        ("monitor-remove", {"name": "x"}, Result.NOT_FOUND, "there is no monitor 'x'"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_said_in_one_line(
    row: Commanded, command: str, told: dict[str, Any], result: Result, reason: str
) -> None:
    async with row.host() as host:
        told_result, told_reason = await refusal(host, command, **told)
        assert (told_result, told_reason[: len(reason)]) == (result, reason)


async def test_link_test(row: Commanded) -> None:
    async with row.host() as host:
        told = await host.command(9, "link-test", array="b", rounds=3, megabytes=2)
        assert told["array"] == "b"
        assert 0 < told["round_trip_us_min"] <= told["round_trip_us_median"]
        assert min(told["there_bytes_per_s"], told["back_bytes_per_s"]) > 1e6
        assert (await refusal(host, "link-test", array="c"))[0] == Result.UNDELIVERABLE


async def test_events_are_counted_on(row: Commanded) -> None:
    async with row.host() as host:
        first = await host.command(9, "events")
        assert [event["text"] for event in first["events"]] == ["started", "link with b up"]
        assert await host.command(9, "events", after=first["last"]) == {"events": [], "last": first["last"]}
        await host.command(9, "volume-create", name="x", size=512)
        told = await host.command(9, "events", after=first["last"], limit=1)
        assert told["last"] == first["last"] + 1
        assert [event["details"] for event in told["events"]] == [{"volume": "x"}]


async def test_what_happens_by_itself_is_noted(row: Commanded) -> None:
    async with row.host() as host:
        await row.stop("b")
        await row.begin("b")
        await until(lambda: row.is_up("a", "b"))
        await row.stop("c")
        await row.begin("c", commands={"initiators": []})
        await until(lambda: row.is_up("b", "c"))
        for _ in range(3):
            with pytest.raises(CommandFailed):
                await host.addressed(("b", "c"), "echo")
        texts = [event["text"] for event in (await host.command(9, "events"))["events"]]
        assert texts[1:] == ["link with b up", "link with b down: ended by the other array: the array stops", texts[1]]
        path = {"path": ["b", "c"], "command": "events"}
        told = (await host.command(9, "send", **path))["edited"]["events"]
        refused = [event for event in told if event["kind"] == "command"]
        assert [event["details"]["origin"] for event in refused] == [host.session.name]
        assert [event["text"] for event in told if event["kind"] == "array"] == ["started", "stops", "started"]


async def test_an_array_asks_another_to_command_a_third(row: Commanded) -> None:
    """By addresses, and by the virtual volume of its command device (figure 22)."""
    async with row.host() as host:
        for way in ({"path": ["b", "c"]}, {"lun": 11}):
            told = await host.command(9, "send", command="echo", input={"text": "hi"}, **way)
            assert told == {"result": 0, "edited": ECHO}
        chained = {"path": ["c"], "command": "echo", "input": {"text": "hi"}}
        told = await host.command(9, "send", path=["b"], command="send", input=chained)
        assert told == {"result": 0, "edited": {"result": 0, "edited": ECHO}}


async def test_a_monitor_raises_an_event_when_the_third_array_fails_and_when_it_is_back(row: Commanded) -> None:
    async with row.host() as host:
        for name, way in (("by-address", {"path": ["b", "c"]}), ("by-lun", {"lun": 11})):
            settings = {"command": "device-status", "every": 0.1, "timeout": 1.0, **way}
            await host.command(9, "monitor-add", name=name, **settings)
        monitors = row.arrays["a"]._commands._monitors

        def go_well(well: bool) -> bool:
            return all(monitor.ok is well for monitor in monitors.list())

        await until(lambda: go_well(True))
        await row.stop("c")
        await until(lambda: go_well(False))
        await row.begin("c")
        await until(lambda: go_well(True))
        told = [event for event in (await host.command(9, "events"))["events"] if event["kind"] == "monitor"]
        assert sorted((event["details"]["monitor"], event["severity"]) for event in told) == [
            ("by-address", "error"),
            ("by-address", "info"),
            ("by-lun", "error"),
            ("by-lun", "info"),
        ]
        await host.command(9, "monitor-remove", name="by-lun")
        assert [each["name"] for each in (await host.command(9, "monitors"))["monitors"]] == ["by-address"]
