"""The wire to the array is cut anywhere in a command: it is carried out once all the same, and its answer comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from arrayd.host import Host, Way
from tests.host.cutter import Cutter
from tests.host.row import DEVICE_LUN, Row

pytestmark = pytest.mark.slow

CREATE, DELETE = 11, 13
UPWARD = [0, 1, 47, 48, 49, 100, 400, 700, 1100]
"""Bytes after which the wire is cut: in headers, between them, in a REQUEST or a message, behind it."""
DOWNWARD = [0, 1, 47, 48, 60, 4143, 4144, 4192, 4300, 9000]
"""The same in answers: sense, a description, an ANSWER."""


@pytest.mark.parametrize("method", ["command-device", "addressed"])
@pytest.mark.parametrize(("up", "after"), [*((True, at) for at in UPWARD), *((False, at) for at in DOWNWARD)])
def test_a_change_is_made_once_wherever_the_wire_is_cut(
    method: Any, up: bool, after: int, row: Row, tmp_path: Path
) -> None:
    """Made twice, the volume would be there the second time."""
    array = row["primary"]
    with Cutter(array.port) as cutter:
        url = f"iscsi://127.0.0.1:{cutter.port}/{array.target}/{DEVICE_LUN}"
        file = tmp_path / "hosts.yaml"
        file.write_text(yaml.safe_dump({"paths": {"primary": {"direct": url}}}))
        with Host.load(file, Way(method)) as host:
            host.send("primary", "echo", text="the session is there")
            if up:
                cutter.cut_up = after
            else:
                cutter.cut_down = after
            assert host.send("primary", CREATE, name="cut", size="1MiB")["name"] == "cut"
            cutter.cut_up = cutter.cut_down = None
            host.send("primary", DELETE, name="cut")


@pytest.mark.parametrize("method", ["command-device", "addressed"])
def test_a_wire_that_falls_silent_is_given_up_and_a_new_one_taken(
    method: Any, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arrayd.host.attempts.OPERATION_TIMEOUT_S", 0.3)
    array = row["primary"]
    with Cutter(array.port) as cutter:
        file = tmp_path / "hosts.yaml"
        url = f"iscsi://127.0.0.1:{cutter.port}/{array.target}/{DEVICE_LUN}"
        file.write_text(yaml.safe_dump({"paths": {"primary": {"direct": url}}}))
        with Host.load(file, Way(method)) as host:
            host.send("primary", "echo", text="the session is there")
            cutter.forget()
            assert host.send("primary", CREATE, name="cut", size="1MiB")["name"] == "cut"
            assert cutter.connections == 2
            host.send("primary", DELETE, name="cut")
