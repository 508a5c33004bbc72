"""What a file system on a LUN is asked to make durable is flushed in the array, too, before whoever asked goes on:
QEMU's export, a loop device and ext4 pass it through. Tests that lose a host believe in that.
"""

import os
from asyncio import to_thread
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.lab import parts
from tests.lab.daemon import configuration
from tests.lab.fixtures import StartArray
from tests.lab.fuse import FuseDisk
from tests.lab.postgres import Postgres, reachable_folder
from tests.lab.tap import SYNCHRONIZE_CACHE_10, Tap, tap

pytestmark = [pytest.mark.external, pytest.mark.timeout(120)]

TIMES: Final = 20
BLOCK: Final = bytes(range(256)) * 16


@pytest.fixture(autouse=True)
def _needs() -> None:
    parts.require_fuse()


def flushes(wire: Tap, lun: int) -> int:
    return wire.answered[lun, SYNCHRONIZE_CACHE_10]


async def test_each_fsync_is_a_flush_of_the_lun(tmp_path: Path, start_array: StartArray) -> None:
    array = start_array(configuration({"data": {"size": "64MiB"}}))

    def write() -> None:
        with FuseDisk(tmp_path / "export", array, portal=wire.address) as disk, disk.abandoned_on_error():
            disk.make_file_system()
            disk.mount(tmp_path / "mounted")
            with (tmp_path / "mounted" / "file").open("wb", buffering=0) as file:
                for _ in range(TIMES):
                    file.write(BLOCK)
                    before = flushes(wire, 0)
                    os.fsync(file.fileno())
                    assert flushes(wire, 0) > before

    async with tap(array.addresses[0]) as wire:
        await to_thread(write)


async def test_each_commit_of_postgresql_is_a_flush_of_the_lun_with_its_log(
    tmp_path: Path, start_array: StartArray
) -> None:
    parts.require(*parts.POSTGRES_PROGRAMS)
    array = start_array(configuration({"data": {"size": "128MiB"}, "log": {"size": "64MiB"}}))

    def commit() -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(reachable_folder())
            mounted = [folder / "data", folder / "log"]
            for lun, place in enumerate(mounted):
                disk = stack.enter_context(FuseDisk(folder / f"export{lun}", array, lun, portal=wire.address))
                disk.make_file_system()
                disk.mount(place)
            server = Postgres(folder, mounted[0] / "data", mounted[1] / "log", tmp_path / "postgres.log")
            stack.callback(server.gone)
            stack.callback(server.kill)
            server.initialise()
            server.start()
            server.sql("CREATE TABLE record (number integer)")
            for number in range(TIMES):
                before = flushes(wire, 1)
                server.sql(f"INSERT INTO record VALUES ({number})")
                assert flushes(wire, 1) > before
            server.stop()

    async with tap(array.addresses[0]) as wire:
        await to_thread(commit)
