"""One guest for all these tests, booted by the first that needs it and put back in order between them."""

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.lab import initramfs, kernel, openiscsi, parts
from tests.lab.fixtures import StartArray, start_array
from tests.lab.guest import Guest, GuestError

__all__ = ["guest", "machine", "start_array"]

NICENESS = -5
"""Of the guest, and of the arrays that it uses: it has other tests beside it, and an emulated processor that gets too
little time loses its connections."""


class Machine:
    """The guest of this run; another is booted when it stops answering, so that one failure stays one."""

    def __init__(self) -> None:
        self._guest: Guest | None = None

    def guest(self) -> Guest:
        """The running guest, booted where there is none."""
        if self._guest is None or not self._guest.alive:
            parts.require("qemu-system-x86_64")
            self.stop()
            try:
                linux = kernel.obtain()
            except kernel.KernelUnavailableError as error:
                pytest.skip(f"needs a kernel for the guest: {error}")
            self._guest = Guest(linux, initramfs.build(linux))
        return self._guest

    def stop(self) -> None:
        """End the guest; the next test boots another."""
        if self._guest is not None:
            self._guest.stop()


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
    guest = machine.guest()
    yield guest
    try:
        openiscsi.forget_everything(guest)
    except GuestError:
        machine.stop()
