"""What gets lost on the way costs nothing, and nothing is carried out twice: at real arrays, over ways that lose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.commands.formats import (
    ACKNOWLEDGE,
    PAGE_BYTES,
    SLOT_BYTES,
    Identification,
    Request,
    State,
    decode_description,
)
from arrayd.commands.messages import Message
from arrayd.host import CommandFailed, PathTable, Result, Way, attempts
from arrayd.host import host as module
from arrayd.host.connections import Connections
from arrayd.host.paths import OWN_LUN
from tests.host.faults import FaultyHost, after, before, fine, gone, taken
from tests.host.row import DEVICE_LUN, Row
from tests.lab.search import examples

pytestmark = pytest.mark.slow

METHODS = ["command-device", "addressed"]
ECHO = 2
FAULTS = {"fine": fine, "before": before, "after": after, "gone": gone}
HOSTS = 16
TIMEOUT_S = 20.0


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait for nothing here: the array is there all the time."""
    for name in ("PAUSE_MIN_S", "PAUSE_MAX_S"):
        monkeypatch.setattr(attempts, name, 0.0001)


CREATE, DELETE, VOLUMES = 11, 13, 10
"""Process numbers."""


def once(host: FaultyHost, array: str = "primary") -> None:
    """A command that cannot be carried out twice, a volume being there already then, is carried out."""
    assert host.send(array, CREATE, name="once", size="1MiB")["name"] == "once"
    host.notes.faults.clear()
    assert made(host, array)
    host.send(array, DELETE, name="once")


def made(host: FaultyHost, array: str = "primary") -> bool:
    return "once" in [each["name"] for each in host.send(array, VOLUMES)["volumes"]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", [before, after])
@pytest.mark.parametrize("operation", range(4))
def test_any_operation_may_be_lost(method: Any, fault: Any, operation: int, row: Row) -> None:
    with row.host(method=method) as host:
        host.notes.faults.extend([fine] * operation + [fault])
        once(host)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60), deadline=None)
@given(method=st.sampled_from(METHODS), plan=st.lists(st.sampled_from(sorted(FAULTS)), max_size=12))
def test_whatever_is_lost_a_command_is_carried_out_once(method: Any, plan: list[str], row: Row) -> None:
    with row.host(method=method) as host:
        host.notes.faults.extend(FAULTS[each] for each in plan)
        if plan[:1] == ["gone"]:
            with pytest.raises(CommandFailed, match="nobody listens"):
                host.send("primary", CREATE, name="once", size="1MiB")
            host.notes.faults.clear()
            assert not made(host)
        else:
            once(host)


@pytest.mark.parametrize("method", METHODS)
def test_an_array_that_starts_anew_meanwhile_is_asked_again(method: Any, row: Row) -> None:
    """It is killed when it has taken a change and not said what became of it."""

    def restart(operation: Callable[[], bytes | None]) -> bytes | None:
        operation()
        row["primary"].kill()
        row["primary"].start()
        return after(lambda: None)

    writing = 1 if method == "command-device" else 0
    with row.host(method=method) as host:
        host.notes.faults.extend([fine] * writing + [restart])
        try:
            host.send("primary", CREATE, name="once", size="1MiB")
            done = True
        except CommandFailed as failure:
            done = failure.result != Result.INTERRUPTED
        assert made(host) == done
        if done:
            host.send("primary", DELETE, name="once")


def test_a_slot_that_another_host_took_is_left_to_it(row: Row) -> None:
    with row.host() as host:
        host.notes.faults.extend([fine, taken, fine, taken])
        once(host)


def test_a_slot_that_was_used_again_brings_the_answer_all_the_same(row: Row) -> None:
    """Our answer is read, and lost; then others use every slot."""
    crowd = Crowd(PathTable.load(row.table()))
    with row.host() as host:

        def reuse(operation: Callable[[], bytes | None]) -> bytes | None:
            operation()
            crowd.fill()
            crowd.go()
            return after(lambda: None)

        host.notes.faults.extend([fine, fine, reuse])
        once(host)


def test_a_lane_that_another_process_used_brings_the_answer_all_the_same(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts by one session, which has lanes for both."""
    monkeypatch.setattr("arrayd.host.addressed.LANES", range(1))
    with row.host(method="addressed") as host:
        other = FaultyHost(host.table, host.way)
        other.notes._initiators = host.notes._initiators

        def use(operation: Callable[[], bytes | None]) -> bytes | None:
            operation()
            assert other.send("remote", ECHO, text="theirs")["text"] == "theirs"
            return None

        host.notes.faults.append(use)
        assert host.send("primary", ECHO, text="ours")["text"] == "ours"
        assert len(host.notes.messages) == 2
        assert host.notes.messages[0] == host.notes.messages[1], "a retry is the same message again"


class Crowd:
    """Fills slots with answers that nobody reads, and frees them."""

    def __init__(self, table: PathTable) -> None:
        self._connections = Connections(table)
        self._device = self._connections.transport("primary", OWN_LUN)
        self._requests: dict[int, Request] = {}

    def states(self) -> list[State]:
        return list(map(State, decode_description(self._device.read(0, PAGE_BYTES, TIMEOUT_S)).states))

    def fill(self) -> None:
        """Until every slot has an answer; one whose command has not ended would not be freed."""
        while set(states := self.states()) != {State.DONE}:
            for slot, state in enumerate(states):
                if state in (State.FREE, State.DELIVERED):
                    request = Request(ECHO, Identification(b"crowd...", time.time_ns(), slot + 1))
                    self._write(slot, request)
                    self._requests[slot] = request

    def own(self) -> list[int]:
        return list(self._requests)

    def leave(self, *slots: int) -> None:
        for slot in slots:
            request = self._requests.pop(slot)
            self._write(slot, Request(ACKNOWLEDGE, request.identification))

    def go(self) -> None:
        self.leave(*self.own())
        self._connections.close()

    def _write(self, slot: int, request: Request) -> None:
        data = request.encode()
        self._device.write((slot + 1) * SLOT_BYTES, data + bytes(-len(data) % 512), TIMEOUT_S)


def test_only_slots_that_nobody_uses_are_taken_and_without_one_time_runs_out(row: Row) -> None:
    crowd = Crowd(PathTable.load(row.table()))
    with row.host() as host:
        crowd.fill()
        try:
            with pytest.raises(CommandFailed, match="LUN of primary: every slot is in use") as caught:
                host.by(timeout_s=0.3).send("primary", ECHO, text="x")
            assert caught.value.result == Result.NO_SLOT
            slot = crowd.own()[-1]  # an answer that a host of another test has left is not the crowd's
            crowd.leave(slot)
            assert host.send("primary", ECHO, text="x")["text"] == "x"
            assert crowd.states()[slot] is State.DELIVERED
        finally:
            crowd.go()


def test_sixteen_hosts_command_through_one_command_device(row: Row) -> None:
    """Nobody's command or answer is lost, mixed up, or carried out twice."""
    wrong: list[object] = []
    ended: list[int] = []
    table = PathTable.load(row.table())

    def command(number: int) -> None:
        with FaultyHost(table, Way(method="command-device")) as host:
            for count in range(20):
                text = f"{number}.{count}"
                told = host.send(("primary", "intermediate")[count % 2], ECHO, text=text)
                if told["text"] != text:
                    wrong.append((text, told))
            host.send("primary", CREATE, name=f"made{number}", size="1MiB")
            host.send("primary", DELETE, name=f"made{number}")
            ended.append(number)

    threads = [threading.Thread(target=command, args=(number,)) for number in range(HOSTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(ended) == list(range(HOSTS))


@pytest.mark.parametrize("method", METHODS)
def test_a_command_that_goes_on_is_given_up(method: Any, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    with row.host(method=method) as host:
        process = host.process("primary", "link-test")
        impatient = host.by(timeout_s=0.1)
        with row.frozen("intermediate"), pytest.raises(CommandFailed) as caught:
            impatient.send("primary", process, array="intermediate", rounds=1, megabytes=0)
        assert caught.value.result == Result.EXPIRED


def test_an_array_that_went_away_is_waited_for_until_time_is_up(row: Row) -> None:
    with row.host(timeout_s=0.3) as host:
        host.notes.faults.extend([fine, after, *[gone] * 100_000])
        with pytest.raises(CommandFailed, match=r"nobody listens.*whether it was carried out is not known") as caught:
            host.send("primary", ECHO, text="x")
        assert caught.value.result == Result.UNREACHABLE


@pytest.mark.parametrize("method", METHODS)
def test_a_long_answer_comes_whole(method: Any, row: Row) -> None:
    text = "long " * 10_000
    with row.host(method=method) as host:
        assert host.send("primary", ECHO, text=text)["text"] == text


@pytest.mark.parametrize("method", METHODS)
def test_a_command_that_is_too_long_is_not_sent(method: Any, row: Row) -> None:
    with row.host(method=method) as host, pytest.raises(CommandFailed, match="at the most") as caught:
        host.send("primary", ECHO, text="x" * 300_000)
    assert caught.value.result == Result.TOO_LONG


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("array", ["primary", "intermediate"])
def test_a_refusal_says_why_and_where(method: Any, array: str, row: Row) -> None:
    with row.host(method=method) as host, pytest.raises(CommandFailed) as caught:
        host.send(array, "volume-delete", name="none")
    assert (caught.value.result, caught.value.name, caught.value.at) == (Result.NOT_FOUND, "NOT_FOUND", array)


# -- what must never happen --------------------------------------------------------------------------------------------


def host_of(row: Row, paths: dict[str, Any], **way: Any) -> FaultyHost:
    file = row.folder / "other.yaml"
    file.write_text(yaml.safe_dump({"paths": paths}))
    return FaultyHost(PathTable.load(file), Way(**way))


def test_a_volume_at_the_lun_of_a_command_device_is_never_written(row: Row) -> None:
    """LUN 0 is a volume with data."""
    paths = {"primary": {"direct": row.url}, "intermediate": {"through": "primary", "lun": 0}}
    with host_of(row, paths) as host:
        with pytest.raises(CommandFailed, match="LUN 0 of primary: not a command device") as caught:
            host.send("intermediate", ECHO, text="x")
        assert caught.value.result == Result.USAGE
        assert host.notes.requests == []


def test_the_command_device_of_another_array_is_not_commanded(row: Row) -> None:
    paths = {"primary": {"direct": row.url}, "intermediate": {"through": "primary", "lun": DEVICE_LUN}}
    with host_of(row, paths) as host:
        with pytest.raises(CommandFailed, match="the command device of primary, not of intermediate") as caught:
            host.send("intermediate", ECHO, text="x")
        assert caught.value.result == Result.USAGE
        assert host.notes.requests == []


def test_an_array_without_a_command_device_is_addressed(row: Row) -> None:
    """A direct row names any LUN of it then."""
    with host_of(row, {"primary": {"direct": row["primary"].url(0)}}) as host:
        assert host.send("primary", ECHO, text="x")["array"] == "primary"
        (message,) = host.notes.messages
        assert isinstance(message, Message)


def test_a_serial_number_is_an_address_too(row: Row) -> None:
    with host_of(row, {"430000": {"direct": row.url}, "430002": {"through": "430000"}}) as host:
        assert host.send("430000", ECHO, text="x")["array"] == "primary"
        assert host.by(addresses="shortest").send("430000", ECHO, text="x")["array"] == "primary"
