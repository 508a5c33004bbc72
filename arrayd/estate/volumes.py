"""The volumes: opened, made, grown, deleted, closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from arrayd.blockfile import BlockFile, Ring, Writeback
from arrayd.config import values
from arrayd.config.load import part
from arrayd.config.mistakes import ConfigError
from arrayd.config.schema import VolumeConfig
from arrayd.estate.errors import Conflict, EstateError, Failed, Invalid, NotFound
from arrayd.estate.ledger import Ledger, Save
from arrayd.estate.rows import Holdings, Source, source, stored_settings
from arrayd.estate.units import Units
from arrayd.estate.uses import Uses, check_free
from arrayd.estate.volume_files import VolumeFiles
from arrayd.log import get_logger
from arrayd.tables.estate import drop_volume, put_volume
from arrayd.volumes.file_volume import FileVolume, volume_error
from arrayd.volumes.volume import VolumeError

T = TypeVar("T")

log = get_logger("estate")


class Disk(NamedTuple):
    """What files of block data are opened with."""

    executor: Executor
    writeback: Writeback
    ring: Ring | None


class VolumeRow(NamedTuple):
    """One volume, as a command tells of it."""

    name: str
    settings: VolumeConfig
    source: Source
    lun: int | None
    volume: FileVolume

    @property
    def state(self) -> Literal["normal", "failed"]:
        """Failed: it is not written any more."""
        return "normal" if self.volume.file.failure is None else "failed"


class Volumes:
    """All volumes; `units` are the logical units that hosts see, `forget(identity)` drops what is kept in memory of a
    volume's reservations, `uses` knows the volumes that may not change."""

    def __init__(self, ledger: Ledger, disk: Disk, units: Units, forget: Callable[[str], None], uses: Uses) -> None:
        self._ledger = ledger
        self._disk = disk
        self._units = units
        self._forget = forget
        self._uses = uses
        self._files = VolumeFiles(ledger.held.config.state_dir)
        self.opened: dict[str, FileVolume] = {}

    def rows(self) -> list[VolumeRow]:
        """All of them, by name."""
        held = self._ledger.held
        return [
            VolumeRow(name, held.volumes[name], source(held.config.volumes, name), held.lun_of.get(name), volume)
            for name, volume in sorted(self.opened.items())
        ]

    # -- start, stop and reload --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens what there is, as many as can be. Raises the first Failed at the end."""
        held = self._ledger.held
        others = {volume.path for volume in held.config.volumes.values() if volume.path is not None}
        await self._in_thread(self._files.put_in_order, tuple(held.rows.volumes), others)
        await self._open_into(self.opened, held)

    async def open_more(self, held: Holdings) -> dict[str, FileVolume]:
        """The volumes of `held` that are not open yet, opened. Raises Failed; then none is."""
        added: dict[str, FileVolume] = {}
        try:
            await self._open_into(added, held)
        except BaseException:
            await self.close(added)
            raise
        return added

    async def _open_into(self, opened: dict[str, FileVolume], held: Holdings) -> None:
        async def open_one(name: str, wanted: VolumeConfig) -> None:
            path = wanted.path or self._files.path(name)
            opened[name] = await self._open(held, name, wanted, path, by_command=name not in held.config.volumes)

        missing = [(name, wanted) for name, wanted in held.volumes.items() if name not in self.opened]
        for failure in await asyncio.gather(*(open_one(*each) for each in missing), return_exceptions=True):
            if failure is not None:
                raise failure

    async def _open(
        self, held: Holdings, name: str, wanted: VolumeConfig, path: Path, *, by_command: bool
    ) -> FileVolume:
        """A file made by command may be longer than its row says: then a growth was not committed."""
        try:
            file = await BlockFile.open(
                path,
                wanted.size,
                self._disk.executor,
                self._disk.writeback,
                volume_error,
                allocate=not wanted.is_thin,
                read_only=wanted.read_only,
                larger=by_command,
                ring=self._disk.ring,
            )
        except OSError as error:
            raise Failed(f"volume {name}: {path}: {error.strerror or error}") from error
        return FileVolume(
            held.identity(name),
            file,
            size=wanted.size,
            block_size=wanted.block_size,
            physical_block_size=wanted.physical_block_size,
            write_cache=wanted.write_cache,
            read_only=wanted.read_only,
            removable=wanted.removable,
            thin=wanted.is_thin,
        )

    async def close(self, volumes: Mapping[str, FileVolume]) -> bool:
        """Syncs and closes volumes that nobody uses any more; whether all could be synced."""
        return all(await asyncio.gather(*(_close(name, volume) for name, volume in volumes.items())))

    async def reserve(self, sizes: Mapping[str, int]) -> None:
        """Makes the files of these volumes as long as they are to be: all of them, or none. Raises Failed."""
        before = {name: self.opened[name].file.size for name in sizes}
        try:
            for name, size in sizes.items():
                if before[name] < size:
                    await self._stretch(name, size)
        except BaseException:
            await self.give_back(before)
            raise

    async def give_back(self, sizes: Mapping[str, int]) -> None:
        """Makes the files as long as they were."""
        for name, size in sizes.items():
            if self.opened[name].file.size > size:
                try:
                    await self._stretch(name, size)
                except Failed as error:
                    log.error("a file stays longer than it was", volume=name, reason=str(error))

    async def _stretch(self, name: str, size: int) -> None:
        try:
            await self.opened[name].reserve(size)
        except VolumeError as error:
            raise Failed(f"volume {name}: cannot grow to {size} bytes: {error}") from error

    def grow(self, name: str, size: int) -> None:
        """The volume is this long from now on, and hosts are told; its file is already."""
        volume = self.opened[name]
        volume.resize(size)
        self._units.target.resized(volume)
        log.info("volume resized", volume=name, size=size)

    # -- by command --------------------------------------------------------------------------------------------------

    async def create(self, name: str, settings: Mapping[str, object], save: Save) -> None:
        """Makes a volume; `settings` are what `volumes.NAME` of the configuration would say, without a path. Raises
        EstateError."""
        await self._ledger.in_turn(partial(self._create, name, settings, save))

    async def _create(self, name: str, settings: Mapping[str, object], save: Save) -> None:
        wanted = _wanted(name, settings)
        held = self._ledger.held
        if name in held.volumes:
            raise Conflict(f"volume {name}: {_there(held, name)}")
        rows = replace(held.rows, volumes={**held.rows.volumes, name: wanted})
        self._ledger.check(rows)
        path = await self._in_thread(self._files.begin, name, blame=name)
        opened: dict[str, FileVolume] = {}
        try:
            opened[name] = await self._open(held, name, wanted, path, by_command=True)
            await self._ledger.commit(rows, put_volume(name, stored_settings(wanted)), save)
        except BaseException:
            await asyncio.gather(*(volume.close() for volume in opened.values()))
            await self._tidily(self._files.remove, name)
            raise
        self.opened |= opened
        opened[name].file.path = await self._tidily(self._files.settle, name) or path
        log.info("volume made", volume=name, size=wanted.size)

    async def resize(self, name: str, size: object, save: Save) -> None:
        """Makes a volume larger; `size` is in bytes, or as the configuration says it. Raises EstateError."""
        await self._ledger.in_turn(partial(self._resize, name, size, save))

    async def _resize(self, name: str, size: object, save: Save) -> None:
        old = self._made_by_command(name)
        wanted = _wanted(name, {**old.model_dump(exclude_none=True), "size": size})
        if wanted.size < old.size:
            raise Invalid(f"volume {name}: {wanted.size} is less than its {old.size} bytes: a volume is not cut")
        if wanted.size != old.size:
            check_free(self._uses, name, f"volume {name}")
        rows = self._ledger.held.rows
        rows = replace(rows, volumes={**rows.volumes, name: wanted})
        before = {name: self.opened[name].file.size}
        await self.reserve({name: wanted.size})
        try:
            await self._ledger.commit(rows, put_volume(name, stored_settings(wanted)), save)
        except BaseException:
            await self.give_back(before)
            raise
        if wanted.size > old.size:
            self.grow(name, wanted.size)

    async def delete(self, name: str, save: Save) -> None:
        """Deletes a volume that is at no LUN, with what is on it, and its reservations. Raises EstateError."""
        await self._ledger.in_turn(partial(self._delete, name, save))

    async def _delete(self, name: str, save: Save) -> None:
        self._made_by_command(name)
        check_free(self._uses, name, f"volume {name}")
        held, volume = self._ledger.held, self.opened[name]
        if name in held.lun_of:
            raise Conflict(f"volume {name}: mapped at LUN {held.lun_of[name]}")
        volumes = {other: settings for other, settings in held.rows.volumes.items() if other != name}
        if volume.file.path != self._files.pending(name):
            volume.file.path = await self._in_thread(self._files.give_up, name, blame=name)
        try:
            work = drop_volume(name, volume.identity)
            await self._ledger.commit(replace(held.rows, volumes=volumes), work, save)
        except BaseException:
            volume.file.path = await self._tidily(self._files.settle, name) or volume.file.path
            raise
        del self.opened[name]
        self._forget(volume.identity)
        await self._units.settled()
        await volume.close()
        await self._tidily(self._files.remove, name)
        log.info("volume deleted", volume=name)

    def _made_by_command(self, name: str) -> VolumeConfig:
        held = self._ledger.held
        if name in held.config.volumes:
            raise Conflict(f"volume {name}: {_there(held, name)}")
        if name not in held.rows.volumes:
            raise NotFound(f"volume {name}: there is none")
        return held.rows.volumes[name]

    # -- threads -----------------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[..., T], *arguments: object, blame: str | None = None) -> T:
        """Raises Failed, or Conflict where a file is in the way."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk.executor, work, *arguments)
        except OSError as error:
            kind = Conflict if isinstance(error, FileExistsError) else Failed
            raise kind(f"{f'volume {blame}: ' if blame else ''}{error.strerror or error}") from error

    async def _tidily(self, work: Callable[..., T], name: str) -> T | None:
        """What cannot be done now is done at the next start."""
        try:
            return await self._in_thread(work, name)
        except EstateError as error:
            log.error("a file of a volume is not in order before the next start", volume=name, reason=str(error))
            return None


def _wanted(name: str, settings: Mapping[str, object]) -> VolumeConfig:
    try:
        values.volume_name(name)
        wanted = part(VolumeConfig, ("volumes", name), dict(settings))
    except ValueError as error:
        raise Invalid(f"volume {name[:64]!r}: expected {error}") from error
    except ConfigError as error:
        raise Invalid(error.lines[0]) from error
    if wanted.path is not None:
        raise Invalid(f"volumes.{name}.path: only the configuration file says where a volume lies")
    return wanted


def _there(held: Holdings, name: str) -> str:
    return "set in the configuration file" if name in held.config.volumes else "there is one"


async def _close(name: str, volume: FileVolume) -> bool:
    synced = True
    try:
        await volume.file.sync()
    except VolumeError as error:
        log.error("a volume could not be synced", volume=name, reason=str(error))
        synced = False
    await volume.close()
    return synced
