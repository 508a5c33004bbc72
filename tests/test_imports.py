"""The house stands: imports run one way, and nothing goes around the doors to the real world."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

EVERYWHERE = {"log", "origin"}
"""What every room may import."""

ARROWS: dict[str, set[str]] = {
    # room: the rooms, or single modules of them, that it may import
    "__main__": {
        "array",
        "config",
        "estate.conflicts",
        "estate.rows",
        "notify",
        "replication.needs",
        "tables.estate",
    },
    "array": {"*"},  # ties the knots
    "config": set(),
    "settings": {"commands", "config", "estate.rows", "iscsi", "link.peers"},
    "log": set(),
    "origin": set(),
    "notify": set(),
    "buffers": set(),
    "sockets": set(),
    "spinner": set(),
    "turns": set(),
    "output": {"buffers", "scsi.task"},  # of SCSI only what it is given to send
    "blockfile": set(),
    "tables": {"scsi.persistent"},  # the type of the state it keeps; the room knows of tables only its own Protocol
    "iscsi": {"buffers", "output", "scsi.task", "sockets", "spinner"},  # of SCSI only the task it hands over
    "scsi": {"buffers", "volumes.volume"},  # of volumes only the interface
    "volumes": {"buffers", "blockfile", "tables"},
    "link": {"buffers", "output", "sockets", "spinner"},
    "virtual": {"buffers", "link.channel", "link.frames", "scsi"},
    "estate": {
        "blockfile",
        "config",
        "link.peers",
        "replication.guarded",  # what hosts see of a volume that is there for a journal
        "scsi.target",
        "scsi.virtual_unit",
        "tables",
        "turns",
        "virtual.near",
        "volumes",
    },
    "commands": {"config.values", "estate", "link.channel", "replication", "scsi.inner_initiator", "tables", "volumes"},
    "statuses": {"commands", "estate", "iscsi.session", "scsi.nexus"},
    "replication": {"blockfile", "buffers", "link", "tables", "turns", "volumes"},
    "host": {  # only the formats, and how files are read
        *("commands.formats", "commands.messages", "commands.results"),
        *(f"config.{name}" for name in ("document", "mistakes", "section", "validation", "values")),
        *("replication.statuses", "replication.exit_codes"),
        *("iscsi.pdu", "iscsi.keys", "iscsi.text", "iscsi.chap", "iscsi.wire"),
        *("scsi.lun", "scsi.sense", "scsi.task", "scsi.designators"),
    },
    "management": {"commands", "tables"},
}

IMPORT_DOORS: dict[str, set[str]] = {
    # module of the standard library or another: the only files that may import it
    "socket": {"sockets.py", "iscsi/server.py", "link/transport.py", "link/peers.py", "notify.py", "host/initiator.py"},
    "sqlite3": {
        f"tables/{name}.py"
        for name in ("changes", "commands", "database", "estate", "events", "monitors", "pairs", "reservations")
    },
    "ctypes": {"blockfile/kernel.py", "blockfile/ring.py", "host/sg.py"},
    "multiprocessing": set(),
    "subprocess": set(),
    "importlib": set(),
    "random": {"array.py", "host/machine.py"},
    "secrets": {"array.py"},
    "uuid": {"array.py"},
    "uvloop": {"__main__.py"},
}

BLOCK_DATA = {f"blockfile/{name}.py" for name in ("file", "kernel", "opening", "threads")}
DEVICES = {"host/disk.py"}
"""Where a host's tool reads and writes devices of its own machine."""
WALL_CLOCK = {"array.py", "log.py", "host/machine.py"}
CALL_DOORS: dict[str, set[str]] = {
    # function: the only files that may name it
    **{
        f"os.{call}": BLOCK_DATA | (DEVICES if call in ("preadv", "pwritev") else set())
        for call in (
            *("pread", "preadv", "pwrite", "pwritev", "readv", "writev", "lseek"),
            *("fdatasync", "sync", "posix_fallocate", "posix_fadvise", "ftruncate", "truncate"),
            *("copy_file_range", "splice"),
        )
    },
    "os.fsync": {"blockfile/opening.py", "tables/database.py"},  # there, of the directory a new file is in
    "os.sendfile": {"blockfile/file.py", "iscsi/server.py"},  # from the page cache to a socket: both doors at once
    "time.time": WALL_CLOCK,
    "time.time_ns": WALL_CLOCK,
    "time.localtime": set(),
    "time.sleep": {"host/machine.py"},  # arrayctl does one thing at a time
    "time.monotonic": {
        "array.py",
        "host/machine.py",
        "spinner.py",
    },  # uvloop counts in ms, once a turn
    "time.monotonic_ns": {"spinner.py"},
    "time.perf_counter": {"spinner.py"},
    "time.perf_counter_ns": {"spinner.py"},
    "time.clock_gettime": {"notify.py"},
    "time.clock_gettime_ns": {"notify.py"},  # what sd_notify asks for
    "datetime.datetime.now": set(),
    "datetime.datetime.utcnow": set(),
    "datetime.datetime.today": set(),
    "datetime.date.today": set(),
    "os.urandom": {"array.py", "host/machine.py"},
    "os.getrandom": {"array.py"},
    "fcntl.ioctl": {"host/sg.py"},
    "os.fork": set(),
    "os.system": set(),
    "concurrent.futures.ThreadPoolExecutor": {"array.py"},
    "threading.Thread": set(),
    "threading.Timer": set(),
    "asyncio.to_thread": {"__main__.py"},  # reads the configuration again
    "asyncio.open_connection": {"link/transport.py"},
    "asyncio.start_server": {"link/transport.py", "management/server.py"},
    "__import__": set(),
    "eval": set(),
    "exec": set(),
}


def imported(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, in functions and for type checkers as well."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}"


def named(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and full name of every dotted name that is used, whatever it was imported as."""
    known: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.lineno, f"{node.module}.{alias.name}"
    for node in nodes:
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        parts: list[str] = []
        name: ast.AST = node
        while isinstance(name, ast.Attribute):
            parts.append(name.attr)
            name = name.value
        if isinstance(name, ast.Name):
            yield name.lineno, ".".join([known.get(name.id, name.id), *reversed(parts)])


def may_import(file: str, module: str) -> bool:
    """Whether the file (relative to arrayd/) may import `arrayd.MODULE`."""
    room = Path(file).parts[0].removesuffix(".py")
    allowed = ARROWS.get(room, set()) | EVERYWHERE | {room}
    if module.partition(".")[0] not in ARROWS:
        return module == "__version__" or room == "array"
    return "*" in allowed or any(f"{module}.".startswith(f"{target}.") for target in allowed)


def wrong_arrows(file: str, source: str) -> list[str]:
    """One line for every import that runs the wrong way or around a door, every call around a door."""
    nodes = list(ast.walk(ast.parse(source)))
    wrong: list[str] = []
    for line, name in imported(nodes):
        where = f"arrayd/{file}:{line}"
        if name.startswith("."):
            wrong.append(f"{where} imports {name}: a relative import")
        elif name.startswith("arrayd."):
            if not may_import(file, name.removeprefix("arrayd.")):
                wrong.append(f"{where} imports {name}: an arrow the wrong way")
        elif any(f"{name}.".startswith(f"{door}.") and file not in files for door, files in IMPORT_DOORS.items()):
            wrong.append(f"{where} imports {name}: around its door")
    for line, name in named(nodes):
        if file not in CALL_DOORS.get(name, {file}):
            wrong.append(f"arrayd/{file}:{line} uses {name}: around its door")
    return sorted(set(wrong))


def sources() -> list[str]:
    """Every file of the daemon, relative to arrayd/."""
    house = ROOT / "arrayd"
    return sorted(str(file.relative_to(house)) for file in house.rglob("*.py"))


@pytest.mark.parametrize("file", sources())
def test_arrows_run_one_way(file: str) -> None:
    assert wrong_arrows(file, (ROOT / "arrayd" / file).read_text()) == []


def test_every_room_is_in_the_table() -> None:
    rooms = {Path(file).parts[0].removesuffix(".py") for file in sources()}
    assert rooms - {"__init__"} <= set(ARROWS)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("iscsi/session.py", "from arrayd.scsi.sense import Key"),
        ("iscsi/session.py", "import arrayd.volumes.volume"),
        ("iscsi/session.py", "from arrayd import volumes"),
        ("scsi/target.py", "from arrayd.volumes.file_volume import FileVolume"),
        ("scsi/target.py", "def late():\n    from arrayd.iscsi import session"),
        ("scsi/target.py", "if TYPE_CHECKING:\n    import arrayd.array"),
        ("volumes/file_volume.py", "from arrayd.replication.journal import Journal"),
        ("config/load.py", "from arrayd.iscsi.names import name"),
        ("host/paths.py", "from arrayd.config.schema import Config"),
        ("scsi/target.py", "from .task import Task"),
        ("scsi/target.py", "from arrayd.new_room import thing"),
        ("iscsi/session.py", "import socket"),
        ("iscsi/session.py", "from socket import AF_INET"),
        ("volumes/file_volume.py", "import os\nos.pwrite(1, b'', 0)"),
        ("volumes/file_volume.py", "from os import fsync"),
        ("volumes/file_volume.py", "import os as system\nwrite = system.fdatasync"),
        ("iscsi/session.py", "import time\nnow = time.time()"),
        ("iscsi/session.py", "from time import monotonic as clock"),
        ("iscsi/session.py", "from datetime import datetime\nnow = datetime.now()"),
        ("iscsi/chap.py", "import secrets"),
        ("scsi/target.py", "module = __import__('arrayd.array')"),
        ("scsi/target.py", "import importlib.util"),
    ],
)
def test_the_checker_sees(file: str, source: str) -> None:
    assert wrong_arrows(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("iscsi/session.py", "from arrayd.scsi.task import Task\nfrom arrayd.buffers import BufferPool"),
        ("scsi/target.py", "from arrayd.volumes.volume import Volume\nfrom arrayd.scsi import opcodes"),
        ("array.py", "import arrayd.iscsi.server, arrayd.volumes.file_volume"),
        ("iscsi/server.py", "import socket"),
        ("blockfile/file.py", "import os\nos.pwrite(1, b'', 0)"),
        ("__main__.py", "from arrayd import __version__, log"),
        ("iscsi/session.py", "self.time.time()\nos_pwrite()"),
    ],
)
def test_the_checker_lets_pass(file: str, source: str) -> None:
    assert wrong_arrows(file, source) == []
