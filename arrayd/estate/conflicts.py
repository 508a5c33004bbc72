"""What stands between a configuration and the rows made by command: one line each, as `arrayd check` says it.

An array does not start with any, does not change to a configuration that has some, and carries out no command that
would make one.
"""

from __future__ import annotations

from collections.abc import Iterator

from arrayd.config.schema import ARRAYS_MAX, COMMAND_DEVICES_MAX, LUNS_MAX, VOLUMES_MAX, Config
from arrayd.config.values import is_loopback
from arrayd.estate.rows import Holdings, Rows

TWICE = "made by command, too: delete it by command, or take it out of the file"


def conflicts(config: Config, rows: Rows) -> list[str]:
    """Every conflict."""
    held = Holdings(config, rows)
    return [*_volumes(held), *_luns(held), *_masks(held), *_connections(held), *_devices(held), *_too_many(held)]


def _volumes(held: Holdings) -> Iterator[str]:
    config, rows = held.config, held.rows
    for name in rows.volumes.keys() & config.volumes.keys():
        yield f"volumes.{name}: {TWICE}"
    for name, volume in config.volumes.items():
        if volume.path is not None and volume.path.parent == (config.state_dir / "volumes").resolve():
            other = volume.path.name.partition(".")[0]
            if other in rows.volumes and other != name:
                yield f"volumes.{name}.path: {volume.path} is the file of volume {other}, which was made by command"


def _luns(held: Holdings) -> Iterator[str]:
    in_file, by_command = held.config.luns, held.rows.luns
    for number in sorted(by_command.keys() & in_file.keys()):
        yield f"luns.{number}: {TWICE}"
    used = {lun.volume: number for number, lun in in_file.items() if lun.volume is not None}
    for number, lun in sorted(by_command.items()):
        if number in in_file:
            continue
        if lun.volume is not None and lun.volume not in held.volumes:
            yield f"luns.{number}: made by command, for volume {lun.volume}, which is not there any more"
        if lun.volume in used:
            yield f"luns.{number}: made by command, for volume {lun.volume}, which has LUN {used[lun.volume]} now"
        if lun.volume is not None:
            used.setdefault(lun.volume, number)
        if lun.virtual is not None and lun.virtual.array not in held.connections:
            yield f"luns.{number}: made by command, for array {lun.virtual.array}, which is not connected any more"


def _masks(held: Holdings) -> Iterator[str]:
    for index, initiator in enumerate(held.config.iscsi.initiators or ()):
        for position, number in enumerate(initiator.luns or ()):
            if number not in held.luns:
                where = f"iscsi.initiators[{index}].luns[{position}]"
                yield f"{where}: {number}: expected a LUN under luns, or one made by command"


def _connections(held: Holdings) -> Iterator[str]:
    config, rows, link = held.config, held.rows, held.link
    unprotected = link.secret_file is None and link.tls is None
    for name, address in rows.connections.items():
        if name in link.arrays:
            yield f"link.arrays.{name}: {TWICE}"
        if name == config.array.name:
            yield f"link.arrays.{name}: made by command, and this is its own name now"
        if address is not None and unprotected and not is_loopback(address):
            yield f"link: array {name} was connected by command beyond loopback: that takes secret_file or tls"
    for index, name in enumerate(config.commands.arrays or ()):
        if name not in held.connections:
            yield f"commands.arrays[{index}]: {name}: expected an array under link.arrays, or connected by command"


def _devices(held: Holdings) -> Iterator[str]:
    in_file = {lun: array for array, lun in held.config.commands.devices.items()}
    for lun, array in sorted(held.rows.devices.items()):
        if lun in in_file:
            yield f"commands.devices.{in_file[lun]}: LUN {lun}: {TWICE}"
        row = held.luns.get(lun)
        if row is None or row.virtual is None:
            yield f"commands.devices.{array}: made by command, for LUN {lun}, which is no virtual LUN any more"
        if array == held.config.array.name:
            yield f"commands.devices.{array}: made by command, and this is its own name now"


def _too_many(held: Holdings) -> Iterator[str]:
    for what, count, limit in (
        ("volumes", len(held.volumes), VOLUMES_MAX),
        ("luns", len(held.luns), LUNS_MAX),
        ("link.arrays", len(held.connections), ARRAYS_MAX),
        ("commands.devices", len(held.devices), COMMAND_DEVICES_MAX),
    ):
        if count > limit:
            yield f"{what}: {count} of them, with those made by command: at most {limit}"
