"""What the two sides of a synchronous group are held to: what hosts were answered while it was PAIR is on both.

What P-VOLs promise (`Promise`) is what S-VOLs are held against: as it is now, as long as hosts' writes go to both
sides, and as it was when that ended (`Snapshot`): when the P-VOLs were suspended, or their array died. S-VOLs
are looked at when they stand, are opened, or become P-VOLs; each write when it is answered; and both sides, which are
the same, whenever nothing is under way.

After a death of the P-VOLs' side hosts see them when they have what the other side has, so that no power loss has taken
anything; or suspended.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from arrayd.replication.group_rows import Fence, GroupRow
from arrayd.replication.marking import Marking
from arrayd.replication.meetings import RUNNING_STATES
from arrayd.replication.stages import Stage
from arrayd.replication.standing import Standing
from arrayd.replication.statuses import Side, State, Status
from arrayd.replication.synchronous.mirror import Mirror
from arrayd.replication.synchronous.mirrored import MirroredVolume
from arrayd.replication.synchronous.mirroring import Mirroring
from arrayd.replication.synchronous.receiving import Receiving
from arrayd.replication.synchronous.waiting import WaitingVolume
from tests.simulation.doors import living
from tests.simulation.prefixes import check_same
from tests.simulation.promises import BLOCK_BYTES, Promise, Sent
from tests.simulation.snapshots import MirroredPromise, Snapshot
from tests.simulation.watching import Beside, Watch
from tests.simulation.world import Machine, Violated

CHANGED = Receiving.changed

Snapshots = Mapping[str, Snapshot]
"""By volume."""


class Mirrored:
    """What else is known of the group on one array."""

    def __init__(self) -> None:
        self.frozen: Snapshots | None = None
        """Of P-VOLs whose hosts' writes do not go to both sides any more: what was promised when that ended."""
        self.unseen = False
        """Whether they are P-VOLs that hosts have not seen since the array died."""
        self.bound: Snapshots | None = None
        """What S-VOLs are held against whose P-VOLs have gone on without them."""
        self.lost: Snapshots | None = None
        """What they were held against when they lost something, which their array has not told yet, or began to
        stand."""
        self.lost_of: set[str] = set()
        """Volumes that have lost something since."""
        self.stands: list[bytes] | None = None
        """What S-VOLs hold that stand."""
        self.left: list[bytes] | None = None
        """What they held when they were opened, or became P-VOLs."""
        self.losses = 0
        """How often the array has lost something."""
        self.fronts: dict[str, object] = {}
        """What hosts see of each volume: one after the other is shown when a stage is entered."""


class MirrorWatch(Watch):
    """See the module."""

    def add(self, machine: Machine) -> None:
        """See Watch."""
        self.more: dict[str, Mirrored] = getattr(self, "more", {})
        self.more[machine.name] = Mirrored()
        super().add(machine)

    def promise(self, array: str, volume: str) -> Promise:
        """See Watch."""
        promise = MirroredPromise(volume, self.blocks, self.writes[volume])
        promise.answering = lambda sent, moment: self._answered(array, promise, sent, moment)
        promise.moment = lambda: self._moment(array, volume)
        return promise

    def _snapshots(self, array: str) -> Snapshots:
        return {volume: Snapshot(promise) for volume, promise in self.promises[array].items()}

    def _allowed(self, array: str) -> Snapshots:
        """What the S-VOLs of an array are held against."""
        p_vols = self.other(array)
        return self.more[array].bound or self.more[p_vols].frozen or self._snapshots(p_vols)

    def _restarting(self, machine: Machine, power: bool) -> None:
        array = machine.name
        side, more = self.sides[array], self.more[array]
        failed = {volume for volume in self.volumes if f"{volume}.img" in machine.disk.failed}
        lost = {*self.volumes} if power else failed
        more.losses += bool(lost)
        if isinstance(side.stage, Mirroring):
            self._freeze(array)
            more.unseen = True
        elif lost and isinstance(side.stage, Receiving):
            more.lost = more.lost or self._allowed(array)
            more.lost_of |= lost
        elif more.stands is not None:
            more.lost_of |= failed  # they could not be made durable before they stood
        super()._restarting(machine, power)

    def _freeze(self, array: str) -> None:
        """From now on no host's write is on both sides."""
        more = self.more[array]
        more.frozen = more.frozen or self._snapshots(array)

    # -- the order of writes: there is none --------------------------------------------------------------------------

    def _hear(self, array: str, row: GroupRow) -> None:
        """There are no positions."""

    def _check(self, array: str, epoch: int, why: str) -> None:
        """The S-VOLs have what was answered while hosts' writes went to both sides."""
        self.checked[why] += 1
        more, contents = self.more[array], self.contents(array)
        allowed = more.lost or self._allowed(array)
        for number, (volume, data) in enumerate(zip(self.volumes, contents, strict=True)):
            if more.stands is not None and volume not in more.lost_of:
                text = f"{array}, {why}: not what it stood at"
                self.find(partial(check_same, [data], [more.stands[number]], text))
            else:
                was_lost = more.lost is not None and volume in more.lost_of
                self.find(partial(allowed[volume].check, data, f"{array}, {why}", was_lost))

    # -- stages ------------------------------------------------------------------------------------------------------

    def entering(self, array: str, stage: Stage) -> None:
        """See Watch."""
        side, more = self.sides[array], self.more[array]
        self.check_alike()
        if isinstance(stage, Mirroring):
            if not more.unseen:
                self._begins(array, stage.row.generation)
        elif isinstance(side.stage, Mirroring):
            self._freeze(array)
            side.restarted = side.restarted or more.unseen
            more.unseen = False
        before = side.row
        if before is not None and before.side is Side.S_VOL and isinstance(stage, Mirroring | Marking):
            self._leaves(array)
        super().entering(array, stage)
        if isinstance(stage, Standing) and stage.row.side is Side.S_VOL and side.whole:
            self._stands(array)
        if isinstance(stage, Marking) and before is not None:
            self.find(partial(self._check_fence, array, before, stage.row))

    def _stands(self, array: str) -> None:
        more = self.more[array]
        if more.stands is None:
            more.lost = more.lost or self._allowed(array)
            more.stands = self.contents(array)
            more.lost_of.clear()

    def _leaves(self, array: str) -> None:
        """S-VOLs are opened, or are none any more: those that were copied have gone back before."""
        side, more = self.sides[array], self.more[array]
        if more.left is None:
            more.losses += not side.whole
            more.left = self.contents(array)

    def _begins(self, array: str, generation: int) -> None:
        """Hosts' writes go to both sides from now on; S-VOLs of before have what they had."""
        other, frozen = self.other(array), self.more[array].frozen
        there = self.sides[other]
        if there.whole and isinstance(there.stage, Receiving) and there.stage.row.generation != generation:
            self.more[other].bound = self.more[other].bound or frozen
        self.more[array].frozen = None

    def _check_fence(self, array: str, before: GroupRow, row: GroupRow) -> None:
        """P-VOLs of fence level data do not go on alone after an error until they are told to."""
        states = set(row.states.values())
        if row.fence is Fence.DATA and State.P_PSUE in states and set(before.states.values()) & RUNNING_STATES:
            raise Violated(f"{array}: fence level data, and the P-VOLs go on alone after an error")

    def _follows(self, array: str, stage: Any) -> None:
        """S-VOLs are written beside their P-VOLs, or copied, from now on."""
        side, more, row = self.sides[array], self.more[array], stage.row
        side.written_over, side.troubled = True, False
        more.stands = more.left = None
        if any(pair.state.status is Status.COPY for pair in row.pairs):
            if not row.consistent:
                side.anchor = None
            elif side.anchor is None and (side.row is None or side.row.generation != row.generation):
                side.anchor = self.contents(array)
            side.whole, side.mixed = False, True
            more.bound = more.lost = None
            more.lost_of.clear()
            return
        self._whole(array, row)
        if not stage._activity.lost:
            more.lost = None
            more.lost_of.clear()
            self._check(array, row.epoch, "is written beside its P-VOLs")

    def changed(self, array: str, stage: Any, row: GroupRow) -> None:
        """See Watch."""
        side = self.sides[array]
        side.row = row
        if not side.whole and not any(pair.state.status is Status.COPY for pair in row.pairs):
            self._whole(array, row)
            self._check(array, row.epoch, "is copied")

    def shown(self, array: str, volume: str, front: object) -> None:
        """See Watch."""
        side, more = self.sides[array], self.more[array]
        more.fronts[volume] = front
        if volume not in self.promises[array] or isinstance(front, WaitingVolume):
            return
        if front is None:
            if isinstance(side.stage, Mirroring):
                self._freeze(array)
            more.unseen = False
            if side.row is not None and side.row.side is Side.S_VOL:
                self._leaves(array)
        elif isinstance(front, MirroredVolume) and more.unseen:
            self._seen_again(array, front.mirror)
        super().shown(array, volume, front)

    def _seen_again(self, array: str, mirror: Mirror) -> None:
        """After a death hosts see the P-VOLs again, beside which S-VOLs are: they have all that was answered, whatever
        power was lost, but where they are copied from."""
        more = self.more[array]
        frozen, more.unseen = more.frozen, False
        assert frozen is not None
        copies = mirror.copies or (mirror.copies is None and State.P_COPY in mirror.row.states.values())
        self.checked["P-VOLs are seen again"] += 1
        for volume, data in zip(self.volumes, self.contents(array), strict=True):
            promise = self.promises[array][volume]
            assert isinstance(promise, MirroredPromise)
            text = f"is on {array}, as hosts see it again"
            if copies:
                self.find(partial(promise.check_all, data, text))
            else:
                self.find(partial(frozen[volume].check, data, text))
                self.find(partial(promise.was_found, data, frozen[volume]))
        self._begins(array, mirror.row.generation)
        self.check_alike()

    def ended_unread(self, side: Beside) -> bool:
        """See Watch: there is no journal."""
        return False

    # -- both sides --------------------------------------------------------------------------------------------------

    def _moment(self, array: str, volume: str) -> object:
        """Until it is another one the other side keeps what is written to both."""
        more = self.more[array]
        return self.sides[array].stage, more.fronts.get(volume), self.more[self.other(array)].losses

    def _answered(self, array: str, promise: MirroredPromise, sent: Sent, moment: object) -> None:
        """A write was answered: the other side has it, if it was sent to the volume as it is seen now."""
        other = self.other(array)
        more = self.more[other]
        front = self.more[array].fronts.get(promise.volume)
        if not isinstance(front, MirroredVolume) or moment != self._moment(array, promise.volume):
            return
        self.checked["answered, and on the other side"] += 1
        begin, end = sent.lbas.start * BLOCK_BYTES, sent.lbas.stop * BLOCK_BYTES
        contents = self.contents(other) if more.left is None else more.left
        data = contents[self.volumes.index(promise.volume)][begin:end]
        for at, lba in enumerate(sent.lbas):
            block = data[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES]
            if not promise.allows(lba, block):
                text = f"write {sent.number} to block {lba} of {promise.volume} was answered, and is not on {other}"
                self.find(partial(self._fail, array, text))

    def check_alike(self) -> None:
        """Both sides are the same, if they are PAIR, and nothing is under way."""
        for array in self.sides:
            here, there = self.sides[array].stage, self.sides[self.other(array)].stage
            if isinstance(here, Mirroring) and isinstance(there, Receiving) and self._at_rest(array, here, there):
                self.checked["at rest"] += 1
                other, text = self.other(array), f"the two sides, which are PAIR, {array} with the P-VOLs"
                self.find(partial(check_same, self.contents(other), self.contents(array), text))

    def _at_rest(self, array: str, here: Mirroring, there: Receiving) -> bool:
        pairs = (here.row.states.values(), there.row.states.values())
        if {*pairs[0]} != {State.P_PAIR} or {*pairs[1]} != {State.S_PAIR}:
            return False
        if any(each.life is None or not each.there.is_set() for each in self.machines.values()):
            return False
        if self.more[array].unseen or here._ends() or here._unsure or there._has_failed or there._answering:
            return False
        mirror = here._mirror
        busy = mirror._waiting or mirror._under_way or here.row.generation != there.row.generation
        return not busy and all(each.at_rest for each in self.promises[array].values())  # type: ignore[attr-defined]

    def look(self) -> None:
        """See Watch."""
        self.check_alike()

    # -- between the parts of an array -------------------------------------------------------------------------------

    def stand_ins(self) -> dict[str, Any]:
        """See Watch."""

        def changed(stage: Receiving, row: GroupRow) -> None:
            CHANGED(stage, row)
            self.changed(living().name, stage, row)

        return {**super().stand_ins(), "arrayd.replication.synchronous.receiving.Receiving.changed": changed}
