"""One guest for all these tests, booted by the first that needs it and put back in order between them."""

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.lab.fixtures import StartArray, start_array
from tests.lab.guest import Guest
from tests.lab.machine import Machine

__all__ = ["guest", "machine", "start_array"]

NICENESS = -5
"""Of the guest, and of the arrays that it uses: it has other tests beside it, and an emulated processor that gets too
little time loses its connections."""


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    with suppress(PermissionError):  # who is not root has to do without
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    machine = Machine()
    yield machine
    machine.stop()


@pytest.fixture
def guest(machine: Machine, start_array: StartArray) -> Iterator[Guest]:
    """The running guest, with no session, no mount and an empty dmesg. It lets go of the arrays before they stop."""
    yield machine.guest()
    machine.put_in_order()
