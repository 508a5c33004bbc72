"""What the tests of several files here stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.iscsi.serving import Serving
from tests.iscsi.session_driver import assert_nothing_left
from tests.lab.waiting import until


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    """A server; afterwards nothing is left of its sessions, and nothing went wrong in the loop."""
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _loop, context: faults.append(context))
    serving = Serving()
    yield serving
    serving.server.stop_listening()
    serving.server.close()
    assert not serving.server.connections
    assert not serving.server.half_open
    await until(lambda: not serving.node.target.units[0].tasks)  # type: ignore[attr-defined]
    assert_nothing_left(serving.node)
    assert not faults
