"""Arrays that are killed at every call through a door while they are commanded: what `test_kill.py` runs.

For each point there is a fresh array in a process of its own, which ends by SIGKILL there; another process then looks
at what is left. One line of JSON a point: [killed, operations that were acknowledged, what the other one found].
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from arrayd.array import Array
from arrayd.config.document import Tree
from arrayd.config.load import of_tree
from arrayd.config.schema import Config
from arrayd.tables import Work

KIB = 1024
PATTERN = b"kept"
QUICK_STRIDE = 5
"""Under `scripts/test --quick` one in so many points."""
DOORS = ("open", "ftruncate", "fsync", "posix_fallocate", "rename", "unlink")
CONFIG: Tree = {"array": {"name": "a", "serial": "410001"}, "state_dir": "state", "iscsi": {"listen": ["127.0.0.1:0"]}}


class Doom:
    """Kills this process at the point of this number; each call through a door has one before and one behind it."""

    def __init__(self, point: int) -> None:
        self._left = point

    def pass_point(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def through(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            self.pass_point()
            try:
                return call(*arguments, **options)
            finally:
                self.pass_point()

        return called

    async def save(self, array: Array, work: Work) -> None:
        self.pass_point()
        await array.tables.change(work)
        self.pass_point()


async def commanded(config: Config, point: int, say: Callable[[str], object]) -> None:
    """One operation after the other; each is told when it is done."""
    array = Array(config)
    await array.start()
    doom = Doom(point)
    for door in DOORS:
        setattr(os, door, doom.through(getattr(os, door)))
    save = partial(doom.save, array)
    volumes, lun_map = array.estate.volumes, array.estate.luns
    operations: dict[str, Callable[[], Awaitable[None]]] = {
        "create": lambda: volumes.create("v", {"size": 64 * KIB, "thin": False}, save),
        "write": lambda: written(array),
        "map": lambda: lun_map.map(7, {"volume": "v"}, save),
        "resize": lambda: volumes.resize("v", 128 * KIB, save),
        "unmap": lambda: lun_map.unmap(7, save),
        "delete": lambda: volumes.delete("v", save),
        "create again": lambda: volumes.create("v", {"size": 96 * KIB}, save),
    }
    for name, operation in operations.items():
        await operation()
        say(json.dumps(name))
    os._exit(0)


async def written(array: Array) -> None:
    """A write that was acknowledged."""
    volume = array.estate.volumes.opened["v"]
    done = volume.write(0, memoryview(PATTERN.ljust(512)))
    if done is not None:
        await done


async def look(config: Config, folder: Path, say: Callable[[str], object]) -> None:
    """What an array finds there, and whether a volume that is not there can be made."""
    array = Array(config)
    await array.start()
    rows = array.estate.volumes.rows()
    files = {file.name: file.read_bytes() for file in (folder / "state" / "volumes").glob("*")}
    content = files.get("v.img", b"")
    found = {
        "volumes": [[row.name, row.volume.size, row.lun] for row in rows],
        "luns": sorted(array._target.units),
        "files": sorted(files),
        "content": content[: len(PATTERN)].decode(errors="replace"),
        "rest": len(content.strip(b"\0").removeprefix(PATTERN).strip()),
    }
    if not rows:
        await array.estate.volumes.create("v", {"size": 64 * KIB}, array.tables.change)
    say(json.dumps(found))
    await array.stop()


def in_a_process(work: Callable[[Callable[[str], object]], Any]) -> tuple[bool, list[Any]]:
    """Runs `work` in a process of its own: whether that was killed, and what it said."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(work(lambda line: os.write(sink, line.encode() + b"\n")))
            code = 0
        finally:
            os._exit(code)
    os.close(sink)
    with os.fdopen(source) as stream:
        said = [json.loads(line) for line in stream]
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    if not killed and os.waitstatus_to_exitcode(status):
        raise SystemExit(f"a process failed after it had said {said}")
    return killed, said


def main() -> None:
    """All points, until an array comes to the end of its operations."""
    # What is built once is built before the forks; and they do not look at, and so copy, what is there by then.
    first = Path(sys.argv[1])
    asyncio.run(look(of_tree(first / "array.yaml", CONFIG), first, lambda _said: None))
    gc.freeze()
    for point in itertools.count(1, QUICK_STRIDE if os.environ.get("ARRAYD_QUICK") == "1" else 1):
        folder = Path(sys.argv[1]) / str(point)
        folder.mkdir()
        config = of_tree(folder / "array.yaml", CONFIG)
        killed, acknowledged = in_a_process(partial(commanded, config, point))
        _, (found,) = in_a_process(partial(look, config, folder))
        print(json.dumps([killed, acknowledged, found]), flush=True)
        if not killed:
            return


if __name__ == "__main__":
    main()
