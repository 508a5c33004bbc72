"""One array, built out of its rooms: the only file that knows them all.

Start: tables, volumes, SCSI target, links, iSCSI server. Stop: in the other direction, with what is in flight answered
and the volumes synced. A reload takes what changed in the configuration, or leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import resource
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from arrayd.blockfile import BlockFile, Ring, Writeback
from arrayd.buffers import BufferPool
from arrayd.config import ChapConfig, Config, DiscoveryConfig, LinkConfig, TlsConfig, VolumeConfig
from arrayd.iscsi.chap import Credentials
from arrayd.iscsi.login import Access
from arrayd.iscsi.server import Server
from arrayd.iscsi.session import PORTAL_GROUP_TAG, InitiatorRule, Node, NodeRules
from arrayd.link.channel import Service
from arrayd.link.peers import Links, Settings
from arrayd.log import get_logger
from arrayd.scsi.alua import Port, PortGroups
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.virtual_unit import Remote
from arrayd.tables import Tables, TablesError
from arrayd.virtual.far import FarEnd
from arrayd.virtual.formats import SERVICE
from arrayd.virtual.near import NearEnd
from arrayd.volumes.file_volume import FileVolume, volume_error
from arrayd.volumes.volume import Volume, VolumeError

THREADS = 8
"""The one executor: cold reads, syncs, writes beyond the bound, tables."""
BUFFER_BYTES = 256 * 1024 * 1024
"""Data of parked tasks, all sessions together."""
STOP_SECONDS = 10
"""How long what is in flight may take to be answered when the array stops."""
LOGOUT_SECONDS = 2
"""After so long of these the initiators that did not log out are not listened to any more."""
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
        self._opened = AsyncExitStack()
        """What is to be closed, in the order of its opening."""
        self._synced = True
        """Whether every volume that was closed at the end was synced before."""

    # -- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> list[str]:
        """Opens everything and listens; the addresses. Raises StartError; then, or cancelled, nothing is left open."""
        try:
            await self._open(self._config)
            return self._listen(self._config)
        except BaseException:
            await self._opened.aclose()
            raise

    async def _open(self, config: Config) -> None:
        _raise_descriptor_limit()
        self._executor = ThreadPoolExecutor(THREADS, "arrayd")
        self._opened.callback(self._executor.shutdown)
        self._writeback = Writeback.for_this_machine()
        self._ring = Ring.or_none()
        if self._ring is None:
            log.info("no io_uring here: threads wait for cold reads, at more cost")
        else:
            self._opened.callback(self._ring.close)
        self._tables = await _open_tables(config, self._executor)
        self._opened.push_async_callback(self._tables.close)
        self._opened.push_async_callback(self._close_volumes)
        await self._open_volumes(config, config.volumes, self._volumes)
        buffers = BufferPool(BUFFER_BYTES)
        port = _port_identifier(config.array.serial)
        port_name = f"{config.iscsi.target},t,{PORTAL_GROUP_TAG:#06x}"
        port_groups = PortGroups(port, (port,), (port_name,))
        self._target = ScsiTarget(config.array.serial, buffers, port_groups, self._tables.reservations)
        self._opened.push_async_callback(self._target.stop)
        self._link(config, buffers)
        self._target.set_units(self._lun_map(config))
        self._node = Node(config.iscsi.target, config.array.name, self._target, port, buffers, _rules(config))

    def _link(self, config: Config, buffers: BufferPool) -> None:
        """The arrays under `link`, and the virtual volumes that lead to them, by the name of the array."""
        name = config.array.name
        self._far = FarEnd(name, self._attach, buffers)
        self._links = Links(_link_settings(config), self._services, self._far.gone, os.urandom, time.monotonic)
        self._nears = {
            array: NearEnd(name, array, partial(self._links.request, array), buffers) for array in self._links.peers
        }
        self._opened.push_async_callback(self._unlink)
        try:
            address = self._links.start()
        except OSError as error:
            raise StartError(f"link.listen: cannot listen: {error.strerror or error}") from error
        if address is not None:
            log.info("link listens", address=_address(*address))

    async def _unlink(self) -> None:
        await self._links.stop("the array stops")
        self._far.stop()

    def _services(self, array: str) -> dict[int, Service]:
        """What an array may ask of this one."""
        return {SERVICE: partial(self._far.serve, array)}

    def _attach(self, initiator: str, isid: bytes, port: tuple[int, int, str], path: tuple[str, ...]) -> Nexus:
        return self._target.attach(initiator, isid, port[0], None, Port(*port), path)

    def _listen(self, config: Config) -> list[str]:
        server = Server(self._node, config.iscsi.poll_us, os.urandom)
        self._opened.callback(server.close)
        self._opened.push_async_callback(_let_finish, server)
        self._opened.callback(server.stop_listening)
        try:
            return [_address(*address) for address in server.listen(config.iscsi.listen)]
        except OSError as error:
            raise StartError(f"cannot listen on {error.strerror or error}") from error

    async def stop(self) -> bool:
        """Answers what is in flight, syncs the volumes, and closes everything; whether all volumes could be synced.

        Does nothing if start did not end.
        """
        await self._opened.aclose()
        log.info("stopped")
        return self._synced

    # -- volumes and LUNs --------------------------------------------------------------------------------------------

    async def _open_volumes(
        self, config: Config, wanted: Mapping[str, VolumeConfig], opened: dict[str, FileVolume]
    ) -> None:
        """Adds the volumes `wanted` to `opened`, as many as can be; raises the first StartError at the end."""

        async def open_one(name: str) -> None:
            opened[name] = await self._open_volume(config, name, wanted[name])

        results = await asyncio.gather(*map(open_one, wanted), return_exceptions=True)
        for failure in results:
            if failure is not None:
                raise failure

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
                ring=self._ring,
            )
        except OSError as error:
            raise StartError(f"volume {name}: {path}: {error.strerror or error}") from error
        return FileVolume(
            f"{config.array.serial}:{name}",
            file,
            block_size=wanted.block_size,
            physical_block_size=wanted.physical_block_size,
            write_cache=wanted.write_cache,
            read_only=wanted.read_only,
            removable=wanted.removable,
            thin=wanted.thin,
        )

    async def _close_volumes(self) -> None:
        volumes, self._volumes = self._volumes, {}
        closed = await asyncio.gather(*(_close_volume(name, volume) for name, volume in volumes.items()))
        self._synced = all(closed)

    def _lun_map(self, config: Config) -> dict[int, Volume | Remote]:
        """Figure 3: volumes, and LUNs of other arrays."""
        sources: dict[int, Volume | Remote] = {}
        for number, lun in config.luns.items():
            if lun.virtual is not None:
                sources[number] = self._nears[lun.virtual.array].unit(lun.virtual.lun)
            elif lun.volume is not None:
                sources[number] = self._volumes[lun.volume]
        return sources

    # -- reload ------------------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> None:
        """Changes to `config`: volumes and LUNs added, removed or grown, initiators. Raises StartError, unchanged."""
        _check_reload(self._config, config)
        added: dict[str, FileVolume] = {}
        new = {name: wanted for name, wanted in config.volumes.items() if name not in self._volumes}
        try:
            await self._open_volumes(config, new, added)
            await self._reserve(config.volumes)
        except BaseException:
            for name, volume in added.items():
                await _close_volume(name, volume)
            raise
        # From here on nothing can fail, and hosts see all of it together.
        removed = {name: volume for name, volume in self._volumes.items() if name not in config.volumes}
        self._volumes = {n: v for n, v in self._volumes.items() if n not in removed} | added
        self._config = config
        self._target.set_units(self._lun_map(config))
        self._node.apply(_rules(config))
        for name, volume in self._volumes.items():
            if volume.size != volume.file.size:
                volume.resize()
                self._target.resized(volume)
                log.info("volume resized", volume=name, size=volume.size)
        await self._target.settled()
        for name, volume in removed.items():
            await _close_volume(name, volume)

    async def _reserve(self, wanted: Mapping[str, VolumeConfig]) -> None:
        """Grows the files of the volumes that are to grow: all of them, or none."""
        growing = {n: v for n, v in self._volumes.items() if n in wanted and v.size < wanted[n].size}
        try:
            for name, volume in growing.items():
                await _grow(name, volume, wanted[name].size)
        except BaseException:
            for name, volume in growing.items():
                await _grow(name, volume, volume.size)
            raise


async def _open_tables(config: Config, executor: Executor) -> Tables:
    try:
        config.state_dir.mkdir(parents=True, exist_ok=True)
        opening = asyncio.ensure_future(Tables.open(config.state_dir, config.array.serial, executor))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on; what it opens must not stay open.
            await (await opening).close()
            raise
    except OSError as error:
        raise StartError(f"state_dir: {config.state_dir}: {error.strerror or error}") from error
    except TablesError as error:
        raise StartError(str(error)) from error


async def _let_finish(server: Server) -> None:
    """Has initiators log out in LOGOUT_SECONDS, and answers what is in flight, as far as that goes in STOP_SECONDS."""
    server.announce_shutdown(math.ceil(LOGOUT_SECONDS))
    for checks in range(round(STOP_SECONDS / STOP_CHECK_SECONDS)):
        late = checks * STOP_CHECK_SECONDS >= LOGOUT_SECONDS
        if server.idle() and (late or not server.node.sessions):
            break
        if late:
            server.pause()
        await asyncio.sleep(STOP_CHECK_SECONDS)


async def _close_volume(name: str, volume: FileVolume) -> bool:
    """Syncs and closes a volume that nobody uses any more; whether it could be synced."""
    synced = True
    try:
        await volume.file.sync()
    except VolumeError as error:
        log.error("a volume could not be synced", volume=name, reason=str(error))
        synced = False
    await volume.close()
    return synced


async def _grow(name: str, volume: FileVolume, size: int) -> None:
    try:
        await volume.reserve(size)
    except VolumeError as error:
        raise StartError(f"volume {name}: cannot grow to {size} bytes: {error}") from error


def _check_reload(old: Config, new: Config) -> None:
    """Refuses what needs a restart, and what would lose data."""
    for what, before, after in (
        ("array", old.array, new.array),
        ("state_dir", old.state_dir, new.state_dir),
        ("iscsi.listen", old.iscsi.listen, new.iscsi.listen),
        ("iscsi.target", old.iscsi.target, new.iscsi.target),
        ("iscsi.poll_us", old.iscsi.poll_us, new.iscsi.poll_us),
        ("link", old.link, new.link),
    ):
        if before != after:
            raise StartError(f"{what}: changed; that takes a restart")
    for name in old.volumes.keys() & new.volumes.keys():
        before_volume, after_volume = old.volumes[name], new.volumes[name]
        if after_volume.size < before_volume.size:
            raise StartError(f"volumes.{name}.size: {after_volume.size} is less than it was: a volume is not cut")
        if before_volume.model_copy(update={"size": after_volume.size}) != after_volume:
            raise StartError(f"volumes.{name}: only the size may change in a reload; the rest takes a restart")


def _link_settings(config: Config) -> Settings:
    """The links as their room wants to know them. Raises StartError."""
    array, link = config.array, config.link or LinkConfig()
    client = server = None
    if link.tls is not None:
        try:
            client, server = (_tls(link.tls, purpose) for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH))
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"link.tls: {error.strerror or error}") from error
    secret = link.secret_file.value if link.secret_file is not None else b""
    return Settings(array.name, array.serial, link.arrays, secret, link.timeout, link.listen, client, server)


def _tls(files: TlsConfig, purpose: ssl.Purpose) -> ssl.SSLContext:
    """TLS that shows our certificate, and takes none but those of the CA."""
    context = ssl.create_default_context(purpose, cafile=files.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.certificate, files.key)
    return context


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


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have, up to what sessions and volumes may want."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
