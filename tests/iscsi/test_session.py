"""Who may log in, how many, what they see, and what a reload of the rules does to them."""

from __future__ import annotations

import pytest

from arrayd.iscsi.chap import Credentials
from arrayd.iscsi.login import Access
from arrayd.iscsi.pdu import LoginStatus, Opcode
from arrayd.iscsi.session import SESSIONS_MAX, InitiatorRule, Node, NodeRules
from arrayd.scsi.task import Status
from tests.iscsi.session_driver import HOST, ISID, KEYS, Host, assert_nothing_left, make_node
from tests.scsi.memory_volume import MemoryVolume

STRANGER = "iqn.1993-08.org.debian:01:stranger"
CHAP = Access(chap=Credentials("user", b"a secret of 16 b"))


def status_of(node: Node, *, discovery: bool = False, tsih: int = 0, isid: bytes = ISID, **options: object) -> int:
    """What a login without a proof ends with."""
    host = Host(node, isid=isid, **options)  # type: ignore[arg-type]
    host.feed(host.login_request(KEYS, discovery, tsih=tsih))
    response = host.only()
    assert response.opcode == Opcode.LOGIN_RESPONSE
    host.close()
    return int(response.status)


@pytest.mark.parametrize("discovery", [False, True])
async def test_without_rules_anyone_from_loopback(discovery: bool) -> None:
    node = make_node()
    assert status_of(node, discovery=discovery, name=STRANGER) == LoginStatus.SUCCESS
    refused = status_of(node, discovery=discovery, name=STRANGER, from_loopback=False)
    assert refused == LoginStatus.AUTHORIZATION_FAILURE
    assert_nothing_left(node)


@pytest.mark.parametrize("discovery", [False, True])
@pytest.mark.parametrize("from_loopback", [False, True])
async def test_with_rules_those_who_are_named(discovery: bool, from_loopback: bool) -> None:
    node = make_node(initiators={HOST: InitiatorRule(Access())})
    named = status_of(node, discovery=discovery, name=HOST, from_loopback=from_loopback)
    stranger = status_of(node, discovery=discovery, name=STRANGER, from_loopback=from_loopback)
    assert (named, stranger) == (LoginStatus.SUCCESS, LoginStatus.AUTHORIZATION_FAILURE)
    assert_nothing_left(node)


async def test_names_are_compared_in_lower_case() -> None:
    node = make_node(initiators={HOST: InitiatorRule(Access())})
    assert status_of(node, name=HOST.upper()) == LoginStatus.SUCCESS
    assert_nothing_left(node)


async def test_with_a_secret_for_discovery_anyone_who_knows_it() -> None:
    node = make_node(initiators={HOST: InitiatorRule(Access())}, discovery=CHAP)
    assert status_of(node, discovery=True, name=STRANGER) == LoginStatus.AUTHENTICATION_FAILURE
    assert status_of(node, name=HOST) == LoginStatus.SUCCESS


async def test_an_initiator_sees_its_luns_and_no_others() -> None:
    volumes = {number: MemoryVolume(f"410001:{number}") for number in range(3)}
    node = make_node(volumes, initiators={HOST: InitiatorRule(Access(), frozenset({0, 2}))})
    host = Host(node).login()
    for lun, asc in ((0, None), (1, b"\x25\0"), (2, None), (3, b"\x25\0")):
        outcome = await host.run(bytes(6), lun=lun)
        assert (outcome.sense[12:14] or None if outcome.status else None) == asc
    listed = await host.run(bytes([0xA0, *bytes(8), 64, 0, 0]), expected_in=64)
    assert [listed.data[at + 1] for at in range(8, 8 + listed.data[3], 8)] == [0, 2]
    host.close()
    assert_nothing_left(node)


async def test_as_many_sessions_as_there_may_be() -> None:
    node = make_node()
    hosts = [Host(node, isid=number.to_bytes(6, "big")).login() for number in range(SESSIONS_MAX)]
    assert len({host.connection.session for host in hosts}) == len(node.sessions) == SESSIONS_MAX
    assert status_of(node, isid=bytes([0xFF]) * 6) == LoginStatus.OUT_OF_RESOURCES
    hosts.pop().close()
    assert status_of(node, isid=bytes([0xFF]) * 6) == LoginStatus.SUCCESS
    for host in hosts:
        host.close()
    assert_nothing_left(node)


async def test_a_full_node_still_reinstates() -> None:
    node = make_node()
    hosts = [Host(node, isid=number.to_bytes(6, "big")).login() for number in range(SESSIONS_MAX)]
    again = Host(node, isid=hosts[0].isid).login()
    assert hosts[0].ending()
    assert len(node.sessions) == SESSIONS_MAX
    for host in (*hosts, again):
        host.close()
    assert_nothing_left(node)


async def test_tsihs_are_not_used_twice_and_never_zero() -> None:
    node = make_node()
    kept = Host(node).login()
    kept_tsih = kept.connection.session.parameters.tsih  # type: ignore[union-attr]
    node._last_tsih = 0xFFFE
    seen = set()
    for number in range(4):
        host = Host(node, isid=bytes([1, 0, 0, 0, 0, number])).login()
        seen.add(host.connection.session.parameters.tsih)  # type: ignore[union-attr]
    assert len(seen) == 4
    assert 0 not in seen
    assert kept_tsih not in seen


async def test_no_second_connection_and_no_session_that_is_not_there() -> None:
    node = make_node()
    host = Host(node).login()
    tsih = host.connection.session.parameters.tsih  # type: ignore[union-attr]
    assert status_of(node, tsih=tsih) == LoginStatus.TOO_MANY_CONNECTIONS
    assert status_of(node, tsih=tsih, isid=bytes(6)) == LoginStatus.SESSION_DOES_NOT_EXIST
    assert status_of(node, tsih=tsih, name=STRANGER) == LoginStatus.SESSION_DOES_NOT_EXIST
    assert status_of(node, tsih=tsih + 1) == LoginStatus.SESSION_DOES_NOT_EXIST
    assert (await host.run(bytes(6))).status == Status.GOOD


async def test_only_the_same_initiator_port_is_reinstated() -> None:
    node = make_node()
    sessions = [
        Host(node).login(),
        Host(node, isid=bytes(6)).login(),
        Host(node, name=STRANGER).login(),
        Host(node).login(discovery=True),
    ]
    again = Host(node).login()
    assert [host.ending() for host in sessions] == [True, False, False, False]
    another = Host(node).login(discovery=True)
    assert [host.ending() for host in (*sessions, again)] == [True, False, False, False, False]
    for host in (*sessions, again, another):
        host.close()
    assert_nothing_left(node)


async def test_new_rules_drop_who_may_no_longer_log_in_and_show_the_others_their_luns() -> None:
    kept = "iqn.2026-11.io.arrayd:kept"
    node = make_node(initiators={name: InitiatorRule(Access()) for name in (HOST, STRANGER, kept)})
    hosts = [Host(node, name=name).login() for name in (HOST, STRANGER, kept)]
    finds_targets = Host(node, name=STRANGER).login(discovery=True)
    rules = {HOST: InitiatorRule(Access(), frozenset({1})), kept: InitiatorRule(CHAP)}
    node.apply(NodeRules(rules, Access()))
    assert [host.ending() for host in (*hosts, finds_targets)] == [False, True, False, False]
    assert [(await hosts[0].run(bytes(6))).sense[12:14] for _ in range(2)] == [b"\x29\0", b"\x3f\x0e"]
    assert (await hosts[0].run(bytes([0x12, 0, 0, 0, 36, 0]), expected_in=36)).data[0] & 0x1F == 0x0C
    assert (await hosts[2].run(bytes(6))).status == Status.GOOD
    node.apply(NodeRules(None, Access()))
    assert [host.ending() for host in (*hosts, finds_targets)] == [False, True, False, False]
    for host in (*hosts, finds_targets):
        host.close()
    assert_nothing_left(node)
