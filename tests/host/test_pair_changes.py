"""pairsplit and pairresync in every state of a pair, against the tables of statuses and meetings; and when one of the
arrays does not do its part."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_changes import SETTLE_SECONDS, carry_out
from arrayd.host.pair_commands import Process
from arrayd.replication.meetings import alone, half, settled, together
from arrayd.replication.statuses import NEED_PEER, NEVER_WHOLE, PEER_SILENT, Operation, Refusal, Side, State, asked
from tests.host.pair_faults import after, losing, refusing
from tests.host.pair_runs import Lab, lab

__all__ = ["lab"]

OPERATIONS = {
    Operation.PAIRSPLIT: "pairsplit",
    Operation.PAIRSPLIT_RW: "pairsplit -rw",
    Operation.PAIRSPLIT_S: "pairsplit -S",
    Operation.PAIRRESYNC: "pairresync",
    Operation.PAIRRESYNC_SWAPS: "pairresync -swaps",
    Operation.PAIRRESYNC_SWAPP: "pairresync -swapp",
}
TURNS = {Operation.PAIRRESYNC_SWAPS, Operation.PAIRRESYNC_SWAPP}
ENDS = [
    (here, there)
    for here, there in product(State, State)
    if settled(here, there) and (here.side, there.side) != (Side.NONE, Side.NONE)
]
"""All that two sides may show of a pair, either side first."""


def outcome(lab: Lab, operation: Operation, here: str = "primary") -> int:
    """The exit code of the verb."""
    try:
        carry_out(lab.arrays(here), operation)
    except CommandFailed as failure:
        return failure.result
    return 0


def expected(here: State, there: State, operation: Operation, consistent: bool) -> tuple[State, State] | Refusal:
    """What both show then, by the tables, where the first is asked."""
    wrong = asked(here, operation)
    return wrong if wrong is not None else together(here, there, operation, consistent=consistent)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("consistent", [True, False])
def test_every_operation_in_every_state(lab: Lab, operation: Operation, consistent: bool) -> None:
    seen = set()
    for here, there in ENDS:
        lab.two.put(here, there, consistent=consistent)
        after_it = expected(here, there, operation, consistent)
        code = outcome(lab, operation)
        seen.add(code)
        if isinstance(after_it, Refusal):
            assert (code, lab.two.states) == (Result.CONFLICT, ({here}, {there})), (here, there)
        else:
            assert (code, lab.two.states) == (0, ({after_it[0]}, {after_it[1]})), (here, there)
    never = {Result.CONFLICT} if operation in TURNS and not consistent else {0, Result.CONFLICT}
    assert seen == ({0} if operation is Operation.PAIRSPLIT_S else never)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_again_is_no_error(lab: Lab, operation: Operation) -> None:
    """What was carried out changes nothing when it is asked for again. A swap is another one then."""
    for here, there in ENDS:
        lab.two.put(here, there)
        if outcome(lab, operation) or operation in TURNS:
            continue
        told = [list(array.told) for array in lab.two.arrays.values()]
        assert outcome(lab, operation) == 0
        assert [array.told for array in lab.two.arrays.values()] == told


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("consistent", [True, False])
def test_every_operation_while_the_other_array_is_silent(lab: Lab, operation: Operation, consistent: bool) -> None:
    for here, there in ENDS:
        lab.two.put(here, there, consistent=consistent)
        lab.two.gone = {"remote"}
        wrong = asked(here, operation)
        after_it = wrong if wrong is not None else alone(here, operation, consistent=consistent)
        code = outcome(lab, operation)
        lab.two.gone = set()
        if isinstance(after_it, State) and operation not in NEED_PEER:
            assert (code, lab.two.states) == (0, ({after_it}, {there})), here
            assert lab.two["primary"].told == [] or lab.two["primary"].told[-1][1]["rows"] is None
        elif here is not State.SMPL:
            assert code == (Result.UNREACHABLE if after_it in (PEER_SILENT, here) else Result.CONFLICT), here
            assert lab.two.states == ({here}, {there})


def test_the_verbs_are_these_operations(lab: Lab) -> None:
    states = {
        Operation.PAIRSPLIT: (State.P_PSUS, State.S_SSUS),
        Operation.PAIRSPLIT_RW: (State.P_PSUS, State.S_SSUS_WRITABLE),
        Operation.PAIRSPLIT_S: (State.SMPL, State.SMPL),
        Operation.PAIRRESYNC: (State.P_COPY, State.S_COPY),
        Operation.PAIRRESYNC_SWAPS: (State.S_COPY, State.P_COPY),
        Operation.PAIRRESYNC_SWAPP: (State.S_COPY, State.P_COPY),
    }
    for operation, (here, there) in states.items():
        suspended = operation.startswith("pairresync")
        lab.two.put(*((State.P_PSUS, State.S_SSUS) if suspended else (State.P_PAIR, State.S_PAIR)))
        at = "remote" if operation is Operation.PAIRRESYNC_SWAPS else "primary"
        assert lab.good(f"{OPERATIONS[operation]} -g oradb --at {at}") == ""
        assert lab.two.states == ({here}, {there})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("pairsplit -g oradb -rw -S", "-r, -rw and -S are three things: one of them"),
        ("pairsplit -g oradb -d log", "-d: a group is split as a whole: -d goes with -S"),
        ("pairsplit -g oradb -S -d lgo", "-d lgo: expected a volume of oradb: data, log"),
        ("pairresync -g oradb -swaps -swapp", "-swaps and -swapp are asked for at two sides: one of them"),
        ("pairresync -g oradb -c 16", "Invalid value for '-c'"),
        ("pairresync", "Missing option '-g'"),
        ("pairresync -g oradc", "/hosts.yaml has no group oradc; did you mean oradb?"),
        ("pairresync -g oradb --at primari", "/hosts.yaml has no array primari; did you mean primary?"),
    ],
)
def test_a_wrong_command_line_is_told(lab: Lab, line: str, reason: str) -> None:
    code, told = lab.bad(line)
    assert code == Result.USAGE
    assert reason in told
    assert lab.two.messages == []


# -- who is told first, and how ----------------------------------------------------------------------------------------


def told_to(lab: Lab) -> list[tuple[str, list[int]]]:
    """The messages that changed something: to whom, with which commands."""
    listed = [(at, [each.process for each in message.requests]) for at, message in zip(
        lab.two.asked, lab.two.messages, strict=True
    )]  # fmt: skip
    return [(at, processes) for at, processes in listed if Process.PAIR_STATUS not in processes]


def test_both_are_asked_in_one_message_and_told_in_one(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    carry_out(lab.arrays(), Operation.PAIRSPLIT)
    assert [len(message.requests) for message in lab.two.messages] == [2, 2]
    assert lab.two.asked == ["primary", "primary"]
    (told,) = lab.two["remote"].told
    assert told == (Process.PAIR_SPLIT, {
        "group": "oradb", "writable": False, "generation": 4,
        "rows": {"generation": 4, "consistent": True, "states": {"0": "P-VOL PAIR", "1": "P-VOL PAIR"}},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "here", "there", "order"),
    [
        (Operation.PAIRSPLIT, State.P_PAIR, State.S_PAIR, ["primary", "remote"]),
        (Operation.PAIRSPLIT, State.S_PAIR, State.P_PAIR, ["remote", "primary"]),
        (Operation.PAIRRESYNC_SWAPP, State.P_PSUS, State.S_SSWS, ["remote", "primary"]),
        (Operation.PAIRRESYNC_SWAPS, State.S_SSWS, State.P_PSUS, ["primary", "remote"]),
        (Operation.PAIRRESYNC, State.P_PSUS, State.S_SSUS, ["primary", "remote"]),
        (Operation.PAIRRESYNC, State.S_SSUS, State.P_PSUS, ["primary", "remote"]),
    ],
)
def test_the_side_that_matters_is_told_first(
    lab: Lab, operation: Operation, here: State, there: State, order: list[str]
) -> None:
    lab.two.put(here, there)
    order_told: list[str] = []
    for name in order:
        process = Process.PAIR_SPLIT if operation is Operation.PAIRSPLIT else Process.PAIR_RESYNC
        lab.two.faults[name, process] = after(lambda name=name: order_told.append(name))  # type: ignore[misc]
    carry_out(lab.arrays(), operation)
    assert order_told == order
    assert len(told_to(lab)) == (1 if order == ["primary", "remote"] else 2)


def test_a_command_device_has_one_command_at_a_time(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    code, reason = lab.bad("pairsplit -g oradb --method command-device")
    assert (code, reason.partition(":")[0]) == (Result.USAGE, "the LUN of primary")  # there is none in this lab


def test_an_epoch_is_greater_than_any_before(lab: Lab) -> None:
    lab.two.put(State.P_PSUS, State.S_SSUS)
    lab.two["remote"].pairs.last_epoch = 9
    carry_out(lab.arrays(), Operation.PAIRRESYNC)
    assert [array.told[-1][1]["epoch"] for array in lab.two.arrays.values()] == [10, 10]
    assert [array.rows.generation for array in lab.two.arrays.values()] == [5, 5]


def test_the_pace_is_set_when_the_pairs_are_resumed(lab: Lab) -> None:
    lab.two.put(State.P_PSUS, State.S_SSUS)
    lab.good("pairresync -g oradb -c 15")
    assert [array.row and array.row.pace for array in lab.two.arrays.values()] == [15, 15]
    lab.two.put(State.P_PSUS, State.S_SSWS)
    lab.bad("pairresync -g oradb -c 9")
    assert [array.row and array.row.pace for array in lab.two.arrays.values()] == [3, 3]


def test_one_pair_ends_alone(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    assert lab.good("pairsplit -g oradb -S -d log") == ""
    assert [array.states for array in lab.two.arrays.values()] == [{0: State.P_PAIR}, {0: State.S_PAIR}]
    assert lab.good("pairsplit -g oradb -S -d log") == ""
    assert lab.good("pairsplit -g oradb -S -d data") == ""
    assert lab.two.states == ({State.SMPL}, {State.SMPL})


# -- when one side does not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["primary", "remote"])
def test_what_the_first_refuses_is_not_told_to_the_second(lab: Lab, first: str) -> None:
    """In one message, or in two."""
    states = (State.P_PAIR, State.S_PAIR) if first == "primary" else (State.S_PAIR, State.P_PAIR)
    lab.two.put(*states)
    lab.two.faults[first, Process.PAIR_SPLIT] = refusing(Result.FAILED, "the disk is full")
    assert lab.bad("pairsplit -g oradb") == (Result.FAILED, f"{first}: the disk is full")
    assert lab.two.states == ({states[0]}, {states[1]})
    assert [array.told for array in lab.two.arrays.values()] == [[], []]


def test_what_the_second_refuses_is_told_with_what_the_first_did(lab: Lab) -> None:
    lab.two.put(State.P_PSUS, State.S_SSUS)
    lab.two.faults["remote", Process.PAIR_RESYNC] = refusing(Result.FAILED, "the disk is full")
    code, reason = lab.bad("pairresync -g oradb")
    assert code == Result.FAILED
    assert reason == (
        "remote: the disk is full; primary has done its part: again, or pairdisplay to see what they show"
    )
    lab.two.meet()
    assert lab.two.states == ({State.P_PSUS}, {State.S_SSUS})
    assert lab.good("pairresync -g oradb") == ""
    assert lab.two.states == ({State.P_COPY}, {State.S_COPY})


def test_a_lost_answer_is_looked_for(lab: Lab) -> None:
    for operation, name in product(OPERATIONS, ("primary", "remote")):
        resync = operation.startswith("pairresync")
        lab.two.put(*((State.P_PSUS, State.S_SSUS) if resync else (State.P_PAIR, State.S_PAIR)))
        here = "remote" if operation is Operation.PAIRRESYNC_SWAPS else "primary"
        process = Process.PAIR_RESYNC if resync else Process.PAIR_SPLIT
        if operation is Operation.PAIRSPLIT_S:
            process = Process.PAIR_DELETE
        lab.two.faults[name, process] = losing
        assert outcome(lab, operation, here) == 0, (operation, name)
        assert settled(*(next(iter(each)) for each in lab.two.states))
        assert not half(*(next(iter(each)) for each in lab.two.states))


def test_a_lost_answer_of_a_side_that_is_gone_then_is_not_known(lab: Lab) -> None:
    lab.two.put(State.P_PSUS, State.S_SSUS)

    def lost(operation: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        lab.two.gone = {"remote"}
        return losing(operation)

    lab.two.faults["remote", Process.PAIR_RESYNC] = lost
    code, reason = lab.bad("pairresync -g oradb")
    assert code == Result.UNREACHABLE
    assert "primary has done its part, whether remote has is not known" in reason


def test_an_array_that_does_not_tell_is_not_gone(lab: Lab) -> None:
    lab.through_primary_alone()
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two.faults["remote", Process.PAIR_STATUS] = refusing(Result.BUSY, "too much to do")
    assert lab.bad("pairsplit -g oradb") == (Result.BUSY, "remote: too much to do")
    assert lab.two.states == ({State.P_PAIR}, {State.S_PAIR})


def test_pairs_that_were_turned_round_are_not_turned_again(lab: Lab) -> None:
    """The answer is lost, and the copy has ended before the host looks."""
    lab.two.put(State.S_SSWS, State.P_PSUS)

    def quick(operation: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        operation()
        lab.two.put(State.P_PAIR, State.S_PAIR, generation=5)
        return losing(dict)

    lab.two.faults["primary", Process.PAIR_RESYNC] = quick
    assert lab.good("pairresync -g oradb -swaps") == ""
    assert lab.two.states == ({State.P_PAIR}, {State.S_PAIR})
    assert [len(array.told) for array in lab.two.arrays.values()] == [1, 0]


def test_with_the_link_down_each_side_is_told_by_itself(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two.link = False
    assert lab.good("pairsplit -g oradb") == ""
    assert lab.two.states == ({State.P_PSUS}, {State.S_SSUS})
    assert lab.two.asked == ["primary", "remote", "primary", "remote"]


def test_sides_that_cannot_meet_are_taken_apart(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    lab.two.link = False
    assert lab.run("horctakeover -g oradb -S").code == 5
    assert lab.bad("pairresync -g oradb -swaps")[0] == Result.CONFLICT
    assert lab.good("pairsplit -g oradb -S") == ""
    assert lab.two.states == ({State.SMPL}, {State.SMPL})
    assert [array.told[-1][1]["rows"] for array in lab.two.arrays.values()] == [None, None]


def test_a_split_goes_on_alone_when_the_other_side_goes_away(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two.faults["primary", Process.PAIR_SPLIT] = after(lambda: lab.two.gone.add("remote"))
    ran = lab.run("pairsplit -g oradb")
    assert (ran.code, ran.out) == (0, "")
    assert "remote: nobody listens" in ran.error
    assert ran.error.rstrip().endswith(": pairsplit on primary alone")
    assert lab.two.states == ({State.P_PSUS}, {State.S_PAIR})


def test_sides_that_have_not_met_are_waited_for(lab: Lab) -> None:
    """P-VOLs that were split while cut off: the S-VOLs' side has not heard of it."""
    lab.two.put(State.P_PSUS, State.S_PAIR)
    assert lab.good("pairresync -g oradb") == ""
    assert lab.two.states == ({State.P_COPY}, {State.S_COPY})
    assert 0 < lab.two.seconds < 1


@pytest.mark.parametrize(("here", "there"), [(State.S_COPY, State.P_PAIR), (State.S_PAIR, State.P_PSUS)])
def test_what_is_refused_before_they_have_met_may_be_taken_then(lab: Lab, here: State, there: State) -> None:
    """A copy that began on one side only, a split that one side has not heard of: both suspend."""
    lab.two.put(here, there)
    if there is State.P_PAIR:
        lab.two.ahead("primary")
    assert lab.good("pairresync -g oradb -swaps") == ""
    assert lab.two.states == ({State.P_COPY}, {State.S_COPY})


def test_the_s_vols_side_knows_whether_they_are_whole(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR, consistent=False)
    lab.two.change("primary", consistent=True)
    assert lab.bad("pairsplit -g oradb -rw") == (Result.CONFLICT, f"remote: {NEVER_WHOLE.text}")
    assert [array.told for array in lab.two.arrays.values()] == [[], []]


def test_sides_that_do_not_meet_are_not_waited_for_for_ever(lab: Lab) -> None:
    lab.two.meets = False
    lab.two.put(State.P_PSUS, State.S_PAIR)
    code, reason = lab.bad("pairresync -g oradb")
    assert code == Result.CONFLICT
    assert reason.endswith("have not told each other yet what became of the pair: again in a moment")
    assert SETTLE_SECONDS <= lab.two.seconds < SETTLE_SECONDS + 2
    assert lab.two.states == ({State.P_PSUS}, {State.S_PAIR})


@pytest.mark.parametrize("operation", [Operation.PAIRSPLIT, Operation.PAIRSPLIT_RW])
def test_an_array_that_heard_of_it_from_the_other_first(lab: Lab, operation: Operation) -> None:
    """The arrays meet between the parts of one message."""
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two.faults["remote", Process.PAIR_SPLIT] = after(lab.two.meet)
    carry_out(lab.arrays(), operation)
    there = State.S_SSUS if operation is Operation.PAIRSPLIT else State.S_SSUS_WRITABLE
    assert lab.two.states == ({State.P_PSUS}, {there})


def test_nobody_answers(lab: Lab) -> None:
    lab.two.gone = {"primary", "remote"}
    code, reason = lab.bad("pairsplit -g oradb")
    assert code == Result.UNREACHABLE
    assert reason == (
        "primary: nobody listens, last heard of at a time unknown; "
        "remote: nobody listens, last heard of at a time unknown"
    )
