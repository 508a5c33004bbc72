"""Mode pages: what they say of a logical unit, and what of it a host may change (SPC-5, 7.5; SBC-4, 6.5).

Nothing is saved: a reset brings back the defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arrayd.volumes.volume import Volume

CACHING = 0x08
CONTROL = 0x0A
INFORMATIONAL_EXCEPTIONS = 0x1C

WCE = 0x04
"""Caching page, byte 2: a write is acknowledged before it is on the medium."""

D_SENSE = (2, 0x04)
SWP = (4, 0x08)
TAS = (5, 0x40)
"""Control page: byte and bit of descriptor format sense data, software write protect, task aborted status."""

_CACHING_LENGTH = 20
_CONTROL_DEFAULT = bytes.fromhex("0a0a0210000000000000ffff")[:10] + bytes(2)
"""GLTSD=1: no log parameter is saved. QUEUE ALGORITHM MODIFIER 1: simple tasks run in any order. TST=0, QERR=0."""
_INFORMATIONAL_EXCEPTIONS = bytes.fromhex("1c0a08000000000000000000")
"""DEXCPT=1: no informational exception is ever reported."""


class ModePages:
    """The mode pages of a logical unit on `volume` (None: a unit without a medium)."""

    def __init__(self, volume: Volume | None) -> None:
        self.volume = volume
        self._control = bytearray(_CONTROL_DEFAULT)

    @property
    def descriptor_sense(self) -> bool:
        """D_SENSE: sense data comes in descriptor format."""
        return self._is_set(D_SENSE)

    @property
    def software_write_protect(self) -> bool:
        """SWP: writes are refused."""
        return self._is_set(SWP)

    @property
    def task_aborted_status(self) -> bool:
        """TAS: a task aborted by another nexus ends with status TASK ABORTED, not silently."""
        return self._is_set(TAS)

    def _is_set(self, bit: tuple[int, int]) -> bool:
        return bool(self._control[bit[0]] & bit[1])

    def reset(self) -> None:
        """Back to the defaults."""
        self._control[:] = _CONTROL_DEFAULT

    def codes(self) -> list[int]:
        """The page codes there are, in ascending order."""
        medium = [] if self.volume is None else [CACHING]
        return [*medium, CONTROL, INFORMATIONAL_EXCEPTIONS]

    def current(self, code: int) -> bytes:
        """The page with its current values. PS is 0: it cannot be saved."""
        return bytes(self._control) if code == CONTROL else self.default(code)

    def default(self, code: int) -> bytes:
        """The page with its default values."""
        if code == CACHING:
            assert self.volume is not None
            return bytes((CACHING, _CACHING_LENGTH - 2, WCE if self.volume.write_cache else 0)) + bytes(17)
        return _CONTROL_DEFAULT if code == CONTROL else _INFORMATIONAL_EXCEPTIONS

    def changeable(self, code: int) -> bytes:
        """The page with ones where a host may change it."""
        page = bytearray(self.default(code)[:2].ljust(len(self.default(code)), b"\0"))
        takes_commands = self.volume is not None and self.volume.takes_commands
        if code == CONTROL and not takes_commands:  # which has no MODE SELECT
            for byte, bit in (D_SENSE, SWP, TAS):
                page[byte] |= bit
        return bytes(page)

    def change(self, page: bytes) -> None:
        """Takes a page whose every change is allowed."""
        if page[0] == CONTROL:
            self._control[:] = page
