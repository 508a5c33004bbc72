"""What is measured and what is claimed: every row of the table.

A row has *subjects*, which run in turn (a target as it is set up, with the work of the load generator), and
*comparisons* between them, some with a claim: the least ratio that the row is there to show.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

KIB, MIB = 1024, 1024 * 1024
P99_NO_WORSE = 1.0
MANY_SESSIONS, MANY_LUNS = 16, 256
ARRAYD, TGT, TGT_T1 = "arrayd", "tgt", "tgt -t 1"
ALONE, BESIDE_SLOW, BESIDE_FAST = "alone", "beside slow", "beside fast"
BESIDE_COMMANDS = "beside commands"


class FileSystem(enum.Enum):
    """Where the volumes' files are."""

    TMPFS = "tmpfs"
    EXT4 = "ext4"


class Link(enum.Enum):
    """What the arrays of a pair are linked by."""

    DIRECT = "direct"
    CUT = "cut"
    SLOW = "1 Mbit/s"
    DELAYED_5 = "5 ms"
    DELAYED_20 = "20 ms"
    """Each way, on the wire."""


class Metric(enum.Enum):
    """What of a run is compared. A ratio above 1 is always in favour of the first subject."""

    RATE = "rate"
    P50 = "p50"
    P99 = "p99"


@dataclass(frozen=True)
class Work:
    """One ``--work`` of the load generator; see load/main.c."""

    op: str
    bytes: int = 4 * KIB
    depth: int = 1
    sessions: int = 1
    luns: int = 1
    first_lun: int = 0
    sequential: bool = False
    once: bool = False
    path: str = ""
    """Of ``message``: arrays behind the one that is asked."""
    gap_us: int = 0
    """Of ``command`` and ``message``: a pause before each."""

    def option(self, lun_0: int) -> str:
        """As the load generator wants it; ``lun_0`` is the target's number for our first LUN."""
        pattern = "sequential" if self.sequential else "random"
        text = f"op={self.op},pattern={pattern},bytes={self.bytes},depth={self.depth},sessions={self.sessions}"
        text = f"{text},lun={lun_0 + self.first_lun},luns={self.luns}" + (",once" if self.once else "")
        return text + (f",path={self.path}" if self.path else "") + (f",gap={self.gap_us}" if self.gap_us else "")


@dataclass(frozen=True)
class TargetSetup:
    """A target as it is started. Two subjects with the same set-up share one process."""

    program: str
    file_system: FileSystem
    luns: int = 1
    durable: bool = False
    io_threads: int | None = None
    """Of tgt; None: as it comes."""
    poll_us: int | None = None
    """Of arrayd; None: its default."""
    link: Link = Link.DIRECT
    """Of a pair."""


@dataclass(frozen=True)
class Subject:
    """One column of a row: a target and what is asked of it. ``works[0]`` is what the row reports."""

    label: str
    setup: TargetSetup
    works: tuple[Work, ...]
    digests: bool = False
    cold_luns: tuple[int, ...] = ()
    """Dropped from the page cache before each run; the others are in it."""
    hops: int = 0
    """Of a chain: links between the array that is asked and the one with the volume."""


@dataclass(frozen=True)
class Comparison:
    """The first subject over the fastest of the others, run by run; ``at_least`` is the claim, None: to watch."""

    of: str
    against: tuple[str, ...]
    metric: Metric
    at_least: float | None


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    subjects: tuple[Subject, ...]
    comparisons: tuple[Comparison, ...] = ()
    seconds: float = 0.6
    warmup: float = 0.15


def against_tgt(name: str, work: Work, claim: float | None, setup: TargetSetup, cold: bool = False) -> Row:
    """A row with both set-ups of tgt; the claim is against the faster, p99 must be no worse than that one's."""
    tgt = TargetSetup("tgt", setup.file_system, setup.luns, setup.durable)
    columns = ((ARRAYD, setup), (TGT, tgt), (TGT_T1, replace(tgt, io_threads=1)))
    cold_luns = tuple(range(setup.luns)) if cold else ()
    subjects = tuple(Subject(label, started, (work,), cold_luns=cold_luns) for label, started in columns)
    comparisons = (
        Comparison(ARRAYD, (TGT, TGT_T1), Metric.RATE, claim),
        Comparison(ARRAYD, (TGT, TGT_T1), Metric.P99, P99_NO_WORSE),
    )
    return Row(name, subjects, comparisons, warmup=0.0 if cold else Row.warmup)


def beside_neighbour(name: str, slow: Work, fast: Work, cold: bool) -> Row:
    """Warm reads on one LUN beside a second session on another, which makes the disk wait.

    On a machine with few cores any neighbour costs them something, so the control is one that asks for the same work
    and never waits: the slow neighbour must not disturb more than the fast one.
    """
    warm = Work("read", depth=8)
    setup = TargetSetup("arrayd", FileSystem.EXT4, luns=2)
    subjects = (
        Subject(BESIDE_SLOW, setup, (warm, replace(slow, first_lun=1)), cold_luns=(1,) if cold else ()),
        Subject(BESIDE_FAST, setup, (warm, replace(fast, first_lun=1))),
        Subject(ALONE, setup, (warm,)),
    )
    comparisons = (
        Comparison(BESIDE_SLOW, (BESIDE_FAST,), Metric.P99, P99_NO_WORSE),
        Comparison(BESIDE_SLOW, (BESIDE_FAST,), Metric.RATE, None),
        Comparison(BESIDE_SLOW, (ALONE,), Metric.P99, None),
        Comparison(BESIDE_SLOW, (ALONE,), Metric.RATE, None),
    )
    return Row(name, subjects, comparisons, warmup=0.0)


def watched(
    name: str, work: Work, digests: bool = False, seconds: float = Row.seconds, poll_us: int | None = None
) -> Row:
    """A row without a peer."""
    setup = TargetSetup("arrayd", FileSystem.TMPFS, luns=work.luns, poll_us=poll_us)
    return Row(name, (Subject(ARRAYD, setup, (work,), digests),), seconds=seconds)


def over_links(name: str, work: Work, one_hop: float | None, metric: Metric) -> Row:
    """A virtual LUN over one and over two links beside the LUN it leads to. All three arrays and the load generator
    share this machine's processors."""
    setup = TargetSetup("chain", FileSystem.TMPFS)
    subjects = tuple(Subject(label, setup, (work,), hops=hops) for hops, label in enumerate((DIRECT, *OVER)))
    claims = {OVER[0]: one_hop, OVER[1]: LATENCY_CLAIMS[1] if metric is Metric.P50 else None}
    comparisons = tuple(Comparison(label, (DIRECT,), metric, claim) for label, claim in claims.items())
    return Row(f"virtual/{name}", subjects, comparisons)


DIRECT = "direct"
OVER = ("1 hop", "2 hops")
VIRTUAL_CLAIM = 0.6
"""Of the rate on the far array itself, at depth 32."""
LATENCY_CLAIMS = (1 / (2 * 1.25), 1 / (3 * 1.25))
"""A command over one link goes two ways, host to array and array to array, each as long as the direct one; over two
links three. It may take what they take together, and a quarter more."""


def rows_virtual() -> list[Row]:
    """4k and 1M at depth 32 and 1."""
    rows = []
    for op in ("read", "write"):
        rows.append(over_links(f"4k-{op}-qd32", Work(op, depth=32), VIRTUAL_CLAIM, Metric.RATE))
        rows.append(over_links(f"4k-{op}-qd1", Work(op), LATENCY_CLAIMS[0], Metric.P50))
        for depth in (32, 1):
            work = Work(op, MIB, depth, sequential=True)
            metric, claim = (Metric.RATE, VIRTUAL_CLAIM) if depth > 1 else (Metric.P50, LATENCY_CLAIMS[0])
            rows.append(over_links(f"1m-{op}-qd{depth}", work, claim, metric))
    return rows


COMMANDS_CLAIM = 0.9
"""What a stream of commands leaves of the rate of reads on another LUN."""
COMMANDS_DEPTH = 16
COMMAND_GAP_US = 8000
"""So that no command waits for its turn (`arrayd.commands.pace`): it is the latency that is measured."""
DEVICE_LUN = 9
"""Of a chain: the last array's command device, and what leads to it."""


def commands_row(name: str, works: Sequence[Work]) -> Row:
    """Commands for the array itself, and over one and two links."""
    setup = TargetSetup("chain", FileSystem.TMPFS)
    labels = (DIRECT, *OVER)
    subjects = tuple(Subject(label, setup, (works[hops],), hops=hops) for hops, label in enumerate(labels))
    comparisons = tuple(Comparison(label, (DIRECT,), Metric.P50, None) for label in OVER)
    return Row(f"commands/{name}", subjects, comparisons)


def rows_commands() -> list[Row]:
    """By a command device and by a message; and what a stream of them costs reads on another LUN."""
    device = Work("command", first_lun=DEVICE_LUN)
    here, one, two = (Work("message", path=path) for path in ("", "chain2/", "chain1/chain2/"))
    setup, reads = TargetSetup("chain", FileSystem.TMPFS), Work("read", depth=32)
    rows = []
    for name, works in (("device", (device, device, device)), ("message", (here, one, two))):
        apart = [replace(work, gap_us=COMMAND_GAP_US) for work in works]
        rows.append(commands_row(f"{name}-latency", apart))
        rows.append(commands_row(f"{name}-rate", [replace(work, depth=COMMANDS_DEPTH) for work in works]))
    for name, stream in (("device", device), ("message", here)):
        subjects = (Subject(BESIDE_COMMANDS, setup, (reads, stream)), Subject(ALONE, setup, (reads,)))
        claim = Comparison(BESIDE_COMMANDS, (ALONE,), Metric.RATE, COMMANDS_CLAIM)
        rows.append(Row(f"beside/commands-{name}", subjects, (claim,)))
    return rows


PAIRED, PLAIN = "P-VOL", "in no pair"
PAIR_CLAIM = 0.75
"""Of the rate of writes to a volume that is in no pair."""
PAIR_P99_CLAIM = 1 / 1.25
LASTING_SECONDS = 8.0
"""Longer than what the other side may lag behind for a burst."""
LINK_CLAIM = 1 / 1.1
"""Of p99: a link that is slow or cut costs the host nothing."""


def pair_row(name: str, file_system: FileSystem, depth: int, claimed: bool, seconds: float = Row.seconds) -> Row:
    """Writes to a P-VOL, whose S-VOL follows, beside writes to a volume of the same array that is in no pair."""
    setup, work = TargetSetup("pair", file_system, luns=2), Work("write", depth=depth)
    subjects = (Subject(PAIRED, setup, (replace(work, first_lun=1),)), Subject(PLAIN, setup, (work,)))
    comparisons = (
        Comparison(PAIRED, (PLAIN,), Metric.RATE, PAIR_CLAIM if claimed else None),
        Comparison(PAIRED, (PLAIN,), Metric.P99, PAIR_P99_CLAIM if claimed else None),
    )
    return Row(f"pairs/{file_system.value}-{name}", subjects, comparisons, seconds)


def pair_by_link(name: str, link: Link) -> Row:
    """Writes to a P-VOL by such a link beside writes to one whose S-VOL follows."""
    direct, work = TargetSetup("pair", FileSystem.TMPFS, luns=2), Work("write", depth=32, first_lun=1)
    subjects = (Subject(link.value, replace(direct, link=link), (work,)), Subject(Link.DIRECT.value, direct, (work,)))
    comparisons = (
        Comparison(link.value, (Link.DIRECT.value,), Metric.RATE, None),
        Comparison(link.value, (Link.DIRECT.value,), Metric.P99, LINK_CLAIM),
    )
    return Row(f"pairs/{name}", subjects, comparisons)


COPY, RESTORE, STREAM = "copy", "restore", "one stream"
"""Of a pair, what is measured by what is left of it, and no command of a host's; and what bounds it."""
TRANSFERS = (COPY, RESTORE, STREAM)
TRANSFER_CLAIM = 0.7


def transfer_row(op: str, file_system: FileSystem) -> Row:
    """A copy or a restore beside as many bytes in one stream from file to file."""
    setup = TargetSetup("pair", file_system, luns=2)
    subjects = tuple(Subject(label, setup, (Work(label, MIB),)) for label in (op, STREAM))
    claim = Comparison(op, (STREAM,), Metric.RATE, TRANSFER_CLAIM)
    return Row(f"pairs/{file_system.value}-{op}", subjects, (claim,))


def rows_pairs() -> list[Row]:
    """A burst and a load that lasts, what the link costs the host, and how fast the other side gets what it has not."""
    rows = []
    for file_system in FileSystem:
        rows.append(pair_row("4k-write-qd32", file_system, 32, claimed=True))
        rows.append(pair_row("4k-write-qd1", file_system, 1, claimed=False))
        rows += [transfer_row(op, file_system) for op in (COPY, RESTORE)]
    rows.append(pair_row("4k-write-lasting", FileSystem.TMPFS, 32, claimed=False, seconds=LASTING_SECONDS))
    return [*rows, pair_by_link("link-cut", Link.CUT), pair_by_link("link-slow", Link.SLOW)]


SYNC, VIRTUAL = "synchronous P-VOL", "virtual volume"
SYNC_CLAIM = 1 / 1.05
"""Of the latency, and of the rate, of writes that go over the same link to the same array, and nowhere else: a round
trip and the write there. The write here is done meanwhile."""


def sync_row(link: Link, depth: int) -> Row:
    """Writes to a synchronous P-VOL beside writes to a virtual volume that leads to the other array, by such a link."""
    setup = TargetSetup("sync", FileSystem.TMPFS, luns=3, link=link)
    subjects = tuple(
        Subject(label, setup, (Work("write", depth=depth, first_lun=lun),)) for lun, label in ((1, SYNC), (2, VIRTUAL))
    )
    metric = Metric.P50 if depth == 1 else Metric.RATE
    name = "direct" if link is Link.DIRECT else f"{link.value.replace(' ', '-')}"
    claim = None if link is Link.DIRECT else SYNC_CLAIM
    return Row(f"sync/{name}-4k-write-qd{depth}", subjects, (Comparison(SYNC, (VIRTUAL,), metric, claim),), seconds=2.0)


def rows_sync() -> list[Row]:
    """At depth 1, where a write takes as long as its way, and at depth 32."""
    links = (Link.DIRECT, Link.DELAYED_5, Link.DELAYED_20)
    return [sync_row(link, depth) for link in links for depth in (1, 32)]


WORKS = (
    ("4k-read-qd32", Work("read", depth=32), 2.5),
    ("4k-write-qd32", Work("write", depth=32), 2.3),
    ("4k-read-qd32-x4", Work("read", depth=32, sessions=4), 4.0),
    ("4k-write-qd32-x4", Work("write", depth=32, sessions=4), 3.5),
    ("4k-read-qd1", Work("read"), 1.0),
    ("4k-write-qd1", Work("write"), 1.0),
    ("4k-read-qd1-x4", Work("read", sessions=4), 1.0),
    ("4k-write-qd1-x4", Work("write", sessions=4), 1.0),
    ("64k-read", Work("read", 64 * KIB, 8, sequential=True), 1.7),
    ("64k-write", Work("write", 64 * KIB, 8, sequential=True), 1.7),
    ("1m-read", Work("read", MIB, 8, sequential=True), 2.5),
    ("1m-write", Work("write", MIB, 8, sequential=True), 2.5),
)
"""Random 4k with one session and four, and sequential 64k and 1M at depth 8, with the ratio claimed on tmpfs."""
POLLING_CLAIM = 2.0
WRITE_BACK_CLAIM = 1.2
"""Writes on a file system with a disk below it: write-back bounds both."""
DURABLE_CLAIM = 2.0


def rows_in_cache(file_system: FileSystem) -> list[Row]:
    """The rows of ``WORKS``, volumes in page cache. One session at depth 1 comes without adaptive polling, too."""
    rows = []
    for name, work, wanted in WORKS:
        name = f"{file_system.value}/{name}"
        bound = WRITE_BACK_CLAIM if file_system is FileSystem.EXT4 and work.op == "write" else float("inf")
        setup = TargetSetup("arrayd", file_system)
        if work.depth == work.sessions == 1:
            rows.append(against_tgt(name, work, min(wanted, bound), replace(setup, poll_us=0)))
            rows.append(against_tgt(f"{name}-polling", work, min(POLLING_CLAIM, bound), setup))
        else:
            rows.append(against_tgt(name, work, min(wanted, bound), setup))
    return rows


def rows_cold() -> list[Row]:
    """Nothing of the volume is in the page cache: the disk is what is measured, p99 is what is claimed."""
    setup = TargetSetup("arrayd", FileSystem.EXT4)
    alone = [(name, work) for name, work, _ in WORKS if work.sessions == 1]
    return [against_tgt(f"cold/{name}", replace(work, once=True), None, setup, cold=True) for name, work in alone]


def all_rows() -> list[Row]:
    """Every row, in the order of the table."""
    durable = TargetSetup("arrayd", FileSystem.EXT4, durable=True)
    return [
        *rows_in_cache(FileSystem.TMPFS),
        *rows_in_cache(FileSystem.EXT4),
        *rows_cold(),
        against_tgt("durable/4k-write-qd32", Work("write", depth=32), DURABLE_CLAIM, durable),
        beside_neighbour("beside/cold-reads", Work("read", depth=8, once=True), Work("read", depth=8), cold=True),
        beside_neighbour("beside/fsync", Work("sync", depth=4), Work("write", depth=4), cold=False),
        *rows_virtual(),
        *rows_commands(),
        *rows_pairs(),
        *rows_sync(),
        watched("watch/4k-read-digests", Work("read", depth=32), digests=True),
        watched("watch/4k-write-digests", Work("write", depth=32), digests=True),
        watched("watch/1m-read-digests", Work("read", MIB, 8, sequential=True), digests=True),
        watched(f"watch/4k-read-{MANY_SESSIONS}-sessions", Work("read", depth=32, sessions=MANY_SESSIONS)),
        watched(f"watch/4k-read-{MANY_LUNS}-luns", Work("read", depth=32, luns=MANY_LUNS)),
        watched("watch/idle", Work("idle", sessions=4), seconds=5.0),
        watched("watch/idle-without-polling", Work("idle", sessions=4), seconds=5.0, poll_us=0),
    ]
