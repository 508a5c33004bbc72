"""The command device management table (501, figure 5): own command devices, and the LUNs that lead to others'."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

from arrayd.config import values
from arrayd.estate.errors import Conflict, Invalid, NotFound
from arrayd.estate.ledger import Ledger, Save
from arrayd.estate.rows import Source, source
from arrayd.tables.estate import drop_command_device, put_command_device


class DeviceRow(NamedTuple):
    """One row of the table: the array, and the LUN here of its command device, or of the virtual volume that leads to
    it."""

    array: str
    lun: int
    source: Source


class Devices:
    """The rows of other arrays come and go here; own ones are rows of the LUN map."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def rows(self) -> list[DeviceRow]:
        """All of them: own ones first."""
        held, config = self._ledger.held, self._ledger.held.config
        own = [
            DeviceRow(config.array.name, number, source(config.luns, number))
            for number, lun in sorted(held.luns.items())
            if lun.command_device is not None
        ]
        in_file = {lun: array for array, lun in config.commands.devices.items()}
        others = sorted((array, lun) for lun, array in held.devices.items())
        return own + [DeviceRow(array, lun, source(in_file, lun)) for array, lun in others]

    # -- by command --------------------------------------------------------------------------------------------------

    async def add(self, array: str, lun: int, save: Save) -> None:
        """Notes that the virtual LUN leads to the command device of an array. Raises EstateError."""
        await self._ledger.in_turn(partial(self._add, array, lun, save))

    async def _add(self, array: str, lun: int, save: Save) -> None:
        try:
            values.array_name(array)
            values.lun(lun)
        except ValueError as error:
            raise Invalid(f"array {array[:64]!r}, LUN {lun}: expected {error}") from error
        held = self._ledger.held
        if array == held.config.array.name:
            raise Invalid(f"array {array}: its own command devices are rows of the LUN map")
        if lun not in held.luns:
            raise NotFound(f"LUN {lun}: nothing is mapped there")
        if held.luns[lun].virtual is None:
            raise Invalid(f"LUN {lun}: leads to no other array")
        if lun in held.devices:
            raise Conflict(f"LUN {lun}: leads to the command device of array {held.devices[lun]} already")
        rows = replace(held.rows, devices={**held.rows.devices, lun: array})
        self._ledger.check(rows)
        await self._ledger.commit(rows, put_command_device(array, lun), save)

    async def remove(self, array: str, lun: int, save: Save) -> None:
        """Forgets it again. Raises EstateError."""
        await self._ledger.in_turn(partial(self._remove, array, lun, save))

    async def _remove(self, array: str, lun: int, save: Save) -> None:
        held = self._ledger.held
        if held.config.commands.devices.get(array) == lun:
            raise Conflict(f"array {array}, LUN {lun}: set in the configuration file")
        if held.rows.devices.get(lun) != array:
            raise NotFound(f"array {array}, LUN {lun}: not in the table")
        rows = replace(held.rows, devices={other: name for other, name in held.rows.devices.items() if other != lun})
        await self._ledger.commit(rows, drop_command_device(array, lun), save)
