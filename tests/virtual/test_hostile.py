"""What another array may say: every field of every request and answer set to wrong values, and frames to anything.

It ends the connection with a reason, or is refused with one; never with an exception, and nobody waits for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.link.channel import LinkError, Request
from arrayd.link.frames import HEADER_BYTES, MORE, SHORT_HEADER, Kind, frame, short
from arrayd.scsi.alua import Port
from arrayd.virtual.formats import (
    ANSWER,
    ANSWER_BYTES,
    ANSWER_HEAD,
    ATTACH,
    DETACH,
    EXECUTE,
    MANAGE,
    SERVICE,
    Operation,
    Outcome,
)
from tests.iscsi.requests import read_10, write_10
from tests.lab.search import examples
from tests.link.ends import give, taken
from tests.scsi.initiator import GROUP, PORTS
from tests.virtual.pair import NEAR, Pair

T = TypeVar("T")

U8, U16, U32, U64 = (st.one_of(st.integers(0, 3), st.integers(0, (1 << bits) - 1)) for bits in (8, 16, 32, 64))
TEXT = st.text(max_size=60).filter(lambda text: len(text.encode()) < 256)
CDBS = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda code, rest: bytes([code]) + rest, st.sampled_from([0, 0x12, 0x25, 0x28, 0x2A, 0x88, 0x8A, 0xA0]),
              st.binary(min_size=15, max_size=15)),
)  # fmt: skip


def execute(cdb: bytes, data: bytes, cdb_length: int | None = None, **fields: int) -> bytes:
    """An EXECUTE; `cdb_length` None: the right one."""
    told = {"attribute": 1, "nexus": 1, "lun": 0, "tag": 1, "expected_out": len(data), "expected_in": 0} | fields
    length = len(cdb) if cdb_length is None else cdb_length
    built: bytes = EXECUTE.build({"operation": Operation.EXECUTE, "cdb_length": length, **told})
    return built + cdb + data


REQUESTS: dict[str, st.SearchStrategy[bytes]] = {
    "EXECUTE": st.builds(
        execute, CDBS, st.binary(max_size=1024), st.one_of(st.none(), U16), attribute=U8, nexus=U32, lun=U64, tag=U32,
        expected_out=U32, expected_in=U32,
    ),
    "ATTACH": st.builds(
        lambda **told: ATTACH.build({"operation": Operation.ATTACH, **told}), nexus=U32, initiator=TEXT,
        isid=st.binary(min_size=6, max_size=6), port=U16, group=U16, port_name=TEXT,
        local=U8,
        path=st.builds(lambda way, last: way + last, st.lists(st.one_of(TEXT, st.just("b")), max_size=12),
                       st.sampled_from([[], ["a"]])),
    ),
    "DETACH": st.builds(lambda **told: DETACH.build({"operation": Operation.DETACH, **told}), nexus=U32),
    "MANAGE": st.builds(
        lambda **told: MANAGE.build({"operation": Operation.MANAGE, **told}), function=U8, nexus=U32, lun=U64, tag=U32
    ),
    "anything": st.binary(max_size=120),
}  # fmt: skip


def ask(pair: Pair, payload: bytes) -> list[bytes | LinkError]:
    """Asks the far array, past the near end; what came of it."""
    ended: list[bytes | LinkError] = []

    def note(answer: memoryview | LinkError) -> None:
        ended.append(answer if isinstance(answer, LinkError) else bytes(answer))

    pair.line.a.channel.request(Request(SERVICE, payload, b"", 1 << 20, note))
    pair.line.settle()
    return ended


SAID = 5
"""To make two arrays and log in takes longer than what is then said: so much is said in one example."""


def several(said: st.SearchStrategy[T]) -> st.SearchStrategy[list[T]]:
    return st.lists(said, min_size=SAID, max_size=SAID)


@pytest.mark.parametrize("what", REQUESTS)
@settings(max_examples=examples(60) // SAID)
@given(data=st.data())
async def test_whatever_is_asked_is_answered_or_ends_the_connection(what: str, data: st.DataObject) -> None:
    pair = Pair().login()
    for payload in data.draw(several(st.one_of(REQUESTS[what], REQUESTS[what].map(lambda built: built[:-1])))):
        await answered_or_ended(pair, payload)
        assert pair.line.b.connection is not None
        if pair.line.b.connection.closing:
            pair = Pair().login()


async def answered_or_ended(pair: Pair, payload: bytes) -> None:
    ended = ask(pair, payload)
    for _ in range(50):
        if ended or pair.line.b.connection is None or pair.line.b.connection.closing:
            break
        await asyncio.sleep(0)
        pair.line.settle()
    assert pair.line.b.connection is not None
    if not ended:
        assert pair.line.b.connection.closing.startswith("protocol error: requests of more than")
        return
    (answer,) = ended
    assert not isinstance(answer, LinkError)
    assert answer[0] in set(Outcome)
    assert len(answer) >= ANSWER_HEAD.size + int.from_bytes(answer[2:4])


ANSWERS = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda told: ANSWER.build(told)[: told["cut"]],
        st.fixed_dictionaries({
            "outcome": U8, "status": U8, "sense_length": U16, "wanted_out": U32, "text": st.binary(max_size=5000),
            "cut": st.sampled_from([None, 7, 8, 9]),
        }),
    ),
)  # fmt: skip


@settings(max_examples=examples(150) // SAID)
@given(said=several(st.tuples(ANSWERS, st.sampled_from(["read", "write", "inquiry"]))))
async def test_whatever_is_answered_the_host_gets_an_answer(said: list[tuple[bytes, str]]) -> None:
    pair = Pair().login()
    for answer, op in said:
        host_gets_an_answer(pair, answer, op)
        assert pair.line.a.connection is not None
        waits = not pair.last.ended or any(list(unit.tasks) for unit in pair.near_target.units.values())
        if waits or pair.line.a.connection.closing:
            pair = Pair().login()


def host_gets_an_answer(pair: Pair, answer: bytes, op: str) -> None:
    if op == "inquiry":
        outcome = pair.begin(bytes((0x12, 0, 0, 0, 96, 0)), expected_in=96)
    else:
        cdb = read_10(0, 8) if op == "read" else write_10(0, 8)
        outcome = pair.begin(cdb, expected_in=4096 * (op == "read"), out=bytes(4096 * (op == "write")))
    assert pair.line.a.connection is not None
    request = taken(pair.line.a.connection)
    _, number = SHORT_HEADER.unpack_from(request, HEADER_BYTES)
    give(pair.line.a.connection, frame(Kind.ANSWER, short(number, answer)))
    pair.host.pump()
    sense_bytes = int.from_bytes(answer[2:4])
    well_formed = len(answer) >= 8 and answer[0] in set(Outcome) and 8 + sense_bytes <= min(len(answer), ANSWER_BYTES)
    if len(answer) > 4096 * (op == "read") + 96 * (op == "inquiry") + ANSWER_BYTES:
        # It is dropped, and the connection goes on.
        assert not pair.line.a.connection.closing
        assert outcome.ended
        assert (outcome.status, outcome.sense[2]) == (2, 0x0B)
        return
    if not well_formed:
        assert pair.line.a.connection.closing.startswith("protocol error: an answer ")
        assert outcome.ended
        assert (outcome.status, outcome.sense[2]) == (2, 0x0B)
    elif answer[0] == Outcome.NO_NEXUS:
        assert taken(pair.line.a.connection)  # it is told of the nexus again
    elif answer[0] != Outcome.ABORTED:
        assert outcome.ended
    assert not any(list(unit.tasks) for unit in pair.near_target.units.values()) or answer[0] == Outcome.NO_NEXUS


FIELDS = st.fixed_dictionaries(
    {"flags": st.sampled_from([0, MORE, 2, 255]), "service": st.sampled_from([0, SERVICE, 9]), "number": U64,
     "received": U32},
)  # fmt: skip


PAYLOADS = st.one_of(
    st.binary(max_size=100),
    st.lists(st.builds(short, U64, st.one_of(st.binary(max_size=100), REQUESTS["EXECUTE"])), max_size=3).map(b"".join),
    st.builds(lambda length, number, rest: SHORT_HEADER.pack(length, number) + rest, U32, U64, st.binary(max_size=100)),
)


@settings(max_examples=examples(300) // SAID)
@given(
    frames=several(st.tuples(U8, PAYLOADS, FIELDS)),
    towards=st.booleans(),
)
async def test_every_field_of_a_frame(frames: list[tuple[int, bytes, dict[str, Any]]], towards: bool) -> None:
    pair: Pair | None = None
    for kind, payload, fields in frames:
        if pair is None:
            pair = Pair().login()
            pair.begin(read_10(0, 8), expected_in=4096)
        end = pair.line.b if towards else pair.line.a
        assert end.connection is not None
        give(end.connection, frame(kind, payload, **fields))  # type: ignore[arg-type]
        closing = end.connection.closing
        assert not closing or closing.startswith(("protocol error: ", "ended by the other "))
        if closing:
            pair = None


@pytest.mark.parametrize("path", [[], ["c"], ["a", "c"], ["a", "a\0"], ["A"]])
async def test_a_path_ends_with_the_array_that_asks(path: list[str]) -> None:
    """Who may command is decided by it: an array cannot pass itself off as another."""
    pair = Pair().login()
    told = {
        "operation": Operation.ATTACH,
        "initiator": "iqn.x:host",
        "isid": bytes(6),
        "nexus": 77,
        "local": 0,
        "port": 101,
    }
    told |= {"group": 100, "port_name": "iqn.x:near"}
    nexuses = len(pair.far_target.nexuses)
    (answer,) = ask(pair, ATTACH.build({**told, "path": path}))
    assert isinstance(answer, bytes)
    assert answer[0] == Outcome.REFUSED
    assert answer[ANSWER_HEAD.size :] == b"it comes by another array than it says"
    assert len(pair.far_target.nexuses) == nexuses
    (answer,) = ask(pair, execute(bytes(16), b"", nexus=77))
    assert isinstance(answer, bytes)
    assert answer[0] == Outcome.REFUSED
    (answer,) = ask(pair, ATTACH.build({**told, "path": ["z", "a"]}))
    assert isinstance(answer, bytes)
    assert answer[0] == Outcome.DONE


@pytest.mark.parametrize(
    "port", [Port(PORTS[0], 100, "iqn.x:near"), Port(101, GROUP, "iqn.x:near")], ids=["identifier", "group"]
)
async def test_a_port_of_ours_is_not_anothers(port: Port) -> None:
    pair = Pair().login()
    told = {"initiator": "iqn.x:host", "isid": bytes(6), "path": ["a"], "nexus": 77, "local": 0}
    port_fields = {"port": port.identifier, "group": port.group, "port_name": port.name}
    target = pair.far_target
    pair.far._attach = lambda initiator, isid, at, path, local: target.attach(
        initiator, isid, at[0], None, Port(*at), path, local=local
    )
    (answer,) = ask(pair, ATTACH.build({"operation": Operation.ATTACH, **told, **port_fields}))
    assert isinstance(answer, bytes)
    assert answer[0] == Outcome.REFUSED
    assert b"is one of this array's own" in answer
    (answer,) = ask(pair, execute(bytes(16), b"", nexus=77))
    assert isinstance(answer, bytes)
    assert answer[0] == Outcome.REFUSED
    fine = {"port": NEAR.identifier, "group": NEAR.group, "port_name": NEAR.name}
    (answer,) = ask(pair, ATTACH.build({"operation": Operation.ATTACH, **told, **fine}))
    assert isinstance(answer, bytes)
    assert answer[0] == Outcome.DONE
