"""The device server: task attributes, unit attentions, what handlers raise, and tasks that wait."""

import asyncio
import dataclasses

import pytest

from arrayd.scsi.command import Command, CommandTable
from arrayd.scsi.kinds import DISK
from arrayd.scsi.lun import encode_lun
from arrayd.scsi.opcodes import TABLES
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Attribute, Status, Task
from arrayd.volumes.volume import VolumeFailed
from tests.scsi.initiator import Initiator, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume

READY = bytes(6)
READ = bytes.fromhex("28000000000000000100")
WRITE = bytes.fromhex("2a000000000000000100")
SYNCHRONIZE = bytes.fromhex("35000000000000000000")
SIMPLE, ORDERED, HEAD = Attribute.SIMPLE, Attribute.ORDERED, Attribute.HEAD_OF_QUEUE


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume()


@pytest.fixture
def target(volume: MemoryVolume) -> ScsiTarget:
    return make_target({0: volume})


@pytest.fixture
def host(target: ScsiTarget) -> Initiator:
    return Initiator(target)


async def let_run() -> None:
    """Lets everything happen that does not wait for something."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_ordered_task_waits_for_those_before_it_and_all_behind_wait_for_it(
    host: Initiator, volume: MemoryVolume
) -> None:
    volume.held = first = asyncio.Event()
    _, before = host.start(READ)
    await let_run()
    volume.held = second = asyncio.Event()
    _, ordered = host.start(READ, attribute=ORDERED)
    _, behind = host.start(READY)
    await let_run()
    assert volume.waiting == 1
    assert not behind.done()
    assert not host.nexus.fast[0], "nobody goes past who waits"
    first.set()
    await before
    await let_run()
    assert volume.waiting == 1, "the ordered task is at work"
    assert not behind.done()
    assert not host.nexus.fast[0]
    second.set()
    volume.held = None
    await ordered
    await behind
    assert host.nexus.fast[0]


async def test_simple_tasks_do_not_wait(host: Initiator, volume: MemoryVolume) -> None:
    volume.held = asyncio.Event()
    answers = [host.start(READ)[1] for _ in range(3)]
    await let_run()
    assert volume.waiting == 3
    await host.good(READY)
    volume.held.set()
    await asyncio.gather(*answers)


async def test_head_of_queue_goes_first(host: Initiator, volume: MemoryVolume) -> None:
    volume.held = asyncio.Event()
    waiting = [host.start(READ)[1], host.start(READ, attribute=ORDERED)[1], host.start(READY)[1]]
    assert (await host.send(READY, attribute=HEAD)).status == Status.GOOD
    assert not any(answer.done() for answer in waiting)
    volume.held.set()
    await asyncio.gather(*waiting)


async def test_ordered_tasks_end_in_order(host: Initiator, volume: MemoryVolume) -> None:
    ended: list[int] = []
    volume.held = asyncio.Event()
    for number in range(6):
        _, answer = host.start(READ, attribute=ORDERED if number % 2 else SIMPLE)
        answer.add_done_callback(lambda _, number=number: ended.append(number))  # type: ignore[misc]
    await let_run()
    assert volume.waiting == 1
    volume.held.set()
    async with asyncio.timeout(5):
        while len(ended) < 6:
            await let_run()
    assert ended == list(range(6))


async def test_thousands_that_wait_end_without_piling_up(host: Initiator, volume: MemoryVolume) -> None:
    volume.held = asyncio.Event()
    answers = [host.start(READ)[1], host.start(SYNCHRONIZE, attribute=ORDERED)[1]]
    answers += [host.start(READY)[1] for _ in range(3000)]
    volume.held.set()
    assert {answer.status for answer in await asyncio.gather(*answers)} == {Status.GOOD}


async def test_aborting_some_that_wait_runs_none_of_them(host: Initiator, volume: MemoryVolume) -> None:
    volume.held = asyncio.Event()
    _, reading = host.start(READ)
    tasks = [host.start(WRITE, b"\xff" * 512, attribute=ORDERED)[0] for _ in range(5)]
    ended = asyncio.get_running_loop().create_future()
    disk_unit(host.nexus.target, 0).abort(tasks, lambda: ended.set_result(None))
    assert ended.done()
    volume.held.set()
    await reading
    await let_run()
    assert not any(volume.data)


async def test_an_attention_is_reported_once_and_first(target: ScsiTarget) -> None:
    host = Initiator(target, fresh=True)
    unit = disk_unit(target, 0)
    unit.establish(Asc.CAPACITY_DATA_HAS_CHANGED, host.nexus)
    unit.establish(Asc.CAPACITY_DATA_HAS_CHANGED, host.nexus)
    assert [await host.attention() for _ in range(3)] == [Asc.POWER_ON_OR_RESET, Asc.CAPACITY_DATA_HAS_CHANGED, None]


async def test_a_reset_replaces_what_was_pending(target: ScsiTarget) -> None:
    host = Initiator(target)
    unit = disk_unit(target, 0)
    unit.establish(Asc.CAPACITY_DATA_HAS_CHANGED, host.nexus)
    unit.establish(Asc.BUS_DEVICE_RESET, host.nexus)
    assert [await host.attention() for _ in range(2)] == [Asc.BUS_DEVICE_RESET, None]


async def test_an_unknown_command_leaves_attentions(target: ScsiTarget) -> None:
    host = Initiator(target, fresh=True)
    assert (await host.send(bytes((0xFF,)))).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_OPERATION_CODE)
    assert await host.attention() is Asc.POWER_ON_OR_RESET


async def test_a_refused_command_wants_no_data(target: ScsiTarget) -> None:
    host = Initiator(target, fresh=True)
    task = Task(WRITE.ljust(16, b"\0"), encode_lun(0), 1, SIMPLE, 512, 0, lambda _task: None)
    host.nexus.enter(task)
    assert (task.wanted_out, task.immediate_status, task.status) == (0, True, Status.CHECK_CONDITION)
    assert task in disk_unit(target, 0).tasks
    host.nexus.execute(task)
    assert not disk_unit(target, 0).tasks


async def test_what_stands_against_a_write_is_looked_at_again_when_its_data_is_there(
    target: ScsiTarget, volume: MemoryVolume
) -> None:
    host = Initiator(target)
    ended: list[Task] = []
    task = Task(WRITE.ljust(16, b"\0"), encode_lun(0), 1, SIMPLE, 512, 0, ended.append)
    host.nexus.enter(task)
    assert task.wanted_out == 512
    task.data_out = memoryview(b"\xff" * 512)
    volume.read_only = True
    host.nexus.execute(task)
    assert ended == [task]
    assert task.status == Status.CHECK_CONDITION
    assert not any(volume.data)


def breaking(error: BaseException) -> CommandTable:
    """The table of disks, in which TEST UNIT READY raises `error`."""

    def handler(_unit: object, _task: Task) -> None:
        raise error

    def broken(row: Command) -> Command:
        return dataclasses.replace(row, handler=handler) if row.opcode == 0 else row

    table = TABLES[DISK]
    return CommandTable(map(broken, table.commands), table.fast)


async def test_what_nobody_foresaw_fails_the_task_and_nothing_else(host: Initiator, target: ScsiTarget) -> None:
    disk_unit(target, 0).commands = breaking(ZeroDivisionError())
    assert (await host.send(READY)).why == (Key.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    await host.good(READ)


async def test_background_work_that_fails_is_logged_and_over(
    host: Initiator, target: ScsiTarget, volume: MemoryVolume
) -> None:
    async def fail() -> None:
        raise VolumeFailed("broken")

    disk_unit(target, 0).in_background(fail())
    await target.stop()
    await host.good(READ)


async def test_stop_waits_for_handlers(host: Initiator, target: ScsiTarget, volume: MemoryVolume) -> None:
    volume.held = asyncio.Event()
    _, answer = host.start(READ)
    stopping = asyncio.ensure_future(target.stop())
    await let_run()
    assert not stopping.done()
    volume.held.set()
    await stopping
    assert answer.done()


async def test_a_lost_nexus_leaves_nothing_behind(target: ScsiTarget, volume: MemoryVolume) -> None:
    host, other = Initiator(target), Initiator(target, isid=bytes.fromhex("00023d000002"))
    volume.held = asyncio.Event()
    _, answer = host.start(READ)
    await let_run()
    host.leave()
    unit = disk_unit(target, 0)
    assert host.nexus in unit.attentions, "its task still has a buffer"
    volume.held.set()
    await answer
    await let_run()
    assert host.nexus not in unit.attentions
    assert host.nexus not in unit.fast_tables
    assert not unit.tasks
    assert target.buffers.used_bytes == 0
    await other.good(READ)
