"""What goes wrong on the way of a command: the link is cut in every phase, an array is not there, starts again, or has
no room. Nothing hangs, nothing is executed twice, nothing is lost without an error that says where."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import time
from collections.abc import AsyncIterator
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from arrayd.commands import asking, transit
from arrayd.commands.asking import Operation, Outcome
from arrayd.commands.formats import REASON_CHARACTERS_MAX, FormatError, State
from arrayd.commands.messages import Destination, Ended, Message, decode_ended
from arrayd.commands.results import Result
from arrayd.link.frames import Kind
from tests.commands.conftest import Commanded, number
from tests.commands.strategies import MESSAGES
from tests.lab.commanding import CommandFailed, Host, edited
from tests.lab.relay import Cut, How, Relay, relay
from tests.lab.search import examples
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

NAMES = itertools.count()


LINK_SECONDS = 5
"""How long `a` waits for a link that is down."""


@pytest.fixture
async def wire(row: Commanded, request: pytest.FixtureRequest) -> AsyncIterator[Relay]:
    """Between `a` and `b`; its parameter, if it has one, stands for LINK_SECONDS."""
    async with relay(row.links["b"]) as wire:
        await row.stop("a")
        straight, row.links["b"] = row.links["b"], wire.address
        await row.begin("a", timeout=getattr(request, "param", LINK_SECONDS))
        row.links["b"] = straight
        await until(lambda: row.is_up("a", "b"))
        yield wire
        await row.stop("a")


async def make_volume(host: Host, way: str) -> str:
    """Has `c` make a volume, which it would refuse a second time; the volume's name."""
    name = f"v{next(NAMES)}"
    if way == "message":
        told = await host.addressed(("b", "c"), "volume-create", name=name, size=512)
    else:
        told = await host.command(11, "volume-create", name=name, size=512)
    assert told == {"name": name}
    return name


PHASES = [
    (there, kind, count, how)
    for there, kind in ((True, Kind.REQUEST), (False, Kind.ANSWER))
    for count in (1, 2)
    for how in How
]


@pytest.mark.parametrize("way", ["message", "device"])
async def test_the_link_is_cut_in_every_phase_of_a_command(row: Commanded, wire: Relay, way: str) -> None:
    """With messages these are SUBMIT, OBTAIN and their answers; with a command device its READs and WRITEs. Each time a
    host comes that nobody knows."""
    for number_, (there, kind, count, how) in enumerate(PHASES):
        async with row.host(name=b"host%04d" % number_) as host:
            await host.command(10, "echo", text="the nexus is known there")
            wire.cut = Cut(there, kind, count, how)
            name = await make_volume(host, way)
            assert wire.cuts == number_ + 1, (there, kind, count, how)
            assert name in row.arrays["c"].estate.volumes.opened, (there, kind, count, how)


async def test_an_answer_that_is_lost_is_fetched_again(row: Commanded) -> None:
    """By who has lost it, on another session: the message is not executed again."""
    async with row.host() as host:
        request = host.request("volume-create", name="once", size=512)
        message = host.message(Destination(("b", "c")), request)
        await host.write_message(message)
    async with row.host(name=b"another-") as host:
        assert edited(await host.by_message(message)) == {"name": "once"}
        assert edited(await host.by_device(11, request)) == {"name": "once"}


@pytest.mark.parametrize("way", ["message", "device"])
async def test_an_array_on_the_way_starts_again(row: Commanded, way: str) -> None:
    """`b`, while `c` executes: it has forgotten the message, which is sent to it again."""
    async with row.host() as host:
        await host.command(11, "echo", text="the nexus is known there")
        changing = row.arrays["c"]._commands._executor._changing
        await changing.acquire()
        making = asyncio.ensure_future(make_volume(host, way))
        await until(lambda: row.arrays["c"]._commands._executor.running > 0)
        await row.stop("b")
        await row.begin("b")
        changing.release()
        assert await making in row.arrays["c"].estate.volumes.opened


async def test_the_last_array_starts_again_before_it_has_executed(row: Commanded) -> None:
    """What it took is in its tables: it says that it did not do it, and will not."""
    async with row.host() as host:
        executor = row.arrays["c"]._commands._executor
        await executor._changing.acquire()
        making = asyncio.ensure_future(make_volume(host, "message"))
        await until(lambda: executor.running > 0)
        (task,) = executor._at_work
        await until(lambda: bool(executor._history._entries))
        entry = next(iter(executor._history._entries.values()))
        assert entry.taken is not None
        await entry.taken
        task.cancel()  # as a crash would
        await row.stop("c")
        await row.begin("c")
        with pytest.raises(CommandFailed) as failed:
            await making
        assert (failed.value.result, failed.value.told["at"]) == (Result.INTERRUPTED, "c")
        assert set(row.arrays["c"].estate.volumes.opened) == {"data"}


@pytest.mark.parametrize(
    ("gone", "path", "at", "reason"),
    [
        ("b", ("b", "c"), "a", "b cannot be reached"),
        ("c", ("b", "c"), "b", "c cannot be reached"),
        ("", ("b", "x"), "b", "there is no connection with x"),
        ("", ("x",), "a", "there is no connection with x"),
    ],
)
async def test_what_cannot_be_delivered_says_where_and_why(
    row: Commanded, gone: str, path: tuple[str, ...], at: str, reason: str
) -> None:
    async with row.host() as host:
        if gone:
            await row.stop(gone)
        begun = time.monotonic()
        with pytest.raises(CommandFailed) as failed:
            await host.addressed(path, "echo", text="hi")
        assert failed.value.told["at"] == at
        assert failed.value.told["error"].startswith(reason)
        assert failed.value.result == (Result.UNDELIVERABLE if gone else Result.NO_ROUTE)
        assert time.monotonic() - begun < 8


@pytest.mark.parametrize("path", [("b", "c", "b"), ("b", "a"), ("c", "b", "c"), ("b", "c", "4100098")])
async def test_a_path_that_comes_back_on_itself_is_refused(row: Commanded, path: tuple[str, ...]) -> None:
    """With a serial number only the array that it is of finds out: 4100098 is `b`'s."""
    async with row.host() as host:
        with pytest.raises(CommandFailed) as failed:
            await host.addressed(path, "echo", text="hi")
        assert failed.value.result == Result.LOOP
        assert "comes back" in failed.value.told["error"]


async def test_a_time_limit_that_passes_is_said_by_who_is_stuck(row: Commanded) -> None:
    async with row.host() as host:
        changing = row.arrays["c"]._commands._executor._changing
        async with changing:
            request = host.request("volume-create", name="late", size=512)
            answer = await host.by_message(host.message(Destination(("b", "c")), request, seconds=2.0))
            told = json.loads(answer.edited)
            assert (answer.result, told["at"]) == (Result.EXPIRED, "c")
            assert told["error"] == "the time limit passed before the command had ended; it goes on"
        again = host.message(Destination(("b", "c")), request)
        again = Message(host.number(), again.parts, again.time_left_ms)
        assert edited(await host.by_message(again, lane=1)) == {"name": "late"}


async def test_an_error_is_not_longer_than_what_waits_for_it(row: Commanded) -> None:
    """A link that is asked for too much would be cut, and asked again, for ever."""
    async with row.host() as host:
        for command, told in (("send", {"path": ["c"], "command": "\x7f" * 10_000}), ("echo", {"\x7f" * 10_000: 1})):
            with pytest.raises(CommandFailed) as failed:
                await host.addressed(("b",), command, **told)
            assert failed.value.result == Result.BAD_INPUT
            assert len(failed.value.told["error"]) <= REASON_CHARACTERS_MAX
        assert row.is_up("a", "b")
        with pytest.raises(CommandFailed):
            await host.command(10, "echo", **{"\x7f" * 10_000: 1})


@pytest.mark.parametrize("wire", [1], indirect=True)
async def test_a_message_that_may_have_come_is_not_said_to_have_not(row: Commanded, wire: Relay) -> None:
    """`b` has it, and the link goes down for longer than links wait: the sender's limit alone ends it."""
    async with row.host() as host, row.arrays["c"]._commands._executor._changing:
        request = host.request("volume-create", name="late", size=512)
        message = host.message(Destination(("b", "c")), request, seconds=4)
        await host.write_message(message)
        await until(lambda: row.arrays["c"]._commands._executor.running > 0)
        wire.down = True
        wire.break_off()
        while (answer := await host.read_answer()).state == State.RUNNING:
            pass
        assert (answer.result, json.loads(answer.edited)["at"]) == (Result.EXPIRED, "a")


async def test_lanes_hold_no_messages(row: Commanded) -> None:
    """Refused ones, and those that the cache has deleted: they may be long, and lanes are many."""
    async with row.host() as host:
        for lane in range(4):
            await host.by_message(host.message(host.request("echo", text="x" * 60_000)), lane)
        await host.write_message(b"nonsense" * 1000, 4)
        transit = row.arrays["a"]._commands._transit
        for item in list(transit._ended.values()):
            transit._delete(item)
        (nexus,) = row.arrays["a"]._target.nexuses
        assert len(pickle.dumps([getattr(sent, "_answer", b"") for sent in nexus.sent.values()])) < 1000
        answer = await host.read_answer(lane=0)
        assert answer.result == Result.UNKNOWN_IDENTIFICATION
        assert (await host.read_answer(lane=4)).result == Result.MALFORMED


async def test_a_cache_without_room_refuses_and_has_room_again(row: Commanded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transit, "MESSAGES_MAX", 3)
    async with row.host() as host:
        changing = row.arrays["b"]._commands._executor._changing
        async with changing:
            messages = [
                host.message(Destination(("b",)), host.request("volume-create", name=f"v{n}", size=512))
                for n in range(4)
            ]
            for lane, message in enumerate(messages):
                await host.write_message(message, lane)
            answer = await host.read_answer(lane=3)
            assert (answer.state, answer.result) == (State.DONE, Result.BUSY)
            assert json.loads(answer.edited) == {"error": "the command cache is full: try again", "at": "a"}
        for lane, message in enumerate(messages):
            assert edited(await host.by_message(message, lane)) == {"name": f"v{lane}"}


async def test_who_may_not_command_is_told_by_whom(row: Commanded) -> None:
    """`b` takes commands of `c` alone; and of no host that is not named, whatever way it comes."""
    for name, commands, at in (
        ("b", {"arrays": ["c"]}, "b"),
        ("b", {"initiators": ["iqn.2026-11.io.arrayd:other"]}, "b"),
        ("a", {"initiators": ["iqn.2026-11.io.arrayd:other"]}, "a"),
    ):
        await row.stop(name)
        await row.begin(name, commands=commands)
        async with row.host() as host:
            await until(lambda: row.is_up("a", "b"))
            with pytest.raises(CommandFailed) as failed:
                await host.addressed(("b",), "echo", text="hi")
            assert (failed.value.result, failed.value.told["at"]) == (Result.NOT_AUTHORISED, at)
            if at == "b":
                with pytest.raises(CommandFailed) as failed:
                    await host.command(10, "echo", text="hi")
                assert (failed.value.result, failed.value.told["at"]) == (Result.NOT_AUTHORISED, "b")


async def test_a_host_does_not_say_who_it_is(row: Commanded) -> None:
    async with row.host() as host:
        for claimed in ({"origin": "a"}, {"trail": ("c",)}):
            message = host.message(host.request("echo", text="hi"), **claimed)
            answer = await host.by_message(message)
            assert answer.result == Result.MALFORMED


async def test_sixteen_hosts_command_one_device_while_others_do_io(row: Commanded) -> None:
    """Through two hops; and each gets its own answers."""
    async with row.host(name=b"io-host-") as io_host:
        working = True

        async def io() -> int:
            blocks = 0
            device = io_host.session
            while working:
                data = bytes([blocks % 256]) * 512
                write = bytes([0x2A, 0, *(blocks % 1024).to_bytes(4), 0, 0, 1, 0])
                read = bytes([0x28, 0, *(blocks % 1024).to_bytes(4), 0, 0, 1, 0])
                written = await device.command(write, lun=0, data_out=data)
                if written.status == 0:
                    assert (await device.command(read, lun=0, read_bytes=512)).data == data
                    blocks += 1
            return blocks

        async def commanding(name: int) -> None:
            async with row.host(name=bytes([name + 1]) * 8) as host:
                for turn in range(5):
                    text = f"{name} {turn}"
                    assert await host.command(11, "echo", text=text) == {"array": "c", "text": text}

        doing = asyncio.ensure_future(io())
        await asyncio.gather(*(commanding(name) for name in range(16)))
        working = False
        assert await doing > 0
    assert row.arrays["c"]._commands._executor.begun == 16 * 5


# -- from the link's side ----------------------------------------------------------------------------------------------


async def ask(row: Commanded, payload: bytes) -> bytes:
    """What `b` answers to `a`."""
    return await asking.ask(row.arrays["a"]._links.request, "b", payload)


async def test_what_is_no_question_is_refused_and_the_link_stays(row: Commanded) -> None:
    trail = Message(number(1), (), 1000, trail=("x",))
    for payload in (
        b"",
        b"\0",
        b"\4",
        bytes((Operation.SUBMIT,)) + trail.encode(),
        bytes((Operation.OBTAIN,)) + b"short",
    ):
        answer = await ask(row, payload)
        assert asking.outcome_of(answer) == Outcome.MALFORMED
        assert answer[1:].decode()
    assert asking.outcome_of(await ask(row, asking.obtain(number(1)))) == Outcome.UNKNOWN
    assert row.is_up("a", "b")


CHANGES = 4
"""Each message is asked as it is, and with one to three bytes changed."""


async def test_whatever_an_array_asks_it_is_answered(row: Commanded) -> None:
    """Messages of every kind, whole, cut short and changed; the link stays."""
    found: list[bytes] = []

    @settings(max_examples=examples(200) // CHANGES, database=None, phases=[Phase.generate])
    @given(
        st.one_of(st.binary(max_size=80), MESSAGES.map(lambda message: asking.submit(message.encode()))),
        st.randoms(use_true_random=False),
    )
    def generate(payload: bytes, random: Random) -> None:
        for count in range(CHANGES):
            changed = bytearray(payload)
            for _ in range(count if payload else 0):
                changed[random.randrange(len(payload))] = random.randrange(256)
            found.append(bytes(changed))

    generate()
    for payload in found:
        async with asyncio.timeout(10):
            assert asking.outcome_of(await ask(row, payload)) in Outcome
    assert row.is_up("a", "b")


def test_answers_that_are_none_are_refused() -> None:
    for answer in (b"", b"\x09"):
        with pytest.raises(FormatError):
            asking.outcome_of(answer)
    ended = Ended("c", 1, number(1), 0, b"{}").encode()
    for wrong in (ended[:-1], ended + b"\0", b"\xff" * 10):
        with pytest.raises(FormatError):
            decode_ended(wrong)
