"""Arrays that find one another over real sockets: who is let in, what a cut costs, and how it comes back."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from arrayd.link import peers as rules
from arrayd.link import transport
from arrayd.link.channel import Call, LinkError, Service
from arrayd.link.peers import Links, Settings
from arrayd.sockets import LOOPBACK_CONGESTION_CONTROL, Address, do_not_pace
from tests.lab.waiting import until
from tests.link.ends import SECRET, Answers, echo

HERE = ("127.0.0.1", 0)

Build = Callable[..., Awaitable["Array"]]


class Array:
    """One end, as an array has it."""

    def __init__(self, settings: Settings, service: Service) -> None:
        self.gone: list[str] = []
        self.links = Links(settings, lambda _name: {1: service}, self.gone.append, os.urandom, time.monotonic)
        self.address: Address = self.links.start() or ("", 0)
        self.answers = Answers()

    def up(self, name: str) -> bool:
        return self.links.peers[name].stream is not None

    async def ask(self, name: str, data: bytes = b"", **options: Any) -> bytes | LinkError:
        """Asks another array, and waits for the end of it."""
        key = len(self.answers.ended) + 1_000_000
        self.links.way(name)(self.answers.request(key, data=data, **options))
        await until(lambda: key in self.answers.ended)
        return self.answers.ended.pop(key)

    def reason(self, name: str) -> str:
        return self.links.peers[name].reason


@pytest.fixture
async def build(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Build]:
    """``await build(name, arrays, …)``: an array that listens; stopped after the test. Its times are short."""
    monkeypatch.setattr(rules, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(rules, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(rules, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(rules, "PAUSE_SECONDS_MAX", 0.1)
    built: list[Array] = []

    async def make(name: str, arrays: dict[str, Address | None], service: Service = echo, **options: Any) -> Array:
        settings = Settings(name, f"serial-{name}", arrays, SECRET, timeout=60.0, listen=HERE)
        array = Array(replace(settings, **options), service)
        built.append(array)
        return array

    yield make
    for array in built:
        await array.links.stop("the test is over")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_requests_go_both_ways_over_the_one_connection(build: Build) -> None:
    b = await build("b", {"a": None})
    a = await build("a", {"b": b.address})
    assert await a.ask("b", b"from a") == b"echo:from a"
    assert await b.ask("a", b"from b") == b"echo:from b"
    data = os.urandom(3 << 20)
    assert await a.ask("b", data) == b"echo:" + data


async def test_both_ends_on_one_machine_do_without_pacing(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """From before they are connected: what was paced once is for ever. And send without delay: see `arrayd.sockets`."""
    dialed: list[bool] = []

    def before(sock: socket.socket, address: str) -> bool:
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        dialed.append(True)
        return do_not_pace(sock, address)

    monkeypatch.setattr(transport, "do_not_pace", before)
    b = await build("b", {"a": None})
    a = await build("a", {"b": b.address})
    await until(lambda: a.up("b") and b.up("a"))
    assert dialed
    assert b.links._listener is not None
    control = b.links._listener._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert control.rstrip(b"\0") == LOOPBACK_CONGESTION_CONTROL
    for stream in (a.links.peers["b"].stream, b.links.peers["a"].stream):
        assert stream is not None
        control = stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert control.rstrip(b"\0") == LOOPBACK_CONGESTION_CONTROL
        assert stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_long_message_behind_many_short_ones_does_not_wait_for_a_beat(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the output almost full of what is short there is no room for its first frame, until that has gone."""
    came: list[int] = []
    b = await build("b", {"a": None}, service=lambda _call, payload: came.append(len(payload)))
    a = await build("a", {"b": b.address})
    await until(lambda: a.up("b") and b.up("a"))
    monkeypatch.setattr(rules, "BEAT_SECONDS", 3600.0)
    monkeypatch.setattr(rules, "SILENCE_SECONDS", 3600.0)
    short, long = [bytes(60_000)] * 4, bytes(1 << 20)
    way = a.links.way("b")
    for key, data in enumerate([*short, long]):
        way(a.answers.request(key, data=data))
    await until(lambda: len(came) == 5)


async def test_when_both_dial_one_connection_is_left(build: Build) -> None:
    a = await build("a", {"b": None})
    b = await build("b", {"a": a.address})
    a.links.peers["b"].address = b.address
    a.links._begin(a.links._keep(a.links.peers["b"], b.address))
    for _ in range(20):
        assert await a.ask("b", b"x") == b"echo:x"
        assert await b.ask("a", b"y") == b"echo:y"
        a.links.peers["b"].stream.close("cut by the test")  # type: ignore[union-attr]


async def test_a_cut_is_not_noticed_by_who_asks(build: Build) -> None:
    """While a thousand requests go, the connection is cut again and again: each is carried out once."""
    seen: list[bytes] = []

    def service(call: Call, payload: memoryview) -> None:
        seen.append(bytes(payload))
        asyncio.get_running_loop().call_later(0.001, call.answer, b"", bytes(payload))

    b = await build("b", {"a": None}, service)
    a = await build("a", {"b": b.address})
    for number in range(1000):
        a.links.way("b")(a.answers.request(number, data=b"%d" % number))
        if number % 100 == 99:
            await until(lambda: a.up("b") and b.up("a"))
            await asyncio.sleep(0.002)
            stream = (a.links.peers["b"] if number % 200 == 99 else b.links.peers["a"]).stream
            assert stream is not None
            stream.close("cut by the test")
    await until(lambda: len(a.answers.ended) == 1000)
    assert a.answers.ended == {number: b"%d" % number for number in range(1000)}
    assert sorted(seen) == sorted(b"%d" % number for number in range(1000))


async def test_what_waits_longer_than_the_timeout_fails_and_so_does_what_comes_after(build: Build) -> None:
    a = await build("a", {"b": ("127.0.0.1", 1)}, timeout=0.2)
    first = await a.ask("b")
    assert isinstance(first, LinkError)
    assert not first.maybe_done
    assert str(first).startswith("no connection to b: cannot connect: ")
    began = asyncio.get_running_loop().time()
    second = await a.ask("b")
    assert isinstance(second, LinkError)
    assert asyncio.get_running_loop().time() - began < 0.1
    assert a.gone == ["b"]


async def test_it_comes_back_after_it_was_given_up(build: Build) -> None:
    b = await build("b", {"a": None})
    port = b.address
    await b.links.stop("maintenance")
    a = await build("a", {"b": port}, timeout=0.1)
    assert isinstance(await a.ask("b"), LinkError)
    b = await build("b", {"a": None}, listen=port)
    await until(lambda: a.up("b"))
    assert await a.ask("b", b"again") == b"echo:again"


@pytest.mark.slow
async def test_a_silent_connection_is_cut(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "SILENCE_SECONDS", 0.3)
    b = await build("b", {"a": None})
    a = await build("a", {"b": b.address})
    await until(lambda: a.up("b"))
    await asyncio.sleep(0.6)
    assert a.up("b")  # they beat
    stream = b.links.peers["a"].stream
    assert stream is not None
    monkeypatch.setattr(stream.connection, "beat", lambda: None)
    monkeypatch.setattr(stream, "_flush", lambda: None)
    await until(lambda: a.reason("b") == "silent for 0.3 s")


async def test_a_restart_is_not_let_in_while_the_old_work_runs(build: Build) -> None:
    calls: list[Call] = []
    b = await build("b", {"a": None}, lambda call, _payload: calls.append(call))
    a = await build("a", {"b": b.address})
    a.links.way("b")(a.answers.request(1))
    await until(lambda: bool(calls))
    await a.links.stop("restart")
    a = await build("a", {"b": b.address})
    await until(lambda: "what was asked before the restart still runs here" in a.reason("b"))
    assert b.gone[:1] == ["a"]
    calls[0].answer(b"late")
    await until(lambda: a.up("b"))


REFUSED: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    # name of the one who dials, whom it dials, what else it has, whom the other lets in, the reason
    "another secret": ("a", "b", {"secret": b"another secret"}, "a", "does not know the secret"),
    "not named": ("a", "b", {}, "c", "array 'a' is not among link.arrays"),
    "another name": ("a", "x", {}, "a", "says that it is 'b', not 'x'"),
    "the other's name": ("b", "x", {}, "a", "one of them is of the other, too"),
}


@pytest.mark.parametrize(("name", "dialed", "options", "let_in", "reason"), REFUSED.values(), ids=REFUSED)
async def test_who_is_not_wanted_hears_why(
    build: Build, name: str, dialed: str, options: dict[str, Any], let_in: str, reason: str
) -> None:
    b = await build("b", {let_in: None})
    array = await build(name, {dialed: b.address}, **options)
    await until(lambda: reason in array.reason(dialed))
    assert not array.up(dialed)


async def test_a_serial_belongs_to_one_name(build: Build) -> None:
    b = await build("b", {"a": None, "c": None})
    a = await build("a", {"b": b.address})
    await until(lambda: a.up("b"))
    c = await build("c", {"b": b.address}, serial="serial-a")
    await until(lambda: "serial 'serial-a' is another array's" in c.reason("b"))
    await a.links.stop("it goes")
    liar = await build("a", {"b": b.address}, serial="serial-z")
    await until(lambda: "array 'a' has serial 'serial-a', not 'serial-z'" in liar.reason("b"))


async def test_strangers_are_bounded_and_have_little_time(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "STRANGERS_MAX", 4)
    monkeypatch.setattr(rules, "DIAL_SECONDS", 0.3)
    b = await build("b", {"a": None})
    connections = [await asyncio.open_connection(*b.address) for _ in range(8)]
    ends = await asyncio.gather(*(reader.read() for reader, _ in connections))
    assert len(ends) == 8
    for _, writer in connections:
        writer.close()
    a = await build("a", {"b": b.address})
    await until(lambda: a.up("b"))


async def test_a_port_in_use_is_an_error(build: Build) -> None:
    b = await build("b", {"a": None})
    with pytest.raises(OSError, match="in use"):
        await build("c", {}, listen=b.address)


async def test_an_array_that_is_taken_off_and_let_in_again_finds_what_it_asked(build: Build) -> None:
    """Numbers go on where they were, on both sides: each request is carried out once, and answered once."""
    seen: list[bytes] = []

    def service(call: Call, payload: memoryview) -> None:
        seen.append(bytes(payload))
        asyncio.get_running_loop().call_later(0.001, call.answer, b"", bytes(payload))

    b = await build("b", {"a": None}, service)
    a = await build("a", {"b": b.address})
    given_up: list[LinkError] = []
    for number in range(1000):
        a.links.request("b", a.answers.request(number, data=b"%d" % number))
        if number % 100 == 99:
            await until(lambda: a.up("b") and b.up("a"))
            back = asyncio.ensure_future(b.ask("a", b"back"))
            await asyncio.sleep(0.002)
            b.links.remove("a")
            assert "a" not in b.links.peers
            b.links.add("a", None)
            answer = await back
            if isinstance(answer, LinkError):
                given_up.append(answer)
    await until(lambda: len(a.answers.ended) == 1000)
    assert a.answers.ended == {number: b"%d" % number for number in range(1000)}
    assert sorted(seen) == sorted(b"%d" % number for number in range(1000))
    assert b.gone == ["a"] * 10
    assert all(str(error) == "not linked any more" for error in given_up)


async def test_an_array_that_is_added_is_dialed_and_one_that_is_removed_is_not(build: Build) -> None:
    a = await build("a", {})
    b = await build("b", {"a": None})
    a.links.add("b", b.address)
    assert await a.ask("b", b"x") == b"echo:x"
    a.links.remove("b")
    answer = await a.ask("b", b"y")
    assert isinstance(answer, LinkError)
    assert (str(answer), answer.maybe_done) == ("not linked with b", False)
    await until(lambda: not b.up("a"))
    assert b.reason("a") == "ended by the other array: not linked any more"
    await until(lambda: len(a.links._tasks) == 1)
