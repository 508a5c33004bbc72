"""An array's room of pairs for all tests of it, which leaves no task behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.replication.stage_lab import Lab


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab()
    yield lab
    await lab.end()
    assert asyncio.all_tasks() == {asyncio.current_task()}
