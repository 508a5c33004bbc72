"""Task management functions."""

import asyncio

import pytest

from arrayd.scsi.sense import Asc
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Attribute, Function, FunctionResponse, Status, Task
from tests.scsi.initiator import Answer, Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume
from tests.scsi.test_mode_commands import TAS, change

READ = bytes.fromhex("28000000000000000100")
LUN_1 = 1 << 48


class Lab:
    """Two hosts with tasks at work in two units, whose volume holds them back."""

    def __init__(self) -> None:
        self.volumes = {0: MemoryVolume("410001:a"), 1: MemoryVolume("410001:b")}
        self.target: ScsiTarget = make_target(self.volumes)
        self.one = Initiator(self.target)
        self.other = Initiator(self.target, isid=bytes.fromhex("00023d000002"))
        self.held = asyncio.Event()

    async def start(self, *hosts: Initiator, lun: int = 0) -> list[tuple[Task, asyncio.Future[Answer]]]:
        """A READ of each host, which is held back."""
        self.volumes[lun].held = self.held
        started = [host.start(READ, lun=lun) for host in hosts]
        await asyncio.sleep(0)
        return started

    def release(self) -> None:
        self.held.set()
        for volume in self.volumes.values():
            volume.held = None


@pytest.fixture
async def lab() -> Lab:
    return Lab()


def manage(host: Initiator, function: int, lun: int = 0, tag: int = 0) -> asyncio.Future[int]:
    response: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    host.nexus.manage(function, lun, tag, response.set_result)
    return response


async def test_abort_task_is_answered_when_the_task_can_do_nothing_more(lab: Lab) -> None:
    (mine, my_answer), (theirs, their_answer) = await lab.start(lab.one, lab.other)
    response = manage(lab.one, Function.ABORT_TASK, 0, mine.tag)
    assert mine.aborted
    assert not theirs.aborted
    assert not response.done()
    lab.release()
    assert await response == FunctionResponse.COMPLETE
    assert my_answer.done()
    assert (await their_answer).status == Status.GOOD


async def test_abort_of_a_task_that_is_not_there(lab: Lab) -> None:
    [(task, answer)] = await lab.start(lab.other)
    assert await manage(lab.one, Function.ABORT_TASK, 0, 4711) == FunctionResponse.TASK_DOES_NOT_EXIST
    assert await manage(lab.one, Function.ABORT_TASK, 0, task.tag) == FunctionResponse.TASK_DOES_NOT_EXIST
    lab.release()
    assert (await answer).status == Status.GOOD


async def test_abort_task_set_is_for_one_nexus_and_one_unit(lab: Lab) -> None:
    [(a, _), (b, _), (c, _)] = await lab.start(lab.one, lab.one, lab.other)
    [(d, _)] = await lab.start(lab.one, lun=1)
    response = manage(lab.one, Function.ABORT_TASK_SET)
    assert [task.aborted for task in (a, b, c, d)] == [True, True, False, False]
    lab.release()
    assert await response == FunctionResponse.COMPLETE
    assert await lab.other.attention() is None


@pytest.mark.parametrize("tas", [False, True])
async def test_clear_task_set_tells_the_others(lab: Lab, tas: bool) -> None:
    if tas:
        await change(lab.one, TAS)
        await lab.other.attention()
    [(mine, _), (theirs, _)] = await lab.start(lab.one, lab.other)
    response = manage(lab.one, Function.CLEAR_TASK_SET)
    assert mine.aborted
    assert theirs.aborted
    lab.release()
    assert await response == FunctionResponse.COMPLETE
    assert theirs.status == (Status.TASK_ABORTED if tas else Status.GOOD)
    assert mine.status == Status.GOOD
    told = None if tas else Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR
    assert await lab.other.attention() is told
    assert await lab.one.attention() is None


async def test_lun_reset(lab: Lab) -> None:
    [(mine, _), (theirs, _)] = await lab.start(lab.one, lab.other)
    [(elsewhere, _)] = await lab.start(lab.one, lun=1)
    response = manage(lab.one, Function.LUN_RESET)
    assert mine.aborted
    assert theirs.aborted
    assert not elsewhere.aborted
    lab.release()
    assert await response == FunctionResponse.COMPLETE
    for host in (lab.one, lab.other):
        assert await host.attention() is Asc.BUS_DEVICE_RESET
        assert await host.attention() is None
        assert await host.attention(lun=1) is None


@pytest.mark.parametrize("function", [Function.TARGET_WARM_RESET, Function.TARGET_COLD_RESET])
async def test_target_reset(lab: Lab, function: Function) -> None:
    tasks = [task for task, _ in await lab.start(lab.one, lab.other)]
    tasks += [task for task, _ in await lab.start(lab.other, lun=1)]
    response = manage(lab.one, function)
    assert all(task.aborted for task in tasks)
    lab.release()
    assert await response == FunctionResponse.COMPLETE
    for lun in (0, 1):
        assert await lab.other.attention(lun) is Asc.POWER_ON_OR_RESET


@pytest.mark.parametrize(
    "function", [Function.ABORT_TASK, Function.ABORT_TASK_SET, Function.CLEAR_TASK_SET, Function.LUN_RESET]
)
async def test_a_lun_that_is_not_there(lab: Lab, function: Function) -> None:
    assert await manage(lab.one, function, 9 << 48) == FunctionResponse.LUN_DOES_NOT_EXIST


@pytest.mark.parametrize(
    ("function", "response"),
    [
        (Function.CLEAR_ACA, FunctionResponse.NOT_SUPPORTED),
        (Function.TASK_REASSIGN, FunctionResponse.REASSIGNMENT_NOT_SUPPORTED),
        (9, FunctionResponse.NOT_SUPPORTED),
        (127, FunctionResponse.NOT_SUPPORTED),
    ],
)
async def test_what_is_not_supported(lab: Lab, function: int, response: FunctionResponse) -> None:
    assert await manage(lab.one, function) == response


@pytest.mark.parametrize("function", [Function.ABORT_TASK_SET, Function.CLEAR_TASK_SET, Function.LUN_RESET])
async def test_nothing_to_abort(lab: Lab, function: Function) -> None:
    assert await manage(lab.one, function) == FunctionResponse.COMPLETE


async def test_a_task_whose_data_is_still_to_come(lab: Lab) -> None:
    ended: list[Task] = []
    task = Task(bytes.fromhex("2a000000000000000100").ljust(16, b"\0"), 0, 77, Attribute.SIMPLE, 512, 0, ended.append)
    lab.one.nexus.enter(task)
    assert await manage(lab.one, Function.ABORT_TASK, 0, 77) == FunctionResponse.COMPLETE
    assert ended == [task]
    assert task.aborted


async def test_tasks_that_wait_for_an_ordered_one(lab: Lab) -> None:
    [(_, first)] = await lab.start(lab.one)
    waiting = [lab.one.start(READ, attribute=Attribute.ORDERED) for _ in range(3)]
    response = manage(lab.one, Function.ABORT_TASK_SET)
    assert all(answer.done() for _, answer in waiting)
    assert not response.done()
    lab.release()
    await first
    assert await response == FunctionResponse.COMPLETE
