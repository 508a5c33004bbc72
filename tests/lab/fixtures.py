"""Fixtures that more than one folder of tests imports into its conftest."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.lab import daemon

StartArray = Callable[..., daemon.ArraydProcess]
"""``start_array(config, secrets=None)``: a running array in a folder of its own, stopped after the test."""


@pytest.fixture
def start_array(tmp_path: Path) -> Iterator[StartArray]:
    """Starts arrays; each must stop cleanly at the end, and its log is shown when the test fails."""
    with ExitStack() as stack:
        started = 0

        def start(config: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> daemon.ArraydProcess:
            nonlocal started
            started += 1
            array = daemon.ArraydProcess(tmp_path / f"array{started}", config, secrets)
            stack.callback(lambda: print(array.log_tail()))
            return stack.enter_context(array)

        yield start
