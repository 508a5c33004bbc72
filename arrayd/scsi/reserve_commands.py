"""PERSISTENT RESERVE IN and OUT (SPC-5, 6.15 and 6.16), RESERVE and RELEASE (SPC-2, 7.16 to 7.22)."""

from __future__ import annotations

from arrayd.scsi.command import Command

COMMANDS: tuple[Command, ...] = ()
