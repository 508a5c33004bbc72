"""One array, built out of its rooms: the only file that knows them all.

Start: tables, volumes, SCSI target, iSCSI server. Stop: in the other direction, with what is in flight answered and the
volumes synced. A reload takes what changed in the configuration, or leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arrayd.blockfile import BlockFile, Writeback
from arrayd.buffers import BufferPool
from arrayd.config import ChapConfig, Config, DiscoveryConfig, VolumeConfig
from arrayd.iscsi.chap import Credentials
from arrayd.iscsi.login import Access
from arrayd.iscsi.server import Server
from arrayd.iscsi.session import PORTAL_GROUP_TAG, InitiatorRule, Node, NodeRules
from arrayd.log import get_logger
from arrayd.scsi.alua import PortGroups
from arrayd.scsi.target import ScsiTarget
from arrayd.tables import Tables, TablesError
from arrayd.volumes.file_volume import FileVolume, volume_error
from arrayd.volumes.volume import VolumeError

THREADS = 8
"""The one executor: cold reads, syncs, writes beyond the bound, tables."""
BUFFER_BYTES = 256 * 1024 * 1024
"""Data of parked tasks, all sessions together."""
STOP_SECONDS = 10
"""How long what is in flight may take to be answered when the array stops."""
STOP_CHECK_SECONDS = 0.02
DESCRIPTORS_WANTED = 4096

log = get_logger("array")


class StartError(Exception):
    """The array cannot start, or cannot change to a configuration; one line says why."""


class Array:
    """The array of `config`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._volumes: dict[str, FileVolume] = {}

    # -- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> list[str]:
        """Opens everything and listens; the addresses. Raises StartError, with nothing left open."""
        config = self._config
        _raise_descriptor_limit()
        self._executor = ThreadPoolExecutor(THREADS, "arrayd")
        self._writeback = Writeback.for_this_machine()
        try:
            config.state_dir.mkdir(parents=True, exist_ok=True)
            self._tables = await Tables.open(config.state_dir, config.array.serial, self._executor)
        except (OSError, TablesError) as error:
            self._executor.shutdown()
            raise StartError(str(error)) from error
        try:
            await self._open_volumes(config)
            self._build(config)
            return [_address(*address) for address in self._server.listen(config.iscsi.listen)]
        except OSError as error:
            await self._abandon()
            raise StartError(_reason(error, config)) from error
        except StartError:
            await self._abandon()
            raise

    def _build(self, config: Config) -> None:
        buffers = BufferPool(BUFFER_BYTES)
        port = _port_identifier(config.array.serial)
        port_name = f"{config.iscsi.target},t,{PORTAL_GROUP_TAG:#06x}"
        port_groups = PortGroups(port, (port,), (port_name,))
        self._target = ScsiTarget(config.array.serial, buffers, port_groups, self._tables.reservations)
        self._target.set_units(self._lun_map(config))
        self._node = Node(config.iscsi.target, config.array.name, self._target, port, buffers, _rules(config))
        self._server = Server(self._node, config.iscsi.poll_us, os.urandom)

    async def _abandon(self) -> None:
        """Closes what a failed start had opened."""
        if hasattr(self, "_server"):
            self._server.stop_listening()
            self._server.close()
        for volume in self._volumes.values():
            await volume.close()
        await self._tables.close()
        self._executor.shutdown()

    async def stop(self) -> None:
        """Answers what is in flight, syncs the volumes, and closes everything."""
        server = self._server
        server.stop_listening()
        server.announce_shutdown(STOP_SECONDS)
        for _ in range(round(STOP_SECONDS / STOP_CHECK_SECONDS)):
            if server.idle():
                break
            await asyncio.sleep(STOP_CHECK_SECONDS)
        server.close()
        await self._target.stop()
        for name, volume in self._volumes.items():
            await self._close_volume(name, volume)
        await self._tables.close()
        self._executor.shutdown()
        log.info("stopped")

    async def _close_volume(self, name: str, volume: FileVolume) -> None:
        try:
            await volume.file.sync()
        except VolumeError as error:
            log.error("a volume could not be synced", volume=name, reason=str(error))
        await volume.close()

    # -- volumes and LUNs --------------------------------------------------------------------------------------------

    async def _open_volumes(self, config: Config) -> None:
        for name, wanted in config.volumes.items():
            self._volumes[name] = await self._open_volume(config, name, wanted)

    async def _open_volume(self, config: Config, name: str, wanted: VolumeConfig) -> FileVolume:
        path = _volume_path(config, name, wanted)
        try:
            file = await BlockFile.open(
                path,
                wanted.size,
                self._executor,
                self._writeback,
                volume_error,
                allocate=not wanted.thin,
                read_only=wanted.read_only,
            )
        except OSError as error:
            raise StartError(f"volume {name}: {path}: {error.strerror or error}") from error
        return FileVolume(
            f"{config.array.serial}:{name}",
            file,
            block_size=wanted.block_size,
            write_cache=wanted.write_cache,
            read_only=wanted.read_only,
            removable=wanted.removable,
            thin=wanted.thin,
        )

    def _lun_map(self, config: Config) -> dict[int, FileVolume]:
        return {number: self._volumes[lun.volume] for number, lun in config.luns.items()}

    # -- reload ------------------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> None:
        """Changes to `config`: volumes and LUNs added, removed or grown, initiators.

        Raises StartError; then a volume that has grown stays grown, and nothing else has changed.
        """
        old = self._config
        _check_reload(old, config)
        added: dict[str, FileVolume] = {}
        try:
            for name, wanted in config.volumes.items():
                if name not in self._volumes:
                    added[name] = await self._open_volume(config, name, wanted)
            for name, volume in self._volumes.items():
                if name in config.volumes:
                    await self._grow(name, volume, config.volumes[name].size)
        except StartError:
            for volume in added.values():
                await volume.close()
            raise
        removed = {name: volume for name, volume in self._volumes.items() if name not in config.volumes}
        self._volumes = {n: v for n, v in self._volumes.items() if n not in removed} | added
        self._config = config
        self._target.set_units(self._lun_map(config))
        self._node.apply(_rules(config))
        await self._target.settled()
        for name, volume in removed.items():
            await self._close_volume(name, volume)

    async def _grow(self, name: str, volume: FileVolume, size: int) -> None:
        # Larger it may be since a reload that failed; hosts use what they were told of, so it is never cut.
        if size <= volume.size:
            return
        try:
            await volume.resize(size)
        except VolumeError as error:
            raise StartError(f"volume {name}: cannot grow to {size} bytes: {error}") from error
        self._target.resized(volume)
        log.info("volume resized", volume=name, size=size)


def _check_reload(old: Config, new: Config) -> None:
    """Refuses what needs a restart, and what would lose data."""
    for what, before, after in (
        ("array", old.array, new.array),
        ("state_dir", old.state_dir, new.state_dir),
        ("iscsi.listen", old.iscsi.listen, new.iscsi.listen),
        ("iscsi.target", old.iscsi.target, new.iscsi.target),
        ("iscsi.poll_us", old.iscsi.poll_us, new.iscsi.poll_us),
    ):
        if before != after:
            raise StartError(f"{what}: changed; that takes a restart")
    for name in old.volumes.keys() & new.volumes.keys():
        before_volume, after_volume = old.volumes[name], new.volumes[name]
        if after_volume.size < before_volume.size:
            raise StartError(f"volumes.{name}.size: {after_volume.size} is less than it was: a volume is not cut")
        if before_volume.model_copy(update={"size": after_volume.size}) != after_volume:
            raise StartError(f"volumes.{name}: only the size may change in a reload; the rest takes a restart")


def _rules(config: Config) -> NodeRules:
    """Who may log in, as the iSCSI node wants to know it."""
    initiators: Mapping[str, InitiatorRule] | None = None
    if config.iscsi.initiators is not None:
        initiators = {
            entry.name: InitiatorRule(_access(entry), None if entry.luns is None else frozenset(entry.luns))
            for entry in config.iscsi.initiators
        }
    discovery = config.iscsi.discovery_chap
    return NodeRules(initiators, Access() if discovery is None else _access(discovery), config.iscsi.advertise)


def _access(entry: DiscoveryConfig) -> Access:
    return Access(_credentials(entry.chap), _credentials(entry.mutual_chap))


def _credentials(chap: ChapConfig | None) -> Credentials | None:
    return None if chap is None else Credentials(chap.user, chap.secret)


def _volume_path(config: Config, name: str, wanted: VolumeConfig) -> Path:
    return wanted.path or config.state_dir / "volumes" / f"{name}.img"


def _port_identifier(serial: str) -> int:
    """A target port group and relative target port identifier, 1 to 65535, that other arrays will hardly share: hosts
    may see one volume through several arrays (ALUA)."""
    return int.from_bytes(hashlib.sha256(serial.encode()).digest()[:2], "big") % 0xFFFF + 1


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError, config: Config) -> str:
    listen = " ".join(map(str, config.iscsi.listen))
    return f"cannot listen on {listen}: {error.strerror or error}"


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have, up to what sessions and volumes may want."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
