"""Two arrays in memory: a host on the one, a volume on the other, and between them a link that is cut at any byte."""

from __future__ import annotations

from collections.abc import Mapping

from arrayd.buffers import BufferPool
from arrayd.link.channel import Asking, Channel, Service
from arrayd.scsi.alua import Port
from arrayd.scsi.target import ScsiTarget
from arrayd.virtual.far import FarEnd
from arrayd.virtual.formats import SERVICE
from arrayd.virtual.near import NearEnd
from tests.iscsi.requests import Outcome
from tests.iscsi.session_driver import Host, make_node
from tests.link.ends import End, Line, introduction
from tests.scsi.memory_volume import WarmVolume

NEAR = Port(101, 100, "iqn.x:near,t,0x0001")
"""What the far array takes the near one's target port for: both are made alike."""


class CountedVolume(WarmVolume):
    """Counts what is written to it; long reads of it go as from a file."""

    def __init__(self, size: int) -> None:
        super().__init__(size=size)
        self.writes: list[tuple[int, int]] = []

    def _put(self, offset: int, view: memoryview | bytes) -> None:
        self.writes.append((offset, len(view)))
        super()._put(offset, view)


class Way:
    """As `link.peers.Way`, without peers."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.at_once = channel.request_at_once

    def __call__(self, request: Asking) -> None:
        self.channel.request(request)


class Pair:
    """`a` has the host, `b` the volume. Nothing moves between them but by `line`."""

    def __init__(self, size: int = 2 << 20) -> None:
        self.pool = BufferPool(1 << 30)
        self.volume = CountedVolume(size)
        self.line = Line(End(introduction("a"), {}), self._far_array(1))
        self.near = NearEnd("a", "b", Way(self.line.a.channel), self.pool)
        node = make_node({0: self.near.unit(0)})  # type: ignore[dict-item]
        target = node.target
        assert isinstance(target, ScsiTarget)
        self.near_target = target
        self.host = Host(node)
        self.line.connect()
        self.line.settle()

    def _far_array(self, incarnation: int) -> End:
        node = make_node({0: self.volume})
        target = node.target
        assert isinstance(target, ScsiTarget)
        self.far_target = target
        self.far = FarEnd(
            "b",
            lambda initiator, isid, _port, path, local: target.attach(
                initiator, isid, NEAR.identifier, None, NEAR, path, local=local
            ),
            self.pool,
        )
        service: Service = self.far.service("a")
        return End(introduction("b", incarnation=incarnation), {SERVICE: service})

    def login(self, keys: Mapping[str, str] | None = None) -> Pair:
        """A host that has heard of every unit attention."""
        self.host.login(keys or {})
        for _ in range(4):
            self.host.feed(self.host.command(bytes(6)))
            self.settle()
        assert self.last.status == 0
        (nexus,) = self.near_target.nexuses
        assert nexus.fast[0], "commands are done on the spot"
        return self

    @property
    def last(self) -> Outcome:
        """What became of the last command."""
        return self.host.outcomes[self.host.last_tag]

    def settle(self) -> None:
        """Carries everything, both ways, and to the host."""
        self.line.settle()
        self.host.pump()
        self.line.settle()
        self.host.pump()

    def begin(self, cdb: bytes, *, out: bytes = b"", expected_in: int = 0) -> Outcome:
        """A command, all of its data included; nothing of it goes over the link yet."""
        self.host.feed(self.host.command(cdb, out=out, expected_in=expected_in))
        outcome, answered = self.last, 0
        while answered < len(outcome.asked):
            answered += 1
            self.host.feed(self.host.answer_to(outcome.asked[answered - 1], out))
        return outcome

    def reconnect(self) -> None:
        """Another connection, when the one before was cut."""
        self.line.cut()
        self.line.connect()

    def restart_far(self) -> None:
        """The far array was killed and is there again, with what its volume has."""
        self.line.cut()
        self.line.b = self._far_array(2)
        self.line.connect()

    def assert_nothing_left(self) -> None:
        """No request, no answer, no buffer is left of anything."""
        assert self.line.a.connection is not None
        self.line.a.connection.beat()
        self.settle()
        assert self.pool.used_bytes == 0
        for end in (self.line.a, self.line.b):
            assert end.channel.idle
            assert not end.channel.running
            assert not end.channel._kept
            assert (end.channel._taken, end.channel._counted, end.channel._kept_bytes) == (0, 0, 0)
            assert end.channel.buffers.used_bytes == 0
        for unit in self.near_target.units.values():
            assert not list(unit.tasks)
