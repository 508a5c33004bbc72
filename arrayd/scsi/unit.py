"""What stands at a LUN, as I_T nexuses and the target know it: a logical unit here, or one of another array."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from arrayd.scsi.sense import Asc, CheckCondition
from arrayd.scsi.task import FastTable, Task

if TYPE_CHECKING:
    from arrayd.scsi.nexus import Nexus


class Unit(Protocol):
    """A logical unit (`logical_unit.py`), or a virtual volume (`virtual_unit.py`)."""

    number: int

    @property
    def tasks(self) -> Iterable[Task]:
        """The task set."""

    def attach(self, nexus: Nexus, table: FastTable) -> None:
        """A nexus sees this unit from now on; its commands go fast by `table` while nothing stands against it."""

    def detach(self, nexus: Nexus) -> None:
        """I_T nexus loss: what this unit kept for `nexus` goes (SAM-5, 6.3.4). Its tasks have ended."""

    def establish(self, asc: Asc, nexus: Nexus) -> None:
        """Establishes a unit attention condition for one nexus (SAM-5, 5.14)."""

    def clear_attention(self, asc: Asc, nexus: Nexus) -> None:
        """Takes `asc` back from `nexus`, which has learned of it in another way."""

    def enter(self, task: Task) -> None:
        """See `arrayd.scsi.task.Nexus.enter`."""

    def execute(self, task: Task) -> None:
        """See `arrayd.scsi.task.Nexus.execute`."""

    def fail(self, task: Task, error: CheckCondition) -> None:
        """Ends `task` with CHECK CONDITION and sense data."""

    def manage(self, nexus: Nexus, function: int, tag: int, done: Callable[[int], None]) -> None:
        """Carries out a task management function for this unit; see `arrayd.scsi.task.Nexus.manage`."""

    def abort(self, tasks: list[Task], ended: Callable[[], None], originator: Nexus | None = None) -> None:
        """Aborts `tasks`; `ended` is called once none of them can touch the medium or a buffer any more."""

    def reset_for(self, originator: Nexus, asc: Asc, ended: Callable[[], None]) -> None:
        """Resets the unit for `originator`: its tasks end, everybody is told `asc`, and then `ended` is called."""

    def dismiss(self) -> None:
        """The unit leaves the LUN map: its tasks are aborted, and end with status TASK ABORTED."""

    async def stop(self) -> None:
        """Waits until nothing is at work any more. The unit takes no task after that."""
