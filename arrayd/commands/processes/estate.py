"""Commands that read and change what the array has: volumes, the LUN map (figure 3), command devices (figure 5), and
connections (figure 36)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from arrayd.commands.registry import REGISTRY, CommandError, Input, Nothing, Output, Save
from arrayd.commands.results import Result
from arrayd.estate.errors import Conflict, EstateError, Invalid, NotFound
from arrayd.tables import Work

if TYPE_CHECKING:
    from arrayd.commands.context import Context

Source = Literal["file", "command"]
VOLUMES_AT_ONCE = 400
NAME = Field(min_length=1, max_length=64)
LUN = Field(ge=0, le=16383)


@contextmanager
def refusals() -> Iterator[None]:
    """What the estate refuses, as a command says it."""
    try:
        yield
    except EstateError as error:
        kinds = {NotFound: Result.NOT_FOUND, Conflict: Result.CONFLICT, Invalid: Result.BAD_INPUT}
        raise CommandError(kinds.get(type(error), Result.FAILED), "; ".join(str(error).splitlines())) from error


def with_answer(save: Save, output: Output) -> Callable[[Work], Awaitable[None]]:
    """The `save` that the estate takes."""
    return lambda work: save(work, output)


# -- volumes -----------------------------------------------------------------------------------------------------------


class VolumeRow(Output):
    """A volume: `size` and `allocated` in bytes, and the LUN where it stands, if it does."""

    name: str
    size: int
    allocated: int
    block_size: int
    write_cache: bool
    read_only: bool
    removable: bool
    thin: bool
    use: Literal["data", "journal"]
    state: Literal["normal", "failed"]
    lun: int | None
    source: Source


class VolumesAfter(Input):
    """The first `limit` ones whose names come after this one."""

    after: str = ""
    limit: int = Field(default=VOLUMES_AT_ONCE, ge=1, le=VOLUMES_AT_ONCE)


class VolumeList(Output):
    """Volumes by name; `more`: there are others behind them."""

    volumes: list[VolumeRow]
    more: bool


@REGISTRY.command(10, "volumes")
async def volumes(context: Context, told: VolumesAfter) -> VolumeList:
    """List the volumes."""
    behind = [row for row in context.estate.volumes.rows() if row.name > told.after]
    rows = [
        VolumeRow(
            name=row.name,
            size=row.volume.size,
            allocated=row.volume.allocated_bytes(),
            block_size=row.settings.block_size,
            write_cache=row.settings.write_cache,
            read_only=row.settings.read_only,
            removable=row.settings.removable,
            thin=row.settings.is_thin,
            use=row.settings.use,
            state=row.state,
            lun=row.lun,
            source=row.source,
        )
        for row in behind[: told.limit]
    ]
    return VolumeList(volumes=rows, more=len(behind) > told.limit)


class VolumeName(Input):
    """The name of a volume."""

    name: str = NAME


class NewVolume(VolumeName):
    """A volume to be made: what `volumes.NAME` of the configuration would say."""

    size: int | str = Field(description="a number of bytes, or a size such as 1GiB")
    block_size: Literal[512, 4096] = 512
    physical_block_size: Literal[512, 4096] | None = None
    write_cache: bool = True
    read_only: bool = False
    removable: bool = False
    thin: bool = True
    use: Literal["data", "journal"] = "data"


class Volume(Output):
    """The volume that it was about."""

    name: str


@REGISTRY.command(11, "volume-create", changes=True)
async def volume_create(context: Context, told: NewVolume, save: Save) -> Volume:
    """Make a volume. It stands at no LUN yet: see lun-add."""
    settings = told.model_dump(exclude={"name"}, exclude_unset=True, exclude_none=True)
    answer = Volume(name=told.name)
    with refusals():
        await context.estate.volumes.create(told.name, settings, with_answer(save, answer))
    context.events.add("info", "volume", f"volume {told.name} made", volume=told.name)
    return answer


class NewSize(VolumeName):
    """A volume, and how large it is to be: not smaller than it is."""

    size: int | str = Field(description="a number of bytes, or a size such as 1GiB")


@REGISTRY.command(12, "volume-resize", changes=True)
async def volume_resize(context: Context, told: NewSize, save: Save) -> Volume:
    """Make a volume larger; hosts see it at once."""
    answer = Volume(name=told.name)
    with refusals():
        await context.estate.volumes.resize(told.name, told.size, with_answer(save, answer))
    context.events.add("info", "volume", f"volume {told.name} resized", volume=told.name)
    return answer


@REGISTRY.command(13, "volume-delete", changes=True)
async def volume_delete(context: Context, told: VolumeName, save: Save) -> Volume:
    """Delete a volume that stands at no LUN, and all that is on it."""
    answer = Volume(name=told.name)
    with refusals():
        await context.estate.volumes.delete(told.name, with_answer(save, answer))
    context.events.add("info", "volume", f"volume {told.name} deleted", volume=told.name)
    return answer


# -- the LUN map -------------------------------------------------------------------------------------------------------


class LunRow(Output):
    """A row of the LUN map: a volume, a LUN (`mapping_lun`) of another array, or a command device."""

    lun: int
    kind: Literal["volume", "virtual", "command-device"]
    volume: str | None = None
    array: str | None = None
    mapping_lun: int | None = None
    source: Source


class LunMap(Output):
    """The LUN map."""

    luns: list[LunRow]


@REGISTRY.command(14, "lun-map")
async def lun_map(context: Context, _told: Nothing) -> LunMap:
    """List what stands at each LUN (figure 3)."""
    rows = []
    for lun, settings, source in context.estate.luns.rows():
        row = LunRow(lun=lun, kind="command-device", source=source)
        if settings.volume is not None:
            row.kind, row.volume = "volume", settings.volume
        elif settings.virtual is not None:
            row.kind, row.array, row.mapping_lun = "virtual", settings.virtual.array, settings.virtual.lun
        rows.append(row)
    return LunMap(luns=rows)


class LunNumber(Input):
    """A LUN."""

    lun: int = LUN


class NewLun(LunNumber):
    """What is to stand at a LUN: a volume, the LUN `mapping_lun` of another array, or a command device."""

    volume: str | None = None
    array: str | None = None
    mapping_lun: int | None = Field(default=None, ge=0, le=16383)
    command_device: bool = False

    def settings(self) -> dict[str, object]:
        """What `luns.N` of the configuration would say."""
        settings: dict[str, object] = {}
        if self.volume is not None:
            settings["volume"] = self.volume
        if self.array is not None or self.mapping_lun is not None:
            settings["virtual"] = {"array": self.array, "lun": self.mapping_lun}
        if self.command_device:
            settings["command_device"] = {}
        return settings


class Lun(Output):
    """The LUN that it was about."""

    lun: int


@REGISTRY.command(15, "lun-add", changes=True)
async def lun_add(context: Context, told: NewLun, save: Save) -> Lun:
    """Put a volume, a LUN of another array, or a command device at a LUN; hosts see it at once."""
    answer = Lun(lun=told.lun)
    with refusals():
        await context.estate.luns.map(told.lun, told.settings(), with_answer(save, answer))
    context.events.add("info", "lun", f"LUN {told.lun} added", lun=told.lun)
    return answer


@REGISTRY.command(16, "lun-remove", changes=True)
async def lun_remove(context: Context, told: LunNumber, save: Save) -> Lun:
    """Take away what stands at a LUN; what hosts do there ends."""
    answer = Lun(lun=told.lun)
    with refusals():
        await context.estate.luns.unmap(told.lun, with_answer(save, answer))
    context.events.add("info", "lun", f"LUN {told.lun} removed", lun=told.lun)
    return answer


# -- command devices ---------------------------------------------------------------------------------------------------


class DeviceRow(Output):
    """A row of the command device management table: an array, and the LUN here that is, or leads to, its command
    device."""

    array: str
    lun: int
    source: Source


class DeviceTable(Output):
    """The command device management table, own ones first."""

    devices: list[DeviceRow]


@REGISTRY.command(17, "command-devices")
async def command_devices(context: Context, _told: Nothing) -> DeviceTable:
    """List this array's command devices, and the LUNs that lead to those of others (figure 5)."""
    return DeviceTable(devices=[DeviceRow(**row._asdict()) for row in context.estate.devices.rows()])


class Device(Input):
    """An array, and the LUN here of a virtual volume."""

    array: str = NAME
    lun: int = LUN


class DeviceNoted(Output):
    """The row that it was about."""

    array: str
    lun: int


@REGISTRY.command(18, "command-device-add", changes=True)
async def command_device_add(context: Context, told: Device, save: Save) -> DeviceNoted:
    """Note that a virtual volume leads to another array's command device."""
    noted = DeviceNoted(array=told.array, lun=told.lun)
    with refusals():
        await context.estate.devices.add(told.array, told.lun, with_answer(save, noted))
    return noted


@REGISTRY.command(19, "command-device-remove", changes=True)
async def command_device_remove(context: Context, told: Device, save: Save) -> DeviceNoted:
    """Take such a note away."""
    noted = DeviceNoted(array=told.array, lun=told.lun)
    with refusals():
        await context.estate.devices.remove(told.array, told.lun, with_answer(save, noted))
    return noted


# -- connections -------------------------------------------------------------------------------------------------------


class ConnectionRow(Output):
    """A row of the connection information table: an array, the address where it is dialed, if it is, and how that
    goes."""

    array: str
    serial: str
    address: str | None
    state: Literal["up", "down"]
    reason: str
    source: Source


class ConnectionTable(Output):
    """The connection information table."""

    connections: list[ConnectionRow]


@REGISTRY.command(20, "connections")
async def connections(context: Context, _told: Nothing) -> ConnectionTable:
    """List the arrays that this one is connected with (figure 36)."""
    rows = []
    for row in context.estate.connections.rows():
        up = row.peer.stream is not None
        rows.append(
            ConnectionRow(
                array=row.name,
                serial=row.peer.serial,
                address=None if row.address is None else str(row.address),
                state="up" if up else "down",
                reason="" if up else row.peer.reason,
                source=row.source,
            )
        )
    return ConnectionTable(connections=rows)


class ArrayName(Input):
    """The name of another array."""

    array: str = NAME


class NewConnection(ArrayName):
    """An array, and the address (host:port) where it is dialed; none if it dials."""

    address: str | None = None


class Connection(Output):
    """The array that it was about."""

    array: str


@REGISTRY.command(21, "connection-add", changes=True)
async def connection_add(context: Context, told: NewConnection, save: Save) -> Connection:
    """Connect with another array."""
    answer = Connection(array=told.array)
    with refusals():
        await context.estate.connections.add(told.array, told.address, with_answer(save, answer))
    context.events.add("info", "connection", f"connection with {told.array} added", array=told.array)
    return answer


@REGISTRY.command(22, "connection-remove", changes=True)
async def connection_remove(context: Context, told: ArrayName, save: Save) -> Connection:
    """End the connection with an array that no LUN leads to."""
    answer = Connection(array=told.array)
    for group in context.replication.table.groups():
        if group.peer == told.array:
            raise CommandError(Result.CONFLICT, f"array {told.array}: group {group.name} has its pairs with it")
    with refusals():
        await context.estate.connections.remove(told.array, with_answer(save, answer))
    context.events.add("info", "connection", f"connection with {told.array} removed", array=told.array)
    return answer
