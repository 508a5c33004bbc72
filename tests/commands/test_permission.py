"""Who may command: hosts and arrays that are named, and nobody who only says that it is one of them."""

from __future__ import annotations

import pytest

from arrayd.commands.permission import Permission
from arrayd.commands.results import Result
from arrayd.origin import Origin, over_link
from tests.commands.conftest import Commanded
from tests.lab.commanding import CommandFailed
from tests.lab.initiator import LoginRefusedError
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

HOST = "iqn.1993-08.org.debian:01:host1"
INITIATOR_ERROR = 0x0200


@pytest.mark.parametrize(
    ("origin", "by_default", "by_name"),
    [
        (Origin(HOST, local=True), True, True),
        (Origin(HOST), False, True),
        (Origin("iqn.x:other", local=True), True, False),
        (over_link(HOST, ("b",), local=True), True, True),
        (over_link(HOST, ("b",), local=False), False, True),
        (over_link("iqn.x:other", ("b",), local=True), True, False),
        (over_link(HOST, ("c", "b"), local=True), True, True),
        (over_link(HOST, ("b", "c"), local=True), False, False),
        (over_link("b", ("b",), local=False), True, True),
        (over_link("c", ("c", "b"), local=False), True, True),
        (over_link("c", ("c",), local=False), False, False),
        (over_link("c", ("b",), local=False), False, False),
        (Origin("a", is_array=True), True, True),
        (Origin("b", is_array=True), False, False),
        (Origin("a"), False, False),
    ],
)
def test_who_may(origin: Origin, by_default: bool, by_name: bool) -> None:
    """`b` is the array whose commands are taken; by name, the host as well."""
    assert (Permission("a", None, frozenset("b")).refusal(origin) is None) == by_default
    assert (Permission("a", frozenset({HOST}), frozenset("b")).refusal(origin) is None) == by_name


async def test_a_host_that_is_called_as_an_array_does_not_log_in(row: Commanded) -> None:
    for name in ("a", "b", "host"):
        with pytest.raises(LoginRefusedError) as refused:
            await row.session("a", name=name)
        assert refused.value.status == INITIATOR_ERROR


async def test_a_virtual_volume_is_no_way_around_the_names(row: Commanded) -> None:
    await row.stop("c")
    await row.begin("c", commands={"initiators": [HOST]})
    await until(lambda: row.is_up("b", "c"))
    async with row.host() as host:
        for sent in (host.command(11, "echo", text="hi"), host.addressed(("b", "c"), "echo", text="hi")):
            with pytest.raises(CommandFailed) as failed:
                await sent
            assert (failed.value.result, failed.value.told["at"]) == (Result.NOT_AUTHORISED, "c")
        # What array `a` sends by itself is its own.
        for way in ({"path": ["b", "c"]}, {"lun": 11}):
            assert (await host.command(9, "send", command="echo", **way))["result"] == Result.OK
