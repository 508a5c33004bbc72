"""One array, built out of its rooms: the only file that knows them all.

Start: tables, volumes, SCSI target, pairs, links, LUNs, iSCSI server. Stop: in the other direction, with what is in
flight answered, the stages of pairs ended and the volumes synced. A reload takes what changed in the configuration, or
leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from arrayd import __version__
from arrayd.blockfile import Ring, Writeback
from arrayd.buffers import BufferPool
from arrayd.commands import asking
from arrayd.commands.room import Commands, Reach, Us
from arrayd.config.schema import Config
from arrayd.estate.errors import EstateError
from arrayd.estate.estate import Estate
from arrayd.estate.ledger import Ledger
from arrayd.estate.rows import Rows
from arrayd.estate.volumes import Disk
from arrayd.iscsi.server import Server
from arrayd.iscsi.session import PORTAL_GROUP_TAG, Node
from arrayd.link.channel import Service
from arrayd.link.peers import Links
from arrayd.log import get_logger
from arrayd.replication.asking import SERVICE as PAIR_SERVICE
from arrayd.replication.choosing import KINDS
from arrayd.replication.copy_rate import Limit
from arrayd.replication.in_force import Surroundings
from arrayd.replication.needs import lacking
from arrayd.replication.over_link import asker
from arrayd.replication.pairs import Pairs
from arrayd.replication.room import Replication, ReplicationError
from arrayd.replication.stages import Doors
from arrayd.replication.stores import FileStores
from arrayd.scsi.alua import Port, PortGroups
from arrayd.scsi.inner_initiator import InnerInitiator, InnerLun
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.target import ScsiTarget
from arrayd.settings import changed_key, link_settings, node_rules, permission, place, port_identifier
from arrayd.statuses import link_statuses, session_statuses
from arrayd.tables import Tables, TablesError
from arrayd.virtual.far import FarEnd
from arrayd.virtual.formats import SERVICE
from arrayd.virtual.near import NearEnd
from arrayd.volumes.volume import VolumeError

THREADS = 8
"""The one executor: cold reads, syncs, writes beyond the bound, tables."""
BUFFER_BYTES = 256 * 1024 * 1024
"""Data of parked tasks, all sessions together."""
STOP_SECONDS = 10
"""How long what is in flight may take to be answered when the array stops."""
LOGOUT_SECONDS = 2
"""After so long of these the initiators that did not log out are not listened to any more."""
STOP_CHECK_SECONDS = 0.02
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT_BYTES = 16
DESCRIPTORS_WANTED = 4096

log = get_logger("array")


class StartError(Exception):
    """The array cannot start, or cannot change to a configuration: why, in a line, or a line for each conflict."""

    @property
    def lines(self) -> list[str]:
        """The text."""
        return str(self).splitlines()


class Array:
    """The array of `config`."""

    tables: Tables
    estate: Estate
    pairs: Pairs
    replication: Replication

    def __init__(self, config: Config) -> None:
        self._config = config
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
        except EstateError as error:
            await self._opened.aclose()
            raise StartError(str(error)) from error
        except BaseException:
            await self._opened.aclose()
            raise

    async def _open(self, config: Config) -> None:
        _raise_descriptor_limit()
        executor = ThreadPoolExecutor(THREADS, "arrayd")
        self._opened.callback(executor.shutdown)
        ring = Ring.or_none()
        if ring is None:
            log.info("no io_uring here: threads wait for cold reads, at more cost")
        else:
            self._opened.callback(ring.close)
        self.tables = await _open_tables(config, executor)
        self._opened.push_async_callback(self.tables.close)
        ledger = Ledger(config, _made_by_command(self.tables))
        buffers = BufferPool(BUFFER_BYTES)
        port = port_identifier(config.array.serial)
        port_name = f"{config.iscsi.target},t,{PORTAL_GROUP_TAG:#06x}"
        port_groups = PortGroups(port, (port,), (port_name,))
        self._port = port
        self._commands = self._make_commands(config, ledger)
        lanes = self._commands.lanes
        self._target = ScsiTarget(config.array.serial, buffers, port_groups, self.tables.reservations, lanes)
        disk = Disk(executor, Writeback.for_this_machine(), ring)
        self.pairs = _pairs(self.tables, ledger)
        self._opened.push_async_callback(self.pairs.settle)
        self.estate = Estate(ledger, disk, self._target, self.tables.reservations.forget, self.pairs)
        self._opened.push_async_callback(self._close_volumes)
        stores = FileStores(config.state_dir / "pairs", executor, disk.writeback, ring)
        self._opened.push_async_callback(stores.close_all)
        self.replication = self._make_replication(config, stores)
        self._opened.push_async_callback(self.replication.stop)
        await self.estate.volumes.open()
        self._opened.push_async_callback(self._target.stop)
        # After the links have stopped, so that no change waits for an array that does not answer.
        self._opened.push_async_callback(self.estate.settle)
        self._opened.push_async_callback(self._end_commands)
        await self._link(config, ledger, buffers, stores)
        self._node = Node(config.iscsi.target, config.array.name, self._target, port, buffers, node_rules(config))
        self._commands.start(self.estate, self.replication)
        self._opened.push_async_callback(self._commands.halt)

    async def _link(self, config: Config, ledger: Ledger, buffers: BufferPool, stores: FileStores) -> None:
        """The arrays that this one is connected with, and the LUN map, which may lead to them."""
        us = config.array.name
        try:
            settings = link_settings(config, ledger.held.connections)
        except ValueError as error:
            raise StartError(f"link.tls: expected {error}") from error
        self._far = FarEnd(us, self._attach, buffers)
        changed = self._commands.link_changed
        self._links = Links(settings, self._services, self._far.gone, os.urandom, time.monotonic, changed)
        self._opened.push_async_callback(self._unlink)
        try:
            # Before anybody sees a LUN: a volume of a pair is never shown as a plain one.
            await stores.forget_others([row.id for row in self.pairs.groups()])
            await self.replication.start()
        except (ReplicationError, VolumeError) as error:
            raise StartError(str(error)) from error
        try:
            address = self._links.start()
        except OSError as error:
            raise StartError(f"link.listen: cannot listen: {error.strerror or error}") from error
        if address is not None:
            log.info("link listens", address=_address(*address))

        def near(array: str) -> NearEnd:
            return NearEnd(us, array, self._links.way(array), buffers)

        self.estate.link(self._links, near, self._commands.device)

    async def _unlink(self) -> None:
        await self._links.stop("the array stops")
        self._far.stop()

    def _services(self, array: str) -> dict[int, Service]:
        """What an array may ask of this one."""
        return {
            SERVICE: self._far.service(array),
            asking.SERVICE: partial(self._commands.serve, array),
            PAIR_SERVICE: self.replication.service(array),
        }

    def _attach(
        self, initiator: str, isid: bytes, port: tuple[int, int, str], path: tuple[str, ...], local: bool
    ) -> Nexus:
        return self._target.attach(initiator, isid, port[0], None, Port(*port), path, local=local)

    # -- pairs -------------------------------------------------------------------------------------------------------

    def _make_replication(self, config: Config, stores: FileStores) -> Replication:
        self._copy_limit = Limit(config.replication.copy_rate)
        doors = Doors(
            config.array.name,
            _boot(),
            time.time_ns,
            time.monotonic,
            asker(lambda array, request: self._links.request(array, request)),
            lambda name: self.estate.volumes.opened[name],
            self.estate.fronts.show,
            stores,
            copy_limit=self._copy_limit,
        )

        def note(severity: str, text: str) -> None:
            self._commands.events.add(severity, "pair", text)

        return Replication(Surroundings(self.pairs, doors, KINDS, self.tables.change, note))

    # -- commands ----------------------------------------------------------------------------------------------------

    def _make_commands(self, config: Config, ledger: Ledger) -> Commands:
        us = Us(config.array.name, config.array.serial, __version__, time.monotonic, time.time, os.urandom)
        self._inner: InnerInitiator | None = None
        return Commands(
            us,
            self.tables,
            Reach(
                lambda array, request: self._links.request(array, request),
                self._inner_lun,
                lambda: link_statuses(self.estate),
                lambda: session_statuses(self._node),
                lambda: permission(ledger.held),
                lambda: place(ledger.held, self._links.peers),
            ),
        )

    def _inner_lun(self, number: int) -> InnerLun:
        """A LUN of this array, as its own initiator sees it."""
        if self._inner is None:
            self._inner = InnerInitiator(self._target.attach, self._config.array.name, self._port)
        return InnerLun(self._inner, number)

    async def _end_commands(self) -> None:
        await self._commands.stop()
        if self._inner is not None:
            self._inner.detach()

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

    async def _close_volumes(self) -> None:
        self._synced = await self.estate.close()

    # -- reload ------------------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> None:
        """Changes to `config`: volumes and LUNs added, removed or grown, initiators, commands. Raises StartError,
        unchanged."""
        key = changed_key(self._config, config)
        if key is not None:
            raise StartError(f"{key}: changed; that takes a restart")
        try:
            await self.estate.reload(config, partial(self._reloaded, config))
        except EstateError as error:
            raise StartError(str(error)) from error

    def _reloaded(self, config: Config) -> None:
        """Hosts see the volumes and LUNs of this configuration; who they are is next."""
        self._config = config
        self._node.apply(node_rules(config))
        self._copy_limit.change(config.replication.copy_rate)
        self._commands.events.add("info", "array", "reloaded")


def _made_by_command(tables: Tables) -> Rows:
    try:
        return Rows.of(tables.estate)
    except ValueError as error:
        raise StartError(str(error)) from error


def _pairs(tables: Tables, ledger: Ledger) -> Pairs:
    try:
        pairs = Pairs.of(tables.pairs)
    except ValueError as error:
        raise StartError(str(error)) from error
    found = lacking(tables.pairs, ledger.held.volumes)
    if found:
        raise StartError("\n".join(found))
    return pairs


def _boot() -> bytes:
    """Which boot of the machine this is; where it does not say, one that never was, as after a loss of power."""
    try:
        boot = bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        boot = b""
    return boot if len(boot) == BOOT_BYTES else os.urandom(BOOT_BYTES)


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


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have, up to what sessions and volumes may want."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
