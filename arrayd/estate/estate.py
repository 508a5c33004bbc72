"""All that the array has: opened, changed together by a reload, closed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from arrayd.config.schema import Config
from arrayd.estate.connections import Connections
from arrayd.estate.devices import Devices
from arrayd.estate.errors import Conflict, Invalid
from arrayd.estate.fronts import Fronts
from arrayd.estate.ledger import Ledger
from arrayd.estate.luns import Luns, MakeDevice
from arrayd.estate.units import Units
from arrayd.estate.uses import Uses, held_back
from arrayd.estate.volumes import Disk, Volumes
from arrayd.link.peers import Links
from arrayd.scsi.target import ScsiTarget
from arrayd.virtual.near import NearEnd


class Estate:
    """`volumes` are opened before the array is linked with others; the rest is there after `link`."""

    connections: Connections
    luns: Luns

    def __init__(
        self, ledger: Ledger, disk: Disk, target: ScsiTarget, forget: Callable[[str], None], uses: Uses
    ) -> None:
        self.ledger = ledger
        self._uses = uses
        self._units = Units(target)
        self.volumes = Volumes(ledger, disk, self._units, forget, uses)
        self.fronts = Fronts(ledger, self.volumes, self._units)
        self.devices = Devices(ledger)

    def link(self, links: Links, make_near: Callable[[str], NearEnd], make_device: MakeDevice) -> None:
        """There is a link, and there are volumes: hosts see LUNs from now on."""
        self.connections = Connections(self.ledger, links, make_near)
        self.luns = Luns(self.ledger, self.fronts, self.connections, self._units, make_device, self._uses)
        self.luns.show()

    async def reload(self, config: Config, applied: Callable[[], None]) -> None:
        """Changes to `config`; `applied` is called when hosts see it. Raises EstateError; then all is as it was."""
        await self.ledger.in_turn(partial(self._reload, config, applied))

    async def _reload(self, config: Config, applied: Callable[[], None]) -> None:
        old = self.ledger.held
        _check_volumes(old.config, config)
        self.ledger.check(old.rows, config)
        held = list(held_back(self._uses, old, config))
        if held:
            raise Conflict("\n".join(held))
        new = old.with_config(config)
        added = await self.volumes.open_more(new)
        growing = {
            name: config.volumes[name].size
            for name in old.config.volumes.keys() & config.volumes.keys()
            if old.config.volumes[name].size < config.volumes[name].size
        }
        try:
            await self.volumes.reserve(growing)
        except BaseException:
            await self.volumes.close(added)
            raise
        # From here on nothing can fail, and hosts see all of it together.
        opened = self.volumes.opened
        removed = {name: volume for name, volume in opened.items() if name not in new.volumes}
        self.volumes.opened = {name: volume for name, volume in opened.items() if name not in removed} | added
        self.ledger.take(config)
        self.luns.show()
        applied()
        for name, size in growing.items():
            self.volumes.grow(name, size)
        await self._units.settled()
        await self.volumes.close(removed)

    async def settle(self) -> None:
        """Ends the changes under way, and takes no more: the array stops."""
        await self.ledger.close()
        await self._units.close()

    async def close(self) -> bool:
        """Syncs and closes the volumes; whether all could be synced."""
        volumes, self.volumes.opened = self.volumes.opened, {}
        return await self.volumes.close(volumes)


def _check_volumes(old: Config, new: Config) -> None:
    """Refuses what needs a restart, and what would lose data."""
    for name in old.volumes.keys() & new.volumes.keys():
        before, after = old.volumes[name], new.volumes[name]
        if after.size < before.size:
            raise Invalid(f"volumes.{name}.size: {after.size} is less than it was: a volume is not cut")
        if before.model_copy(update={"size": after.size}) != after:
            raise Invalid(f"volumes.{name}: only the size may change in a reload; the rest takes a restart")
