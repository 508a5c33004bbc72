"""The LUN map (figure 3): what stands at each LUN, volumes, LUNs of other arrays, and command devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from arrayd.config import values
from arrayd.config.load import part
from arrayd.config.mistakes import ConfigError
from arrayd.config.schema import LunConfig
from arrayd.estate.connections import Connections
from arrayd.estate.errors import Conflict, Invalid, NotFound
from arrayd.estate.fronts import Fronts
from arrayd.estate.ledger import Ledger, Save
from arrayd.estate.rows import Source, source, stored_settings
from arrayd.estate.units import Units
from arrayd.estate.uses import Uses, check_free
from arrayd.scsi.virtual_unit import Remote
from arrayd.tables.estate import drop_lun, put_lun
from arrayd.volumes.volume import Volume

MakeDevice = Callable[[int], Volume]
"""`make(lun)`: the command device at a LUN, as a volume. It must not raise."""


class LunRow(NamedTuple):
    """One row of the LUN map, as a command tells of it."""

    lun: int
    settings: LunConfig
    source: Source


class Luns:
    """The LUN map; `make_device` makes the command devices, `uses` knows the volumes whose LUNs stay."""

    def __init__(
        self,
        ledger: Ledger,
        fronts: Fronts,
        connections: Connections,
        units: Units,
        make_device: MakeDevice,
        uses: Uses,
    ) -> None:
        self._ledger = ledger
        self._fronts = fronts
        self._connections = connections
        self._units = units
        self._make_device = make_device
        self._uses = uses
        self.devices: dict[int, Volume] = {}
        """Own command devices, by LUN: the same object as long as it is mapped."""

    def rows(self) -> list[LunRow]:
        """All of them, in order."""
        held = self._ledger.held
        return [LunRow(lun, held.luns[lun], source(held.config.luns, lun)) for lun in sorted(held.luns)]

    def show(self) -> None:
        """Hosts see what the rows say, from now on."""
        luns = self._ledger.held.luns
        devices = [number for number, lun in luns.items() if lun.command_device is not None]
        self.devices = {number: self.devices.get(number) or self._make_device(number) for number in devices}
        sources: dict[int, Volume | Remote] = {}
        for number, lun in luns.items():
            if lun.virtual is not None:
                sources[number] = self._connections.near(lun.virtual.array).unit(lun.virtual.lun)
            elif lun.volume is not None:
                sources[number] = self._fronts.of(lun.volume)
            else:
                sources[number] = self.devices[number]
        self._units.target.set_units(sources)

    # -- by command --------------------------------------------------------------------------------------------------

    async def map(self, number: int, settings: Mapping[str, object], save: Save) -> None:
        """Makes a row of the map; `settings` are what `luns.N` of the configuration would say. Raises EstateError."""
        await self._ledger.in_turn(partial(self._map, number, settings, save))

    async def _map(self, number: int, settings: Mapping[str, object], save: Save) -> None:
        wanted = _wanted(number, settings)
        held = self._ledger.held
        if number in held.luns:
            there = "set in the configuration file" if number in held.config.luns else "in use"
            raise Conflict(f"LUN {number}: {there}")
        if wanted.volume is not None:
            if wanted.volume not in held.volumes:
                raise NotFound(f"volume {wanted.volume}: there is none")
            if wanted.volume in held.lun_of:
                raise Conflict(f"volume {wanted.volume}: mapped at LUN {held.lun_of[wanted.volume]}")
        if wanted.virtual is not None and wanted.virtual.array not in held.connections:
            raise NotFound(f"array {wanted.virtual.array}: not connected with it")
        rows = replace(held.rows, luns={**held.rows.luns, number: wanted})
        self._ledger.check(rows)
        await self._ledger.commit(rows, put_lun(number, stored_settings(wanted)), save)
        self.show()

    async def unmap(self, number: int, save: Save) -> None:
        """Takes a LUN off the map; its tasks end. Raises EstateError."""
        await self._ledger.in_turn(partial(self._unmap, number, save))

    async def _unmap(self, number: int, save: Save) -> None:
        held = self._ledger.held
        if number in held.config.luns:
            raise Conflict(f"LUN {number}: set in the configuration file")
        if number not in held.rows.luns:
            raise NotFound(f"LUN {number}: nothing is mapped there")
        if number in held.devices:
            raise Conflict(f"LUN {number}: leads to the command device of array {held.devices[number]}")
        if any(number in (initiator.luns or ()) for initiator in held.config.iscsi.initiators or ()):
            raise Conflict(f"LUN {number}: iscsi.initiators of the configuration file names it")
        volume = held.luns[number].volume
        if volume is not None:
            check_free(self._uses, volume, f"LUN {number}")
        rows = replace(held.rows, luns={lun: row for lun, row in held.rows.luns.items() if lun != number})
        await self._ledger.commit(rows, drop_lun(number), save)
        self.show()
        # A unit of an array that cannot be reached takes its time: nobody here waits for it.
        self._units.settle()


def _wanted(number: int, settings: Mapping[str, object]) -> LunConfig:
    try:
        values.lun(number)
        return part(LunConfig, ("luns", str(number)), dict(settings))
    except ValueError as error:
        raise Invalid(f"LUN {number}: expected {error}") from error
    except ConfigError as error:
        raise Invalid(error.lines[0]) from error
