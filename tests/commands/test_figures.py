"""The figures of the patent about commands, each as a test on arrays in a row: `a`, which the host is connected to, `b`
and `c`. What is of one part alone has its figure with that part: 6, 26 and 38 in `test_formats.py`, 7 and 9 in
`test_mailbox.py`, 31, 33, 35, 37, 39 and 41 in `test_routing.py`. The host's: `tests/host/`.
"""

from __future__ import annotations

import json

from arrayd.commands.formats import REQUEST_BYTES, SLOT_BYTES, Identification, State, decode_answer, decode_description
from arrayd.commands.messages import Destination, Method
from arrayd.commands.results import Result
from tests.commands.conftest import LUNS, Commanded
from tests.lab.commanding import HostLun, edited
from tests.lab.waiting import until


def echo(array: str, text: str) -> dict[str, str]:
    return {"array": array, "text": text}


async def test_figure_5_the_command_device_management_table(row: Commanded) -> None:
    """Own command devices, and by the LUNs of virtual volumes those of other arrays."""
    async with row.host() as host:
        await host.command(9, "command-device-add", array="b", lun=10)
        await host.command(9, "command-device-add", array="c", lun=11)
        told = await host.command(9, "command-devices")
        assert told["devices"] == [
            {"array": "a", "lun": 9, "source": "file"},
            {"array": "b", "lun": 10, "source": "command"},
            {"array": "c", "lun": 11, "source": "command"},
        ]
        for device in told["devices"]:
            assert await host.command(device["lun"], "echo", text="who?") == echo(device["array"], "who?")


async def test_figure_5_no_host_stops_a_command_device_for_the_others(row: Commanded) -> None:
    """It is written and read, and nothing else: no SANITIZE, no reservation, no START STOP UNIT, no mode page."""
    async with row.host() as host:
        await host.command(9, "echo", text="attentions are told")
        product = (await host.session.command(bytes([0x12, 0, 0, 0, 96, 0]), lun=9, read_bytes=96)).data[16:32]
        assert product == b"COMMAND DEVICE  "
        for cdb in (b"\x48\x81", b"\x48\x02", b"\x1b", b"\x5f\x01", b"\x16", b"\x15\x10", b"\x42", b"\x93", b"\x83"):
            answer = await host.session.command(cdb.ljust(16, b"\0"), lun=9)
            assert (answer.sense_key, answer.additional_sense) == (5, 0x2000)
        assert await host.command(9, "echo", text="still there") == echo("a", "still there")


async def test_figures_7_and_8_a_host_commands_the_array_it_is_connected_to(row: Commanded) -> None:
    """S801 to S805, each a WRITE or a READ."""
    async with row.host() as host:
        device = HostLun(host.session, 9)
        request = host.request("echo", text="hi")  # S801
        description = decode_description(await device.read(0, 4096))  # S802
        assert (description.name, description.states[0]) == ("a", State.FREE)
        await device.write(SLOT_BYTES, request.encode() + bytes(512 - len(request.encode())))
        answer = decode_answer(await device.read(SLOT_BYTES + REQUEST_BYTES, 4096))  # S804, S805
        assert (answer.identification, edited(answer)) == (request.identification, echo("a", "hi"))


async def test_figure_22_a_host_commands_the_third_array_by_virtual_volumes_in_a_row(row: Commanded) -> None:
    async with row.host() as host:
        assert await host.command(11, "echo", text="hi") == echo("c", "hi")
        assert decode_description(await HostLun(host.session, 11).read(0, 4096)).name == "c"


async def test_figure_27_a_message_for_the_second_array_goes_by_the_first(row: Commanded) -> None:
    """2710 becomes 2711; edited data 2712 comes back under the same identification number."""
    async with row.host() as host:
        assert await host.addressed(("b",), "echo", text="hi") == echo("b", "hi")


async def test_figure_28_a_message_for_the_third_array_goes_by_two_others(row: Commanded) -> None:
    async with row.host() as host:
        assert await host.addressed(("b", "c"), "echo", text="hi") == echo("c", "hi")


async def test_figure_31_without_addresses_the_array_executes_it_itself(row: Commanded) -> None:
    """S3110 to S3113, and S3109: once the answer is old, the message is deleted."""
    async with row.host() as host:
        assert await host.addressed((), "echo", text="hi") == echo("a", "hi")
        assert await host.addressed(("a",), "echo", text="hi") == echo("a", "hi")
        told = await host.command(9, "command-cache")
        assert (told["waiting"], told["ended"]) == (0, 2)


async def test_figure_32_edited_data_is_fetched_along_the_way_by_its_identification_number(row: Commanded) -> None:
    """Each array on the way has it, by that number (S3202 to S3209); and it is there again for who lost the answer."""
    async with row.host() as host:
        request = host.request("echo", text="hi")
        message = host.message(Destination(("b", "c")), request)
        first = await host.by_message(message, lane=3)
        for name in "abc":
            item = row.arrays[name]._commands._transit.find(message.identification)
            assert item is not None
            assert item.ended is not None
            (ended,) = item.ended
            assert (ended.array, json.loads(ended.edited)) == ("c", echo("c", "hi"))
        assert await host.read_answer(lane=3) == first
        assert await host.by_message(message, lane=4) == first


async def test_figures_33_and_34_addresses_are_kept(row: Commanded) -> None:
    async with row.host() as host:
        for path, name in ((("b",), "b"), (("b", "c"), "c"), (("a", "b", "c"), "c")):
            assert await host.addressed(path, "echo", Method.KEEP, text="hi") == echo(name, "hi")


async def test_figure_36_the_connection_information_table(row: Commanded) -> None:
    async with row.host("b") as host:
        told = (await host.command(9, "connections"))["connections"]
        assert [(each["array"], each["state"], each["source"]) for each in told] == [
            ("a", "up", "file"),
            ("c", "up", "file"),
        ]
        assert told[1]["address"] == row.links["c"]


async def test_figures_35_and_37_straight_to_the_third_array_once_there_is_a_connection(row: Commanded) -> None:
    """At first `a` has a connection with `b` alone, and sends the message there; then `c` dials it, too."""
    async with row.host() as host:
        message = host.message(Destination(("b", "c")), host.request("echo", text="hi"), method=Method.SHORTEST)
        assert edited(await host.by_message(message)) == echo("c", "hi")
        assert row.passed(message, "b")
        await row.stop("c")
        await row.start("c", dials="a", luns=LUNS["c"])
        await until(lambda: row.is_up("a", "c"))
        message = host.message(Destination(("b", "c")), host.request("echo", text="hi"), method=Method.SHORTEST)
        assert edited(await host.by_message(message)) == echo("c", "hi")
        assert not row.passed(message, "b")


async def test_figures_39_to_41_commands_for_two_arrays_in_one_message(row: Commanded) -> None:
    async with row.host() as host:
        first, second = host.request("echo", text="first"), host.request("echo", text="second")
        answer = await host.by_message(host.message(Destination(("b",)), first, Destination(("c",)), second))
        assert answer.result == Result.OK
        assert json.loads(answer.edited) == [
            {"array": "b", "process": 2, "result": 0, "edited": echo("b", "first")},
            {"array": "c", "process": 2, "result": 0, "edited": echo("c", "second")},
        ]


async def test_figure_41_one_result_each_and_nothing_behind_one_that_failed(row: Commanded) -> None:
    async with row.host() as host:
        parts = (
            host.request("echo", text="here"),
            Destination(("b",)),
            host.request(999),
            host.request("echo", text="never"),
            Destination(("c",)),
            host.request("echo", text="never"),
        )
        answer = await host.by_message(host.message(*parts))
        told = json.loads(answer.edited)
        assert answer.result == Result.UNKNOWN_COMMAND
        assert [(each["array"], each["result"]) for each in told] == [
            ("a", Result.OK),
            ("b", Result.UNKNOWN_COMMAND),
            ("b", Result.NOT_EXECUTED),
            ("b", Result.NOT_EXECUTED),
        ]
        again = tuple(
            part if isinstance(part, Destination) else host.request(part.process, **json.loads(part.input))
            for part in parts
        )
        answer = await host.by_message(host.message(*again, goes_on=True))
        assert [(each["array"], each["result"]) for each in json.loads(answer.edited)] == [
            ("a", Result.OK),
            ("b", Result.UNKNOWN_COMMAND),
            ("b", Result.OK),
            ("c", Result.OK),
        ]


async def test_identification_numbers_are_of_hosts(row: Commanded) -> None:
    """Two hosts count alike; the answers are their own."""
    async with row.host(name=b"hostname") as one, row.host(name=b"nosthame") as other:
        texts = [await host.addressed(("b", "c"), "echo", text=host.name.decode()) for host in (one, other)]
        assert texts == [echo("c", "hostname"), echo("c", "nosthame")]
    assert Identification(b"hostname", 1, 1) != Identification(b"nosthame", 1, 1)
