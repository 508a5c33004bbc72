"""EXTENDED COPY (LID1) and RECEIVE COPY RESULTS (SPC-4, 6.4 and 6.18 to 6.22; SPC-5, 5.18)."""

from __future__ import annotations

from arrayd.scsi.command import Command

COMMANDS: tuple[Command, ...] = ()
