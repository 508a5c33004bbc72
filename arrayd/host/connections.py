"""The arrays that a host is connected to: one session or device each, and a transport for every LUN that is used."""

from __future__ import annotations

from pathlib import Path

from arrayd.config import values
from arrayd.host.addresses import IscsiAddress
from arrayd.host.disk import DeviceFile, DiskTransport, SgUnit, beside, kind_of
from arrayd.host.initiator import Initiator, InitiatorUnit
from arrayd.host.paths import OWN_LUN, PathTable
from arrayd.host.scsi import ScsiTransport
from arrayd.host.transport import Transport

INITIATOR_FILE = Path("/etc/iscsi/initiatorname.iscsi")
"""Where open-iscsi keeps the name of this machine's initiator."""
INITIATOR_FILE_BYTES_MAX = 4096
OUR_NAME = "iqn.2026-11.io.arrayd:arrayctl"
"""The initiator's name where neither the path table nor the machine has one."""


class Connections:
    """Transports by array and LUN, opened when first asked for. `close` logs out and closes all."""

    def __init__(self, table: PathTable) -> None:
        self._table = table
        self._initiators: dict[str, Initiator] = {}
        self._files: list[DeviceFile | DiskTransport] = []
        self._transports: dict[tuple[str, int], Transport] = {}

    def transport(self, array: str, lun: int) -> Transport:
        """The way to a LUN of an array that the table has a direct path to; OWN_LUN: the one that its row names.

        Raises Unreachable when there is no device for it.
        """
        key = (array, lun)
        if key not in self._transports:
            self._transports[key] = self._open(*key)
        return self._transports[key]

    def close(self) -> None:
        """Logs out everywhere. The connections can be used again: they are made anew."""
        for initiator in self._initiators.values():
            initiator.close()
        for file in self._files:
            file.close()
        self._initiators.clear()
        self._files.clear()
        self._transports.clear()

    def _open(self, array: str, lun: int) -> Transport:
        address = self._table.rows[array].address
        assert address is not None
        if isinstance(address, IscsiAddress):
            initiator = self._initiators.get(array)
            if initiator is None:
                name = self._table.initiator or machine_initiator()
                initiator = self._initiators[array] = Initiator(address, name)
            number = address.lun if lun == OWN_LUN else lun
            return ScsiTransport(InitiatorUnit(initiator, number), f"LUN {number} of {array}")
        path = address.path if lun == OWN_LUN else beside(address.path, lun)
        if kind_of(path) == "disk":
            disk = DiskTransport(path)
            self._files.append(disk)
            return disk
        file = DeviceFile(path, direct=False)
        self._files.append(file)
        return ScsiTransport(SgUnit(file), file.name)


def machine_initiator(file: Path = INITIATOR_FILE) -> str:
    """The name that open-iscsi logs in by on this machine, so that arrays know one host by one name."""
    try:
        with file.open("rb") as stream:
            text = stream.read(INITIATOR_FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return OUR_NAME
    for line in text.splitlines():
        key, _, name = line.partition("=")
        if key.strip() == "InitiatorName":
            try:
                return values.iscsi_name(name.strip())
            except ValueError:
                break
    return OUR_NAME
