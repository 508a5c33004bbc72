"""REPORT LUNS (SPC-5, 6.33)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi.cdb import be32
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import Asc, invalid_field

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.task import Task

WITHOUT_WELL_KNOWN, WELL_KNOWN, ALL = 0x00, 0x01, 0x02
"""SELECT REPORT; there are no well known logical units."""


def report_luns(_unit: LogicalUnit, task: Task) -> None:
    """REPORT LUNS: what this nexus sees. Its unit attentions for changed LUNs are cleared by that (SPC-5, 6.33)."""
    nexus: Nexus = task.nexus
    if task.cdb[2] not in (WITHOUT_WELL_KNOWN, WELL_KNOWN, ALL):
        raise invalid_field(2)
    luns = [] if task.cdb[2] == WELL_KNOWN else sorted(nexus.units)
    for unit in nexus.units.values():
        unit.clear_attention(Asc.REPORTED_LUNS_DATA_HAS_CHANGED, nexus)
    listed = b"".join(lun.to_bytes(8, "big") for lun in luns)
    task.reply(len(listed).to_bytes(4, "big") + bytes(4) + listed, be32(task.cdb, 6))


REPORT_LUNS = Command(
    "REPORT LUNS",
    0xA0,
    None,
    bytes.fromhex("a000ff000000ffffffff0004"),
    report_luns,
    reserved=Reserved.ALLOWED,
    ignores_attention=True,
)
