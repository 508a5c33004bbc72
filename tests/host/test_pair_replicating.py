"""arrayctl replicate: figure 16's turns at two sides that are played here, and what ends it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.host import pair_replicating as module
from arrayd.host.answers import Command, Ended
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_asking import Arrays
from arrayd.host.pair_commands import Process
from arrayd.host.pair_replicating import NotDriven, Pointers, Replicating, run
from arrayd.host.pair_status import Heard, Silence
from arrayd.host.pair_wait import Sides
from arrayd.replication.exit_codes import EventWait
from arrayd.replication.statuses import State
from tests.host.pair_runs import Lab, lab
from tests.host.pairs import GROUP, said

__all__ = ["lab"]

FIGURE_16 = ["S1603", "S1604", "S1607", "S1609", "S1610"]


class Played(Arrays):
    """Both sides: how many writes the primary journal has and has had purged, what the auxiliary has read and
    restored, and what is left of a copy."""

    def __init__(self) -> None:
        self.group, self.here, self.local, self.remote = GROUP, "primary", "primary", "remote"
        self.heard: dict[str, Heard] = {}
        self.show(State.P_PAIR, State.S_PAIR)
        self.stored = self.purged = self.read = self.restored = self.known = self.left = 0
        self.most = 100
        """Writes that one instruction reads."""
        self.epoch = {"primary": 3, "remote": 3}
        self.being_read = 0
        """Writes that somebody else's instruction reads just now; it has read them when the next one has ended."""
        self.told: list[tuple[str, Process]] = []
        self.fails: dict[Process, Result] = {}

    def show(self, here: State, there: State, driver: str = "host") -> None:
        self.heard = {"primary": said("primary", here, driver=driver), "remote": said("remote", there, driver=driver)}

    def ask(self, *_arrays: str, timeout_s: float = 0.0) -> Sides:
        return Sides(self.group, self.here, self.heard)

    def tell(self, commands: Sequence[Command], *, any_order: bool = False) -> list[Ended]:
        (command,) = commands
        process = Process(int(command.command))
        assert command.input == {"group": "oradb"}
        self.told.append((command.array, process))
        if process in self.fails:
            return [Ended(command.array, process, self.fails[process], reason=f"{command.array}: no")]
        edited = self._carry_out(process, command.array)
        return [Ended(command.array, process, Result.OK, json.loads(json.dumps(edited)))]

    def _carry_out(self, process: Process, array: str) -> dict[str, Any]:
        before = (self.purged, self.read, self.restored, self.left)
        if process is Process.JOURNAL_STATUS:
            return self._journal(array)
        if process is Process.JOURNAL_ACQUIRE:
            self.read, self.known = min(self.stored, self.read + self.most), self.restored
            self.being_read = max(0, self.being_read - 1)
        elif process is Process.JOURNAL_RESTORE:
            self.restored = self.known = min(self.read, self.restored + self.most)
        elif process is Process.JOURNAL_PURGE:
            self.purged = self.known
        else:
            assert process is Process.PAIR_COPY
            self.left = max(0, self.left - 10)
        done = before != (self.purged, self.read, self.restored, self.left)
        return {"group": "oradb", "done": done, "journal": self._journal(array), "left": self.left}

    def _journal(self, array: str) -> dict[str, Any]:
        names = {"journal_out": self.purged, "journal_in": self.stored}
        if self.heard[array].pairs[0 if array == "primary" else 5].state.side == 3:  # type: ignore[union-attr]
            names = {
                "restoration_completed": self.restored,
                "to_be_restored": self.restored,
                "read_completed": self.read,
                "to_be_read": self.read + self.being_read,
            }
        positions = {name: {"sequence": count, "byte": 512 * count} for name, count in names.items()}
        lbas = {f"{name}_lba": 1000 + count for name, count in names.items()}
        return {"epoch": self.epoch[array], "lbas": lbas, "positions": positions}


@pytest.fixture
def played() -> Played:
    return Played()


def turns(played: Played, count: int = 1) -> tuple[list[dict[str, Any]], list[bool]]:
    told: list[dict[str, Any]] = []
    driving = Replicating(played, told.append)
    return told, [driving.turn() for _ in range(count)]


def test_figure_16_a_turn(played: Played) -> None:
    played.stored = 7
    told, did = turns(played)
    assert did == [True]
    assert [each["step"] for each in told] == [None, *FIGURE_16]
    assert [each["array"] for each in told[1:]] == ["primary", "remote", "remote", "remote", "primary"]
    assert played.told == [
        ("primary", Process.JOURNAL_STATUS),
        ("remote", Process.JOURNAL_ACQUIRE),
        ("remote", Process.JOURNAL_STATUS),
        ("remote", Process.JOURNAL_RESTORE),
        ("primary", Process.JOURNAL_PURGE),
    ]
    assert told[1]["result"] == "journal-out LBA 1000 (0), journal-in LBA 1007 (7)"
    assert told[-1]["result"] == "journal-out LBA 1007 (7), journal-in LBA 1007 (7)"
    assert told[3]["sequences"]["read_completed"] == 7
    assert told[0]["pairs"] == {"primary": "P-VOL PAIR", "remote": "S-VOL PAIR"}


def test_all_up_to_journal_in_is_acquired_and_restored(played: Played) -> None:
    """Each instruction does some of it (S1608)."""
    played.stored, played.most = 5, 2
    told, _ = turns(played)
    steps = [each["step"] for each in told[1:]]
    assert steps == ["S1603", *["S1604", "S1607"] * 3, *["S1609"] * 3, "S1610"]
    assert (played.restored, played.purged) == (5, 5)


def test_what_is_being_read_is_waited_for(played: Played) -> None:
    """To-be-read is beyond read-completed (S1608)."""
    played.stored = played.being_read = 2
    told, _ = turns(played)
    assert [each["step"] for each in told[1:6]] == ["S1603", *["S1604", "S1607"] * 2]


def test_after_the_first_turn_only_what_is_new_is_told(played: Played) -> None:
    played.stored = 3
    told, did = turns(played, 4)
    assert did == [True, False, False, False]
    assert [each["step"] for each in told] == [None, *FIGURE_16, "S1603", "S1607"], "what has moved"


def test_where_there_is_no_room_the_turn_goes_on_to_restore(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACQUISITIONS_A_TURN", 3)
    played.stored, played.most = 5, 1
    turns(played)
    assert (played.read, played.purged) == (3, 3)
    played.most = 0
    played.read = 4
    turns(played)
    assert played.told[-5:-2] == [
        ("primary", Process.JOURNAL_STATUS),
        ("remote", Process.JOURNAL_ACQUIRE),
        ("remote", Process.JOURNAL_STATUS),
    ]


def test_figure_11_a_copy_goes_first_and_hosts_write_meanwhile(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COPIES_A_TURN", 2)
    played.show(State.P_COPY, State.S_COPY)
    played.left, played.stored = 25, 4
    told, did = turns(played, 3)
    copied = [each["result"] for each in told if each["step"] == "S1103"]
    assert copied == ["5 bytes are left", "nothing is left"]
    assert (played.restored, did) == (4, [True, True, False])


def test_after_a_swap_it_goes_on_the_other_way_round(played: Played) -> None:
    played.show(State.S_PAIR, State.P_PAIR)
    played.stored = 1
    told, _ = turns(played)
    assert [each["array"] for each in told[1:]] == ["remote", "primary", "primary", "primary", "remote"]


def test_journals_of_two_epochs_are_not_compared(played: Played) -> None:
    played.stored, played.epoch["remote"] = 5, 2
    told, _ = turns(played)
    assert [each["step"] for each in told[1:]] == ["S1603", "S1604", "S1607"]
    assert played.restored == 0


@pytest.mark.parametrize(
    ("states", "driver", "result", "reason"),
    [
        (
            (State.P_PSUS, State.S_SSUS),
            "host",
            EventWait.SUSPENDED,
            "it is suspended, pairresync first: data P-VOL PSUS",
        ),
        (
            (State.P_PAIR, State.S_SSWS),
            "host",
            EventWait.SUSPENDED,
            "it is suspended, pairresync first: data S-VOL SSWS",
        ),
        ((State.SMPL, State.SMPL), "host", Result.CONFLICT, "group oradb has no pairs: paircreate first"),
        ((State.P_PAIR, State.S_PAIR), "arrays", Result.CONFLICT, "group oradb is driven by the arrays"),
        ((State.S_PAIR, State.S_PAIR), "host", Result.CONFLICT, "the two sides of group oradb have not met"),
    ],
)
def test_what_no_host_drives(
    played: Played, states: tuple[State, State], driver: str, result: int, reason: str
) -> None:
    played.show(*states, driver=driver)
    with pytest.raises(CommandFailed) as failed:
        turns(played)
    assert failed.value.result == result
    assert failed.value.reason.startswith(reason)
    assert played.told == []
    assert isinstance(failed.value, NotDriven) is (driver == "arrays" or states[0] is State.SMPL)


def test_a_side_that_is_silent_ends_the_turn(played: Played) -> None:
    played.heard["remote"] = Silence("remote: no link", None, Result.UNDELIVERABLE)
    with pytest.raises(CommandFailed) as failed:
        turns(played)
    assert (failed.value.result, failed.value.reason) == (Result.UNDELIVERABLE, "remote: no link")


def test_a_step_that_fails_ends_the_turn_with_its_reason(played: Played) -> None:
    played.fails[Process.JOURNAL_RESTORE] = Result.FAILED
    with pytest.raises(CommandFailed) as failed:
        turns(played)
    assert (failed.value.result, failed.value.reason) == (Result.FAILED, "remote: no")


@pytest.mark.parametrize("told", [None, {}, {"epoch": 1, "lbas": [], "positions": {}}, {"epoch": "x"}, [1]])
def test_an_answer_that_is_no_journal(told: Any) -> None:
    with pytest.raises(CommandFailed) as failed:
        Pointers.read(told, "remote")
    assert failed.value.result == Result.INTERNAL


# -- turn after turn ---------------------------------------------------------------------------------------------------


class Turns:
    """Turns that end as is said, one after the other, and what is done between them."""

    def __init__(self, *ends: bool | int) -> None:
        self.ends = list(ends)
        self.pauses: list[float] = []
        self.complaints: list[str] = []

    def turn(self) -> bool:
        end = self.ends.pop(0)
        if isinstance(end, bool):
            return end
        raise CommandFailed(end, "no link" if end != Result.BAD_INPUT else "what", "remote")

    def run(self, turns: int | None) -> None:
        run(self.turn, turns, 0.5, self.pauses.append, self.complaints.append)


def test_it_pauses_where_there_is_nothing_to_do() -> None:
    made = Turns(True, False, True, False)
    made.run(4)
    assert (made.ends, made.pauses, made.complaints) == ([], [0.5], [])


def test_what_may_go_well_later_is_said_once_and_tried_again() -> None:
    link, busy = Result.UNDELIVERABLE, Result.BUSY
    made = Turns(link, link, True, busy, True)
    made.run(5)
    assert made.complaints == ["remote: no link", "remote: no link"]
    assert made.pauses == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "ends", [[True, int(Result.UNDELIVERABLE)], [int(EventWait.SUSPENDED), True], [int(Result.BAD_INPUT), True]]
)
def test_the_last_turn_and_what_never_goes_well_end_it(ends: list[Any]) -> None:
    made = Turns(*ends)
    with pytest.raises(CommandFailed) as failed:
        made.run(2)
    assert failed.value.result == next(end for end in ends if end is not True)
    assert made.complaints == []


def test_a_group_that_no_host_drives_is_not_tried_again() -> None:
    def turn() -> bool:
        raise NotDriven(Result.CONFLICT, "the arrays drive")

    with pytest.raises(NotDriven):
        run(turn, None, 0.5, lambda _: None, lambda _: None)


def test_interrupted_it_ends() -> None:
    def turn() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(turn, None, 0.5, lambda _: None, lambda _: None)


# -- the verb ----------------------------------------------------------------------------------------------------------


def test_the_verb_says_why_not(lab: Lab) -> None:
    assert lab.bad("replicate -g oradb --once")[0] == Result.CONFLICT
    assert lab.bad("replicate -g oradb --once -n 2") == (
        Result.USAGE,
        "--once and -n are two numbers of turns: one of them. Try: arrayctl replicate --help",
    )
    assert lab.bad("replicate -g nothing")[0] == Result.USAGE
    lab.two.put(State.P_PSUS, State.S_SSUS)
    assert lab.bad("replicate -g oradb") == (
        EventWait.SUSPENDED,
        "primary: it is suspended, pairresync first: data P-VOL PSUS, log P-VOL PSUS",
    )
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two["primary"].more["driver"] = "host"
    lab.two.gone = {"remote"}
    assert lab.bad("replicate -g oradb --once")[0] == Result.UNREACHABLE
