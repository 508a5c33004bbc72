"""An array stops while commands of its own, and of its hosts, wait for others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.commands.conftest import Commanded
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

SOON = 15.0
"""The server lets hosts log out before that, and what is in flight be answered."""


@pytest.mark.parametrize("way", [{"path": ["b"]}, {"lun": 10}])
async def test_an_array_stops_while_it_waits_for_an_answer(row: Commanded, way: dict[str, Any]) -> None:
    async with row.host() as host, row.arrays["b"]._commands._executor._changing:
        told = {"command": "volume-create", "input": {"name": "late", "size": 512}, "timeout": 600.0}
        await host.write_message(host.message(host.request("send", **told, **way), seconds=600))
        await until(lambda: row.arrays["b"]._commands._executor.running > 0)
        begun = time.monotonic()
        await asyncio.wait_for(row.stop("a"), 40)
        assert time.monotonic() - begun < SOON


async def test_an_array_stops_while_messages_are_on_their_way(row: Commanded) -> None:
    async with row.host() as host, row.arrays["b"]._commands._executor._changing:
        request = host.request("volume-create", name="late", size=512)
        await host.write_message(host.message(*row.to("b"), request, seconds=600))
        await until(lambda: row.arrays["b"]._commands._executor.running > 0)
        begun = time.monotonic()
        await asyncio.wait_for(row.stop("a"), 40)
        assert time.monotonic() - begun < SOON
