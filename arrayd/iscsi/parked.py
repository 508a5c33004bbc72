"""READs and WRITEs that were begun on the spot, without a task of the SCSI target, and are answered later.

Writes wait to be durable; commands of virtual volumes wait for the array that carries them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.iscsi.on_the_spot import answer_relayed
from arrayd.scsi.task import Commit, Relayed

if TYPE_CHECKING:
    from arrayd.iscsi.tasks import Tasks


class Parked:
    """Those of one connection. Each takes a place in the command window."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.commits: dict[Commit, list[int]] = {}
        """Tags of writes that are done and wait to be durable, by what they wait for."""
        self.relays: dict[Relayed, tuple[int, int, int]] = {}
        """Commands that another array carries out: tag, and the bytes of Data-Out and Data-In that are expected."""

    def has(self, tag: int) -> bool:
        """Whether a command here has this initiator task tag."""
        if any(tag in tags for tags in self.commits.values()):
            return True
        return any(tag == relayed[0] for relayed in self.relays.values())

    def park(self, done: Commit | Relayed, tag: int, expected_out: int, expected_in: int) -> int:
        """The command `tag` is answered when `done` ends; the places it takes in the command window: 1."""
        self._tasks.numbers.parked += 1
        if not isinstance(done, Commit):
            self.relays[done] = tag, expected_out, expected_in
            done.when_ended(self._relayed)
            return 1
        tags = self.commits.get(done)
        if tags is None:
            tags = self.commits[done] = []
            done.when_ended(self._committed)
        tags.append(tag)
        return 1

    def _relayed(self, relayed: Relayed) -> None:
        tasks = self._tasks
        expectations = self.relays.pop(relayed)
        if tasks.abandoned:
            tasks.numbers.parked -= 1
        else:
            answer_relayed(tasks, relayed, *expectations)
        tasks.check_none()

    def _committed(self, commit: Commit) -> None:
        tasks = self._tasks
        tags = self.commits.pop(commit)
        tags.reverse()
        if tasks.abandoned:
            tasks.numbers.parked -= len(tags)
        else:
            tasks.responder.committed.append((commit, tags))
            tasks.wake()
        tasks.check_none()
