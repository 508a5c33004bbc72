"""What the two sides of a group are held to, whatever becomes of it: see the promise in `docs/replication.md`.

Each order of writes (an epoch of a primary journal) is known by what the journal was given. The S-VOLs are held against
it at each position that is told, when they are split or fail, when they are taken over, and when they become P-VOLs. A
copy over S-VOLs that were a point of the group's writes leads back to that point. Hosts' writes are taken where a
volume may be written, and nowhere else.

It stands between the parts of an array: `stand_ins` names where.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from arrayd.estate.fronts import Fronts
from arrayd.replication.following import Following
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.guarded import GuardedVolume, UnreadableVolume
from arrayd.replication.journal import AuxiliaryJournal, Kind, Position, PrimaryJournal
from arrayd.replication.journaling import Journaling
from arrayd.replication.marking import Marking
from arrayd.replication.meetings import RUNNING_STATES
from arrayd.replication.room import Replication
from arrayd.replication.stages import Stage
from arrayd.replication.standing import Standing
from arrayd.replication.statuses import Side, Status
from arrayd.replication.synchronous.mirroring import Mirroring
from arrayd.replication.synchronous.receiving import Receiving
from tests.simulation.disk import Inode
from tests.simulation.doors import living
from tests.simulation.prefixes import Given, Order, check_same, data_of
from tests.simulation.promises import Promise, Still, Writes
from tests.simulation.world import Machine, Violated, World

APPEND, RESTORED, SHOW = PrimaryJournal.append_now, AuxiliaryJournal.restored, Fronts.show
STAGES: tuple[type[Stage], ...] = (Journaling, Marking, Following, Standing, Mirroring, Receiving)
ENTERS: dict[type[Stage], Callable[[Any], Any]] = {kind: kind.enter for kind in STAGES}
CHANGED, START = Following.changed, Replication.start


class Beside:
    """What is known of the group on one array."""

    def __init__(self) -> None:
        self.row: GroupRow | None = None
        """The last one that a stage was entered with."""
        self.stage: Stage | None = None
        self.told: dict[int, int] = {}
        """How much was told as restored, by epoch."""
        self.whole = False
        """Whether its volumes are S-VOLs that have been a point of the group's writes since their copy ended."""
        self.anchor: list[bytes] | None = None
        """What they were before a copy that has not ended, if that was such a point."""
        self.mixed = False
        """Whether a copy over its volumes has begun that has neither ended nor been undone."""
        self.written_over = False
        """Whether what they hold came from the other side."""
        self.troubled = False
        """Whether they are S-VOLs that could not be taken up after a fault."""
        self.restarted = False
        """Whether it has not taken up the group yet."""


class Watch:
    """Of the group of these volumes, by number, on two machines."""

    def __init__(self, world: World, volumes: tuple[str, ...], size: int, block_bytes: int) -> None:
        self.world = world
        self.volumes = volumes
        self.size = size
        self.sides: dict[str, Beside] = {}
        self.orders: dict[tuple[str, int], Order] = {}
        """By array and epoch."""
        self.writes = {volume: Writes(volume) for volume in volumes}
        self.blocks = size // block_bytes
        self.promises: dict[str, dict[str, Promise]] = {}
        """By array and volume."""
        self.broken: Violated | None = None
        """What was found first where only the array would have heard of it."""
        self.checked = Counter[str]()
        """Times that volumes were held against an order, by why."""
        self.machines: dict[str, Machine] = {}

    def add(self, machine: Machine) -> None:
        """One of the two."""
        self.machines[machine.name] = machine
        self.sides[machine.name] = Beside()
        self.promises[machine.name] = {volume: self.promise(machine.name, volume) for volume in self.volumes}
        machine.restarting = self._restarting

    def promise(self, _array: str, volume: str) -> Promise:
        """That of a volume of one of the two."""
        return Promise(volume, self.blocks, self.writes[volume])

    def other(self, array: str) -> str:
        """The other side."""
        (other,) = self.sides.keys() - {array}
        return other

    def contents(self, array: str) -> list[bytes]:
        """What its files hold, as the array sees them."""
        files = (self._file(array, volume) for volume in self.volumes)
        return [os.pread(file.fd, self.size, 0) for file in files]

    def _file(self, array: str, volume: str) -> Inode:
        machine = self.machines[array]
        return machine.disk.inode(f"{machine.folder}/volumes/{volume}.img")

    def _restarting(self, machine: Machine, power: bool) -> None:
        side = self.sides[machine.name]
        side.restarted = True
        failed = {volume for volume in self.volumes if f"{volume}.img" in machine.disk.failed}
        for volume, promise in self.promises[machine.name].items():
            if power or volume in failed:
                promise.lost_power(power)
        for (array, _), order in self.orders.items():
            if (power or failed) and array == machine.name:
                order.lost_power()

    # -- what is found -----------------------------------------------------------------------------------------------

    def find(self, look: Callable[[], None]) -> None:
        """Keeps what it raises: an array would take it for a fault of its own."""
        try:
            look()
        except Violated as violated:
            if self.broken is None:
                self.world.trace.note("-", f"found: {violated}")
            self.broken = self.broken or violated

    def check_found(self) -> None:
        """Raises Violated: what was found."""
        if self.broken is not None:
            raise self.broken

    def look(self) -> None:
        """Looks at what may be looked at at any moment."""

    # -- the order of writes -----------------------------------------------------------------------------------------

    def given(self, array: str, epoch: int, begin: int, given: Given) -> None:
        """A primary journal is about to take a write."""
        order = self.orders.setdefault((array, epoch), Order())
        if not order.checked:
            file = self._file(array, self.volumes[given.volume])
            given.before = os.pread(file.fd, given.extent, given.offset)
        self.find(lambda: order.was_given(begin, given))

    def restored(self, array: str, epoch: int, sequence: int) -> None:
        """An auxiliary journal has told so much as restored, durably."""
        side = self.sides[array]
        if sequence < side.told.get(epoch, 0):
            self.find(lambda: self._fail(array, f"restored goes back to {sequence} from {side.told[epoch]}"))
        side.told[epoch] = sequence
        if side.whole and side.row is not None and side.row.epoch == epoch:
            self._check(array, epoch, "restored")

    def _fail(self, array: str, text: str) -> None:
        raise Violated(f"{array}: {text}")

    def _check(self, array: str, epoch: int, why: str) -> None:
        """The volumes are the writes of that epoch as far as was told."""
        self.checked[why] += 1
        order = self.orders.get((self.other(array), epoch), Order())
        told = self.sides[array].told.get(epoch, 0)
        self.find(lambda: order.check(told, self.contents(array), f"{array}, {why}, epoch {epoch}"))

    # -- stages ------------------------------------------------------------------------------------------------------

    def entering(self, array: str, stage: Stage) -> None:
        """A stage is about to be entered; hosts see the volumes as before."""
        side, row = self.sides[array], stage.row
        before = side.row
        was = side.stage
        if isinstance(stage, Journaling):
            self._led(array, stage)
        if side.restarted and isinstance(stage, Journaling | Marking):
            self._kept(array, stage)
        side.restarted = False
        if isinstance(stage, Following | Receiving):
            self._follows(array, stage)
        elif isinstance(stage, Standing):
            if row.side is Side.S_VOL and RUNNING_STATES & set(row.states.values()):
                # They could not be taken up: nobody knows what they are.
                side.whole, side.mixed, side.troubled = False, True, True
            elif not row.consistent:
                side.whole, side.anchor = False, None
            elif side.whole and row.side is Side.S_VOL:  # P-VOLs that stand are of an order of their own
                self._hear(array, row)
                self._check(array, row.epoch, "stands")
        elif row.side is Side.S_VOL:
            side.mixed = False
            if not (isinstance(was, Marking) and before is not None and before.side is Side.S_VOL):
                self._hear(array, row)
                self._opened(array, row.epoch, "is opened")
            side.anchor = None
        elif before is not None and before.side is Side.S_VOL:
            self._turned(array, before, row)
            side.anchor, side.mixed = None, False
        if side.troubled and not RUNNING_STATES & set(row.states.values()):
            side.troubled = False
            if row.side is Side.S_VOL and row.consistent:
                self.find(lambda: self._fail(array, "S-VOLs that could not be taken up are told to be consistent"))
        side.row, side.stage = row, stage

    def _follows(self, array: str, stage: Any) -> None:
        """S-VOLs are followed, or copied, from now on."""
        side, row = self.sides[array], stage.row
        journal = stage.journal
        assert journal is not None
        regions = journal.regions
        side.written_over, side.troubled = True, False
        if any(pair.state.status is Status.COPY for pair in row.pairs):
            if not row.consistent:
                side.anchor = None
            elif side.anchor is None and (side.row is None or side.row.generation != row.generation):
                side.anchor = self.contents(array)
            side.whole, side.mixed = False, True
            self.restored(array, row.epoch, regions.oldest.sequence)
            return
        self._whole(array, row)
        if regions.oldest == regions.to_be_restored:
            self.restored(array, row.epoch, regions.oldest.sequence)

    def _led(self, array: str, stage: Journaling) -> None:
        """P-VOLs are about to be shown: they are what their journal says, but for what is told to differ."""
        order = self.orders.get((array, stage.row.epoch))
        if order is not None:
            self.checked["P-VOLs lead"] += 1
            stored, differing = stage.journal.regions.stored.sequence, stage._group.differing
            self.find(lambda: order.check_led(stored, self.contents(array), differing, f"{array}, P-VOLs lead"))

    def _kept(self, array: str, stage: Journaling | Marking) -> None:
        """After a restart hosts are about to see volumes that were theirs: they have what was answered."""
        finds = isinstance(stage, Marking) and stage._found
        hidden = {pair.volume for pair in stage.row.pairs if pair.unsynced and finds}
        for promise, data in zip(self.promises[array].values(), self.contents(array), strict=True):
            if promise.is_open and promise.volume not in hidden:
                self.find(partial(promise.check_all, data, f"is on {array}, as hosts are shown it"))

    def _whole(self, array: str, row: GroupRow) -> None:
        side = self.sides[array]
        side.row, side.whole, side.mixed, side.anchor = row, True, False, None
        if not row.consistent:
            self.find(lambda: self._fail(array, "PAIR, and not consistent"))

    def changed(self, array: str, stage: Any, row: GroupRow) -> None:
        """The row is another one, and the stage the same."""
        side = self.sides[array]
        ended = not any(pair.state.status is Status.COPY for pair in row.pairs)
        side.row = row
        if ended and not side.whole and stage.journal is not None:
            self._whole(array, row)
            regions = stage.journal.regions
            if regions.oldest == regions.to_be_restored:
                self.restored(array, row.epoch, regions.oldest.sequence)

    def _hear(self, array: str, row: GroupRow) -> None:
        """What the row keeps is told, too."""
        told = self.sides[array].told
        if self.sides[array].whole and row.restored.sequence < told.get(row.epoch, 0):
            text = f"the row has {row.restored.sequence} as restored, and {told[row.epoch]} was told"
            self.find(lambda: self._fail(array, text))
        told[row.epoch] = max(told.get(row.epoch, 0), row.restored.sequence)

    def _opened(self, array: str, epoch: int, why: str) -> None:
        """S-VOLs are given to hosts, or are a source."""
        side = self.sides[array]
        if side.whole:
            self._check(array, epoch, why)
        elif side.anchor is not None:
            self.checked[f"{why}, back from a copy"] += 1
            anchor = side.anchor
            self.find(lambda: check_same(self.contents(array), anchor, f"{array} {why}, and has not gone back"))

    def _turned(self, array: str, before: GroupRow, row: GroupRow) -> None:
        """S-VOLs have become P-VOLs."""
        side, other = self.sides[array], self.promises[self.other(array)]
        swapped = side.whole and not any(pair.state.status is Status.COPY for pair in row.pairs)
        self._opened(array, before.epoch, "is swapped" if swapped else "leads")
        if swapped:
            for volume, data in zip(self.volumes, self.contents(array), strict=True):
                self.find(partial(other[volume].check_all, data, f"came to {array} by a swap"))

    def entered(self, array: str, stage: Stage) -> None:
        """It is: of P-VOLs it is known from now on what they held when its order began."""
        if isinstance(stage, Journaling):
            self.orders.setdefault((array, stage.row.epoch), Order()).begin(self.contents(array))

    def shown(self, array: str, volume: str, front: object) -> None:
        """Hosts are about to see a volume by another way."""
        promise = self.promises[array].get(volume)
        if promise is None:
            return
        side = self.sides[array]
        if isinstance(front, GuardedVolume):
            promise.shut(self._still(array, volume, front))
            return
        durable = front is not None or side.whole
        if front is None:
            if self.ended_unread(side):
                for each in self.promises[array].values():
                    each.lost_syncs()  # ended with a journal that could not be redone
            for pair in () if side.row is None else side.row.pairs:
                if pair.unsynced:
                    self.promises[array][pair.volume].lost_syncs()  # or with one that could not be read
            side.row = side.stage = side.anchor = None
            side.mixed = False
        if side.written_over and not promise.is_open:
            data = self.contents(array)[self.volumes.index(volume)]
            self.find(lambda: promise.rebase(data, durable))
        promise.open()
        if all(each.is_open for each in self.promises[array].values()):
            side.written_over = side.whole = False

    def ended_unread(self, side: Beside) -> bool:
        """Whether they were P-VOLs whose journal could not be redone."""
        return isinstance(side.stage, Standing) and side.row is not None and side.row.side is Side.P_VOL

    def _still(self, array: str, volume: str, front: GuardedVolume) -> Still | None:
        """What hosts may read of a volume that is guarded, if it does not move."""
        side = self.sides[array]
        if isinstance(front, UnreadableVolume):
            return Still(None)
        if side.mixed:
            self.find(lambda: self._fail(array, f"hosts may read {volume}, which is in the middle of a copy"))
        stands = isinstance(side.stage, Standing) and side.row is not None and side.row.side is Side.S_VOL
        return Still(self.contents(array)[self.volumes.index(volume)]) if stands else None

    # -- between the parts of an array -------------------------------------------------------------------------------

    def stand_ins(self) -> dict[str, Any]:
        """By dotted name, for `world.replaced`."""

        def append(journal: PrimaryJournal, volume: int, kind: Kind, offset: int, extent: int, data: Any, at: int) -> bool:  # fmt: skip  # noqa: E501
            array, begin = living().name, journal._batch.sequence
            given = Given(0, volume, offset, extent, data_of(kind, bytes(data)))
            taken = APPEND(journal, volume, kind, offset, extent, data, at)
            if taken:
                given.end = journal._batch.sequence
                self.given(array, journal.epoch, begin, given)
            return taken

        async def restored(journal: AuxiliaryJournal, end: Position) -> None:
            await RESTORED(journal, end)
            self.restored(living().name, journal.epoch, end.sequence)

        async def show(fronts: Fronts, name: str, front: Any) -> None:
            self.shown(living().name, name, front)
            await SHOW(fronts, name, front)

        async def start(replication: Replication) -> None:
            await START(replication)
            array = living().name
            if not replication.table.groups():
                for volume in self.volumes:
                    self.shown(array, volume, None)

        def changed(stage: Following, row: GroupRow) -> None:
            CHANGED(stage, row)
            self.changed(living().name, stage, row)

        return {
            "arrayd.replication.journal.primary.PrimaryJournal.append_now": append,
            "arrayd.replication.journal.auxiliary.AuxiliaryJournal.restored": restored,
            "arrayd.estate.fronts.Fronts.show": show,
            "arrayd.replication.room.Replication.start": start,
            "arrayd.replication.following.Following.changed": changed,
            **{f"{kind.__module__}.{kind.__name__}.enter": self._enter(kind) for kind in ENTERS},
        }

    def _enter(self, kind: type[Stage]) -> Callable[[Any], Any]:
        enter = ENTERS[kind]

        async def entered(stage: Any) -> None:
            array = living().name
            self.entering(array, stage)
            await enter(stage)
            self.entered(array, stage)

        return entered
