"""The link over TLS: both show a certificate of the CA for their own name, or hear why not."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trustme
from structlog.testing import capture_logs

from arrayd.link import peers as rules
from arrayd.link.channel import LinkError
from arrayd.link.peers import Links, Settings
from arrayd.sockets import Address
from tests.lab.waiting import until
from tests.link.ends import SECRET, Answers, echo

HERE = ("127.0.0.1", 0)
MIB = 1024 * 1024


def contexts(ca: trustme.CA, trusted: trustme.CA, name: str | None) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For who dials and who listens, as `arrayd.config.tls` makes them: a certificate of `ca` for `name` (None: none),
    and trust in `trusted` alone."""
    made = []
    for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH):
        context = ssl.create_default_context(purpose, cadata=trusted.cert_pem.bytes().decode())
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        if name is not None:
            ca.issue_cert(name).configure_cert(context)
        made.append(context)
    return made[0], made[1]


class Ends:
    """Array `b` listens, `a` dials; the CA of both is `ca` unless a test says otherwise."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.links: list[Links] = []
        self.answers = Answers()

    def start(
        self, name: str, arrays: dict[str, Address | None], pair: tuple[ssl.SSLContext, ssl.SSLContext] | None
    ) -> Address:
        settings = Settings(name, f"serial-{name}", arrays, SECRET, timeout=60.0, listen=HERE)
        if pair is not None:
            settings = replace(settings, client=pair[0], server=pair[1])
        links = Links(settings, lambda _name: {1: echo}, lambda _name: None, os.urandom, time.monotonic)
        self.links.append(links)
        return links.start() or HERE

    def link(self, pair: tuple[ssl.SSLContext, ssl.SSLContext] | None) -> None:
        """`b` with a right certificate, and `a` with these."""
        address = self.start("b", {"a": None}, contexts(self.ca, self.ca, "b"))
        self.start("a", {"b": address}, pair)

    @property
    def up(self) -> bool:
        return all(peer.stream is not None for links in self.links for peer in links.peers.values())

    @property
    def reason(self) -> str:
        """Why the one who dials has no connection."""
        return self.links[1].peers["b"].reason

    async def ask(self, data: bytes) -> bytes | LinkError:
        key = len(self.answers.ended) + 1_000_000
        self.links[1].way("b")(self.answers.request(key, data=data))
        await until(lambda: key in self.answers.ended)
        return self.answers.ended.pop(key)


@pytest.fixture
async def ends(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ends]:
    monkeypatch.setattr(rules, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(rules, "PAUSE_SECONDS_MAX", 0.1)
    ends = Ends()
    yield ends
    for links in ends.links:
        await links.stop("the test is over")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_messages_of_all_lengths(ends: Ends) -> None:
    ends.link(contexts(ends.ca, ends.ca, "a"))
    await until(lambda: ends.up)
    for length in (0, 1, 16 * 1024, 64 * 1024, MIB, 8 * MIB - 200):
        data = os.urandom(length)
        assert await ends.ask(data) == b"echo:" + data


async def test_many_long_messages_at_once(ends: Ends) -> None:
    ends.link(contexts(ends.ca, ends.ca, "a"))
    await until(lambda: ends.up)
    data = [os.urandom(MIB) for _ in range(32)]
    for number, payload in enumerate(data):
        ends.links[1].way("b")(ends.answers.request(number, data=payload))
    await until(lambda: len(ends.answers.ended) == len(data))
    assert ends.answers.ended == {number: b"echo:" + payload for number, payload in enumerate(data)}


async def test_a_certificate_of_another_ca_is_refused(ends: Ends) -> None:
    with capture_logs() as logs:
        ends.link(contexts(trustme.CA(), ends.ca, "a"))
        await until(lambda: "unknown ca" in ends.reason.lower())
        assert not ends.up
    assert any("certificate verify failed" in line.get("reason", "") for line in logs)


async def test_an_array_of_another_ca_is_refused(ends: Ends) -> None:
    ends.link(contexts(ends.ca, trustme.CA(), "a"))
    await until(lambda: "certificate verify failed" in ends.reason)
    assert not ends.up


async def test_no_certificate_is_refused(ends: Ends) -> None:
    ends.link(contexts(ends.ca, ends.ca, None))
    await until(lambda: "certificate required" in ends.reason.lower())
    assert not ends.up


async def test_a_certificate_for_another_name_is_refused(ends: Ends) -> None:
    ends.link(contexts(ends.ca, ends.ca, "c"))
    await until(lambda: "its certificate is not for 'a'" in ends.reason)
    assert not ends.up


async def test_the_array_that_is_dialed_has_a_certificate_for_another_name(ends: Ends) -> None:
    address = ends.start("b", {"a": None}, contexts(ends.ca, ends.ca, "c"))
    ends.start("a", {"b": address}, contexts(ends.ca, ends.ca, "a"))
    await until(lambda: "certificate is not valid for 'b'" in ends.reason)


async def test_one_that_speaks_no_tls_is_refused(ends: Ends) -> None:
    ends.link(None)
    await until(lambda: ends.reason not in ("", "not connected yet"))
    assert not ends.up
