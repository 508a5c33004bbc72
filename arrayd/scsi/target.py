"""The SCSI target device: its logical units, its I_T nexuses, and what changes them all (SAM-5, 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from arrayd.buffers import BufferPool
from arrayd.scsi import opcodes
from arrayd.scsi.alua import Port, PortGroups
from arrayd.scsi.data_buffer import Commander
from arrayd.scsi.kinds import DISK, NO_DEVICE, STORAGE_ARRAY_CONTROLLER
from arrayd.scsi.logical_unit import LogicalUnit
from arrayd.scsi.lun import encode_lun
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.reservations import Reservations, ReservationStore
from arrayd.scsi.sense import Asc
from arrayd.scsi.steps import SCRATCH_BYTES
from arrayd.scsi.task_management import reset_units
from arrayd.scsi.unit import Unit
from arrayd.scsi.virtual_unit import Remote, VirtualUnit
from arrayd.volumes.volume import Volume


class ScsiTarget:
    """One SCSI target device. `serial` is the array's; `store` keeps persistent reservations; `commander` takes
    command interfaces, if there are any."""

    def __init__(
        self,
        serial: str,
        buffers: BufferPool,
        port_groups: PortGroups,
        store: ReservationStore,
        commander: Commander | None = None,
    ) -> None:
        self.serial = serial
        self.buffers = buffers
        self.scratch = BufferPool(SCRATCH_BYTES)
        self.port_groups = port_groups
        self.store = store
        self._commander = commander
        self.units: dict[int, Unit] = {}
        self.nexuses: set[Nexus] = set()
        self._leaving: list[Unit] = []
        self.controller = self._make_unit(0, STORAGE_ARRAY_CONTROLLER, f"{serial}:controller", None)
        self.absent = self._make_unit(0, NO_DEVICE, serial, None)

    def _make_unit(self, number: int, device_type: int, identity: str, volume: Volume | None) -> LogicalUnit:
        takes_commands = volume is not None and volume.takes_commands
        return LogicalUnit(
            number,
            device_type,
            identity,
            opcodes.COMMAND_DEVICE if takes_commands else opcodes.TABLES[device_type],
            self.buffers,
            self.scratch,
            self.port_groups.of_another_unit(),
            Reservations(identity, self.store),
            volume,
            self._commander,
        )

    def set_units(self, sources: Mapping[int, Volume | Remote]) -> None:
        """The LUN map (figure 3) from now on: volumes, and logical units of other arrays. Units that stay keep their
        state; every nexus learns that its LUNs changed."""
        kept = {n: u for n, u in self.units.items() if n in sources and _leads_to(u, sources[n])}
        added = {number: self._stand(number, source) for number, source in sources.items() if number not in kept}
        removed = [unit for number, unit in self.units.items() if number not in kept]
        self.units = kept | added
        for unit in removed:
            unit.dismiss()
        self._leaving += removed
        for nexus in self.nexuses:
            self.show(nexus)

    def _stand(self, number: int, source: Volume | Remote) -> Unit:
        if isinstance(source, Volume):
            return self._make_unit(number, DISK, source.identity, source)
        return VirtualUnit(number, source, self._commander)

    def show(self, nexus: Nexus) -> None:
        """Brings what `nexus` sees up to date with the LUN map and its masking, and tells it when that changed."""
        before = dict(nexus.units)
        self._show_units(nexus)
        if before != nexus.units:
            for unit in set(nexus.units.values()):
                unit.establish(Asc.REPORTED_LUNS_DATA_HAS_CHANGED, nexus)

    def replace(self, old: Volume, new: Volume) -> None:
        """`new` stands in the place of `old` from now on: the same disk, by another way. Nothing of the unit changes,
        nobody is told, and no task is aborted: what has been handed to `old` is for its owner to see through, and what
        a task hands over next goes to `new`. No task is waited for: it may work for hours, or wait for what `new` waits
        for."""
        assert (old.identity, old.size, old.block_size) == (new.identity, new.size, new.block_size)
        for unit in self.units.values():
            if isinstance(unit, LogicalUnit) and unit.volume is old:
                unit.replace(new)

    def resized(self, volume: Volume) -> None:
        """Tells every nexus that the capacity of `volume`, or of what stands in its place, changed."""
        for unit in self.units.values():
            if isinstance(unit, LogicalUnit) and unit.volume is not None and unit.identity == volume.identity:
                unit.establish_for_others(Asc.CAPACITY_DATA_HAS_CHANGED, None)
                unit.refresh_all()

    def attach(
        self,
        initiator: str,
        isid: bytes,
        port: int,
        luns: frozenset[int] | None,
        through: Port | None = None,
        path: tuple[str, ...] = (),
        *,
        local: bool = False,
    ) -> Nexus:
        """See `arrayd.scsi.task.Target.attach`; `through` a port of another array for a nexus that comes by `path`;
        raises PortTakenError if it is one of ours."""
        own = self.port_groups.own
        if through is not None:
            self.port_groups.check(through)
        nexus = Nexus(self, initiator, isid, through or Port(port, own.identifier, own.names[port]), luns, path, local)
        self.nexuses.add(nexus)
        self.absent.attach(nexus, {})
        self.absent.take_attention(nexus)
        self._show_units(nexus)
        return nexus

    def _show_units(self, nexus: Nexus) -> None:
        shown = {encode_lun(number): unit for number, unit in self.units.items() if nexus.sees(number)}
        shown.setdefault(encode_lun(0), self.controller)
        for lun, unit in list(nexus.units.items()):
            if shown.get(lun) is not unit:
                del nexus.units[lun], nexus.fast[lun]
                unit.detach(nexus)
        for lun, unit in shown.items():
            if lun not in nexus.units:
                nexus.units[lun] = unit
                nexus.fast[lun] = {}
                unit.attach(nexus, nexus.fast[lun])

    def detach(self, nexus: Nexus) -> None:
        """See `arrayd.scsi.task.Nexus.detach`."""
        self.nexuses.discard(nexus)
        for unit in (self.absent, *nexus.units.values()):
            unit.abort([task for task in unit.tasks if task.nexus is nexus], partial(unit.detach, nexus))
        nexus.fast.clear()

    def reset(self, originator: Nexus, ended: Callable[[], None]) -> None:
        """TARGET RESET: every logical unit is reset (RFC 7143, 11.5.1)."""
        reset_units((self.controller, *self.units.values()), originator, Asc.POWER_ON_OR_RESET, ended)

    async def settled(self) -> None:
        """Waits until no unit that left the LUN map works on its volume any more."""
        while self._leaving:
            await self._leaving.pop().stop()

    async def stop(self) -> None:
        """Waits until no logical unit works on anything; there is no nexus left."""
        await self.settled()
        for unit in (self.controller, self.absent, *self.units.values()):
            await unit.stop()


def _leads_to(unit: Unit, source: Volume | Remote) -> bool:
    return source is (unit.remote if isinstance(unit, VirtualUnit) else getattr(unit, "volume", None))
