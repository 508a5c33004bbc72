"""The guest that all tests of a run share."""

import pytest

from tests.lab import initramfs, kernel, openiscsi, parts
from tests.lab.guest import Guest, GuestError


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

    def put_in_order(self) -> None:
        """No session, no mount and an empty dmesg; it is stopped if that cannot be had."""
        if self._guest is not None:
            try:
                openiscsi.forget_everything(self._guest)
            except GuestError:
                self.stop()

    def stop(self) -> None:
        """End the guest; the next test boots another."""
        if self._guest is not None:
            self._guest.stop()
