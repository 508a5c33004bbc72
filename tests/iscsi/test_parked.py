"""Answers to writes that were parked: many in one go are the same bytes as each by itself."""

from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi.numbers import Numbers
from arrayd.iscsi.responder import RESPONSE_BYTES, Responder
from arrayd.output import Output
from arrayd.scsi.task import Commit, Status

U32 = st.integers(0, (1 << 32) - 1)


def responder(numbers: tuple[int, int], parked: int, room: int) -> Responder:
    made = Responder(Output(4096), Numbers(*numbers), False, False, 8192, 65536, lambda task: None)
    made.numbers.parked = parked
    made.output.tail = made.output.head = 4096 - room
    return made


@given(st.tuples(U32, U32), st.lists(U32, min_size=1, max_size=100), st.integers(0, 100), st.integers(0, 4096))
def test_good_answers_in_one_go(numbers: tuple[int, int], tags: list[int], others: int, room: int) -> None:
    together = responder(numbers, len(tags) + others, room)
    apart = responder(numbers, len(tags) + others, room)
    together.committed.append((Commit(), list(tags)))
    left = list(tags)
    while left and apart._pack_response(left[-1], Status.GOOD, b"", True):
        left.pop()
    together.pump()
    assert together.output.view[: together.output.tail] == apart.output.view[: apart.output.tail]
    for name in ("exp_cmd_sn", "stat_sn", "parked"):
        assert getattr(together.numbers, name) == getattr(apart.numbers, name)
    assert together.waiting == bool(left)
    if left:
        assert together.committed[0][1] == left
        assert apart.output.room < RESPONSE_BYTES
