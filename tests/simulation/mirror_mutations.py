"""Faults of synchronous pairs, made on purpose: each breaks what such a pair promises. Seeds of the scenario `mirrored`
have to find it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from arrayd.replication.activity import Activity
from arrayd.replication.copying import Copying
from arrayd.replication.journal import Position
from arrayd.replication.journal.regions import START
from arrayd.replication.statuses import Event
from arrayd.replication.synchronous.formats import Kind
from arrayd.replication.synchronous.mirror import Mirror, MirroredWrite
from arrayd.replication.synchronous.mirrored import MirroredVolume
from arrayd.replication.synchronous.mirroring import Mirroring
from arrayd.replication.synchronous.received import Received
from arrayd.replication.writes import Range
from tests.simulation.faults import KINDS
from tests.simulation.pair_mutations import heat_in_memory, nothing

POWER_LOSSES = {"tests.simulation.faults.POWER_LOSS_SHARE": 0.8, "tests.simulation.faults.KINDS": KINDS | {"kill": 12}}
"""Runs in which power is lost more often."""
MARK, STOP = Mirroring._mark, Mirroring.stop


def _answer_first(self: MirroredVolume, *told: Any) -> asyncio.Future[None]:
    """A write is answered when it was taken."""
    TAKE(self, *told).add_done_callback(lambda done: done.cancelled() or done.exception())
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answered.set_result(None)
    return answered


def _side_by_side(self: MirroredVolume, kind: Any, offset: int, extent: int, data: Any, durable: bool) -> Any:
    """Writes that overlap are under way together."""
    write = self._write(kind, offset, extent, data, durable)
    self._submit(write)
    return write.outcome


async def _mark_nothing(self: Mirroring, _ranges: list[Range], _whole: list[int] | None = None) -> None:
    await MARK(self, [])


async def _flushed_later(_self: Mirroring) -> list[int]:
    """P-VOLs that are suspended are as good as durable."""
    return []


async def _reconcile_nothing(*_told: Any) -> None:
    """P-VOLs have what the other side has, whatever became of them."""


async def _cool_first(self: Mirroring, row: Any) -> Any:
    """Nothing is hot any more before the row is committed that says what differs."""
    activity = self._activity

    async def settle_and_close() -> None:
        await Activity.settle(activity)
        await Activity.close(activity)

    activity.close = settle_and_close  # type: ignore[method-assign]
    return await STOP(self, row)


def _refuse_and_go_on(self: Mirror, write: MirroredWrite, error: BaseException) -> None:
    """A pair has failed, and the group goes on."""
    write.error = error
    self._ended(write)


def _not_fenced(_group: Any, _pair: Any, state: Any) -> Any:
    return state


def _fail_as_never(self: Mirror, error: Exception, what: str) -> None:
    self.fail(Event.ERROR, f"{what}: {error}")


def _nothing_now(*_told: Any) -> None:
    return


def _join_once(self: Copying) -> bool:
    return not self.copied


async def _swap_at_once(_self: Any, _row: Any, _seconds: float) -> Position:
    """The other side's hosts write while the sides change places."""
    return START


async def _carry_out_without_flushes(self: Received, writes: Sequence[Any]) -> None:
    """What is to be durable is so at the P-VOLs' side alone."""
    await CARRY_OUT(self, [each._replace(durable=False) for each in writes if each.kind is not Kind.FLUSH])


async def _settle_nothing(volumes: Any) -> None:
    """What was there before the pair is not synced."""
    del volumes


TAKE, CARRY_OUT = MirroredVolume._take, Received.carry_out
HERE = "arrayd.replication.synchronous"

MIRROR_MUTATIONS: dict[str, dict[str, Any]] = {
    "a write is answered before the other side has it": {f"{HERE}.mirrored.MirroredVolume._take": _answer_first},
    "writes that overlap are under way together": {f"{HERE}.mirrored.MirroredVolume._take": _side_by_side},
    "what could not be mirrored is not marked": {f"{HERE}.mirroring.Mirroring._mark": _mark_nothing},
    "P-VOLs are suspended that are not durable": {
        f"{HERE}.mirroring.Mirroring._flushed": _flushed_later,
        **POWER_LOSSES,
    },
    "P-VOLs are not reconciled": {f"{HERE}.mirroring.reconcile": _reconcile_nothing},
    "what is hot is not logged": {"arrayd.replication.activity.ActivityLog.heat": heat_in_memory},
    "what differs is cold before its row is committed": {f"{HERE}.mirroring.Mirroring.stop": _cool_first},
    "what was there before the pair is not synced": {f"{HERE}.mirroring.flush_all": _settle_nothing, **POWER_LOSSES},
    "a copy overwrites what came meanwhile": {f"{HERE}.overtaking.Overtaking.wrote": _nothing_now},
    "a bitmap is not joined again": {"arrayd.replication.copying.Copying.join_again": _join_once},
    "one pair has failed, and the group goes on": {f"{HERE}.mirror.Mirror._refused": _refuse_and_go_on},
    "fence level data does not fence": {
        "arrayd.replication.transitions._fenced": _not_fenced,
        f"{HERE}.mirror.Mirror.fail_as": _fail_as_never,
    },
    "before-images of hosts' writes are not kept": {f"{HERE}.received.Received._keep_before": nothing},
    "flushes are not mirrored": {f"{HERE}.received.Received.carry_out": _carry_out_without_flushes},
    "S-VOLs that have lost something go on": {"arrayd.replication.activity.Activity.lost_bytes": 0},
    "a swap waits for nobody": {"arrayd.replication.changing_places.ChangingPlaces.fence": _swap_at_once},
}
"""By what goes wrong."""
MIRROR_FIRST_FOUND = {
    "a write is answered before the other side has it": 1,
    "writes that overlap are under way together": 13,
    "what could not be mirrored is not marked": 5,
    "P-VOLs are suspended that are not durable": 5,
    "P-VOLs are not reconciled": 2,
    "what is hot is not logged": 1,
    "what differs is cold before its row is committed": 49,
    "what was there before the pair is not synced": 1,
    "a copy overwrites what came meanwhile": 6,
    "a bitmap is not joined again": 129,
    "one pair has failed, and the group goes on": 2,
    "fence level data does not fence": 9,
    "before-images of hosts' writes are not kept": 6,
    "flushes are not mirrored": 4,
    "S-VOLs that have lost something go on": 2,
    "a swap waits for nobody": 95,
}
"""The first of the scenario's seeds that finds each."""
