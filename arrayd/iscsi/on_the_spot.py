"""Plain READs that the hot loop of `connection.py` leaves, and that still need no task of the SCSI target.

Long ones are answered at once by naming the file that their data lies in. Cold ones are begun, and answered when the
disk has brought them. Whatever is not plain goes on to `tasks.py`. Here, too: the answers to what another array has
carried out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from arrayd.iscsi.numbers import COMMAND_WINDOW
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, PAD_BYTES
from arrayd.iscsi.wire import ANSWER, COMMAND, GOOD_RESPONSE_HEAD, SERIAL_MASK, good_data_in_head
from arrayd.scsi.task import (
    BY_FILE,
    FETCH,
    NOWHERE,
    SENDFILE_BYTES,
    Attribute,
    Fetch,
    FileExtent,
    Relayed,
    Task,
)

if TYPE_CHECKING:
    from arrayd.iscsi.full_feature import FullFeature
    from arrayd.iscsi.tasks import Tasks


def take_read(phase: FullFeature, received: memoryview, at: int) -> bool:
    """Answers or begins the reading command at `at`, or returns False with nothing done; there is room for a header."""
    _, _, lengths, lun, tag, length, cmd_sn, _, code, cdb1, word, count, rest = COMMAND.unpack_from(received, at)
    numbers, tasks = phase.numbers, phase.tasks
    if lengths or rest or phase.digests or phase.order.held or tasks.in_use(tag):
        return False
    table = phase.fast.get(lun)
    if not table or cmd_sn != numbers.exp_cmd_sn or not numbers.in_window(cmd_sn):
        return False
    if length >= SENDFILE_BYTES:
        extent = FileExtent(NOWHERE, 0, length)
        by_file = table.get(BY_FILE | code)
        if by_file is not None and by_file(cdb1, word, count, extent):
            numbers.advance_command()
            _answer(tasks, lun, tag, extent)
            return True
    by_fetch = table.get(FETCH | code)
    if by_fetch is None:
        return False
    task = Task(b"", lun, tag, Attribute.SIMPLE, 0, length, tasks.ended)
    fetch = Fetch(length, partial(_fetched, tasks, task))
    if tasks.must_queue(task) or not by_fetch(cdb1, word, count, fetch):
        return False
    numbers.advance_command()
    tasks.count(task, immediate=0)
    tasks.hold(task)
    tasks.by_tag[tag] = task
    tasks.fetches[task] = None
    return True


def _answer(tasks: Tasks, lun: int, tag: int, extent: FileExtent) -> None:
    """One Data-In if it is that short; else as the task that it never was."""
    responder = tasks.responder
    if extent.length <= responder.max_send_segment and not responder.waiting:
        responder.emit_extent(tag, extent)
        return
    task = Task(b"", lun, tag, Attribute.SIMPLE, 0, extent.length, tasks.ended)
    task.data_in = extent
    tasks.count(task, immediate=0)
    responder.pending.append(task)
    responder.pump()


def _fetched(tasks: Tasks, task: Task, fetch: Fetch) -> None:
    task.status, task.sense = fetch.status, fetch.sense
    if fetch.buffer is not None:
        task.buffer = fetch.buffer
        task.data_in = fetch.buffer.view
    del tasks.fetches[task]
    tasks.ended(task)
    for finished in task.finished or ():
        finished()


def answer_relayed(tasks: Tasks, relayed: Relayed, tag: int, expected_out: int, expected_in: int) -> None:
    """Answers what another array has carried out: on the spot if all is well and there is room, else as a task."""
    output, data, numbers, responder = tasks.output, relayed.data_in, tasks.numbers, tasks.responder
    length, tail = len(data), output.tail
    start = tail + BHS_BYTES
    end = start + length
    if (
        not (relayed.status or relayed.aborted or responder.pending or responder.committed or tasks.digests)
        and length == expected_in
        and relayed.wanted_out == expected_out
        and end <= len(output.view)
        and not length % PAD_BYTES
        and length <= responder.max_send_segment
    ):
        numbers.parked -= 1
        head, transfer_tag = (good_data_in_head(length), NO_TAG) if length else (GOOD_RESPONSE_HEAD, 0)
        stat_sn, expected = numbers.stat_sn, numbers.exp_cmd_sn
        numbers.stat_sn = (stat_sn + 1) & SERIAL_MASK
        limit = (expected + COMMAND_WINDOW - 1 - numbers.parked) & SERIAL_MASK
        ANSWER.pack_into(output.view, tail, head, tag, transfer_tag, stat_sn, expected, limit)
        if length:
            output.view[start:end] = data
        output.tail = end
        tasks.wake()
        return
    task = Task(b"", 0, tag, Attribute.SIMPLE, expected_out, expected_in, tasks.ended)
    task.status, task.sense, task.wanted_out, task.aborted = (
        relayed.status, relayed.sense, relayed.wanted_out, relayed.aborted,
    )  # fmt: skip
    task.data_in = bytes(data)
    task.counted = True
    tasks.by_tag[tag] = task
    tasks.ended(task)
