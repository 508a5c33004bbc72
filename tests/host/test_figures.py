"""The patent's figures about the host, each as a test, at real arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from arrayd.commands.messages import Destination
from arrayd.host import Command, PathTable
from arrayd.host.paths import OWN_LUN, Route
from tests.host.faults import after, fine
from tests.host.row import FAR_LUN, THROUGH_LUN, Row

ECHO = 2
DIRECT = "iscsi://127.0.0.1:3260/iqn.2026-11.io.arrayd:first/9"


def table_of(folder: Path, paths: dict[str, Any]) -> PathTable:
    file = folder / "hosts.yaml"
    file.write_text(yaml.safe_dump({"paths": paths}))
    return PathTable.load(file)


@pytest.mark.slow
def test_figure_8_a_command_is_written_to_a_command_device_and_its_edited_data_read(row: Row) -> None:
    """S801 to S805, at the LUN of the array's own command device, and at that of a virtual volume."""
    with row.host() as host:
        assert host.send("primary", ECHO, text="near") == {"array": "primary", "text": "near"}
        assert host.send("intermediate", ECHO, text="far") == {"array": "intermediate", "text": "far"}
        assert [request.process for request in host.notes.requests] == [ECHO, ECHO]
        assert host.notes.messages == []


def test_figure_8_step_s802_the_lun_is_looked_up_in_the_arrays_table_of_command_devices(row: Row) -> None:
    with row.host() as host:
        host.send("primary", "command-device-add", array="remote", lun=FAR_LUN)
        try:
            told = host.by(method="command-device").send("remote", ECHO, text="x")
        finally:
            host.send("primary", "command-device-remove", array="remote", lun=FAR_LUN)
        assert told == {"array": "remote", "text": "x"}
        assert host.notes.messages == []


def test_figure_25_one_array_is_direct_and_the_other_through_the_first(tmp_path: Path) -> None:
    table = table_of(tmp_path, {"first": {"direct": DIRECT}, "second": {"through": "first"}})
    assert table.route("first") == Route("first", (), OWN_LUN)
    assert table.route("second") == Route("first", ("second",), None)


def test_figure_29_the_third_array_is_reached_through_two_others(row: Row) -> None:
    table = PathTable.load(row.table())
    assert table.route("intermediate") == Route("primary", ("intermediate",), THROUGH_LUN)
    assert table.route("remote") == Route("primary", ("intermediate", "remote"), None)


def test_figure_30_a_message_carries_identification_number_and_destination(row: Row) -> None:
    """S3001 to S3008."""
    with row.host() as host:
        assert host.send("remote", ECHO, text="x") == {"array": "remote", "text": "x"}
        (message,) = host.notes.messages
    assert message.parts[0] == Destination(("intermediate", "remote"))
    assert message.requests[0].process == ECHO
    assert message.identification == message.requests[0].identification
    assert 25_000 < message.time_left_ms <= 30_000


def test_figure_30_every_command_has_a_number_of_its_own(row: Row) -> None:
    with row.host(method="addressed") as host:
        for _ in range(3):
            host.send("remote", ECHO, text="x")
        numbers = [message.identification for message in host.notes.messages]
    assert [number.counter for number in numbers] == [1, 2, 3]
    assert len({number[:2] for number in numbers}) == 1


def test_figure_30_step_s3008_edited_data_is_waited_for(row: Row) -> None:
    """The array that is to execute it comes to itself while the first READ BUFFER is held, and the second."""
    with row.host() as host, row.frozen("remote") as thaw:

        def late(operation: Callable[[], bytes | None]) -> bytes | None:
            told = operation()
            thaw()
            return told

        host.notes.faults.extend([fine, fine, late])
        assert host.send("remote", ECHO, text="slow") == {"array": "remote", "text": "slow"}
        assert host.notes.operations >= 4


def test_figure_40_commands_for_several_arrays_go_in_one_message(row: Row) -> None:
    """S4001 to S4005: a destination is relative to where the command before it was executed."""
    commands = [
        Command("primary", ECHO, {"text": "1"}),
        Command("intermediate", ECHO, {"text": "2"}),
        Command("intermediate", 3),
        Command("remote", ECHO, {"text": "3"}),
    ]
    with row.host() as host:
        results = host.send_many(commands)
        (message,) = host.notes.messages
    assert [(each.array, each.result) for each in results] == [(each.array, 0) for each in commands]
    assert results[3].edited == {"array": "remote", "text": "3"}
    destinations = [part.addresses if isinstance(part, Destination) else "command" for part in message.parts]
    assert destinations == ["command", ("intermediate",), "command", "command", ("remote",), "command"]
    assert message.identification == message.requests[0].identification


def test_figure_40_an_answer_that_is_lost_costs_nothing(row: Row) -> None:
    with row.host() as host:
        making = [Command(array, "volume-create", {"name": "once", "size": "1MiB"}) for array in ("primary", "remote")]
        host.commands("primary")
        host.commands("remote")
        host.notes.faults.extend([after, after])
        assert [each.result for each in host.send_many(making)] == [0, 0], "a second time it would be there"
        for array in ("primary", "remote"):
            host.send(array, "volume-delete", name="once")
