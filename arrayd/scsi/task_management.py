"""Task management functions (SAM-5, 7; RFC 7143, 11.5): one table says which there are, and carries them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from arrayd.scsi.sense import Asc
from arrayd.scsi.task import Function, FunctionResponse

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.unit import Unit

Done = Callable[[int], None]


def manage(nexus: Nexus, function: int, lun: int, tag: int, done: Done) -> None:
    """Carries out `function` as `nexus` asks; see `arrayd.scsi.task.Nexus.manage`."""
    if function in TARGET_FUNCTIONS:
        TARGET_FUNCTIONS[function](nexus, done)
    elif function in UNIT_FUNCTIONS:
        unit = nexus.units.get(lun)
        if unit is None:
            done(FunctionResponse.LUN_DOES_NOT_EXIST)
        else:
            unit.manage(nexus, function, tag, done)
    elif function == Function.TASK_REASSIGN:
        done(FunctionResponse.REASSIGNMENT_NOT_SUPPORTED)
    else:
        done(FunctionResponse.NOT_SUPPORTED)


def _abort_task(nexus: Nexus, unit: LogicalUnit, tag: int, done: Done) -> None:
    tasks = [task for task in unit.tasks if task.nexus is nexus and task.tag == tag]
    response = FunctionResponse.COMPLETE if tasks else FunctionResponse.TASK_DOES_NOT_EXIST
    unit.abort(tasks, lambda: done(response), nexus)


def _abort_task_set(nexus: Nexus, unit: LogicalUnit, _tag: int, done: Done) -> None:
    tasks = [task for task in unit.tasks if task.nexus is nexus]
    unit.abort(tasks, lambda: done(FunctionResponse.COMPLETE), nexus)


def _clear_task_set(nexus: Nexus, unit: LogicalUnit, _tag: int, done: Done) -> None:
    """The tasks of every nexus; with TAS=0 the others learn of theirs by a unit attention (SAM-5, 5.6 and 7.5)."""
    tasks = list(unit.tasks)
    if not unit.mode_pages.task_aborted_status:
        for other in {task.nexus for task in tasks if task.nexus is not nexus}:
            unit.establish(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR, other)
    unit.abort(tasks, lambda: done(FunctionResponse.COMPLETE), nexus)


def _lun_reset(nexus: Nexus, unit: LogicalUnit, _tag: int, done: Done) -> None:
    unit.reset_for(nexus, Asc.BUS_DEVICE_RESET, lambda: done(FunctionResponse.COMPLETE))


def _target_reset(nexus: Nexus, done: Done) -> None:
    nexus.target.reset(nexus, lambda: done(FunctionResponse.COMPLETE))


def reset_units(units: Iterable[Unit], originator: Nexus, asc: Asc, ended: Callable[[], None]) -> None:
    """Resets `units` as `originator` asked; `ended` is called when all their tasks are gone."""
    pending = list(units)
    left = [len(pending)]

    def one_is_reset() -> None:
        left[0] -= 1
        if left[0] == 0:
            ended()

    if not pending:
        ended()
    for unit in pending:
        unit.reset_for(originator, asc, one_is_reset)


UNIT_FUNCTIONS: dict[int, Callable[[Nexus, LogicalUnit, int, Done], None]] = {
    Function.ABORT_TASK: _abort_task,
    Function.ABORT_TASK_SET: _abort_task_set,
    Function.CLEAR_TASK_SET: _clear_task_set,
    Function.LUN_RESET: _lun_reset,
}
"""Functions for one logical unit."""

TARGET_FUNCTIONS: dict[int, Callable[[Nexus, Done], None]] = {
    Function.TARGET_WARM_RESET: _target_reset,
    Function.TARGET_COLD_RESET: _target_reset,
}
"""Functions for the whole target. A cold reset also ends the sessions, which the transport does."""
